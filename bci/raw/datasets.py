"""Records in the shapes that other EEG libraries read: windows with targets, and raw recordings by subject.

    ReadingWindows         (X, y, [window, first, end]) a word or sentence, as braindecode's datasets of windows
    braindecode_windows    the same as a BaseConcatDataset of braindecode, a dataset a record, cut from its Raw
    raws_by_subject        subject -> session -> run -> Raw with annotations, as MOABB's `get_data`

Only the second needs a library. What this module does not do: filter, or split into sets (`bci.zuco.splits`).
"""

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from spikeloom.bci.raw.objects import UNITS, onsets, raw_of
from spikeloom.bci.raw.record import Record
from spikeloom.bci.zuco.records import N_CHANNELS, SAMPLING_HZ

if TYPE_CHECKING:
    import mne

COLUMNS = ("subject", "task", "run", "sentence", "word", "content", "duration_s")
Window = tuple[np.ndarray, int, list[int]]


class ReadingWindows(Dataset[Window]):
    """Windows of EEG around fixations on words, or from the onsets of sentences, of several records.

    Args:
        records: blocks with gaze.
        unit: word or sentence.
        before_s, after_s: seconds around the onset; every window has this length, those a record cuts off are left
            out and counted in `n_cut`.
        target: column of `metadata` whose distinct values, sorted, are the classes.

    `metadata` holds a dictionary a window (subject, task, run, sentence, word, content, duration_s), `classes` the
    values that the targets count. An item is (float32 [105, T] in µV, class, [place in its record, first sample, end]).
    Raises ValueError for an unknown unit or column, and where no window is left.
    """

    def __init__(
        self, records: Iterable[Record], unit: str = "word", before_s: float = 0.1, after_s: float = 0.5,
        target: str = "content",
    ) -> None:  # fmt: skip
        before, length = _extent(unit, before_s, after_s, target)
        self.metadata: list[dict[str, object]] = []
        self.windows: list[np.ndarray] = []
        self.places: list[list[int]] = []
        self.n_cut = 0
        for record in records:
            cut = _cut(record, unit, before, length)
            self.n_cut += cut.n_cut
            self.metadata += cut.metadata
            self.places += [[number, first, first + length] for number, first in cut.places]
            self.windows += [
                record.eeg_uv[:, first : first + length].astype(np.float32) for _, first in cut.places
            ]  # fmt: skip
        if not self.windows:
            raise ValueError(f"no window of {length} samples lies inside a record ({self.n_cut} are cut off); use "
                             "after_s=SHORTER, or records with gaze")  # fmt: skip
        self.classes, self.y = _classes(self.metadata, target)

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> Window:
        return self.windows[index], int(self.y[index]), self.places[index]

    def tensors(self, rows: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """float32 [B, 105, T] and int64 [B] of some windows."""
        data = np.stack([self.windows[row] for row in rows])
        assert data.shape[1] == N_CHANNELS
        return torch.from_numpy(data), torch.from_numpy(self.y[list(rows)])


class _Cut(NamedTuple):
    """Windows of one record. places: (number of the onset, first sample); metadata: a row a window."""

    places: list[tuple[int, int]]
    metadata: list[dict[str, object]]
    n_cut: int


def _extent(unit: str, before_s: float, after_s: float, target: str) -> tuple[int, int]:
    """Samples before the onset, and of a whole window."""
    if unit not in UNITS or target not in COLUMNS:
        raise ValueError(f"unit={unit}, target={target}; use unit {' or '.join(UNITS)} and target {', '.join(COLUMNS)}")
    before, length = round(before_s * SAMPLING_HZ), round((before_s + after_s) * SAMPLING_HZ)
    if length < 1:
        raise ValueError(f"before_s={before_s}, after_s={after_s} leave no sample; use a longer window")
    return before, length


def _cut(record: Record, unit: str, before: int, length: int) -> _Cut:
    cut = _Cut([], [], 0)
    rows = onsets(record, unit)
    for number, (on, samples, sentence, word, content) in enumerate(rows):
        if on - before < 0 or on - before + length > record.n_samples:
            continue
        cut.places.append((number, on - before))
        values = (record.recording.subject, record.recording.task, record.run, sentence, word, content,
                  samples / SAMPLING_HZ)  # fmt: skip
        cut.metadata.append(dict(zip(COLUMNS, values, strict=True)))
    return cut._replace(n_cut=len(rows) - len(cut.places))


def _classes(metadata: Sequence[dict[str, object]], target: str) -> tuple[tuple[object, ...], np.ndarray]:
    """Distinct values of a column, sorted, and int64 `[n]`, the place of each row's among them."""
    classes: tuple[object, ...] = tuple(sorted({row[target] for row in metadata}))  # type: ignore[type-var]
    at = {value: k for k, value in enumerate(classes)}
    return classes, np.array([at[row[target]] for row in metadata])


def braindecode_windows(
    records: Iterable[Record], unit: str = "word", before_s: float = 0.1, after_s: float = 0.5,
    target: str = "content",
) -> Any:  # fmt: skip
    """The windows of `ReadingWindows` as a `BaseConcatDataset` of braindecode, in volts as all of MNE.

    Args as there. A dataset a record; its description has subject, task and run, by which `split` tells them apart, and
    `get_metadata` the columns of `ReadingWindows.metadata` beside those of braindecode. Raises ImportError without
    braindecode, ValueError as `ReadingWindows`.
    """
    import pandas as pd
    from braindecode.datasets import BaseConcatDataset, EEGWindowsDataset

    before, length = _extent(unit, before_s, after_s, target)
    cuts = [(record, cut) for record in records if (cut := _cut(record, unit, before, length)).places]
    if not cuts:
        raise ValueError(f"no window of {length} samples lies inside a record; use after_s=SHORTER, records with gaze")
    _, y = _classes([row for _, cut in cuts for row in cut.metadata], target)
    ends = np.cumsum([len(cut.places) for _, cut in cuts])
    datasets = []
    for (record, cut), of_record in zip(cuts, np.split(y, ends[:-1]), strict=True):
        first = np.array([first for _, first in cut.places])
        table = pd.DataFrame(cut.metadata).assign(
            i_window_in_trial=0, i_start_in_trial=first, i_stop_in_trial=first + length, target=of_record
        )
        about = {name: cut.metadata[0][name] for name in ("subject", "task", "run")}
        datasets.append(EEGWindowsDataset(raw_of(record), table, description=about))
    return BaseConcatDataset(datasets)


def raws_by_subject(records: Iterable[Record]) -> dict[str, dict[str, dict[str, "mne.io.RawArray"]]]:
    """subject -> session -> run -> Raw, with sentences and fixations as annotations.

    Sessions are tasks, and both they and runs have a number before their name, as MOABB wants them: 0NR, 1TSR. Raises
    ValueError for two records of one name.
    """
    found: dict[str, dict[str, dict[str, mne.io.RawArray]]] = {}
    for record in records:
        runs = found.setdefault(record.recording.subject, {}).setdefault(record.recording.task, {})
        if record.run in runs:
            raise ValueError(f"{record.run} of {record.recording.subject} occurs twice; give every record once")
        runs[record.run] = raw_of(record)
    return {
        subject: {
            _numbered(k, task): {_numbered(r, run): raw for r, (run, raw) in enumerate(runs.items())}
            for k, (task, runs) in enumerate(sessions.items())
        }
        for subject, sessions in found.items()
    }


def _numbered(number: int, name: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9]", "", name)
    return f"{number}{plain if plain[:1].isalpha() else f'n{plain}'}"
