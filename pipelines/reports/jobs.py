"""The jobs of a sweep in one table, whatever process they ran in: what differed, what came out, where it lies."""

import csv
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from spikeloom.accel.common.files import whole

JOBS = "SPIKELOOM_JOBS"  # environment variable: the file to which the jobs of a sweep add a line each
SHOWN = ("valid_accuracy", "test_accuracy", "valid_loss", "seconds")  # of result.json


@dataclass(frozen=True, kw_only=True)
class Job:
    """One job: its overrides, its value for a sweeper, its run directory and results."""

    number: int
    overrides: dict[str, str]
    value: float | None = None
    run: str | None = None
    results: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    error: str = ""


@contextmanager
def collecting(folder: Path) -> Iterator[Callable[[], list[Job]]]:
    """Inside the block, jobs leave their results in `folder`; the function that it yields reads them, in order."""
    listed = folder / "jobs.jsonl"
    listed.touch()
    before = os.environ.get(JOBS)
    os.environ[JOBS] = str(listed)

    def done() -> list[Job]:
        lines = listed.read_text("utf-8").splitlines()
        return sorted((Job(**json.loads(line)) for line in lines), key=lambda job: job.number)

    try:
        yield done
    finally:
        os.environ.pop(JOBS)
        if before is not None:
            os.environ[JOBS] = before


def objective(config: Any, found: Any) -> float | None:
    """The number of a job that a sweeper makes small: what the verb returned, else the error on validation."""
    if isinstance(found, int | float) and not isinstance(found, bool):
        return float(found)
    results = _results(getattr(config, "run", None))
    return 1 - results["valid_accuracy"] if "valid_accuracy" in results else results.get("valid_loss")


def leave(config: Any, value: float | None, seconds: float, error: str = "") -> None:
    """Add a job's line to the list of its sweep; nothing outside a sweep.

    Args:
        config: the job's configuration, whose `run` is its run directory; None for one that was refused.
        value: its `objective`.
        seconds: how long it took.
    """
    if JOBS not in os.environ:
        return
    from hydra.core.hydra_config import HydraConfig

    hydra = HydraConfig.get()
    run = getattr(config, "run", None)
    job = Job(
        number=hydra.job.num,
        overrides=dict(o.lstrip("+").split("=", 1) for o in hydra.overrides.task if "=" in o),
        value=value,
        run=run,
        results=_results(run),
        seconds=round(seconds, 1),
        error=error,
    )
    with Path(os.environ[JOBS]).open("a", encoding="utf-8") as listed:
        listed.write(json.dumps(asdict(job)) + "\n")


def _results(run: str | None) -> dict[str, float]:
    """The scores in a run directory's result.json, if it has one."""
    path = Path(run or "") / "result.json"
    if run is None or not path.is_file():
        return {}
    found = json.loads(path.read_text("utf-8"))
    return {name: found[name] for name in SHOWN if isinstance(found.get(name), int | float)}


def failures(done: Sequence[Job]) -> str:
    """The jobs that failed, in one line; empty if none did."""
    keys = _telling(done)
    return "; ".join(
        f"job {job.number} ({' '.join(f'{key}={job.overrides.get(key)}' for key in keys)}): {job.error}"
        for job in done
        if job.error
    )


def _telling(done: Sequence[Job]) -> list[str]:
    """The keys that tell the jobs apart; all keys of a single one."""
    named = dict.fromkeys(name for job in done for name in job.overrides)
    return [key for key in named if len(done) == 1 or len({job.overrides.get(key) for job in done}) > 1]


def print_table(done: Sequence[Job]) -> None:
    """The table on the console, and as sweep.csv beside the run directories where there are some."""
    if not done:
        return
    keys = [key for key in _telling(done) if key != "run"]
    scores = list(dict.fromkeys(name for job in done for name in job.results if name != "seconds"))
    has_value = any(job.value is not None and job.value not in map(job.results.get, scores) for job in done)
    columns = ["job", *keys, *scores, *(["value"] if has_value else []), "seconds"]
    rows = [
        [str(job.number), *(job.overrides.get(key, "") for key in keys), *(_text(job.results.get(s)) for s in scores),
         *([_text(job.value)] if has_value else []), f"{job.results.get('seconds', job.seconds):.1f}"]
        for job in done
    ]  # fmt: skip
    widths = [max(len(row[i]) for row in (columns, *rows)) for i in range(len(columns))]
    for row in (columns, *rows):
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
    runs = [job.run for job in done]
    folders = [Path(run).absolute() for run in runs if run is not None]
    if len(folders) < len(runs) or len(set(folders)) < len(folders) or not all(folder.is_dir() for folder in folders):
        return
    path = Path(os.path.commonpath([folder.parent for folder in folders])) / "sweep.csv"
    with whole(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*columns, "run"])
        writer.writerows([*row, run] for row, run in zip(rows, runs, strict=True))
    print(f"-> {path}")


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
