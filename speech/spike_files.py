"""One HDF5 file of spoken clips as spikes, in the layout of the Heidelberg data sets, read clip by clip.

    spikes/times   n ragged rows of seconds (float16 as published)     labels         n class indices
    spikes/units   n ragged rows of units, 0 = highest frequency       extra/speaker  n speaker numbers
    extra/keys     class names           extra/speaker_names, extra/names   optional: names of speakers and clips

Labels and speakers are read whole, spikes when a clip is indexed. Times become float64 before anything scales them: a
float16 counts whole milliseconds only up to 2,048, and a second in microseconds overflows it. What this module does not
do: download, unpack, or make frames.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from speech.clips import LazySequence
from speech.spike_trains import Events, SpikeTrains

N_UNITS = 700
FIELDS = ("spikes/times", "spikes/units", "labels", "extra/speaker", "extra/keys")
SITE = "https://zenkelab.org/datasets"
AGAIN = "copy or download it again"


class SpikeFile(LazySequence[Events]):
    """The clips of one HDF5 file. Every process opens the file for itself when it first reads a clip.

    Reading raises `ValueError`, naming file and clip, for rows that differ in length, times that are not finite, units
    outside 0..n_units-1, and for a file damaged at that place.
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
        times, units = self._rows()
        try:
            events = Events(np.asarray(times[index], dtype=np.float64), np.asarray(units[index], dtype=np.int64))
        except (OSError, RuntimeError, ValueError, TypeError) as error:
            raise ValueError(f"{self.path}: clip {index} cannot be read ({error}); {AGAIN}") from error
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
        return events

    def _rows(self) -> tuple[Any, Any]:
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
    with _open(path) as file:
        return _fields(path, file)


def _fields(path: Path, file: Any) -> SpikeTrains:
    import h5py

    missing = [name for name in FIELDS if not isinstance(file.get(name), h5py.Dataset)]
    if missing:
        raise ValueError(f"{path}: no field {', '.join(missing)}; use a file in the layout of {SITE}")
    flat = [name for name in FIELDS[:2] if h5py.check_vlen_dtype(file[name].dtype) is None]
    if flat:
        raise ValueError(f"{path}: {' and '.join(flat)} must hold one ragged row per clip; write the file again")
    sizes = {name: len(file[name]) for name in FIELDS[:4]}
    if len(set(sizes.values())) != 1:
        found = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise ValueError(f"{path}: fields differ in length ({found}); {AGAIN}")
    try:
        labels = np.asarray(file["labels"][:], dtype=np.int64)
        speaker_ids = np.asarray(file["extra/speaker"][:], dtype=np.int64)
        class_names = tuple(_texts(file["extra/keys"]))
        called = _texts(file["extra/speaker_names"]) if "extra/speaker_names" in file else None
        names = _texts(file["extra/names"]) if "extra/names" in file else None
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise ValueError(f"{path}: labels or speakers cannot be read ({error}); {AGAIN}") from error
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


def _texts(dataset: Any) -> list[str]:
    return [text.decode() if isinstance(text, bytes) else str(text) for text in dataset[:]]


def _open(path: Path) -> Any:
    import h5py

    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path}: not a whole HDF5 file ({error}); {AGAIN}") from error
