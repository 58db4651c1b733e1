"""Pictures in tar files, read where they lie: nothing is unpacked, and only names, places and labels are in memory.

    CLASS.tar              all pictures of a class, as ImageNet's training set unpacks once
    ANY.tar                pictures as CLASS/NAME.jpg
    ANY.tar                pictures as KEY.jpg, beside each the number of its class as KEY.cls

The places are found by going through the headers once, and kept in `.spikeloom` beside the files where that can be
written. What this module does not do: compressed tar files, and tar files in tar files.
"""

import json
import logging
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from spikeloom.accel.common.files import brief, read_object, require_regular, sweep_leftovers, whole
from spikeloom.vision.datasets.images import SUFFIXES, ImageFileError, read_image
from spikeloom.vision.datasets.samples import Lazy, Samples

log = logging.getLogger("spikeloom")
AGAIN = "copy or download it again"
LONGEST_LABEL = 20  # bytes of a KEY.cls


@dataclass(frozen=True, kw_only=True)
class Shard:
    """Pictures of one tar file: names in it, classes, and int64 `[n, 2]` first byte and number of bytes of each."""

    names: list[str]
    classes: list[str]
    places: np.ndarray
    left_out: list[str]


def shards_in(folder: Path) -> list[Path]:
    """The tar files of a folder, sorted."""
    return sorted(f for f in folder.glob("*.tar") if not f.name.startswith("."))


def read_shards(folder: Path, class_names: Sequence[str] | None = None) -> Samples:
    """The pictures of all tar files in a folder, classes in the order of their names (of numbers) or of `class_names`.

    Raises ValueError for a file that is no tar file or holds no picture, for a class that is not in `class_names`, and
    when a damaged picture is read.
    """
    paths = shards_in(folder)
    shards = [_kept(path) for path in paths]
    if left := [f"{path.name}/{name}" for path, shard in zip(paths, shards, strict=True) for name in shard.left_out]:
        log.warning("%s: %d files in tar files are no pictures and are left out: %s", folder, len(left), left[0])
    found = {name for shard in shards for name in shard.classes}
    numbers = all(name.isdecimal() for name in found)
    names = tuple(class_names) if class_names is not None else tuple(sorted(found, key=int if numbers else str))
    number = {name: i for i, name in enumerate(names)}
    if unknown := sorted(found - set(names)):
        raise ValueError(f"{folder} holds pictures of {unknown[0]}, none of the classes {', '.join(names)}; remove it")
    places = np.concatenate([shard.places for shard in shards])
    of_shard = np.repeat(np.arange(len(shards)), [len(shard.names) for shard in shards])
    called = [f"{path.name}/{name}" for path, shard in zip(paths, shards, strict=True) for name in shard.names]
    return Samples(
        content=Lazy(len(called), partial(_read_picture, paths, of_shard, places)), names=called, class_names=names,
        labels=np.array([number[name] for shard in shards for name in shard.classes], dtype=np.int64),
    )  # fmt: skip


def _read_picture(paths: list[Path], of_shard: np.ndarray, places: np.ndarray, index: int) -> np.ndarray:
    path, (first, size) = paths[of_shard[index]], places[index].tolist()
    with path.open("rb") as file:
        file.seek(first)
        content = file.read(size)
    if len(content) < size:
        raise ImageFileError(f"{path}, byte {first}: cut off in a picture of {size:,} bytes; {AGAIN}")
    return read_image(path, content, f", byte {first}")


def _kept(path: Path) -> Shard:
    """The pictures of a tar file, out of the index beside it, which is made where it is missing or outdated."""
    require_regular(path, AGAIN)
    stat = path.stat()
    folder = path.parent / ".spikeloom"
    file = folder / f"{path.name}-{stat.st_size}-{stat.st_mtime_ns}.json"
    if file.is_file():
        return _indexed(file)
    shard = _scanned(path, stat.st_size)
    try:
        sweep_leftovers(folder, file.name)
        with whole(file) as partial_file:
            partial_file.write_text(json.dumps({**shard.__dict__, "places": shard.places.tolist()}), encoding="utf-8")
    except OSError as error:  # a folder that cannot be written, such as a mounted data set
        log.info("%s is gone through at every start (%s)", path, brief(error))
    return shard


def _indexed(file: Path) -> Shard:
    remedy = f"delete {file}, it will be made again"
    held = read_object(file, remedy)
    try:
        names, classes, left = ([str(text) for text in held[key]] for key in ("names", "classes", "left_out"))
        places = np.asarray(held["places"], dtype=np.int64)
        if places.shape != (len(names), 2) or len(classes) != len(names) or not names or places.min() < 0:
            raise ValueError(f"{len(names)} names, {len(classes)} classes, places {places.shape}")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{file} is damaged ({brief(error)}); {remedy}") from error
    return Shard(names=names, classes=classes, places=places, left_out=left)


def _scanned(path: Path, n_bytes: int) -> Shard:
    """The pictures of a tar file, from its headers."""
    names, places, left = list[str](), list[tuple[int, int]](), list[str]()
    numbers: dict[str, str] = {}  # key -> class number
    try:
        with tarfile.open(path, "r:") as tar, path.open("rb") as raw:
            for member in _members(tar):
                stem, _, ending = member.name.rpartition(".")
                if member.offset_data + member.size > n_bytes:
                    raise tarfile.ReadError(f"{member.name} ends beyond the file")
                if f".{ending.lower()}" in SUFFIXES:
                    names.append(member.name)
                    places.append((member.offset_data, member.size))
                elif ending == "cls" and member.size <= LONGEST_LABEL:
                    raw.seek(member.offset_data)
                    numbers[stem] = raw.read(member.size).decode("ascii", "replace").strip()
                elif ending != "json":  # of a picture, beside its class
                    left.append(member.name)
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        raise ImageFileError(f"{path}: not a whole tar file ({brief(error)}); {AGAIN}") from error
    if not names:
        raise ImageFileError(
            f"{path} holds no picture ({', '.join(SUFFIXES)}); a tar file of tar files is to be unpacked once"
        )
    classes = [_class_of(path, name, numbers) for name in names]
    return Shard(names=names, classes=classes, places=np.array(places, dtype=np.int64), left_out=left)


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The files of a tar file, one at a time: it keeps every header otherwise."""
    while (member := tar.next()) is not None:
        tar.members = []  # type: ignore[attr-defined]
        if member.isreg() and not member.issparse() and not member.name.rpartition("/")[2].startswith("."):
            yield member


def _class_of(path: Path, name: str, numbers: dict[str, str]) -> str:
    """By the number beside the picture where there are numbers, its folder, or the name of the tar file."""
    if numbers:
        found = numbers.get(name.rpartition(".")[0], "")
        if not found.isdecimal():
            raise ImageFileError(f"{path}: beside {name} lies no .cls with the number of its class; {AGAIN}")
        return str(int(found))
    folder = Path(name).parent.name
    return folder or path.stem
