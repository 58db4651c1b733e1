"""One HDF5 file of spoken clips as spikes, in the layout of the Heidelberg data sets, read clip by clip.

    spikes/times   n ragged rows of seconds (float16 as published)     labels         n class indices
    spikes/units   n ragged rows of units, 0 = highest frequency       extra/speaker  n speaker numbers
    extra/keys     class names           extra/speaker_names, extra/names   optional: names of speakers and clips

Labels and speakers are read whole, spikes when a clip is indexed. Times become float64 before anything scales them: a
float16 counts whole milliseconds only up to 2,048, and a second in microseconds overflows it. A clip that spans
minutes, a hundred spikes within a millisecond or at whole numbers, was not written in seconds and is refused.

A file may come from anywhere: fields that lie in other files (external links, external raw storage, virtual data sets)
are refused, and nothing is read whose size the file cannot hold. What this module does not do: download, unpack, or
make frames.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from spikeloom.accel.common.bounded import try_first
from spikeloom.speech.datasets.clips import LazySequence
from spikeloom.speech.datasets.spike_fields import AGAIN, FIELDS, OPTIONAL, stored
from spikeloom.speech.datasets.spike_trains import Events, SpikeTrains

N_UNITS = 700
SITE = "https://zenkelab.org/datasets"
LONGEST_S = 60.0  # of a clip of spoken words; times in milliseconds make 0.06 s longer
SHORTEST_S, MANY = 1e-3, 100  # so many spikes take longer than that
PROBED = 256  # clips of a file whose spans are checked before a training
FAULTS = (OSError, RuntimeError, ValueError, TypeError, KeyError, OverflowError, MemoryError, UnicodeDecodeError)


class SpikeFile(LazySequence[Events]):
    """The clips of one HDF5 file. Every process opens the file for itself when it first reads a clip.

    Reading raises `ValueError`, naming file and clip, for rows that differ in length, times that are not finite or not
    in seconds, units outside 0..n_units-1, and for a file damaged at that place.
    """

    def __init__(self, path: Path, n_clips: int, n_units: int = N_UNITS) -> None:
        self.path = path
        self.n_clips = n_clips
        self.n_units = n_units
        self._opened: tuple[int, Any, Any, Any] | None = None  # process id, file, times, units

    def __len__(self) -> int:
        return self.n_clips

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}  # a handle means nothing in another process

    def read(self, index: int) -> Events:
        try:
            times, units = self.rows()
            events = Events(np.asarray(times[index], dtype=np.float64), np.asarray(units[index], dtype=np.int64))
        except FAULTS as error:
            raise ValueError(f"{self.path}: clip {index} cannot be read ({_line(error)}); {AGAIN}") from error
        if events.times_s.shape != events.units.shape:
            raise ValueError(
                f"{self.path}: clip {index} has {events.times_s.size} times and {events.units.size} units; {AGAIN}"
            )
        if not np.isfinite(events.times_s).all():
            raise ValueError(f"{self.path}: clip {index} holds times that are NaN or infinite; {AGAIN}")
        if events.units.size and (events.units.min() < 0 or events.units.max() >= self.n_units):
            raise ValueError(
                f"{self.path}: clip {index} has units {events.units.min()}..{events.units.max()}; "
                f"use 0..{self.n_units - 1}"
            )
        self.require_seconds(index, events.times_s)
        return events

    def require_seconds(self, index: int, times_s: np.ndarray) -> None:
        span_s = float(np.ptp(times_s)) if times_s.size else 0.0
        if span_s > LONGEST_S:
            raise ValueError(
                f"{self.path}: clip {index} spans {span_s:,.6g} s (seconds expected, at most {LONGEST_S:g}); divide "
                "times in milliseconds by 1,000, in microseconds by 1,000,000, or remove a stray spike"
            )
        if times_s.size >= MANY and span_s < SHORTEST_S:
            raise ValueError(
                f"{self.path}: clip {index} has {times_s.size} spikes within {1000 * span_s:.3g} ms (seconds "
                "expected); write the times again in seconds"
            )
        if times_s.size >= MANY and span_s > 1 and not (times_s % 1).any():
            raise ValueError(
                f"{self.path}: clip {index} has whole numbers as times, to {times_s.max():g} (seconds expected); "
                "multiply numbers of frames by their length, divide milliseconds by 1,000"
            )

    def rows(self) -> tuple[Any, Any]:
        """The data sets of times and units, opened in this process."""
        if self._opened is None or self._opened[0] != os.getpid():
            if self._opened is not None:
                # Inherited by a fork: while it is open, HDF5 answers a second opening with the same descriptor, and
                # with it a file position shared with the parent.
                self._opened[1].close()
            file = _open(self.path)
            self._opened = (os.getpid(), file, file["spikes/times"], file["spikes/units"])
        return self._opened[2:]


def read_spike_file(path: str | Path) -> SpikeTrains:
    """The clips of one HDF5 file in the published layout, spikes unread.

    Raises `FileNotFoundError` saying where to get a missing file, and `ValueError` for one that is compressed, damaged,
    without a field, or whose fields disagree.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}; give an HDF5 file in the layout of {SITE}")
    if path.suffix in (".gz", ".zip"):
        raise ValueError(f"{path} is compressed; unzip it and give the .h5 file")
    try_first(path, "spikeloom.speech.datasets.spike_fields:read_through", AGAIN)
    with _open(path) as file:
        try:
            clips = _fields(path, file)
        except ValueError:
            raise
        except FAULTS as error:
            raise ValueError(f"{path}: not readable as spikes in HDF5 ({_line(error)}); {AGAIN}") from error
    return clips


