"""Timing of all benchmarks: medians, and separate processes where memory is measured.

Times are wall-clock times. On a machine with other work, the processor time of this process is more precise; it needs
one thread and leaves out its waiting.
"""

import contextlib
import math
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from spikeloom.pipelines.training.runtime import set_up, spare_memory

_prepared: tuple[int, bool] = (0, False)  # what `prepare` was given, for the processes that follow


def prepare(threads: int = 0, processor_time: bool = False, spare: bool = False) -> None:
    """Measure with `threads` threads (0: all cores), by the wall clock or by processor time; `spare` memory or not.

    Raises ValueError for processor time of several threads.
    """
    global _prepared
    if processor_time and threads != 1:
        raise ValueError(f"processor_time=true adds up the time of all threads, got threads={threads}; use threads=1")
    _prepared = threads, processor_time
    if spare:
        spare_memory()
    set_up(threads)


def now_s() -> float:
    """Seconds on the clock in use."""
    return time.process_time() if _prepared[1] else time.perf_counter()


def clock() -> str:
    """Name of the clock in use."""
    return "processor time" if _prepared[1] else "wall clock"


def median_ms(f: Callable[[], object], repeats: int) -> float:
    """Median milliseconds of `repeats` calls, after one that is not counted."""
    return medians_ms([f], 1, repeats)[0]


def medians_ms(functions: Sequence[Callable[[], object]], turns: int, repeats: int = 3) -> list[float]:
    """Median milliseconds of each, in turns, so that other work on the machine affects all of them equally.

    A turn calls one of them `repeats` times, after one call that is not counted, then the next.
    """
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(turns):
        for f, taken in zip(functions, times, strict=True):
            f()
            for _ in range(repeats):
                start = now_s()
                f()
                taken.append(now_s() - start)
    return [1e3 * sorted(taken)[len(taken) // 2] for taken in times]


def apart(measure: Callable[..., tuple[float, float]], *args: object, spare: bool = False) -> tuple[float, float]:
    """`measure(*args)` in a separate process, which returns freed memory if `spare`."""
    context, given = get_context("spawn"), (*_prepared, spare)
    with ProcessPoolExecutor(1, mp_context=context, initializer=prepare, initargs=given) as pool:
        return pool.submit(measure, *args).result()


def forget_peak() -> float:
    """MB this process holds now; `peak_mb` afterwards is the most it held since, where the kernel can forget a peak."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
        from resource import getpagesize

        return int(Path("/proc/self/statm").read_text().split()[1]) * getpagesize() / 2**20
    return peak_mb()


def peak_mb() -> float:
    """Most memory this process held, in MB."""
    with contextlib.suppress(OSError):
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 1024
    try:
        from resource import RUSAGE_SELF, getrusage
    except ImportError:  # Windows does not count it
        return math.nan
    return getrusage(RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)
