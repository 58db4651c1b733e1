"""The readings a model learns from, chooses on and is tested on, in memory without padding.

A reading is one person's EEG of one sentence: float32 [L, 840], as `bci.zuco.samples` makes it, beside the durations of
the fixations under it, which a control reads in place of the EEG. A split is made from the rows alone, then the
recordings are gone through once. Memory is that of the tokens kept, 3.4 kB each: 22,000 readings of eleven tokens take
0.8 GB, whatever the size of the files.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from bci.zuco.records import N_FEATURES, Sentence
from bci.zuco.samples import DROP_REASONS, Samples, drop_reason, fixated
from bci.zuco.source import Recorded, rows_of, task_of
from bci.zuco.splits import SPLITS, Split, SplitConfig

GAZE = ("FFD", "GD", "TRT", "GPT")  # log(1 + ms) of each, then log(1 + number of fixations)
N_GAZE = len(GAZE) + 1


@dataclass(frozen=True, kw_only=True, eq=False)
class ReadingSet:
    """Readings of one split, column by column. eeg: float32 `[L, 840]` each; gaze: float32 `[L, 5]` each, the last row
    the mean of the others where the last token is the sentence."""

    eeg: Sequence[np.ndarray]
    gaze: Sequence[np.ndarray]
    texts: tuple[str, ...]
    keys: tuple[str, ...]
    subjects: tuple[str, ...]
    tasks: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def lengths(self) -> list[int]:
        return [len(tokens) for tokens in self.eeg]

    @property
    def groups(self) -> list[tuple[str, str]]:
        """(subject, task) of each reading."""
        return list(zip(self.subjects, self.tasks, strict=True))

    def with_eeg(self, eeg: Sequence[np.ndarray]) -> "ReadingSet":
        """The same readings with other tokens in place of the EEG. Raises ValueError unless there is one a reading."""
        if len(eeg) != len(self):
            raise ValueError(f"got {len(eeg)} sequences for {len(self)} readings; give one each")
        return replace(self, eeg=eeg)

    def padded(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """eeg [L, B, 840] and mask [L, B] of those readings, as long as the longest of them."""
        lengths = torch.tensor([len(self.eeg[row]) for row in rows])
        eeg = torch.zeros(int(lengths.max()), len(rows), N_FEATURES)
        for b, row in enumerate(rows):
            eeg[: len(self.eeg[row]), b] = torch.from_numpy(self.eeg[row])
        return eeg, torch.arange(len(eeg))[:, None] < lengths


@dataclass(frozen=True, kw_only=True)
class SplitReadings:
    """sets: the splits that were asked for. split: of every row there is. dropped: rows without a sample by reason, and
    `margin`, too near in time to a held-out one; counted over all splits. truncated: words that did not fit."""

    sets: dict[str, ReadingSet]
    split: Split
    dropped: dict[str, int]
    truncated: int

    def __getitem__(self, name: str) -> ReadingSet:
        return self.sets[name]


def read_splits(
    source: Recorded, samples: Samples, split: SplitConfig, wanted: Collection[str] = SPLITS
) -> SplitReadings:
    """The readings of the `wanted` splits; those of others are not kept. Raises ValueError where one is empty."""
    fates = split.build(rows_of(source))
    dropped: Counter[str] = Counter()
    truncated = 0
    columns: dict[str, list[tuple[np.ndarray, np.ndarray, str, str, str, str]]] = {name: [] for name in wanted}
    for sentence in source:
        fate, reason = fates.of(sentence.content), drop_reason(sentence)
        if reason is not None or fate not in SPLITS:
            dropped[reason or "margin"] += 1
        elif fate in columns:
            sample = samples.sample(sentence)
            truncated += sample.n_truncated_words
            gaze = _gaze(sentence, len(sample.words), sample.has_sentence_token)
            who = sentence.subject, task_of(sentence.recording)
            columns[fate].append((sample.eeg, gaze, sample.text, sample.key, *who))
    for name, rows in columns.items():
        if not rows:
            raise ValueError(f"no reading is left in {name} ({dict(dropped)} dropped); use more recordings")
    order = [*DROP_REASONS, "margin"]
    return SplitReadings(
        sets={name: _columns(rows) for name, rows in columns.items()},
        split=fates,
        dropped={name: dropped[name] for name in order if dropped[name]},
        truncated=truncated,
    )


def _columns(rows: list[tuple[np.ndarray, np.ndarray, str, str, str, str]]) -> ReadingSet:
    eeg, gaze, texts, keys, subjects, tasks = zip(*rows, strict=True)
    return ReadingSet(eeg=eeg, gaze=gaze, texts=texts, keys=keys, subjects=subjects, tasks=tasks)


def _gaze(sentence: Sentence, n_words: int, sentence_token: bool) -> np.ndarray:
    """Durations and fixations of the words of a sample, `[L, 5]`; a measure that the file lacks counts as 0 ms."""
    words = fixated(sentence)[:n_words]
    ms = [[word.durations_ms.get(measure, 0.0) for measure in GAZE] + [word.n_fixations] for word in words]
    gaze = np.log1p(np.array(ms, dtype=np.float32))
    return np.vstack((gaze, gaze.mean(0))) if sentence_token else gaze
