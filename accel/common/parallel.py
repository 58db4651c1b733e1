"""The same work on many items by several processes: results in the order of the items, few of them in memory at a time.

What an item gives must not depend on the process that works on it; then any number of processes gives the same results
as one. Each has one thread, ends with the process that started it, and hands over the `changes` it counted.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from spikeloom.accel.common.changes import changes

T = TypeVar("T")
R = TypeVar("R")
UNDER_WAY = 4  # items a process that are handed out, or done and not yet fetched
BLOCK = 64  # items handed out together where one takes little time
_work: Callable[[Any], Any] | None = None  # of a process that was started here


def each(work: Callable[[T], R], items: Sequence[T], processes: int = 1) -> Iterator[R]:
    """`work(item)` of every item, in their order.

    Args:
        work: a function of one item; picklable where processes are not forked (macOS, Windows).
        items: picklable.
        processes: that work beside this one, at most one an item; 1: this one works alone.

    Raises:
        ValueError: for less than one process, and what `work` raises.
        OSError: a process was killed, most often for want of memory.
    """
    if processes < 1:
        raise ValueError(f"processes={processes} must be >= 1; use 1 to work in one process")
    processes = min(processes, len(items))
    if processes <= 1:
        yield from map(work, items)
        return
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_start, initargs=(work,))
    waiting: deque[Future[Any]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(_one, item))
            if len(waiting) >= UNDER_WAY * processes:
                yield _fetched(waiting.popleft())
        while waiting:
            yield _fetched(waiting.popleft())
    except BrokenProcessPool as error:
        raise OSError(f"one of {processes} processes was killed, perhaps for want of memory; use fewer") from error
    finally:
        pool.shutdown(cancel_futures=True)


def blocks(n: int, size: int = BLOCK) -> list[range]:
    """0 ... n - 1 in ranges of `size`, for work on one of them that takes less than handing it out."""
    return [range(first, min(first + size, n)) for first in range(0, n, size)]


def _fetched(done: Future[Any]) -> Any:
    result, counted = done.result()
    changes.receive(counted)
    return result


def _start(work: Callable[[Any], Any]) -> None:
    """In a process: what it works on, and with how many threads."""
    global _work
    _work = work
    changes.clear()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started it decides
    os.environ["OMP_NUM_THREADS"] = "1"
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _one(item: Any) -> tuple[Any, list[tuple[str, str]]]:
    """In a process: what the work gives, and the changes it counted. An error comes back as its text, since those with
    arguments of their own cannot be sent."""
    assert _work is not None
    try:
        return _work(item), changes.take()
    except ValueError as error:
        raise ValueError(str(error)) from None
    except OSError as error:
        raise OSError(str(error)) from None
