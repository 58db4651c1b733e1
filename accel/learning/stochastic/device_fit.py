"""A device from measured pulses: the curve and the noise of `accel.learning.stochastic.devices`, fitted to a trace.

    dG+ = c - k (G - Gmin),   k = 1 - exp(-a/N),   c = k (Gmax - Gmin) / (1 - exp(-a))         likewise dG- in Gmax - G
    weights of the regression 1 / (mu^2 + f^2), mu the fitted change, f a twentieth of its mean: noise grows with mu
    gamma^2 = sum w (dG - mu)^2 / sum w mu^2

A pulse is a straight line in the conductance before it, so the fit is linear and has one solution. Gmin and Gmax are
the extremes of the trace unless they are given. Pulses that end at a bound are left out: the bound cut them short.
Readings are taken as free of noise; what they have appears as noise of the pulses.
"""

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from spikeloom.accel.common.files import require_regular
from spikeloom.accel.learning.stochastic.devices import Device, Writing

COLUMNS = ("device", "direction", "conductance_siemens")
WAYS = {"up": 1, "down": -1, "1": 1, "-1": -1, "+1": 1, "start": 0, "0": 0}
FEWEST = 5  # pulses of a way that a fit may rest on
MOST_ROWS = 10_000_000
STEEPEST = 50.0  # alpha of a curve that ends before the bound, as in the literature's steepest preset
REPEATS = 50  # of the regression, whose weights depend on its result


class PulseTrace(NamedTuple):
    """Pulses of one or several devices: way +1 or -1, conductance before and after, in siemens, all [n]."""

    way: np.ndarray
    before: np.ndarray
    after: np.ndarray


@dataclass(frozen=True)
class WayFit:
    """One way of writing. alpha, pulses, gamma: as in `Device`; used, left_out: pulses; residual: root mean square of
    measured minus fitted change, as a share of the window Gmax - Gmin; explained: share of the variance of the
    changes."""

    alpha: float
    pulses: int
    gamma: float
    used: int
    left_out: int
    residual: float
    explained: float


def read_trace(path: Path) -> PulseTrace:
    """Pulses of a CSV file with the columns direction (up, down; start for a reading that no pulse led to) and
    conductance_siemens after the pulse, in the order of time, and device where there are several.

    Raises:
        ValueError: naming the file, the line and the remedy.
    """
    last: dict[str, float] = {}
    rows: list[tuple[int, float, float]] = []
    for device, way, conductance in _readings(path):
        if way and device in last:
            rows.append((way, last[device], conductance))
        last[device] = conductance
    if not rows:
        raise ValueError(f"{path}: no pulse with a reading before and after it; give at least {FEWEST} of a direction")
    return PulseTrace(*(np.array(column) for column in zip(*rows, strict=True)))


def _readings(path: Path) -> Iterator[tuple[str, int, float]]:
    require_regular(path, "give a CSV file")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file)
            missing = [name for name in COLUMNS[1:] if name not in (table.fieldnames or ())]
            if missing:
                raise ValueError(
                    f"{path}: no column {', '.join(missing)}; needed are direction (up, down, start) and "
                    "conductance_siemens, the reading after the pulse, and device where there are several"
                )
            for row in table:
                where = f"{path}, line {table.line_num}"
                if table.line_num > MOST_ROWS:
                    raise ValueError(f"{where}: more than {MOST_ROWS:,} lines; give a part of the trace")
                direction = (row["direction"] or "").strip().lower()
                if direction not in WAYS:
                    raise ValueError(f"{where}: direction {direction[:40]!r}; use up, down or start")
                try:
                    conductance = float(row["conductance_siemens"])
                except (TypeError, ValueError):
                    conductance = math.nan
                if not 0 <= conductance <= 1:
                    given = str(row["conductance_siemens"])[:40]
                    raise ValueError(
                        f"{where}: conductance_siemens is {given!r}; use siemens from 0 to 1 (1 µS = 1e-6, and a "
                        "resistance R is 1 / R)"
                    )
                yield row.get("device") or "", WAYS[direction], conductance
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as a table ({error}); give a CSV file") from error


