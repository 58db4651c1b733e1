"""Wav files whose headers do not keep their promises, given to the decoder as whole ones.

    RIFF, RIFX   chunks of name, 32-bit size (little, big endian), content, one pad byte behind an odd size
    RF64, BW64   sizes of 64 bits in a chunk `ds64`; the 32-bit size of `data` is then 0xFFFFFFFF, or counts

Writers to a pipe cannot go back and leave a placeholder as the size of `data`; some writers forget the pad byte, others
update the header before the last samples. In each case the samples are there. `open_wav` finds them and returns a file
that the decoder reads, made of a new header and of the bytes as they lie on disk: nothing is copied. Samples that are
missing are an error. What this module does not do: decode.
"""

import io
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

FORMS = {b"RIFF": "<", b"RIFX": ">", b"RF64": "<", b"BW64": "<"}  # byte order
LONG = (b"RF64", b"BW64")
PLACEHOLDER_FROM = 0x7FFF_0000  # sizes that writers to a pipe leave: 0x7FFFFFFF less a header, 0x80000000, 0xFFFFFFFF
PCM = (1, 3)  # whole numbers and floats, by their tag
LARGEST_FORMAT = 4096  # bytes of a chunk `fmt `
KNOWN = (b"data", b"fmt ", b"fact", b"LIST", b"bext", b"cue ", b"PEAK", b"JUNK", b"id3 ", b"ID3 ", b"smpl", b"inst")


class AudioError(ValueError):
    """A recording that cannot be used; the message names the file, the problem and the remedy in one line."""


class Chunk(NamedTuple):
    name: bytes
    size: int
    start: int  # of its content


@dataclass
class _Found:
    """What a walk over the chunks has seen."""

    format: bytes = b""
    fact: bytes = b""
    long_size: int | None = None  # of `data`, from `ds64`
    data: tuple[int, int] | None = None  # first byte, number of bytes
    notes: bool = False  # chunks that hold no sound lie before the samples; a damaged one stops the decoder
    repairs: list[str] = field(default_factory=list)


def open_wav(path: Path) -> tuple[BinaryIO, list[str]]:
    """The file for a decoder, and what had to be repaired. Files other than wav are opened as they are.

    Raises `AudioError` for a wav that is cut short or lacks the chunks `fmt ` or `data`.
    """
    file = path.open("rb")
    try:
        head = file.read(12)
        if len(head) < 12 or head[:4] not in FORMS or head[8:] != b"WAVE":
            file.seek(0)
            return file, []
        found = _walk(path, file, head[:4])
        if not (found.repairs or found.notes or head[:4] in LONG):  # decoders go by `ds64` alone, and read no BW64
            file.seek(0)
            return file, []
        return io.BufferedReader(_Spliced(file, _header(found, head[:4]), *(found.data or (0, 0)))), found.repairs
    except BaseException:
        file.close()
        raise


def _walk(path: Path, file: BinaryIO, form: bytes) -> _Found:
    order = FORMS[form]
    end = path.stat().st_size
    found, position = _Found(), 12
    while (chunk := _chunk_at(file, position, order)) is not None:
        if chunk.name == b"data":
            _find_samples(path, file, chunk, end, order, found)
            break
        if chunk.start + chunk.size > end:
            raise AudioError(
                f"{path}: chunk {chunk.name!r} promises {chunk.size:,} bytes and {end - chunk.start:,} are there; "
                "copy or download the file again"
            )
        if chunk.name == b"ds64" and form in LONG and chunk.size >= 16:
            file.seek(chunk.start + 8)
            found.long_size = struct.unpack("<Q", file.read(8))[0]
        elif chunk.name in (b"fmt ", b"fact") and chunk.size <= LARGEST_FORMAT:
            file.seek(chunk.start)
            content = file.read(chunk.size)
            found.format, found.fact = (content, found.fact) if chunk.name == b"fmt " else (found.format, content)
        else:
            found.notes = True
        position = chunk.start + chunk.size
        padded = position + chunk.size % 2
        if padded < end and not _plausible(file, padded, end, order) and _plausible(file, position, end, order):
            found.repairs.append("a chunk of odd size without its pad byte")
        else:
            position = padded
    if found.data is None:
        raise AudioError(f"{path}: has no data chunk (truncated header); copy or download it again")
    if not found.format:
        raise AudioError(f"{path}: has no format chunk before its samples; write it again as PCM wav")
    _check_format(path, found.format, order)
    return found


