"""The batches of one speech source as a data module of Lightning."""

import lightning
from torch.utils.data import DataLoader

from speech.batches import FeatureSet, SpeechBatch, batch_loader, featurise
from speech.frames import CACHE_MB, AugmentConfig, CacheBudget, FrontEndConfig
from speech.utterances import SpeechSource, SpeechSplits

NOT_SET_UP = "the data are not there yet; call setup() first"


class SpeechDataModule(lightning.LightningDataModule):
    """Train, validation and test batches of one speech source, audio or spikes.

    The training batches are shuffled and augmented by (seed, epoch, sample id), the others come in order and untouched.
    No test clip is read before the test set is asked for a batch. `cache_mb` bounds the frames kept in memory.
    """

    def __init__(
        self,
        source: SpeechSource,
        features: FrontEndConfig,
        augmentation: AugmentConfig | None = None,
        *,
        batch_size: int = 32,
        seed: int = 0,
        num_workers: int = 0,
        cache_mb: float = CACHE_MB,
    ) -> None:
        super().__init__()
        self.source = source
        self.features = features
        self.augmentation = augmentation.build(features, seed) if augmentation is not None else None
        self.batch_size = batch_size
        self.seed = seed
        self.num_workers = num_workers
        self.budget = CacheBudget(cache_mb)
        self._splits: SpeechSplits | None = None
        self._sets: dict[str, FeatureSet] = {}

    def setup(self, stage: str | None = None) -> None:
        """Read the source, once. Raises `ValueError`, with the remedy, when the front end is for other clips."""
        if self._splits is None:
            splits = self.source.build()
            front_end = self.features.build()
            plain = {name: featurise(clips, front_end, budget=self.budget) for name, clips in splits._asdict().items()}
            self._sets = {**plain, "train": plain["train"].with_augmentation(self.augmentation)}
            self._splits = splits

    @property
    def splits(self) -> SpeechSplits:
        """The three sets of clips. Raises `RuntimeError` before `setup`."""
        if self._splits is None:
            raise RuntimeError(NOT_SET_UP)
        return self._splits

    @property
    def n_inputs(self) -> int:
        """Channels of a feature frame."""
        return self.features.n_channels

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.splits.train.class_names

    @property
    def n_classes(self) -> int:
        return len(self.class_names)

    @property
    def train_set(self) -> FeatureSet:
        """Training features, with the augmentation."""
        return self._set("train")

    @property
    def valid_set(self) -> FeatureSet:
        return self._set("valid")

    @property
    def test_set(self) -> FeatureSet:
        """Its sample ids are positions in `splits.test`."""
        return self._set("test")

    def train_dataloader(self) -> DataLoader[SpeechBatch]:
        return self._loader(self.train_set, shuffle=True)

    def val_dataloader(self) -> DataLoader[SpeechBatch]:
        return self._loader(self.valid_set, shuffle=False)

    def test_dataloader(self) -> DataLoader[SpeechBatch]:
        return self._loader(self.test_set, shuffle=False)

    def _set(self, name: str) -> FeatureSet:
        if not self._sets:
            raise RuntimeError(NOT_SET_UP)
        return self._sets[name]

    def _loader(self, features: FeatureSet, *, shuffle: bool) -> DataLoader[SpeechBatch]:
        return batch_loader(
            features, batch_size=self.batch_size, seed=self.seed, shuffle=shuffle,
            num_workers=self.num_workers,
        )  # fmt: skip
