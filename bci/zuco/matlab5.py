"""MATLAB level 5 files (`-v6`, `-v7`), one element of a struct array at a time.

A file of 1-3 GB holds one variable, `sentenceData`, whose elements lie one after the other, compressed as one stream
or not at all. Walking over them needs the memory of one field of one sentence; loading the variable needs all of it.

A value is what MATLAB shows: a numeric array as float64 `[rows, columns]`, a text as str, a cell array as the list of
its values, a struct array as the list of its elements, dicts by field. Format: "MAT-File Format", The MathWorks.
What this module does not do: know what a sentence is (`spikeloom.bci.zuco.reader`), objects, sparse or complex arrays.
"""

import math
import os
import struct
import zlib
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

Value = Any  # np.ndarray | str | list["Value"] | list[dict[str, "Value"]]

MATRIX, COMPRESSED = 14, 15
CELL, STRUCT, CHAR = 1, 2, 4
NUMERIC = range(6, 16)  # double, single, int8 .. uint64
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
DAMAGE = (
    zlib.error, struct.error, EOFError, KeyError, ValueError, IndexError, OverflowError, TypeError, RecursionError,
    MemoryError,
)  # fmt: skip
DEFLATE_MOST = 1032  # bytes that one compressed byte can become
DEEPEST = 64  # cells and structs inside each other
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
    with path.open("rb") as file, _named(path, file):
        yield from _Walk(path, file, _order(path, file), wanted).elements_of(variable)


class _Everything:
    def __contains__(self, name: object) -> bool:
        return True


def variable(path: Path, name: str) -> Value:
    """One variable whole. Raises ValueError naming the file when it is absent or damaged."""
    with path.open("rb") as file, _named(path, file):
        walk = _Walk(path, file, _order(path, file), _Everything())
        for found, stream, n_bytes in walk.variables(name):
            if found == name:
                return walk.matrix(memoryview(stream.read(n_bytes)))
    raise UnknownContent(f"{path} holds no {name}; use a file as published")


def check(path: Path) -> None:
    """Walk over every variable, so that readers in C meet no length that contradicts another. Raises ValueError."""
    with path.open("rb") as file, _named(path, file):
        walk = _Walk(path, file, _order(path, file), _Everything(), strict=True)
        for _, stream, n_bytes in walk.variables(None):
            walk.matrix(memoryview(stream.read(n_bytes)))


def _order(path: Path, file: BinaryIO) -> str:
    file.seek(126)
    order = {b"IM": "<", b"MI": ">"}.get(file.read(2))
    if order is None:
        raise UnknownContent(f"{path} names no byte order; use a whole MATLAB 5 file")
    return order


@contextmanager
def _named(path: Path, file: BinaryIO) -> Iterator[None]:
    """What goes wrong inside, as one ValueError that names the file and the place."""
    try:
        yield
    except UnknownContent:
        raise
    except DAMAGE as error:
        what = str(error) or ("it ends inside an element" if isinstance(error, EOFError) else type(error).__name__)
        what = f"no {what}" if isinstance(error, KeyError) else what
        raise ValueError(f"{path} is damaged near byte {file.tell()} ({what[:200]}); download it again") from error


