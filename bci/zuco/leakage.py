"""How many test sentences a model has already read in training: ZuCo's tasks and versions share sentences.

The split most published results use takes the first 80 % of each task's list for training, the next 10 % to choose a
checkpoint and the rest to test. It puts the same sentence, read in another task, on both sides. Everything here counts
that, from sentences alone: no recording is needed.

Text for pretraining leaks too: the film reviews of ZuCo come from the Stanford Sentiment Treebank, and those from the
rt-polarity set. `without_zuco` takes them out.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from spikeloom.accel.common.files import read_csv
from spikeloom.bci.zuco.materials import TASK_LISTS
from spikeloom.bci.zuco.records import SUBJECTS
from spikeloom.bci.zuco.splits import Split
from spikeloom.bci.zuco.text import normalise

READERS = {task: len(SUBJECTS[int(task[-1])]) for task in TASK_LISTS}  # published recordings of each task
SHARED_CHARACTERS = 40  # letters and digits in a row, about eight words, that two texts have by descent only


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Test sentences found verbatim in train. n_train, n_test, n_shared: entries of a list, or rows of recordings;
    *_unique: after normalisation; share: of the test entries, each weighted by how often it was read, 0...1."""

    name: str
    n_train: int
    n_test: int
    n_shared: int
    n_test_unique: int
    n_shared_unique: int
    share: float


def overlap(name: str, train: Sequence[str], test: Sequence[str], weights: Sequence[float] | None = None) -> Overlap:
    """Compare two lists of sentences; weights: how often each of `test` was read, once where left out.

    Raises ValueError when `test` is empty or the weights are not one per test sentence.
    """
    weights = [1.0] * len(test) if weights is None else weights
    if not test or len(weights) != len(test):
        raise ValueError(f"{name}: got {len(test)} test sentences and {len(weights)} weights; use one of each, or more")
    known = {normalise(text) for text in train}
    keys = [normalise(text) for text in test]
    shared = [key in known for key in keys]
    return Overlap(
        name=name, n_train=len(train), n_test=len(test), n_shared=sum(shared), n_test_unique=len(set(keys)),
        n_shared_unique=len(set(keys) & known),
        share=sum(w for w, found in zip(weights, shared, strict=True) if found) / sum(weights),
    )  # fmt: skip


def shared_sentences(task_lists: Mapping[str, Sequence[str]]) -> dict[tuple[str, str], int]:
    """(task, task) -> unique sentences they share."""
    keys = {name: {normalise(text) for text in texts} for name, texts in task_lists.items()}
    return {(a, b): len(keys[a] & keys[b]) for a, b in combinations(keys, 2)}


def published_index_split(task_lists: Mapping[str, Sequence[str]], readers: Mapping[str, int] | None = None) -> Overlap:
    """What the split by place in each task's list leaks when models learn from all of `task_lists` at once."""
    readers = READERS if readers is None else readers
    train: list[str] = []
    test: list[str] = []
    weights: list[float] = []
    for task, texts in task_lists.items():
        n_train, n_valid = int(0.8 * len(texts)), int(0.1 * len(texts))
        train += texts[:n_train]
        held_out = texts[n_train + n_valid :]
        test += held_out
        weights += [readers[task]] * len(held_out)
    return overlap(" ".join(task_lists), train, test, weights)


def published_rows(path: Path, task_lists: Sequence[str] = ()) -> Overlap:
    """The same for the rows of a published preprocessing, its own train and test column taken at its word.

    path: a table with the columns split_name, pickle_file (whose name begins with the task) and target_string.
    task_lists: keep only these; all where left out. Raises ValueError naming the file and the column that is missing.
    """
    lines = read_csv(path, "use the metadata table of the published preprocessing")
    needed = ("split_name", "pickle_file", "target_string")
    if absent := [column for column in needed if not lines or lines[0].get(column) is None]:
        raise ValueError(f"{path} has no column {absent[0]}; use the metadata table of the published preprocessing")
    texts: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
    found = dict.fromkeys(task_lists)  # an ordered set
    for line in lines:
        name = re.match(r"v([12])-task\d-(TSR|SR|NR)\b", line["pickle_file"])
        if name is None or line["split_name"] not in texts:
            raise ValueError(
                f"{path}: cannot tell task and split of {line['pickle_file']!r}; use the table as published"
            )
        if (task := f"{name[2]}{name[1]}") in task_lists or not task_lists:
            found[task] = None
            texts[line["split_name"]].append(line["target_string"])
    if not texts["test"]:
        raise ValueError(
            f"{path} has no row of {' '.join(task_lists) or 'any task'} in test; use the table as published"
        )
    return overlap(" ".join(found), texts["train"], texts["test"])


def renamed(found: Overlap, name: str) -> Overlap:
    """The same counts under another name."""
    return replace(found, name=name)


def check_split(split: Split) -> list[Overlap]:
    """Train against valid and test of a split, in rows. Raises ValueError where they share a sentence."""
    texts = {name: [f.text for f in split.keys.values() if f.split == name] for name in ("train", "valid", "test")}
    weights = {name: [f.n_rows for f in split.keys.values() if f.split == name] for name in texts}
    found = [overlap(f"train and {name}", texts["train"], texts[name], weights[name]) for name in ("valid", "test")]
    for pair in found:
        if pair.n_shared:
            raise ValueError(f"{pair.name} share {pair.n_shared} sentences; make the split again from its recordings")
    return found


def without_zuco(lines: Iterable[str], sentences: Iterable[str]) -> tuple[list[str], list[str]]:
    """Lines of a text corpus that are fit to pretrain on, and those that hold a part of one of the ZuCo `sentences`.

    A line is taken out when, letters and digits alone, it has `SHARED_CHARACTERS` in a row in common with a sentence or
    holds a whole one: tokenisation (`does n't`), brackets (`-LRB-`), cut and joined sentences are seen through. A line
    taken out by chance costs nothing.
    """
    squeezed = {normalise(sentence).replace(" ", "") for sentence in sentences} - {""}
    n = SHARED_CHARACTERS
    runs = {text[i : i + n] for text in squeezed for i in range(len(text) - n + 1)}
    short = [text for text in squeezed if len(text) < n]
    kept: list[str] = []
    removed: list[str] = []
    for line in lines:
        text = normalise(line).replace(" ", "")
        known = any(text[i : i + n] in runs for i in range(len(text) - n + 1)) or any(s in text for s in short)
        (removed if known else kept).append(line)
    return kept, removed
