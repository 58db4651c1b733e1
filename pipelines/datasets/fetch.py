"""`spikeloom data fetch dataset=NAME`: a public data set into its folder; `spikeloom data list`: which are there.

    fetched.json    in the folder of a data set: its files with size, checksum and date, and the accepted licence

A second call compares with that file and fetches nothing.
"""

import logging
import os
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pooch

from spikeloom.accel.common.files import contents, read_object, write_json
from spikeloom.accel.common.units import size_text
from spikeloom.pipelines.config.data import DataConfig
from spikeloom.pipelines.config.words import suggest
from spikeloom.pipelines.datasets.download import fetch_file, need_space, verify
from spikeloom.pipelines.datasets.osf import zuco_files
from spikeloom.pipelines.datasets.sources import SOURCES, RemoteFile, Source
from spikeloom.pipelines.datasets.unpack import unpack

log = logging.getLogger("spikeloom")
MANIFEST = "fetched.json"
UNPACKED_TIMES = 3  # about how much of the disk an archive takes with what it holds, in its own sizes


def run(config: DataConfig, folder_of: Callable[[str], Path]) -> None:
    """Fetch what the configuration names. `folder_of`: where a data set is read."""
    source = source_of(config.dataset)
    folder = Path(config.root) if config.root else folder_of(config.dataset)
    files = zuco_files(config.tasks, config.readers) if source.osf else source.files
    fetch(config.dataset, source, files, folder, accept_license=config.accept_license)


def source_of(dataset: str) -> Source:
    """Where a data set comes from. Raises ValueError for one that is not known here."""
    if dataset not in SOURCES:
        raise ValueError(
            f"dataset={dataset} cannot be fetched{suggest(dataset, SOURCES)}; use one of {', '.join(SOURCES)} "
            "(`spikeloom data list` shows them)"
        )
    source = SOURCES[dataset]
    return SOURCES[source.same_as] if source.same_as else source


def fetch(dataset: str, source: Source, files: Sequence[RemoteFile], folder: Path, *, accept_license: bool) -> int:
    """Fetch, check and unpack the files of a data set that are not there.

    Args:
        dataset: its name, for messages.
        source: licence and origin.
        files: of `source`, or those that it lists.
        folder: where they go.
        accept_license: whether the user accepts `source.licence`.

    Returns:
        Number of files fetched; 0 where all were there.

    Raises:
        ValueError: without the acceptance, for files without a direct link (with the steps), a wrong checksum, an
            archive that is refused, or too small a disk.
        ConnectionError: without a connection.
    """
    manifest = _manifest(folder)
    missing = [file for file in files if not _there(folder, manifest, file)]
    if files and not missing:
        log.info("%s is in %s (%s, fetched %s)", dataset, folder, _files(len(files)), _when(manifest, files))
        return 0
    if not files:
        raise ValueError(f"{dataset} has no direct link; {source.steps}: {source.home}, into {folder}")
    log.info("%s\n  from     %s\n  licence  %s\n  to       %s", source.title, source.home, source.licence, folder)
    by_hand = [file for file in missing if file.url is None and not (folder / file.name).is_file()]
    if by_hand:
        raise ValueError(
            f"{by_hand[0].name} of {dataset} has no direct link; {source.steps}, get it from {source.home}, put it at "
            f"{folder / by_hand[0].name}, and run this command again: it checks ({by_hand[0].checksum}) and unpacks it"
        )
    sizes = [_left(folder, file) for file in missing]
    known = sum(size for size in sizes if size is not None)
    about = f"{'at least ' if None in sizes else ''}{size_text(known)}" if known else "size not published"
    if not accept_license:
        raise ValueError(
            f"{dataset}: {_files(len(missing))}, {about}, licence: {source.licence} ({source.home}); if you accept it, "
            "run this command again with accept_license=true"
        )
    unpacked = sum((UNPACKED_TIMES - 1) * (file.n_bytes or 0) for file in missing if file.unpack)
    need_space(folder, known + unpacked, dataset)
    for number, file in enumerate(missing, 1):
        log.info("%d of %d: %s", number, len(missing), file.name)
        if file.url is None:
            verify(folder / file.name, file)
        else:
            fetch_file(file, folder)
        manifest["files"][file.name] = _kept(folder, file)
        manifest |= {"dataset": dataset, "licence": source.licence, "home": source.home}
        write_json(folder / MANIFEST, manifest)
    log.info("-> %s; `spikeloom data check dataset=%s` reads all of it", folder, dataset)
    return len(missing)


