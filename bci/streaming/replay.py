"""A recording replayed over the lab streaming layer as if it were being made, and handed on in sliding windows.

    PlayerLSL -> outlet -> StreamLSL -> windows of `window_s` every `step_s` -> a callable

mne-lsl pushes without waiting for listeners, so the replay begins with a silence (`lead_s`) in which to join, and a
channel beside the recording counts its samples: every one is seen to arrive, in order, or the replay fails.

What this module does not do: features. The band filters of `bci.raw` are zero-phase and look ahead; used while
recording they need `FILTER_CONTEXT` samples on either side of what they filter, and that much delay.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import Queue
from threading import Thread
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

import numpy as np

from spikeloom.bci.streaming.quiet import quiet_lsl
from spikeloom.bci.zuco.records import CHANNELS, SAMPLING_HZ

if TYPE_CHECKING:
    import mne

FILTER_CONTEXT = 413  # samples at 500 Hz: half the order, 826, of the longest band filter (4 to 6 Hz)
COUNTER = "spikeloom-sample"
POLL_S = 0.005
BUFFER_S = 30.0  # of samples that the stream keeps for us
TAIL_S = 0.5  # pushed after the recording, so that its last sample is not lost with the closing outlet


class Window(NamedTuple):
    """data: `[n_chans, n_times]` in the units of the recording; start: its first sample's place in the recording."""

    data: np.ndarray
    start: int


@dataclass(frozen=True, kw_only=True)
class Replay:
    """What came of a replay. latency_ms: `[n_windows]`, from the push of the chunk that completes a window to the end
    of the call; seconds: from the first sample to the last."""

    n_samples: int
    n_windows: int
    latency_ms: np.ndarray
    seconds: float

    def summary(self) -> str:
        """One line for people."""
        if not self.n_windows:
            return f"{self.n_samples:,} samples in {self.seconds:.1f} s, none lost; too few for a window"
        median, worst = np.median(self.latency_ms), self.latency_ms.max()
        return (
            f"{self.n_samples:,} samples in {self.seconds:.1f} s, none lost; {self.n_windows} windows, latency "
            f"{median:.1f} ms (median), {worst:.1f} ms (worst). Zero-phase band filters add the time of "
            f"{FILTER_CONTEXT} samples of context on either side."
        )


@dataclass
class ReplayConfig:
    """window_s, step_s: length and distance of windows; chunk_size: samples pushed at once; lead_s: silence in which
    the listener joins; timeout_s: how long to wait for a stream or for its next sample."""

    window_s: float = 1.0
    step_s: float = 0.5
    chunk_size: int = 10
    lead_s: float = 2.0
    timeout_s: float = 10.0

    def __post_init__(self) -> None:
        for name in ("window_s", "step_s", "lead_s", "timeout_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}; leave it out for the default")
        if self.chunk_size < 1:
            raise ValueError(f"chunk_size must be at least 1, got {self.chunk_size}; use 10")


def replay(raw: "mne.io.BaseRaw", on_window: Callable[[Window], object], config: ReplayConfig | None = None) -> Replay:
    """Play `raw` once, at the pace it was recorded, and call `on_window` for every window, in order, in one thread.

    A callable that is slower than the recording falls behind, which shows in the latency, and loses nothing. Player and
    stream are closed whatever happens; what `on_window` raises goes on to the caller. Raises ValueError where mne-lsl
    or its library is missing, and OSError where the stream does not come or loses a sample.
    """
    config = config or ReplayConfig()
    quiet_lsl()
    try:
        from mne_lsl.lsl import local_clock
        from mne_lsl.player import PlayerLSL
        from mne_lsl.stream import StreamLSL
    except (ImportError, OSError, RuntimeError) as error:
        raise ValueError(f"streaming needs mne-lsl and liblsl ({error}); pip install 'spikeloom[stream]'") from error

    rate_hz = float(raw.info["sfreq"])
    length, step = round(config.window_s * rate_hz), max(1, round(config.step_s * rate_hz))
    ahead_s = config.chunk_size / rate_hz  # a chunk is pushed where it begins and stamped where it ends
    name, n_samples = f"spikeloom-{uuid4().hex[:8]}", len(raw.times)
    received = np.zeros((len(raw.ch_names), 0))  # from sample `first` of the recording
    first, start, arrived = 0, 0, 0
    began_s = ended_s = last_news_s = time.monotonic()
    player = PlayerLSL(_with_counter(raw, config), config.chunk_size, 1, name=name, source_id=name, annotations=False)
    stream = StreamLSL(max(2 * config.window_s, BUFFER_S), name=name, source_id=name)
    attendant = _Attendant(on_window, lambda stamp: 1000 * (local_clock() - stamp + ahead_s))
    try:
        player.start()
        stream.connect(acquisition_delay=POLL_S, timeout=config.timeout_s)
        while arrived < n_samples:
            attendant.check()
            data, stamps = _news(stream, arrived, rate_hz)
            fresh = data[-1] > arrived  # the counter begins with 1; silence and an unfilled buffer have 0
            if not fresh.any():
                if time.monotonic() - last_news_s > config.timeout_s + config.lead_s:
                    raise OSError(f"no sample for {config.timeout_s:g} s after {arrived} of {n_samples}; play it again")
                time.sleep(POLL_S)
                continue
            count, at = data[-1, fresh], stamps[fresh]
            if not np.array_equal(count, np.arange(arrived + 1, arrived + 1 + len(count))):
                raise OSError(
                    f"samples were lost after {arrived} of {n_samples}; use a larger lead_s (joined late), or a "
                    "machine with less other work (buffer overrun)"
                )
            last_news_s = ended_s = time.monotonic()
            began_s = began_s if arrived else last_news_s
            arrived += len(count)
            received = np.concatenate((received, data[:-1, fresh]), axis=1)
            while start + length <= arrived:
                window = Window(received[:, start - first : start - first + length].copy(), start)
                attendant.give(window, float(at[start + length - 1 - arrived]))
                start += step
            received, first = received[:, max(0, start - first) :], max(first, min(start, arrived))
        attendant.finish()
    finally:
        attendant.dismiss()
        if stream.connected:
            stream.disconnect()
        if player.running:
            player.stop()
    latency_ms = np.array(attendant.latency_ms)
    return Replay(n_samples=arrived, n_windows=len(latency_ms), latency_ms=latency_ms, seconds=ended_s - began_s)


