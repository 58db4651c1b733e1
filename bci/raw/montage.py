"""Where the 105 electrodes sit: the EGI HydroCel net with Cz, in the order of the features."""

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from bci.zuco.records import CHANNELS

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
