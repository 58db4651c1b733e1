"""Which sentences a model may learn from: by normalised text over all tasks, versions and readers, kept in files.

    key     one fate for every row whose sentence normalises to it: train, valid, test or dropped
    unit    key   seeded hash of the key, the shares exact within each corpus (film reviews / Wikipedia)
            run   valid and test are runs of `run_length` consecutive sentences of a task's reading order, one at a
                  random place in each of equal stretches. A key that also occurs elsewhere takes its split along, test
                  before valid before train. Then every sentence of train within `margin` of a held-out one, in any
                  task, is dropped with its key: neighbours in time share a topic, and slow drift gives their place away

The number of runs is the one that comes closest to the shares asked for, counted in rows of what is kept.

A split is two files: `keys.csv` (key, split, n_rows, tasks, text) and `split.json` (configuration, counts, and digests
of the table and of the rows it was made from). What this module does not do: choose words or drop artefacts; a row is
here a sentence that somebody read, whatever became of its EEG.
"""

import csv
import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from spikeloom.accel.common.files import read_json, require_regular, write_csv, write_json
from spikeloom.bci.zuco.records import Sentence
from spikeloom.bci.zuco.text import normalise

KEY_COLUMNS = ["key", "split", "n_rows", "tasks", "text"]
SPLITS = ("train", "valid", "test")
DROPPED = "dropped"
FILM_TASK = "SR"  # the sentences of the other tasks come from Wikipedia
RESPLIT = "make the split again from these recordings"


@dataclass(frozen=True, order=True)
class Row:
    """A sentence somebody read. task: with its version, as in `NR2`; index: place in the task's reading order."""

    subject: str
    task: str
    index: int
    text: str


def row_of(sentence: Sentence) -> Row:
    """The row a recorded sentence stands for."""
    return Row(sentence.subject, f"{sentence.task}{sentence.version}", sentence.index, sentence.content)


def rows_of_materials(task_lists: Mapping[str, Sequence[str]], readers: Mapping[str, int]) -> list[Row]:
    """The rows `readers[task]` people would make of each task, as `spikeloom.bci.zuco.materials` gives them."""
    return [
        Row(f"reader{reader}", task, index, text)
        for task, texts in task_lists.items()
        for reader in range(readers[task])
        for index, text in enumerate(texts)
    ]


@dataclass
class SplitConfig:
    """unit: `run` for real recordings, `key` for synthetic ones; valid, test: shares of the rows that are kept."""

    unit: str = "run"
    seed: int = 0  # of the draw of runs or keys
    valid: float = 0.1
    test: float = 0.1
    run_length: int = 25  # consecutive sentences that stay in one set
    margin: int = 10  # training sentences this close to a held-out one are left out

    def __post_init__(self) -> None:
        if self.unit not in ("run", "key"):
            raise ValueError(f"unit must be run or key, got {self.unit!r}; use run for real recordings")
        if not (self.valid > 0 and self.test > 0 and self.valid + self.test < 1):
            raise ValueError(f"got shares valid={self.valid}, test={self.test}; use positive ones below 1 together")
        if self.run_length < 1 or self.margin < 0:
            raise ValueError(f"got run_length={self.run_length}, margin={self.margin}; use 25 and 10")

    def build(self, rows: Iterable[Row]) -> "Split":
        """The split of `rows`. Raises ValueError for no rows, or for lists too short for their runs."""
        rows = list(rows)
        if not rows:
            raise ValueError("got no rows to split; use recordings that hold at least one sentence")
        n_rows = Counter(normalise(row.text) for row in rows)
        fates = _by_key(self, rows) if self.unit == "key" else _by_run(self, rows, n_rows)
        texts: dict[str, str] = {}
        tasks: dict[str, set[str]] = {}
        for row in sorted(rows):
            key = normalise(row.text)
            texts.setdefault(key, row.text)
            tasks.setdefault(key, set()).add(row.task)
        keys = {
            key: KeyFate(split=fates[key], n_rows=n_rows[key], tasks=tuple(sorted(tasks[key])), text=texts[key])
            for key in sorted(n_rows)
        }
        split = Split(config=self, keys=keys, rows_digest=digest_of_rows(rows))
        split.check(rows)
        return split


