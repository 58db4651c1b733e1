"""EEG recordings of any system brought onto the net of the features: EDF, BDF, EEGLAB, BrainVision or FIF in, 105 out.

A recording with the electrodes of the net keeps them as they are. From another cap the potentials are interpolated by
spherical splines (MNE) at the places of the net and referred to Cz, as ZuCo's are; that makes the numbers comparable,
not the electrodes dense: 20 electrodes stay 20 measurements. All become 500 Hz and lose what lies below 0.5 Hz. What
this module does not do: remove artefacts, or know what was shown.
"""

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spikeloom.accel.common.files import first_few
from spikeloom.bci.raw.channels import (  # fmt: skip
    VOLTS,
    bipolar,
    electrodes_of,
    events_of,
    highpass_of,
    refuse_ambiguous,
    scale_of,
    system,
    trigger_channels,
)
from spikeloom.bci.raw.features import REJECT_UV, piece_amplitudes
from spikeloom.bci.raw.headers import BESIDE, Header, check_header
from spikeloom.bci.raw.interpolation import LEAST_CHANNELS, check_level, find_lost, on_the_net, to_the_net, too_few
from spikeloom.bci.raw.montage import wears_net
from spikeloom.bci.raw.places import placed, settle
from spikeloom.bci.zuco.records import CHANNELS, REFERENCE, SAMPLING_HZ

if TYPE_CHECKING:
    import mne

log = logging.getLogger("spikeloom")
HIGH_PASS_HZ = 0.5  # of ZuCo's own preprocessing; without it drift alone is an artefact
HIGHEST_HZ = 49.5  # upper edge of the highest band
BLOCK = 1 << 16  # samples of every channel that are read at once where all are only looked at


@dataclass(frozen=True, kw_only=True, eq=False)
class NetEEG:
    """eeg_uv: float64 `[105, T]` at 500 Hz in the order of the features. how: what was done to get there, in words.
    events: (second from the first sample, description) of every annotation and trigger. measured: channels of the
    recording that it rests on. bad: int64 `[n, 2]`, samples (first, end) marked bad, discontinuous or not recorded.
    lost: channels that measure nothing, flat or not finite, and were left out."""

    eeg_uv: np.ndarray
    how: str
    events: tuple[tuple[float, str], ...]
    measured: tuple[str, ...]
    bad: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), dtype=np.int64))
    lost: tuple[str, ...] = ()

    def amplitudes(self, pieces: np.ndarray, reject_uv: float) -> np.ndarray:
        """Amplitudes `[n, 840]` of pieces `[n, 2]`, as `piece_amplitudes`; NaN also where a piece meets a bad span."""
        found = piece_amplitudes(self.eeg_uv, pieces, reject_uv=reject_uv)
        found[self.in_bad_span(pieces)] = np.nan
        return found

    def in_bad_span(self, pieces: np.ndarray) -> np.ndarray:
        """Which pieces `[n, 2]` meet a span of `bad`: bool `[n]`."""
        pieces = np.asarray(pieces, dtype=np.int64).reshape(-1, 2)
        first, end = self.bad[:, 0], self.bad[:, 1]
        met: np.ndarray = np.any((pieces[:, :1] < end) & (pieces[:, 1:] > first), axis=1)
        return met

    def reject_uv(self, asked: float | None) -> tuple[float, str]:
        """Beyond which a piece is rejected, and that in words. Asked for nothing: as published on the electrodes of the
        net; never elsewhere, for EEG nobody cleaned exceeds it somewhere nearly always, and tokens are z-scored."""
        if asked is not None and not asked > 0:
            raise ValueError(f"reject_uv={asked}; use a positive number of microvolts")
        if asked is None and self.measured != CHANNELS:
            return float("inf"), "no piece is rejected: the recording is of another cap (reject_uv=90 as published)"
        limit = REJECT_UV if asked is None else asked
        return limit, f"pieces beyond {limit:g} µV on any electrode are rejected"


