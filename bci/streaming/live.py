"""Windows of a stream that another process makes: an amplifier, BrainFlow, a player of mne-lsl; by its LSL name.

    StreamLSL(NAME) -> samples since the last look -> volts -> the 105 places of the net -> 500 Hz -> windows

A stream that stops is joined again when it comes back; windows never span a gap. Each window loses its straight line,
in place of a high-pass, which would need seconds of past. What this module does not do: synchronise with other streams.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from spikeloom.accel.common.files import first_few
from spikeloom.bci.raw.channels import VOLTS, bipolar, electrodes_of, refuse_ambiguous, system
from spikeloom.bci.raw.interpolation import HIGHEST_UV, LEAST_CHANNELS, LOWEST_UV, to_the_net, too_few
from spikeloom.bci.streaming.quiet import quiet_lsl
from spikeloom.bci.streaming.replay import POLL_S, ReplayConfig, Window
from spikeloom.bci.zuco.records import CHANNELS, REFERENCE, SAMPLING_HZ

JUMP_S = 0.5  # between samples, from which on some were lost: stamps of chunks jitter by their length
REJOINS_S = 30.0  # how long a stream that stopped is waited for


@dataclass
class Live:
    """What came of a stream. gaps: (second, seconds without samples); how: what was done to its channels, in words."""

    how: str
    rate_hz: float
    n_samples: int = 0
    n_windows: int = 0
    gaps: list[tuple[float, float]] = field(default_factory=list)

    def summary(self) -> str:
        """One line for people."""
        lost = f"; {len(self.gaps)} gaps, {sum(s for _, s in self.gaps):.1f} s in all" if self.gaps else ", no gap"
        return f"{self.n_samples:,} samples, {self.n_samples / self.rate_hz:.1f} s{lost}; {self.n_windows} windows"


def net_matrix(
    names: list[str], stream: str, cap: str | None = None, rename: Mapping[str, str] | None = None
) -> tuple[np.ndarray, list[int], str]:
    """How potentials at channels become those at the net: `[105, n]`, the channels used, and that in words.

    Raises ValueError naming the stream where too few electrodes are known, as for a recording.
    """
    import mne

    if cap is not None:
        if cap not in mne.channels.get_builtin_montages():
            raise ValueError(f"{stream}: cap={cap} is no montage of MNE; use biosemi32 or another of its names")
        worn = mne.channels.make_standard_montage(cap)
        if len(worn.ch_names) != len(names):
            raise ValueError(
                f"{stream}: cap={cap} has {len(worn.ch_names)} electrodes, the stream {len(names)}; use the cap worn"
            )
        electrodes, montage = list(worn.ch_names), worn
    else:
        plain = {name: name.replace("_", " ") for name in names}  # EEG_Fp1
        found = electrodes_of(list(plain.values()), stream, rename)
        electrodes = [found.renames.get(plain[name], plain[name]) for name in names]
        if set(CHANNELS) - {REFERENCE} <= set(electrodes):
            return _same_net(electrodes)
        refuse_ambiguous(electrodes, stream)
        if pairs := bipolar(electrodes):
            raise ValueError(f"{stream}: {first_few(pairs)} are differences of two electrodes; give rename=FILE")
        montage = system()
    placed = [k for k, name in enumerate(electrodes) if name in montage.ch_names]
    if len(placed) < LEAST_CHANNELS:
        raise too_few(stream, len(placed), electrodes)
    info = mne.create_info([electrodes[k] for k in placed], SAMPLING_HZ, "eeg")
    identity = mne.io.RawArray(np.eye(len(placed)), info, verbose="error").set_montage(montage, verbose="error")
    matrix, _, how = to_the_net(identity, stream)
    return matrix, placed, ", ".join(how)


def _same_net(electrodes: list[str]) -> tuple[np.ndarray, list[int], str]:
    used = [k for k, name in enumerate(electrodes) if name in CHANNELS]
    matrix = np.zeros((len(CHANNELS), len(used)))
    for column, k in enumerate(used):
        matrix[CHANNELS.index(electrodes[k]), column] = 1.0
    matrix -= matrix[-1].copy()  # whatever Cz measures
    return matrix, used, "the electrodes of the net as streamed"


def follow(
    name: str,
    on_window: Callable[[Window], object],
    config: ReplayConfig | None = None,
    *,
    seconds: float = 0.0,
    cap: str | None = None,
    unit: str | None = None,
    rename: Mapping[str, str] | None = None,
    on_event: Callable[[str], object] = lambda text: None,
) -> Live:
    """Join the stream called `name` and call `on_window` for every window of the net, in volts at 500 Hz.

    Args:
        name: of the LSL stream.
        on_window: in the thread of the caller; a slow one falls behind and shows as gaps.
        config: window_s, step_s and timeout_s count.
        seconds: of the stream; 0: until it is gone for REJOINS_S.
        cap, unit, rename: as `bci.raw.recordings.onto_net`.
        on_event: joined, lost and rejoined, in words.

    Raises ValueError for channels or units nobody can place, OSError where there is no such stream.
    """
    config = config or ReplayConfig()
    quiet_lsl()
    try:
        from mne_lsl.lsl import resolve_streams
        from mne_lsl.stream import StreamLSL
    except (ImportError, OSError, RuntimeError) as error:
        raise ValueError(f"streaming needs mne-lsl and liblsl ({error}); pip install 'spikeloom[stream]'") from error

    def join(timeout_s: float) -> Any:
        stream = StreamLSL(max(2 * config.window_s, 30.0), name=name)
        try:
            return stream.connect(acquisition_delay=POLL_S, timeout=timeout_s)
        except (RuntimeError, TimeoutError, ValueError):
            return None

    stream = join(config.timeout_s)
    if stream is None:
        there = sorted({found.name for found in resolve_streams(timeout=1.0)})
        raise OSError(f"no stream called {name} within {config.timeout_s:g} s; there are {', '.join(there) or 'none'}")
    try:
        matrix, used, scale, how = _mapping(stream, name, cap, unit, rename)
        channels = list(stream.ch_names)
        live = Live(how=how, rate_hz=float(stream.info["sfreq"]))
        on_event(f"joined {name}: {len(channels)} channels at {live.rate_hz:g} Hz; {how}")
        buffer = _Windows(live, matrix * scale, used, config, on_window, name)
        last_news_s = time.monotonic()
        while not seconds or live.n_samples < seconds * live.rate_hz:
            data, stamps = _news(stream, buffer.last_stamp)
            if len(stamps):
                buffer.add(data, stamps)
                last_news_s = time.monotonic()
                continue
            if time.monotonic() - last_news_s > max(1.0, 4 * POLL_S):
                on_event(f"{name} is silent after {live.n_samples / live.rate_hz:.1f} s; waiting")
                if stream.connected:
                    stream.disconnect()
                again = None
                while again is None and time.monotonic() - last_news_s < REJOINS_S:
                    again = join(2.0)
                if again is None:
                    on_event(f"{name} did not come back within {REJOINS_S:g} s")
                    break
                if list(again.ch_names) != channels or again.info["sfreq"] != live.rate_hz:
                    raise OSError(f"{name} came back with other channels or another rate; start listen again")
                stream = again
                buffer.lost(time.monotonic() - last_news_s)
                on_event(f"{name} is back after {time.monotonic() - last_news_s:.1f} s")
                last_news_s = time.monotonic()
            time.sleep(POLL_S)
    finally:
        if stream.connected:
            stream.disconnect()
    return live


def _mapping(
    stream: Any, name: str, cap: str | None, unit: str | None, rename: Mapping[str, str] | None
) -> tuple[np.ndarray, list[int], float, str]:
    kinds = [str(kind).lower() for kind in (stream.sinfo.get_channel_types() or [])]
    eeg = [k for k, _ in enumerate(stream.ch_names) if not kinds or kinds[k] in ("eeg", "none", "")]
    if not eeg:
        raise ValueError(f"{name} has no EEG channel, its types are {', '.join(sorted(set(kinds)))}; name another lsl")
    matrix, used, how = net_matrix([stream.ch_names[k] for k in eeg], name, cap, rename)
    units = [str(u).strip() for u in (stream.sinfo.get_channel_units() or [])]
    told = {units[k].casefold() for k in eeg if k < len(units)} - {"none", ""}
    written = unit.casefold() if unit is not None else next(iter(told)) if len(told) == 1 else None
    volts = _POWERS.get(written or "", VOLTS.get(written or ""))
    if volts is None:
        raise ValueError(f"{name} names the unit {', '.join(sorted(told)) or 'nowhere'}; give unit=uV (or V, mV, nV)")
    return matrix, [eeg[k] for k in used], volts, how


_POWERS = {"0": 1.0, "-3": 1e-3, "-6": 1e-6, "-9": 1e-9}  # as mne-lsl writes units, by their power of ten


def _news(stream: Any, last: float) -> tuple[np.ndarray, np.ndarray]:
    """Samples after the time stamp `last`, and their stamps."""
    if not stream.n_new_samples:
        return np.zeros((0, 0)), np.zeros(0)
    recent_s = stream.n_new_samples / stream.info["sfreq"] + 1.0
    data, stamps = stream.get_data(winsize=min(recent_s, stream.n_buffer / stream.info["sfreq"]))
    fresh = (stamps > last) & (stamps > 0)
    return data[:, fresh], stamps[fresh]


class _Windows:
    """Collects samples between gaps and hands out windows of the net."""

    def __init__(
        self, live: Live, matrix: np.ndarray, used: list[int], config: ReplayConfig,
        on_window: Callable[[Window], object], name: str,
    ) -> None:  # fmt: skip
        self.live, self.matrix, self.used, self.on_window, self.name = live, matrix, used, on_window, name
        self.length, self.step = (round(s * live.rate_hz) for s in (config.window_s, config.step_s))
        self.step = max(1, self.step)
        self.held = np.zeros((len(used), 0))
        self.start = 0  # first sample of `held`, of all samples received
        self.last_stamp = 0.0

    def lost(self, seconds: float) -> None:
        """Begin anew: what is held does not go on."""
        self.live.gaps.append((self.live.n_samples / self.live.rate_hz, seconds))
        self.held, self.start, self.last_stamp = self.held[:, :0], self.live.n_samples, 0.0

    def add(self, data: np.ndarray, stamps: np.ndarray) -> None:
        steps_s = np.diff(np.concatenate(([self.last_stamp or stamps[0]], stamps)))
        for first, end in _runs(steps_s > JUMP_S):
            if steps_s[first] > JUMP_S:
                self.lost(float(steps_s[first]))
            self.held = np.concatenate((self.held, data[self.used, first:end]), axis=1)
            self.live.n_samples += end - first
            self.last_stamp = float(stamps[end - 1])
            self._hand_out()

    def _hand_out(self) -> None:
        while self.held.shape[1] >= self.length:
            window = self.matrix @ self.held[:, : self.length]
            at_500 = _resampled(_without_line(window), self.live.rate_hz)
            if not self.live.n_windows:
                _check_level(at_500, self.name)
            self.live.n_windows += 1
            self.on_window(Window(at_500, round(self.start * SAMPLING_HZ / self.live.rate_hz)))
            self.held, self.start = self.held[:, self.step :], self.start + self.step


def _runs(breaks: np.ndarray) -> list[tuple[int, int]]:
    """(first, end) of stretches that begin at 0 and wherever `breaks` is true."""
    starts = sorted({0, *np.flatnonzero(breaks).tolist()})
    return list(zip(starts, [*starts[1:], len(breaks)], strict=True))


def _without_line(data: np.ndarray) -> np.ndarray:
    from scipy.signal import detrend

    return np.asarray(detrend(data, axis=1))


def _resampled(data: np.ndarray, rate_hz: float) -> np.ndarray:
    if rate_hz == SAMPLING_HZ:
        return data
    from fractions import Fraction

    from scipy.signal import resample_poly

    ratio = Fraction(SAMPLING_HZ / rate_hz).limit_denominator(1000)
    return np.asarray(resample_poly(data, ratio.numerator, ratio.denominator, axis=1, padtype="line"))


def _check_level(window: np.ndarray, name: str) -> None:
    level = 1e6 * float(np.median(window[:-1].std(axis=1)))
    if not LOWEST_UV <= level <= HIGHEST_UV:
        raise ValueError(
            f"{name}: the channels have a standard deviation of {level:.3g} µV, not that of EEG; give unit=uV (or V, "
            "mV, nV)"
        )
