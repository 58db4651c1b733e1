"""Sentences as a ZuCo version 2 file: MATLAB 7.3, which is HDF5 behind a header of 512 bytes.

Dimensions are listed in reverse, so numeric arrays are transposed; a struct array is a group of datasets of references;
`[]` is its dimensions, marked MATLAB_empty.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spikeloom.accel.common.files import whole
from spikeloom.bci.zuco.layout import VARIABLE, Cell, Struct, Value, sentence_data
from spikeloom.bci.zuco.records import Sentence

if TYPE_CHECKING:
    import h5py

USERBLOCK_BYTES = 512
HEADER = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created by: spikeloom HDF5 schema 1.00 ."
REFERENCES = "#refs#"


def write_hdf5(path: Path, sentences: Sequence[Sentence]) -> None:
    """Write the sentences of one recording; a file that stands at `path` is replaced."""
    import h5py

    data = sentence_data(sentences)
    with whole(path) as partial:
        with h5py.File(partial, "w", userblock_size=USERBLOCK_BYTES, libver=("earliest", "v110")) as file:
            _Writer(file).struct(file, VARIABLE, data)
        with partial.open("r+b") as raw:
            raw.write(HEADER.ljust(124) + (0x0200).to_bytes(2, "little") + b"IM")


class _Writer:
    def __init__(self, file: "h5py.File") -> None:
        self.file = file
        self.pool = file.create_group(REFERENCES)
        self.n = 0
        self.empty: Any = None  # reference to the one `[]` that all others share

    def struct(self, parent: "h5py.Group", name: str, value: Struct) -> Any:
        """A struct array; one of a single element holds its values directly, as MATLAB stores it."""
        group = parent.create_group(name)
        group.attrs["MATLAB_class"] = np.bytes_("struct")
        for field in value.elements[0]:
            values = [element[field] for element in value.elements]
            if len(values) == 1:
                self.store(group, field, values[0])
            else:
                self.references(group, field, values)
        return group

    def references(self, parent: "h5py.Group", name: str, values: Sequence[Value]) -> Any:
        import h5py

        found = np.empty((len(values), 1), dtype=object)
        for n, value in enumerate(values):
            found[n, 0] = self.refer(value)
        return parent.create_dataset(name, data=found, dtype=h5py.ref_dtype)

    def refer(self, value: Value) -> Any:
        if isinstance(value, np.ndarray) and not value.size:
            if self.empty is None:
                self.empty = self.store(self.pool, "a", value).ref
            return self.empty
        self.n += 1
        return self.store(self.pool, f"b{self.n}", value).ref

    def store(self, parent: "h5py.Group", name: str, value: Value) -> Any:
        if isinstance(value, Struct):
            return self.struct(parent, name, value)
        if isinstance(value, Cell):
            node = self.references(parent, name, value.values)
            return _mark(node, "cell")
        if isinstance(value, str):
            codes = np.frombuffer(value.encode("utf-16-le"), dtype="<u2")
            node = _mark(parent.create_dataset(name, data=codes[:, None]), "char")
            node.attrs["MATLAB_int_decode"] = np.int32(2)
            return node
        if not value.size:
            node = _mark(parent.create_dataset(name, data=np.array(value.shape, dtype=np.uint64)), "double")
            node.attrs["MATLAB_empty"] = np.uint8(1)
            return node
        return _mark(parent.create_dataset(name, data=np.ascontiguousarray(value.T)), "double")


def _mark(node: Any, matlab_class: str) -> Any:
    node.attrs["MATLAB_class"] = np.bytes_(matlab_class)
    return node
