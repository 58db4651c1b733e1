"""What a decoder wrote beside what was read: the rows that every measure and every test of this package takes.

A row is one output for one trial: (subject, task, sentence, seed). `spikeloom.bci.evaluation.dumps` reads files of
them.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Self

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
            raise ValueError("got no rows; use the outputs of at least one trial")
        for row, reference in enumerate(self.references):
            if not reference.split():
                raise ValueError(f"the reference of row {row} got no word ({reference!r}); leave rows without text out")

    def __len__(self) -> int:
        return len(self.outputs)

    def select(self, rows: Iterable[int]) -> Self:
        """The rows given, in that order."""
        chosen = list(rows)
        return type(self)(**{c.name: tuple(getattr(self, c.name)[r] for r in chosen) for c in fields(self)})


def one_row_per_trial(
    outputs: Sequence[str], references: Sequence[str], tasks: Sequence[str] | None = None
) -> Decodings:
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
