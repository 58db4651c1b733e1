"""The sentences of ZuCo in reading order, from the task materials its authors publish: no recording is needed.

A task list is one task of one version, named as in `NR2`: normal reading of ZuCo 2.0. Version 1 keeps one file a task,
version 2 one a block, whose three practice sentences were not recorded; the files do not mark them. The published
recordings begin after the first three rows, so `practice="first"` is the default; "last" is there to show how little
hangs on it.

What this module does not do: labels, control questions, and the recordings themselves (`spikeloom.bci.zuco.reader`).
"""

import csv
import io
from pathlib import Path

from spikeloom.accel.common.files import read_text
from spikeloom.bci.zuco.records import BLOCKS

PRACTICE_ROWS = 3  # a block of version 2
# Task of version 1 -> file, delimiter, rows before the first sentence, column of the sentence.
_FILES = {
    "SR1": ("zuco1_task_materials/sentiment_labels_task1.csv", ";", 2, 1),
    "NR1": ("zuco1_task_materials/relations_labels_task2.csv", ",", 1, 2),
    "TSR1": ("zuco1_task_materials/relations_labels_task3.csv", ";", 1, 2),
}
TASK_LISTS = (*_FILES, "NR2", "TSR2")
WHERE = "put the task materials of osf.io/q3zws and osf.io/2urht there as zuco1_task_materials and zuco2_task_materials"


def read_materials(root: Path, practice: str = "first") -> dict[str, tuple[str, ...]]:
    """Every task's sentences, as shown, in reading order: `{"SR1": (400 sentences), ..., "TSR2": (390)}`.

    root: the folder that holds `zuco1_task_materials` and `zuco2_task_materials`. Raises ValueError naming a file that
    is missing or holds another number of sentences than were recorded.
    """
    if practice not in ("first", "last"):
        raise ValueError(f"practice must be first or last, got {practice!r}; use first, as the recordings have it")
    found = {}
    for task, (name, delimiter, n_header, column) in _FILES.items():
        rows = _rows(root / name, delimiter)[n_header:]
        found[task] = _sentences(root / name, rows, column, sum(BLOCKS[1, task[:-1]]))
    kept = slice(PRACTICE_ROWS, None) if practice == "first" else slice(None, -PRACTICE_ROWS)
    for task in ("NR2", "TSR2"):
        sentences: tuple[str, ...] = ()
        for block, n_recorded in enumerate(BLOCKS[2, task[:-1]], 1):
            path = root / "zuco2_task_materials" / f"{task[:-1].lower()}_{block}.csv"
            sentences += _sentences(path, _rows(path, ";")[kept], 2, n_recorded)
        found[task] = sentences
    return found


def _rows(path: Path, delimiter: str) -> list[list[str]]:
    text = read_text(path, f"use the file as published; {WHERE}")
    try:
        return [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row]
    except csv.Error as error:
        raise ValueError(f"{path} is no table ({error}); use the file as published") from error


def _sentences(path: Path, rows: list[list[str]], column: int, n_recorded: int) -> tuple[str, ...]:
    if len(rows) != n_recorded or any(len(row) <= column for row in rows):
        raise ValueError(
            f"{path}: got {len(rows)} sentences, some perhaps cut short, where {n_recorded} were recorded; "
            "use the file as published"
        )
    return tuple(row[column] for row in rows)