@dataclass(frozen=True, kw_only=True)
class KeyFate:
    """What becomes of a key. n_rows: how often it was read; tasks: where; text: one of its spellings."""

    split: str
    n_rows: int
    tasks: tuple[str, ...]
    text: str


@dataclass(frozen=True, kw_only=True)
class Split:
    """The fate of every key, sorted by key, with the configuration and the digest of the rows it was made from."""

    config: SplitConfig
    keys: Mapping[str, KeyFate]
    rows_digest: str
    counts: Mapping[str, int] = field(init=False)  # split or dropped -> rows

    def __post_init__(self) -> None:
        counts = dict.fromkeys((*SPLITS, DROPPED), 0)
        for fate in self.keys.values():
            counts[fate.split] += fate.n_rows
        object.__setattr__(self, "counts", counts)

    def of(self, text: str) -> str:
        """train, valid, test or dropped. Raises ValueError for a sentence the split does not know."""
        key = normalise(text)
        if key not in self.keys:
            raise ValueError(f"the split does not know the sentence {text!r}; {RESPLIT}")
        return self.keys[key].split

    def select(self, rows: Sequence[Row], split: str) -> np.ndarray:
        """int64 `[n]`: places of the rows that belong to `split`."""
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
        return np.array([i for i, row in enumerate(rows) if self.of(row.text) == split], dtype=np.int64)

    def leave_out(self, rows: Sequence[Row], subject: str) -> dict[str, np.ndarray]:
        """Places of rows, int64 `[n]`, when one subject is left out: what to fit and choose on, and three tests.

        train, valid: readers that stay. known_new: sentences of train, read by the one left out; new_known: sentences
        of test, by the others; new_new: sentences of test, by the one left out. Raises ValueError for a subject who
        read nothing.
        """
        readers = np.array([row.subject for row in rows])
        if not (new := readers == subject).any():
            raise ValueError(f"nobody called {subject!r} read these rows; use one of {', '.join(sorted(set(readers)))}")
        fates = np.array([self.of(row.text) for row in rows])
        cells = {
            "train": (fates == "train") & ~new, "valid": (fates == "valid") & ~new,
            "known_new": (fates == "train") & new, "new_known": (fates == "test") & ~new,
            "new_new": (fates == "test") & new,
        }  # fmt: skip
        return {name: np.flatnonzero(chosen) for name, chosen in cells.items()}

    def check(self, rows: Sequence[Row]) -> None:
        """Raise ValueError where `rows` are not those the split was made from, or a margin does not hold."""
        if (found := digest_of_rows(rows)) != self.rows_digest:
            raise ValueError(f"the split was made from rows {self.rows_digest[:12]}, these are {found[:12]}; {RESPLIT}")
        if self.config.unit != "run":
            return
        for task, at in _presentation_orders(rows).items():
            fates = {i: {self.keys[key].split for key in keys} for i, keys in at.items()}
            held_out = {i for i, found in fates.items() if found & {"valid", "test"}}
            for i, found_there in fates.items():
                near = [j for j in range(i - self.config.margin, i + self.config.margin + 1) if j in held_out]
                if "train" in found_there and near:
                    raise ValueError(
                        f"sentence {i} of {task} is in train beside held-out sentence {near[0]}; {RESPLIT}"
                    )

    def save(self, folder: Path) -> None:
        """Write keys.csv and split.json; equal splits give equal bytes."""
        write_csv(folder / "keys.csv", [
            {"key": key, **asdict(fate), "tasks": " ".join(fate.tasks)} for key, fate in self.keys.items()
        ])  # fmt: skip
        write_json(folder / "split.json", {
            "config": asdict(self.config), "rows": dict(self.counts),
            "sentences": dict(Counter(fate.split for fate in self.keys.values())),
            "keys_sha256": hashlib.sha256((folder / "keys.csv").read_bytes()).hexdigest(),
            "rows_sha256": self.rows_digest,
        })  # fmt: skip


