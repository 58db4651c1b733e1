"""Batches of frames: made clip by clip when first asked for, fetched by one indexing operation.

The order of a training epoch and its augmentation depend on (seed, epoch) alone, so a run resumed at epoch k sees
exactly the batches of a run that was never interrupted, with any number of loader workers.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from speech.augmentation import keyed_uniform
from speech.clips import Clips
from speech.frames import CACHE_MB, Augment, CacheBudget, CachedFrames, FrontEnd


class SpeechBatch(NamedTuple):
    """features float32 `[B, T, N]`, 0 past each length; lengths, labels and sample_ids int64 `[B]`.

    A sample id is the position of the clip in its split.
    """

    features: torch.Tensor
    lengths: torch.Tensor
    labels: torch.Tensor
    sample_ids: torch.Tensor


class Draw(NamedTuple):
    """What a sampler hands to the features: which samples, in which epoch."""

    epoch: int
    sample_ids: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class FeatureSet(Dataset[SpeechBatch]):
    """The clips of one split as a front end shows them, indexed by a whole batch; int64 labels `[n]`."""

    frames: CachedFrames
    labels: torch.Tensor
    augmentation: Augment | None = None

    @property
    def budget(self) -> CacheBudget:
        return self.frames.budget

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, draw: Draw) -> SpeechBatch:
        """The samples of `draw`, augmented if this set has an augmentation, as long as the longest of them."""
        sample_ids = draw.sample_ids
        features, lengths = self.frames.batch(sample_ids.tolist())
        if self.augmentation is not None:
            features, lengths = self.augmentation(features, lengths, sample_ids, draw.epoch)
        return SpeechBatch(features, lengths, self.labels[sample_ids], sample_ids)

    def with_augmentation(self, augmentation: Augment | None) -> "FeatureSet":
        """The same frames, augmented otherwise or (None) not at all; nothing is computed twice."""
        return replace(self, augmentation=augmentation)

    def through(self, front_end: FrontEnd, augmentation: Augment | None = None) -> "FeatureSet":
        """The same clips through another front end, for instance at another time resolution; nothing is computed yet.

        Raises `ValueError` when the front end is for clips of another kind or rate.
        """
        return replace(self, frames=self.frames.through(front_end), augmentation=augmentation)


def featurise(
    clips: Clips[Any], front_end: FrontEnd, augmentation: Augment | None = None, budget: CacheBudget | None = None
) -> FeatureSet:
    """The features of all clips, each computed when first asked for. Without a `budget` they may take `CACHE_MB`.

    Raises `ValueError` when the front end is for clips of another kind or rate.
    """
    return FeatureSet(
        frames=CachedFrames(clips, front_end, budget or CacheBudget(CACHE_MB)),
        labels=torch.from_numpy(clips.labels),
        augmentation=augmentation,
    )


class EpochBatches(Sampler[Draw]):
    """Batches of sample ids, shuffled by (seed, epoch) or in order; Lightning calls `set_epoch` before each epoch."""

    def __init__(self, n_samples: int, batch_size: int, *, seed: int, shuffle: bool) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}; use for example 32")
        self.n_samples = n_samples
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.n_samples // self.batch_size)

    def __iter__(self) -> Iterator[Draw]:
        order = torch.arange(self.n_samples)
        if self.shuffle:
            keys = keyed_uniform(self.seed, self.epoch, np.arange(self.n_samples), 1)[:, 0]
            order = torch.from_numpy(np.argsort(keys, kind="stable"))
        for sample_ids in order.split(self.batch_size):
            yield Draw(self.epoch, sample_ids)


class DrawnSet(Protocol):
    """A set that is indexed by a whole batch."""

    def __len__(self) -> int: ...

    def __getitem__(self, draw: Draw) -> Any: ...


def batch_loader(
    features: DrawnSet, *, batch_size: int, seed: int, shuffle: bool, num_workers: int = 0
) -> DataLoader[Any]:
    """Loader of such a set. Workers live through all epochs, and so keep the frames they made."""
    return DataLoader(
        features,  # type: ignore[arg-type]
        sampler=EpochBatches(len(features), batch_size, seed=seed, shuffle=shuffle),
        batch_size=None,  # the sampler already hands out whole batches, nothing is left to collate
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        worker_init_fn=_share_budget,
    )


def _share_budget(worker_id: int) -> None:
    """In a worker: its part of the cache; half of the whole is for the other loader, of training or validation."""
    worker = get_worker_info()
    assert worker is not None
    budget = getattr(worker.dataset, "budget", None)  # of a `FeatureSet`, or of a set made of them
    if budget is not None:
        budget.free_bytes //= 2 * worker.num_workers


