"""One file over HTTP: resumed where a connection or an earlier call ended, checked, and in its place only when whole.

    NAME            the file, complete and of the expected size and checksum
    .NAME.part      what has arrived so far; the next call goes on behind it (HTTP Range)
    .NAME.validator the server's mark of that version of the file, so that two versions are never joined
    NAME.rejected   a complete file whose checksum is not the published one, set aside

What this module does not do: unpack, choose files, or ask for a licence.
"""

import errno
import http.client
import logging
import os
import re
import shutil
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pooch

from spikeloom.accel.common.units import size_text
from spikeloom.pipelines.training.runtime import on_terminal

log = logging.getLogger("spikeloom")
BLOCK = 1 << 18
TIMEOUT_S = 60.0
FRUITLESS = 5  # attempts in a row without a new byte before giving up
WAIT_S = 2.0  # before the first of them is repeated; doubled each time
SPARE_BYTES = 64 << 20  # left free on the disk
SAY_S = 30.0  # between two lines of progress where nobody watches a bar
AGENT = "spikeloom (python urllib)"


class Wanted(Protocol):
    """What is to be fetched: `datasets.sources.RemoteFile`, or anything alike."""

    @property
    def name(self) -> str: ...
    @property
    def url(self) -> str | None: ...
    @property
    def n_bytes(self) -> int | None: ...
    @property
    def checksum(self) -> str | None: ...


def fetch_file(wanted: Wanted, folder: Path) -> Path:
    """The file in `folder`, fetched if it is not there.

    Args:
        wanted: name, address, and size and checksum where they are known.
        folder: where it is to lie; made if it is missing.

    Returns:
        Its path. The file has the expected size and checksum.

    Raises:
        ValueError: where the server does not have it, has another file, or the disk is too small; where the checksum
            is wrong, after the file was set aside.
        ConnectionError: without a connection, or where it ends again and again.
    """
    assert wanted.url is not None
    path, part = folder / wanted.name, folder / f".{wanted.name}.part"
    folder.mkdir(parents=True, exist_ok=True)
    if not path.is_file():
        _arrive(wanted, part, folder / f".{wanted.name}.validator")
        part.replace(path)
    verify(path, wanted)
    return path


def verify(path: Path, wanted: Wanted) -> None:
    """Raise ValueError for a file that is not as published, and set it aside as NAME.rejected."""
    problem = ""
    if wanted.n_bytes is not None and path.stat().st_size != wanted.n_bytes:
        problem = f"{path.stat().st_size:,} bytes, expected {wanted.n_bytes:,}"
    elif wanted.checksum is not None:
        algorithm, digest = wanted.checksum.split(":")
        found = pooch.file_hash(str(path), alg=algorithm)
        if found != digest:
            problem = f"{algorithm} {found}, expected {digest}"
    if problem:
        rejected = path.with_name(f"{path.name}.rejected")
        path.replace(rejected)
        raise ValueError(f"{path} is not the published file ({problem}); it is now {rejected.name}, fetch it again")


def need_space(folder: Path, n_bytes: int, what: str) -> None:
    """Raise ValueError where `n_bytes` do not fit on the disk of `folder`."""
    existing = next(place for place in (folder, *folder.absolute().parents) if place.is_dir())
    free = shutil.disk_usage(existing).free
    if n_bytes + SPARE_BYTES > free:
        raise ValueError(
            f"{folder}: {what} needs {size_text(n_bytes)}, and {size_text(free)} are free; give root=FOLDER on another "
            "disk, or make room"
        )


def _arrive(wanted: Wanted, part: Path, validator: Path) -> None:
    """Fill `part` until the file is complete, over as many connections as it takes."""
    fruitless = 0
    with _progress(wanted) as tell:
        while True:
            before, offline = part.stat().st_size if part.is_file() else 0, False
            try:
                if _receive(wanted, part, validator, tell):
                    validator.unlink(missing_ok=True)
                    return
                reason = "the connection ended"
            except (OSError, http.client.HTTPException) as error:
                if isinstance(error, urllib.error.HTTPError) and error.code < 500 and error.code not in (408, 429):
                    raise ValueError(
                        f"{wanted.url}: the server answers {error.code} {error.reason}; fetch {wanted.name} with a "
                        f"browser and put it at {part.parent}"
                    ) from error
                if getattr(error, "errno", None) == errno.ENOSPC:
                    raise ValueError(
                        f"{part}: no space left on the disk; make room and run the command again"
                    ) from error
                offline = isinstance(getattr(error, "reason", error), socket.gaierror)
                reason = str(getattr(error, "reason", error)) or type(error).__name__
            arrived = part.stat().st_size if part.is_file() else 0
            fruitless = 0 if arrived > before else fruitless + 1
            if offline:
                fruitless = FRUITLESS  # waiting does not help
            if fruitless >= FRUITLESS:
                raise ConnectionError(
                    f"{wanted.url} cannot be reached ({reason}); connect to the network and run the command again, or "
                    f"fetch {wanted.name} elsewhere and put it at {part.parent}"
                )
            if fruitless:
                time.sleep(WAIT_S * 2 ** (fruitless - 1))


