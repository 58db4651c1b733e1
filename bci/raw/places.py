"""Places that a recording stores, held against the size of a head and against the names of its channels.

    90 or 9 from the centre       millimetres or centimetres: scaled to metres
    1 from the centre             directions: put on a sphere of 95 mm
    Fp1 on the right ear          axes in another order: where names and places disagree, names count

What this module does not do: find names (`bci.raw.channels`).
"""

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from spikeloom.bci.raw.channels import system
from spikeloom.bci.raw.montage import apart_deg

if TYPE_CHECKING:
    import mne

HEAD_M = (0.05, 0.18)  # median distance of electrodes from the origin of head coordinates
UNITS = (("millimetres", 1e-3), ("centimetres", 1e-2))
RADIUS_M, CENTRE_M = 0.095, np.array([0.0, 0.0, 0.04])
MOST_APART_DEG = 40.0  # caps and heads differ by less
LEAST_NAMED = 8  # electrodes of the 10-05 system whose places are compared, and the fraction they must be of all
NAMED_FRACTION = 0.8


def placed(raw: "mne.io.BaseRaw") -> dict[str, np.ndarray]:
    """Place `[3]` of every channel where it is known and not the centre of the head."""
    places = {ch["ch_name"]: ch["loc"][:3].copy() for ch in raw.info["chs"]}
    return {name: at for name, at in places.items() if np.isfinite(at).all() and np.linalg.norm(at) > 1e-3}


def settle(eeg: "mne.io.BaseRaw", name: str) -> list[str]:
    """Correct places inside `eeg`; what was corrected, in words. Raises ValueError for places of no known unit."""
    import mne

    places = placed(eeg)
    if not places:
        return []
    notes = []
    distance = float(np.median([np.linalg.norm(at) for at in places.values()]))
    if not HEAD_M[0] <= distance <= HEAD_M[1]:
        places, what = _in_metres(places, distance, name)
        notes.append(f"electrode places taken as {what}")
    known = _system_places()
    shared = [channel for channel in places if channel in known]
    if len(shared) >= max(LEAST_NAMED, NAMED_FRACTION * len(places)):
        apart = apart_deg(places, known)
        if apart > MOST_APART_DEG:
            places = {channel: known[channel] for channel in shared}
            notes.append(f"electrodes placed by their names, from which the places stored lie {apart:.0f} degrees away")
    if notes:
        eeg.set_montage(mne.channels.make_dig_montage(places, coord_frame="head"), on_missing="ignore", verbose="error")
    return notes


def _in_metres(places: dict[str, np.ndarray], distance: float, name: str) -> tuple[dict[str, np.ndarray], str]:
    for unit, metres in UNITS:
        if HEAD_M[0] <= metres * distance <= HEAD_M[1]:
            return {channel: metres * at for channel, at in places.items()}, unit
    if 0.8 <= distance <= 1.3:
        return {channel: CENTRE_M + RADIUS_M * at for channel, at in places.items()}, "directions from the centre"
    raise ValueError(
        f"{name}: the electrodes lie {distance:.3g} m from the centre of the head (median of {len(places)}); store "
        "places in metres, or none with names of the 10-05 system"
    )


@cache
def _system_places() -> dict[str, np.ndarray]:
    """Head coordinates of the 10-05 system."""
    import mne

    montage = system()
    info = mne.create_info(list(montage.ch_names), 1.0, "eeg").set_montage(montage)
    return {channel["ch_name"]: channel["loc"][:3].copy() for channel in info["chs"]}
