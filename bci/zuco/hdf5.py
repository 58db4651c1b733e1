"""MATLAB 7.3 files, which are HDF5, one element of a struct array at a time, as the values of `bci.zuco.matlab5`.

A struct array is a group with one dataset of references per field; a struct of one element is a group with the values
themselves. HDF5 lists dimensions in reverse, so every array is transposed on the way in. MATLAB's `[]` is stored as its
dimensions, marked MATLAB_empty.
"""

from collections.abc import Container, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bci.zuco.matlab5 import EMPTY, UnknownContent, Value

if TYPE_CHECKING:
    import h5py


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
            group = file[variable]
            if not isinstance(group, h5py.Group):
                raise UnknownContent(f"{path}: {variable} is no struct array; use a file as published")
            yield from _Walk(file, wanted, shape_only).elements(group)
    except UnknownContent:
        raise
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}); download it again") from error


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
            return _Walk(file, Everything(), ()).value(file[name], name)
    except UnknownContent:
        raise
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}); copy it again") from error


class _Walk:
    def __init__(self, file: "h5py.File", wanted: Container[str], shape_only: Container[str]) -> None:
        self.file, self.wanted, self.shape_only = file, wanted, shape_only

    def elements(self, group: "h5py.Group") -> Iterator[dict[str, Value]]:
        fields = {name: group[name] for name in group}
        if not fields:
            return
        if not all(_is_references(node) and _class(node) != "cell" for node in fields.values()):
            yield {name: self.value(node, name) for name, node in fields.items() if name in self.wanted}
            return
        references = {name: node[()].ravel() for name, node in fields.items() if name in self.wanted}
        sizes = {node.size for node in fields.values()}
        if len(sizes) != 1:
            raise KeyError(f"the fields of {group.name} differ in length: {sorted(sizes)}")
        for i in range(sizes.pop()):
            yield {name: self.value(self.file[found[i]], name) for name, found in references.items()}

    def value(self, node: Any, name: str) -> Value:
        if not hasattr(node, "dtype"):
            return list(self.elements(node))
        if node.ndim != 2 or node.size == 0:  # the dimensions of an empty array, not its content
            kind = _class(node)
            return "" if kind == "char" else [] if kind == "cell" else EMPTY
        if _is_references(node):
            return [self.value(self.file[reference], name) for reference in node[()].ravel()]
        if name in self.shape_only:
            return np.broadcast_to(np.float64(0), node.shape[::-1])
        array = node[()]
        # Attributes are slow to read; only integers can be characters.
        if array.dtype.kind == "u" and _class(node) == "char":
            return array.ravel().astype("<u2").tobytes().decode("utf-16-le", errors="replace")
        return np.asarray(array, dtype=np.float64).T


def _class(node: Any) -> str:
    name = node.attrs.get("MATLAB_class", b"")
    return name.decode() if isinstance(name, bytes) else str(name)


def _is_references(node: Any) -> bool:
    return getattr(node, "dtype", None) == np.dtype("O")
