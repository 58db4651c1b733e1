"""What every reader of event recordings shares: the record of an event, the sensors, the checks.

    EVENT    t int64 in microseconds, x and y uint16, p bool (True: brighter)

Readers return every event of a file in order of time, with the sensor's height and width; views of a data set (turned,
mirrored) belong to that data set. Whatever cannot be read raises an `EventFileError` that names the file, the byte and
the reason; nothing is skipped without a word. Each format has a module of its own; `readers` chooses among them.
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
CHIPS: dict[str, tuple[int, int]] = {  # how the name of a camera or chip begins, in lower case -> (height, width)
    "dvs128": DVS128, "tmpdiff128": DVS128, "davis128": DVS128, "davis208": (192, 208), "davis240": (180, 240),
    "sbret10": (180, 240), "davis346": (260, 346), "davis640": (480, 640),
}  # fmt: skip
# What a file that names no sensor may have been recorded with, from small to large.
SENSORS = (NMNIST, DVS128, (180, 240), (240, 304), (240, 320), (260, 346), (480, 640), (720, 1280), (1080, 1920))
LARGEST_PIXELS = 2**22  # of a sensor: a frame of a larger one is memory that no camera asks for
LONGEST_US = 30 * 24 * 3600 * 10**6  # from the first to the last event


class EventFileError(ValueError):
    """A file of events that cannot be used. Of one argument, the whole message: so worker processes pass it on."""

    def __init__(self, path: Path | str, byte: int = 0, reason: str = "") -> None:
        super().__init__(f"{path}, byte {byte}: {reason}" if reason else str(path))


@dataclass(frozen=True, kw_only=True)
class Recording:
    """events: `[n]` of EVENT in order of time; sensor: (height, width); notes: label -> figure, for people.

    sensor_known: false where the file does not say, and `sensor` is the smallest camera that holds every event.
    """

    events: np.ndarray
    sensor: tuple[int, int]
    format: str
    notes: dict[str, str]
    sensor_known: bool = True


def make_events(t: np.ndarray, x: np.ndarray, y: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Columns as `[n]` of EVENT."""
    events = np.empty(len(t), dtype=EVENT)
    events["t"], events["x"], events["y"], events["p"] = t, x, y, p
    return events


def chip_sensor(name: str) -> tuple[int, int] | None:
    """(height, width) of a camera of this name, such as DAVIS240C or Davis346blue; None for one that is not known."""
    lower = name.lower()
    return next((sensor for start, sensor in CHIPS.items() if re.match(rf"{start}(?!\d)", lower)), None)


def checked_sensor(path: Path, byte: int, height: int, width: int) -> tuple[int, int]:
    """(height, width) of a camera that there can be. Raises EventFileError."""
    if min(height, width) < 1 or height * width > LARGEST_PIXELS:
        raise EventFileError(
            path, byte, f"a sensor of {width} x {height} pixels is none; repair the header, or copy the file again"
        )
    return height, width


def guessed_sensor(path: Path, events: np.ndarray) -> tuple[int, int]:
    """The smallest of `SENSORS` that holds every event. Raises EventFileError where none does."""
    x, y = (int(events[axis].max(initial=0)) for axis in "xy")
    for height, width in SENSORS:
        if x < width and y < height:
            return height, width
    raise EventFileError(path, 0, f"events up to ({x}, {y}), and the file names no sensor; copy it again")


def unwrapped(ticks: np.ndarray, bits: int) -> np.ndarray:
    """int64 times of a clock of `bits` bits that starts again from 0: a fall by more than half its range is a wrap.

    A rise as large after a wrap is an event from before it that came late; without one it is a silence.
    """
    ticks = ticks.astype(np.int64)
    span, steps = 1 << bits, np.diff(ticks)
    turn, turns = 0, np.zeros(len(steps), dtype=np.int64)
    for i in np.flatnonzero(np.abs(steps) > span // 2):
        change = 1 if steps[i] < 0 else -1 if turn else 0
        turn, turns[i] = turn + change, change
    ticks[1:] += span * np.cumsum(turns)
    return ticks


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
        raise EventFileError(
            path, start + size * i,
            f"an event at {at} is outside the sensor of {width} x {height}; copy the file again, or repair its header",
        )  # fmt: skip


def checked(path: Path, events: np.ndarray, sensor: tuple[int, int], start: int, size: int) -> np.ndarray:
    """The events in order of time, those of one time in the order of the file; says how often time ran backwards.

    `start` and `size` give the byte of an event. Raises EventFileError where there is no event, one lies outside the
    sensor, or their times span more than a month.
    """
    if not len(events):
        raise EventFileError(path, start, "no event after the header; record it again, or remove the file")
    on_sensor(path, events, sensor, start, size)
    t = events["t"]
    span = int(t.max()) - int(t.min())
    if span > LONGEST_US:
        raise EventFileError(
            path, start, f"times span {span / 86400e6:,.0f} days; microseconds are expected, copy the file again"
        )
    backwards = int((np.diff(t) < 0).sum())
    if backwards:
        times = "once" if backwards == 1 else f"{backwards:,} times"
        log.warning("%s: time runs backwards %s; events are sorted by time", path, times)
        events = events[np.argsort(t, kind="stable")]
    return events


def same_sensor(path: Path, recording: Recording, sensor: tuple[int, int]) -> np.ndarray:
    """The events of a recording of this sensor. Raises EventFileError for another one."""
    if recording.sensor != sensor:
        (height, width), (meant_height, meant_width) = recording.sensor, sensor
        raise EventFileError(
            path, 0, f"recorded with {width} x {height} pixels, this data set has {meant_width} x {meant_height}; "
            "remove the file, or use dataset=events",
        )  # fmt: skip
    return recording.events
