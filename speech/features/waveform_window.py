"""What every front end of audio does before its arithmetic: take the right rate, and of a long recording one clip."""

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import numpy as np

from spikeloom.speech.datasets.clips import Clips
from spikeloom.speech.datasets.utterances import Utterances

WINDOWS = ("loudest", "start", "center")


class WaveformConfig(Protocol):
    """What `WaveformWindow` reads of a front end's settings."""

    input_rate_hz: int
    clip_s: float
    window: str


class WaveformWindow:
    """Base of the front ends of audio: recordings of one sample rate, and the clip that is used of a longer one.

    Raises ValueError for a window that does not exist.
    """

    presets: ClassVar[str]  # of a subclass, by sample rate
    config: Any  # settings of a subclass, which are a WaveformConfig

    def __init__(self, config: WaveformConfig) -> None:
        if config.window not in WINDOWS:
            raise ValueError(f"features.window={config.window} is unknown; use one of {', '.join(WINDOWS)}")
        self.config = config
        self.clip_samples = round(config.input_rate_hz * config.clip_s)

    def recordings(self, clips: Clips[Any]) -> Sequence[np.ndarray]:
        """What `frames` takes, one for each clip. Raises ValueError for spikes and for another sample rate."""
        if not isinstance(clips, Utterances):
            raise ValueError("got spike trains for a front end of audio; use features=events")
        if clips.sample_rate_hz != self.config.input_rate_hz:
            raise ValueError(
                f"got clips of {clips.sample_rate_hz} Hz for a front end of {self.config.input_rate_hz} Hz; "
                f"use the preset for this rate ({self.presets})"
            )
        return clips.waveforms

    def left_out(self, recording: np.ndarray) -> str:
        """What `frames` leaves out of a recording, as text; "" for nothing."""
        if len(recording) <= self.clip_samples:
            return ""
        used = {"loudest": "the loudest part", "start": "the beginning", "center": "the middle"}[self.config.window]
        return f"longer than {self.config.clip_s:g} s: {used} is used"

    def clip(self, recording: np.ndarray) -> np.ndarray:
        """At most a clip's samples of a recording `[samples]`."""
        begin = window_start(recording, self.clip_samples, self.config.window)
        return recording[begin : begin + self.clip_samples]


def window_start(waveform: np.ndarray, length: int, window: str) -> int:
    """First of the `length` samples that are used of a waveform `[samples]`; 0 where it is not longer than that.

    "loudest" are those with the most energy; among equals the earliest, so that silence is read from its start.
    """
    spare = len(waveform) - length
    if spare <= 0 or window == "start":
        return 0
    if window == "center":
        return spare // 2
    energy = np.concatenate(([0.0], np.square(waveform, dtype=np.float64).cumsum()))
    return int((energy[length:] - energy[:-length]).argmax())
