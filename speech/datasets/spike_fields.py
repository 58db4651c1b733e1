"""The fields of a file of spikes, found without following links, and read through once.

HDF5 loops or crashes on some damaged files, so a process of its own reads each file first (`accel.common.bounded`).
This module imports no more than that takes.
"""

from contextlib import suppress
from pathlib import Path
from typing import Any

FIELDS = ("spikes/times", "spikes/units", "labels", "extra/speaker", "extra/keys")
OPTIONAL = ("extra/speaker_names", "extra/names")
AGAIN = "copy or download it again"
LARGEST_FIELD = 256_000_000  # bytes of labels, speakers and names
NEEDS = ("h5py",)  # of `read_through`
ROWS = 256  # that are read at once


def read_through(path: Path) -> None:
    """Read all that a training may read of the file, and forget it."""
    import h5py

    with h5py.File(path, "r") as file:
        for name in (*FIELDS, *OPTIONAL):
            with suppress(Exception):  # the reader will say what it is
                field = stored(path, file, name)
                for first in range(0, 0 if field is None else len(field), ROWS):
                    with suppress(Exception):
                        field[first : first + ROWS]


def stored(path: Path, file: Any, name: str) -> Any:
    """A field of one axis that lies in this file itself, None where there is none. Raises `ValueError` for others."""
    import h5py

    node, parts = file, name.split("/")
    for part in parts:
        if not isinstance(node, h5py.Group) or part not in node.keys():  # noqa: SIM118  `in node` follows links
            return None
        if not isinstance(node.get(part, getlink=True), h5py.HardLink):
            raise ValueError(f"{path}: {name} is a link to another place; copy the data into the file itself")
        node = node[part]
    if not isinstance(node, h5py.Dataset):
        return None
    if node.external or node.is_virtual:
        raise ValueError(f"{path}: {name} lies in other files; copy the data into the file itself")
    if node.ndim != 1:
        raise ValueError(f"{path}: {name} has the shape {node.shape}; use one axis with an entry for each clip")
    if node.nbytes > LARGEST_FIELD:
        raise ValueError(f"{path}: {name} claims {node.shape[0]:,} entries of {node.dtype.itemsize:,} bytes; {AGAIN}")
    return node
