"""What a decoder wrote beside what was read: the rows that every measure and every test of this room takes.

A row is one output for one reading: (subject, task, sentence, seed). Text files of Predicted/True pairs, as published
decoders leave them, are read by `read_pairs`.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

PAIR = re.compile(r"^(Predicted|True): ?(.*)$", re.MULTILINE)  # only \n ends a line: other breaks occur in texts
UNKNOWN = "unknown"  # the task, and the subject's name before its number, where a file does not tell them


@dataclass(frozen=True, kw_only=True)
class Decodings:
    """Rows of one decoder, as columns of equal length: what it wrote, what was read, by whom, in which task, and the
    seed it was trained with.

    Raises ValueError when there is no row, when columns differ in length, or when a reference holds no word.
    """

    outputs: tuple[str, ...]
    references: tuple[str, ...]
    subjects: tuple[str, ...]
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]

    def __post_init__(self) -> None:
        sizes = {column.name: len(getattr(self, column.name)) for column in fields(self)}
        if len(set(sizes.values())) != 1:
            raise ValueError(f"columns differ in length, got {sizes}; give one value per row")
        if not self.outputs:
            raise ValueError("got no rows; use the outputs of at least one reading")
        for row, reference in enumerate(self.references):
            if not reference.split():
                raise ValueError(f"the reference of row {row} got no word ({reference!r}); leave rows without text out")

    def __len__(self) -> int:
        return len(self.outputs)

    def select(self, rows: Iterable[int]) -> Self:
        """The rows given, in that order."""
        chosen = list(rows)
        return type(self)(**{c.name: tuple(getattr(self, c.name)[r] for r in chosen) for c in fields(self)})


def once_a_reading(outputs: Sequence[str], references: Sequence[str], tasks: Sequence[str] | None = None) -> Decodings:
    """Rows whose readers are not known: the k-th row of a text counts as reader k, so no reader reads a text twice."""
    seen: Counter[str] = Counter()
    subjects = []  # str
    for reference in references:
        seen[reference] += 1
        subjects.append(f"{UNKNOWN} {seen[reference]}")
    return Decodings(
        outputs=tuple(outputs),
        references=tuple(references),
        subjects=tuple(subjects),
        tasks=tuple(tasks) if tasks is not None else (UNKNOWN,) * len(references),
        seeds=(0,) * len(outputs),
    )


def read_pairs(path: Path) -> Decodings:
    """A text file with a line `Predicted: …` and a line `True: …` for each reading, in either order; other lines are
    ignored.

    Raises ValueError naming the file and the line when a pair is torn, when a reference is empty, or when there is
    none; FileNotFoundError when there is no file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file; give predictions=FILE with lines `Predicted: …` and `True: …`")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}); save it as UTF-8") from error
    lines = [(m[1], m[2].removesuffix("\r"), m.start()) for m in PAIR.finditer(text)]
    if not lines:
        raise ValueError(f"{path} holds no line `Predicted: …` or `True: …`; give a file of such pairs")

    def at(start: int) -> str:
        return f"{path}:{text.count(chr(10), 0, start) + 1}"

    before = ""
    columns: dict[str, list[str]] = {"Predicted": [], "True": []}
    for kind, content, start in lines:
        if kind == before:
            raise ValueError(f"{at(start)} is a second `{kind}:` of one pair; give each `Predicted:` its own `True:`")
        if kind == "True" and not content.split():
            raise ValueError(f"{at(start)} is an empty `True:`; leave readings without a text out")
        columns[kind].append(content)
        before = kind
    if len(lines) % 2:
        kind, _, start = lines[-1]
        raise ValueError(f"{at(start)} is a `{kind}:` without its partner; the file was cut, write it again")
    return once_a_reading(columns["Predicted"], columns["True"])