def load_split(folder: Path) -> Split:
    """Read a split. Raises ValueError naming the file that is missing, changed, or puts one key into two splits."""
    described = read_json(folder / "split.json", RESPLIT)
    if not isinstance(described, dict):
        raise ValueError(f"{folder / 'split.json'} holds no object; {RESPLIT}")
    path = folder / "keys.csv"
    require_regular(path, RESPLIT)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"{path} is missing; {RESPLIT}") from None
    if (found := hashlib.sha256(content).hexdigest()) != described.get("keys_sha256"):
        raise ValueError(f"{path} was changed since it was written (sha256 {found[:12]}); {RESPLIT}")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error}); {RESPLIT}") from None
    keys = _read_keys(path, text)
    try:
        config = SplitConfig(**described["config"])
        digest = described["rows_sha256"]
        if not isinstance(digest, str):
            raise TypeError(f"rows_sha256 is {digest!r}")
        return Split(config=config, keys=keys, rows_digest=digest)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / 'split.json'} does not describe a split ({error}); {RESPLIT}") from error


def _read_keys(path: Path, text: str) -> dict[str, KeyFate]:
    """The rows of keys.csv. Raises ValueError naming the line that is none."""
    keys: dict[str, KeyFate] = {}
    rows = csv.reader(io.StringIO(text, newline=""))
    try:
        header = next(rows, [])
        if header != KEY_COLUMNS:
            raise ValueError(f"{path}, line 1: the columns are {','.join(header)[:80]!r}, not {','.join(KEY_COLUMNS)}")
        for cells in rows:
            where = f"{path}, line {rows.line_num}"
            if len(cells) != len(KEY_COLUMNS):
                raise ValueError(f"{where}: {len(cells)} cells, not {len(KEY_COLUMNS)}; {RESPLIT}")
            found = dict(zip(KEY_COLUMNS, cells, strict=True))
            key = normalise(found["text"])
            if found["split"] not in (*SPLITS, DROPPED) or key != found["key"] or key in keys:
                raise ValueError(
                    f"{where}: the key {found['key'][:80]!r} is doubled, unknown or in no split; {RESPLIT}"
                )
            if not found["n_rows"].isdecimal() or len(found["n_rows"]) > 9:
                raise ValueError(f"{where}: n_rows is {found['n_rows'][:20]!r}, no number; {RESPLIT}")
            tasks = tuple(found["tasks"].split())
            keys[key] = KeyFate(split=found["split"], n_rows=int(found["n_rows"]), tasks=tasks, text=found["text"])
    except csv.Error as error:
        raise ValueError(f"{path}, line {rows.line_num} is no line of a table ({error}); {RESPLIT}") from error
    if not keys:
        raise ValueError(f"{path} holds no sentence; {RESPLIT}")
    return keys


def digest_of_rows(rows: Iterable[Row]) -> str:
    """SHA-256 over who read what and where; the order of `rows` and the spelling of sentences do not matter."""
    told = sorted((row.subject, row.task, row.index, normalise(row.text)) for row in rows)
    return hashlib.sha256("\n".join("\t".join(map(str, row)) for row in told).encode()).hexdigest()


def _by_key(config: SplitConfig, rows: Sequence[Row]) -> dict[str, str]:
    corpora: dict[bool, set[str]] = {}  # film review or not -> keys
    for row in rows:
        corpora.setdefault(row.task.startswith(FILM_TASK), set()).add(normalise(row.text))
    corpora[False] = corpora.get(False, set()) - corpora.get(True, set())
    fates: dict[str, str] = {}
    for keys in corpora.values():
        shuffled = sorted(keys, key=lambda key: hashlib.sha256(f"{config.seed} {key}".encode()).digest())
        n_test, n_valid = round(config.test * len(keys)), round(config.valid * len(keys))
        names = ["test"] * n_test + ["valid"] * n_valid + ["train"] * (len(keys) - n_test - n_valid)
        fates.update(zip(shuffled, names, strict=True))
    return fates


