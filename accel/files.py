"""Files written whole or not at all: under a temporary name first, moved into place when complete. And what to say of
files that are not as they should be."""

import csv
import json
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A temporary name beside `path`; what the block writes there becomes `path` when it succeeds, else vanishes.

    The block may make a file or a folder. A folder that stands at `path` is replaced.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        if partial.is_dir() and path.is_dir():
            shutil.rmtree(path)
        os.replace(partial, path)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        else:
            partial.unlink(missing_ok=True)


def check_replaceable(folder: Path, holds: Collection[str]) -> None:
    """Before results are written to a `folder` that a user named: raise ValueError if it exists with anything in it but
    what such results hold, since `whole` would delete it."""
    if folder.is_dir() and (others := sorted(path.name for path in folder.iterdir() if path.name not in holds)):
        raise ValueError(f"{folder} holds {first_few(others)}, which would be deleted; give another out=FOLDER")


def first_few(names: Sequence[str], n: int = 3) -> str:
    """The names for a message; of many only the first, and how many there are."""
    return ", ".join(names) if len(names) <= n + 1 else f"{', '.join(names[:n])}, … ({len(names):,} in all)"


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


def read_json(path: Path, remedy: str) -> Any:
    """The content of a JSON file. Raises ValueError naming the file and the remedy."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} is missing; {remedy}") from None
    except ValueError as error:
        raise ValueError(f"{path} is not whole JSON ({error}); {remedy}") from error