def _check_format(path: Path, content: bytes, order: str) -> None:
    """Raise `AudioError` for PCM whose bits a sample contradict the bytes a frame: noise would be read."""
    if len(content) < 16:
        return
    kind, channels, _, _, align, bits = struct.unpack(f"{order}HHIIHH", content[:16])
    if kind in PCM and align not in (0, channels * -(-bits // 8)) and channels:
        raise AudioError(
            f"{path}: {bits} bits a sample and {channels} channels contradict {align} bytes a frame in the header; "
            "correct it, or write the file again"
        )


def _find_samples(path: Path, file: BinaryIO, chunk: Chunk, end: int, order: str, found: _Found) -> None:
    """Where the samples really end."""
    long = found.long_size is not None and chunk.size == 0xFFFF_FFFF
    size = int(found.long_size or 0) if long else chunk.size
    present = end - chunk.start
    follows = chunk.start + size + size % 2
    if size > present and size >= (1 << 62 if long else PLACEHOLDER_FROM):
        found.repairs.append("a placeholder instead of the number of samples: read to the end of the file")
        size = present
    elif size > present:
        raise AudioError(
            f"{path}: truncated, the header promises {size} bytes of samples and {present} are there; "
            "copy or download it again"
        )
    elif present - size >= 8 and not any(_plausible(file, p, end, order) for p in {follows, chunk.start + size}):
        kind = "a placeholder instead of the number of samples" if size == 0 else "more samples than the header says"
        found.repairs.append(f"{kind}: read to the end of the file")
        size = present
    found.data = chunk.start, size


def _chunk_at(file: BinaryIO, position: int, order: str) -> Chunk | None:
    file.seek(position)
    header = file.read(8)
    if len(header) < 8:
        return None
    name, size = struct.unpack(f"{order}4sI", header)
    return Chunk(name, size, position + 8)


def _plausible(file: BinaryIO, position: int, end: int, order: str) -> bool:
    """Whether a chunk begins here: a name in ASCII, and content that ends within the file (known names: whatever)."""
    chunk = _chunk_at(file, position, order)
    if chunk is None or not all(32 <= byte < 127 for byte in chunk.name):
        return False
    return chunk.name in KNOWN or chunk.start + chunk.size <= end


def _header(found: _Found, form: bytes) -> bytes:
    """A whole header up to the first sample."""
    order = FORMS[form]
    assert found.data is not None
    size = found.data[1]
    long = size >= PLACEHOLDER_FROM
    if long and order == ">":
        raise AudioError(f"a big-endian wav of {size:,} bytes has no 64-bit form; write it again as FLAC")
    chunks = b"".join(
        name + struct.pack(f"{order}I", len(content)) + content + b"\0" * (len(content) % 2)
        for name, content in ((b"fmt ", found.format), (b"fact", found.fact))
        if content
    )
    riff_size = 4 + len(chunks) + 8 + size + size % 2
    if long:
        riff_size += 36
        sizes = b"ds64" + struct.pack("<IQQQI", 28, riff_size, size, 0, 0)
        return b"RF64\xff\xff\xff\xffWAVE" + sizes + chunks + b"data\xff\xff\xff\xff"
    form = b"RIFX" if order == ">" else b"RIFF"
    return form + struct.pack(f"{order}I", riff_size) + b"WAVE" + chunks + b"data" + struct.pack(f"{order}I", size)


class _Spliced(io.RawIOBase):
    """`header`, then `size` bytes of `file` from `start` on, as one file."""

    def __init__(self, file: BinaryIO, header: bytes, start: int, size: int) -> None:
        self.file, self.header, self.start, self.size = file, header, start, size
        self.position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: len(self.header) + self.size}[whence]
        self.position = max(0, base + offset)
        return self.position

    def tell(self) -> int:
        return self.position

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        view = memoryview(buffer).cast("B")
        if self.position < len(self.header):
            piece = self.header[self.position : self.position + len(view)]
        else:
            offset = self.position - len(self.header)
            self.file.seek(self.start + offset)
            piece = self.file.read(max(0, min(len(view), self.size - offset)))
        view[: len(piece)] = piece
        self.position += len(piece)
        return len(piece)

    def close(self) -> None:
        self.file.close()
        super().close()
