"""Batches of pictures or of frames for Lightning: read when first asked for, fetched by one indexing operation.

Augmentation and mixtures depend on (seed, epoch, sample) alone, whatever the loader workers.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from spikeloom.accel.common.batches import CACHE_MB, BatchIndex, CacheBudget
from spikeloom.accel.common.datamodule import DataSpec, SplitDataModule
from spikeloom.vision.datasets.frame_cache import FrameCache
from spikeloom.vision.datasets.samples import Samples, VisionSplits
from spikeloom.vision.transforms.augmentation import EventAugmentation, ImageAugmentation, keyed
from spikeloom.vision.transforms.frames import EventFramesConfig, PixelsConfig
from spikeloom.vision.transforms.mixing import MixingConfig, mix, smoothed

SHUFFLE, MIX = 1, 2  # purposes of keyed random numbers


class VisionBatch(NamedTuple):
    """frames float32: pictures `[B, C, H, W]`, events `[T, B, 2, H, W]`. labels, sample_ids int64 `[B]`.

    targets: `[B, classes]` where labels are smoothed or mixed, else None. A sample id is a position in its split.
    """

    frames: Tensor
    labels: Tensor
    targets: Tensor | None
    sample_ids: Tensor


class FrameSet(Dataset[VisionBatch]):
    """The samples of one split as a network is shown them, indexed by a whole batch.

    `smoothing` and `mixing` make targets of the labels; both are for training. times_scored: how often a whole set
    was put before a model (`spikeloom.vision.models.prediction.predict`).
    """

    def __init__(
        self, samples: Samples, features: PixelsConfig | EventFramesConfig, budget: CacheBudget | None = None, *,
        augmentation: ImageAugmentation | EventAugmentation | None = None, mixing: MixingConfig | None = None,
        smoothing: float = 0.0, seed: int = 0,
    ) -> None:  # fmt: skip
        if isinstance(features, EventFramesConfig) != (samples.sensor is not None):
            wanted = "event_frames (features=frames)" if samples.sensor else "pixels"
            raise ValueError(f"features of {features.kind} do not fit these data, which need {wanted}")
        self.samples, self.features, self.budget = samples, features, budget or CacheBudget(CACHE_MB)
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

    def __getitem__(self, index: BatchIndex) -> VisionBatch:
        """The samples of `index`, augmented and mixed if this set is."""
        ids = index.sample_ids
        labels = self.labels[ids].clone()
        shown = []
        for row, sample in enumerate(ids.tolist()):
            frames, flipped = self._shown(sample, index.epoch)
            shown.append(frames)
            if flipped and self.samples.mirrored is not None:
                labels[row] = self.samples.mirrored[int(labels[row])]
        stacked = torch.stack(shown)  # [B, …, H, W]
        targets = None
        if self.smoothing or self.mixing is not None:
            targets = smoothed(labels, self.n_classes, self.smoothing)
            if self.mixing is not None and self.mixing.mixes(index.epoch):
                generator = keyed(self.seed, index.epoch, int(ids[0]), MIX)
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
        if self.budget.take(made.nbytes):
            self._kept[sample] = made
        return made


def vision_order(seed: int, epoch: int, n: int) -> Tensor:
    """The order of a training epoch."""
    return torch.from_numpy(keyed(seed, epoch, 0, SHUFFLE).permutation(n))


class VisionDataModule(SplitDataModule):
    """Train, validation and test batches of one source of pictures or event recordings.

    Args:
        source: where the samples come from, and how they are split.
        features: how a sample becomes what the network takes.
        augmentation: of the training samples, with their mixtures; None for none.
        smoothing: of the training labels, in [0, 1).
        batch_size, seed, num_workers, cache_mb: as in `SplitDataModule`.
    """

    def __init__(
        self, source: Any, features: PixelsConfig | EventFramesConfig, augmentation: Any = None, *,
        batch_size: int = 64, seed: int = 0, num_workers: int = 0, cache_mb: float = CACHE_MB, smoothing: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(
            batch_size=batch_size, seed=seed, num_workers=num_workers, cache_mb=cache_mb, order=vision_order
        )
        self.source, self.features, self.mixing, self.smoothing = source, features, augmentation, smoothing
        self.augmentation = augmentation.build(features, seed) if augmentation is not None else None

    def read(self) -> tuple[VisionSplits, dict[str, FrameSet]]:
        """Raises ValueError, with the remedy, when the features are for other data."""
        splits = self.source.build()
        training = {"augmentation": self.augmentation, "mixing": self.mixing, "smoothing": self.smoothing}
        return splits, {
            name: FrameSet(samples, self.features, self.budget, seed=self.seed, **(training if name == "train" else {}))
            for name, samples in splits._asdict().items()
        }

    @property
    def spec(self) -> DataSpec:
        train = self.splits.train
        return DataSpec(
            n_inputs=self.features.n_channels, class_names=tuple(train.class_names), events=train.sensor is not None
        )
