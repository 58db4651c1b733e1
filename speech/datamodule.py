"""Batches of log-mel features for Lightning: computed once, kept in memory, fetched by one indexing operation.

The order of a training epoch and its augmentation depend on (seed, epoch) alone, so a run resumed at epoch k sees
exactly the batches of a run that was never interrupted. What this module does not do: read features from disk (a data
set must fit in memory) or split the work over several processes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from speech.augmentation import Augmentation, AugmentationConfig, keyed_uniform
from speech.features import LogMel, LogMelConfig, pad_waveforms
from speech.utterances import SpeechSource, SpeechSplits, Utterances

_CLIPS_PER_TRANSFORM = 128  # bounds the memory of the spectrograms, not the result


class SpeechBatch(NamedTuple):
    """features float32 `[B, T, N]`, 0 past each length; lengths, labels and sample_ids int64 `[B]`.

    A sample id is the position of the clip in its split's `Utterances`.
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
    """The features of one split: float32 `[n, T, N]`, int64 lengths and labels `[n]`; indexed by a whole batch."""

    features: torch.Tensor
    lengths: torch.Tensor
    labels: torch.Tensor
    augmentation: Augmentation | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, draw: Draw) -> SpeechBatch:
        """The samples of `draw`, augmented if this set has an augmentation, trimmed to the longest of them."""
        sample_ids = draw.sample_ids
        lengths = self.lengths[sample_ids]
        features = self.features[sample_ids, : int(lengths.max())]
        if self.augmentation is not None:
            features, lengths = self.augmentation(features, lengths, sample_ids, draw.epoch)
        return SpeechBatch(features, lengths, self.labels[sample_ids], sample_ids)


def featurise(utterances: Utterances, log_mel: LogMel, augmentation: Augmentation | None = None) -> FeatureSet:
    """Compute the features of all clips. Raises `ValueError` when the clips have another rate than the front end."""
    if utterances.sample_rate_hz != log_mel.config.input_rate_hz:
        raise ValueError(
            f"got clips of {utterances.sample_rate_hz} Hz for a front end of {log_mel.config.input_rate_hz} Hz; "
            "use the preset for this rate (gsc_8k for 8 kHz, gsc for 16 kHz)"
        )
    parts = []
    with torch.no_grad():
        for start in range(0, len(utterances), _CLIPS_PER_TRANSFORM):
            parts.append(log_mel(*pad_waveforms(utterances.waveforms[start : start + _CLIPS_PER_TRANSFORM])))
    return FeatureSet(
        features=torch.cat([features for features, _ in parts]),
        lengths=torch.cat([lengths for _, lengths in parts]),
        labels=torch.from_numpy(utterances.labels),
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


class SpeechDataModule(lightning.LightningDataModule):
    """Train, validation and test batches of one speech source.

    The training batches are shuffled and augmented by (seed, epoch, sample id), the others come in order and untouched.
    The features of the test clips are not computed before `test_dataloader` is called.
    """

    def __init__(
        self,
        source: SpeechSource,
        features: LogMelConfig,
        augmentation: AugmentationConfig | None = None,
        *,
        batch_size: int = 32,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        self.source = source
        self.features = features
        self.augmentation = augmentation.build(features, seed) if augmentation is not None else None
        self.batch_size = batch_size
        self.seed = seed
        self.num_workers = num_workers
        self._splits: SpeechSplits | None = None
        self._log_mel: LogMel | None = None
        self._sets: dict[str, FeatureSet] = {}

    def setup(self, stage: str | None = None) -> None:
        """Read the source, once; each split is turned into features when first asked for."""
        if self._splits is None:
            self._splits = self.source.build()
            self._log_mel = self.features.build()

    @property
    def splits(self) -> SpeechSplits:
        """The three sets of clips. Raises `RuntimeError` before `setup`."""
        if self._splits is None:
            raise RuntimeError("the data are not there yet; call setup() first")
        return self._splits

    @property
    def n_inputs(self) -> int:
        """Channels of a feature frame."""
        return self.features.n_mels

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.splits.train.class_names

    @property
    def n_classes(self) -> int:
        return len(self.class_names)

    @property
    def test_utterances(self) -> Utterances:
        """The test clips as waveforms; a batch's sample ids are positions in it."""
        return self.splits.test

    @property
    def train_set(self) -> FeatureSet:
        """Training features, with the augmentation."""
        return self._set("train", self.splits.train, self.augmentation)

    @property
    def valid_set(self) -> FeatureSet:
        return self._set("valid", self.splits.valid, None)

    @property
    def test_set(self) -> FeatureSet:
        return self._set("test", self.splits.test, None)

    def train_dataloader(self) -> DataLoader[SpeechBatch]:
        return self._loader(self.train_set, shuffle=True)

    def val_dataloader(self) -> DataLoader[SpeechBatch]:
        return self._loader(self.valid_set, shuffle=False)

    def test_dataloader(self) -> DataLoader[SpeechBatch]:
        return self._loader(self.test_set, shuffle=False)

    def _set(self, name: str, utterances: Utterances, augmentation: Augmentation | None) -> FeatureSet:
        if name not in self._sets:
            assert self._log_mel is not None  # set together with the splits
            self._sets[name] = featurise(utterances, self._log_mel, augmentation)
        return self._sets[name]

    def _loader(self, features: FeatureSet, *, shuffle: bool) -> DataLoader[SpeechBatch]:
        batches = EpochBatches(len(features), self.batch_size, seed=self.seed, shuffle=shuffle)
        # batch_size=None: the sampler already hands out whole batches, nothing is left to collate.
        return DataLoader(features, sampler=batches, batch_size=None, num_workers=self.num_workers)
