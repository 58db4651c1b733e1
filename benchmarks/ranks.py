"""`spikeloom bench ranks`: what a training gains from several processes of one thread each, and where it loses.

Recipes are trained as `spikeloom train` trains them, in four ways that take turns of some steps, so that other work on
the machine affects all of them equally; B is the joint batch, n the number of processes:

    whole    one process with batches of B
    part     one process with batches of B / n      whole / (n part): what small batches cost
    beside   n of them, independent of one another  part / beside: what sharing caches and memory costs
    joint    n processes of trainer=ddp             beside / joint: what exchanging gradients and waiting cost

    efficiency = whole / (n joint), the product of the three

A step lasts from its start to the start of the next, reading the batch included; validation and checkpoints are left
out. A turn's step is the median of its steps, of several processes the mean. Each of several processes keeps to a core
of its own. By processor time, on a busy machine, waiting for one another is left out.
"""

import os
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from importlib import import_module
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory
from typing import Any

from lightning.pytorch.callbacks import Callback

from spikeloom.benchmarks.measure import clock, now_s, prepare
from spikeloom.pipelines import cli
from spikeloom.pipelines.config.bench import RanksBenchConfig

DEFAULT = ("spikescr_synthetic", "spikingformer_digits", "cet_mae_synthetic")  # which need no data
WAYS = ("whole", "part", "beside", "joint")
CONTEXT: Any = get_context("fork" if sys.platform == "linux" else "spawn")
WARM = ("classification", "distillation")  # of pipelines.training: imported once where processes are forked
_pipe: Connection | None = None  # of a training's process


class Turns(Callback):
    """Does as many training steps as the parent asks for, then reports their seconds and waits."""

    def __init__(self) -> None:
        self.left, self.began = 0, 0.0  # 0: no step of this epoch and turn has begun
        self.times: list[float] = []

    def on_train_epoch_start(self, *given: Any) -> None:
        self.began = 0.0

    def on_train_batch_start(self, *given: Any) -> None:
        if self.began:
            self.times.append(now_s() - self.began)
        if not self.left:
            assert _pipe is not None
            _pipe.send(self.times)
            self.left, self.times = _pipe.recv(), []
            if not self.left:
                os._exit(0)  # what is left of the training is not measured
        self.left -= 1
        self.began = now_s()


def _train(
    pipe: Connection, said: Path, line: Sequence[str], variables: Mapping[str, str], core: int | None, processor: bool
) -> None:  # fmt: skip
    """In a process: a training whose messages go to the file `said`."""
    global _pipe
    _pipe = pipe
    os.environ |= {"OMP_NUM_THREADS": "1", **variables}
    if core is not None:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[core % len(cores)]})
    prepare(1, processor)
    with said.open("w") as opened:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(opened.fileno(), stream.fileno())
        cli.main(list(line))


class Trainings:
    """Processes that do their steps at the same time."""

    def __init__(self, lines: Sequence[Sequence[str]], variables: Sequence[Mapping[str, str]], folder: Path) -> None:
        self.pipes: list[Connection] = []
        self.said = [folder / f"said{i}" for i in range(len(lines))]
        self.processes = []
        folder.mkdir()
        for i, (line, own, said) in enumerate(zip(lines, variables, self.said, strict=True)):
            ours, theirs = CONTEXT.Pipe()
            core = i if len(lines) > 1 and hasattr(os, "sched_setaffinity") else None
            given = (theirs, said, line, own, core, clock() == "processor time")
            process = CONTEXT.Process(target=_train, args=given, daemon=True)
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)

    def turn(self, steps: int, of: int | None = None) -> float:
        """Median seconds of so many steps, of the first `of` processes alone (None: all), and the mean of theirs.

        Raises ValueError where a training ended, or an epoch holds a single step.
        """
        for pipe in self.pipes[:of]:
            pipe.send(steps)
        times = self.ready(of)
        if not all(times):
            raise ValueError("no step follows another in its epoch; use a smaller ranks.batch")
        return mean(median(of_process) for of_process in times)

    def ready(self, of: int | None = None) -> list[list[float]]:
        """Wait until the next step would begin; seconds of those since the last wait."""
        found = []
        for pipe, said in list(zip(self.pipes, self.said, strict=True))[:of]:
            try:
                found.append(pipe.recv())
            except EOFError as error:
                last = said.read_text(errors="replace").splitlines()[-1:]
                raise ValueError(f"a training ended before its turn: {' '.join(last)}") from error
        return found

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()


