"""Headers of EEG recordings, checked before a reader of somebody else opens the file: bounded time and memory.

    .edf .bdf   fixed-width fields; lengths, rates and ranges that fit each other and the file
    .vhdr       channels counted, resolutions and interval finite, the data file there
    .fif        tags walked once: no cycle, none beyond the end of the file
    .set        MATLAB 5 structure walked by `bci.zuco.matlab5`, before SciPy reads it in C

`check_header` raises ValueError naming file and place. It returns what MNE keeps for itself: the unit and the filters
of every channel as the file writes them. What this module does not do: decode samples.
"""

import math
import re
import struct
from dataclasses import dataclass, field
from pathlib import Path

COPY = "export the recording again, or copy it again"
BESIDE = "put the files of a recording beside each other"
ANNOTATIONS = ("EDF Annotations", "BDF Annotations")
FIF_LAST = -1
FIF_REF_ROLE, FIF_REF_FILE_NAME, FIF_NEXT_FILE = 115, 118, 2  # of the files of a split recording


@dataclass(frozen=True, kw_only=True)
class Header:
    """One entry a channel, in order, annotation channels left out. units: as written, empty where absent. highpass_hz:
    NaN where the header names none; all empty for formats whose headers MNE keeps whole."""

    names: tuple[str, ...] = ()
    units: tuple[str, ...] = ()
    highpass_hz: tuple[float, ...] = field(default=())


def check_header(path: Path) -> Header:
    """Raises ValueError naming the file, the place and the remedy where the header contradicts itself or the file."""
    checks = {".edf": _edf, ".bdf": _edf, ".vhdr": _brainvision, ".fif": _fif, ".set": _eeglab}
    check = checks.get(path.suffix.lower())
    if check is None:
        return Header()
    try:
        return check(path)
    except (struct.error, IndexError, OverflowError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} has a damaged header ({error}); {COPY}") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror or error}); {COPY}") from error


def _beside(path: Path, what: str, name: str) -> Path:
    """The file that a header names. It belongs to the recording, so it lies in its folder."""
    if not name or name in (".", "..") or "\0" in name or Path(name).name != name or "\\" in name:
        raise ValueError(f"{path}: its {what} is {name!r}; {BESIDE} and name them without a folder")
    return path.with_name(name)


# --- EDF and BDF ----------------------------------------------------------------------------------------------------


def _edf(path: Path) -> Header:
    size = path.stat().st_size
    with path.open("rb") as file:
        fixed = file.read(256)
        if len(fixed) < 256:
            raise ValueError(f"{path} cannot be read ({len(fixed)} bytes, a header has 256); {COPY}")
        n = _whole(path, fixed[252:256], "number of signals")
        n_header, n_records = (
            _whole(path, fixed[a:b], what)
            for a, b, what in ((184, 192, "header bytes"), (236, 244, "number of records"))
        )
        seconds = _number(path, fixed[244:252], "record duration")
        if n < 1 or n_header != 256 * (n + 1) or n_header > size:
            raise ValueError(
                f"{path}: {n} signals need a header of {256 * (n + 1)} bytes (got {n_header} of {size:,}); {COPY}"
            )
        if not 0 <= seconds < 1e6 or n_records < -1:
            raise ValueError(f"{path}: {n_records} records of {seconds:g} s are not possible; {COPY}")
        rest = file.read(256 * n)
    columns, at = {}, 0
    for name, width in (
        ("label", 16), ("transducer", 80), ("unit", 8), ("physical_min", 8), ("physical_max", 8),
        ("digital_min", 8), ("digital_max", 8), ("prefilter", 80), ("samples", 8), ("reserved", 32),
    ):  # fmt: skip
        columns[name] = [rest[at + k * width : at + (k + 1) * width] for k in range(n)]
        at += width * n
    labels = [_text(label) for label in columns["label"]]
    per_record = 0
    for k, label in enumerate(labels):
        samples = _whole(path, columns["samples"][k], f"samples per record of signal {k + 1} ({label!r})")
        if samples < 1:
            raise ValueError(f"{path}: signal {k + 1} ({label!r}) has {samples} samples per record; {COPY}")
        per_record += samples
        if label in ANNOTATIONS:
            continue
        low, high = (_number(path, columns[f"physical_{end}"][k], f"physical {end} of {label!r}") for end in _ENDS)
        first, last = (_number(path, columns[f"digital_{end}"][k], f"digital {end} of {label!r}") for end in _ENDS)
        if low == high or first == last:
            raise ValueError(
                f"{path}: signal {k + 1} ({label!r}) has the range {low:g} to {high:g} for the codes {first:g} to "
                f"{last:g}, which cannot be scaled; {COPY}"
            )
    bytes_each = 3 if path.suffix.lower() == ".bdf" else 2
    held = (size - n_header) // (per_record * bytes_each)
    if not held:
        raise ValueError(f"{path} holds no whole record of data ({size - n_header:,} bytes); {COPY}")
    if n_records > held:
        raise ValueError(f"{path} is cut short: {n_records} records in the header, {held} in the file; {COPY}")
    kept = [k for k, label in enumerate(labels) if label not in ANNOTATIONS]
    return Header(
        names=tuple(labels[k] for k in kept),
        units=tuple(_text(columns["unit"][k]) for k in kept),
        highpass_hz=tuple(_highpass(_text(columns["prefilter"][k])) for k in kept),
    )


