"""How everything here is timed: medians, and processes of their own where memory counts."""

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from resource import RUSAGE_SELF, getrusage

from pipelines.process import set_up


def median_ms(f: Callable[[], object], repeats: int) -> float:
    """Median milliseconds of `repeats` calls, after one that is not counted."""
    f()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        f()
        times.append(time.perf_counter() - start)
    return 1e3 * sorted(times)[len(times) // 2]


def apart(measure: Callable[..., tuple[float, float]], *args: object) -> tuple[float, float]:
    """`measure(*args)` in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=set_up) as pool:
        return pool.submit(measure, *args).result()


def peak_mb() -> float:
    """Most memory this process ever held, in MB."""
    return getrusage(RUSAGE_SELF).ru_maxrss / 1024
