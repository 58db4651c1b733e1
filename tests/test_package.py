"""The wheel is complete and runs without the checkout; help is instant; a mistake costs one line and status 2."""

import json
import os
import statistics
import subprocess
import sys
import sysconfig
import zipfile
from importlib.util import find_spec
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = Path(sys.executable).parent / "spikeloom"
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("SPIKELOOM", "PYTHON"))}
OFFLINE = ("No matching distribution found", "Could not find a version", "Failed to establish a new connection")
# argument list -> words of the one line that has to name the fix
MISTAKES = {
    ("trian",): ("unknown verb 'trian'", "did you mean train?", "--help"),
    ("train", "--epochs=3"): ("unknown option --epochs=3", "key=value"),
    ("train", "epochs"): ("'epochs' is not an override", "key=value"),
    ("train", "+colour=red"): ("+colour=red", "key=value", "--help"),
    ("train", "sede=1"): ("unknown key sede", "did you mean seed?", "--help"),
    ("train", "trainer.epocs=3"): ("unknown key trainer.epocs", "did you mean trainer.epochs?"),
    ("train", "seed=abc"): ("seed=abc", "must be a whole number", "'abc'"),
    ("train", "data=fsd"): ("no data called 'fsd'", "did you mean fsdd?", "synthetic"),
}
CALL_EACH = """
import contextlib, io, json, sys
from pipelines.cli import main
said = []
for argv in json.loads(sys.argv[1]):
    out, err, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main(argv)
        except SystemExit as stop:
            status = stop.code
    said.append([status, out.getvalue(), err.getvalue()])
print(json.dumps(said))
"""


def run(command: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout. Its build backend comes from the environment, or else from the package index."""
    folder = tmp_path_factory.mktemp("wheel")
    isolation = ["--no-build-isolation"] if find_spec("hatchling") else []
    built = run([sys.executable, "-m", "pip", "wheel", "--no-deps", *isolation, "-w", str(folder), str(ROOT)], folder)
    if built.returncode and any(reason in built.stdout + built.stderr for reason in OFFLINE):
        pytest.skip("hatchling is neither installed nor to be had from the package index")
    assert built.returncode == 0, built.stderr
    return next(folder.glob("spikeloom-*.whl"))


def test_wheel_contains_values_kernel_and_entry_point(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry_points = archive.read(next(n for n in names if n.endswith("/entry_points.txt"))).decode()
    values = {f.relative_to(ROOT).as_posix() for f in (ROOT / "conf").rglob("*.yaml")}
    needed = {"conf/train.yaml", "conf/data/fsdd.yaml", "conf/chips/neuromc.yaml", "accel/spiking/kernels/lif.cpp"}
    needed |= {"accel/spiking/kernels/clones.h", "accel/spiking/kernels/numbers.h"}
    assert needed <= names
    assert values <= names
    assert "spikeloom = pipelines.cli:main" in entry_points
    assert not [n for n in names if n.startswith("tests/")]


def test_unpacked_wheel_reads_its_own_values(wheel: Path, tmp_path: Path) -> None:
    unpacked, elsewhere = tmp_path / "unpacked", tmp_path / "elsewhere"
    elsewhere.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    with (unpacked / "conf/trainer/cpu.yaml").open("a", encoding="utf-8") as values:
        values.write("epochs: 977\n")  # a value that no other copy of the package holds
    paths = [str(unpacked), *dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))]
    program = f"""
import sys
sys.path[:] = {paths[:1]!r} + sys.path + {paths[1:]!r}
import pipelines.cli
pipelines.cli.main(["train", "--help"])
print(pipelines.cli.__file__)
"""
    # -S: the editable install's .pth would put the checkout on the path.
    shown = run([sys.executable, "-I", "-S", "-c", program], elsewhere)
    assert shown.returncode == 0, shown.stderr
    assert "epochs: 977" in shown.stdout
    assert Path(shown.stdout.splitlines()[-1]).is_relative_to(unpacked)
    assert list(elsewhere.iterdir()) == []


@pytest.mark.skipif(not SCRIPT.exists(), reason="the console script is not installed")
def test_help_answers_within_half_a_second(tmp_path: Path) -> None:
    seconds = []  # of computing, which other tests at the same time do not lengthen as they do the clock's
    for _ in range(5):
        started = getrusage(RUSAGE_CHILDREN)
        shown = run([str(SCRIPT), "--help"], tmp_path)
        ended = getrusage(RUSAGE_CHILDREN)
        seconds.append(ended.ru_utime + ended.ru_stime - started.ru_utime - started.ru_stime)
        assert shown.returncode == 0, shown.stderr
        assert "usage: spikeloom VERB" in shown.stdout
    assert statistics.median(seconds) <= 0.5, seconds


def test_each_mistake_is_one_line_that_names_the_fix(tmp_path: Path) -> None:
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{CALL_EACH}"
    called = run([sys.executable, "-c", program, json.dumps(list(MISTAKES))], tmp_path)
    assert called.returncode == 0, called.stderr
    said = json.loads(called.stdout)
    assert len(said) == len(MISTAKES)
    for (argv, words), (status, out, err) in zip(MISTAKES.items(), said, strict=True):
        assert (status, out) == (2, ""), argv
        assert err.startswith("spikeloom: "), argv
        assert len(err.splitlines()) == 1, (argv, err)
        assert all(word in err for word in words), (argv, err)
    assert list(tmp_path.iterdir()) == []  # a mistake leaves nothing behind


@pytest.mark.skipif(not SCRIPT.exists(), reason="the console script is not installed")
@pytest.mark.parametrize("argv", [["trian"], ["train", "--epochs=3"]])
def test_mistake_ends_the_process_with_status_2(argv: list[str], tmp_path: Path) -> None:
    ended = run([str(SCRIPT), *argv], tmp_path)
    assert (ended.returncode, ended.stdout, len(ended.stderr.splitlines())) == (2, "", 1)


@pytest.mark.slow
def test_a_sweep_trains_and_reports_every_job(tmp_path: Path) -> None:
    """Two seeds in one command: two runs, and both say what they reached."""
    tiny = ["data.n_words=2", "data.n_speakers=3", "data.takes=1", "data.n_test_speakers=1", "data.n_valid_speakers=1"]
    small = ["model.width=16", "model.heads=1", "trainer.epochs=1", "trainer.threads=1", "name=sweep", "seed=0,1"]
    command = [sys.executable, "-c", "from pipelines.cli import main; main()", "train", "-m", *tiny, *small]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("test accuracy") == 2
    assert sorted(f.parent.name for f in tmp_path.glob("runs/sweep/*/result.json")) == ["seed0", "seed1"]
