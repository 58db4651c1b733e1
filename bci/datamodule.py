"""Readings as batches for Lightning: EEG and the ids of its text, padded to the longest of a batch.

The order of a training epoch depends on (seed, epoch) alone, so a run resumed at epoch k sees exactly the batches of a
run that was never interrupted. The tokenizer is learnt from the train texts, or is that of a folder.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from bci.readings import ReadingSet
from bci.tokenizer import PAD, TextTokenizer, load_tokenizer, train_tokenizer
from bci.training import PretrainingBatch, sentence_numbers


@dataclass
class TextConfig:
    """tokenizer: folder with a tokenizer.json of BART's kind; null: one of at most `vocab_size` ids is learnt from the
    train texts. max_length: most ids of a text, its end among them."""

    tokenizer: str | None = None
    vocab_size: int = 2000
    max_length: int = 58

    def build(self, train_texts: Sequence[str]) -> TextTokenizer:
        if self.tokenizer is not None:
            return load_tokenizer(Path(self.tokenizer))
        return train_tokenizer(list(dict.fromkeys(train_texts)), self.vocab_size)


class EncodedReadings(Dataset[PretrainingBatch]):
    """Readings with the ids of their texts, indexed by a whole batch."""

    def __init__(self, readings: ReadingSet, tokenizer: TextTokenizer, max_length: int) -> None:
        self.readings = readings
        self.sentence = sentence_numbers(readings.keys)
        self.ids, self.n_truncated = tokenizer.encode(readings.texts, max_length)

    def __len__(self) -> int:
        return len(self.readings)

    def __getitem__(self, rows: Tensor) -> PretrainingBatch:
        eeg, mask = self.readings.padded(rows.tolist())
        ids = self.ids[:, rows]
        return PretrainingBatch(eeg, mask, ids[: int((ids != PAD).any(1).sum())], self.sentence[rows])

    def batches(self, size: int = 64) -> Iterator[PretrainingBatch]:
        """All readings in order."""
        return (self[rows] for rows in torch.arange(len(self)).split(size))


class EpochRows(Sampler[Tensor]):
    """Rows of a batch at a time, shuffled by (seed, epoch) or in order; Lightning calls `set_epoch` before an epoch.

    A shuffled epoch leaves out the rows that do not fill a batch: other ones every time.
    """

    def __init__(self, n_rows: int, batch_size: int, *, seed: int, shuffle: bool) -> None:
        if batch_size < 1 or (shuffle and n_rows < batch_size):
            raise ValueError(f"got batches of {batch_size} for {n_rows} readings; use a batch_size of 1 to {n_rows}")
        self.n_rows, self.batch_size, self.seed, self.shuffle = n_rows, batch_size, seed, shuffle
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.n_rows // self.batch_size if self.shuffle else -(-self.n_rows // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        order = torch.arange(self.n_rows)
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
            order = torch.randperm(self.n_rows, generator=generator)
        yield from order.split(self.batch_size)[: len(self)]


def reading_loader(
    readings: EncodedReadings, *, batch_size: int, seed: int, shuffle: bool
) -> DataLoader[PretrainingBatch]:
    """Loader of such readings; the sampler hands out whole batches."""
    return DataLoader(
        readings,
        sampler=EpochRows(len(readings), batch_size, seed=seed, shuffle=shuffle),
        batch_size=None,
    )
