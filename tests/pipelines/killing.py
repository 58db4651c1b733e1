"""Kill a forked process at an exact point of its progress, and compare what it left with what an unbroken one leaves.

Points are counted in processor time (anywhere, in the middle of C code, too) or in file operations (before the n-th
one), so the load of the machine does not move them. What a kill inside a write leaves, a file that is cut short, is
made by cutting a file that is about to be flushed.
"""

import csv
import json
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

Work = Callable[[Path], None]
OPERATIONS = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")  # audit events, with "open" to write
# What two runs of the same do not share: the time they took, and digests of checkpoints, which name their folder.
UNEQUAL = ("seconds", "checkpoint_sha256", "teacher_sha256", "settings_sha256")


class Ended(NamedTuple):
    """How a child ended: its exit status or minus the signal, the processor seconds and file operations it made."""

    status: int
    cpu_s: float
    operations: int


class Kill(NamedTuple):
    """After so many processor seconds, or before the n-th file operation (from 1); `cut`: what stays of a file."""

    cpu_s: float = 0.0
    operation: int = 0
    cut: float = 1.0


class Counter:
    """Counts file operations below a folder, and kills this process before the one that is asked for."""

    def __init__(self, folder: Path, kill: Kill) -> None:
        self.folder, self.kill, self.done = str(folder), kill, 0
        flush = os.fsync

        def fsync(descriptor: Any) -> None:
            number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
            self.count(os.path.realpath(f"/proc/self/fd/{number}"))
            flush(descriptor)

        os.fsync = fsync
        sys.addaudithook(self.hook)  # for good: only in a child

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            writes = (mode and set("wax+") & set(str(mode))) or (not mode and flags & (os.O_WRONLY | os.O_RDWR))
            if writes and isinstance(path, str | os.PathLike) and str(path).startswith(self.folder):
                self.count()
        elif event in OPERATIONS and str(arguments[0]).startswith(self.folder):
            self.count()

    def count(self, flushed: str = "") -> None:
        self.done += 1
        if self.done == self.kill.operation:
            if self.kill.cut < 1 and os.path.isfile(flushed):
                os.truncate(flushed, int(self.kill.cut * os.path.getsize(flushed)))
            os.kill(os.getpid(), signal.SIGKILL)


def in_child(work: Work, run: Path, kill: Kill | None = None) -> Ended:
    """Run `work` in a forked process, with one thread and no output, and kill it where `kill` says."""
    kill = kill or Kill()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            if not os.environ.get("SPIKELOOM_TRACEBACK"):
                os.dup2(null, 2)
            torch.set_num_threads(1)
            counter = Counter(run.parent, kill)
            signal.signal(signal.SIGPROF, signal.SIG_DFL)  # ends the process as SIGKILL does: no handler, no clean-up
            signal.setitimer(signal.ITIMER_PROF, kill.cpu_s)
            work(run)
            signal.setitimer(signal.ITIMER_PROF, 0)
            os.write(write, str(counter.done).encode())
            status = 0
        except BaseException as error:
            os.write(write, f"! {type(error).__name__}: {error}".encode())
        finally:
            os._exit(status)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    _, state, usage = os.wait4(child, 0)
    status = os.waitstatus_to_exitcode(state)
    if status > 0:
        print(f"refused: {said[2:400]}")
    return Ended(status, usage.ru_utime + usage.ru_stime, int(said) if said.isdigit() else 0)


def content(folder: Path) -> dict[str, Any]:
    """Every file below a folder, as what must be equal between two runs: bytes; of a checkpoint its weights, of pages
    that they are there; the time that runs took is left out."""
    found: dict[str, Any] = {}

    def bytes_of(path: Path) -> bytes:
        return path.read_bytes().replace(str(folder).encode(), b"RUN")  # runs that name their own folder

    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = str(path.relative_to(folder))
        if path.suffix == ".ckpt":
            found[name] = torch.load(path, weights_only=True)["state_dict"]
        elif path.suffix == ".html":
            found[name] = True
        elif path.suffix == ".json":
            found[name] = without_times(json.loads(bytes_of(path)))
        elif path.suffix == ".csv":
            rows = csv.DictReader(bytes_of(path).decode().splitlines())
            found[name] = [{k: v for k, v in row.items() if k not in UNEQUAL} for row in rows]
        else:
            found[name] = bytes_of(path)
    return found


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(inner) for key, inner in value.items() if key not in UNEQUAL}
    return [without_times(inner) for inner in value] if isinstance(value, list) else value


def differing(wanted: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Names of the files that are on one side only or differ."""

    def same(a: Any, b: Any) -> bool:
        if isinstance(a, dict) and any(isinstance(value, torch.Tensor) for value in a.values()):
            return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
        return bool(a == b)

    names = sorted(wanted.keys() | found.keys())
    return [name for name in names if name not in wanted or name not in found or not same(wanted[name], found[name])]


class Tally(NamedTuple):
    """Kills made, files that differ from those of the unbroken run, and runs that were refused."""

    kills: int
    different: list[str]
    refused: int


def killed_and_repeated(work: Work, folder: Path, kills: int, seed: int) -> Tally:
    """Kill `work` until there were `kills` kills; after at most three in a row let it end, and compare."""
    torch.set_num_threads(1)  # a fork would wait for ever for the threads that it does not have
    work(folder / "warm" / "run")  # what it imports is there in every fork
    whole = in_child(work, folder / "unbroken" / "run")
    assert whole.status == 0 and whole.operations > 0
    wanted, draw = content(folder / "unbroken" / "run"), random.Random(seed)
    made, different, refused, number = 0, [], 0, 0
    while made < kills:
        number += 1
        run = folder / f"killed{number}" / "run"
        for _ in range(3):
            kill = (
                Kill(cpu_s=draw.uniform(0.001, whole.cpu_s)) if draw.random() < 0.5
                else Kill(operation=draw.randint(1, whole.operations), cut=draw.choice((1.0, draw.random())))
            )  # fmt: skip
            ended = in_child(work, run, kill)
            made += ended.status < 0
            refused += ended.status > 0
            if ended.status >= 0:
                break
        refused += in_child(work, run).status != 0
        different += [f"{number}/{name}" for name in differing(wanted, content(run))]
    return Tally(made, different, refused)
