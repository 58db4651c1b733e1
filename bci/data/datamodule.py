"""Trials as batches for Lightning: EEG and the ids of its text, padded to the longest of a batch.

The tokenizer is learnt from the train texts, or is that of a folder.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from spikeloom.accel.common.batches import BatchIndex
from spikeloom.accel.common.datamodule import DataSpec, SplitDataModule
from spikeloom.bci.data.tokenizer import PAD, TextTokenizer, load_tokenizer, train_tokenizer
from spikeloom.bci.data.trials import TrialSet, TrialSplits, read_splits
from spikeloom.bci.evaluation.embeddings import load_encoder
from spikeloom.bci.models.pretraining import PretrainingBatch, sentence_numbers
from spikeloom.bci.zuco.records import N_FEATURES


@dataclass
class TextConfig:
    """tokenizer: folder with a tokenizer.json of BART's kind; null: one of at most `vocab_size` ids is learnt from the
    train texts. max_length: most ids of a text, its end among them."""

    tokenizer: str | None = None
    vocab_size: int = 2000  # most ids of a tokenizer trained on the training texts
    max_length: int = 58

    def build(self, train_texts: Sequence[str]) -> TextTokenizer:
        if self.tokenizer is not None:
            return load_tokenizer(Path(self.tokenizer))
        return train_tokenizer(list(dict.fromkeys(train_texts)), self.vocab_size)


class EncodedTrials(Dataset[PretrainingBatch]):
    """Trials with the ids of their texts, indexed by a whole batch; text_target: with their vectors by that sentence
    encoder, too."""

    def __init__(
        self, trials: TrialSet, tokenizer: TextTokenizer, max_length: int, text_target: str | None = None
    ) -> None:
        self.trials = trials
        self.target: Tensor | None = None
        self.add_target(text_target)
        self.sentence = sentence_numbers(trials.keys)
        self.ids, self.n_truncated = tokenizer.encode(trials.texts, max_length)

    def add_target(self, encoder: str | None) -> None:
        """The vectors of the texts by that sentence encoder from now on; None: as it is."""
        if encoder is not None:
            self.target = sentence_vectors(encoder, self.trials.texts)

    def __len__(self) -> int:
        return len(self.trials)

    def __getitem__(self, index: BatchIndex) -> PretrainingBatch:
        rows = index.sample_ids
        eeg, mask = self.trials.padded(rows.tolist())
        ids = self.ids[:, rows]
        target = None if self.target is None else self.target[rows]
        return PretrainingBatch(eeg, mask, ids[: int((ids != PAD).any(1).sum())], self.sentence[rows], target)

    def batches(self, size: int = 64) -> Iterator[PretrainingBatch]:
        """All trials in order."""
        return (self[BatchIndex(0, rows)] for rows in torch.arange(len(self)).split(size))


def sentence_vectors(encoder: str, texts: Sequence[str]) -> Tensor:
    """float32 [n, W] of unit length by a sentence encoder. Raises ValueError saying what to install or give."""
    return torch.from_numpy(load_encoder(encoder).encode(texts).astype(np.float32))


class TrialDataModule(SplitDataModule):
    """Train, validation and test batches of EEG trials with the ids of their texts (`bci.data.trials`).

    Args:
        source: the recordings (`config.data`); None where `sets` are given.
        features: samples, split and tokenizer (`config.features`).
        trials: of this very configuration, where they are already in memory.
        sets: encoded trials by split, in place of all of the above.
        vocab_size: of the tokenizer that encoded `sets`.
        text_target: sentence encoder whose vectors come along (`config.model.sizes.text_target`).
        batch_size, seed, num_workers: as in `SplitDataModule`; training batches are full.
    """

    def __init__(
        self, source: Any = None, features: Any = None, *, trials: TrialSplits | None = None,
        tokenizer: TextTokenizer | None = None, sets: Mapping[str, EncodedTrials] | None = None, vocab_size: int = 0,
        batch_size: int = 32, seed: int = 0, num_workers: int = 0, text_target: str | None = None,
    ) -> None:  # fmt: skip
        self.text_target = text_target
        super().__init__(batch_size=batch_size, seed=seed, num_workers=num_workers, drop_last=True)
        self.source, self.features, self.trials, self.tokenizer = source, features, trials, tokenizer
        self._given, self._vocab_size = sets, vocab_size

    def read(self) -> tuple[Any, dict[str, EncodedTrials]]:
        """Raises ValueError, with the remedy, where a split is empty."""
        if self._given is not None:
            return self._given, dict(self._given)
        if self.trials is None:
            self.trials = read_splits(self.source.build(), self.features.samples.build(), self.features.split)
        if self.tokenizer is None:
            self.tokenizer = self.features.text.build(self.trials["train"].texts)
        self._vocab_size = self.tokenizer.vocab_size
        longest = self.features.text.max_length
        return self.trials, {
            name: EncodedTrials(trials, self.tokenizer, longest, self.text_target)
            for name, trials in self.trials.sets.items()
        }

    @property
    def spec(self) -> DataSpec:
        return DataSpec(n_inputs=N_FEATURES, vocab_size=self._vocab_size)
