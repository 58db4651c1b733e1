"""The trials a model learns from, chooses on and is tested on, without padding.

A trial is one person's EEG of one sentence: float32 [L, 840], as `bci.zuco.samples` makes it, beside the durations of
the fixations under it, which a control reads in place of the EEG. A split is made from the rows alone, then the
recordings are gone through once. The tokens of recordings that have a folder for caches lie in a file there, without
a name and gone with the process, and are read when a batch asks for them; those of others are kept in memory, 3.4 kB
each: 22,000 trials of eleven tokens take 0.8 GB.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import numpy as np
import torch
from torch import Tensor

from spikeloom.bci.zuco.records import N_FEATURES, Recording, Sentence
from spikeloom.bci.zuco.samples import DROP_REASONS, Samples, drop_reason, fixated, level, unlike_the_rest
from spikeloom.bci.zuco.source import Recorded, rows_of, task_of
from spikeloom.bci.zuco.splits import SPLITS, Split, SplitConfig

GAZE = ("FFD", "GD", "TRT", "GPT")  # log(1 + ms) of each, then log(1 + number of fixations)
N_GAZE = len(GAZE) + 1


@dataclass(frozen=True, kw_only=True, eq=False)
class TrialSet:
    """Trials of one split, column by column. eeg: float32 `[L, 840]` each; gaze: float32 `[L, 5]` each, the last row
    the mean of the others where the last token is the sentence; words: those under the tokens, without the sentence."""

    eeg: Sequence[np.ndarray]
    gaze: Sequence[np.ndarray]
    texts: tuple[str, ...]
    keys: tuple[str, ...]
    subjects: tuple[str, ...]
    tasks: tuple[str, ...]
    words: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def lengths(self) -> list[int]:
        return [len(tokens) for tokens in self.eeg]

    @property
    def groups(self) -> list[tuple[str, str]]:
        """(subject, task) of each trial."""
        return list(zip(self.subjects, self.tasks, strict=True))

    def with_eeg(self, eeg: Sequence[np.ndarray]) -> "TrialSet":
        """The same trials with other tokens in place of the EEG. Raises ValueError unless there is one per trial."""
        if len(eeg) != len(self):
            raise ValueError(f"got {len(eeg)} sequences for {len(self)} trials; give one each")
        return replace(self, eeg=eeg)

    def padded(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """eeg [L, B, 840] and mask [L, B] of those trials, as long as the longest of them."""
        lengths = torch.tensor([len(self.eeg[row]) for row in rows])
        eeg = torch.zeros(int(lengths.max()), len(rows), N_FEATURES)
        for b, row in enumerate(rows):
            eeg[: len(self.eeg[row]), b] = torch.from_numpy(self.eeg[row])
        return eeg, torch.arange(len(eeg))[:, None] < lengths


@dataclass(frozen=True, kw_only=True)
class TrialSplits:
    """sets: the splits that were asked for. split: of every row there is. dropped: rows without a sample by reason, and
    `margin`, too near in time to a held-out one; counted over all splits. truncated: words that did not fit."""

    sets: dict[str, TrialSet]
    split: Split
    dropped: dict[str, int]
    truncated: int

    def __getitem__(self, name: str) -> TrialSet:
        return self.sets[name]


class Tokens:
    """float32 arrays `[L, 840]` that are added one after the other, to a file without a name where there is a folder.

    An array that `fetch` returns is a view of the file's pages, which the system reads when they are used and may drop
    afterwards; what is written into it stays in this process.
    """

    def __init__(self, folder: Path | None) -> None:
        self.file: IO[bytes] | None = None
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            self.file = TemporaryFile(dir=folder)  # noqa: SIM115, as long as the arrays
        self.kept: list[np.ndarray] = []  # without a folder
        self.ends = [0]  # of each array, in tokens

    def add(self, tokens: np.ndarray) -> int:
        """The number by which `fetch` finds the array again."""
        if self.file is None:
            self.kept.append(tokens)
        else:
            self.file.write(np.asarray(tokens, dtype=np.float32).tobytes())
        self.ends.append(self.ends[-1] + len(tokens))
        return len(self.ends) - 2

    def fetch(self, numbers: Sequence[int]) -> list[np.ndarray]:
        if self.file is None or not numbers:
            return [self.kept[number] for number in numbers]
        self.file.flush()
        flat = np.asarray(np.memmap(self.file, np.float32, mode="c")).reshape(-1, N_FEATURES)
        return [flat[self.ends[number] : self.ends[number + 1]] for number in numbers]


_Row = tuple[int, np.ndarray, str, str, str, str, tuple[str, ...]]


def read_splits(
    source: Recorded, samples: Samples, split: SplitConfig, wanted: Collection[str] = SPLITS
) -> TrialSplits:
    """The trials of the `wanted` splits; those of others are not kept. Raises ValueError where one is empty."""
    fates = split.build(rows_of(source))
    dropped: Counter[str] = Counter()
    truncated = 0
    tokens = Tokens(getattr(source, "folder", None))
    columns: dict[str, list[_Row | None]] = {name: [] for name in wanted}
    levels: dict[Recording, list[tuple[float, str, int]]] = {}  # level, split and place there of each row
    for sentence in source:
        fate, reason = fates.of(sentence.content), drop_reason(sentence)
        if reason is not None or fate not in SPLITS:
            dropped[reason or "margin"] += 1
            continue
        levels.setdefault(sentence.recording, []).append((level(sentence), fate, len(columns.get(fate, ()))))
        if fate in columns:
            sample = samples.sample(sentence)
            truncated += sample.n_truncated_words
            gaze = _gaze(sentence, len(sample.words), sample.has_sentence_token)
            who = sentence.subject, task_of(sentence.recording)
            columns[fate].append((tokens.add(sample.eeg), gaze, sample.text, sample.key, *who, sample.words))
    for of_recording in levels.values():
        for outlying, (_, fate, place) in zip(
            unlike_the_rest([value for value, *_ in of_recording]), of_recording, strict=True
        ):
            dropped["level"] += int(outlying)
            if outlying and fate in columns:
                columns[fate][place] = None
    kept = {name: [row for row in rows if row is not None] for name, rows in columns.items()}
    for name, rows in kept.items():
        if not rows:
            raise ValueError(f"no trial is left in {name} ({dict(dropped)} dropped); use more recordings")
    order = [*DROP_REASONS, "margin"]
    return TrialSplits(
        sets={name: _columns(rows, tokens) for name, rows in kept.items()},
        split=fates,
        dropped={name: dropped[name] for name in order if dropped[name]},
        truncated=truncated,
    )


def _columns(rows: list[_Row], tokens: Tokens) -> TrialSet:
    numbers, gaze, texts, keys, subjects, tasks, words = zip(*rows, strict=True)
    return TrialSet(
        eeg=tokens.fetch(numbers), gaze=gaze, texts=texts, keys=keys, subjects=subjects, tasks=tasks, words=words,
    )  # fmt: skip


def _gaze(sentence: Sentence, n_words: int, sentence_token: bool) -> np.ndarray:
    """Durations and fixations of the words of a sample, `[L, 5]`; a measure that the file lacks counts as 0 ms."""
    words = fixated(sentence)[:n_words]
    ms = [[word.durations_ms.get(measure, 0.0) for measure in GAZE] + [word.n_fixations] for word in words]
    gaze = np.log1p(np.array(ms, dtype=np.float32))
    return np.vstack((gaze, gaze.mean(0))) if sentence_token else gaze