class _Plain:
    """Bytes as they lie in the file."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.size = os.fstat(file.fileno()).st_size

    def holds(self, n_bytes: int) -> bool:
        """Whether as many bytes can follow: what is asked for is never allocated on the word of a header alone."""
        return n_bytes <= self.size - self.file.tell()

    def read(self, n_bytes: int) -> bytes:
        if not self.holds(n_bytes):
            raise EOFError(f"an element of {n_bytes:,} bytes is longer than what holds it")
        data = self.file.read(n_bytes)
        if len(data) < n_bytes:
            raise EOFError
        return data

    def skip(self, n_bytes: int) -> None:
        if not self.holds(n_bytes):
            raise EOFError(f"an element of {n_bytes:,} bytes is longer than what holds it")
        self.file.seek(n_bytes, 1)


class _Inflated(_Plain):
    """Bytes of the next `left` ones of the file, decompressed as they are asked for."""

    def __init__(self, file: BinaryIO, left: int) -> None:
        super().__init__(file)
        self.left = left
        self.inflater = zlib.decompressobj()
        self.ready = bytearray()

    def holds(self, n_bytes: int) -> bool:
        return n_bytes <= DEFLATE_MOST * (self.left + 16) + len(self.ready)

    def read(self, n_bytes: int) -> bytes:
        if not self.holds(n_bytes):
            raise EOFError(f"an element of {n_bytes:,} bytes is longer than what holds it")
        while len(self.ready) < n_bytes:
            chunk = self.file.read(min(CHUNK_BYTES, self.left))
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


class _Recorded(_Plain):
    """A stream that keeps what was read from it."""

    def __init__(self, stream: _Plain) -> None:
        self.stream, self.seen = stream, b""

    def holds(self, n_bytes: int) -> bool:
        return self.stream.holds(n_bytes)

    def read(self, n_bytes: int) -> bytes:
        data = self.stream.read(n_bytes)
        self.seen += data
        return data


class _Replayed(_Plain):
    """Bytes that were read already, then the stream they came from."""

    def __init__(self, seen: bytes, stream: _Plain) -> None:
        self.seen, self.stream = seen, stream

    def holds(self, n_bytes: int) -> bool:
        return self.stream.holds(n_bytes - len(self.seen))

    def read(self, n_bytes: int) -> bytes:
        head, self.seen = self.seen[:n_bytes], self.seen[n_bytes:]
        return head + self.stream.read(n_bytes - len(head))


class _Walk:
    """strict: the lengths of numbers and texts must fit their dimensions, as readers in C take for granted."""

    def __init__(self, path: Path, file: BinaryIO, order: str, wanted: Container[str], *, strict: bool = False) -> None:
        self.path, self.file, self.wanted, self.strict, self.depth = path, file, wanted, strict, 0
        self.order = order
        self.pair = struct.Struct(f"{order}II")
        self.numbers = {code: np.dtype(order + kind) for code, kind in NUMBERS.items()}
        endian = "-le" if order == "<" else "-be"
        self.encodings = {c: name + endian * name.startswith("utf-") for c, name in ENCODINGS.items() if c != 16}
        self.encodings[16] = "utf-8"

    def elements_of(self, variable: str) -> Iterator[dict[str, Value]]:
        names: list[str] = []
        for name, stream, _ in self.variables(variable, parsed=True):
            names.append(name)
            if name == variable:
                if self.kind != STRUCT:
                    raise UnknownContent(f"{self.path}: {variable} is no struct array; use a file as published")
                yield from self.stream_struct(stream, self.count(self.dims))
                return
        held = ", ".join(names) or "nothing"
        raise UnknownContent(f"{self.path} holds {held}, no {variable}; use a file results<SUBJECT>_<TASK>.mat")

    def variables(self, wanted: str | None, *, parsed: bool = False) -> Iterator[tuple[str, _Plain, int]]:
        """Name, stream and bytes of every variable; the stream stands at its content, `parsed`: behind its name, with
        `kind` and `dims` set. wanted: the only one whose content is asked for; None: all."""
        at = 128
        while True:
            self.file.seek(at)
            tag = self.file.read(8)
            if not tag:
                return
            if len(tag) < 8:
                raise EOFError
            kind, n_bytes = self.pair.unpack(tag)
            following = at + 8 + n_bytes
            stream: _Plain = _Plain(self.file)
            if not stream.holds(n_bytes):
                raise EOFError(f"the element at byte {at} has {n_bytes:,} bytes, {stream.size - at - 8:,} are left")
            if kind == COMPRESSED:
                stream = _Inflated(self.file, n_bytes)
                kind, n_bytes = self.pair.unpack(stream.read(8))
            if kind == MATRIX and n_bytes:
                head = _Recorded(stream)
                flags, self.dims, name = (self.next_element(head)[1] for _ in range(3))
                self.kind = flags[0 if self.order == "<" else 3]
                text = name.tobytes().decode("latin-1")
                if parsed:
                    yield text, stream, n_bytes
                elif wanted is None or text == wanted:
                    yield text, _Replayed(head.seen, stream), n_bytes
            elif self.strict and kind != MATRIX:
                raise EOFError(f"the element at byte {at} has type {kind}")
            at = following

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
        if not stream.holds(8 * n_elements * len(names)):
            raise EOFError(f"{n_elements:,} elements of {len(names)} fields do not fit")
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
        if size < 1 or len(raw) % size:
            raise ValueError(f"field names of {size} bytes in {len(raw)} bytes")
        names = [raw[i : i + size].split(b"\0", 1)[0].decode("latin-1") for i in range(0, len(raw), size)]
        if len(set(names)) < len(names):
            raise ValueError(f"two fields have one name: {', '.join(sorted({n for n in names if names.count(n) > 1}))}")
        return names

    def count(self, dims: memoryview) -> int:
        return math.prod(self.shape(dims))

    def shape(self, dims: memoryview) -> list[int]:
        shape: list[int] = np.frombuffer(dims, self.numbers[5]).tolist()
        if len(shape) < 2 or min(shape) < 0:
            raise ValueError(f"dimensions of {shape}")
        return shape

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
        self.depth += 1
        if self.depth > DEEPEST:
            raise ValueError(f"more than {DEEPEST} cells and structs inside each other")
        try:
            return self._matrix(view)
        finally:
            self.depth -= 1

    def _matrix(self, view: memoryview) -> Value:
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
            if self.strict:  # other readers know more classes; what they hold lies within the bounds checked so far
                return EMPTY
            raise UnknownContent(
                f"{self.path} holds a value of MATLAB class {kind}, not read here; use a file as published"
            )
        shape = self.shape(dims)
        if not all(shape):
            return "" if kind == CHAR else EMPTY
        stored, data, _ = self.element(view, at)
        if kind == CHAR:
            if stored not in self.encodings:
                raise ValueError(f"text of type {stored}")
            text = data.tobytes().decode(self.encodings[stored])
            if self.strict and len(text) != math.prod(shape):
                raise ValueError(f"a text of {len(text)} letters where {math.prod(shape)} are announced")
            return text
        if stored not in self.numbers:
            raise ValueError(f"numbers of type {stored}")
        array = np.frombuffer(data, self.numbers[stored])
        if len(array) != math.prod(shape):
            raise ValueError(f"{len(array)} numbers where {math.prod(shape)} are announced")
        if self.strict:
            return EMPTY
        return array.astype(np.float64, copy=False).reshape(shape, order="F")

    def matrices(self, view: memoryview, at: int, n: int) -> list[Value]:
        if 8 * n > len(view) - at:
            raise EOFError(f"{n:,} cells do not fit")
        values = []  # Value
        for _ in range(n):
            _, data, at = self.element(view, at)
            values.append(self.matrix(data))
        return values

    def structs(self, view: memoryview, at: int, n: int) -> list[dict[str, Value]]:
        _, size, at = self.element(view, at)
        _, names, at = self.element(view, at)
        fields = self.field_names(names, int(np.frombuffer(size, self.numbers[5])[0]))
        if 8 * n * len(fields) > len(view) - at:
            raise EOFError(f"{n:,} elements of {len(fields)} fields do not fit")
        elements = []  # dict
        for _ in range(n if fields else 0):
            element = {}  # str -> Value
            for name in fields:
                _, data, at = self.element(view, at)
                if name in self.wanted:
                    element[name] = self.matrix(data)
            elements.append(element)
        return elements