def _readers() -> dict[str, Callable[..., Any]]:
    import mne

    return {
        ".edf": mne.io.read_raw_edf, ".bdf": mne.io.read_raw_bdf, ".set": mne.io.read_raw_eeglab,
        ".vhdr": mne.io.read_raw_brainvision, ".fif": mne.io.read_raw_fif,
    }  # fmt: skip


SUFFIXES = (".edf", ".bdf", ".set", ".vhdr", ".fif")


def find_recordings(root: Path) -> list[Path]:
    """Recordings (and EyeLink `.asc` files) at `root`, a file or a folder. Raises ValueError when there is none."""
    files = [root] if root.is_file() else sorted(root.rglob("*"))
    found = [file for file in files if file.suffix.lower() in (*SUFFIXES, ".asc") and file.is_file()]
    if not found:
        raise ValueError(f"{root} holds no recording; give a file or folder of {', '.join((*SUFFIXES, '.asc'))}")
    return found


def read_recording(path: Path) -> "mne.io.BaseRaw":
    """The recording as MNE reads it, not yet in memory. Raises ValueError naming the file and what is wrong with it."""
    reader = _readers().get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"{path} has the suffix {path.suffix or '(none)'}; use one of {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise ValueError(f"{path} is missing; give a recording that is there")
    check_header(path)
    with _named(str(path), "export it again, or as EDF"), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        raw = reader(path, preload=False, verbose="warning")
    # What MNE guessed or left out, once each; other warnings speak to programmers.
    for text in dict.fromkeys(str(one.message) for one in caught if one.category is RuntimeWarning):
        log.warning("%s: %s", path.name, " ".join(text.split()))
    folders = {path.absolute().parent, path.resolve().parent}  # a recording may be a link into an archive
    for file in filter(None, raw.filenames):
        if Path(os.path.normpath(Path(file).absolute())).parent not in folders:
            raise ValueError(f"{path}: its data lie in {file}; {BESIDE} and name them without a folder")
    return raw


def not_finite(raw: "mne.io.BaseRaw", name: str) -> int:
    """How many EEG channels of a recording hold NaN or infinity somewhere; every sample is read. Raises ValueError
    where all do."""
    raw = raw.copy().pick("eeg", exclude=()) if "eeg" in raw else raw
    wrong = np.zeros(len(raw.ch_names), dtype=bool)
    with _named(name, "export it again"):
        for start in range(0, raw.n_times, BLOCK):
            wrong |= ~np.isfinite(raw.get_data(start=start, stop=min(start + BLOCK, raw.n_times))).all(axis=1)
    if wrong.all():
        raise ValueError(f"{name}: every EEG channel holds NaN or infinity; export the recording again")
    return int(wrong.sum())


@contextmanager
def _named(what: str, remedy: str) -> Iterator[None]:
    """Whatever MNE raises inside, as one ValueError that names the recording; ours pass as they are."""
    try:
        yield
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except Exception as error:  # readers of foreign formats raise whatever their parsing meets
        if isinstance(error, ValueError) and str(error).startswith(what):
            raise
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(f"{what} cannot be read ({reason}); {remedy}") from error


def onto_net(
    raw: "mne.io.BaseRaw",
    name: str = "the recording",
    cap: str | None = None,
    *,
    unit: str | None = None,
    rename: Mapping[str, str] | None = None,
) -> NetEEG:
    """The EEG of a recording at the 105 places of the net.

    Args:
        raw: at any rate, on any cap; not changed.
        name: of the recording, for messages.
        cap: a montage of MNE, such as biosemi32, whose electrodes the channels are, in its order, where the recording
            does not name them.
        unit: V, mV, uV or nV, of channels whose file names none.
        rename: channel -> electrode, as `bci.raw.channels.read_renames` reads it.

    Raises ValueError naming the recording where too few electrodes are known, the cap has not as many as the
    recording, a unit is unknown, or the amplitudes are not those of EEG.
    """
    with _named(name, "export it again"):
        return _onto_net(raw, name, cap, unit, rename)


