"""`spikeloom bench processes`: how much faster check, cache, cochlea and features are with several processes.

The commands of `spikeloom data` on files made here, first with one process and then with several, in turns; each writes
into a folder of its own. What is timed includes starting the processes and whatever one process does alone. By
processor time, on a busy machine: that of the first process and, of those it started, the mean; an unequal share and
waiting are left out.
"""

import os
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import soundfile

from spikeloom.benchmarks.measure import clock
from spikeloom.pipelines import cli

N_CLIPS, CLIP_S, RATE_HZ = 96, 0.5, 8000
N_RECORDINGS, N_EVENTS = 30, 40_000  # of each digit; events of a recording
READERS, SENTENCES = 4, 30
SPEAKERS = ("ann", "bob", "cem", "dia")


def write_clips(root: Path) -> None:
    """Noise as two words of four speakers, in the layout of the Free Spoken Digit Dataset."""
    root.mkdir()
    rng = np.random.default_rng(0)
    for i in range(N_CLIPS):
        sound = 0.1 * rng.standard_normal(int(CLIP_S * RATE_HZ))
        soundfile.write(root / f"{i % 2}_{SPEAKERS[i // 2 % 4]}_{i // 8}.wav", sound, RATE_HZ)


def write_events(root: Path) -> None:
    """Random events in the layout of N-MNIST: x, y, polarity and 23 bits of microseconds in five bytes."""
    rng = np.random.default_rng(0)
    for split, n in (("Train", N_RECORDINGS), ("Test", 1)):
        for digit in range(10):
            (folder := root / split / str(digit)).mkdir(parents=True)
            for i in range(n):
                t = np.sort(rng.integers(0, 300_000, N_EVENTS))
                x, y, on = rng.integers(0, 34, N_EVENTS), rng.integers(0, 34, N_EVENTS), rng.integers(0, 2, N_EVENTS)
                columns = np.stack((x, y, on << 7 | t >> 16, t >> 8 & 255, t & 255), axis=1)
                (folder / f"{i:05d}.bin").write_bytes(columns.astype(np.uint8).tobytes())


def write_readers(root: Path, *keys: str) -> None:
    """Synthetic result files as ZuCo's, one a reader."""
    quietly(["data", "synthesize", "dataset=zuco", "tasks=[NR1]", f"subjects={READERS}", f"sentences={SENTENCES}",
             f"out={root}", *keys])  # fmt: skip


def write_blocks(root: Path) -> None:
    """The same with the continuous EEG and gaze that their features are computed from."""
    write_readers(root, "raw=true")


# what is made of which files -> how they are written, and the command line but for root, out and processes
WORK: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "check: clips": (write_clips, ["data", "check", "dataset=fsdd"]),
    "check: ZuCo": (write_readers, ["data", "check", "dataset=zuco"]),
    "cache: ZuCo": (write_readers, ["data", "cache", "dataset=zuco"]),
    "cache: frames of events": (
        write_events, ["data", "cache", "dataset=nmnist", "features=frames", "features.n_frames=16"],
    ),
    "cochlea": (write_clips, ["data", "cochlea"]),
    "features: ZuCo": (write_blocks, ["data", "features", "dataset=zuco"]),
}  # fmt: skip


def now_s(processes: int) -> float:
    """Seconds on the clock in use."""
    if clock() != "processor time":
        return time.perf_counter()
    own = os.times()
    return own.user + own.system + (own.children_user + own.children_system) / processes


def quietly(line: list[str]) -> None:
    """Run a command without its output. Raises ValueError where it found something wrong."""
    said = StringIO()
    try:
        with redirect_stdout(said):
            cli.main(line)
    except SystemExit as end:
        raise ValueError(f"`spikeloom {' '.join(line)}` failed: {said.getvalue()[-300:]}") from end


def print_processes(processes: int, repeats: int) -> None:
    """A line for each: median seconds with one process and with several, and the ratio of both, over the turns.

    Raises ValueError for less than two processes.
    """
    if processes < 2:
        raise ValueError(f"processes={processes} compares nothing with one; use 2 or more")
    print(f"{'':24s} {'1 process, s':>12s} {f'{processes}, s':>12s} {'ratio':>7s}")
    with TemporaryDirectory() as name:
        for what, (write, line) in WORK.items():
            given = Path(name) / write.__name__
            if not given.exists():
                write(given)
            taken: dict[int, list[float]] = {1: [], processes: []}
            for turn in range(repeats):
                for n, seconds in taken.items():
                    out = Path(name) / f"{line[1]} {turn} {n}" / ("spikes.h5" if line[1] == "cochlea" else "kept")
                    begun = now_s(n)
                    quietly([*line, f"root={given}", f"out={out}", f"processes={n}"])
                    seconds.append(now_s(n) - begun)
            one, several = taken.values()
            ratios = sorted(b / a for a, b in zip(one, several, strict=True))
            print(f"{what:24s} {median(one):12.2f} {median(several):12.2f} {median(ratios):7.2f} "
                  f"({ratios[0]:.2f} to {ratios[-1]:.2f})", flush=True)  # fmt: skip
