"""Where the 105 electrodes sit: the EGI HydroCel net with Cz, in the order of the features."""

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from spikeloom.bci.zuco.records import CHANNELS

if TYPE_CHECKING:
    import mne

NET = "GSN-HydroCel-129"  # the net of 128 names no Cz


def montage() -> "mne.channels.DigMontage":
    """MNE's montage of the whole net; it holds every name of CHANNELS."""
    import mne

    return mne.channels.make_standard_montage(NET)


@cache
def unit_positions() -> np.ndarray:
    """Directions of CHANNELS from the centre of the head, `[105, 3]`, unit length; +x right, +y nose, +z up."""
    placed = montage().get_positions()["ch_pos"]
    at = np.array([placed[name] for name in CHANNELS])
    directions = at / np.linalg.norm(at, axis=1, keepdims=True)
    directions.setflags(write=False)
    return directions


@cache
def head_positions() -> dict[str, np.ndarray]:
    """Every electrode of the net in head coordinates, metres `[3]`: those of a recording, by nasion and ears. The
    montage itself stands in a frame of its own, 36 mm away."""
    import mne

    net = montage()
    info = mne.create_info(list(net.ch_names), 1.0, "eeg").set_montage(net)
    return {channel["ch_name"]: channel["loc"][:3].copy() for channel in info["chs"]}


def wears_net(places: dict[str, np.ndarray], tolerance_deg: float = 12.0) -> bool:
    """Whether electrodes named as those of the net also sit there: head coordinates `[3]` each."""
    shared = set(places) & set(head_positions())
    return len(shared) >= len(CHANNELS) - 1 and apart_deg(places, head_positions()) < tolerance_deg


def apart_deg(places: dict[str, np.ndarray], others: dict[str, np.ndarray]) -> float:
    """Median angle between places of equal names. Directions are compared from the middle of what both have, turned and
    scaled to fit, since heads differ in size."""
    shared = [name for name in places if name in others]
    a, b = (np.array([where[name] for name in shared]) for where in (places, others))
    a, b = (at - at.mean(0) for at in (a, b))
    a, b = (at / np.linalg.norm(at, axis=1, keepdims=True) for at in (a, b))
    return float(np.median(np.degrees(np.arccos(np.clip((a * b).sum(1), -1, 1)))))