_ENDS = ("min", "max")


def _text(raw: bytes) -> str:
    return raw.decode("latin-1").strip().strip("\0").strip()


def _number(path: Path, raw: bytes, what: str) -> float:
    try:
        value = float(_text(raw).replace(",", "."))
    except ValueError:
        raise ValueError(f"{path}: the {what} is {_text(raw)[:20]!r}, not a number; {COPY}") from None
    if not math.isfinite(value):
        raise ValueError(f"{path}: the {what} is {value}; {COPY}")
    return value


def _whole(path: Path, raw: bytes, what: str) -> int:
    value = _number(path, raw, what)
    if value != int(value):
        raise ValueError(f"{path}: the {what} is {value:g}, not a whole number; {COPY}")
    return int(value)


def _highpass(prefilter: str) -> float:
    """Hz of `HP:0.1Hz LP:75Hz`; NaN where there is none."""
    found = re.search(r"HP:?\s*(DC|[0-9.,]+)", prefilter, re.IGNORECASE)
    if found is None:
        return float("nan")
    try:
        return 0.0 if found[1].upper() == "DC" else float(found[1].replace(",", "."))
    except ValueError:
        return float("nan")


# --- BrainVision ----------------------------------------------------------------------------------------------------


def _brainvision(path: Path) -> Header:
    raw = path.read_bytes()
    if len(raw) > 1 << 24:
        raise ValueError(f"{path} has {len(raw):,} bytes, too many for a header; {COPY}")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    common = dict(
        re.findall(r"^(DataFile|MarkerFile|NumberOfChannels|SamplingInterval)\s*=\s*(.*?)\s*$", text, re.MULTILINE)
    )
    if absent := [key for key in ("DataFile", "NumberOfChannels", "SamplingInterval") if not common.get(key)]:
        raise ValueError(f"{path} has no {absent[0]}; use the .vhdr that BrainVision Recorder or Analyzer wrote")
    interval = _number(path, common["SamplingInterval"].encode(), "SamplingInterval")
    n = _whole(path, common["NumberOfChannels"].encode(), "NumberOfChannels")
    if interval <= 0:
        raise ValueError(f"{path}: the SamplingInterval is {interval:g} µs; {COPY}")
    body = text.split("[Channel Infos]", 1)[-1].split("\n[", 1)[0]
    channels = re.findall(r"^Ch(\d+)\s*=\s*(.*?)\s*$", body, re.MULTILINE)
    if n < 1 or [int(number) for number, _ in channels] != list(range(1, n + 1)):
        raise ValueError(f"{path}: {n} channels are announced, {len(channels)} are described; {COPY}")
    names, units = [], []
    for _, line in channels:
        name, _, resolution, unit = [*line.split(","), "", "", ""][:4]
        if resolution.strip() and not _number(path, resolution.encode(), f"resolution of {name!r}"):
            raise ValueError(f"{path}: the resolution of {name!r} is 0; {COPY}")
        names.append(name.replace("\\1", ","))
        units.append(unit.strip().replace("\xc2", ""))
    data = _beside(path, "DataFile", common["DataFile"].replace("$b", path.stem))
    if not data.is_file():
        raise ValueError(f"{data} is missing, the data of {path}; {BESIDE}")
    if not data.stat().st_size:
        raise ValueError(f"{data} is empty, the data of {path}; {COPY}")
    if common.get("MarkerFile"):  # without it a recording is read, but its events are lost
        markers = _beside(path, "MarkerFile", common["MarkerFile"].replace("$b", path.stem))
        if not markers.is_file() and not path.with_suffix(".vmrk").is_file():
            raise ValueError(f"{markers} is missing, the events of {path}; {BESIDE}, or delete the line MarkerFile")
    return Header(names=tuple(names), units=tuple(units))


