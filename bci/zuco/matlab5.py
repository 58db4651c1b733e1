"""MATLAB level 5 files (`-v6`, `-v7`), one element of a struct array at a time.

A file of 1-3 GB holds one variable, `sentenceData`, whose elements lie one after the other, compressed as one stream
or not at all. Walking over them needs the memory of one field of one sentence; loading the variable needs all of it.

A value is what MATLAB shows: a numeric array as float64 `[rows, columns]`, a text as str, a cell array as the list of
its values, a struct array as the list of its elements, dicts by field. Format: "MAT-File Format", The MathWorks.
What this module does not do: know what a sentence is (`bci.zuco.reader`), objects, sparse or complex arrays.
"""

import struct
import zlib
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

Value = Any  # np.ndarray | str | list["Value"] | list[dict[str, "Value"]]

MATRIX, COMPRESSED = 14, 15
CELL, STRUCT, CHAR = 1, 2, 4
NUMERIC = range(6, 16)  # double, single, int8 .. uint64
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
ENCODINGS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
IS_COMPLEX = 0x0800
CHUNK_BYTES = 1 << 14  # compressed; deflate can make it a thousand times larger, not more

EMPTY = np.zeros((0, 0))
EMPTY.setflags(write=False)


class UnknownContent(ValueError):
    """The file is whole, but not what it is read as."""


def rows(path: Path, variable: str, wanted: Container[str]) -> Iterator[dict[str, Value]]:
    """The elements of the struct array `variable`, each a dict of those fields that are `wanted`, at every level.

    Raises ValueError naming the file when the variable is absent or no struct array, and when the file is cut short,
    damaged or holds what this reader does not know.
    """
    with path.open("rb") as file:
        file.seek(126)
        order = {b"IM": "<", b"MI": ">"}.get(file.read(2))
        if order is None:
            raise ValueError(f"{path} names no byte order; use a whole MATLAB 5 file")
        try:
            yield from _Walk(path, file, order, wanted).elements_of(variable)
        except UnknownContent:
            raise
        except (zlib.error, struct.error, EOFError, KeyError, ValueError) as error:
            what = str(error) or "it ends inside an element"
            raise ValueError(f"{path} is damaged near byte {file.tell()} ({what}); download it again") from error