def _news(stream: Any, arrived: int, rate_hz: float) -> tuple[np.ndarray, np.ndarray]:
    """What came since the last look, and a second before it; all of the buffer where that leaves a gap."""
    recent_s = stream.n_new_samples / rate_hz + 1.0
    data, stamps = stream.get_data(winsize=min(recent_s, stream.n_buffer / rate_hz))
    fresh = data[-1][data[-1] > arrived]
    if len(fresh) and fresh[0] != arrived + 1:
        data, stamps = stream.get_data()
    return data, stamps


class _Attendant:
    """Calls the callable in a thread of its own, so that listening never waits for it."""

    def __init__(self, on_window: Callable[[Window], object], latency_ms: Callable[[float], float]) -> None:
        self.on_window, self.measure = on_window, latency_ms
        self.latency_ms: list[float] = []
        self.error: BaseException | None = None
        self.dismissed = False
        self.waiting: Queue[tuple[Window, float] | None] = Queue()
        self.thread = Thread(target=self._attend, name="spikeloom-windows", daemon=True)
        self.thread.start()

    def give(self, window: Window, stamp: float) -> None:
        self.waiting.put((window, stamp))

    def check(self) -> None:
        """Raise what the callable raised."""
        if self.error is not None:
            raise self.error

    def finish(self) -> None:
        """Wait for every window that was given."""
        self.waiting.put(None)
        self._wait()
        self.check()

    def dismiss(self) -> None:
        """End after the call that is under way, if there is one."""
        self.dismissed = True
        self.waiting.put(None)
        self._wait()

    def _wait(self) -> None:
        while self.thread.is_alive():
            self.thread.join(0.1)  # a longer wait would not hear Ctrl-C

    def _attend(self) -> None:
        while not self.dismissed and (given := self.waiting.get()) is not None and not self.dismissed:
            window, stamp = given
            try:
                self.on_window(window)
            except BaseException as error:
                self.error = error
                return
            self.latency_ms.append(self.measure(stamp))


def raw_of_net(eeg_uv: np.ndarray) -> "mne.io.RawArray":
    """A recording to replay from `[105, T]` in uV at 500 Hz, channels as in the features."""
    import mne

    info = mne.create_info(list(CHANNELS), SAMPLING_HZ, "eeg")
    return mne.io.RawArray(1e-6 * eeg_uv, info, verbose="error")


def _with_counter(raw: "mne.io.BaseRaw", config: ReplayConfig) -> "mne.io.RawArray":
    """The recording between two silences, and below it a channel that counts its samples from 1."""
    import mne

    rate_hz = float(raw.info["sfreq"])
    lead, tail = round(config.lead_s * rate_hz), round(TAIL_S * rate_hz)
    tail += -(lead + len(raw.times) + tail + 1) % config.chunk_size  # a last chunk of one sample or none draws warnings
    data = np.concatenate((raw.get_data(), np.arange(1.0, len(raw.times) + 1)[None]))
    info = mne.create_info([*raw.ch_names, COUNTER], rate_hz, [*raw.get_channel_types(), "misc"])
    return mne.io.RawArray(np.pad(data, ((0, 0), (lead, tail))), info, verbose="error")