# --- FIF ------------------------------------------------------------------------------------------------------------


def _fif(path: Path) -> Header:
    """Of a recording that was split, every file."""
    passed, file = [path.name], path
    while (following := _fif_tags(file)) is not None:
        if following.name in passed:
            raise ValueError(f"{file}: its next file, {following.name}, leads back to it; {COPY}")
        if not following.is_file():
            raise ValueError(f"{following} is missing, in which {file} goes on; {BESIDE}")
        passed.append(following.name)
        file = following
    return Header()


def _fif_tags(path: Path) -> Path | None:
    """Follow the tags of a file to its end: the file that the recording goes on in, if there is one."""
    size, at, seen = path.stat().st_size, 0, set[int]()
    role, goes_on = 0, None
    with path.open("rb") as file:
        while at + 16 <= size:
            if at in seen:
                raise ValueError(f"{path}: the tag at byte {at} leads back to itself; {COPY}")
            seen.add(at)
            file.seek(at)
            kind, _, n_bytes, following = struct.unpack(">iiii", file.read(16))
            if at == 0 and kind != 100:
                raise ValueError(f"{path} does not begin as a FIF file (tag {kind}, not 100); {COPY}")
            if n_bytes < 0 or at + 16 + n_bytes > size:
                raise ValueError(
                    f"{path} is cut short: the tag {kind} at byte {at} has {n_bytes:,} bytes, {size - at - 16:,} are "
                    f"left; {COPY}"
                )
            if kind == FIF_REF_ROLE and n_bytes == 4:
                (role,) = struct.unpack(">i", file.read(4))
            if kind == FIF_REF_FILE_NAME and role == FIF_NEXT_FILE:
                goes_on = _beside(path, "next file", file.read(n_bytes).decode("utf-8", "replace"))
            if following == FIF_LAST:
                return goes_on
            if following < 0 or following > size:
                raise ValueError(f"{path}: the tag at byte {at} leads to byte {following} of {size}; {COPY}")
            at = following or at + 16 + n_bytes
    if at != size or not size:
        raise ValueError(f"{path} ends inside a tag at byte {at} of {size}; {COPY}")
    return goes_on


# --- EEGLAB ---------------------------------------------------------------------------------------------------------


def _eeglab(path: Path) -> Header:
    from spikeloom.bci.zuco import matlab5
    from spikeloom.bci.zuco.reader import file_format

    if file_format(path) == "matlab5":
        matlab5.check(path)
    return Header()
