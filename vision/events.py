"""Recordings of event cameras from files: AEDAT 2.0, 3.1 and 4, and the .bin files of N-MNIST.

    EVENT    t int64 in microseconds, x and y uint16, p bool (True: brighter)

Readers return what the file holds, in its order, and the sensor's height and width where the file names them; views of
a data set (turned, mirrored) belong to that data set. Whatever cannot be read raises an `EventFileError` that names the
file, the byte and the reason; nothing is skipped without a word.
"""

import logging
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

log = logging.getLogger("spikeloom")
EVENT = np.dtype([("t", np.int64), ("x", np.uint16), ("y", np.uint16), ("p", np.bool_)])
DVS128 = (128, 128)
NMNIST = (34, 34)
OVERFLOW_Y, OVERFLOW_US = 240, 8192  # how an N-MNIST file says that its clock went round


class EventFileError(ValueError):
    """A file of events that cannot be used."""

    def __init__(self, path: Path, byte: int, reason: str) -> None:
        super().__init__(f"{path}, byte {byte}: {reason}")


@dataclass(frozen=True, kw_only=True)
class Recording:
    """events: `[n]` of EVENT in the order of the file; sensor: (height, width); notes: label -> figure, for people."""

    events: np.ndarray
    sensor: tuple[int, int]
    format: str
    notes: dict[str, str]


def make_events(t: np.ndarray, x: np.ndarray, y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Columns as `[n]` of EVENT."""
    events = np.empty(len(t), dtype=EVENT)
    events["t"], events["x"], events["y"], events["p"] = t, x, y, p
    return events


def on_sensor(
    path: Path, events: np.ndarray, sensor: tuple[int, int], start: int, size: int, valid: np.ndarray | bool = True
) -> None:
    """Raise EventFileError with the byte of the first `valid` event outside; `start` and `size` give the byte of any.

    Records that are dropped must still be among `events`, as they count for the byte.
    """
    height, width = sensor
    outside = valid & ((events["x"] >= width) | (events["y"] >= height))
    if outside.any():
        i = int(outside.argmax())
        at = f"({events['x'][i]}, {events['y'][i]})"
        raise EventFileError(path, start + size * i, f"an event at {at} is outside the sensor of {width} x {height}")


def checked(path: Path, events: np.ndarray, sensor: tuple[int, int], start: int, size: int) -> np.ndarray:
    """The events, if there are any and all lie on the sensor; says how often time runs backwards.

    `start` and `size` give the byte of an event. Raises EventFileError.
    """
    if not len(events):
        raise EventFileError(path, start, "no event after the header; record it again, or remove the file")
    on_sensor(path, events, sensor, start, size)
    backwards = int((np.diff(events["t"]) < 0).sum())
    if backwards:
        log.warning("%s: time runs backwards %d times; the order of the file is kept", path, backwards)
    return events


# --- AEDAT 2.0 ------------------------------------------------------------------------------------------------------


def read_aedat2(path: Path, sensor: tuple[int, int] = DVS128) -> Recording:
    """jAER's format of the DVS128: lines that start with #, then big-endian pairs of address and microseconds."""
    raw = path.read_bytes()
    if not raw.startswith(b"#!AER-DAT2"):
        raise EventFileError(path, 0, f"no AEDAT 2.0 header, it begins with {raw[:10]!r}; give an .aedat file of jAER")
    start = aedat2_header(path, raw)
    body = len(raw) - start
    if body % 8:
        raise EventFileError(
            path, start + body // 8 * 8, f"{body} bytes are not whole events of 8; copy the file again"
        )
    pairs = np.frombuffer(raw, dtype=">u4", offset=start).reshape(-1, 2)
    address, time = pairs[:, 0], pairs[:, 1].astype(np.int64)
    events = make_events(time, address >> 1 & 0x7F, address >> 8 & 0x7F, address & 1)
    events = checked(path, events, sensor, start, 8)
    return Recording(events=events, sensor=sensor, format="AEDAT 2.0", notes={"header": f"{start:,} bytes"})


def aedat2_header(path: Path, raw: bytes) -> int:
    """Where the events begin: after `#End Of ASCII Header`, or without it at the first line that is no comment."""
    if end := re.search(rb"^#End Of ASCII Header\r?\n", raw, re.MULTILINE):
        return end.end()
    at = 0
    while raw[at : at + 1] == b"#":
        line = raw.find(b"\n", at)
        if line < 0:
            raise EventFileError(path, at, "the header does not end; copy the file again")
        at = line + 1
    return at


# --- N-MNIST --------------------------------------------------------------------------------------------------------


def read_nmnist(path: Path) -> Recording:
    """Five bytes an event: x, y, then polarity in the highest of 24 bits and microseconds in the others."""
    raw = np.fromfile(path, dtype=np.uint8)
    if len(raw) % 5:
        whole = len(raw) // 5 * 5
        raise EventFileError(path, whole, f"{len(raw)} bytes are not whole events of 5; copy the file again")
    rows = raw.reshape(-1, 5).astype(np.int64)
    time = (rows[:, 2] & 0x7F) << 16 | rows[:, 3] << 8 | rows[:, 4]
    marker = rows[:, 1] == OVERFLOW_Y
    time = time + OVERFLOW_US * np.cumsum(marker)
    records = make_events(time, rows[:, 0], rows[:, 1], rows[:, 2] >> 7)
    on_sensor(path, records, NMNIST, 0, 5, ~marker)
    events = checked(path, records[~marker], NMNIST, 0, 5)
    return Recording(
        events=events, sensor=NMNIST, format="N-MNIST", notes={"clock overflows": f"{int(marker.sum()):,}"}
    )  # fmt: skip


# --- any of them ----------------------------------------------------------------------------------------------------


def read_events(path: Path) -> Recording:
    """A recording in whichever format the first line names; files without one are those of N-MNIST (.bin).

    Raises FileNotFoundError, or EventFileError for a format that is none of these.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give a recording of an event camera")
    with path.open("rb") as file:
        head = file.read(16)
    if head.startswith(b"#!AER-DAT4"):
        from vision.aedat4 import read_aedat4

        return read_aedat4(path)
    if head.startswith(b"#!AER-DAT3"):
        from vision.aedat3 import read_aedat3

        return read_aedat3(path)
    if head.startswith(b"#!AER-DAT2"):
        return read_aedat2(path)
    if path.suffix == ".bin":
        return read_nmnist(path)
    raise EventFileError(
        path, 0, f"it begins with {head[:10]!r}, which is none of AEDAT 2.0, 3.1, 4 (#!AER-DAT…) or N-MNIST (.bin)"
    )
