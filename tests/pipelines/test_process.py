"""How many threads a process takes, and what becomes of the log handlers it finds."""

import logging
import os
import platform
import subprocess
import sys

import pytest
import torch

from pipelines import cli
from pipelines.process import set_up

CORES = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("variable", "asked", "threads"), [("1", 0, 1), ("3", 2, 2), ("", 0, CORES), ("many", 0, CORES), ("0", 0, CORES)]
)
def test_threads_are_those_asked_for_then_those_of_the_variable_then_all(
    variable: str, asked: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", variable)
    try:
        set_up(asked)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_handlers_of_libraries_are_put_aside_and_not_closed() -> None:
    class Foreign(logging.StreamHandler):
        closed = False

        def close(self) -> None:
            self.closed = True
            super().close()

    root, handler = logging.getLogger(), Foreign()
    before, threads = list(root.handlers), torch.get_num_threads()
    root.addHandler(handler)
    try:
        set_up(1)
        assert handler not in root.handlers and not handler.closed
    finally:
        root.handlers[:] = before
        torch.set_num_threads(threads)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is told what to keep")
@pytest.mark.parametrize("spare", [False, True])
def test_large_freed_tensors_stay_unless_memory_is_spared(spare: bool) -> None:
    code = f"""
from pathlib import Path
from resource import getpagesize
from pipelines.process import set_up, spare_memory
if {spare}: spare_memory()
set_up(1)
import torch
held = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * getpagesize() / 2**20
before = held()
small, large = torch.ones(1 << 20), torch.ones(16 << 20)
assert held() - before > 60
del large
print(held() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    left_mb = float(done.stdout)
    assert left_mb < 20 if spare else left_mb > 60


@pytest.mark.parametrize("compact", ["true", "false"])
def test_a_compact_training_spares_memory(compact: str, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    monkeypatch.setattr("pipelines.process.spare_memory", lambda: called.append(True))
    monkeypatch.setattr("pipelines.train.run", lambda config: None)
    cli.main(["train", "experiment=spikingformer_digits", f"model.compact={compact}", f"run={tmp_path}"])
    assert called == ([True] if compact == "true" else [])
