"""What can be made of ZuCo files, or of synthetic ones in their place:

`spikeloom data synthesize dataset=zuco out=FOLDER`         result files as published; with `raw=true` raw folders too
`spikeloom data split dataset=zuco root=FOLDER out=FOLDER`  who is train, valid and test, as files
`spikeloom data cache dataset=zuco root=FOLDER out=FOLDER`  records that open at once, and how much faster
`spikeloom data features dataset=zuco root=FOLDER`          features recomputed from continuous EEG, beside those kept
`spikeloom data bids dataset=zuco root=FOLDER out=FOLDER`   continuous EEG and gaze as BIDS
`spikeloom data epochs dataset=zuco root=FOLDER out=FOLDER` MNE epochs by word or sentence, a .fif a block; also of
                                                            dataset=bids_reading"""

import itertools
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from spikeloom.accel.common.files import read_object, write_json
from spikeloom.accel.common.units import size_text
from spikeloom.bci.synthetic.zuco import SyntheticZuCo, SyntheticZuCoConfig
from spikeloom.bci.zuco.materials import TASK_LISTS, read_materials
from spikeloom.bci.zuco.reader import find_files, read_sentences, recording_of
from spikeloom.bci.zuco.records import MEASURES, Recording, Sentence
from spikeloom.bci.zuco.splits import SPLITS, Row, SplitConfig, row_of, rows_of_materials
from spikeloom.bci.zuco.write_hdf5 import write_hdf5
from spikeloom.bci.zuco.write_matlab5 import write_matlab5
from spikeloom.pipelines.config.data import DataConfig
from spikeloom.pipelines.datasets.zuco import root_of
from spikeloom.pipelines.training.runtime import watch, worked_on

T = TypeVar("T")
log = logging.getLogger("spikeloom")
WRITERS = {"matlab5": write_matlab5, "hdf5": write_hdf5}
PUBLISHED = {1: "matlab5", 2: "hdf5"}  # version -> format
TOLD = "synthetic.json"  # marks a folder of synthetic files, and says how to make them again


def run(config: DataConfig) -> None:
    if config.what == "features" and config.dataset == "eeg":
        from spikeloom.pipelines.datasets import eeg as recordings

        recordings.features(config)
        return
    if config.dataset not in ("zuco", "") and (config.what, config.dataset) != ("epochs", "bids_reading"):
        raise ValueError(f"data {config.what} is for dataset=zuco, got dataset={config.dataset}; use that")
    verbs = {"synthesize": synthesize, "split": split, "cache": cache, "features": features, "bids": bids,
             "epochs": epochs}  # fmt: skip
    verbs[config.what](config)


def out_folder(config: DataConfig) -> Path:
    if Path(config.out).suffix in (".html", ".json", ".csv"):
        raise ValueError(f"data {config.what} writes a folder, got out={config.out}; use out=FOLDER")
    return Path(config.out)


def synthesize(config: DataConfig) -> None:
    """Write a synthetic set as published: folders by version and task, a file a subject, raw folders with raw=true."""
    out = out_folder(config)
    if unknown := [task for task in config.tasks if task not in TASK_LISTS]:
        raise ValueError(f"tasks={unknown[0]} is unknown; use some of {', '.join(TASK_LISTS)}")
    if config.format not in ("published", *WRITERS):
        raise ValueError(f"format={config.format} is unknown; use published, matlab5 or hdf5")
    if existing := sorted(out.rglob("results*.mat")) if out.is_dir() else []:
        raise ValueError(
            f"{out} already holds {len(existing)} result files, such as {existing[0].name}; use another out"
        )
    texts, source = texts_of(config)
    n_files, n_bytes = 0, 0
    for task in config.tasks:
        version, name = int(task[-1]), task[:-1]
        synthetic = SyntheticZuCo(
            SyntheticZuCoConfig(
                version=version, task=name, n_subjects=config.subjects, n_sentences=len(texts[task]),
                signal_strength=config.strength, missing=config.missing, rejected=config.rejected, seed=config.seed,
            ),
            texts[task],
        )  # fmt: skip
        writer = WRITERS[PUBLISHED[version] if config.format == "published" else config.format]
        folder = out / f"zuco{version}" / f"task-{name}"
        for recording in watch(synthetic.recordings, f"writing {task}"):
            file = folder / "Matlab_files" / f"results{recording.subject}_{name}.mat"
            writer(file, sentences_of(config, synthetic, recording, folder))
            n_files, n_bytes = n_files + 1, n_bytes + file.stat().st_size
    told = {key: getattr(config, key) for key in (
        "tasks", "subjects", "sentences", "strength", "missing", "rejected", "raw", "format", "seed",
    )}  # fmt: skip
    write_json(out / TOLD, {"synthetic": True, "text": source, **told})
    print(f"{n_files} result files, {size_text(n_bytes)}, text of {source} -> {out}")


