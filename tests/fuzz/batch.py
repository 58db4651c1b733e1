"""Many inputs in a child process with bounds: a child that dies or stops is a finding, and its input is kept."""

import contextlib
import hashlib
import json
import logging
import mmap
import os
import random
import resource
import shutil
import signal
import struct
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.mutation import mutated
from tests.fuzz.parser import Case, Hang, Parser, Verdict, judge

MORE_BYTES = 1 << 30  # of address space beyond what the process had when it began
SECONDS_EACH = 5.0  # of the processor
SECONDS_DEAD = 15.0  # of the processor, in C, which no alarm interrupts
SECONDS_STILL = 120.0  # of the clock: waiting for nothing
KEPT_OF_A_KIND = 2
GOOD = ("right", "refused")


@dataclass(kw_only=True)
class Counts:
    """outcomes: how many inputs ended how. kinds: kind of a finding -> where its first inputs are kept."""

    outcomes: Counter[str] = field(default_factory=Counter)
    kinds: dict[str, list[str]] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def inputs(self) -> int:
        return sum(self.outcomes.values())


def whole_cases(parser: Parser, folder: Path) -> list[Case]:
    """What the parser's `write` lays out, as bytes by path below each case's folder."""
    folder.mkdir(parents=True)
    parser.write(folder)
    return [
        {str(f.relative_to(case)): f.read_bytes() for f in sorted(case.rglob("*")) if f.is_file()}
        for case in sorted(folder.iterdir())
    ]


def lay(case: Case, folder: Path) -> None:
    """Write a case into an empty or absent folder."""
    for name, content in case.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content == "folder":
            path.mkdir()
        elif content == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to({"link to itself": path, "link to nothing": "nowhere", "endless": "/dev/zero"}[content])


def mutants(parser: Parser, cases: Sequence[Case]) -> Callable[[int], Case]:
    """Number -> input, the same in every process."""
    return lambda index: mutated(random.Random(f"{parser.name} {index}"), cases, parser.mutates, parser.formats)


def run(parser: Parser, make: Callable[[int], Case], n: int, seconds: float, found: Path, first: int = 0) -> Counts:
    """Judge inputs `first` … `first` + n - 1, for `seconds` at most; findings are kept below `found`."""
    counts, began = Counts(), time.monotonic()
    with (
        tempfile.TemporaryDirectory(dir=fast_folder(), prefix="fuzz-") as name,
        contextlib.closing(mmap.mmap(-1, 16)) as beat,
    ):
        work, index = Path(name), first
        while index < first + n and (left := seconds - (time.monotonic() - began)) > 0:
            beat[:16] = struct.pack("<qq", index, 0)
            child = os.fork()
            if child == 0:
                _child(parser, make, index, first + n, left, work, found, beat)
            state, dead = _waited(child, beat)
            index, _ = struct.unpack("<qq", beat[:16])
            _gather(work / "counts.json", counts)
            if state == 0:
                break
            outcome = "hang" if dead else "memory" if state == signal.SIGKILL else "crash"
            case = work / "case"
            keep(parser, Verdict(outcome=outcome, detail=f"[{_status(state)}]"), case, found, index, counts)
            counts.outcomes[outcome] += 1
            index += 1
    counts.seconds = time.monotonic() - began
    return counts


def fast_folder() -> str | None:
    shared = Path("/dev/shm")
    return str(shared) if os.access(shared, os.W_OK) else None


def _status(state: int) -> str:
    return signal.Signals(state).name if 0 < state < 65 else f"exit status {state}"


def _waited(child: int, beat: mmap.mmap) -> tuple[int, bool]:
    """The signal (or 64 + the exit status) that ended the child, 0 for none, and whether it stood still."""
    seen, since, spent = beat[:16], time.monotonic(), 0.0
    while True:
        ended, state = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(state)
            return (-code if code < 0 else 64 + code if code else 0), False
        if beat[:16] != seen:
            seen, since, spent = beat[:16], time.monotonic(), _processor_s(child)
        if _processor_s(child) - spent > SECONDS_DEAD or time.monotonic() - since > SECONDS_STILL:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return signal.SIGKILL, True
        time.sleep(0.02)


def _processor_s(process: int) -> float:
    """Seconds of the processor that a process, which may have ended, has used."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text("ascii").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _child(
    parser: Parser,
    make: Callable[[int], Case],
    index: int,
    end: int,
    seconds: float,
    work: Path,
    found: Path,
    beat: mmap.mmap,
) -> None:
    status = 1
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        bound()
        counts, stop = Counts(), time.monotonic() + seconds
        while index < end and time.monotonic() < stop:
            beat[:16] = struct.pack("<qq", index, 0)
            verdict = timed(parser, make(index), work / "case")
            counts.outcomes[verdict.outcome] += 1
            if verdict.outcome not in GOOD:
                keep(parser, verdict, work / "case", found, index, counts)
            index += 1
            if index % 64 == 0 or verdict.outcome not in GOOD:
                _save(counts, work)
        _save(counts, work)
        status = 0
    except BaseException as error:
        (found / "harness.txt").write_text(f"{parser.name} {index}: {error!r}\n", "utf-8")
    finally:
        os._exit(status)


def bound() -> None:
    """Bounds on this process, for the rest of its life; nothing it logs is shown."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    most = pages * resource.getpagesize() + MORE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 28, 1 << 28))
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGPROF, _stop)


def _stop(*_: object) -> None:
    raise Hang


def timed(parser: Parser, case: Case, folder: Path) -> Verdict:
    """The verdict on a case, laid out in `folder`, after `SECONDS_EACH` at most."""
    shutil.rmtree(folder, ignore_errors=True)
    lay(case, folder)
    try:
        signal.setitimer(signal.ITIMER_PROF, SECONDS_EACH)
        try:
            return judge(parser, folder)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    except Hang:  # between the reader and here
        return Verdict(outcome="hang")


def keep(parser: Parser, verdict: Verdict, case: Path, found: Path, index: int, counts: Counts) -> None:
    """Keep an input of a kind that is new, or nearly."""
    place = verdict.detail[verdict.detail.rfind("[") :]
    kind = f"{verdict.outcome} {verdict.detail.partition(':')[0]} {place}"
    kept = counts.kinds.setdefault(kind, [])
    if len(kept) >= KEPT_OF_A_KIND or not case.exists():
        return
    label = hashlib.sha256(kind.encode()).hexdigest()[:6]
    target = found / parser.name / f"{verdict.outcome}_{label}_{index}"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(case, target, symlinks=True, ignore=_pipes)
    target.with_suffix(".txt").write_text(f"{verdict.outcome}: {verdict.detail}\n", "utf-8", "replace")
    kept.append(str(target))


def _pipes(folder: str, names: list[str]) -> list[str]:
    """Of the names in a folder, those that cannot be copied."""
    return [name for name in names if (Path(folder) / name).is_fifo()]


def _save(counts: Counts, work: Path) -> None:
    partial = work / "counts.partial"
    partial.write_text(json.dumps({"outcomes": counts.outcomes, "kinds": counts.kinds}), "utf-8")
    os.replace(partial, work / "counts.json")


def _gather(file: Path, counts: Counts) -> None:
    if file.exists():
        held = json.loads(file.read_text("utf-8"))
        counts.outcomes.update(held["outcomes"])
        for kind, kept in held["kinds"].items():
            counts.kinds.setdefault(kind, []).extend(kept)
        file.unlink()
