"""Two clocks that saw the same events: the time of one as a straight line of the other, deaf to single late events.

eeg = a + b * tracker,   least squares with Huber's weights min(1, 1.345 s / |residual|),  s = 1.4826 MAD
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

TUNING, ITERATIONS = 1.345, 30


class Clock(NamedTuple):
    """offset and rate of the line around `centre`; residual: largest distance of an event from it."""

    centre: float
    offset: float
    rate: float
    residual: float

    def __call__(self, times: np.ndarray) -> np.ndarray:
        mapped: np.ndarray = self.offset + self.rate * (np.asarray(times, dtype=np.float64) - self.centre)
        return mapped


def fit_clock(times: np.ndarray, reference: np.ndarray) -> Clock:
    """The line that maps `times` `[n]` to `reference` `[n]`. Raises ValueError for fewer than two moments."""
    times, reference = np.asarray(times, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    if times.shape != reference.shape or len(np.unique(times)) < 2:
        raise ValueError(f"got {len(times)} and {len(reference)} events; use at least two that both clocks saw")
    centre = float(times.mean())
    design = np.stack((np.ones_like(times), times - centre), axis=1)
    weights = np.ones_like(times)
    for _ in range(ITERATIONS):
        root = np.sqrt(weights)
        (offset, rate), *_ = np.linalg.lstsq(design * root[:, None], reference * root, rcond=None)
        residual = np.abs(reference - design @ (offset, rate))
        scale = TUNING * 1.4826 * float(np.median(residual))
        if scale < 1e-9:  # most events lie on the line
            break
        weights = np.minimum(1.0, scale / np.maximum(residual, scale))
    return Clock(centre, float(offset), float(rate), float(residual.max()))


def same_triggers(what: str, first: Sequence[int], second: Sequence[int]) -> None:
    """Raise ValueError naming the first trigger that two devices did not see alike, in the same order."""
    for place, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            raise ValueError(f"{what}: trigger {place} is {a} in the EEG and {b} in the gaze; leave this run out")
    if len(first) != len(second):
        raise ValueError(f"{what}: {len(first)} triggers in the EEG, {len(second)} in the gaze; leave this run out")
