"""Batches of pictures or of frames for Lightning: read when first asked for, fetched by one indexing operation.

The order of an epoch, its augmentation and its mixtures depend on (seed, epoch) alone, so a run resumed at epoch
k sees exactly the batches of one that was never interrupted, with any number of loader workers.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from vision.augmentation import EventAugmentation, ImageAugmentation, keyed
from vision.frame_cache import FrameCache
from vision.frames import EventFramesConfig, PixelsConfig
from vision.mixing import MixingConfig, mix, smoothed
from vision.samples import Samples, VisionSplits

CACHE_MB = 2000.0
SHUFFLE, MIX = 1, 2  # purposes of keyed random numbers
NOT_SET_UP = "the data are not there yet; call setup() first"


class VisionBatch(NamedTuple):
    """frames float32: pictures `[B, C, H, W]`, events `[T, B, 2, H, W]`. labels, sample_ids int64 `[B]`.

    targets: `[B, classes]` where labels are smoothed or mixed, else None. A sample id is a position in its split.
    """

    frames: Tensor
    labels: Tensor
    targets: Tensor | None
    sample_ids: Tensor


class Draw(NamedTuple):
    """What a sampler hands to a set: which samples, in which epoch."""

    epoch: int
    sample_ids: Tensor


class Memory:
    """Bytes that may still be kept; the sets of one data module share them."""

    def __init__(self, megabytes: float) -> None:
        if megabytes < 0:
            raise ValueError(f"cache_mb must not be negative, got {megabytes}; use 0 for no cache")
        self.free_bytes = int(megabytes * 1e6)


class FrameSet(Dataset[VisionBatch]):
    """The samples of one split as a network is shown them, indexed by a whole batch.

    `smoothing` and `mixing` make targets of the labels; both are for training. times_scored: how often a whole set
    was put before a model (`vision.training.predict`).
    """

    def __init__(
        self, samples: Samples, features: PixelsConfig | EventFramesConfig, memory: Memory | None = None, *,
        augmentation: ImageAugmentation | EventAugmentation | None = None, mixing: MixingConfig | None = None,
        smoothing: float = 0.0, seed: int = 0,
    ) -> None:  # fmt: skip
        if isinstance(features, EventFramesConfig) != (samples.sensor is not None):
            wanted = "event_frames (features=frames)" if samples.sensor else "pixels"
            raise ValueError(f"features of {features.kind} do not fit these data, which need {wanted}")
        self.samples, self.features, self.memory = samples, features, memory or Memory(CACHE_MB)
        self.augmentation, self.mixing, self.smoothing, self.seed = augmentation, mixing, smoothing, seed
        self.labels = torch.from_numpy(samples.labels)
        self.n_classes = len(samples.class_names)
        self.times_scored = 0
        self.on_disk = (
            FrameCache(features, samples) if isinstance(features, EventFramesConfig) and features.cache else None
        )
        self._kept: dict[int, Any] = {}  # sample -> picture as stored, or its frames

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, draw: Draw) -> VisionBatch:
        """The samples of `draw`, augmented and mixed if this set is."""
        ids = draw.sample_ids
        labels = self.labels[ids].clone()
        shown = []
        for row, sample in enumerate(ids.tolist()):
            frames, flipped = self._shown(sample, draw.epoch)
            shown.append(frames)
            if flipped and self.samples.mirrored is not None:
                labels[row] = self.samples.mirrored[int(labels[row])]
        stacked = torch.stack(shown)  # [B, …, H, W]
        targets = None
        if self.smoothing or self.mixing is not None:
            targets = smoothed(labels, self.n_classes, self.smoothing)
            if self.mixing is not None and self.mixing.mixes(draw.epoch):
                generator = keyed(self.seed, draw.epoch, int(ids[0]), MIX)
                stacked, targets = mix(stacked, targets, self.mixing, generator)
        if stacked.dim() == 5:
            stacked = stacked.transpose(0, 1).contiguous()
        return VisionBatch(stacked, labels, targets, ids)

    def _shown(self, sample: int, epoch: int) -> tuple[Tensor, bool]:
        """One sample as a network sees it, and whether it was mirrored and may need another label."""
        content = self._content(sample)
        if isinstance(self.features, EventFramesConfig):
            if isinstance(self.augmentation, EventAugmentation):
                return self.augmentation(content, sample, epoch)
            return content, False
        if isinstance(self.augmentation, ImageAugmentation):
            return self.augmentation(content, sample, epoch, self.samples.full_scale), False
        return self.features.frames(content, self.samples.full_scale), False

    def _content(self, sample: int) -> Any:
        """The picture as stored, or the frames of a recording; kept while there is room."""
        if sample in self._kept:
            return self._kept[sample]
        try:
            if isinstance(self.features, PixelsConfig):
                made: Any = self.samples.content[sample]
            elif self.on_disk is not None:
                made = self.on_disk.frames(sample)
            else:
                assert self.samples.sensor is not None
                made = self.features.frames(self.samples.content[sample], self.samples.sensor)
        except ValueError as error:
            raise ValueError(f"sample {self.samples.names[sample]}: {error}") from error
        if made.nbytes <= self.memory.free_bytes:
            self.memory.free_bytes -= made.nbytes
            self._kept[sample] = made
        return made


class EpochBatches(Sampler[Draw]):
    """Batches of sample ids, shuffled by (seed, epoch) or in order; Lightning calls `set_epoch` before each epoch."""

    def __init__(self, n_samples: int, batch_size: int, *, seed: int, shuffle: bool) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}; use for example 64")
        self.n_samples, self.batch_size, self.seed, self.shuffle = n_samples, batch_size, seed, shuffle
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.n_samples // self.batch_size)

    def __iter__(self) -> Iterator[Draw]:
        order = np.arange(self.n_samples)
        if self.shuffle:
            order = keyed(self.seed, self.epoch, 0, SHUFFLE).permutation(self.n_samples)
        for sample_ids in torch.from_numpy(order).split(self.batch_size):
            yield Draw(self.epoch, sample_ids)


class VisionDataModule(lightning.LightningDataModule):
    """Train, validation and test batches of one source.

    Training batches are shuffled, augmented and mixed, the others come in order and untouched. No test sample is read
    before the test set is asked for a batch. `cache_mb` bounds what is kept in memory.
    """

    def __init__(
        self, source: Any, features: PixelsConfig | EventFramesConfig, augmentation: Any = None, *,
        batch_size: int = 64, seed: int = 0, num_workers: int = 0, cache_mb: float = CACHE_MB, smoothing: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.source, self.features, self.mixing = source, features, augmentation
        self.augmentation = augmentation.build(features, seed) if augmentation is not None else None
        self.batch_size, self.seed, self.num_workers, self.smoothing = batch_size, seed, num_workers, smoothing
        self.memory = Memory(cache_mb)
        self._splits: VisionSplits | None = None
        self._sets: dict[str, FrameSet] = {}

    def setup(self, stage: str | None = None) -> None:
        """Read the source, once. Raises ValueError, with the remedy, when the features are for other data."""
        if self._splits is None:
            splits = self.source.build()
            for name, samples in splits._asdict().items():
                extra: dict[str, Any] = {}
                if name == "train":
                    extra = {"augmentation": self.augmentation, "mixing": self.mixing, "smoothing": self.smoothing}
                self._sets[name] = FrameSet(samples, self.features, self.memory, seed=self.seed, **extra)
            self._splits = splits

    @property
    def splits(self) -> VisionSplits:
        """The three sets of samples. Raises `RuntimeError` before `setup`."""
        if self._splits is None:
            raise RuntimeError(NOT_SET_UP)
        return self._splits

    @property
    def n_inputs(self) -> int:
        """Channels of a frame."""
        return self.features.n_channels

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.splits.train.class_names

    @property
    def n_classes(self) -> int:
        return len(self.class_names)

    @property
    def train_set(self) -> FrameSet:
        return self._set("train")

    @property
    def valid_set(self) -> FrameSet:
        return self._set("valid")

    @property
    def test_set(self) -> FrameSet:
        return self._set("test")

    def train_dataloader(self) -> DataLoader[VisionBatch]:
        return self._loader(self.train_set, shuffle=True)

    def val_dataloader(self) -> DataLoader[VisionBatch]:
        return self._loader(self.valid_set, shuffle=False)

    def test_dataloader(self) -> DataLoader[VisionBatch]:
        return self._loader(self.test_set, shuffle=False)

    def _set(self, name: str) -> FrameSet:
        if not self._sets:
            raise RuntimeError(NOT_SET_UP)
        return self._sets[name]

    def _loader(self, frames: FrameSet, *, shuffle: bool) -> DataLoader[VisionBatch]:
        return DataLoader(
            frames,
            sampler=EpochBatches(len(frames), self.batch_size, seed=self.seed, shuffle=shuffle),
            batch_size=None,  # the sampler already hands out whole batches, nothing is left to collate
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
        )
