"""`spikeloom data check dataset=zuco root=FOLDER [out=FILE.csv]`: read every row of every ZuCo result file below FOLDER
once, and print what is whole, missing, rejected and dropped; FILE gets the whole quality table.
`spikeloom data describe dataset=zuco root=FOLDER out=FILE.html`: the same as a page with rates, spectrum and maps.

FOLDER is the download as published, under any folder names, or what `spikeloom data synthesize` wrote. Of
dataset=zuco_3_tasks and its like, only the files of those tasks are read."""

import logging
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from spikeloom.accel.common.units import size_text
from spikeloom.bci.data.tokenizer import TextTokenizer, load_tokenizer
from spikeloom.bci.raw.folder import find_runs
from spikeloom.bci.reports.page import Findings, eeg_report
from spikeloom.bci.zuco import leakage
from spikeloom.bci.zuco.quality import quality_table, write_quality
from spikeloom.bci.zuco.reader import file_format, find_files, read_sentences, recording_of
from spikeloom.bci.zuco.records import BLOCKS, Sentence
from spikeloom.bci.zuco.samples import Samples, SamplesConfig
from spikeloom.bci.zuco.source import ZuCoConfig
from spikeloom.bci.zuco.splits import SPLITS, Row, Split, SplitConfig, row_of
from spikeloom.bci.zuco.summary import summarise
from spikeloom.pipelines.config.data import DataConfig
from spikeloom.pipelines.training.runtime import watch, worked_on

log = logging.getLogger("spikeloom")
SHOWN = ("n_rows", "n_missing_sentence", "n_sentence_nan", "n_words", "n_unfixated", "n_nan_fixation", "n_kept")
WRONG = ("no_text", "text_mismatch", "gaze", "not_finite", "flat", "scale")  # of a faulty export
SPECTRUM_ROWS = 5  # of every file: their raw EEG is read for the spectrum


def root_of(config: DataConfig) -> Path:
    if config.dataset == "synthetic_zuco":
        raise ValueError(
            "synthetic_zuco is made in memory; write it with `spikeloom data synthesize dataset=zuco out=FOLDER`, then "
            f"`spikeloom data {config.what} dataset=zuco root=FOLDER`"
        )
    return Path(config.root or Path(os.environ.get("SPIKELOOM_DATA", "data")) / "zuco")


def token_counter() -> Callable[[str], int] | None:
    """How many tokens BART makes of a text, specials included; None without its tokenizer below the data folder."""
    folder = Path(os.environ.get("SPIKELOOM_DATA", "data")) / "tokenizer" / "bart"
    if not (folder / "tokenizer.json").is_file():
        return None
    return partial(n_tokens, load_tokenizer(folder))


def n_tokens(tokenizer: TextTokenizer, text: str) -> int:
    return len(tokenizer.bpe.encode(text, add_special_tokens=False).ids) + 2


def files_of(root: Path, source: ZuCoConfig | None) -> list[Path]:
    """The result files below a folder; those of some tasks and readers where a source of a training chooses them."""
    return find_files(root) if source is None else list(replace(source, root=str(root)).build().paths.values())


def check(config: DataConfig, source: ZuCoConfig | None = None) -> None:
    """Exits with 1 after one line for each problem."""
    root, out = root_of(config), Path(config.out)
    files, counted = files_of(root, source), partial(checked, SamplesConfig().build(), token_counter())
    table: list[dict[str, Any]] = []
    problems = []
    print(f"zuco in {root}")
    print(f"  {'file':22s} {'format':8s} {'size':>8s} " + " ".join(f"{name:>18s}" for name in SHOWN))
    for file, (kind, rows, problem) in worked_on(counted, files, "reading files", config.processes):
        if problem:
            problems.append(problem)
            continue
        recording, row = recording_of(file), rows[0]  # a file is one subject and task
        table.append(row)
        size = size_text(file.stat().st_size)
        print(f"  {file.name:22s} {kind:8s} {size:>8s} " + " ".join(f"{row[name]:18,d}" for name in SHOWN))
        published = sum(BLOCKS.get((recording.version, recording.task), ()))
        if row["n_rows"] != published:
            print(f"    {row['n_rows']:,} rows, as published {published:,}: not a whole recording")
        if runs := find_runs(root, recording):
            print(f"    continuous EEG and gaze of {len(runs)} blocks: {', '.join(runs)}")
    print_totals(table)
    if table and out.suffix == ".csv":
        write_quality(out, table)
        print(f"quality table -> {out}")
    for problem in problems:
        print(f"problem: {' '.join(problem.split())}")
    if problems:
        sys.exit(1)
    wrong = {name: sum(row[f"drop_reason_{name}"] for row in table) for name in WRONG}
    if any(wrong.values()):
        shown = ", ".join(f"{name.replace('_', ' ')} {n}" for name, n in wrong.items() if n)
        print(f"{sum(wrong.values())} rows are not as a reader leaves them ({shown}); they give no sample")
    else:
        print("no problem found")


