"""AEDAT 3.1, the format of DVS128 Gesture: a header of lines, then packets of events of one type each.

Only polarity events are taken; packets of other types are passed over by their size. Events marked invalid are dropped
and counted. Time is the event's 31 bits, of which the packet's overflow counter gives the rest; a clock that goes round
while that counter stands still is unwrapped. The header's lines `#Source N: NAME` name the camera; without one it is a
DVS128.
"""

import csv
import re
import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from spikeloom.accel.common.files import read_text
from spikeloom.vision.datasets.events import (
    DVS128,
    EVENT,
    EventFileError,
    Recording,
    checked,
    chip_sensor,
    make_events,
    on_sensor,
    unwrapped,
)

END = b"#!END-HEADER\r\n"
HEADER = struct.Struct("<HHIIIIII")  # type, source, eventSize, tsOffset, tsOverflow, capacity, number, valid
POLARITY, COMPRESSED = 1, 0x8000
SOURCE = re.compile(rb"^#\s*Source\s+\d+:\s*(\S+)", re.MULTILINE)
AGAIN = "copy the file again"


def read_aedat3(path: Path) -> Recording:
    """All valid polarity events. Raises EventFileError for a missing header, an unknown camera, a packet that is cut
    or compressed, or no event."""
    raw = path.read_bytes()
    if not raw.startswith(b"#!AER-DAT3"):
        raise EventFileError(path, 0, f"no AEDAT 3.1 header, it begins with {raw[:10]!r}; give an .aedat file of cAER")
    start = raw.find(END)
    if start < 0:
        raise EventFileError(path, 0, f"the header does not end with #!END-HEADER; {AGAIN}")
    start = at = start + len(END)
    sensor = _sensor(path, raw[:start])
    parts, dropped, others = [np.empty(0, dtype=EVENT)], 0, 0
    while at < len(raw):
        if len(raw) - at < HEADER.size:
            raise EventFileError(
                path, at, f"{len(raw) - at} bytes where a packet header of {HEADER.size} begins; {AGAIN}"
            )
        kind, _, size, _, overflow, _, number, _ = HEADER.unpack_from(raw, at)
        body = at + HEADER.size
        if kind & COMPRESSED:
            raise EventFileError(path, at, "a compressed packet (SerializedTS, PNGFrames); export the recording as RAW")
        if size * number > len(raw) - body:
            raise EventFileError(
                path, at, f"a packet of {size * number} bytes, and {len(raw) - body} are left; {AGAIN}"
            )
        if kind == POLARITY:
            if size != 8:
                raise EventFileError(path, at, f"polarity events of {size} bytes, which are 8 in this format; {AGAIN}")
            words = np.frombuffer(raw, dtype="<u4", count=2 * number, offset=body).reshape(-1, 2)
            data, time = words[:, 0], words[:, 1].astype(np.int64) | np.int64(overflow) << 31
            events = make_events(time, data >> 17 & 0x7FFF, data >> 2 & 0x7FFF, data >> 1 & 1)
            valid = (data & 1).astype(bool)
            dropped += int((~valid).sum())
            on_sensor(path, events, sensor, body, 8, valid)
            parts.append(events[valid])
        else:
            others += 1
        at = body + size * number
    events = np.concatenate(parts)
    events["t"] = unwrapped(events["t"], 31)  # of a counter that stands still; one that counts leaves no fall
    events = checked(path, events, sensor, start, 8)
    notes = {"invalid events dropped": f"{dropped:,}", "packets of other types": f"{others:,}"}
    return Recording(events=events, sensor=sensor, format="AEDAT 3.1", notes=notes)


def _sensor(path: Path, header: bytes) -> tuple[int, int]:
    """(height, width) of the one camera that the header names; a DVS128 where it names none."""
    names = {found[1].decode("ascii", "replace") for found in SOURCE.finditer(header)}
    sensors = {name: chip_sensor(name) for name in names}
    if unknown := sorted(name for name, sensor in sensors.items() if sensor is None):
        raise EventFileError(path, 0, f"source {unknown[0]} is a camera that is not known here; export it as AEDAT 4")
    if len(found := {sensor for sensor in sensors.values() if sensor}) > 1:
        raise EventFileError(path, 0, f"events of several cameras, {', '.join(sorted(names))}; export one to a file")
    return found.pop() if found else DVS128


class Cut(NamedTuple):
    """A labelled stretch of a recording: class from 0, start <= t < end in microseconds."""

    label: int
    start_us: int
    end_us: int


def read_cuts(path: Path, n_classes: int = 11) -> list[Cut]:
    """`class,startTime_usec,endTime_usec` with classes from 1. Raises EventFileError naming the line's byte."""
    if not path.is_file():
        raise FileNotFoundError(f"no {path}; the labels of DVS128 Gesture lie beside the recordings")
    text = read_text(path, "fetch the labels again")
    cuts, at = list[Cut](), 0
    for number, line in enumerate(text.splitlines(keepends=True)):
        row = next(csv.reader([line.strip()]), [])
        if row and not (number == 0 and not row[0].strip().isdigit()):
            try:
                label, start, end = (int(cell) for cell in row)
            except ValueError:
                raise EventFileError(
                    path, at, f"{line.strip()!r} is not class,start,end; fetch the labels again"
                ) from None
            if not 1 <= label <= n_classes or start >= end:
                raise EventFileError(
                    path, at, f"class {label} of 1..{n_classes} from {start} to {end}; repair the line"
                )
            cuts.append(Cut(label - 1, start, end))
        at += len(line.encode())
    if not cuts:
        raise EventFileError(path, at, "no labelled stretch; fetch the labels again")
    return cuts


def overlapping(cuts: list[Cut]) -> int:
    """How many neighbouring stretches overlap in time."""
    ordered = sorted(cuts, key=lambda cut: cut.start_us)
    return sum(later.start_us < earlier.end_us for earlier, later in zip(ordered, ordered[1:], strict=False))
