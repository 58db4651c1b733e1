"""`spikeloom bench zuco rows=22000`: memory and time of files of ZuCo's size, from parsing to samples in memory.

The set has the published shape: 12 readers of SR, NR and TSR of version 1, 18 of NR and TSR of version 2, as many rows
a file as were published. One file a task is written, of a few sentences again and again; the other readers are links
to it and to its cache, so that the set is quickly made and every row is read as from separate files.
"""

import os
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from spikeloom.accel.common.units import size_text
from spikeloom.bci.synthetic.zuco import SyntheticZuCoConfig
from spikeloom.bci.zuco.cache import CachedSentences, cache_file, cached_sentences
from spikeloom.bci.zuco.quality import quality_table
from spikeloom.bci.zuco.reader import find_files, read_sentences
from spikeloom.bci.zuco.records import BLOCKS, SUBJECTS
from spikeloom.bci.zuco.samples import SamplesConfig
from spikeloom.bci.zuco.write_matlab5 import write_matlab5
from spikeloom.benchmarks.measure import peak_mb

BANK = 24  # different sentences
PUBLISHED_ROWS = sum(sum(sizes) * len(SUBJECTS[version]) for (version, _), sizes in BLOCKS.items())


def print_zuco(rows: int, bank: int = BANK) -> None:
    """A line a stage. rows: about how many; readers are left out until the set has no more, files get shorter below.
    bank: different sentences a task."""
    if not 1 <= rows <= PUBLISHED_ROWS:
        raise ValueError(f"rows={rows}; use 1 to {PUBLISHED_ROWS}, as many as ZuCo has")
    with TemporaryDirectory() as folder:
        root = Path(folder)
        print(f"  {'stage':34s} {'rows':>8s} {'seconds':>8s} {'peak RSS':>9s}")
        told("start", 0, time.perf_counter())
        started = time.perf_counter()
        n_readers, n_rows = write_set(root, rows, bank)
        size = sum(path.stat().st_size for path in find_files(root))
        told(f"files written, {n_readers} readers", n_rows, started)
        started = time.perf_counter()
        caches = cache_set(find_files(root), root / "cache")
        told("a file of each task parsed, cached", sum(map(len, caches[: len(BLOCKS)])), started)
        started, samples = time.perf_counter(), SamplesConfig().build()
        n_kept = sum(int(row["n_kept"] or 0) for cache in caches for row in quality_table(cache, samples))
        told("every row read from its cache", n_rows, started)
        started = time.perf_counter()
        tokens = [sample.eeg for cache in caches for sample in samples.of(cache)]
        assert len(tokens) == n_kept
        told("all samples in memory, unpadded", len(tokens), started)
        held = f"{sum(map(len, tokens)):,} tokens, {size_text(sum(eeg.nbytes for eeg in tokens))}"
        del tokens
        started = time.perf_counter()
        table = [row for path in find_files(root) for row in quality_table(read_sentences(path), samples)]
        told("every row parsed and counted", sum(int(row["n_rows"] or 0) for row in table), started)
        print(f"  {size_text(size)} of result files if every reader had their own; samples: {held}")


def cache_set(files: list[Path], folder: Path) -> list[CachedSentences]:
    """The caches of all files, those of one file a task first; the others are links, as their files are."""
    made: dict[int, Path] = {}  # inode of a result file -> its cache
    for path in files:
        inode = path.stat().st_ino
        if inode not in made:
            cached_sentences(path, folder)
            made[inode] = cache_file(path, folder)
        else:
            os.link(made[inode], cache_file(path, folder))
    firsts = set(made.values())
    order = sorted(files, key=lambda path: cache_file(path, folder) not in firsts)
    return [cached_sentences(path, folder) for path in order]


def write_set(root: Path, rows: int, n_bank: int) -> tuple[int, int]:
    """The files below `root`; returns readers and rows."""
    share = min(1.0, rows / PUBLISHED_ROWS)
    shorter = 1.0
    if rows < PUBLISHED_ROWS // max(map(len, SUBJECTS.values())):  # fewer rows than one reader has
        shorter = rows / (PUBLISHED_ROWS // max(map(len, SUBJECTS.values())))
    n_rows, readers = 0, set[str]()
    for (version, task), sizes in BLOCKS.items():
        subjects = SUBJECTS[version][: max(1, round(share * len(SUBJECTS[version])))]
        made = SyntheticZuCoConfig(version=version, task=task, n_subjects=1, n_sentences=n_bank, missing=0.02).build()
        bank = list(made)
        n = max(1, round(shorter * sum(sizes)))
        first = root / f"zuco{version}" / task / f"results{subjects[0]}_{task}.mat"
        write_matlab5(first, [replace(bank[i % n_bank], index=i) for i in range(n)])
        for subject in subjects[1:]:
            os.link(first, first.with_name(f"results{subject}_{task}.mat"))
        n_rows += n * len(subjects)
        readers.update(subjects)
    return len(readers), n_rows


def told(stage: str, rows: int, started: float) -> None:
    """A line with the peak memory since the last one; since the start where the kernel does not let it be reset."""
    print(f"  {stage:34s} {rows:8,d} {time.perf_counter() - started:8.1f} {peak_mb():6,.0f} MB", flush=True)
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
