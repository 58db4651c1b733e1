"""Event frames: spike times and units in, counts `[T, channels]` out, for recordings in the manner of SHD and SSC.

    t_ms = (t_s - min t_s) 1000                     float64; the first spike is at 0 ms
    n    = max(1, ceil(max t_ms / step_ms))         the last bin takes the remainder
    bin  = min(floor(t_ms / step_ms), n - 1)
    frames[bin, unit // units_per_channel] += 1

No event is lost and nothing is normalised: the sum of the frames is the number of events. A clip without events is one
frame of zeros. T differs from clip to clip.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from spikeloom.speech.datasets.clips import Clips
from spikeloom.speech.datasets.spike_trains import Events, SpikeTrains

MAX_STEPS = 100_000  # 100 s at 1 ms: beyond it the times are in another unit than seconds


@dataclass
class EventBinsConfig:
    """Settings of `EventBins`: the time resolution, and how many neighbouring units make a channel."""

    kind: str = "event_bins"
    step_ms: float = 10.0  # time step
    n_units: int = 700  # units of the recordings
    units_per_channel: int = 5  # neighbouring units counted as one channel

    @property
    def n_channels(self) -> int:
        return self.n_units // self.units_per_channel

    @property
    def floor(self) -> float:
        """Feature value of silence: what masking fills in."""
        return 0.0

    def at(self, step_ms: float) -> "EventBinsConfig":
        """The same front end at another time resolution."""
        return replace(self, step_ms=step_ms)

    def build(self) -> "EventBins":
        return EventBins(self)


class EventBins:
    """One recording of events -> counts `[T, n_channels]` (equations above)."""

    def __init__(self, config: EventBinsConfig) -> None:
        if not config.step_ms > 0:
            raise ValueError(f"step_ms must be positive, got {config.step_ms}; use for example 10")
        if config.units_per_channel < 1 or config.n_units % config.units_per_channel:
            raise ValueError(
                f"units_per_channel {config.units_per_channel} does not divide {config.n_units} units; use 5"
            )
        self.config = config
        self.n_channels, self.step_ms = config.n_channels, config.step_ms

    def recordings(self, clips: Clips[Any]) -> Sequence[Events]:
        """What `frames` takes, one for each clip. Raises ValueError for audio and for another number of units."""
        if not isinstance(clips, SpikeTrains):
            raise ValueError("got audio clips for a front end of spikes; use features=gsc or gsc_8k")
        if clips.n_units != self.config.n_units:
            raise ValueError(
                f"got events of {clips.n_units} units for a front end of {self.config.n_units}; "
                f"use features.n_units={clips.n_units}"
            )
        return clips.events

    def left_out(self, recording: Events) -> str:
        """Nothing: every event is counted."""
        return ""

    def frames(self, recording: Events) -> torch.Tensor:
        """Counts `[T, n_channels]` in the smallest of uint8, int16 and int32 that holds them.

        Raises ValueError when the recording spans more than `MAX_STEPS` steps.
        """
        if len(recording.times_s) == 0:
            return torch.zeros(1, self.n_channels, dtype=torch.uint8)
        times_s = recording.times_s.astype(
            np.float64, copy=False
        )  # published times are float16: 1.2 s in ms needs more
        steps = (times_s - times_s.min()) * 1000 / self.step_ms
        n_steps = max(1, int(np.ceil(steps.max())))
        if n_steps > MAX_STEPS:
            raise ValueError(f"spans {n_steps} steps of {self.step_ms:g} ms; use times in seconds, or a longer step_ms")
        step = np.minimum(steps.astype(np.int64), n_steps - 1)
        cell = step * self.n_channels + recording.units // self.config.units_per_channel
        counts = np.bincount(cell, minlength=n_steps * self.n_channels).reshape(n_steps, self.n_channels)
        smallest = next(t for t in (np.uint8, np.int16, np.int32) if counts.max() <= np.iinfo(t).max)
        return torch.from_numpy(counts.astype(smallest))
