"""`spikeloom data check dataset=zuco root=FOLDER [out=FILE.csv]`: read every row of every ZuCo result file below FOLDER
once, and print what is whole, missing, rejected and dropped; FILE gets the whole quality table."""

import os
import sys
from pathlib import Path
from typing import Any

from bci.zuco.quality import quality_table, write_quality
from bci.zuco.reader import file_format, find_files, read_sentences, recording_of
from bci.zuco.records import BLOCKS
from bci.zuco.samples import SamplesConfig
from pipelines.data import watch
from pipelines.schema import DataConfig

SHOWN = ("n_rows", "n_missing_sentence", "n_sentence_nan", "n_words", "n_unfixated", "n_nan_fixation", "n_kept")


def check(config: DataConfig) -> None:
    """Exits with 1 after one line for each problem."""
    root = Path(config.root or Path(os.environ.get("SPIKELOOM_DATA", "data")) / "zuco")
    out = Path(config.out)
    files = find_files(root)
    samples = SamplesConfig().build()
    table: list[dict[str, Any]] = []
    problems = []
    print(f"zuco in {root}")
    print(f"  {'file':22s} {'format':8s} {'MB':>8s} " + " ".join(f"{name:>18s}" for name in SHOWN))
    for file in watch(files, "reading files"):
        try:
            kind, recording = file_format(file), recording_of(file)
            rows = quality_table(read_sentences(file), samples)
        except (ValueError, OSError) as error:
            problems.append(str(error))
            continue
        if not rows:
            problems.append(f"{file} holds no row; download it again")
            continue
        row: dict[str, Any] = rows[0]  # a file is one subject and task
        table.append(row)
        size = f"{file.stat().st_size / 1e6:,.1f}"
        print(f"  {file.name:22s} {kind:8s} {size:>8s} " + " ".join(f"{row[name]:18,d}" for name in SHOWN))
        published = sum(BLOCKS.get((recording.version, recording.task), ()))
        if row["n_rows"] != published:
            print(f"    {row['n_rows']:,} rows, as published {published:,}: not a whole recording")
    if table and out.suffix == ".csv":
        write_quality(out, table)
        print(f"quality table -> {out}")
    for problem in problems:
        print(f"problem: {' '.join(problem.split())}")
    if problems:
        sys.exit(1)
    print("no problem found")