def checked(
    samples: Samples, count_tokens: Callable[[str], int] | None, file: Path
) -> tuple[str, list[dict[str, Any]], str]:
    """Format and rows of the quality table of a file, and what is wrong with it ("": nothing)."""
    try:
        recording_of(file)
        rows = quality_table(read_sentences(file), samples, count_tokens)
    except (ValueError, OSError) as error:
        return "", [], str(error)
    return file_format(file), rows, "" if rows else f"{file} holds no row; download it again"


def print_totals(table: list[dict[str, Any]]) -> None:
    """Every count that is not zero, over all files."""
    from spikeloom.bci.reports.quality import MEANINGS

    if not table:
        return
    print("  all files")
    for name, meaning in MEANINGS.items():
        if any(row[name] is None for row in table):
            print(f"    {'not counted':>11s}  {name:28s} {meaning}: tokenizer/bart is not below the data folder")
        elif total := sum(row[name] for row in table):
            print(f"    {total:11,d}  {name:28s} {meaning}")


def describe(config: DataConfig, source: ZuCoConfig | None = None) -> None:
    """Write the page."""
    root, out = root_of(config), Path(config.out)
    files = files_of(root, source)
    rows: list[Row] = []

    def sentences() -> Iterator[Sentence]:
        for file in watch(files, "reading files"):
            for sentence in read_sentences(file):
                rows.append(row_of(sentence))
                yield sentence

    spectra = (s for file in files for s in islice(read_sentences(file, raw=True), SPECTRUM_ROWS))
    summary = summarise(sentences(), SamplesConfig().build(), token_counter(), spectra)
    split = split_of(config.split, rows)
    page = eeg_report(
        out,
        Findings(
            title="The ZuCo recordings",
            verdict=f"{summary.n_rows:,} sentences were shown in {len(files)} recordings (readers: "
            f"{len({row.subject for row in rows})}); {summary.n_kept:,} of them give a sample to learn from or be "
            "tested on.",
            summary=summary,
            leakage=[index_split(rows), *leakage.check_split(split)] if all(split.counts[s] for s in SPLITS) else (),
            config={
                "root": root, "split unit": split.config.unit, "split seed": split.config.seed,
                **{f"rows in {name}": count for name, count in split.counts.items()},
            },
        ),
    )  # fmt: skip
    log.info("zuco in %s -> %s", root, page)


def index_split(rows: list[Row]) -> leakage.Overlap:
    """What the usual split by place in each task's list would leak."""
    trials: dict[str, dict[int, str]] = {}
    readers: dict[str, set[str]] = {}
    for row in rows:
        trials.setdefault(row.task, {})[row.index] = row.text
        readers.setdefault(row.task, set()).add(row.subject)
    found = leakage.published_index_split(
        {task: [texts[i] for i in sorted(texts)] for task, texts in trials.items()},
        {task: len(who) for task, who in readers.items()},
    )
    return leakage.renamed(found, "by place in the list, test")


def split_of(config: SplitConfig, rows: list[Row]) -> Split:
    """The split asked for; by key, said once, where trials are too short for runs."""
    try:
        return config.build(rows)
    except ValueError as error:
        if config.unit == "key" or "too short" not in str(error):
            raise
        log.warning("%s; here the split is made by key", " ".join(str(error).split()))
        return SplitConfig(unit="key", seed=config.seed, valid=config.valid, test=config.test).build(rows)
