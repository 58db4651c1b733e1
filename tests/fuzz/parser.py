"""One reader of foreign files, and what is right of it: the result it promises, or one line that names the file."""

import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spikeloom.pipelines.config.mistakes import refusal

EXPECTED = (ValueError, OSError, ImportError)  # what the command line prints as one line; anything else is a fault
LONGEST_LINE = 2000
Case = Mapping[str, bytes | str]  # path below the folder of the case -> content, or one of SPECIAL
SPECIAL = ("folder", "pipe", "link to itself", "link to nothing", "endless")  # what may lie where a file is expected


@dataclass(frozen=True, kw_only=True)
class Parser:
    """write: lays whole inputs out in an empty folder, each in a folder of its own. read: reads such a folder, lazy
    parts included. promise: raises AssertionError for a result that the reader says it never returns. covers: the
    functions that open or parse, as `path/of/module.py:function`. mutates: endings of the files that are mutated; none:
    all. formats: file ending -> how its content is built, where the ending does not say."""

    name: str
    write: Callable[[Path], None]
    read: Callable[[Path], Any]
    covers: tuple[str, ...]
    promise: Callable[[Any], None] = lambda result: None
    mutates: tuple[str, ...] = ()
    formats: Mapping[str, str] | None = None


OneFile = tuple[str, Callable[[Path], None], Callable[[Path], Any], Callable[[Any], None] | None, tuple[str, ...]]


def of_one_file(rows: Sequence[OneFile]) -> list[Parser]:
    """Parsers of the one file of a case: name, `write`, what reads the file by its path, `promise`, `covers`."""
    return [
        Parser(
            name=name,
            write=write,
            read=lambda folder, read=read: read(only_file(folder)),  # type: ignore[misc]
            promise=promise or (lambda result: None),
            covers=covers,
        )
        for name, write, read, promise, covers in rows
    ]


def only_file(folder: Path) -> Path:
    """The one file of a case, whatever its ending, or what lies in its place."""
    places = sorted(folder.rglob("*"))
    return next((place for place in places if not place.is_dir()), places[-1])


def files(name: str, contents: Callable[[], Sequence[bytes]]) -> Callable[[Path], None]:
    """Cases of one file each."""

    def write(folder: Path) -> None:
        for i, content in enumerate(contents()):
            (folder / str(i)).mkdir()
            (folder / str(i) / name).write_bytes(content)

    return write


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """outcome: right, refused, traceback, unnamed, long, silent, memory or hang; of the last two the child tells."""

    outcome: str
    detail: str = ""


class Hang(BaseException):
    """Raised by the alarm inside a reader that takes too long."""


def judge(parser: Parser, folder: Path) -> Verdict:
    """Read the case that lies in `folder`."""
    try:
        result = parser.read(folder)
    except EXPECTED as error:
        line = refusal(error)
        named = [str(folder), *(f.name for f in folder.rglob("*"))]
        if not any(name in line for name in named):
            return Verdict(outcome="unnamed", detail=f"{type(error).__name__}: {line[:300]} {_place(error)}")
        if len(line) > LONGEST_LINE:
            return Verdict(outcome="long", detail=f"{len(line)} characters: {line[:200]}")
        return Verdict(outcome="refused", detail=line)
    except MemoryError as error:
        return Verdict(outcome="memory", detail=_place(error))
    except Hang as error:
        return Verdict(outcome="hang", detail=_place(error))
    except BaseException as error:
        return Verdict(outcome="traceback", detail=f"{type(error).__name__}: {str(error)[:200]} {_place(error)}")
    try:
        parser.promise(result)
    except Exception as error:
        return Verdict(outcome="silent", detail=f"{type(error).__name__}: {str(error)[:300]}")
    return Verdict(outcome="right")


def _place(error: BaseException) -> str:
    """Where an error began, in our code: kinds of faults are told apart by it."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "/spikeloom" in f.filename or _in_product(f.filename)]
    frame = (ours or frames)[-1]
    return f"[{Path(frame.filename).name}:{frame.lineno} {frame.name}]"


def _in_product(filename: str) -> bool:
    root = str(Path(__file__).resolve().parents[2])
    return filename.startswith(root) and "/.venv/" not in filename and "/tests/" not in filename
