"""EyeLink recordings as text (`.asc`): samples, fixations, messages and triggers of one eye.

    SAMPLES GAZE LEFT RATE 500.00          5471284  846.7  550.9  3134.0 ...
    EFIX L 5471284 5471550 268 843.2 551.4 3126                 start, end, duration, x, y, pupil
    MSG 5484329 text     INPUT 5321059 10                       a trigger on the parallel port

Times are milliseconds of the tracker. Of two eyes, the one with more fixations is kept. What this module does not do:
detect fixations (the tracker did), calibrate.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bci.raw.clock import Clock
from bci.raw.record import Gaze

_NUMBER = re.compile(r"-?\d+(\.\d+)?")


@dataclass(frozen=True, kw_only=True, eq=False)
class EyeLink:
    """eye: L or R. samples: float64 `[n, 4]` (ms, x, y, pupil), NaN while the eye was closed. fixations: float64
    `[k, 5]` (start ms, end ms, x, y, pupil); the last sample belongs to it. messages: (ms, text); triggers: (ms,
    number) of the parallel port, 0 left out."""

    eye: str
    rate_hz: float
    samples: np.ndarray
    fixations: np.ndarray
    n_saccades: int
    n_blinks: int
    messages: tuple[tuple[float, str], ...]
    triggers: tuple[tuple[float, int], ...]


def read_eyelink(path: Path, eye: str | None = None) -> EyeLink:
    """One eye of a recording; eye: L or R, the one with more fixations where left out. Raises ValueError naming the
    file, and the line that is not as EyeLink writes it."""
    fixations: dict[str, list[list[float]]] = {"L": [], "R": []}
    counts = {("ESACC", e): 0 for e in "LR"} | {("EBLINK", e): 0 for e in "LR"}
    messages: list[tuple[float, str]] = []
    triggers: list[tuple[float, int]] = []
    samples: list[list[float]] = []
    eyes, rate_hz = "", 0.0
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error}); give an EyeLink .asc file") from error
    for number, line in enumerate(lines, 1):
        cells = line.split()
        try:
            if not cells:
                continue
            if cells[0][0].isdigit():
                if eyes:
                    samples.append([_value(cell) for cell in cells[: 1 + 3 * len(eyes)]])
            elif cells[0] == "EFIX":
                start, end, _, x, y, pupil = (_value(cell) for cell in cells[2:8])
                fixations[cells[1]].append([start, end, x, y, pupil])
            elif cells[0] in ("ESACC", "EBLINK"):
                counts[cells[0], cells[1]] += 1
            elif cells[0] == "SAMPLES":
                eyes = "".join(letter for word, letter in (("LEFT", "L"), ("RIGHT", "R")) if word in cells)
                rate_hz = float(cells[cells.index("RATE") + 1])
            elif cells[0] == "MSG":
                messages.append((float(cells[1]), line.split(None, 2)[2] if len(cells) > 2 else ""))
            elif cells[0] == "INPUT" and int(cells[2]):
                triggers.append((float(cells[1]), int(cells[2])))
        except (ValueError, IndexError, KeyError) as error:
            raise ValueError(f"{path}, line {number}: {line[:60]!r} is not as EyeLink writes it ({error})") from error
    if not samples or not eyes:
        raise ValueError(f"{path} holds no gaze sample; convert the EDF with samples and events (edf2asc)")
    if eye is not None and eye not in eyes:
        raise ValueError(f"{path} holds the eye {eyes}, not {eye}; use eye={eyes[0]}")
    chosen = eye or max(eyes, key=lambda e: len(fixations[e]))
    column = 1 + 3 * eyes.index(chosen)
    table = np.array([[row[0], *row[column : column + 3]] for row in samples if len(row) >= column + 3])
    return EyeLink(
        eye=chosen,
        rate_hz=rate_hz,
        samples=table,
        fixations=np.array(fixations[chosen], dtype=np.float64).reshape(-1, 5),
        n_saccades=counts["ESACC", chosen],
        n_blinks=counts["EBLINK", chosen],
        messages=tuple(messages),
        triggers=tuple(triggers),
    )


def _value(cell: str) -> float:
    """A number, NaN for the dot of a closed eye."""
    return float(cell) if _NUMBER.fullmatch(cell) or cell[0] in "-0123456789" else float("nan")


def gaze_of(clock: Clock, n_samples: int, fixations: np.ndarray, samples: np.ndarray) -> Gaze:
    """Gaze on the samples of an EEG: `fixations` `[k, 5]` and `samples` `[n, 4]` as in EyeLink, in the tracker's time
    that `clock` maps to samples; what lies outside the record is left out."""
    first = np.rint(clock(fixations[:, 0])).astype(np.int64)
    last = np.rint(clock(fixations[:, 1])).astype(np.int64)
    inside = (first >= 0) & (last < n_samples) & (last >= first)
    trace = np.full((n_samples, 4), np.nan)
    at = np.rint(clock(samples[:, 0])).astype(np.int64)
    heard = (at >= 0) & (at < n_samples)
    trace[at[heard]] = samples[heard]
    return Gaze(
        first=first[inside],
        samples=(last - first + 1)[inside],
        x_px=fixations[inside, 2],
        y_px=fixations[inside, 3],
        pupil=fixations[inside, 4],
        trace=trace,
    )
