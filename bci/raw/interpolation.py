"""Potentials at the electrodes of the net, from those of a recording: what is lost is left out, the rest is splined.

    same net     electrodes as recorded; bad, flat and missing ones interpolated from the others; referred to Cz
    other cap    average reference, spherical splines (MNE) to the net's places in head coordinates; referred to Cz

Volts in and out. What this module does not do: find names and units (`bci.raw.channels`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spikeloom.accel.common.files import first_few
from spikeloom.bci.raw.montage import head_positions
from spikeloom.bci.raw.reference import ZEROS_FIT, error_of_zeros
from spikeloom.bci.zuco.records import CHANNELS, REFERENCE

if TYPE_CHECKING:
    import mne

LEAST_CHANNELS = 8  # known places below which no field is interpolated
FLAT_UV = 1e-3  # standard deviation of a channel that measures nothing
LOWEST_UV, HIGHEST_UV = 0.5, 2000.0  # median over channels of the standard deviation, high-passed EEG


@dataclass(frozen=True, kw_only=True)
class Lost:
    """channels: flat or not finite. bad_s: spans (second, end) in which most channels hold nothing."""

    channels: tuple[str, ...]
    bad_s: tuple[tuple[float, float], ...]
    notes: tuple[str, ...]


def find_lost(eeg: "mne.io.BaseRaw", name: str) -> Lost:
    """What a loaded recording does not measure. NaN and infinities are replaced inside `eeg`, so that filters do not
    spread them. Raises ValueError where nothing is left."""
    data, rate_hz = eeg._data, eeg.info["sfreq"]
    wrong = ~np.isfinite(data)
    gap = wrong.mean(axis=0) > 0.5
    edges = np.flatnonzero(np.diff(np.concatenate(([0], gap.astype(np.int8), [0]))))
    spans = tuple((a / rate_hz, b / rate_hz) for a, b in edges.reshape(-1, 2).tolist())
    holed = [k for k in range(len(data)) if wrong[k, ~gap].any() or gap.all()]
    at = np.arange(data.shape[1])
    for k in np.flatnonzero(wrong.any(axis=1)):
        held = ~wrong[k]
        data[k, ~held] = np.interp(at[~held], at[held], data[k, held]) if held.any() else 0.0
    flat = [k for k in range(len(data)) if k not in holed and 1e6 * data[k].std() < FLAT_UV]
    reference = _reference_of(eeg, flat)
    flat = [k for k in flat if eeg.ch_names[k] != reference]
    notes = []
    if holed:
        notes.append(f"{len(holed)} channels with NaN or infinity left out ({_names(eeg, holed)})")
    if reference is not None and not set(CHANNELS) <= set(eeg.ch_names):
        notes.append(f"{reference}, which holds zeros, taken as the reference")
    if flat:
        notes.append(f"{len(flat)} flat channels left out ({_names(eeg, flat)})")
    if spans:
        notes.append(f"{len(spans)} gaps without data")
    if len(holed) + len(flat) + (reference is not None) >= len(data):
        raise ValueError(f"{name}: every EEG channel is flat or not a number; export the recording again")
    return Lost(channels=tuple(eeg.ch_names[k] for k in (*holed, *flat)), bad_s=spans, notes=tuple(notes))


def _reference_of(eeg: "mne.io.BaseRaw", flat: list[int]) -> str | None:
    """The electrode all others refer to: Cz where it is flat, else the only one of zeros, where zeros fit the field of
    the others. Cz of the net is so by design, but for recordings that refer to their average."""
    names = [eeg.ch_names[k] for k in flat]
    zeros = [eeg.ch_names[k] for k in flat if not eeg._data[k].any()]
    if REFERENCE in names:
        error = error_of_zeros(eeg, REFERENCE, frozenset(names))
        if error <= ZEROS_FIT or (error != np.inf and set(CHANNELS) <= set(eeg.ch_names)):
            return REFERENCE
    fits = len(zeros) == 1 and zeros[0] != REFERENCE and error_of_zeros(eeg, zeros[0], frozenset(names)) <= ZEROS_FIT
    return zeros[0] if fits else None


def _names(eeg: "mne.io.BaseRaw", places: list[int]) -> str:
    return first_few([eeg.ch_names[k] for k in places])


def check_level(eeg: "mne.io.BaseRaw", name: str) -> None:
    """Raise ValueError where filtered amplitudes are not those of EEG: a unit is wrong, or no head was measured."""
    good = [channel for channel in eeg.ch_names if channel not in eeg.info["bads"]]
    spread = 1e6 * eeg.get_data(picks=good).std(axis=1) if good else np.zeros(1)
    spread = spread[spread >= FLAT_UV]
    level = float(np.median(spread)) if len(spread) else 0.0
    if not LOWEST_UV <= level <= HIGHEST_UV:
        raise ValueError(
            f"{name}: the channels have a standard deviation of {level:.3g} µV, not that of EEG (1 to 200); if the "
            "unit in the file is wrong, export it again or give unit=uV (or V, mV, nV)"
        )


def on_the_net(eeg: "mne.io.BaseRaw") -> tuple[np.ndarray, tuple[str, ...], list[str]]:
    """Electrodes of the net `[105, T]` in volts, what they rest on, and what was done, in words."""
    import mne

    done, bad = [], [name for name in eeg.info["bads"] if name in CHANNELS]
    others = [name for name in eeg.ch_names if name not in eeg.info["bads"]]
    mean = eeg.get_data(picks=others).mean(axis=0)
    spread = float(np.median(eeg.get_data(picks=others).std(axis=1)))
    averaged = bool(eeg.info["custom_ref_applied"]) or float(mean.std()) < 1e-3 * spread
    zeros = [name for name in others if name != REFERENCE and not eeg.get_data(picks=[name]).any()]
    wanted = list(bad)
    if REFERENCE not in eeg.ch_names and (averaged or zeros):
        wanted.append(REFERENCE)
    data = dict(zip(eeg.ch_names, eeg.get_data(), strict=True))
    if wanted:
        names = [name for name in eeg.ch_names if name in head_positions()]
        names += [] if REFERENCE in names else [REFERENCE]
        rows = np.array([data.get(name, np.zeros(len(eeg.times))) for name in names])
        net = mne.channels.make_dig_montage({n: head_positions()[n] for n in names}, coord_frame="head")
        filled = mne.io.RawArray(rows, mne.create_info(names, eeg.info["sfreq"], "eeg"), verbose="error")
        filled.set_montage(net, verbose="error")
        unused = [] if REFERENCE in data or REFERENCE in wanted else [REFERENCE]
        filled.info["bads"] = [n for n in names if n in wanted or n in eeg.info["bads"] or n in unused]
        with mne.use_log_level("error"):
            filled.interpolate_bads(reset_bads=False, origin=_origin(filled))
        data |= {name: filled.get_data(picks=[name])[0] for name in wanted}
    if bad:
        done.append(f"{len(bad)} bad electrodes interpolated from the others ({first_few(bad)})")
    found = np.array([data.get(name, np.zeros(len(eeg.times))) for name in CHANNELS])
    if found[-1].any():
        found -= found[-1].copy()
        was = "the average" if averaged else zeros[0] if zeros else "another electrode"
        done.append(f"re-referenced from {was} to {REFERENCE}")
    elif REFERENCE not in data:
        done.append(f"{REFERENCE}, which is no channel, taken as the reference")
    done.append("the electrodes of the net as recorded")
    return found, CHANNELS, done


def to_the_net(eeg: "mne.io.BaseRaw", name: str) -> tuple[np.ndarray, tuple[str, ...], list[str]]:
    """The same from another cap, by spherical splines. Raises ValueError where too few electrodes are left."""
    import mne

    bads = list(eeg.info["bads"])
    placed = [channel for channel in eeg.ch_names if channel not in bads]
    if len(placed) < LEAST_CHANNELS:
        raise too_few(name, len(placed), placed or eeg.ch_names)
    marked = f" ({len(bads)} marked bad or lost: {first_few(bads)})" if bads else ""
    eeg = eeg.copy().pick(placed)
    if eeg.info["dig"] is None:
        places = {ch["ch_name"]: ch["loc"][:3] for ch in eeg.info["chs"]}
        eeg.set_montage(mne.channels.make_dig_montage(places, coord_frame="head"), verbose="error")
    target = mne.channels.make_dig_montage({n: head_positions()[n] for n in CHANNELS}, coord_frame="head")
    eeg.set_eeg_reference("average", projection=False, verbose="error")
    with mne.use_log_level("error"):
        moved = eeg.interpolate_to(target, method="spline", origin=_origin(eeg))
    found = moved.get_data(picks=list(CHANNELS))
    found -= found[-1].copy()
    how = f"{len(placed)} electrodes interpolated to {len(CHANNELS)}{marked}, referred to {REFERENCE}"
    return found, tuple(placed), [how]


def too_few(name: str, n: int, channels: Sequence[str]) -> ValueError:
    """The error of a recording with so few electrodes that no field can be interpolated from them."""
    return ValueError(
        f"{name} has {n} electrodes with a known place ({', '.join(channels[:4]) or 'none'}, …), fewer than "
        f"{LEAST_CHANNELS}; name them as in the 10-05 system, store their places, give rename=FILE or cap=NAME "
        "(cap=biosemi32)"
    )


def _origin(eeg: "mne.io.BaseRaw") -> np.ndarray:
    """Centre of the sphere through the electrodes, metres in head coordinates: a least-squares fit; the usual centre
    where few electrodes leave it open."""
    at = np.array([ch["loc"][:3] for ch in eeg.info["chs"] if np.isfinite(ch["loc"][:3]).all()])
    usual = np.array([0.0, 0.0, 0.04])
    if len(at) < 4 * LEAST_CHANNELS:
        return usual
    design = np.column_stack((2 * at, np.ones(len(at))))
    (x, y, z, _), *_ = np.linalg.lstsq(design, (at**2).sum(1), rcond=None)
    fitted = np.array([x, y, z])
    return fitted if np.linalg.norm(fitted - usual) < 0.04 else usual
