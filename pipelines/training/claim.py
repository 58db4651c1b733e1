"""Who may write a run directory: one process at a time, never over files that are not ours, never as another run.

`overwrite=true` moves a run aside before it is deleted, and refuses a folder that is not a run or holds anything no run
writes. `resume=true` goes on with the same settings alone. A run that fails before it wrote anything leaves nothing.
"""

import logging
import os
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from omegaconf.errors import OmegaConfBaseException

from spikeloom.accel.common.files import first_few, read_object, sweep_partials
from spikeloom.accel.common.report import results_come_first
from spikeloom.pipelines.config.groups import GROUPS
from spikeloom.pipelines.config.train import TrainConfig
from spikeloom.pipelines.training.launch import is_first
from spikeloom.pipelines.training.run_dir import hyperparameters, load_config, read_yaml, save_config

log = logging.getLogger("spikeloom")
# What runs write; folders that are runs themselves (a speaker left out, a stage of a curriculum) come with it.
WRITTEN = (
    "config.yaml", "metrics.csv", "result.json", "report.html", "pruning.csv", "checkpoints", "model", "epochs",
    "export", "sim", "audit", "split", "controls*", "evaluation*.json", "evaluation*.html", "predictions-*.txt",
    "speakers.json", "stage.json", "curriculum.json", "curriculum.csv", "seeds.csv", "chapter.html", ".*.partial",
    ".lock", "logs",
)  # fmt: skip
KEYS = ("name", "seed", "data", "features", "model", "optimizer", "trainer")  # of every config.yaml of ours


@contextmanager
def claim(
    config: TrainConfig, *, result: str = "result.json", same: bool = True, may_grow: Collection[str] = ()
) -> Iterator[dict[str, Any] | None]:
    """Hold `config.run` while the block trains into it, with config.yaml written.

    Args:
        config: names the folder, and says whether to resume or overwrite.
        result: the file that a finished run has.
        same: whether a resumed run must have the settings it began with.
        may_grow: settings that may be larger than when it began.

    Yields:
        The content of `result` of a run that is finished and to be resumed, else None.

    Raises:
        ValueError: the folder is taken, is no run, holds files of others, began with other settings, or is being
            trained by another process.
    """
    run, aside = Path(config.run), None
    if config.trainer.fast_dev_run:  # writes nothing, and so disturbs no run that lies there
        yield None
        return
    if not is_first():  # of processes that train together the first one claims
        over = config.resume and not config.overwrite and same and (run / result).exists()
        yield read_object(run / result, "add overwrite=true to train it anew") if over else None
        return
    if run.exists() and not run.is_dir():
        raise ValueError(f"run={run} is a file; give another run=FOLDER")
    if holds_a_run(run):
        if config.overwrite:
            require_ours(run)
            with locked(run):
                aside = run.with_name(f".{run.name}.{secrets.token_hex(4)}.overwritten")
                os.replace(run, aside)
        elif not config.resume:
            raise ValueError(f"run={run} already exists; add resume=true to go on, overwrite=true to start anew")
        elif same:
            require_same(run, config, result, may_grow)
    run.mkdir(parents=True, exist_ok=True)
    with locked(run):
        for folder in (run, run / "checkpoints"):
            sweep_partials(folder)
        if (run / result).exists() and same:
            log.info("%s is finished; nothing to resume", run)
            yield read_object(run / result, "add overwrite=true to train it anew")
            return
        save_config(run, config)
        if aside is not None:
            shutil.rmtree(aside)
        try:
            yield None
        except BaseException:
            if not holds_a_run(run):
                shutil.rmtree(run)
            raise


def redraw_missing(run: Path, draw: Callable[[], object]) -> None:
    """Draw report.html of a finished run that was killed between its results and the page."""
    page = run / "report.html"
    if is_first() and not page.exists():
        with results_come_first(page):
            draw()


def holds_a_run(run: Path) -> bool:
    """Whether there is anything to lose: more than the settings and partial files of a run that never began."""
    if not run.is_dir():
        return False
    names = {path.name for path in run.iterdir()}
    rest = {name for name in names if not fnmatch(name, ".*.partial") and name != ".lock"}
    return bool(rest - {"config.yaml", "stage.json"}) or ("config.yaml" in rest and not is_ours(run))


def is_ours(run: Path) -> bool:
    """Whether config.yaml is that of a training."""
    try:
        values = read_yaml(run / "config.yaml")
        return all(key in values for key in KEYS) and values["data"]["source"] in GROUPS["data"]
    except (ValueError, TypeError, LookupError, AttributeError, OmegaConfBaseException):
        return False


def require_ours(run: Path) -> None:
    """Raise ValueError unless everything in the folder was written by a training."""
    if not is_ours(run):
        raise ValueError(
            f"run={run} is not a spikeloom run directory (no config.yaml of a training); overwrite=true would delete "
            "it: give another run=FOLDER"
        )
    foreign = sorted(
        path.name for path in run.iterdir()
        if not any(fnmatch(path.name, name) for name in WRITTEN) and not (path.is_dir() and is_ours(path))
    )  # fmt: skip
    if foreign:
        raise ValueError(
            f"run={run} holds {first_few(foreign)}, which no training wrote and overwrite=true would delete; move it "
            "away, or give another run=FOLDER"
        )


def require_same(run: Path, config: TrainConfig, result: str, may_grow: Collection[str] = ()) -> None:
    """Raise ValueError where a run began with settings that decide its outcome and are others now."""
    before, now = hyperparameters(load_config(run)), hyperparameters(config)
    differing = [
        f"{name}={before.get(name)} (now {value})" for name, value in now.items()
        if before.get(name) != value and not (name in may_grow and value > before.get(name, 0))
    ]  # fmt: skip
    if differing:
        state = "finished" if (run / result).exists() else "begun"
        raise ValueError(
            f"run={run} was {state} with {first_few(differing)}; set it back, give another run=FOLDER, or add "
            "overwrite=true to train it anew"
        )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder against other processes; released when the process ends, however it does.

    Raises ValueError where another process holds it.
    """
    busy = ValueError(f"run={folder} is being written by another process; wait for it, or give another run=FOLDER")
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        with (folder / ".lock").open("a+b") as file:
            try:
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
            except OSError:
                raise busy from None
            yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise busy from None
        yield
    finally:
        os.close(descriptor)