def sentences_of(
    config: DataConfig, synthetic: SyntheticZuCo, recording: Recording, folder: Path
) -> Sequence[Sentence]:
    """The rows of one recording; with raw=true the continuous files are written on the way."""
    if not config.raw:
        return list(synthetic.read(recording))
    from spikeloom.bci.raw.folder import write_record
    from spikeloom.bci.synthetic.recordings import SyntheticRecords

    records = SyntheticRecords(synthetic)
    rows = []
    for record in records.of(recording):
        write_record(folder / "Raw_data" / recording.subject, record)
        rows += list(records.rows_of(record))
    return rows


def texts_of(config: DataConfig) -> tuple[dict[str, Sequence[str]], str]:
    """Task -> sentences, and where they come from: a file, the task materials, or the built-in grammar."""
    if config.sentences < 1:
        raise ValueError(f"sentences={config.sentences}; use one or more")
    if config.text is not None:
        from spikeloom.bci.synthetic.zuco import read_lines

        found: dict[str, Sequence[str]] = dict.fromkeys(config.tasks, read_lines(Path(config.text)))
        source = str(Path(config.text).name)
    else:
        root = Path(config.materials or Path(os.environ.get("SPIKELOOM_DATA", "data")) / "zuco")
        there = (root / "zuco1_task_materials").is_dir() and (root / "zuco2_task_materials").is_dir()
        if there or config.materials is not None:
            found, source = {**read_materials(root)}, "the task materials"
        else:
            from spikeloom.bci.zuco.corpus import write_sentences

            found = dict.fromkeys(config.tasks, write_sentences(config.sentences, config.seed))
            source = "the built-in grammar"
    for task in config.tasks:
        if len(found[task]) < config.sentences:
            raise ValueError(
                f"sentences={config.sentences}, but {source} has {len(found[task])} for {task}; use as many or fewer"
            )
    return {task: found[task][: config.sentences] for task in config.tasks}, source


def split(config: DataConfig) -> None:
    """Write keys.csv and split.json, of recordings where there are some, else of the task materials."""
    from spikeloom.bci.zuco import leakage

    root, out = root_of(config), out_folder(config)
    rows: list[Row]
    if sorted(root.rglob("results*.mat")):
        rows = [
            row_of(sentence) for file in watch(find_files(root), "reading files") for sentence in read_sentences(file)
        ]
        of = "the recordings"
    else:
        rows, of = rows_of_materials(read_materials(root), leakage.READERS), "the task materials, as published"
    made = SplitConfig(**asdict(config.split)).build(rows)
    if empty := [name for name in SPLITS if not made.counts[name]]:
        raise ValueError(
            f"{len(made.keys)} different sentences are too few: {empty[0]} would be empty; use more sentences, or "
            "larger shares (split.valid=, split.test=)"
        )
    overlaps = leakage.check_split(made)
    made.save(out)
    print(f"split by {config.split.unit} of {of} in {root}")
    for name, count in made.counts.items():
        keys = sum(fate.split == name for fate in made.keys.values())
        print(f"  {name:8s} {count:8,d} rows {keys:6,d} sentences")
    for pair in overlaps:
        print(f"  {pair.name}: {pair.n_shared} sentences on both sides")
    print(f"-> {out / 'keys.csv'}, {out / 'split.json'}")


def cache(config: DataConfig) -> None:
    """Make the cache of every file that has none, and compare the time to parse it with the time to read it again."""
    from spikeloom.bci.zuco.cache import cached_sentences, make_cache

    out, files = out_folder(config), find_files(root_of(config))
    for file in files:
        recording_of(file)  # a name that does not say who read what is refused before anything is made
    named = [(file.name, file) for file in files]
    print_cached(named, partial(make_cache, folder=out), partial(cached_sentences, folder=out), out, config.processes)


def print_cached(
    items: Sequence[tuple[str, T]], keep: Callable[[T], bool], read: Callable[[T], Iterable[Sentence]], out: Path,
    processes: int,
) -> None:  # fmt: skip
    """Keep every item in the folder `out`, and print how long that and reading it again takes.

    Args:
        items: names, as shown, and what is kept, each in a file.
        keep: makes the file of an item where it is missing, and says whether it was.
        read: the sentences of an item that is kept.
    """
    times_s, n_rows = {"made": 0.0, "reopened": 0.0}, 0
    made = worked_on(partial(cache_one, keep, read), [item for _, item in items], "reading files", processes)
    for (name, _), (_, (n, made_s, reopened_s)) in zip(items, made, strict=True):
        n_rows += n
        told = "kept before" if made_s is None else f"made in {made_s:7.2f} s"
        if made_s is not None:
            times_s["made"], times_s["reopened"] = times_s["made"] + made_s, times_s["reopened"] + reopened_s
            told += f", reopened and read in {reopened_s:6.2f} s: {made_s / reopened_s:5.1f} times faster"
        print(f"  {name:22s} {n:5d} rows  {told}")
    size = sum(path.stat().st_size for path in out.glob("*.safetensors"))
    faster = f"; {times_s['made'] / times_s['reopened']:.1f} times faster than made" if times_s["made"] else ""
    print(f"{n_rows:,} rows, {size_text(size)} -> {out}{faster}")


