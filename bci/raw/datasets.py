"""Records in the shapes that other EEG libraries read: windows with targets, and raw recordings by subject.

    ReadingWindows     (X, y, [window, first, end]) a word or sentence, as braindecode's datasets of windows
    raws_by_subject    subject -> session -> run -> Raw with annotations, as MOABB's `get_data`

Neither library is needed. What this module does not do: filter, or split into sets (`bci.zuco.splits`).
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

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
        if unit not in UNITS or target not in COLUMNS:
            raise ValueError(
                f"unit={unit}, target={target}; use unit {' or '.join(UNITS)} and target {', '.join(COLUMNS)}"
            )
        before, length = round(before_s * SAMPLING_HZ), round((before_s + after_s) * SAMPLING_HZ)
        if length < 1:
            raise ValueError(f"before_s={before_s}, after_s={after_s} leave no sample; use a longer window")
        self.metadata: list[dict[str, object]] = []
        self.windows: list[np.ndarray] = []
        self.places: list[list[int]] = []
        self.n_cut = 0
        for record in records:
            for number, (on, samples, sentence, word, content) in enumerate(onsets(record, unit)):
                first = on - before
                if first < 0 or first + length > record.n_samples:
                    self.n_cut += 1
                    continue
                self.windows.append(record.eeg_uv[:, first : first + length].astype(np.float32))
                self.places.append([number, first, first + length])
                values = (record.recording.subject, record.recording.task, record.run, sentence, word, content,
                          samples / SAMPLING_HZ)  # fmt: skip
                self.metadata.append(dict(zip(COLUMNS, values, strict=True)))
        if not self.windows:
            raise ValueError(f"no window of {length} samples lies inside a record ({self.n_cut} are cut off); use "
                             "after_s=SHORTER, or records with gaze")  # fmt: skip
        self.classes: tuple[object, ...] = tuple(sorted({row[target] for row in self.metadata}))  # type: ignore[type-var]
        at = {value: k for k, value in enumerate(self.classes)}
        self.y = np.array([at[row[target]] for row in self.metadata])

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> Window:
        return self.windows[index], int(self.y[index]), self.places[index]

    def tensors(self, rows: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """float32 [B, 105, T] and int64 [B] of some windows."""
        data = np.stack([self.windows[row] for row in rows])
        assert data.shape[1] == N_CHANNELS
        return torch.from_numpy(data), torch.from_numpy(self.y[list(rows)])


def raws_by_subject(records: Iterable[Record]) -> dict[str, dict[str, dict[str, "mne.io.RawArray"]]]:
    """subject -> session (the task) -> run -> Raw, with sentences and fixations as annotations. Raises ValueError for
    two records of one name."""
    found: dict[str, dict[str, dict[str, mne.io.RawArray]]] = {}
    for record in records:
        runs = found.setdefault(record.recording.subject, {}).setdefault(record.recording.task, {})
        if record.run in runs:
            raise ValueError(f"{record.run} of {record.recording.subject} occurs twice; give every record once")
        runs[record.run] = raw_of(record)
    return found
