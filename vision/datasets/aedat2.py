"""AEDAT 2.0, the format of jAER: lines that start with #, then big-endian pairs of address and microseconds.

The header's line AEChip names the chip, and that the layout of an address; a file without one is of a DVS128.

    DVS128     x bits 1-7, y bits 8-14, polarity bit 0; bit 15: a special event (synchronisation)
    DAVIS      x bits 12-21, y bits 22-30, polarity bit 11; bit 10: a special event; bit 31: a frame or motion sample

Special events and samples are dropped and counted. The clock has 32 bits, in some recordings 31, and goes round.
"""

import re
from pathlib import Path

import numpy as np

from spikeloom.vision.datasets.events import (
    DVS128,
    EventFileError,
    Recording,
    checked,
    chip_sensor,
    log,
    make_events,
    on_sensor,
    unwrapped,
)

END = re.compile(rb"^#\s?End Of ASCII Header\r?\n", re.MULTILINE)
CHIP = re.compile(rb"^#\s*AEChip:\s*(\S+)", re.MULTILINE)
AGAIN = "copy the file again"


def read_aedat2(path: Path) -> Recording:
    """All polarity events. Raises EventFileError, for a chip whose addresses are not known here, too."""
    raw = path.read_bytes()
    if not raw.startswith(b"#!AER-DAT2"):
        raise EventFileError(path, 0, f"no AEDAT 2.0 header, it begins with {raw[:10]!r}; give an .aedat file of jAER")
    start = header_end(path, raw)
    chip, sensor = _chip(path, raw[:start])
    body = len(raw) - start
    if body % 8:
        raise EventFileError(path, start + body // 8 * 8, f"{body} bytes are not whole events of 8; {AGAIN}")
    pairs = np.frombuffer(raw, dtype=">u4", offset=start).reshape(-1, 2)
    address, ticks = pairs[:, 0].astype(np.uint32), pairs[:, 1]
    notes = {"header": f"{start:,} bytes", "chip": chip or "not named; DVS128 assumed"}
    if not chip.lower().startswith(("davis", "sbret")):
        special = (address >> 15 & 1).astype(bool)
        dropped = special
        x, y, p = address >> 1 & 0x7F, address >> 8 & 0x7F, address & 1
        if (beyond := address >> 16 != 0).any():
            i = int(beyond.argmax())
            raise EventFileError(
                path, start + 8 * i, f"address {address[i]:#x} is none of a DVS128 (16 bits); the header must name the "
                "chip in a line AEChip, record the file again with jAER",
            )  # fmt: skip
    else:
        sample = (address >> 31).astype(bool)
        special = ~sample & (address >> 10 & 1).astype(bool)
        dropped = special | sample
        x, y, p = address >> 12 & 0x3FF, address >> 22 & 0x1FF, address >> 11 & 1
        notes["frame and motion samples dropped"] = f"{int(sample.sum()):,}"
    notes["special events dropped"] = f"{int(special.sum()):,}"
    left = [f"{int(n):,} {what}{'' if n == 1 else 's'}" for what, n in (
        ("special event", special.sum()), ("frame and motion sample", (dropped & ~special).sum())) if n]  # fmt: skip
    if left:
        log.warning("%s: %s dropped", path, " and ".join(left))
    bits = 31 if ticks.max(initial=0) < 2**31 else 32
    records = make_events(unwrapped(ticks, bits), x, y, p)
    on_sensor(path, records, sensor, start, 8, ~dropped)
    events = checked(path, records[~dropped], sensor, start, 8)
    return Recording(events=events, sensor=sensor, format="AEDAT 2.0", notes=notes)


def _chip(path: Path, header: bytes) -> tuple[str, tuple[int, int]]:
    """The chip's name without its package, "" where the header names none, and its (height, width)."""
    found = CHIP.search(header)
    if found is None:
        return "", DVS128
    name = found[1].decode("ascii", "replace").rpartition(".")[2]
    sensor = chip_sensor(name)
    if sensor is None:
        raise EventFileError(
            path, found.start(), f"AEChip {name} has addresses that are not known here; convert the recording to "
            "AEDAT 4 or to a table of t, x, y, p (.npy, .h5)",
        )  # fmt: skip
    return name, sensor


def header_end(path: Path, raw: bytes) -> int:
    """Where the events begin: after `#End Of ASCII Header`, or without it at the first line that is no comment."""
    if end := END.search(raw):
        return end.end()
    at = 0
    while raw[at : at + 1] == b"#":
        line = raw.find(b"\n", at)
        if at and (line < 0 or not _is_text(raw[at:line])):  # the first event may begin with the byte of a #
            break
        if line < 0:
            raise EventFileError(path, at, f"the header does not end; {AGAIN}")
        at = line + 1
    return at


def _is_text(line: bytes) -> bool:
    return all(byte >= 0x20 or byte in b"\t\r" for byte in line)
