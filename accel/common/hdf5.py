"""HDF5 files that hold their data themselves. A link or a data set may also lead into another file: then whoever sent a
file would choose what else is opened here, so readers refuse it. Imports h5py where it is called."""

from pathlib import Path
from typing import Any

REMEDY = "copy the data into the file itself"


def require_own_data(path: Path, file: Any) -> None:
    """Look at every link and data set of an open `h5py.File`.

    Raises:
        ValueError: one leads into another file; names it.
    """
    import h5py

    elsewhere: list[str] = []

    def link(name: bytes, info: Any) -> None:
        if not inside(info):
            elsewhere.append(name.decode("utf-8", "replace"))

    def node(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and not is_own(item.id):
            elsewhere.append(name)

    file.id.links.visit(link, info=True)
    file.visititems(node)
    if elsewhere:
        raise ValueError(f"{path}: {elsewhere[0]} lies in another file; {REMEDY}")


def inside(link: Any) -> bool:
    """Whether what `h5py` tells of a link (`group.links.get_info`) leads to a place in the same file."""
    from h5py import h5l

    return link.type in (h5l.TYPE_HARD, h5l.TYPE_SOFT)


def is_own(dataset: Any) -> bool:
    """Whether the values of a data set (`h5py.h5d.DatasetID`) are stored in the file that it is opened from."""
    from h5py import h5d

    if dataset.get_offset() is not None:  # contiguous, and in this file
        return True
    made = dataset.get_create_plist()
    return made.get_layout() != h5d.VIRTUAL and made.get_external_count() == 0
