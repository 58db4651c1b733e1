"""`spikeloom data leakage root=FOLDER out=FILE`: which sentences the tasks and versions of ZuCo share, what the usual
split by index leaks, what ours does, and what a text corpus must lose before pretraining. FILE is a page or JSON."""

import logging
import os
from itertools import chain
from pathlib import Path
from typing import Any

from spikeloom.accel.common.files import require_regular, write_json
from spikeloom.accel.common.report import Section, Table, render
from spikeloom.bci.zuco import leakage
from spikeloom.bci.zuco.materials import read_materials
from spikeloom.bci.zuco.splits import SplitConfig, rows_of_materials
from spikeloom.pipelines.config.data import DataConfig

log = logging.getLogger("spikeloom")
TASKS = ("SR1 NR1 NR2", "SR1 NR1 TSR1", "SR1 NR1 TSR1 NR2", "SR1 NR1 TSR1 NR2 TSR2")  # as publications combine them
PUBLISHED_ROWS = Path("cetmae_metadata/TSR_metadata.csv")  # below root; left out where it does not lie there
PUBLISHED_TASKS = ("SR1 NR1 NR2", "SR1 NR1 NR2 TSR2")
TEXTS = ("sst_sentences.txt", "rt_polarity.txt", "wikitext2_valid.txt", "wikitext2_test.txt")  # in `text` beside root


def run(config: DataConfig) -> None:
    root = Path(config.root or Path(os.environ.get("SPIKELOOM_DATA", "data")) / "zuco")
    out = Path(config.out)
    if out.suffix not in (".html", ".json"):
        raise ValueError(f"data leakage writes a page or JSON, got out={out}; use out=FILE.html or out=FILE.json")
    tables = tables_of(root)
    for title, rows in tables.items():
        print(f"\n{title}")
        for cells in [list(rows[0]), *([_text(cell) for cell in row.values()] for row in rows)]:
            print("  " + "  ".join(f"{cell:>13s}" if i else f"{cell:26s}" for i, cell in enumerate(cells)))
    if out.suffix == ".json":
        write_json(out, tables)
    else:
        sections = [
            Section(title, CAPTIONS[title], table=Table(tuple(rows[0]), [[_text(c) for c in r.values()] for r in rows]))
            for title, rows in tables.items()
        ]
        render("Sentences on both sides", LEAD, sections, out)
    log.info("leakage of %s -> %s", root, out)


LEAD = (
    "The tasks and versions of ZuCo share sentences. A split by place in each task's list puts many of them into "
    "training and test at once, and a decoder that memorises sentences then looks as if it read brains."
)
PAIRS, INDEX, ROWS, OURS, CORPORA = (
    "Sentences that two task lists share", "Split by place in the list", "Rows of a published preprocessing",
    "Split by sentence", "Text for pretraining",
)  # fmt: skip
CAPTIONS = {
    PAIRS: "Unique sentences after normalisation. Version 2 does not say which three rows of a block were practice: "
    "the first three, as in the recordings, or the last three.",
    INDEX: "The first 80 % of each task's list to learn from, the last 10 % to be tested on. The share counts every "
    "sentence as often as it was read.",
    ROWS: "The same in recorded rows, with the published train and test column taken at its word.",
    OURS: "Whole sentences, in runs with margins, seed 0: no sentence is on both sides. Rows too close in reading time "
    "to a held-out one are dropped.",
    CORPORA: "Lines of text corpora that hold a part of a ZuCo sentence, and must go before any pretraining.",
}


def tables_of(root: Path) -> dict[str, list[dict[str, Any]]]:
    """title -> rows of numbers, one dictionary each. Raises ValueError naming what is missing below `root`."""
    ways = {practice: read_materials(root, practice) for practice in ("first", "last")}
    shared = {practice: leakage.shared_sentences(task_lists) for practice, task_lists in ways.items()}
    tables: dict[str, list[dict[str, Any]]] = {
        PAIRS: [
            {"task lists": " ".join(pair), **{f"practice {way}": counts[pair] for way, counts in shared.items()}}
            for pair in shared["first"]
        ],
        INDEX: [
            _row(leakage.published_index_split({task: ways[way][task] for task in tasks.split()}), practice=way)
            for tasks in TASKS
            for way in ways
        ],
        OURS: [],
    }
    for tasks in TASKS:
        split = SplitConfig().build(
            rows_of_materials({task: ways["first"][task] for task in tasks.split()}, leakage.READERS)
        )
        for held_out, pair in zip(("valid", "test"), leakage.check_split(split), strict=True):
            tables[OURS].append({
                "tasks": tasks, "held out": held_out, "train": pair.n_train, "sentences": pair.n_test,
                "in train": pair.n_shared, "rows": split.counts[held_out], "rows dropped": split.counts["dropped"],
            })  # fmt: skip
    if (root / PUBLISHED_ROWS).is_file():
        found = [leakage.published_rows(root / PUBLISHED_ROWS, tasks.split()) for tasks in PUBLISHED_TASKS]
        tables[ROWS] = [_row(pair) for pair in found]
    known = list(chain.from_iterable(chain.from_iterable(task_lists.values()) for task_lists in ways.values()))
    texts = [root.parent / "text" / name for name in TEXTS]
    if corpora := [_corpus(path, known) for path in texts if path.is_file()]:
        tables[CORPORA] = corpora
    return tables


def _row(pair: leakage.Overlap, **more: str) -> dict[str, Any]:
    return {
        "tasks": pair.name, **more, "train": pair.n_train, "test": pair.n_test, "test unique": pair.n_test_unique,
        "in train": pair.n_shared, "unique in train": pair.n_shared_unique, "share": round(pair.share, 4),
    }  # fmt: skip


def _corpus(path: Path, sentences: list[str]) -> dict[str, Any]:
    require_regular(path, "give a text of a sentence a line")
    lines = [line for line in path.read_text("utf-8", errors="replace").split("\n") if line.strip()]
    kept, removed = leakage.without_zuco(lines, sentences)
    return {"corpus": path.name, "lines": len(lines), "removed": len(removed), "kept": len(kept)}


def _text(cell: Any) -> str:
    return f"{100 * cell:.2f} %" if isinstance(cell, float) else str(cell)
