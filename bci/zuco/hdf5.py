"""MATLAB 7.3 files, which are HDF5, one element of a struct array at a time, as the values of `bci.zuco.matlab5`.

A struct array is a group with one dataset of references per field; a struct of one element is a group with the values
themselves. HDF5 lists dimensions in reverse, so every array is transposed on the way in. MATLAB's `[]` is stored as its
dimensions, marked MATLAB_empty.
"""

from collections.abc import Container, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spikeloom.accel.common.hdf5 import REMEDY, inside, is_own
from spikeloom.bci.zuco.matlab5 import EMPTY, UnknownContent, Value

if TYPE_CHECKING:
    import h5py

DAMAGE = (
    OSError,
    KeyError,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    IndexError,
    OverflowError,
    MemoryError,
)
LARGE = 1 << 20  # values from which on what a header claims is compared with what the file stores
DEFLATE_MOST = 1032  # bytes that one stored byte can become


def rows(
    path: Path, variable: str, wanted: Container[str], shape_only: Container[str] = ()
) -> Iterator[dict[str, Value]]:
    """The elements of the struct array `variable`, each a dict of those fields that are `wanted`, at every level.

    Arrays below a field of `shape_only` have their shape and no content: nothing of them is read. Raises ValueError
    naming the file when the variable is absent or no struct array, and when the file is cut short or damaged.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            if variable not in file:
                held = ", ".join(name for name in file if not name.startswith("#")) or "nothing"
                raise UnknownContent(f"{path} holds {held}, no {variable}; use a file results<SUBJECT>_<TASK>.mat")
            group = _named(file, variable)
            if not isinstance(group, h5py.Group):
                raise UnknownContent(f"{path}: {variable} is no struct array; use a file as published")
            yield from _Walk(file, wanted, shape_only).elements(group.id)
    except UnknownContent:
        raise
    except DAMAGE as error:
        raise ValueError(f"{path} is damaged ({_cause(error)}); download it again") from error


def variable(path: Path, name: str) -> Value:
    """One variable whole. Raises ValueError naming the file when it is absent or damaged."""
    import h5py

    class Everything:
        def __contains__(self, name: object) -> bool:
            return True

    try:
        with h5py.File(path, "r") as file:
            if name not in file:
                raise UnknownContent(f"{path} holds no {name}; use a file as published")
            return _Walk(file, Everything(), ()).value(_named(file, name).id, name)
    except UnknownContent:
        raise
    except DAMAGE as error:
        raise ValueError(f"{path} is damaged ({_cause(error)}); copy it again") from error


def _named(file: "h5py.File", name: str) -> Any:
    """A variable of the file. Raises KeyError for one that lies in another file."""
    if not inside(file.id.links.get_info(name.encode())):
        raise KeyError(f"{name} lies in another file; {REMEDY}")
    return file[name]


def _cause(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


class _Walk:
    """Reads through h5py's low-level objects: a sentence is a thousand small datasets, and the convenient ones spend
    nine tenths of the time on things that are not asked for here."""

    def __init__(self, file: "h5py.File", wanted: Container[str], shape_only: Container[str]) -> None:
        import h5py

        self.h5 = h5py
        self.file, self.wanted, self.shape_only = file.id, wanted, shape_only

    def elements(self, group: Any) -> Iterator[dict[str, Value]]:
        names = [name.decode() for name in group]
        if not names:
            return
        if elsewhere := [name for name in names if not inside(group.links.get_info(name.encode()))]:
            raise KeyError(f"{elsewhere[0]} lies in another file; {REMEDY}")
        fields = {name: self.h5.h5o.open(group, name.encode()) for name in names}
        # A struct array has references in every field and says nothing of their class; of a single struct, some field
        # is no reference, or all are cells.
        references = all(_is_references(node) for node in fields.values())
        if not references or _class(fields[names[0]]) == "cell":
            yield {name: self.value(node, name) for name, node in fields.items() if name in self.wanted}
            return
        sizes = {int(np.prod(node.shape)) for node in fields.values()}
        if len(sizes) != 1:
            raise KeyError(f"the fields of {group.name.decode()} differ in length: {sorted(sizes)}")
        found = {name: _references(node) for name, node in fields.items() if name in self.wanted}
        for i in range(sizes.pop()):
            yield {name: self.at(refs[i], name) for name, refs in found.items()}

    def at(self, reference: Any, name: str) -> Value:
        """What a reference leads to; nothing where it is null, so that it costs one row and not the file."""
        node = self.h5.h5r.dereference(reference, self.file) if reference else None
        return EMPTY if node is None else self.value(node, name)

    def value(self, node: Any, name: str) -> Value:
        h5s, h5t = self.h5.h5s, self.h5.h5t
        if not isinstance(node, self.h5.h5d.DatasetID):
            return list(self.elements(node))
        if not is_own(node):
            raise KeyError(f"field {name} lies in another file; {REMEDY}")
        shape = node.shape
        if len(shape) != 2 or 0 in shape:  # the dimensions of an empty array, not its content
            return EMPTY
        stored = node.get_type().get_class()
        if stored == h5t.REFERENCE:
            return [self.at(ref, name) for ref in _references(node)]
        if shape[0] * shape[1] > LARGE and 8 * shape[0] * shape[1] > 8 * DEFLATE_MOST * node.get_storage_size():
            raise KeyError(f"field {name} claims {shape[0] * shape[1]:,} values, the file stores none")
        if name in self.shape_only:
            return np.broadcast_to(np.float64(0), shape[::-1])
        if stored == h5t.INTEGER and _class(node) == "char":  # attributes are slow to read: only where they can matter
            codes = np.empty(shape, dtype="<u2")
            node.read(h5s.ALL, h5s.ALL, codes)
            return codes.ravel().tobytes().decode("utf-16-le", errors="replace")
        if stored not in (h5t.INTEGER, h5t.FLOAT):
            raise KeyError(f"field {name} holds values of HDF5 class {stored}")
        array = np.empty(shape)
        node.read(h5s.ALL, h5s.ALL, array)
        return array.T


def _references(node: Any) -> Any:
    """Every reference of a dataset, in a flat array."""
    import h5py

    if not is_own(node):
        raise KeyError(f"references lie in another file; {REMEDY}")
    found = np.empty(node.shape, dtype=h5py.ref_dtype)
    node.read(h5py.h5s.ALL, h5py.h5s.ALL, found)
    return found.ravel()


def _class(node: Any) -> str:
    from h5py import h5a

    if not h5a.exists(node, b"MATLAB_class"):
        return ""
    attribute = h5a.open(node, b"MATLAB_class")
    found = np.empty(attribute.shape, dtype=attribute.dtype)
    attribute.read(found)
    name = found[()]
    return name.decode() if isinstance(name, bytes) else str(name)


def _is_references(node: Any) -> bool:
    from h5py import h5d, h5t

    return isinstance(node, h5d.DatasetID) and node.get_type().get_class() == h5t.REFERENCE
