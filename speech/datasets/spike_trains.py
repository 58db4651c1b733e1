"""Spoken clips as spikes on a bank of units: the counterpart of `speech.datasets.utterances` for event recordings.

What this module does not do: read files (`spikeloom.speech.datasets.shd`) or turn events into frames.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from spikeloom.speech.datasets.clips import Clips


class Events(NamedTuple):
    """The spikes of one clip. times_s: float64 `[n]`, seconds; units: int64 `[n]`, 0 = highest frequency."""

    times_s: np.ndarray
    units: np.ndarray


@dataclass(frozen=True, kw_only=True)
class SpikeTrains(Clips[Events]):
    """Labelled event recordings on `n_units` units.

    events: one `Events` per clip, read when indexed if it is a `LazySequence`; the other fields as in `Clips`, whose
    errors it raises.
    """

    CONTENT: ClassVar[str] = "events"

    events: Sequence[Events]
    n_units: int = 700
