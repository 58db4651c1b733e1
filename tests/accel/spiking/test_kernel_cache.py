"""Compiled kernels in their cache: a damaged one is never loaded, processes build it once, no home is needed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from spikeloom.accel.spiking.kernels.compiler import build, compiler, levels, simd, simd_name, writable_cache

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")
SOURCE = 'extern "C" int answer() { return 42; }\n'
PROGRAM = """
import sys, warnings
from pathlib import Path
from spikeloom.accel.spiking.kernels.compiler import build
warnings.simplefilter("error" if "strict" in sys.argv else "ignore")
print(build(Path(sys.argv[1]), "answer").answer())
"""


def start(source: Path, *words: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(source), *words], text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, env={**os.environ, **environment},
    )  # fmt: skip


def answer(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return out.strip()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "answer.cpp"
    path.write_text(SOURCE)
    return path


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "no note"])
def test_a_damaged_library_is_built_again_and_never_loaded(source: Path, tmp_path: Path, damage: str) -> None:
    cache = tmp_path / "cache"
    assert answer(start(source, SPIKELOOM_CACHE=str(cache))) == "42"
    (library,) = cache.glob("answer-*.so")
    whole = library.read_bytes()
    if damage == "flip":
        library.write_bytes(whole[:700] + bytes([whole[700] ^ 255]) + whole[701:])
    elif damage == "no note":
        library.with_suffix(".sha256").unlink()
        library.write_bytes(b"\x7fELF" + bytes(5000))
    else:
        library.write_bytes(whole[: len(whole) // 3] if damage == "cut" else b"")
    assert answer(start(source, SPIKELOOM_CACHE=str(cache))) == "42"
    assert library.stat().st_size > 5004


def test_a_build_is_reported_and_a_cached_library_is_not(source: Path, tmp_path: Path, monkeypatch, caplog) -> None:
    monkeypatch.setenv("SPIKELOOM_CACHE", str(tmp_path / "cache"))
    for reported in (True, False):
        writable_cache.cache_clear()
        build.cache_clear()
        caplog.clear()
        with caplog.at_level("INFO", "spikeloom"):
            assert build(source, "answer").answer() == 42
        assert ("compiling answer.cpp" in caplog.text) == reported
    writable_cache.cache_clear()


def test_processes_that_need_it_at_once_build_it_once(source: Path, tmp_path: Path) -> None:
    counted = tmp_path / "cxx"
    note = f'case "$*" in *-shared*) echo built >> {tmp_path / "builds"};; esac'
    counted.write_text(f'#!/bin/sh\n{note}\nexec {compiler()} "$@"\n')
    counted.chmod(0o755)
    environment = {"SPIKELOOM_CACHE": str(tmp_path / "cache"), "CXX": str(counted)}
    started = [start(source, **environment) for _ in range(8)]
    assert [answer(process) for process in started] == ["42"] * 8
    assert (tmp_path / "builds").read_text() == "built\n"


def test_a_home_that_cannot_be_written_is_no_obstacle(source: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.write_text("a file where the cache's folders should be")
    process = start(source, HOME=str(home), SPIKELOOM_CACHE="", XDG_CACHE_HOME="")
    out, err = process.communicate(timeout=240)
    assert (process.returncode, out.strip()) == (0, "42"), err


def test_a_cache_that_was_asked_for_and_cannot_be_written_is_an_error(source: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    process = start(source, SPIKELOOM_CACHE=str(tmp_path / "taken"))
    _, err = process.communicate(timeout=240)
    assert process.returncode != 0 and "$SPIKELOOM_CACHE" in err


# --- vector units -----------------------------------------------------------------------------------------------------


def test_kernels_are_compiled_for_this_processor_or_for_what_is_chosen_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPIKELOOM_SIMD", raising=False)
    if not levels():
        assert simd_name() is None and simd(str(compiler())) == []
        return
    assert simd_name() == levels()[0] and levels()[-1] == "none"
    monkeypatch.setenv("SPIKELOOM_SIMD", "none")
    assert simd(str(compiler())) in ([], ["-DLEVEL=1"])
    monkeypatch.setenv("SPIKELOOM_SIMD", "neon")
    with pytest.raises(ValueError, match=f"SPIKELOOM_SIMD=neon: unknown; use {', '.join(levels())}"):
        simd_name()


@pytest.mark.slow
@pytest.mark.parametrize("name", levels()[1:] or [pytest.param("none", marks=pytest.mark.skip(reason="no x86-64"))])
def test_kernels_are_right_on_narrower_vector_units(name: str) -> None:
    """Everything that this processor's own kernels are tested with; golden files, too."""
    folder = Path(__file__).parent
    files = [
        *(folder / f"test_{n}.py" for n in ("ops", "events", "winograd", "batch_norm", "norm_dropout", "lif_golden"))
    ]
    files += [folder.parent / "trainer/engines/test_arithmetic.py", folder.parents[1] / "speech/test_cochlea.py"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "not slow", *map(str, files)], text=True, capture_output=True,
        env={**os.environ, "SPIKELOOM_SIMD": name, "OMP_NUM_THREADS": "1"}, cwd=folder.parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
