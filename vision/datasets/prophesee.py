"""Recordings of Prophesee's cameras: .raw (EVT 2.0 and EVT 3.0) and .dat files, little-endian after lines with %.

    .dat      8 bytes: microseconds; x bits 0-13, y 14-27, polarity 28 (before version 2: x 0-8, y 9-16, polarity 17)
    EVT 2.0   4 bytes, kind in bits 28-31: 0, 1 an event OFF, ON (x 11-21, y 0-10, lowest 6 bits of time 22-27);
              8 the higher 28 bits of time
    EVT 3.0   2 bytes, kind in bits 12-15: 0 y; 2 an event (x 0-10, polarity 11); 3 base x and polarity of vectors;
              4, 5 a vector of 12, 8 events from base x on, which moves on; 6, 8 lower, higher 12 bits of time

The clocks go round and are unwrapped. Words before the first time and events before the first y are dropped and
counted, external triggers counted. EVT 2.1 and 4.0 are refused.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from spikeloom.vision.datasets.events import (
    EVENT,
    EventFileError,
    Recording,
    checked,
    checked_sensor,
    guessed_sensor,
    make_events,
    unwrapped,
)

AGAIN = "copy the file again"
CD, RECORD = (0x00, 0x0C), 8  # kinds of event, and their size, that a .dat file may hold
TRIGGER = 0xA


def header_of(path: Path, raw: bytes) -> tuple[dict[str, str], int]:
    """Lines `% key value` as a dict with keys in lower case, and where the data begin."""
    fields, at = dict[str, str](), 0
    while raw[at : at + 1] == b"%":
        line = raw[at : raw.find(b"\n", at)]
        if b"\n" not in raw[at : at + 4096] or not all(byte >= 0x20 or byte in b"\t\r" for byte in line):
            if at == 0:
                raise EventFileError(path, at, f"the header does not end; {AGAIN}")
            break  # data may begin with the byte of a %
        at += len(line) + 1
        key, _, value = line[1:].decode("utf-8", "replace").strip().partition(" ")
        fields[key.lower()] = value.strip()
        if key.lower() == "end":
            break
    return fields, at


def header_sensor(path: Path, fields: dict[str, str]) -> tuple[int, int] | None:
    """(height, width) from `geometry`, `format` or `height` and `width`, where the header has one of them."""
    if found := re.fullmatch(r"(\d+)x(\d+)", fields.get("geometry", "")):
        return checked_sensor(path, 0, int(found[2]), int(found[1]))
    options = dict(re.findall(r"(\w+)=(\d+)", fields.get("format", "")))
    sizes = [options.get(key, fields.get(key, "")) for key in ("height", "width")]
    if all(size.isdecimal() for size in sizes):
        return checked_sensor(path, 0, int(sizes[0]), int(sizes[1]))
    return None


def recording(
    path: Path, events: np.ndarray, fields: dict[str, str], start: int, size: int, name: str, notes: dict[str, str]
) -> Recording:
    """Checked against the sensor of the header, or a guessed one."""
    named = header_sensor(path, fields)
    sensor = named or guessed_sensor(path, events)
    return Recording(
        events=checked(path, events, sensor, start, size), sensor=sensor, format=name, notes=notes,
        sensor_known=named is not None,
    )  # fmt: skip


# --- .dat -----------------------------------------------------------------------------------------------------------


def read_dat(path: Path) -> Recording:
    """All events of a .dat file. Raises EventFileError."""
    raw = path.read_bytes()
    fields, start = header_of(path, raw)
    if not fields:
        raise EventFileError(path, 0, f"no header of lines with %, it begins with {raw[:8]!r}; give a .dat recording")
    kind = raw[start : start + 2]
    if len(kind) < 2 or kind[0] not in CD or kind[1] != RECORD:
        raise EventFileError(path, start, f"kind {kind.hex()} is no event of {RECORD} bytes (00 08 or 0c 08); {AGAIN}")
    start += 2
    body = len(raw) - start
    if body % RECORD:
        at = start + body // RECORD * RECORD
        raise EventFileError(path, at, f"{body} bytes are not whole events of {RECORD}; {AGAIN}")
    words = np.frombuffer(raw, dtype="<u4", offset=start).reshape(-1, 2)
    data, version = words[:, 1], fields.get("version", "0")
    if version in ("0", "1"):
        x, y, p = data & 0x1FF, data >> 9 & 0xFF, data >> 17 & 1
    elif version == "2":
        x, y, p = data & 0x3FFF, data >> 14 & 0x3FFF, data >> 28 & 1
    else:
        raise EventFileError(path, 0, f"version {version} of this format is unknown (0, 1, 2 are); export version 2")
    events = make_events(unwrapped(words[:, 0], 32), x, y, p)
    return recording(path, events, fields, start, RECORD, f"Prophesee .dat, version {version}", {})


# --- .raw -----------------------------------------------------------------------------------------------------------


def read_raw(path: Path) -> Recording:
    """All events of a .raw file in EVT 2.0 or EVT 3.0. Raises EventFileError."""
    raw = path.read_bytes()
    fields, start = header_of(path, raw)
    named = fields.get("format", "").partition(";")[0] or f"EVT{fields.get('evt', '')}"
    version = named.upper().removeprefix("EVT").replace(".", "").ljust(2, "0")
    if version not in ("20", "30"):
        raise EventFileError(
            path, 0, f"format {named!r} is none of EVT 2.0 and EVT 3.0; export the recording as .dat or EVT 3.0"
        )
    size = 4 if version == "20" else 2
    body = len(raw) - start
    if body % size:
        at = start + body // size * size
        raise EventFileError(path, at, f"{body} bytes are not whole words of {size}; {AGAIN}")
    words = np.frombuffer(raw, dtype="<u4" if size == 4 else "<u2", offset=start)
    events, notes = (evt2 if size == 4 else evt3)(words)
    return recording(path, events, fields, start, 0, f"Prophesee EVT {version[0]}.{version[1]}", notes)


def evt2(words: np.ndarray) -> tuple[np.ndarray, dict[str, str]]:
    """uint32 words -> EVENT `[n]` in their order, notes."""
    kind = words >> 28
    highs = np.flatnonzero(kind == 8)
    high = unwrapped(words[highs] & 0xFFFFFFF, 28)
    chosen = np.flatnonzero(kind <= 1)
    before = _last(highs, chosen)
    early, chosen, before = int((before < 0).sum()), chosen[before >= 0], before[before >= 0]
    data = words[chosen]
    t = high[before] << 6 | (data >> 22 & 0x3F).astype(np.int64)
    return make_events(t, data >> 11 & 0x7FF, data & 0x7FF, kind[chosen]), _notes(kind, early)


def evt3(words: np.ndarray) -> tuple[np.ndarray, dict[str, str]]:
    """uint16 words -> EVENT `[n]` in their order, notes."""
    kind, data = words >> 12, (words & 0xFFF).astype(np.int64)
    single, vector = np.flatnonzero(kind == 2), np.flatnonzero((kind == 4) | (kind == 5))
    # A vector's base x: where the last base word put it, moved on by the vectors since.
    advance = np.where(kind == 4, 12, np.where(kind == 5, 8, 0)).cumsum()
    bases = np.flatnonzero(kind == 3)
    base = _last(bases, vector)
    early = int((base < 0).sum())
    vector, base = vector[base >= 0], bases[base[base >= 0]]
    width = np.where(kind[vector] == 4, 12, 8)
    first = (data[base] & 0x7FF) + advance[vector] - width - advance[base]
    bits = (data[vector, None] >> np.arange(12) & 1).astype(bool) & (np.arange(12) < width[:, None])
    row, place = np.nonzero(bits)
    at = np.concatenate([single, vector[row]])
    x = np.concatenate([data[single] & 0x7FF, first[row] + place])
    p = np.concatenate([data[single] >> 11, data[base][row] >> 11])
    order = np.argsort(at, kind="stable")  # within a vector x rises already
    at, x, p = at[order], x[order], p[order]

    rows, highs = np.flatnonzero(kind == 0), np.flatnonzero(kind == 8)
    high = unwrapped(data[highs], 12)
    # The lower bits count from the last of their words, or from 0 where the higher ones have changed since.
    changed = highs[np.flatnonzero(np.diff(high, prepend=-1))]
    lows = np.sort(np.concatenate([np.flatnonzero(kind == 6), changed]))
    low = np.where(kind[lows] == 6, data[lows], 0)
    of_y, of_high, of_low = _last(rows, at), _last(highs, at), _last(lows, at)
    known = (of_y >= 0) & (of_high >= 0)
    early += int((~known).sum())
    if not known.any():
        return np.empty(0, dtype=EVENT), _notes(kind, early)
    t = high[of_high[known]] << 12 | low[of_low[known]]
    return make_events(t, x[known], data[rows][of_y[known]] & 0x7FF, p[known]), _notes(kind, early)


def _last(places: np.ndarray, at: np.ndarray) -> Any:
    """Index into `places`, ascending, of the last one at or before each of `at`; -1 where there is none."""
    return np.searchsorted(places, at, side="right") - 1


def _notes(kind: np.ndarray, early: int) -> dict[str, str]:
    return {"triggers": f"{int((kind == TRIGGER).sum()):,}", "events before the first time dropped": f"{early:,}"}
