"""The batches of one speech source as a data module of Lightning."""

import logging
from typing import Any

from spikeloom.accel.common.batches import CACHE_MB
from spikeloom.accel.common.changes import changes
from spikeloom.accel.common.datamodule import DataSpec, SplitDataModule
from spikeloom.speech.batches import FeatureSet, featurise, speech_order
from spikeloom.speech.datasets.utterances import SpeechSource, SpeechSplits
from spikeloom.speech.features.frames import AugmentConfig, FrontEndConfig

log = logging.getLogger("spikeloom")


class SpeechDataModule(SplitDataModule):
    """Train, validation and test batches of one speech source, audio or spikes.

    Args:
        source: where the clips come from, and how they are split.
        features: the front end.
        augmentation: of the training clips, drawn by (seed, epoch, sample id); None for none.
        batch_size, seed, num_workers, cache_mb: as in `SplitDataModule`.
    """

    def __init__(
        self, source: SpeechSource, features: FrontEndConfig, augmentation: AugmentConfig | None = None, *,
        batch_size: int = 32, seed: int = 0, num_workers: int = 0, cache_mb: float = CACHE_MB,
    ) -> None:  # fmt: skip
        super().__init__(
            batch_size=batch_size, seed=seed, num_workers=num_workers, cache_mb=cache_mb, order=speech_order
        )
        self.source, self.features = source, features
        self.augmentation = augmentation.build(features, seed) if augmentation is not None else None

    def read(self) -> tuple[SpeechSplits[Any], dict[str, FeatureSet]]:
        """Raises ValueError, with the remedy, when the front end is for other clips."""
        splits = self.source.build()
        front_end = self.features.build()
        plain = {name: featurise(clips, front_end, budget=self.budget) for name, clips in splits._asdict().items()}
        return splits, {**plain, "train": plain["train"].with_augmentation(self.augmentation)}

    def teardown(self, stage: str | None = None) -> None:
        """Log what was done to how many recordings: resampled, mixed, cut, silent."""
        for line in changes.summary():
            log.warning(line)

    @property
    def spec(self) -> DataSpec:
        return DataSpec(n_inputs=self.features.n_channels, class_names=tuple(self.splits.train.class_names))
