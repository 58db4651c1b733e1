"""EyeLink recordings as text (`.asc`): samples, fixations, messages and triggers of one eye.

    SAMPLES GAZE LEFT RATE 500.00          5471284  846.7  550.9  3134.0 ...
    EFIX L 5471284 5471550 268 843.2 551.4 3126                 start, end, duration, x, y, pupil
    MSG 5484329 text     INPUT 5321059 10                       a trigger on the parallel port

Times are milliseconds of the tracker. Of two eyes, the one with more fixations is kept. What this module does not do:
detect fixations (the tracker did), calibrate.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from spikeloom.accel.common.files import require_regular
from spikeloom.bci.raw.clock import Clock
from spikeloom.bci.raw.record import Gaze

MISSING = -32768.0  # what EyeLink itself writes where it sees no eye
RATE_TOLERANCE = 0.1  # relative, of the median step between samples


@dataclass(frozen=True, kw_only=True, eq=False)
class EyeLink:
    """eye: L or R. samples: float64 `[n, 4]` (ms, x, y, pupil), NaN while the eye was closed. fixations: float64
    `[k, 5]` (start ms, end ms, x, y, pupil); the last sample belongs to it. messages: (ms, text); triggers: (ms,
    number) of the parallel port, 0 left out. notes: what changes between blocks, in words."""

    eye: str
    rate_hz: float
    samples: np.ndarray
    fixations: np.ndarray
    n_saccades: int
    n_blinks: int
    messages: tuple[tuple[float, str], ...]
    triggers: tuple[tuple[float, int], ...]
    notes: tuple[str, ...] = ()


def read_eyelink(path: Path, eye: str | None = None) -> EyeLink:
    """One eye of a recording; eye: L or R, the one with more fixations where left out.

    Each block says which eyes it holds, at which rate; blocks without the chosen eye give no samples, and `notes` say
    so. Raises ValueError naming the file, and the line that is not as EyeLink writes it, or holds no pixels.
    """
    read = _Reading()
    require_regular(path, "give an EyeLink .asc file")
    try:
        content = path.read_bytes()
        coding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        lines = content.decode(coding, errors="replace").split("\n")
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error}); give an EyeLink .asc file") from error
    for number, line in enumerate(lines, 1):
        try:
            read.line(line)
        except (ValueError, IndexError, KeyError, OverflowError) as error:
            raise ValueError(f"{path}, line {number}: {line[:60]!r} is not as EyeLink writes it ({error})") from error
    blocks = [block for block in read.blocks if block.rows]
    if not blocks:
        raise ValueError(f"{path} holds no gaze sample; convert the EDF with samples and events (edf2asc)")
    eyes = "".join(e for e in "LR" if any(e in block.eyes for block in blocks))
    if eye is not None and eye not in eyes:
        raise ValueError(f"{path} holds the eye {eyes}, not {eye}; use eye={eyes[0]}")
    chosen = eye or max(eyes, key=lambda e: len(read.fixations[e]))
    held = [block for block in blocks if chosen in block.eyes]
    rates = {block.rate_hz: 0 for block in held}
    for block in held:
        rates[block.rate_hz] += len(block.rows)
    notes = []
    if len(held) < len(blocks):
        lost = sum(len(block.rows) for block in blocks) - sum(len(block.rows) for block in held)
        notes.append(
            f"the recorded eye changes: {len(held)} of {len(blocks)} blocks hold {chosen}, {lost:,} samples of the "
            "other eye left out"
        )
    if len(rates) > 1:
        notes.append(f"the rate changes: {', '.join(f'{n:,} samples at {hz:g} Hz' for hz, n in rates.items())}")
    for block in held:
        step = float(np.median(np.diff([row[0] for row in block.rows]))) if len(block.rows) > 1 else 0.0
        if step > 0 and block.rate_hz <= 1000 and abs(step * block.rate_hz / 1000 - 1) > RATE_TOLERANCE:
            notes.append(f"a block names {block.rate_hz:g} Hz, its samples lie {step:g} ms apart")
    return EyeLink(
        eye=chosen,
        rate_hz=max(rates, key=lambda hz: rates[hz]),
        samples=np.concatenate([block.samples(chosen) for block in held]),
        fixations=np.array(read.fixations[chosen], dtype=np.float64).reshape(-1, 5),
        n_saccades=read.counts["ESACC", chosen],
        n_blinks=read.counts["EBLINK", chosen],
        messages=tuple(read.messages),
        triggers=tuple(read.triggers),
        notes=tuple(notes),
    )


@dataclass(frozen=True, kw_only=True)
class _Block:
    """What follows a line SAMPLES. rows: (ms, then x, y, pupil of each eye). extra: columns after them, at most."""

    eyes: str
    rate_hz: float
    extra: int
    rows: list[list[float]] = field(default_factory=list)

    def add(self, cells: list[str]) -> None:
        least = 1 + 3 * len(self.eyes)
        if not least <= len(cells) <= least + self.extra:
            raise ValueError(f"{len(cells)} columns, the block announces the eyes {self.eyes}: {least} and flags")
        row = [_value(cell) for cell in cells[:least]]
        if not math.isfinite(row[0]) or (self.rows and row[0] < self.rows[-1][0]):
            raise ValueError("its time lies before the sample above")
        self.rows.append(row)

    def samples(self, eye: str) -> np.ndarray:
        column = 1 + 3 * self.eyes.index(eye)
        return np.array([[row[0], *row[column : column + 3]] for row in self.rows])


class _Reading:
    """What the lines so far have said."""

    def __init__(self) -> None:
        self.blocks: list[_Block] = []
        self.fixations: dict[str, list[list[float]]] = {"L": [], "R": []}
        self.counts = {(kind, e): 0 for kind in ("ESACC", "EBLINK") for e in "LR"}
        self.messages: list[tuple[float, str]] = []
        self.triggers: list[tuple[float, int]] = []

    def line(self, line: str) -> None:
        cells = line.split()
        if not cells:
            return
        kind = cells[0]
        if kind[0].isdigit():
            if self.blocks:
                self.blocks[-1].add(cells)
            elif not cells[-1].strip(".ICRM"):  # flags; other numbers are those of a calibration
                raise ValueError("a sample before the line SAMPLES; convert the EDF with its header")
        elif kind == "EFIX":
            start, end, _, x, y, pupil = (_value(cell) for cell in cells[2:8])
            if not (math.isfinite(start) and math.isfinite(end) and start <= end):
                raise ValueError("a fixation ends before it starts")
            self.fixations[cells[1]].append([start, end, x, y, pupil])
        elif kind in ("ESACC", "EBLINK"):
            self.counts[kind, cells[1]] += 1
        elif kind in ("SAMPLES", "EVENTS"):
            self.block(kind, cells)
        elif kind == "MSG":
            self.messages.append((float(cells[1]), line.split(None, 2)[2] if len(cells) > 2 else ""))
        elif kind == "INPUT" and int(cells[2]):
            self.triggers.append((float(cells[1]), int(cells[2])))

    def block(self, kind: str, cells: list[str]) -> None:
        if raw := [word for word in ("HREF", "PUPIL") if len(cells) > 1 and cells[1] == word]:
            raise ValueError(f"{raw[0]} holds angles or camera units, no pixels; convert the EDF again as GAZE")
        eyes = "".join(letter for word, letter in (("LEFT", "L"), ("RIGHT", "R")) if word in cells)
        if not eyes:
            raise ValueError("names no eye")
        if kind == "EVENTS":
            return
        rate_hz = float(cells[cells.index("RATE") + 1])
        if not 0 < rate_hz <= 10_000:
            raise ValueError(f"a rate of {rate_hz} Hz")
        extra = 1 + 2 * len(eyes) * ("VEL" in cells) + 2 * ("RES" in cells) + ("INPUT" in cells) + ("BUTTONS" in cells)
        self.blocks.append(_Block(eyes=eyes, rate_hz=rate_hz, extra=extra + 5 * ("HTARGET" in cells)))


def _value(cell: str) -> float:
    """A number, NaN for the dot of a closed eye and for MISSING. Raises ValueError for anything else."""
    value = float("nan") if cell == "." else float(cell)
    if cell == "." or value == MISSING:
        return float("nan")
    if not math.isfinite(value):
        raise ValueError(f"{cell} is no position")
    return value


def gaze_of(clock: Clock, n_samples: int, fixations: np.ndarray, samples: np.ndarray) -> Gaze:
    """Gaze on the samples of an EEG: `fixations` `[k, 5]` and `samples` `[n, 4]` as in EyeLink, in the tracker's time
    that `clock` maps to samples; what lies outside the record is left out."""
    first = np.rint(clock(fixations[:, 0])).astype(np.int64)
    last = np.rint(clock(fixations[:, 1])).astype(np.int64)
    inside = (first >= 0) & (last < n_samples) & (last >= first)
    trace = np.full((n_samples, 4), np.nan)
    at = np.rint(clock(samples[:, 0])).astype(np.int64)
    inside_record = (at >= 0) & (at < n_samples)
    trace[at[inside_record]] = samples[inside_record]
    return Gaze(
        first=first[inside],
        samples=(last - first + 1)[inside],
        x_px=fixations[inside, 2],
        y_px=fixations[inside, 3],
        pupil=fixations[inside, 4],
        trace=trace,
    )