class _Plain:
    """Bytes as they lie in the file."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file

    def read(self, n_bytes: int) -> bytes:
        data = self.file.read(n_bytes)
        if len(data) < n_bytes:
            raise EOFError
        return data

    def skip(self, n_bytes: int) -> None:
        self.file.seek(n_bytes, 1)


class _Inflated(_Plain):
    """Bytes of the next `left` ones of the file, decompressed as they are asked for."""

    def __init__(self, file: BinaryIO, left: int) -> None:
        super().__init__(file)
        self.left = left
        self.inflater = zlib.decompressobj()
        self.ready = bytearray()

    def read(self, n_bytes: int) -> bytes:
        while len(self.ready) < n_bytes:
            chunk = super().read(min(CHUNK_BYTES, self.left))
            if not chunk:
                raise EOFError
            self.left -= len(chunk)
            self.ready += self.inflater.decompress(chunk)
        data = bytes(memoryview(self.ready)[:n_bytes])
        del self.ready[:n_bytes]
        return data

    def skip(self, n_bytes: int) -> None:
        while n_bytes > 0:
            step = min(n_bytes, 1 << 20)
            self.read(step)
            n_bytes -= step


class _Walk:
    def __init__(self, path: Path, file: BinaryIO, order: str, wanted: Container[str]) -> None:
        self.path, self.file, self.wanted = path, file, wanted
        self.order = order
        self.pair = struct.Struct(f"{order}II")
        self.numbers = {code: np.dtype(order + kind) for code, kind in NUMBERS.items()}
        endian = "-le" if order == "<" else "-be"
        self.encodings = {c: name + endian * name.startswith("utf-") for c, name in ENCODINGS.items() if c != 16}
        self.encodings[16] = "utf-8"

    def elements_of(self, variable: str) -> Iterator[dict[str, Value]]:
        names: list[str] = []
        at = 128
        while True:
            self.file.seek(at)
            tag = self.file.read(8)
            if not tag:
                held = ", ".join(names) or "nothing"
                raise UnknownContent(f"{self.path} holds {held}, no {variable}; use a file results<SUBJECT>_<TASK>.mat")
            if len(tag) < 8:
                raise EOFError
            kind, n_bytes = self.pair.unpack(tag)
            stream = _Plain(self.file)
            if kind == COMPRESSED:
                stream = _Inflated(self.file, n_bytes)
                kind, _ = self.pair.unpack(stream.read(8))
            if kind == MATRIX:
                flags, dims, name = (self.next_element(stream)[1] for _ in range(3))
                names.append(name.tobytes().decode("latin-1"))
                if names[-1] == variable:
                    if flags[0 if self.order == "<" else 3] != STRUCT:
                        raise UnknownContent(f"{self.path}: {variable} is no struct array; use a file as published")
                    yield from self.stream_struct(stream, self.count(dims))
                    return
            at += 8 + n_bytes

    def next_element(self, stream: _Plain) -> tuple[int, memoryview]:
        """Type and content of the next element of a stream."""
        tag = stream.read(8)
        first, n_bytes = self.pair.unpack(tag)
        if first >> 16:
            return first & 0xFFFF, memoryview(tag)[4 : 4 + (first >> 16)]
        data = stream.read(n_bytes + -n_bytes % 8)
        return first, memoryview(data)[:n_bytes]

    def stream_struct(self, stream: _Plain, n_elements: int) -> Iterator[dict[str, Value]]:
        size = int(np.frombuffer(self.next_element(stream)[1], self.numbers[5])[0])
        names = self.field_names(self.next_element(stream)[1], size)
        for _ in range(n_elements):
            element = {}  # str -> Value
            for name in names:
                kind, n_bytes = self.pair.unpack(stream.read(8))
                if kind != MATRIX:
                    raise EOFError(f"field {name} has type {kind}")
                if name in self.wanted:
                    element[name] = self.matrix(memoryview(stream.read(n_bytes)))
                else:
                    stream.skip(n_bytes)
            yield element

    def field_names(self, data: memoryview, size: int) -> list[str]:
        raw = data.tobytes()
        return [raw[i : i + size].split(b"\0", 1)[0].decode("latin-1") for i in range(0, len(raw), size)]

    def count(self, dims: memoryview) -> int:
        return int(np.prod(np.frombuffer(dims, self.numbers[5]), dtype=np.int64))

    def element(self, view: memoryview, at: int) -> tuple[int, memoryview, int]:
        """Type, content and end of the element at byte `at` of a view."""
        first, n_bytes = self.pair.unpack_from(view, at)
        if first >> 16:
            return first & 0xFFFF, view[at + 4 : at + 4 + (first >> 16)], at + 8
        end = at + 8 + n_bytes
        if end > len(view):
            raise EOFError("an element is longer than the one around it")
        return first, view[at + 8 : end], end + -n_bytes % 8

    def matrix(self, view: memoryview) -> Value:
        """The value of the content of a matrix element."""
        if not view:
            return EMPTY
        _, flags, at = self.element(view, 0)
        (word,) = struct.unpack_from(f"{self.order}I", flags)
        kind = word & 0xFF
        _, dims, at = self.element(view, at)
        _, _, at = self.element(view, at)  # the name, empty inside another variable
        if kind == CELL:
            return self.matrices(view, at, self.count(dims))
        if kind == STRUCT:
            return self.structs(view, at, self.count(dims))
        if (kind != CHAR and kind not in NUMERIC) or word & IS_COMPLEX:
            raise UnknownContent(
                f"{self.path} holds a value of MATLAB class {kind}, not read here; use a file as published"
            )
        shape = np.frombuffer(dims, self.numbers[5])
        if not shape.all():
            return "" if kind == CHAR else EMPTY
        stored, data, _ = self.element(view, at)
        if kind == CHAR:
            return data.tobytes().decode(self.encodings[stored])
        array = np.frombuffer(data, self.numbers[stored]).astype(np.float64, copy=False)
        return array.reshape(shape, order="F")

    def matrices(self, view: memoryview, at: int, n: int) -> list[Value]:
        values = []  # Value
        for _ in range(n):
            _, data, at = self.element(view, at)
            values.append(self.matrix(data))
        return values

    def structs(self, view: memoryview, at: int, n: int) -> list[dict[str, Value]]:
        _, size, at = self.element(view, at)
        _, names, at = self.element(view, at)
        fields = self.field_names(names, int(np.frombuffer(size, self.numbers[5])[0]))
        elements = []  # dict
        for _ in range(n):
            element = {}  # str -> Value
            for name in fields:
                _, data, at = self.element(view, at)
                if name in self.wanted:
                    element[name] = self.matrix(data)
            elements.append(element)
        return elements
