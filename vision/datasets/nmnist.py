"""The .bin files of N-MNIST: five bytes an event, x, y, then polarity in the highest of 24 bits and microseconds in
the others. An event at y = 240 says that the clock went round; a clock of 23 bits may also go round without a word.
"""

from pathlib import Path

import numpy as np

from spikeloom.vision.datasets.events import (
    NMNIST,
    EventFileError,
    Recording,
    checked,
    make_events,
    on_sensor,
    unwrapped,
)

OVERFLOW_Y, OVERFLOW_US = 240, 8192


def read_nmnist(path: Path) -> Recording:
    """All events. Raises EventFileError for a cut record, an event outside 34 x 34, or no event."""
    raw = np.fromfile(path, dtype=np.uint8)
    if len(raw) % 5:
        whole = len(raw) // 5 * 5
        raise EventFileError(path, whole, f"{len(raw)} bytes are not whole events of 5; copy the file again")
    rows = raw.reshape(-1, 5).astype(np.int64)
    time = (rows[:, 2] & 0x7F) << 16 | rows[:, 3] << 8 | rows[:, 4]
    marker = rows[:, 1] == OVERFLOW_Y
    time[~marker] = unwrapped(time[~marker], 23)
    time = time + OVERFLOW_US * np.cumsum(marker)
    records = make_events(time, rows[:, 0], rows[:, 1], rows[:, 2] >> 7)
    on_sensor(path, records, NMNIST, 0, 5, ~marker)
    events = checked(path, records[~marker], NMNIST, 0, 5)
    notes = {"clock overflows": f"{int(marker.sum()):,}"}
    return Recording(events=events, sensor=NMNIST, format="N-MNIST", notes=notes)
