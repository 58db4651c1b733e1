"""Sweeps that end in one table: `spikeloom simulate -m …` (designs, with a plot), `spikeloom engines -m …` (seeds).

Jobs may run in this process or in those of one of Hydra's launchers. Each leaves its result in a folder of its own and
adds that folder's path to a list; when the last one is done, the list becomes the table.
"""

import csv
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from spikeloom.accel.common.files import read_json, whole, write_json
from spikeloom.accel.common.report import render
from spikeloom.accel.trainer.schedule.pareto import Point, documents, sections
from spikeloom.accel.trainer.schedule.result import SimulationReport

LIST = "SPIKELOOM_SWEEP"  # environment variable: the file that lists the folders of a sweep's jobs


@contextmanager
def collecting(collect: Callable[[Sequence[Path]], None]) -> Iterator[None]:
    """Hand the folders that the jobs inside the block leave behind to `collect`."""
    with tempfile.TemporaryDirectory(prefix="spikeloom-") as folder:
        listed = Path(folder) / "jobs"
        listed.touch()
        os.environ[LIST] = str(listed)
        try:
            yield
        finally:
            del os.environ[LIST]
        jobs = [Path(line) for line in listed.read_text("utf-8").splitlines()]
        if jobs:
            collect(jobs)


def job_folder(out: Path, label: str) -> Path | None:
    """The folder of this job of a sweep, inside `out`; None outside a sweep."""
    if LIST not in os.environ:
        return None
    from hydra.core.hydra_config import HydraConfig

    number = HydraConfig.get().job.num if HydraConfig.initialized() else 0
    name = "".join(c if c.isalnum() or c in "._=-" else "_" for c in label)
    return out / f"{number:03d}_{name}"


def leave(folder: Path) -> None:
    """Note that a job has left its result in `folder`."""
    with Path(os.environ[LIST]).open("a", encoding="utf-8") as listed:
        listed.write(f"{folder.resolve()}\n")


def leave_point(folder: Path, report: SimulationReport, label: str) -> None:
    """Note the result of a simulation."""
    write_json(folder / "point.json", asdict(Point.of(report, label)))
    leave(folder)


def compare_designs(jobs: Sequence[Path]) -> None:
    """sweep.json, sweep.csv and sweep.html beside the folders of the jobs, and the table on the console."""
    points = [Point.from_document(read_json(job / "point.json", "run the sweep again")) for job in sorted(jobs)]
    out = Path(os.path.commonpath([job.parent for job in jobs]))
    rows = documents(points)
    write_json(out / "sweep.json", rows)
    with whole(out / "sweep.csv") as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    found = sections(points)
    render(
        "Designs compared", f"{len(points)} simulations of a training step. Energies are those of the chip models, not "
        "measurements of silicon.", found, out / "sweep.html",
    )  # fmt: skip
    table = found[-1].table
    assert table is not None
    cells = [[str(cell) for cell in row] for row in (table.columns, *table.rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(table.columns))]
    for row in cells:
        print("  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip())
    print(f"-> {out / 'sweep.html'}")