def _receive(wanted: Wanted, part: Path, validator: Path, tell: Any) -> bool:
    """One connection. Returns whether the file is complete."""
    have = part.stat().st_size if part.is_file() else 0
    if wanted.n_bytes is not None and have == wanted.n_bytes:
        return True
    headers = {"User-Agent": AGENT, "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if validator.is_file():
            headers["If-Range"] = validator.read_text("utf-8")
    request = urllib.request.Request(str(wanted.url), headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # nothing behind what is there: complete, or of another version
            complete = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
            if complete and int(complete[1]) == have:
                return True
            part.unlink()
            return False
        raise
    with response:
        if response.status not in (200, 206):
            raise ValueError(
                f"{wanted.url}: the server answers {response.status} without the file; fetch {wanted.name} with a "
                f"browser and put it at {part.parent}"
            )
        begun, total = _extent(response, have)
        if begun != have:  # the server sends all of it: another version, or it cannot resume
            part.unlink(missing_ok=True)
            have = 0
        if wanted.n_bytes is not None and total is not None and total != wanted.n_bytes:
            raise ValueError(
                f"{wanted.url} is {total:,} bytes, and the published file {wanted.n_bytes:,}: it is another file; get "
                f"{wanted.name} elsewhere and put it at {part.parent}"
            )
        mark = response.headers.get("ETag") or response.headers.get("Last-Modified")
        if mark and not mark.startswith("W/"):
            validator.write_text(mark, "utf-8")
        need_space(part.parent, (total or wanted.n_bytes or 0) - have, f"the rest of {wanted.name}")
        with part.open("ab") as arrived:
            while block := response.read(BLOCK):
                arrived.write(block)
                have += len(block)
                tell(have, total or wanted.n_bytes)
            arrived.flush()
            os.fsync(arrived.fileno())
        # Without a length a connection that ends early looks like one that ends; then the known size decides.
        expected = total or wanted.n_bytes
        return expected is None or have >= expected


def _extent(response: Any, have: int) -> tuple[int, int | None]:
    """First byte that a response holds, and the size of the whole file if it says."""
    if response.status == 206:
        sent = re.match(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if sent and int(sent[1]) == have:
            return have, None if sent[2] == "*" else int(sent[2])
        raise http.client.HTTPException("the server resumes at another byte than asked for")
    length = response.headers.get("Content-Length")
    return 0, int(length) if length else None


@contextmanager
def _progress(wanted: Wanted) -> Iterator[Any]:
    """Bytes so far, speed and time left: a bar on a terminal, elsewhere a line every half minute."""
    if on_terminal():
        from rich import progress

        columns = (progress.TextColumn("{task.description}"), progress.BarColumn(), progress.DownloadColumn(),
                   progress.TransferSpeedColumn(), progress.TimeRemainingColumn())  # fmt: skip
        with progress.Progress(*columns, transient=True) as bar:
            task = bar.add_task(wanted.name, total=wanted.n_bytes)
            yield lambda have, total: bar.update(task, completed=have, total=total)
        return
    begun = said = time.monotonic()
    first: list[int] = []  # bytes that were there before

    def tell(have: int, total: int | None) -> None:
        nonlocal said
        now = time.monotonic()
        if not first:
            first.append(have)
        if now - said < SAY_S:
            return
        said = now
        speed = (have - first[0]) / (now - begun)
        left = f", about {(total - have) / speed:.0f} s left" if total and speed else ""
        log.info("%s: %s of %s%s", wanted.name, size_text(have), size_text(total) if total else "unknown size", left)

    yield tell
