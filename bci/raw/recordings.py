"""EEG recordings of any system brought onto the net of the features: EDF, BDF, EEGLAB, BrainVision or FIF in, 105 out.

A recording with the electrodes of the net keeps them as they are. From another cap the potentials are interpolated by
spherical splines (MNE) at the places of the net and referred to Cz, as ZuCo's are; that makes the numbers comparable,
not the electrodes dense: 20 electrodes stay 20 measurements. All become 500 Hz and lose what lies below 0.5 Hz. What
this module does not do: remove artefacts, or know what was shown.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bci.raw.features import REJECT_UV
from bci.raw.montage import montage
from bci.zuco.records import CHANNELS, REFERENCE, SAMPLING_HZ

if TYPE_CHECKING:
    import mne

PLACES = ("colin27_1005", "standard_1005")  # the 10-05 system, by the names MNE gave it over time
HIGH_PASS_HZ = 0.5  # of ZuCo's own preprocessing; without it drift alone is an artefact
LEAST_CHANNELS = 8  # known places below which no field is interpolated


@dataclass(frozen=True, kw_only=True, eq=False)
class NetEEG:
    """eeg_uv: float64 `[105, T]` at 500 Hz in the order of the features. how: what was done to get there, in words.
    events: (second, description) of every annotation. measured: channels of the recording that it rests on."""

    eeg_uv: np.ndarray
    how: str
    events: tuple[tuple[float, str], ...]
    measured: tuple[str, ...]

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
    try:
        return reader(path, preload=False, verbose="error")
    except Exception as error:  # readers of foreign formats raise whatever their parsing meets
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} cannot be read ({reason}); export it again, or as EDF") from error


def onto_net(raw: "mne.io.BaseRaw", name: str = "the recording", cap: str | None = None) -> NetEEG:
    """The EEG of a recording at the 105 places of the net.

    cap: a montage of MNE, such as biosemi32, whose electrodes the channels are, in its order, where the recording does
    not name them. Raises ValueError where too few electrodes are known, or the cap has not as many as the recording.
    """
    import mne

    events = tuple((float(a["onset"]), str(a["description"])) for a in raw.annotations)
    eeg = raw.copy().pick("eeg", exclude=()).load_data(verbose="error") if "eeg" in raw else None
    if eeg is None:
        raise ValueError(f"{name} has no EEG channel; set the channel types when it is exported")
    eeg.set_annotations(None)
    done = []
    if cap is not None:
        _put_on(eeg, cap, name)
        done.append(f"the channels taken for those of {cap} in order")
    if eeg.info["sfreq"] != SAMPLING_HZ:
        done.append(f"resampled from {eeg.info['sfreq']:g} Hz")
        eeg.resample(SAMPLING_HZ, verbose="error")
    if eeg.info["highpass"] < HIGH_PASS_HZ:
        done.append(f"high-passed at {HIGH_PASS_HZ:g} Hz")
        eeg.filter(HIGH_PASS_HZ, None, verbose="error")
    if set(CHANNELS) - {REFERENCE} <= set(eeg.ch_names):
        data = np.zeros((len(CHANNELS), len(eeg.times)))
        for place, channel in enumerate(CHANNELS):
            if channel in eeg.ch_names:
                data[place] = 1e6 * eeg.get_data(picks=[channel])[0]
        done.append("the electrodes of the net as recorded")
        return NetEEG(eeg_uv=data, how=", ".join(done), events=events, measured=CHANNELS)
    eeg.rename_channels(_standard_names(eeg.ch_names))
    if not _placed(eeg):
        eeg.set_montage(_system(), on_missing="ignore", verbose="error")
    placed = _placed(eeg)
    if len(placed) < LEAST_CHANNELS:
        raise ValueError(
            f"{name} has {len(placed)} electrodes with a known place ({', '.join(eeg.ch_names[:4])}, …), fewer than "
            f"{LEAST_CHANNELS}; name them as in the 10-05 system, store their places, or give cap=NAME (cap=biosemi32)"
        )
    eeg.pick(placed)
    net = montage()
    wanted = {channel: place for channel, place in net.get_positions()["ch_pos"].items() if channel in CHANNELS}
    target = mne.channels.make_dig_montage({channel: wanted[channel] for channel in CHANNELS}, coord_frame="head")
    eeg.set_eeg_reference("average", projection=False, verbose="error")
    with mne.use_log_level("error"):
        data = 1e6 * eeg.interpolate_to(target, method="spline").get_data(picks=list(CHANNELS))
    data -= data[-1].copy()
    done.append(f"{len(placed)} electrodes interpolated to {len(CHANNELS)}, referred to {REFERENCE}")
    return NetEEG(eeg_uv=data, how=", ".join(done), events=events, measured=tuple(placed))


def _put_on(eeg: "mne.io.BaseRaw", cap: str, name: str) -> None:
    import mne

    if cap not in mne.channels.get_builtin_montages():
        raise ValueError(f"cap={cap} is no montage of MNE; use one of {', '.join(mne.channels.get_builtin_montages())}")
    placed = mne.channels.make_standard_montage(cap)
    if len(placed.ch_names) != len(eeg.ch_names):
        raise ValueError(
            f"cap={cap} has {len(placed.ch_names)} electrodes, {name} {len(eeg.ch_names)}; use the cap worn"
        )
    eeg.rename_channels(dict(zip(eeg.ch_names, placed.ch_names, strict=True)))
    eeg.set_montage(placed, verbose="error")


def _system() -> Any:
    import mne

    known = mne.channels.get_builtin_montages()
    return mne.channels.make_standard_montage(next(name for name in PLACES if name in known))


def _standard_names(names: list[str]) -> dict[str, str]:
    """`Fc5.` -> `FC5`, `EEG FP1` -> `Fp1`: names of the 10-05 system, whatever the case and the padding."""
    standard = {name.lower(): name for name in _system().ch_names}
    renamed: dict[str, str] = {}
    for name in names:
        plain = name.strip(" .").lower().removeprefix("eeg ").removesuffix("-ref").strip()
        if plain in standard and standard[plain] not in (*names, *renamed.values()):
            renamed[name] = standard[plain]
    return renamed


def _placed(raw: "mne.io.BaseRaw") -> list[str]:
    """Channels whose place is known and not the centre of the head."""
    places = {ch["ch_name"]: ch["loc"][:3] for ch in raw.info["chs"]}
    return [name for name, place in places.items() if np.isfinite(place).all() and np.linalg.norm(place) > 1e-3]


def windows_of(n_samples: int, window_s: float, step_s: float) -> np.ndarray:
    """Sliding windows (first sample, end), int64 `[n, 2]`, as many as fit."""
    length, step = round(window_s * SAMPLING_HZ), max(1, round(step_s * SAMPLING_HZ))
    starts = np.arange(0, n_samples - length + 1, step, dtype=np.int64)
    return np.stack((starts, starts + length), axis=1)
