"""Events as tables of numbers: .npy and .npz arrays, and HDF5 files laid out as DSEC, Metavision and others write them.

Wanted are columns t, x, y, p: fields of a structured array, arrays of a group (also ts, xs, ys, ps or timestamp,
polarity, pol), or the columns of one array `[n, 4]` in the order t, x, y, p or x, y, t, p, time being the larger of the
first and third. Times that are whole numbers are microseconds; fractions are seconds. HDF5 `t_offset` is added. A table
names its sensor in the attributes of the file, or not at all.
"""

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from spikeloom.accel.common.hdf5 import require_own_data
from spikeloom.vision.datasets.events import (
    EventFileError,
    Recording,
    checked,
    checked_sensor,
    guessed_sensor,
    make_events,
)

TABLES = (".npy", ".npz", ".h5", ".hdf5")
NAMES = {
    "t": ("t", "ts", "timestamp", "timestamps", "time"), "x": ("x", "xs"), "y": ("y", "ys"),
    "p": ("p", "ps", "polarity", "polarities", "pol"),
}  # fmt: skip
GROUPS = ("events", "CD/events", "prophesee/left/events", "davis/left/events", "")  # of HDF5, in the order of a search
RATIO, SPARE = 100, 2**26  # bytes an archive or a chunked file may unpack to: RATIO times its size, and SPARE
SECONDS_LONGEST = 10**7  # beyond, times with fractions cannot be seconds


def read_table(path: Path) -> Recording:
    """All events of a table. Raises EventFileError."""
    try:
        read: dict[str, Callable[[Path], tuple[Any, tuple[int, int] | None, int]]] = {".npy": _npy, ".npz": _npz}
        held, sensor, offset = read.get(path.suffix.lower(), _hdf5)(path)
        columns = _columns(path, held)
    except EventFileError:
        raise
    except Exception as error:  # NumPy, zipfile and h5py raise whatever a damaged file leads them to
        reason = str(error).partition("\n")[0][:200] or type(error).__name__
        raise EventFileError(path, 0, f"no readable table ({reason}); copy the file again") from error
    t = _microseconds(path, columns["t"]) + offset
    for axis in ("x", "y"):
        column = columns[axis]
        if len(column) and (column.min() < 0 or column.max() > 65535 or (column != np.floor(column)).any()):
            low, high = column.min(), column.max()
            raise EventFileError(path, 0, f"{axis} from {low} to {high} are no pixels; give whole numbers from 0")
    p = columns["p"]
    if (wrong := (p != 0) & (p != 1) & (p != -1)).any():
        raise EventFileError(path, 0, f"polarities such as {p[wrong][0]}; give 0 and 1, or -1 and 1")
    events = make_events(t, columns["x"], columns["y"], p > 0)
    known = sensor is not None
    size = sensor or guessed_sensor(path, events)
    return Recording(
        events=checked(path, events, size, 0, 0), sensor=size, format=f"table {path.suffix.lower()}", notes={},
        sensor_known=known,
    )  # fmt: skip


def _microseconds(path: Path, t: np.ndarray) -> np.ndarray:
    if t.dtype.kind != "f":
        return t.astype(np.int64)
    if not np.isfinite(t).all():
        raise EventFileError(path, 0, "times hold NaN or infinity; give microseconds as whole numbers")
    if (t == np.floor(t)).all():
        return t.astype(np.int64)
    if len(t) and float(t.max() - t.min()) > SECONDS_LONGEST:
        raise EventFileError(path, 0, f"times span {t.max() - t.min():,.0f}, fractions are seconds; give microseconds")
    micros: np.ndarray = np.round(t * 1e6).astype(np.int64)
    return micros


