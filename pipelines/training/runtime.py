"""What this process should be before it trains: its threads, its memory, and how much the libraries talk."""

import contextlib
import ctypes
import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

from spikeloom.accel.common.parallel import each

T = TypeVar("T")
R = TypeVar("R")
log = logging.getLogger("spikeloom")

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGE_BYTES = 32 << 20
_SAY_S = 30.0  # between two lines of progress where nobody watches a bar


_kept_bytes = 1 << 30  # the largest tensor whose memory stays here when it is freed


def spare_memory() -> None:
    """From here on have large freed tensors go back to the kernel, and come from it in pages of 2 MB.

    Kept memory breaks into pieces that the next large tensor does not fit: a compact step of a QKFormer took 2.5 to
    2.8 GB that way and takes 1.9 GB this way, in about the same time. To be called before torch makes its first tensor:
    it asks for large pages from then on or never.
    """
    global _kept_bytes
    _kept_bytes = _LARGE_BYTES
    os.environ["THP_MEM_ALLOC_ENABLE"] = "1"


def set_up(threads: int = 0) -> None:
    """What a command of its own process does first: `use_threads`, and of all messages only ours are printed."""
    use_threads(threads)
    quiet()
    if os.environ.get("RANK", "0") != "0":  # of processes that train together the first one reports
        log.setLevel(logging.WARNING)


def use_threads(threads: int = 0) -> None:
    """Use `threads` threads (0: $OMP_NUM_THREADS, or else all cores), and keep freed memory.

    Two processes of two threads each on two cores take many times as long as of one: whoever runs several sets the
    variable.
    """
    import torch

    torch.set_num_threads(threads or at_once())
    keep_freed_memory()


def at_once() -> int:
    """Threads or processes that may work at the same time: $OMP_NUM_THREADS, or else one a core."""
    wished = os.environ.get("OMP_NUM_THREADS", "")
    return (int(wished) if wished.isdecimal() else 0) or cores()


def cores() -> int:
    """Processors that this process may use; outside Linux, those of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def keep_freed_memory() -> None:
    """Keep the memory of freed tensors for the next ones, where the C library is glibc.

    It hands large freed tensors back to the kernel and faults every page in again at the next step: measured, that
    costs more than the arithmetic of a LIF. Other C libraries have no mallopt; Windows has no library of the process.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _kept_bytes)
        libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def quiet() -> None:
    """Print messages of spikeloom plainly on stderr, and of the libraries only errors. Not for use inside another
    program: it replaces the handlers of the root logger. Enough for a verb that does without torch."""
    root = logging.getLogger()
    for handler in list(root.handlers):  # not closed: a library's handler may take a stream that is not its own with it
        root.removeHandler(handler)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for name, logger in logging.root.manager.loggerDict.items():  # Hydra disables them before the second job of a sweep
        if isinstance(logger, logging.Logger) and name.split(".")[0] == "spikeloom":
            logger.disabled = False
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "torch", "matplotlib", "httpx2"):
        logging.getLogger(name).setLevel(logging.ERROR)
    for module in ("lightning", "torch", "torchmetrics"):
        warnings.filterwarnings("ignore", module=rf"{module}\..*")


def on_terminal() -> bool:
    """True when a person watches: progress bars then, plain lines otherwise."""
    return sys.stdout.isatty()


def watch(items: Iterable[T], what: str) -> Iterator[T]:
    """`items`, with a progress bar on a terminal; elsewhere a line every half minute, with the time that is left."""
    listed = list(items)
    if on_terminal():
        from rich.progress import track

        yield from track(listed, what, transient=True)
        return
    begun = said = time.monotonic()
    for done, item in enumerate(listed):
        now = time.monotonic()
        if now - said >= _SAY_S and done:
            left_s = (now - begun) / done * (len(listed) - done)
            log.info("%s: %d of %d, about %.0f s left", what, done, len(listed), left_s)
            said = now
        yield item


def worked_on(work: Callable[[T], R], items: Sequence[T], what: str, processes: int = 0) -> Iterator[tuple[T, R]]:
    """Every item, in order, and what `work` makes of it, by so many processes (0: `at_once`), watched as by `watch`."""
    return zip(watch(items, what), each(work, items, processes or at_once()), strict=True)
