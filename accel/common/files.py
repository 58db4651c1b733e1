"""Files written whole or not at all: under a temporary name first, moved into place when complete. And what to say of
files that are not as they should be."""

import codecs
import csv
import errno
import gzip
import io
import json
import math
import os
import reprlib
import secrets
import shutil
import socket
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from glob import escape
from pathlib import Path
from typing import Any, Literal

FULL = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))  # as libraries cite them
UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
LARGEST_TEXT = 1 << 28  # bytes
LARGEST_YAML = 1 << 18  # bytes; its parser takes in less than a megabyte a second


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`; what the block writes there becomes `path` when it succeeds, else vanishes.

    The block may make a file or a folder. A folder that stands at `path` is replaced. What killed writers left in the
    folder goes when this process writes there first.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep_once(str(path.parent.absolute()), os.getpid())
    partial = _partial(path)
    try:
        with naming_full_disks(path):
            yield partial
            _sync(partial)
        if partial.is_dir() and path.is_dir():  # aside first, so nothing is lost if the new one cannot be moved
            aside = _partial(path)
            os.replace(path, aside)
            try:
                os.replace(partial, path)
            except OSError:
                os.replace(aside, path)
                raise
            shutil.rmtree(aside)
        else:
            os.replace(partial, path)
        sync_folder(path.parent)
    finally:
        _remove(partial)


@contextmanager
def naming_full_disks(path: Path) -> Iterator[None]:
    """While `path` is written: a disk that is full is one OSError that names the file, however a library puts it."""
    try:
        yield
    except Exception as error:
        causes = [error]  # a library may put an error of its own in front
        while (before := causes[-1].__cause__ or causes[-1].__context__) is not None and isinstance(before, Exception):
            causes.append(before)
        what = next((text for text in FULL for cause in causes if text in str(cause)), None)
        if what is None:
            raise
        raise OSError(f"{path} cannot be written ({what}); free space on the disk, and try again") from error


def sweep_partials(folder: Path) -> None:
    """Remove what killed writers left in a folder that this process holds (not below it): names that `whole` makes."""
    for path in folder.glob(".*.partial"):
        _remove(path)


def sweep_leftovers(folder: Path, name: str | None = None) -> None:
    """Remove what killed writers of `name`, or of anything, left in a folder that no process holds.

    What running processes write stays, and so does what another machine writes.
    """
    for left in folder.glob(f".{escape(name) if name else '*'}.*.partial"):
        host, _, number = left.name.split(".")[-3].partition("-")
        if host == _HOST and number.isdigit() and not _runs(int(number)):
            with suppress(OSError):  # another process removes it, or it is another user's
                _remove(left)


@lru_cache(maxsize=4096)
def _sweep_once(folder: str, process: int) -> None:
    sweep_leftovers(Path(folder))


_HOST = f"{zlib.crc32(socket.gethostname().encode()):08x}"


def _partial(path: Path) -> Path:
    """A name beside `path` that no other writer has, with the machine and the process that has it."""
    return path.with_name(f".{path.name}.{_HOST}-{os.getpid()}.{secrets.token_hex(4)}.partial")


def _runs(process: int) -> bool:
    """Whether a process of this number runs here; where the system cannot say, as if it did."""
    try:
        os.kill(process, 0) if os.name != "nt" else None
    except ProcessLookupError:
        return False
    except OSError:  # that of another user
        pass
    return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, where the system can; a rename is safe only then."""
    if os.name != "nt":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _sync(path: Path) -> None:
    """Have a file, or every file of a folder, on the disk."""
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file() and os.name != "nt":
            with file.open("rb") as opened:
                os.fsync(opened.fileno())


def check_replaceable(folder: Path, holds: Collection[str]) -> None:
    """Before results are written to a `folder` that a user named: raise ValueError if it exists with anything in it but
    what such results hold, since `whole` would delete it. Removes what killed writers of it left beside it."""
    sweep_leftovers(folder.parent, folder.name)
    if folder.is_dir() and (others := sorted(path.name for path in folder.iterdir() if path.name not in holds)):
        raise ValueError(f"{folder} holds {first_few(others)}, which would be deleted; give another out=FOLDER")


def first_few(names: Sequence[str], n: int = 3) -> str:
    """The names for a message; of many only the first, and how many there are."""
    return ", ".join(names) if len(names) <= n + 1 else f"{', '.join(names[:n])}, … ({len(names):,} in all)"


def brief(error: BaseException, longest: int = 200) -> str:
    """The first line of an error, as one line of a message can hold it; foreign text in it may be of any length."""
    text = (str(error).splitlines() or [type(error).__name__])[0]
    return text if len(text) <= longest else f"{text[:longest]}…"


def write_json(path: Path, value: Any) -> None:
    """Equal values give equal bytes. Raises ValueError for NaN and infinity, which JSON cannot hold."""
    text = json.dumps(value, indent=1, allow_nan=False, ensure_ascii=False) + "\n"
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """`rows` share the keys of the first one, which become the header."""
    with whole(path) as partial, partial.open("w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def require_regular(path: Path, remedy: str) -> None:
    """Raise ValueError where a folder, a pipe or a device lies in a file's place: reading one may never end."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is no regular file; {remedy}")


def read_text(path: Path, remedy: str, largest: int = LARGEST_TEXT) -> str:
    """A text in UTF-8, or in UTF-16 after its byte order mark, as spreadsheets write; the mark is left out.

    Raises ValueError naming the file and the remedy.
    """
    require_regular(path, remedy)
    try:
        if (size := path.stat().st_size) > largest:
            raise ValueError(f"{path} has {size:,} bytes, at most {largest:,} are read; {remedy}")
        content = path.read_bytes()
        return content.decode("utf-16" if content.startswith(UTF_16) else "utf-8-sig")
    except FileNotFoundError:
        raise ValueError(f"{path} is missing; {remedy}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}); {remedy}") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror or error}); {remedy}") from error


def read_gzip(path: Path, remedy: str, largest: int = LARGEST_TEXT) -> bytes:
    """What a gzip file unpacks to. Raises ValueError naming the file and the remedy."""
    require_regular(path, remedy)
    try:
        with gzip.open(path) as file:
            content = file.read(largest + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged ({brief(error)}); {remedy}") from error
    if len(content) > largest:
        raise ValueError(f"{path} unpacks to more than {largest:,} bytes; {remedy}")
    return content


def read_json(path: Path, remedy: str) -> Any:
    """The content of a JSON file. Raises ValueError naming the file and the remedy."""
    text = read_text(path, remedy)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not whole JSON ({brief(error)}); {remedy}") from error


def read_yaml(path: Path, remedy: str) -> Any:
    """The content of a YAML file of plain values. Raises ValueError naming the file and the remedy."""
    return parse_yaml(path, read_text(path, remedy, LARGEST_YAML), remedy)


def parse_yaml(path: Path, text: str, remedy: str) -> Any:
    """`read_yaml` of a text that stands in a file."""
    import yaml

    try:
        return yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # libyaml: ten times faster
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(f"{path} is not readable YAML ({reason}); {remedy}") from error


def read_object(path: Path, remedy: str) -> dict[str, Any]:
    """A JSON file that holds an object. Raises ValueError naming the file and the remedy."""
    held = read_json(path, remedy)
    if not isinstance(held, dict):
        raise ValueError(f"{path} holds no JSON object but {reprlib.repr(held)}; {remedy}")
    return held


@contextmanager
def contents(path: Path, remedy: str) -> Iterator[None]:
    """While values that a file held are taken apart: what they lack, or are instead, is one ValueError naming it."""
    try:
        yield
    except (LookupError, TypeError, AttributeError, ArithmeticError, ValueError, RecursionError) as error:
        if isinstance(error, ValueError) and str(path.parent) in str(error):  # of this file, or of one beside it
            raise
        what = f"it lacks {error}" if isinstance(error, KeyError) else brief(error)
        raise ValueError(f"{path} does not hold what belongs in it ({what}); {remedy}") from error


def require_number(path: Path, name: str, value: Any, remedy: str) -> None:
    """Raise ValueError where what a file gives as `name` is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{path}: {name} is {reprlib.repr(value)}, no finite number; {remedy}")


def read_csv(path: Path, remedy: str, delimiter: str = ",", quoting: Literal[0, 3] = 0) -> list[dict[str, str]]:
    """The rows of a table by the names in its header. Raises ValueError naming the file, the line and the remedy."""
    rows: list[dict[str, str]] = []
    reader = csv.reader(io.StringIO(read_text(path, remedy), newline=""), delimiter=delimiter, quoting=quoting)
    try:
        header = next(reader, [])
        for cells in reader:
            if cells and len(cells) != len(header):
                raise csv.Error(f"{len(cells)} cells, the header has {len(header)}")
            if cells:
                rows.append(dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num} is no line of its table ({error}); {remedy}") from error
    return rows


def read_numbers(path: Path, remedy: str) -> list[dict[str, float]]:
    """`read_csv` of a table that holds finite numbers alone."""
    rows = read_csv(path, remedy)
    try:
        numbers = [{name: float(cell) for name, cell in row.items()} for row in rows]
    except ValueError as error:
        raise ValueError(f"{path} holds what is no number ({brief(error)}); {remedy}") from error
    if not all(math.isfinite(value) for row in numbers for value in row.values()):
        raise ValueError(f"{path} holds a number that is not finite; {remedy}")
    return numbers