def _kept(folder: Path, file: RemoteFile) -> dict[str, Any]:
    """The entry of a file that has arrived; archives are unpacked and removed."""
    path = folder / file.name
    n_bytes = path.stat().st_size
    sha256 = pooch.file_hash(str(path), alg="sha256")
    entry: dict[str, Any] = {
        "url": file.url, "bytes": n_bytes, "sha256": sha256, "fetched": date.today().isoformat(),
        "checksum": f"{file.checksum} as published" if file.checksum else "recorded at first download",
    }  # fmt: skip
    if not file.checksum:
        log.info("  no checksum is published; recorded at first download: sha256 %s", sha256)
    if file.unpack:
        found = unpack(path, folder, strip=file.strip, only=file.only)
        log.info("  unpacked %s files, %s", f"{found.n_files:,}", size_text(found.n_bytes))
        entry |= {"unpacked": found.names, "unpacked_files": found.n_files}
        path.unlink()
    return entry


def _manifest(folder: Path) -> dict[str, Any]:
    """fetched.json of a folder, or an empty one. Raises ValueError for a damaged one."""
    path, anew = folder / MANIFEST, "delete it to fetch again"
    found = read_object(path, anew) if path.is_file() else {"files": {}}
    with contents(path, anew):
        for entry in found["files"].values():
            int(entry["bytes"]), str(entry["fetched"])
            for name in entry.get("unpacked", []):
                if Path(name).name != name or not name.isprintable():
                    raise ValueError(f"{name!r} is no name of a file")
    return found


def _there(folder: Path, manifest: dict[str, Any], file: RemoteFile) -> bool:
    """Whether a file was fetched before and lies where it was put."""
    entry = manifest["files"].get(file.name)
    if not isinstance(entry, dict):
        return False
    if "unpacked" in entry:
        return all((folder / name).exists() for name in entry["unpacked"])
    path = folder / file.name
    return path.is_file() and path.stat().st_size == entry["bytes"]


def _left(folder: Path, file: RemoteFile) -> int | None:
    """Bytes still to fetch, where the size is known."""
    if (folder / file.name).is_file():
        return 0
    part = folder / f".{file.name}.part"
    return None if file.n_bytes is None else file.n_bytes - (part.stat().st_size if part.is_file() else 0)


def _files(n: int) -> str:
    return f"{n} file{'s' if n != 1 else ''}"


def _when(manifest: dict[str, Any], files: Sequence[RemoteFile]) -> str:
    return max(str(manifest["files"][file.name]["fetched"]) for file in files)


def print_list(folder_of: Callable[[str], Path]) -> None:
    """Every data set that can be fetched: whether it is there, its size, licence and origin."""
    rows = [("dataset", "there", "licence", "from")]
    for name, listed in SOURCES.items():
        source = source_of(name)
        size = sum(file.n_bytes or 0 for file in source.files)
        rows.append((name, state(folder_of(name)), source.licence, source.home))
        if not listed.same_as:
            note = f"{source.title}" + (f"; {size_text(size)} to fetch" if size else "")
            rows.append(("", note, "", ""))
    tables = [row for row in rows if row[0]]
    widths = [max(len(row[i]) for row in tables) for i in range(4)]
    for row in rows:
        line = "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        print((line if row[0] else f"{'':<{widths[0]}}  {row[1]}").rstrip())
    print(f"data folder: {Path(os.environ.get('SPIKELOOM_DATA', 'data')).absolute()}")


def state(folder: Path) -> str:
    """What a folder holds, in a few words."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return "no"
    if (folder / MANIFEST).is_file():
        files = _manifest(folder)["files"]
        return f"yes, fetched {max((str(f.get('fetched')) for f in files.values()), default='–')}"
    return "yes, not by fetch"
