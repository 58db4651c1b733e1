"""Files that libraries in C read, tried in another process first: what kills or never ends there is one error here.

A damaged file can make such a library crash or loop, and no `except` helps. `try_first` has a helper process, which is
started once and holds only what it needs, fork a child for each file. The child runs a probe, a function that reads the
file as it will be read, within bounds of memory and of processor time, and nothing it returns comes back: only whether
it lived. Errors that the probe raises are not its business, since the caller will meet them. A file is tried once.

    probe    dotted name of a function of one path, `package.module:function`; its module imports little, and names in
             NEEDS what the helper imports for its children
"""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path

log = logging.getLogger("spikeloom")
MORE_BYTES = 1 << 29  # of address space, beside what the file itself may become
SECONDS = 4.0  # of the processor, beside what the size of the file may take
BYTES_A_SECOND = 2_000_000  # less than any reader takes in
GROWTH = 16  # bytes of memory for a byte of the file
_lock = threading.Lock()
_helpers: dict[int, "subprocess.Popen[str]"] = {}  # by process: one is not shared with those it forks
_tried: dict[tuple[str, int, int, int, str], str] = {}  # file and probe -> how it ended


def try_first(path: Path, probe: str, remedy: str) -> None:
    """Have another process read the file before this one does, where the system can fork and bound one (not Windows).

    Raises:
        ValueError: reading it crashed, did not end, or took more memory than such a file can need; names the file.
    """
    if not hasattr(os, "fork"):
        return
    state = path.stat()
    key = (str(path), state.st_ino, state.st_size, state.st_mtime_ns, probe)
    with _lock:
        if key not in _tried:
            _tried[key] = _ended(path, probe, state.st_size)
        ended = _tried[key]
    if ended:
        raise ValueError(f"{path} is damaged (reading it {ended}); {remedy}")


def _ended(path: Path, probe: str, size: int) -> str:
    """How the probe ended, in words; "" where it lived."""
    helper = _helper()
    asked = {"path": str(path.absolute()), "probe": probe, "seconds": SECONDS + size / BYTES_A_SECOND,
             "bytes": MORE_BYTES + GROWTH * size}  # fmt: skip
    assert helper.stdin is not None and helper.stdout is not None
    try:
        helper.stdin.write(json.dumps(asked) + "\n")
        helper.stdin.flush()
        answer = helper.stdout.readline().strip()
    except OSError:
        answer = ""
    if not answer.isdecimal():
        raise OSError(f"{path}: the process that tries files first has ended; start the command again")
    number = int(answer)
    if number in (signal.SIGXCPU, signal.SIGALRM):
        return "does not end"
    return f"ends with {signal.Signals(number).name}" if number else ""


def _helper() -> "subprocess.Popen[str]":
    found = _helpers.get(os.getpid())
    if found is None or found.poll() is not None:
        found = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import serve; serve()"], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )  # fmt: skip
        _helpers[os.getpid()] = found
    return found


def serve() -> None:
    """The helper: a request a line, and for each the signal that ended its child, or 0."""
    for line in sys.stdin:
        asked = json.loads(line)
        module = import_module(asked["probe"].partition(":")[0])
        for needed in module.NEEDS:  # here, so that children need not
            import_module(needed)
        child = os.fork()
        if child == 0:
            _try(asked)
        _, state = os.waitpid(child, 0)
        print(max(0, -os.waitstatus_to_exitcode(state)), flush=True)


def _try(asked: dict[str, float]) -> None:
    """In the child: run the probe within its bounds, and end."""
    import resource

    try:
        module, _, name = str(asked["probe"]).partition(":")
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[0]) if os.path.exists("/proc/self/statm") else 0
        most = pages * resource.getpagesize() + int(asked["bytes"])
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        seconds = int(asked["seconds"]) + 1
        signal.alarm(10 * seconds)  # of the clock, where it waits for what never comes
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the helper's answers go there
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        getattr(import_module(module), name)(Path(str(asked["path"])))
    except BaseException:
        pass
    finally:
        os._exit(0)