def _columns(path: Path, held: Any) -> dict[str, np.ndarray]:
    """t, x, y, p of a structured array, a mapping of arrays, or an array [n, 4] or [4, n]."""
    names = held.dtype.names if isinstance(held, np.ndarray) else tuple(held) if isinstance(held, Mapping) else None
    if names is None:
        return _of_matrix(path, np.asarray(held))
    lower = {name.lower(): name for name in names}
    found = {key: next((lower[a] for a in also if a in lower), None) for key, also in NAMES.items()}
    if lacking := [key for key, name in found.items() if name is None]:
        raise EventFileError(
            path, 0, f"no column {', '.join(lacking)} among {', '.join(names)[:200]}; name them t x y p"
        )
    columns = {key: np.asarray(held[name]).reshape(-1) for key, name in found.items()}
    lengths = {key: len(column) for key, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise EventFileError(path, 0, f"columns of different lengths, {lengths}; copy the file again")
    if text := [key for key, column in columns.items() if column.dtype.kind not in "iufb"]:
        raise EventFileError(path, 0, f"column {text[0]} holds no numbers ({columns[text[0]].dtype}); give numbers")
    return columns


def _of_matrix(path: Path, held: np.ndarray) -> dict[str, np.ndarray]:
    if held.dtype.kind not in "iuf" or held.ndim != 2 or 4 not in held.shape:
        raise EventFileError(
            path, 0, f"an array of {held.dtype} {held.shape} is no table of events; give columns t, x, y, p"
        )
    table = held if held.shape[1] == 4 else held.T
    if not len(table):
        return dict.fromkeys("txyp", table[:, 0])
    order = "txyp" if table[:, 0].max() >= table[:, 2].max() else "xytp"
    if not np.isin(table[:, 3], (-1, 0, 1)).all():
        raise EventFileError(
            path, 0, "the last of 4 columns holds no polarities; give columns t, x, y, p in this order"
        )
    return {key: table[:, order.index(key)] for key in "txyp"}


def _npy(path: Path) -> tuple[Any, None, int]:
    return np.load(path, mmap_mode="r", allow_pickle=False), None, 0  # a map is as long as the file, or an error


def _npz(path: Path) -> tuple[Any, None, int]:
    held = {}  # name -> array
    with zipfile.ZipFile(path) as archive:
        members = [m for m in archive.infolist() if m.filename.endswith(".npy")]
        _allow(path, sum(m.file_size for m in members))
        for member in members:
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                reader = (
                    np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                )
                shape, _, dtype = reader(file)
                if int(np.prod([int(n) for n in shape], dtype=object)) * dtype.itemsize > member.file_size:
                    raise ValueError(f"{member.filename} promises {shape} of {dtype}, more than it holds")
            with archive.open(member) as file:
                held[member.filename.removesuffix(".npy")] = np.lib.format.read_array(file, allow_pickle=False)
    return (next(iter(held.values())) if len(held) == 1 else held), None, 0


def _hdf5(path: Path) -> tuple[Any, tuple[int, int] | None, int]:
    import h5py

    with h5py.File(path, "r") as file:
        require_own_data(path, file)
        place = next((file[name] if name else file for name in GROUPS if not name or name in file), file)
        sensor = _sensor(path, {**file.attrs, **place.attrs})
        offset = int(file["t_offset"][()]) if "t_offset" in file else 0
        if isinstance(place, h5py.Dataset):
            _allow(path, place.nbytes)
            return place[()], sensor, offset
        datasets = {name: item for name, item in place.items() if isinstance(item, h5py.Dataset) and item.ndim == 1}
        wanted = {n: d for n, d in datasets.items() if any(n.lower() in also for also in NAMES.values())}
        _allow(path, sum(d.nbytes for d in wanted.values()))
        return {name: item[()] for name, item in wanted.items()}, sensor, offset


def _sensor(path: Path, attributes: Mapping[str, Any]) -> tuple[int, int] | None:
    size = attributes.get("sensor_resolution")
    if size is not None and np.size(size) == 2:
        height, width = (int(n) for n in np.ravel(size))
        return checked_sensor(path, 0, height, width)
    if "height" in attributes and "width" in attributes:
        return checked_sensor(path, 0, int(attributes["height"]), int(attributes["width"]))
    if isinstance(attributes.get("geometry"), str) and attributes["geometry"].count("x") == 1:
        width, height = (int(n) for n in attributes["geometry"].split("x"))
        return checked_sensor(path, 0, height, width)
    return None


def _allow(path: Path, promised: int) -> None:
    if promised > RATIO * path.stat().st_size + SPARE:
        raise EventFileError(
            path, 0, f"{promised:,} bytes are promised in a file of {path.stat().st_size:,}; copy the file again"
        )