def fit_device(
    trace: PulseTrace, name: str, source: str, *, read_volts: float, g_min: float | None = None,
    g_max: float | None = None,
) -> tuple[Device, dict[str, WayFit]]:  # fmt: skip
    """The device of a trace, and for each way of writing ("up", "down") how well it fits.

    Args:
        trace: at least `FEWEST` pulses of a direction; a direction with fewer is taken as not existing.
        name: of the device.
        source: where the trace comes from.
        read_volts: at which a weight will be read, in volts; nothing in the trace tells it.
        g_min, g_max: bounds in siemens; the extremes of the trace where None.

    Raises:
        ValueError: where no direction has enough pulses, or its pulses go the other way on average.
    """
    readings = np.concatenate((trace.before, trace.after))
    low = float(readings.min()) if g_min is None else g_min
    high = float(readings.max()) if g_max is None else g_max
    if not 0 <= low < high:
        raise ValueError(f"conductances reach from {low:g} to {high:g} siemens; a device needs 0 <= g_min < g_max")
    fits = {
        way: _fit_way(way, trace, sign, low, high)
        for way, sign in (("up", 1), ("down", -1))
        if int((trace.way == sign).sum()) >= FEWEST
    }
    if not fits:
        raise ValueError(f"{len(trace.way)} pulses; a fit needs at least {FEWEST} of a direction")
    writing: Writing = "pot_dep" if len(fits) == 2 else "pot_only" if "up" in fits else "dep_only"
    up, down = fits.get("up"), fits.get("down")
    device = Device(
        name=name, writing=writing, g_max_siemens=high, g_min_siemens=low, read_volts=read_volts,
        pulses_up=up.pulses if up else 0, pulses_down=down.pulses if down else 0, alpha_up=up.alpha if up else 0.0,
        alpha_down=down.alpha if down else 0.0, gamma_up=up.gamma if up else 0.0,
        gamma_down=down.gamma if down else 0.0, source=source,
    )  # fmt: skip
    return device, fits


def _fit_way(way: str, trace: PulseTrace, sign: int, low: float, high: float) -> WayFit:
    chosen, window = trace.way == sign, high - low
    start = low if sign > 0 else high
    # 0 where the way begins, 1 at its end
    before, after = ((side[chosen] - start) * sign / window for side in (trace.before, trace.after))
    inside = (after > 1e-9) & (after < 1 - 1e-9)
    x, dy = before[inside], (after - before)[inside]
    if len(x) < FEWEST:
        raise ValueError(f"{way}: {len(x)} pulses end between the bounds; a fit needs at least {FEWEST}")
    intercept, slope = float(dy.mean()), 0.0
    weights = np.ones_like(dy)
    for _ in range(REPEATS):
        middle = float(np.average(x, weights=weights))
        centred = x - middle
        spread = float((weights * centred**2).sum())
        slope = float((weights * centred * dy).sum() / spread) if spread > 0 else 0.0
        slope = min(slope, 0.0)  # alpha >= 0: a pulse never moves more the further it has come
        intercept = float(np.average(dy - slope * x, weights=weights))
        fitted = intercept + slope * x
        weights = 1 / (fitted**2 + (fitted.mean() / 20) ** 2)
    if intercept <= 0:
        against = "downwards" if sign > 0 else "upwards"
        raise ValueError(f"{way}: its {len(x)} pulses lead {against} on average; exchange up and down, or look again")
    k = -slope
    share = k / intercept  # 1 - exp(-alpha)
    alpha = -math.log1p(-share) if share < -math.expm1(-STEEPEST) else STEEPEST
    pulses = 1 / intercept if alpha < 1e-6 else alpha / -math.log1p(-min(k, 1 - 1e-12))
    gamma = math.sqrt(float((weights * (dy - fitted) ** 2).sum() / (weights * fitted**2).sum()))
    residual = float(((dy - fitted) ** 2).mean())
    variance = float(dy.var())
    return WayFit(
        alpha=alpha, pulses=max(1, round(pulses)), gamma=gamma, used=len(x), left_out=int(chosen.sum()) - len(x),
        residual=math.sqrt(residual), explained=1 - residual / variance if variance > 0 else 1.0,
    )  # fmt: skip
