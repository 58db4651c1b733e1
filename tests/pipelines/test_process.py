"""How many threads a process takes, and what becomes of the log handlers it finds."""

import logging
import os

import pytest
import torch

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
