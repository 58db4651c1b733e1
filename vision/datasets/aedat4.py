"""AEDAT 4, the format of DV: a header, then packets of a stream each, compressed with LZ4 or Zstandard.

Packets are FlatBuffers; the few fields needed are followed by hand, so only the decompressors are libraries (extra
`events`). Frames, inertial and trigger streams are passed over and counted.
"""

import re
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np

from spikeloom.vision.datasets.events import (
    EVENT,
    EventFileError,
    Recording,
    checked,
    checked_sensor,
    make_events,
    on_sensor,
)

LINE = b"#!AER-DAT4.0\r\n"
ON_DISK = np.dtype([("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "u1"), ("rest", "V3")])
NONE, LZ4, LZ4_HIGH, ZSTD, ZSTD_HIGH = range(5)
AGAIN = "copy the file again"
RATIO, SPARE = 100, 2**20  # events pack to a fifth or so of their size
BOMB = f"it unpacks to more than {RATIO} times its size"


def read_aedat4(path: Path) -> Recording:
    """All polarity events of the file. Raises EventFileError, or ImportError naming the extra it needs."""
    raw = path.read_bytes()
    if not raw.startswith(LINE):
        raise EventFileError(path, 0, f"no AEDAT 4 header, it begins with {raw[:10]!r}; give an .aedat4 file of DV")
    at = len(LINE)
    if len(raw) < at + 4:
        raise EventFileError(path, at, f"the header is cut off; {AGAIN}")
    (size,) = struct.unpack_from("<I", raw, at)
    header = raw[at + 4 : at + 4 + size]
    if len(header) < size or header[4:8] != b"IOHE":
        raise EventFileError(path, at, f"the header is cut off or is none of AEDAT 4; {AGAIN}")
    try:
        table = Table(header, 0)
        compression, end, streams = table.number(0, "<i", 0), table.number(1, "<q", -1), event_streams(table.text(2))
    except (ValueError, struct.error) as error:
        raise EventFileError(path, at, f"the header is damaged ({error}); {AGAIN}") from error
    if len(streams) > 1:
        found = ", ".join(f"{number} ({width} x {height})" for number, (height, width) in streams.items())
        raise EventFileError(path, at, f"events of several streams, {found}; export one of them to a file of its own")
    for height, width in streams.values():
        checked_sensor(path, at, height, width)
    if end > len(raw):
        raise EventFileError(
            path, len(raw), f"truncated: the file ends here, its table of packets begins at byte {end}; {AGAIN}"
        )
    decompress = decompressor(path, at, compression)
    at = start = at + 4 + size
    parts, packets, others = [np.empty(0, dtype=EVENT)], 0, 0
    stop = end if end > 0 else len(raw)  # a recording that was not closed has no table
    while at < stop:
        if stop - at < 8:
            raise EventFileError(path, at, f"{stop - at} bytes where a packet begins; {AGAIN}")
        stream, size = struct.unpack_from("<ii", raw, at)
        if size < 0 or at + 8 + size > stop:
            raise EventFileError(path, at, f"a packet of {size} bytes, and {stop - at - 8} are left; {AGAIN}")
        if stream in streams:
            try:
                events = packet_events(decompress(raw[at + 8 : at + 8 + size]))
            except (RuntimeError, ValueError, struct.error) as error:
                raise EventFileError(path, at, f"a packet that cannot be unpacked ({error}); {AGAIN}") from error
            on_sensor(path, events, streams[stream], at, 0)  # an event in a compressed packet has no byte of its own
            parts.append(events)
            packets += 1
        else:
            others += 1
        at += 8 + size
    sensor = next(iter(streams.values()), None)
    if sensor is None:
        raise EventFileError(path, start, "no stream of events in it; give a recording of an event camera")
    events = checked(path, np.concatenate(parts), sensor, start, 0)
    notes = {"packets": f"{packets:,}", "packets of other streams": f"{others:,}"}
    return Recording(events=events, sensor=sensor, format="AEDAT 4", notes=notes)


def decompressor(path: Path, at: int, kind: int) -> Callable[[bytes], bytes]:
    """What unpacks a packet. Raises ImportError naming the extra where its library is not installed."""
    needed = {LZ4: "lz4", LZ4_HIGH: "lz4", ZSTD: "zstandard", ZSTD_HIGH: "zstandard"}.get(kind)
    allowed = Allowance()
    try:
        if needed == "lz4":
            import lz4.frame

            def unpack_lz4(packed: bytes) -> bytes:
                unpacker = lz4.frame.LZ4FrameDecompressor()
                made = bytes(unpacker.decompress(packed, max_length=allowed.more(len(packed)) + 1))
                if allowed.spent_on(made):
                    raise ValueError(BOMB)
                if not unpacker.eof:
                    raise ValueError("it ends early")
                return made

            return unpack_lz4
        if needed == "zstandard":
            import zstandard

            def unpack_zstd(packed: bytes) -> bytes:
                allowed.more(len(packed))
                unpacker = zstandard.ZstdDecompressor(max_window_size=2**27).decompressobj()
                parts = []  # bytes
                try:
                    for first in range(0, len(packed), 256):  # no more than 8 MiB can come of 256 bytes
                        if unpacker.eof:
                            break
                        parts.append(unpacker.decompress(packed[first : first + 256]))
                        if allowed.spent_on(parts[-1]):
                            raise ValueError(BOMB)
                except zstandard.ZstdError as error:  # unlike that of LZ4 no RuntimeError
                    raise ValueError(str(error)) from error
                if not unpacker.eof:
                    raise ValueError("it ends early")
                return b"".join(parts)

            return unpack_zstd
    except ImportError as error:
        raise ImportError(
            f"{path} is compressed with {needed}, which is not installed; pip install 'spikeloom[events]'"
        ) from error
    if kind != NONE:
        raise EventFileError(path, at, f"compression {kind} is unknown (0..4 are defined); {AGAIN}")
    return lambda packed: packed


class Allowance:
    """How many bytes all packets of a file may unpack to: `RATIO` times what was read of them, and `SPARE`."""

    def __init__(self) -> None:
        self.left = SPARE

    def more(self, packed: int) -> int:
        """`packed` more bytes were read; returns how many may be made now."""
        self.left += RATIO * packed
        return self.left

    def spent_on(self, made: bytes) -> bool:
        """Whether these bytes are more than were allowed."""
        self.left -= len(made)
        return self.left < 0


def event_streams(xml: str) -> dict[int, tuple[int, int]]:
    """Streams of type EVTS and their sensors (height, width), from the header's XML."""
    streams = {}
    for found in re.finditer(
        r'<node name="(\d+)" path="[^"]*outInfo/\d+/">(.*?)(?=<node name="\d+"|\Z)', xml, re.DOTALL
    ):
        body = found[2]
        sizes = [re.search(rf'<attr key="{key}" type="int">(\d+)</attr>', body) for key in ("sizeY", "sizeX")]
        if re.search(r'<attr key="typeIdentifier"[^>]*>EVTS</attr>', body) and all(sizes):
            height, width = (int(size[1]) for size in sizes if size)
            streams[int(found[1])] = (height, width)
    return streams


def packet_events(buffer: bytes) -> np.ndarray:
    """EVENT `[n]` of one size-prefixed EventPacket, whose field 0 is a vector of 16-byte structs."""
    start, count = Table(buffer, 4).vector(0)
    if start + count * ON_DISK.itemsize > len(buffer):
        raise ValueError(f"{count} events do not fit into {len(buffer)} bytes")
    rows = np.frombuffer(buffer, dtype=ON_DISK, count=count, offset=start)
    return make_events(rows["t"], rows["x"].astype(np.uint16), rows["y"].astype(np.uint16), rows["p"] != 0)


class Table:
    """The root table of a FlatBuffer: its fields lie where a table of offsets says, or not at all."""

    def __init__(self, buffer: bytes, at: int) -> None:
        self.buffer = buffer
        self.start = at + struct.unpack_from("<I", buffer, at)[0]
        self.offsets = self.start - struct.unpack_from("<i", buffer, self.start)[0]

    def field(self, index: int) -> int | None:
        (size,) = struct.unpack_from("<H", self.buffer, self.offsets)
        if 4 + 2 * index >= size:
            return None
        (offset,) = struct.unpack_from("<H", self.buffer, self.offsets + 4 + 2 * index)
        return self.start + offset if offset else None

    def number(self, index: int, code: str, default: int) -> int:
        at = self.field(index)
        return default if at is None else int(struct.unpack_from(code, self.buffer, at)[0])

    def vector(self, index: int) -> tuple[int, int]:
        """Where a vector's elements begin, and how many there are."""
        at = self.field(index)
        if at is None:
            return 0, 0
        at += struct.unpack_from("<I", self.buffer, at)[0]
        return at + 4, int(struct.unpack_from("<I", self.buffer, at)[0])

    def text(self, index: int) -> str:
        start, count = self.vector(index)
        return self.buffer[start : start + count].decode("utf-8", "replace")
