"""A continuous recording of one block of reading: EEG and gaze on one clock, and what was shown when.

It is the common ground of the raw path: synthetic blocks, the raw folders of ZuCo 1.0 and recordings of one's own come
in as a `Record`; word features (`bci.raw.sentences`), MNE objects (`bci.raw.objects`) and BIDS (`bci.raw.bids`) go out.
"""

from dataclasses import dataclass

import numpy as np

from spikeloom.bci.zuco.records import BLOCKS, N_CHANNELS, Recording


@dataclass(frozen=True, kw_only=True, eq=False)
class Gaze:
    """What the eye tracker found, in samples of the EEG: first int `[n]`, samples int `[n]` (durations), mean x_px,
    y_px and pupil `[n]` of each fixation; trace: float64 `[T, 4]` (TIME in ms of the tracker's clock, x, y, pupil
    area), one row a sample of the EEG, NaN while the eye was closed; None where only fixations are known."""

    first: np.ndarray
    samples: np.ndarray
    x_px: np.ndarray
    y_px: np.ndarray
    pupil: np.ndarray
    trace: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """A sentence on the screen from sample `on` up to, not including, `off`. index: its row in the result file;
    word_bounds_px: `[W, 4]` of its words, split at spaces."""

    index: int
    content: str
    word_bounds_px: np.ndarray
    on: int
    off: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Record:
    """run: name of the block, as in `SNR1`. eeg_uv: float64 `[105, T]`, channels as in the features, 500 Hz."""

    recording: Recording
    run: str
    eeg_uv: np.ndarray
    gaze: Gaze
    shown: tuple[Shown, ...]

    def __post_init__(self) -> None:
        if self.eeg_uv.ndim != 2 or len(self.eeg_uv) != N_CHANNELS:
            raise ValueError(f"the EEG of {self.run} has shape {self.eeg_uv.shape}; use [{N_CHANNELS}, samples]")

    @property
    def n_samples(self) -> int:
        return int(self.eeg_uv.shape[1])


def run_names(version: int, task: str) -> tuple[str, ...]:
    """Names of the blocks, as the published raw files have them: SNR1-5, SR6-8; NR1-6; TSR1-9."""
    blocks = BLOCKS.get((version, task), (50,))
    first_blocks = "SNR" if (version, task) == (1, "SR") else task
    return tuple(f"{first_blocks if n <= 5 else task}{n}" for n in range(1, len(blocks) + 1))


def runs_of(version: int, task: str, n_sentences: int) -> list[tuple[str, range]]:
    """The blocks of a recording and the rows in each; a shorter one ends early, a longer one adds to the last."""
    found, start = [], 0
    blocks = BLOCKS.get((version, task), (50,))
    for number, (name, size) in enumerate(zip(run_names(version, task), blocks, strict=True)):
        stop = n_sentences if number == len(blocks) - 1 else min(start + size, n_sentences)
        if start < stop:
            found.append((name, range(start, stop)))
        start = stop
    return found