def check_spans(clips: SpikeTrains) -> SpikeTrains:
    """The same clips, after the times of some were read, evenly spread: a wrong unit is known before a training, not
    when the test set is scored. Raises `ValueError` naming file and clip; other faults when a clip is read."""
    file = clips.events
    assert isinstance(file, SpikeFile)
    for index in np.unique(np.linspace(0, len(clips) - 1, PROBED).astype(int)).tolist():
        try:
            times_s = np.asarray(file.rows()[0][index], dtype=np.float64)
        except FAULTS:
            continue
        if np.isfinite(times_s).all():
            file.require_seconds(index, times_s)
    return clips


def _fields(path: Path, file: Any) -> SpikeTrains:
    import h5py

    found = {name: stored(path, file, name) for name in (*FIELDS, *OPTIONAL)}
    missing = [name for name in FIELDS if found[name] is None]
    if missing:
        raise ValueError(f"{path}: no field {', '.join(missing)}; use a file in the layout of {SITE}")
    flat = [name for name in FIELDS[:2] if h5py.check_vlen_dtype(file[name].dtype) is None]
    if flat:
        raise ValueError(f"{path}: {' and '.join(flat)} must hold one ragged row per clip; write the file again")
    for name in FIELDS[:2]:
        _require_rows_that_fit(path, file[name])
    sizes = {name: len(file[name]) for name in FIELDS[:4]}
    if len(set(sizes.values())) != 1:
        sizes_found = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise ValueError(f"{path}: fields differ in length ({sizes_found}); {AGAIN}")
    try:
        labels = np.asarray(file["labels"][:], dtype=np.int64)
        speaker_ids = np.asarray(file["extra/speaker"][:], dtype=np.int64)
        class_names = tuple(_texts(file["extra/keys"]))
        called = _texts(file["extra/speaker_names"]) if found["extra/speaker_names"] is not None else None
        names = _texts(file["extra/names"]) if found["extra/names"] is not None else None
    except FAULTS as error:
        raise ValueError(f"{path}: labels or speakers cannot be read ({_line(error)}); {AGAIN}") from error
    if called is not None and not set(speaker_ids.tolist()) <= set(range(len(called))):
        raise ValueError(
            f"{path}: extra/speaker spans {speaker_ids.min()}..{speaker_ids.max()} for {len(called)} "
            "extra/speaker_names; write the file again"
        )
    try:
        return SpikeTrains(
            events=SpikeFile(path, len(labels)),
            labels=labels,
            speakers=[str(i) if called is None else called[i] for i in speaker_ids],
            names=[f"{path.stem}/{i}" for i in range(len(labels))] if names is None else names,
            class_names=class_names,
            n_units=N_UNITS,
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _require_rows_that_fit(path: Path, rows: Any) -> None:
    """Raise `ValueError` for a ragged row longer than its file: HDF5 would allocate what a damaged length claims.

    A row lies somewhere else in the file, uncompressed, and is found by 16 bytes: length (uint32), address, index. Of
    compressed references, which nobody publishes, the lengths are not looked at.
    """
    offset = rows.id.get_offset()
    if offset is None or not len(rows):
        return
    with path.open("rb") as raw:
        raw.seek(offset)
        references = np.frombuffer(raw.read(16 * len(rows)), dtype=np.dtype([("n", "<u4"), ("place", "V12")]))
    import h5py

    longest = int(references["n"].max(initial=0)) * h5py.check_vlen_dtype(rows.dtype).itemsize
    if longest > path.stat().st_size:
        raise ValueError(f"{path}: {rows.name} claims a row of {longest:,} bytes, more than the file has; {AGAIN}")


def _line(error: BaseException) -> str:
    """The first line of a library's message."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _texts(dataset: Any) -> list[str]:
    return [text.decode() if isinstance(text, bytes) else str(text) for text in dataset[:]]


def _open(path: Path) -> Any:
    import h5py

    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path}: not a whole HDF5 file ({_line(error)}); {AGAIN}") from error
