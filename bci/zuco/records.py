"""What a ZuCo file says, in one vocabulary for both versions: the names of its axes, a word, a sentence.

ZuCo 1.0 (Hollenstein et al. 2018) and 2.0 (2020): EEG and gaze of people reading sentences, 500 Hz, 105 channels kept,
the mean amplitude (not power) of eight frequency bands while the eyes rested on a word.

A feature vector has 840 values, band-major: index = band * 105 + channel. Channel 105, Cz, is the reference and always
0.0; `is_reference` marks its eight places. Absent and rejected are different things and stay apart: a word that was
never fixated has no vector at all, a fixation rejected for artefacts has one of NaN.

Records keep what the files say (float64, uncorrected text); `bci.zuco.samples` makes what a model reads. Left out:
the differences between hemispheres (`*_diff`, their column order is not published), the one-second windows (`*_sec`)
and the saccade statistics of version 2.0.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

SAMPLING_HZ = 500.0
SAMPLE_MS = 1000.0 / SAMPLING_HZ  # durations on disk count samples

BAND_EDGES_HZ = {
    "t1": (4.0, 6.0), "t2": (6.5, 8.0), "a1": (8.5, 10.0), "a2": (10.5, 13.0),
    "b1": (13.5, 18.0), "b2": (18.5, 30.0), "g1": (30.5, 40.0), "g2": (40.5, 49.5),
}  # fmt: skip
BANDS = tuple(BAND_EDGES_HZ)

REFERENCE = "Cz"
# Face and neck electrodes of the 128-channel net, not kept by the authors.
_DROPPED = {
    1, 8, 14, 17, 21, 25, 32, 48, 49, 56, 63, 68, 73, 81, 88, 94, 99, 107, 113, 119, 125, 126, 127, 128,
}  # fmt: skip
CHANNELS = (*(f"E{i}" for i in range(1, 129) if i not in _DROPPED), REFERENCE)

N_CHANNELS = len(CHANNELS)
N_FEATURES = len(BANDS) * N_CHANNELS
FEATURES = tuple(f"{band}_{channel}" for band in BANDS for channel in CHANNELS)
is_reference = np.array([name.endswith(f"_{REFERENCE}") for name in FEATURES])  # bool [840]
is_reference.setflags(write=False)

# Left electrode, right electrode, as the montage mirrors them.
LEFT_RIGHT_PAIRS = tuple(
    (f"E{left}", f"E{right}")
    for left, right in (
        (26, 2), (23, 3), (19, 4), (12, 5), (7, 106), (22, 9), (18, 10), (13, 112), (20, 118), (24, 124), (27, 123),
        (28, 117), (29, 111), (30, 105), (31, 80), (33, 122), (34, 116), (35, 110), (36, 104), (37, 87), (38, 121),
        (39, 115), (40, 109), (41, 103), (42, 93), (43, 120), (44, 114), (45, 108), (46, 102), (47, 98), (50, 101),
        (51, 97), (52, 92), (53, 86), (54, 79), (57, 100), (58, 96), (59, 91), (60, 85), (61, 78), (64, 95), (65, 90),
        (66, 84), (67, 77), (69, 89), (70, 83), (71, 76), (74, 82),
    )
)  # fmt: skip
MIDLINE = ("E6", "E11", "E15", "E16", "E55", "E62", "E72", "E75", REFERENCE)

# First fixation, total reading time, gaze (first pass), go-past, single fixation: durations with the EEG under them.
MEASURES = ("FFD", "TRT", "GD", "GPT", "SFD")  # order on disk

SUBJECTS = {
    1: ("ZAB", "ZDM", "ZDN", "ZGW", "ZJM", "ZJN", "ZJS", "ZKB", "ZKH", "ZKW", "ZMG", "ZPH"),
    2: (
        "YAC", "YAG", "YAK", "YDG", "YDR", "YFR", "YFS", "YHS", "YIS", "YLS", "YMD", "YMS", "YRH", "YRK", "YRP", "YSD",
        "YSL", "YTL",
    ),
}  # fmt: skip
# (version, task) -> sentences of each recorded block: SR sentiment, NR normal and TSR task-specific reading.
BLOCKS = {
    (1, "SR"): (50,) * 8, (1, "NR"): (50,) * 6, (1, "TSR"): (45, 45, 47, 41, 46, 46, 44, 48, 45),
    (2, "NR"): (50, 50, 51, 50, 50, 49, 49), (2, "TSR"): (45, 72, 54, 65, 54, 60, 40),
}  # fmt: skip
TASKS = ("SR", "NR", "TSR")


class Recording(NamedTuple):
    """Which subject and task a file holds. version: 1 or 2, of ZuCo; task: one of TASKS."""

    subject: str
    version: int
    task: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Fixations:
    """Every fixation on the screen of a sentence, in order, on words or not: float64 `[n]` each.

    x_px, y_px: screen of 800 x 600; pupil: the tracker's arbitrary units.
    """

    x_px: np.ndarray
    y_px: np.ndarray
    duration_ms: np.ndarray
    pupil: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class Word:
    """One token as shown, with the gaze and EEG of its fixations.

    content: text of the file. fixations: int64 `[k]`, 1-based places in the sentence's list of fixations on words, in
    order; empty where unfixated. n_fixations: the file's count, 0 where unfixated. Either is -1 where the file holds no
    whole number. pupil: mean over the fixations,
    arbitrary units, NaN where unfixated. durations_ms, pupils: by measure (MEASURES), without the measures the file
    does not give: a word without fixations has none, SFD needs exactly one fixation.
    eeg: by measure, float64 `[840]` in uV, NaN where artefacts were rejected; shorter than 840 where the file has fewer
    than 105 values a band. n_rejected: fixations whose EEG was rejected.
    raw_eeg, raw_gaze: only where they were asked for and the file holds them: one float64 `[L, 105]` in uV, or
    `[L, 4]` (TIME, L_GAZE_X, L_GAZE_Y, L_AREA), per fixation; None for a rejected one.
    """

    content: str
    fixations: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    n_fixations: int = 0
    pupil: float = np.nan
    durations_ms: Mapping[str, float] = field(default_factory=dict)
    pupils: Mapping[str, float] = field(default_factory=dict)
    eeg: Mapping[str, np.ndarray] = field(default_factory=dict)
    n_rejected: int = 0
    raw_eeg: tuple[np.ndarray | None, ...] | None = None
    raw_gaze: tuple[np.ndarray | None, ...] | None = None

    @property
    def fixated(self) -> bool:
        return self.n_fixations > 0


@dataclass(frozen=True, kw_only=True, eq=False)
class Sentence:
    """One row of a file: a sentence as one subject read it, or, `missing`, as it was lost.

    recording, index: the file and the 0-based row in it; rows line up across subjects. content: text of the file.
    words: in reading order, empty where the row is missing. eeg: float64 `[840]` in uV over the whole sentence, NaN
    where rejected, shorter as that of a word, None where absent; answer_eeg: the same during a control question.
    omission_rate: the file's share of unfixated words, NaN where absent. word_bounds_px: float64 `[W, 4]`, left, top,
    right, bottom. fixations: None where absent. raw_eeg: float64 `[T, 105]` in uV, only where asked for and not
    rejected. n_long_vectors: band vectors of more than 105 values, cut to 105.
    """

    recording: Recording
    index: int
    content: str
    words: tuple[Word, ...] = ()
    eeg: np.ndarray | None = None
    answer_eeg: np.ndarray | None = None
    omission_rate: float = np.nan
    word_bounds_px: np.ndarray | None = None
    fixations: Fixations | None = None
    raw_eeg: np.ndarray | None = None
    n_long_vectors: int = 0

    @property
    def subject(self) -> str:
        return self.recording.subject

    @property
    def version(self) -> int:
        return self.recording.version

    @property
    def task(self) -> str:
        return self.recording.task

    @property
    def missing(self) -> bool:
        return not self.words