def verb_of(experiment: str) -> str:
    return "distill" if experiment.startswith("kdcl") else "pretrain" if experiment.startswith("cet_mae") else "train"


def measured(experiment: str, config: RanksBenchConfig, turns: int) -> Iterator[dict[str, float]]:
    """Seconds a step of each way, turn by turn, after one turn that is not counted."""
    n = config.devices
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))

        def line(name: str, batch: int) -> list[str]:
            return [
                verb_of(experiment), f"experiment={experiment}", f"run={folder}/{name}", f"trainer.batch_size={batch}",
                "trainer.threads=1", "trainer.epochs=100000", "trainer.limit_val_batches=2",
                f"+callbacks.turns._target_={__name__}.Turns", *config.settings,
            ]  # fmt: skip

        ways: dict[str, tuple[list[list[str]], list[dict[str, str]]]] = {
            "whole": ([line("whole", config.batch)], [{}]),
            "beside": ([line(f"beside{i}", config.batch // n) for i in range(n)], [{}] * n),
            "joint": ([[*line("joint", config.batch // n), "trainer=ddp", f"trainer.devices={n}"]] * n, ranks(n)),
        }
        started = {}
        for name, (lines, variables) in ways.items():
            started[name] = Trainings(lines, variables, folder / f"said_{name}")
            stack.callback(started[name].end)
        for trainings in started.values():
            trainings.ready()
        for turn in range(turns + 1):
            found = {
                "whole": started["whole"].turn(config.steps),
                "part": started["beside"].turn(config.steps, 1),
                "beside": started["beside"].turn(config.steps),
                "joint": started["joint"].turn(config.steps),
            }
            if turn:
                yield found


def ranks(n: int) -> list[dict[str, str]]:
    """The variables by which Lightning finds `n` processes of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    joint = {
        "WORLD_SIZE": str(n), "LOCAL_WORLD_SIZE": str(n), "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "bench",
    }  # fmt: skip
    return [{**joint, "RANK": str(i), "LOCAL_RANK": str(i)} for i in range(n)]


def losses(seconds: Mapping[str, float], n: int) -> dict[str, float]:
    """The efficiency of `n` processes and the three factors that it is the product of, by the names of this module."""
    whole, part, beside, joint = (seconds[way] for way in WAYS)
    return {
        "batch": whole / (n * part), "sharing": part / beside, "exchange": beside / joint,
        "efficiency": whole / (n * joint),
    }  # fmt: skip


def print_ranks(config: RanksBenchConfig, repeats: int) -> None:
    """A line for each recipe: median milliseconds a step of each way, and medians of the factors over the turns.

    Raises ValueError for a batch that the processes cannot share equally, and where a training refuses its keys.
    """
    if config.devices < 2 or config.batch % config.devices or config.batch < 1 or config.steps < 2:
        raise ValueError(
            f"ranks.batch={config.batch} is not shared equally by ranks.devices={config.devices}, or ranks.steps="
            f"{config.steps} are less than 2; use at least two devices, and a multiple of them as batch"
        )
    print(
        f"{config.devices} processes of one thread, joint batch {config.batch}, {repeats} turns of {config.steps} steps"
    )
    names = ("batch", "sharing", "exchange", "efficiency")
    print(f"{'':24s} " + " ".join(f"{way + ', ms':>10s}" for way in WAYS) + "".join(f"{name:>11s}" for name in names))
    for module in WARM:
        import_module(f"spikeloom.pipelines.training.{module}")
    for experiment in config.experiments or DEFAULT:
        turns = list(measured(experiment, config, repeats))
        factors = [losses(seconds, config.devices) for seconds in turns]
        ms = " ".join(f"{1e3 * median(t[way] for t in turns):10.1f}" for way in WAYS)
        shown = "".join(f"{median(f[name] for f in factors):11.2f}" for name in names)
        low, high = min(f["efficiency"] for f in factors), max(f["efficiency"] for f in factors)
        print(f"{experiment:24s} {ms}{shown} ({low:.2f} to {high:.2f})", flush=True)
