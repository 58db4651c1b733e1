"""`spikeloom bench zuco rows=22000`: memory and time of files of ZuCo's size, from parsing to samples in memory.

The set has the published shape: 12 readers of SR, NR and TSR of version 1, 18 of NR and TSR of version 2, as many rows
a file as were published. One file a task is written, of a few sentences again and again; the other readers are links
to it, so that the set costs little to make and every row is read, row by row, as from files of their own.
"""

import os
import resource
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from bci.zuco.cache import cached_sentences
from bci.zuco.quality import quality_table
from bci.zuco.reader import find_files, read_sentences
from bci.zuco.records import BLOCKS, SUBJECTS
from bci.zuco.samples import SamplesConfig
from bci.zuco.synthetic import SyntheticZuCoConfig
from bci.zuco.write_matlab5 import write_matlab5

BANK = 24  # different sentences
PUBLISHED_ROWS = sum(sum(sizes) * len(SUBJECTS[version]) for (version, _), sizes in BLOCKS.items())


def print_zuco(rows: int) -> None:
    """A line a stage. rows: about how many; readers are left out until the set has no more, files get shorter below."""
    if not 1 <= rows <= PUBLISHED_ROWS:
        raise ValueError(f"rows={rows}; use 1 to {PUBLISHED_ROWS}, as many as ZuCo has")
    with TemporaryDirectory() as folder:
        root = Path(folder)
        print(f"  {'stage':34s} {'rows':>8s} {'seconds':>8s} {'peak RSS':>9s}")
        told("start", 0, time.perf_counter())
        started = time.perf_counter()
        n_readers, n_rows = write_set(root, rows)
        size = sum(path.stat().st_size for path in find_files(root))
        told(f"files written, {n_readers} readers", n_rows, started)
        started = time.perf_counter()
        samples = SamplesConfig().build()
        table = [row for path in find_files(root) for row in quality_table(read_sentences(path), samples)]
        n_read = sum(int(row["n_rows"] or 0) for row in table)
        told("every row parsed and counted", n_read, started)
        started = time.perf_counter()
        caches = [cached_sentences(path, root / "cache") for path in find_files(root)]
        told("every file cached", sum(map(len, caches)), started)
        started = time.perf_counter()
        n_again = sum(1 for cache in caches for _ in cache)
        told("every record read from the caches", n_again, started)
        started = time.perf_counter()
        tokens = [sample.eeg for cache in caches for sample in samples.of(cache)]
        told("all samples in memory, unpadded", len(tokens), started)
        held = sum(eeg.nbytes for eeg in tokens)
        print(
            f"  {size / 1e9:.2f} GB of result files if every reader had their own; samples: "
            f"{sum(map(len, tokens)):,} tokens, {held / 1e6:,.0f} MB"
        )


def write_set(root: Path, rows: int) -> tuple[int, int]:
    """The files below `root`; returns readers and rows."""
    share = min(1.0, rows / PUBLISHED_ROWS)
    shorter = 1.0
    if rows < PUBLISHED_ROWS // max(map(len, SUBJECTS.values())):  # fewer rows than one reader has
        shorter = rows / (PUBLISHED_ROWS // max(map(len, SUBJECTS.values())))
    n_rows, readers = 0, set[str]()
    for (version, task), sizes in BLOCKS.items():
        subjects = SUBJECTS[version][: max(1, round(share * len(SUBJECTS[version])))]
        made = SyntheticZuCoConfig(version=version, task=task, n_subjects=1, n_sentences=BANK, missing=0.02).build()
        bank = list(made)
        n = max(1, round(shorter * sum(sizes)))
        first = root / f"zuco{version}" / task / f"results{subjects[0]}_{task}.mat"
        write_matlab5(first, [replace(bank[i % BANK], index=i) for i in range(n)])
        for subject in subjects[1:]:
            os.link(first, first.with_name(f"results{subject}_{task}.mat"))
        n_rows += n * len(subjects)
        readers.update(subjects)
    return len(readers), n_rows


def told(stage: str, rows: int, started: float) -> None:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"  {stage:34s} {rows:8,d} {time.perf_counter() - started:8.1f} {peak:6,.0f} MB", flush=True)