def _onto_net(
    raw: "mne.io.BaseRaw", name: str, cap: str | None, unit: str | None, rename: Mapping[str, str] | None
) -> NetEEG:
    events = events_of(raw)
    path = next((Path(file) for file in raw.filenames if file is not None), None)
    suffix = "" if path is None else path.suffix.lower()
    header = check_header(path) if path is not None and suffix in (".edf", ".bdf", ".vhdr") else Header()
    eeg = raw.copy()
    _voltages_are_eeg(eeg, header)
    if "eeg" not in eeg:
        raise ValueError(f"{name} has no EEG channel; set the channel types when it is exported")
    eeg.pick("eeg", exclude=())
    done = list(events.notes)
    if cap is not None:
        _put_on(eeg, cap, name)
        done.append(f"the channels taken for those of {cap} in order")
        original = dict(zip(eeg.ch_names, [c for c in raw.ch_names if c in _eeg_names(raw, header)], strict=True))
    else:
        named = electrodes_of(eeg.ch_names, name, rename)
        pairs = bipolar([channel for channel in eeg.ch_names if channel not in named.renames])
        original = {named.renames.get(channel, channel): channel for channel in eeg.ch_names}
        eeg.rename_channels(named.renames)
        done += named.notes
        done += settle(eeg, name)
        _place(eeg, name, pairs)
    if cap is None and (alias := _reference_alias(eeg.ch_names)):
        eeg.rename_channels({alias: REFERENCE})
        original[REFERENCE] = original.pop(alias)
    on_net = cap is None and _is_net(eeg)
    known = list(eeg.ch_names) if on_net else list(placed(eeg))
    if len(known) < LEAST_CHANNELS:
        raise too_few(name, len(known), eeg.ch_names)
    if left := [channel for channel in eeg.ch_names if channel not in known]:
        done.append(f"{len(left)} channels without a place left out ({first_few(left)})")
        eeg.pick(known, exclude=())
    eeg.load_data(verbose="error")
    files = [original[channel] for channel in eeg.ch_names]
    factors, notes = scale_of(header, raw, files, unit, name, suffix)
    eeg._data *= factors[:, None]
    done += notes
    lost = find_lost(eeg, name)
    done += lost.notes
    spans = [*events.bad_s, *lost.bad_s]
    if eeg.info["sfreq"] != SAMPLING_HZ:
        done.append(f"resampled from {eeg.info['sfreq']:g} Hz")
        if eeg.info["sfreq"] < 2 * HIGHEST_HZ:
            done.append(f"nothing above {eeg.info['sfreq'] / 2:g} Hz: the bands beyond are empty")
        eeg.resample(SAMPLING_HZ, verbose="error")
    if highpass_of(header, raw, files) < HIGH_PASS_HZ:
        done.append(f"high-passed at {HIGH_PASS_HZ:g} Hz")
        with eeg.info._unlock():  # MNE keeps the highest cut-off of all channels
            eeg.info["highpass"] = 0.0
        eeg.filter(HIGH_PASS_HZ, None, skip_by_annotation=("edge", "bad_acq_skip", "boundary"), verbose="error")
    eeg.info["bads"] = sorted(set(eeg.info["bads"]) | set(lost.channels))
    check_level(eeg, name)
    data, measured, how = on_the_net(eeg) if on_net else to_the_net(eeg, name)
    return NetEEG(
        eeg_uv=1e6 * data,
        how=", ".join([*done, *how]),
        events=events.marks,
        measured=measured,
        bad=_samples(spans, data.shape[1]),
        lost=lost.channels,
    )


def _eeg_names(raw: "mne.io.BaseRaw", header: Header) -> set[str]:
    copy = raw.copy()
    _voltages_are_eeg(copy, header)
    return {n for n, kind in zip(copy.ch_names, copy.get_channel_types(), strict=True) if kind == "eeg"}