def cache_one(
    keep: Callable[[T], bool], read: Callable[[T], Iterable[Sentence]], item: T
) -> tuple[int, float | None, float]:
    """Rows of an item, seconds to make and keep it (None: it was kept before), and to read it again."""
    started = time.perf_counter()
    made_s = time.perf_counter() - started if keep(item) else None
    started = time.perf_counter()
    n_rows = sum(1 for _ in read(item))
    return n_rows, made_s, time.perf_counter() - started


def files_with_raw(config: DataConfig) -> list[Path]:
    """The result files that have raw folders below root, the first `limit` of them."""
    from spikeloom.bci.raw.folder import find_runs

    root = root_of(config)
    found = find_files(root)
    with_raw = [file for file in found if find_runs(root, recording_of(file))]
    if not with_raw:
        raise ValueError(
            f"{root} holds {len(found)} result files and no continuous EEG (<SUBJECT>_<RUN>_EEG.mat with _ET.mat "
            "beside it); put the raw folders of version 1 there, or synthesize with raw=true"
        )
    return with_raw[: config.limit or None]


def features(config: DataConfig) -> None:
    """Recompute the features of every block with continuous EEG and say how far they lie from those of the file."""
    worst, files = 0.0, files_with_raw(config)
    print(f"  {'file':22s} {'blocks':>6s} {'sentences':>9s} {'vectors':>8s} {'NaN alike':>14s} {'relative error':>14s}")
    found = worked_on(partial(recomputed, root_of(config)), files, "reading recordings", config.processes)
    for file, (n_blocks, n_sentences, n_vectors, alike, error) in found:
        worst = max(worst, error)
        print(f"  {file.name:22s} {n_blocks:6d} {n_sentences:9d} {n_vectors:8d} {alike:14d} {error:14.2e}")
    print(f"largest relative error {worst:.2e}")


def recomputed(root: Path, file: Path) -> tuple[int, int, int, int, float]:
    """Blocks, sentences, vectors, pairs that are both NaN or both not, and the largest relative error of a recording
    whose features are computed again from continuous EEG."""
    from spikeloom.bci.raw.folder import read_records
    from spikeloom.bci.raw.sentences import sentences_of

    rows = list(read_sentences(file))
    n_blocks, n_sentences, errors, alike = 0, 0, [0.0], 0
    for record in read_records(root, recording_of(file), rows):
        n_blocks += 1
        for found in sentences_of(record):
            kept = rows[found.index]
            n_sentences += 1
            pairs = [(kept.eeg, found.eeg)]
            for a, b in zip(kept.words, found.words, strict=True):
                pairs += [(a.eeg.get(measure), b.eeg.get(measure)) for measure in MEASURES]
            both = [(a, b) for a, b in pairs if a is not None and b is not None]
            alike += sum(bool(np.isnan(a).all() == np.isnan(b).all()) for a, b in both)
            errors += [relative_error(a, b) for a, b in both if not (np.isnan(a).any() or np.isnan(b).any())]
    return n_blocks, n_sentences, len(errors) - 1, alike, max(errors)


def relative_error(kept: np.ndarray, found: np.ndarray) -> float:
    """Largest |found - kept| / kept over features that are not zero."""
    there = kept != 0
    return float((np.abs(found - kept)[there] / np.abs(kept[there])).max()) if there.any() else 0.0


def epochs(config: DataConfig) -> None:
    """Write MNE epochs of every block with continuous EEG: SUBJECT_RUN_UNIT-epo.fif."""
    from spikeloom.bci.raw.objects import epochs_of

    out = out_folder(config)
    n_files = n_epochs = 0
    for record in records_of(config):
        made = epochs_of(record, unit=config.epoch)
        path = out / f"{record.recording.subject}_{record.run}_{config.epoch}-epo.fif"
        out.mkdir(parents=True, exist_ok=True)
        made.save(path, overwrite=True, verbose="error")
        n_files, n_epochs = n_files + 1, n_epochs + len(made)
    print(f"{n_epochs:,} epochs by {config.epoch} of {n_files} blocks -> {out}; mne.read_epochs(FILE) opens one")


def records_of(config: DataConfig) -> Iterator[Any]:
    """Blocks with continuous EEG, of ZuCo or of a reading corpus in BIDS."""
    if config.dataset == "bids_reading":
        from spikeloom.bci.raw.bids_corpus import BIDSReadingConfig

        corpus = BIDSReadingConfig(root=config.root or "", cap=config.cap, unit=config.unit, rename=config.rename)
        yield from itertools.islice(corpus.build().records(), config.limit or None)
        return
    from spikeloom.bci.raw.folder import read_records

    for file in watch(files_with_raw(config), "reading recordings"):
        yield from read_records(root_of(config), recording_of(file), list(read_sentences(file)))


def bids(config: DataConfig) -> None:
    """Write every block with continuous EEG as BIDS."""
    from spikeloom.bci.raw.bids import write_bids

    root, out = root_of(config), out_folder(config)
    told = root / TOLD
    generator = read_object(told, "synthesize the files again") if told.is_file() else None
    name = "Synthetic reading, in the shape of ZuCo" if generator else "ZuCo, continuous EEG and gaze"
    n_records = write_bids(out, records_of(config), name, generator)
    print(f"{n_records} blocks of {root} as BIDS -> {out}")
