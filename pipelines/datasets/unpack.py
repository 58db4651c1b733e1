"""Zip and tar archives, unpacked next to where they will lie and moved there whole.

An archive comes from the network: a member that leads out of the folder, a link, a device, or more data than the packed
size can hold is refused before anything is in its place.
"""

import errno
import lzma
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from spikeloom.accel.common.files import brief, require_regular, sweep_partials
from spikeloom.accel.common.units import size_text
from spikeloom.pipelines.datasets.download import need_space

MOST_TIMES_LARGER = 100  # than the archive: deflate reaches 1,000, recordings and pictures less than 10
MOST_MEMBERS = 1_000_000
OF_THE_PACKER = ("__MACOSX", ".DS_Store")  # what a file manager adds to an archive


class Unpacked(NamedTuple):
    """Files of an archive, and the names in the folder that hold them."""

    n_files: int
    n_bytes: int
    names: list[str]


def unpack(archive: Path, folder: Path, *, strip: int = 0, only: str = "") -> Unpacked:
    """Unpack a zip or tar (plain, gz, bz2, xz) into `folder`.

    Args:
        archive: the file.
        folder: where its members go; what is there stays.
        strip: leading folders of each member to leave out.
        only: beginning of the members wanted, once stripped; empty: all of them.

    Returns:
        How many files and bytes, and the names in `folder` that hold them.

    Raises:
        ValueError: for a damaged archive, a member that leads elsewhere or is no file, or a name that is taken.
    """
    require_regular(archive, "fetch it again")
    limit = max(MOST_TIMES_LARGER * archive.stat().st_size, 1 << 20)
    n_files = n_bytes = 0
    try:
        sweep_partials(folder)
        with (
            tempfile.TemporaryDirectory(dir=folder, prefix=".", suffix=".partial") as aside,
            _members(archive) as members,
        ):
            partial = Path(aside)
            for name, size, content in members:
                target = _inside(archive, name, strip)
                if target is None or not str(target).startswith(only) or target.parts[0] in OF_THE_PACKER:
                    continue
                n_files, n_bytes = n_files + 1, n_bytes + size
                if n_bytes > limit or n_files > MOST_MEMBERS:
                    raise ValueError(
                        f"{archive} unpacks to more than {size_text(limit)} or {MOST_MEMBERS:,} files, which no data "
                        "set of its size does; delete it"
                    )
                place = partial / target
                place.parent.mkdir(parents=True, exist_ok=True)
                if n_files % 1000 == 1:
                    need_space(folder, size, f"what {archive.name} holds")
                with place.open("xb") as file:
                    shutil.copyfileobj(content, file)
                if place.stat().st_size != size:
                    raise ValueError(f"{archive}: {name} has another size than the archive states; fetch it again")
            names = sorted(place.name for place in partial.iterdir())
            if not names:
                raise ValueError(f"{archive} holds no file{f' below {only}' if only else ''}; fetch it again")
            if taken := [name for name in names if (folder / name).exists()]:
                raise ValueError(f"{folder / taken[0]} is there already; move it away, {archive.name} brings its own")
            for name in names:
                (partial / name).replace(folder / name)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, OSError, RuntimeError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC:
            raise ValueError(f"{folder}: no space left to unpack {archive.name}; make room") from error
        raise ValueError(f"{archive} cannot be unpacked ({brief(error)}); delete it and fetch it again") from error
    return Unpacked(n_files, n_bytes, names)


def _inside(archive: Path, name: str, strip: int) -> PurePosixPath | None:
    """Where a member belongs, or None for one that `strip` leaves out. Raises ValueError for one that leads out."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or "\0" in name or not path.parts:
        raise ValueError(
            f"{archive}: the member {name!r} leads out of the folder; delete the archive, nothing was kept"
        )
    parts = path.parts[strip:]
    return PurePosixPath(*parts) if parts else None


@contextmanager
def _members(archive: Path) -> Iterator[Iterator[tuple[str, int, IO[bytes]]]]:
    """Name, size and content of every file in the archive. Raises ValueError for links and devices."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            yield _of_zip(archive, packed)
    else:
        with tarfile.open(archive) as tar:
            yield _of_tar(archive, tar)


def _of_zip(archive: Path, packed: zipfile.ZipFile) -> Iterator[tuple[str, int, IO[bytes]]]:
    for info in packed.infolist():
        kind = info.external_attr >> 28
        if kind not in (0, 0o4, 0o10):  # of Unix: none given, folder, file
            raise ValueError(
                f"{archive}: {info.filename!r} is a link or a device; delete the archive, nothing was kept"
            )
        # orig_filename: ZipFile cuts names at a NUL and turns separators, and what is checked is what is there.
        if info.is_dir():
            continue
        with packed.open(info) as content:
            yield info.orig_filename, info.file_size, content


def _of_tar(archive: Path, tar: tarfile.TarFile) -> Iterator[tuple[str, int, IO[bytes]]]:
    for member in tar:
        if member.isdir():
            continue
        content = tar.extractfile(member) if member.isreg() else None
        if content is None:
            raise ValueError(f"{archive}: {member.name!r} is a link or a device; delete the archive, nothing was kept")
        yield member.name, member.size, content
