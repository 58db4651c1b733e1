"""How many threads a process takes, and what becomes of the log handlers it finds."""

import ast
import logging
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from spikeloom.accel.common import bounded
from spikeloom.accel.spiking.kernels import loader
from spikeloom.pipelines import cli
from spikeloom.pipelines.training import runtime
from spikeloom.pipelines.training.runtime import cores, set_up, watch
from tests.test_architecture import PRODUCT

CORES = cores()


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
from spikeloom.pipelines.training.runtime import set_up, spare_memory
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
    monkeypatch.setattr("spikeloom.pipelines.training.runtime.spare_memory", lambda: called.append(True))
    monkeypatch.setattr("spikeloom.pipelines.commands.train.run", lambda config: None)
    cli.main(["train", "experiment=spikingformer_digits", f"model.compact={compact}", f"run={tmp_path}"])
    assert called == ([True] if compact == "true" else [])


def test_threads_are_counted_where_a_process_has_no_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS and Windows, whose `os` has no sched_getaffinity."""
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 7)
    assert cores() == 7
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert cores() == 1


def test_no_module_needs_a_library_of_posix_to_be_imported() -> None:
    """Windows has none of these; a function may import one where it is used."""
    posix = {"resource", "fcntl", "pwd", "grp", "termios", "pty", "tty", "posix", "syslog", "readline"}
    found = {}
    for file in PRODUCT:
        names = {
            name.partition(".")[0]
            for node in ast.parse(file.read_text("utf-8")).body
            for name in (
                [a.name for a in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", "")]
            )
            if isinstance(node, ast.Import | ast.ImportFrom) and name
        }
        if names & posix:
            found[str(file)] = names & posix
    assert len(PRODUCT) > 300 and found == {}


def test_a_file_is_not_tried_first_where_nothing_can_be_forked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.h5").touch()
    monkeypatch.delattr(os, "fork")
    monkeypatch.setattr(bounded, "_helper", None)
    bounded.try_first(tmp_path / "x.h5", "no.such:probe", "fetch it again")


@pytest.mark.parametrize("fault", [TypeError, AttributeError, OSError])
def test_another_c_library_is_left_as_it_is(fault: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows: CDLL(None) is a TypeError. macOS and musl: a library without mallopt."""

    def missing(name: object) -> None:
        raise fault("not here")

    monkeypatch.setattr(runtime.ctypes, "CDLL", missing)
    threads = torch.get_num_threads()
    try:
        set_up(1)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.skipif(loader.compiler() is None, reason="no C++ compiler to take OpenMP away from")
def test_a_compiler_without_openmp_gives_kernels_of_one_thread_and_says_so(tmp_path: Path) -> None:
    """As Apple's clang, which refuses -fopenmp."""
    compiler = tmp_path / "clang++"
    compiler.write_text(f"""#!/bin/sh
case " $* " in *" -fopenmp "*) echo "clang: error: unsupported option '-fopenmp'" >&2; exit 1;; esac
exec {loader.compiler()} "$@"
""")
    compiler.chmod(0o755)
    code = """
import torch
from spikeloom.accel.spiking.kernels import loader
from spikeloom.accel.spiking.functional import LIFParameters
from spikeloom.accel.spiking.neuron import LIF
x = torch.linspace(0, 3, 40).reshape(4, 10)
lif = LIF(LIFParameters())
compiled = lif(x)[0]
with loader.use_backend("torch"):
    assert torch.equal(lif(x)[0], compiled) and compiled.sum() > 0
print(loader.backend())
"""
    given = {**os.environ, "CXX": str(compiler), "SPIKELOOM_CACHE": str(tmp_path / "cache"), "SPIKELOOM_BACKEND": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=given, check=True)
    assert done.stdout == "compiled\n" and done.stderr.count("has no OpenMP: kernels use one thread") == 1


def test_the_environment_is_printed_without_torch(capsys: pytest.CaptureFixture[str]) -> None:
    code = """
import sys
from spikeloom.pipelines import cli
cli.main(["bench", "env", "threads=3"])
print("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines[:5]] == ["backend", "threads", "torch", "python", "spikeloom"]
    assert lines[1].split()[1] == "3" and lines[0].split()[1] in ("compiled", "torch")
    assert lines[5] == str(not torch.__version__.endswith("+cpu"))


def test_progress_without_a_terminal_is_a_line_with_the_time_that_is_left(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr(runtime.time, "monotonic", lambda: next(clock))
    with caplog.at_level(logging.INFO, "spikeloom"):
        assert list(watch("abcd", "reading files")) == list("abcd")
    assert [record.message for record in caplog.records] == [
        "reading files: 1 of 4, about 120 s left",
        "reading files: 3 of 4, about 27 s left",
    ]
