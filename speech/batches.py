"""Batches of frames: made clip by clip when first asked for, fetched by one indexing operation."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from spikeloom.accel.common.batches import CACHE_MB, BatchIndex, CacheBudget
from spikeloom.speech.augmentation import keyed_uniform
from spikeloom.speech.datasets.clips import Clips
from spikeloom.speech.features.frames import Augment, CachedFrames, Change, FrontEnd, RecordingAugment


class SpeechBatch(NamedTuple):
    """features float32 `[B, T, N]`, 0 past each length; lengths, labels and sample_ids int64 `[B]`.

    A sample id is the position of the clip in its split.
    """

    features: torch.Tensor
    lengths: torch.Tensor
    labels: torch.Tensor
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

    def __getitem__(self, index: BatchIndex) -> SpeechBatch:
        """The samples of `index`, augmented if this set has an augmentation, as long as the longest of them."""
        sample_ids = index.sample_ids
        augmentation, epoch = self.augmentation, index.epoch
        change: Change | None = None
        if isinstance(augmentation, RecordingAugment):
            change = partial(_changed, augmentation, epoch)
        features, lengths = self.frames.batch(sample_ids.tolist(), change)
        if augmentation is not None:
            features, lengths = augmentation(features, lengths, sample_ids, epoch)
        return SpeechBatch(features, lengths, self.labels[sample_ids], sample_ids)

    def with_augmentation(self, augmentation: Augment | None) -> "FeatureSet":
        """The same frames, augmented otherwise or (None) not at all; nothing is computed twice."""
        return replace(self, augmentation=augmentation)

    def through(self, front_end: FrontEnd, augmentation: Augment | None = None) -> "FeatureSet":
        """The same clips through another front end, for instance at another time resolution; nothing is computed yet.

        Raises `ValueError` when the front end is for clips of another kind or rate.
        """
        return replace(self, frames=self.frames.through(front_end), augmentation=augmentation)


def _changed(augmentation: RecordingAugment, epoch: int, recording: Any, sample_id: int) -> Any:
    return augmentation.recording(recording, sample_id, epoch)


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


def speech_order(seed: int, epoch: int, n: int) -> torch.Tensor:
    """The order of a training epoch: clips sorted by a number drawn for each from (seed, epoch, clip)."""
    keys = keyed_uniform(seed, epoch, np.arange(n), 1)[:, 0]
    return torch.from_numpy(np.argsort(keys, kind="stable"))