def _voltages_are_eeg(eeg: "mne.io.BaseRaw", header: Header) -> None:
    """BrainVision channels whose unit is a voltage in a spelling MNE does not know count as miscellaneous there, and
    trigger channels of EDF as EEG."""
    eeg.set_channel_types(dict.fromkeys(trigger_channels(eeg), "stim"), on_unit_change="ignore", verbose="error")
    if len(header.units) < len(eeg.ch_names):
        return
    spelt = {
        channel: "eeg"
        for channel, unit, kind in zip(eeg.ch_names, header.units, eeg.get_channel_types(), strict=False)
        if kind == "misc" and unit.casefold() in VOLTS and unit != "MV"
    }
    if spelt:
        eeg.set_channel_types(spelt, on_unit_change="ignore", verbose="error")


def _place(eeg: "mne.io.BaseRaw", name: str, pairs: list[str]) -> None:
    """Places by name where the recording holds none; refuses names that could mean several."""
    if placed(eeg):
        return
    refuse_ambiguous(eeg.ch_names, name)
    if set(CHANNELS) - {REFERENCE} <= set(eeg.ch_names):
        return
    if pairs:
        raise ValueError(
            f"{name}: {len(pairs)} channels are differences of two electrodes ({first_few(pairs)}); give rename=FILE "
            "with a line `NAME<tab>ELECTRODE` for each that stands for one"
        )
    eeg.set_montage(system(), on_missing="ignore", verbose="error")


def _reference_alias(names: Sequence[str]) -> str | None:
    """The channel of the net's reference, Cz, where it is there under another name."""
    if REFERENCE in names or "E124" not in names or "E130" in names:
        return None
    return next((alias for alias in ("E129", "VREF", "Vertex Reference") if alias in names), None)


def _is_net(eeg: "mne.io.BaseRaw") -> bool:
    """Whether the electrodes are those of the net: by name, and by place where places are stored."""
    if not set(CHANNELS) - {REFERENCE} <= set(eeg.ch_names):
        return False
    places = placed(eeg)
    return not places or wears_net(places)


def _put_on(eeg: "mne.io.BaseRaw", cap: str, name: str) -> None:
    import mne

    if cap not in mne.channels.get_builtin_montages():
        raise ValueError(
            f"{name}: cap={cap} is no montage of MNE; use one of {', '.join(mne.channels.get_builtin_montages())}"
        )
    worn = mne.channels.make_standard_montage(cap)
    if len(worn.ch_names) != len(eeg.ch_names):
        raise ValueError(
            f"{name}: cap={cap} has {len(worn.ch_names)} electrodes, the recording {len(eeg.ch_names)}; use the cap "
            "worn"
        )
    eeg.rename_channels(dict(zip(eeg.ch_names, worn.ch_names, strict=True)))
    eeg.set_montage(worn, verbose="error")


def _samples(spans: list[tuple[float, float]], n_samples: int) -> np.ndarray:
    """Spans in seconds as (first sample, end) at 500 Hz, int64 `[n, 2]`, one sample long or more, inside the record."""
    found = np.array([(np.floor(a * SAMPLING_HZ), np.ceil(b * SAMPLING_HZ)) for a, b in spans], dtype=np.int64)
    found = found.reshape(-1, 2)
    found[:, 1] = np.maximum(found[:, 1], found[:, 0] + 1)
    found = np.clip(found, 0, n_samples)
    return found[found[:, 1] > found[:, 0]]


def windows_of(n_samples: int, window_s: float, step_s: float) -> np.ndarray:
    """Sliding windows (first sample, end), int64 `[n, 2]`, as many as fit."""
    length, step = round(window_s * SAMPLING_HZ), max(1, round(step_s * SAMPLING_HZ))
    starts = np.arange(0, n_samples - length + 1, step, dtype=np.int64)
    return np.stack((starts, starts + length), axis=1)
