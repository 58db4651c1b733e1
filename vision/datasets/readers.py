"""A recording of an event camera in whichever of the known formats it is."""

from pathlib import Path

from spikeloom.vision.datasets.aedat2 import read_aedat2
from spikeloom.vision.datasets.aedat3 import read_aedat3
from spikeloom.vision.datasets.aedat4 import read_aedat4
from spikeloom.vision.datasets.event_tables import TABLES, read_table
from spikeloom.vision.datasets.events import EventFileError, Recording
from spikeloom.vision.datasets.nmnist import read_nmnist
from spikeloom.vision.datasets.prophesee import read_dat, read_raw

EVENT_SUFFIXES = (".aedat", ".aedat4", ".bin", ".raw", ".dat", *TABLES)
KNOWN = "AEDAT 2.0, 3.1, 4 (#!AER-DAT…), Prophesee .raw or .dat, a table (.npy, .npz, .h5) or N-MNIST (.bin)"


def is_recording(path: Path) -> bool:
    """Whether the name of a file is that of a recording, whatever the case; hidden files are none."""
    return path.suffix.lower() in EVENT_SUFFIXES and not path.name.startswith(".")


def read_events(path: Path) -> Recording:
    """A recording in the format that its first bytes or its suffix name.

    Raises FileNotFoundError, or EventFileError for a format that is none of these.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give a recording of an event camera")
    with path.open("rb") as file:
        head = file.read(16)
    for start, read in ((b"#!AER-DAT4", read_aedat4), (b"#!AER-DAT3", read_aedat3), (b"#!AER-DAT2", read_aedat2)):
        if head.startswith(start):
            return read(path)
    suffix = path.suffix.lower()
    if suffix in TABLES:
        return read_table(path)
    if suffix in (".raw", ".dat"):
        return read_raw(path) if suffix == ".raw" else read_dat(path)
    if suffix == ".bin":
        return read_nmnist(path)
    raise EventFileError(path, 0, f"it begins with {head[:10]!r}, which is none of {KNOWN}")
