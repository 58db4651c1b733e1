"""One Lightning data module for every domain: three sets of a source, and what the data tell a model.

A domain says how its splits are read and how they become sets (`read`); loaders, order and cache are here. Works in a
`lightning.Trainer` of your own: `trainer.fit(module, datamodule=SpeechDataModule(...))`.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import lightning
from torch.utils.data import DataLoader

from spikeloom.accel.common.batches import CACHE_MB, CacheBudget, Permutation, batch_loader, permutation

NOT_SET_UP = "the data are not there yet; call setup() first"


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """What the data tell a model.

    n_inputs: channels of a frame (speech), of a picture or event frame (vision), EEG features (840).
    class_names: in the order of the outputs; empty where there are no classes.
    events: whether samples are recordings of an event camera.
    vocab_size: ids of the tokenizer; 0 where there is no text.
    """

    n_inputs: int
    class_names: tuple[str, ...] = ()
    events: bool = False
    vocab_size: int = 0

    @property
    def n_classes(self) -> int:
        return len(self.class_names)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as a checkpoint holds them."""
        return {**asdict(self), "class_names": list(self.class_names)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "DataSpec":
        return cls(**{**values, "class_names": tuple(values["class_names"])})


class SplitDataModule(lightning.LightningDataModule):
    """Train, validation and test batches of one source.

    Training batches are shuffled and augmented by (seed, epoch, sample id), the others come in order and untouched. No
    test sample is read before the test set is asked for a batch. `cache_mb` bounds what is kept in memory, by this
    process or by all loader workers together.

    Args:
        batch_size: samples a batch.
        seed: of order and augmentation.
        num_workers: loader processes (0: this one).
        cache_mb: memory for what is made of the samples.
        drop_last: leave out training samples that do not fill a batch.
        order: how a training epoch is shuffled.
    """

    def __init__(
        self, *, batch_size: int = 32, seed: int = 0, num_workers: int = 0, cache_mb: float = CACHE_MB,
        drop_last: bool = False, order: Permutation = permutation,
    ) -> None:  # fmt: skip
        super().__init__()
        self.batch_size, self.seed, self.num_workers = batch_size, seed, num_workers
        self.budget = CacheBudget(cache_mb)
        self.drop_last, self.order = drop_last, order
        self._splits: Any = None
        self._sets: dict[str, Any] = {}

    @abstractmethod
    def read(self) -> tuple[Any, dict[str, Any]]:
        """The splits of the source, and the sets train, valid and test made of them."""

    @property
    @abstractmethod
    def spec(self) -> DataSpec:
        """What a model must know; there after `setup`."""

    def setup(self, stage: str | None = None) -> None:
        """Read the source, once. Raises ValueError, with the remedy, when the features are for other data."""
        if self._splits is None:
            splits, self._sets = self.read()
            self._splits = splits

    @property
    def splits(self) -> Any:
        """The three sets of samples. Raises RuntimeError before `setup`."""
        if self._splits is None:
            raise RuntimeError(NOT_SET_UP)
        return self._splits

    @property
    def n_inputs(self) -> int:
        return self.spec.n_inputs

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.spec.class_names

    @property
    def n_classes(self) -> int:
        return self.spec.n_classes

    @property
    def train_set(self) -> Any:
        """The training samples, with the augmentation."""
        return self._set("train")

    @property
    def valid_set(self) -> Any:
        return self._set("valid")

    @property
    def test_set(self) -> Any:
        """Its sample ids are positions in `splits.test`."""
        return self._set("test")

    def train_dataloader(self) -> DataLoader[Any]:
        return self._loader(self.train_set, shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader(self.valid_set, shuffle=False)

    def test_dataloader(self) -> DataLoader[Any]:
        return self._loader(self.test_set, shuffle=False)

    def predict_dataloader(self) -> DataLoader[Any]:
        return self._loader(self.test_set, shuffle=False)

    def _set(self, name: str) -> Any:
        if not self._sets:
            raise RuntimeError(NOT_SET_UP)
        return self._sets[name]

    def _loader(self, samples: Any, *, shuffle: bool) -> DataLoader[Any]:
        trainer: Any = self.trainer
        rank, world = (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)
        return batch_loader(
            samples, batch_size=self.batch_size, seed=self.seed, shuffle=shuffle, num_workers=self.num_workers,
            drop_last=self.drop_last and shuffle, order=self.order, rank=rank, world=world,
        )  # fmt: skip