def _by_run(config: SplitConfig, rows: Sequence[Row], n_rows: Mapping[str, int]) -> dict[str, str]:
    orders = _presentation_orders(rows)
    spaced = config.run_length + config.margin
    most = {task: (max(at) + 1) // spaced for task, at in orders.items()}
    if sum(most.values()) < 2:
        raise ValueError(
            f"these lists are too short for a run of valid and one of test, each {config.run_length} sentences and "
            f"a margin of {config.margin}; use unit=key or shorter runs"
        )

    def distance(fates: Mapping[str, str]) -> float:
        kept = Counter[str]()
        for key, fate in fates.items():
            kept[fate] += n_rows[key] * (fate != DROPPED)
        return sum(abs(kept[name] / kept.total() - getattr(config, name)) for name in ("valid", "test"))

    tried = (
        _place_runs(config, orders, n_valid, n_test)
        for n_valid in range(1, sum(most.values()))
        for n_test in range(1, sum(most.values()) - n_valid + 1)
        if config.run_length * (n_valid + n_test) <= 2 * (config.valid + config.test) * sum(map(len, orders.values()))
        or n_valid == n_test == 1
    )
    return min(tried, key=distance)


def _place_runs(
    config: SplitConfig, orders: Mapping[str, Mapping[int, set[str]]], n_valid: int, n_test: int
) -> dict[str, str]:
    """Fates when the lists hold so many runs, shared out by length, one in each equal stretch of a list."""
    generator = np.random.default_rng((config.seed, n_valid, n_test))
    lengths = {task: max(at) + 1 for task, at in sorted(orders.items())}
    spaced = config.run_length + config.margin
    runs: list[list[set[str]]] = []  # each the keys at its places
    stretches = _shared_out(n_valid + n_test, lengths, {task: n // spaced for task, n in lengths.items()})
    for task, n_runs in stretches.items():
        edges = np.linspace(0, lengths[task], n_runs + 1).astype(int)
        for first, last in zip(edges, edges[1:], strict=False):
            start = int(generator.integers(first, max(first, last - spaced) + 1))
            runs.append([orders[task].get(i, set()) for i in range(start, start + config.run_length)])
    tests = set(np.floor((np.arange(n_test) + generator.random()) * len(runs) / n_test).astype(int).tolist())
    held: dict[str, set[str]] = {"valid": set(), "test": set()}
    for number, run in enumerate(runs):
        held["test" if number in tests else "valid"].update(*run)

    fates = {key: "train" for at in orders.values() for keys in at.values() for key in keys}
    fates |= dict.fromkeys(held["valid"], "valid") | dict.fromkeys(held["test"], "test")
    for at in orders.values():
        held_out = [i for i, keys in at.items() if any(fates[key] in held for key in keys)]
        for i in {i + step for i in held_out for step in range(-config.margin, config.margin + 1)}:
            for key in at.get(i, ()):
                if fates[key] == "train":
                    fates[key] = DROPPED
    return fates


def _shared_out(n_runs: int, lengths: Mapping[str, int], most: Mapping[str, int]) -> dict[str, int]:
    """`n_runs` over tasks, each next one where it is least dense; never more than `most`."""
    given = dict.fromkeys(lengths, 0)
    for _ in range(n_runs):
        open_tasks = [task for task in lengths if given[task] < most[task]]
        given[min(open_tasks, key=lambda task: (given[task] + 1) / lengths[task])] += 1
    return {task: n for task, n in given.items() if n}


def _presentation_orders(rows: Iterable[Row]) -> dict[str, dict[int, set[str]]]:
    """task -> place in the reading order -> keys read there (one, where all readers saw the same list)."""
    orders: dict[str, dict[int, set[str]]] = {}
    for row in rows:
        orders.setdefault(row.task, {}).setdefault(row.index, set()).add(normalise(row.text))
    return orders
