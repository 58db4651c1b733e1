"""The archives are complete and run without the checkout; help is instant; a mistake costs one line and status 2."""

import json
import re
import statistics
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.util import find_spec
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

import pytest
import yaml

import spikeloom
from tests.environments import ENVIRONMENT, ROOT, built, copy_of_checkout, site_folders, wheel_of

SCRIPT = Path(sys.executable).parent / "spikeloom"
SHIPPED = ("accel", "bci", "conf", "pipelines", "speech", "vision")
# name on the package index -> on conda-forge, where it is another
CONDA = {
    "torch": "pytorch", "soundfile": "pysoundfile", "matplotlib": "matplotlib-base",
    "huggingface-hub": "huggingface_hub", "soxr": "soxr-python",
}  # fmt: skip
SUFFIXES = (".py", ".yaml", ".cpp", ".h", ".html")
BESIDE = ("benchmarks", "examples", "tests")  # part of the source archive, not of the wheel
# argument list -> words of the one line that has to name the fix
MISTAKES = {
    ("trian",): ("unknown verb 'trian'", "did you mean train?", "--help"),
    ("train", "--epochs=3"): ("unknown option --epochs=3", "--hydra-help"),
    ("train", "epochs"): ("'epochs' is not an override", "key=value"),
    ("train", "+colour=red"): ("unknown key colour", "--help"),
    ("train", "sede=1"): ("unknown key sede", "did you mean seed?", "--help"),
    ("train", "trainer.epocs=3"): ("unknown key trainer.epocs", "did you mean trainer.epochs?"),
    ("train", "seed=abc"): ("seed=abc", "must be a whole number", "'abc'"),
    ("train", "data=fsd"): ("no data called 'fsd'", "did you mean fsdd?", "synthetic"),
}
CALL_EACH = """
import contextlib, io, json, sys
from spikeloom.pipelines.cli import main
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
    return subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_of_checkout(tmp_path_factory.mktemp("copy"))


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout. Its build backend comes from the environment, or else from the package index."""
    return wheel_of(checkout, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source archive of this checkout."""
    pytest.importorskip("build", reason="the package `build` is not installed")
    isolation = ["--no-isolation"] if find_spec("setuptools") else []
    return built(tmp_path_factory.mktemp("sdist"), "build", "--sdist", *isolation, "-o", ".", str(checkout))


def shipped_files() -> set[str]:
    """Modules, values, templates, C++ sources and models that are shipped, by the names the wheel should give them."""
    found = {f"spikeloom/{f.name}" for f in (ROOT / "spikeloom").iterdir() if f.suffix in (".py", ".typed")}
    for folder in SHIPPED:
        files = (f for f in (ROOT / folder).rglob("*") if f.suffix in SUFFIXES)
        found |= {f"spikeloom/{f.relative_to(ROOT).as_posix()}" for f in files}
    models = (f for f in (ROOT / "pipelines" / "builtin").rglob("*") if f.is_file())
    found |= {f"spikeloom/{f.relative_to(ROOT).as_posix()}" for f in models}
    return found


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_wheel_contains_every_module_value_and_kernel(wheel: Path) -> None:
    needed = shipped_files()
    assert {"spikeloom/py.typed", "spikeloom/conf/data/fsdd.yaml", "spikeloom/accel/spiking/kernels/lif.cpp"} <= needed
    inside = {name for name in names_in(wheel) if ".dist-info/" not in name}
    assert (needed - inside, inside - needed) == (set(), set())


@pytest.mark.slow
def test_wheel_of_a_checkout_has_nothing_that_an_earlier_build_left(checkout: Path, tmp_path: Path) -> None:
    left = checkout / "build" / "lib" / "spikeloom" / "gone.py"
    left.parent.mkdir(parents=True, exist_ok=True)
    left.touch()
    assert "spikeloom/gone.py" not in names_in(wheel_of(checkout, tmp_path))


def test_only_top_level_name_of_the_wheel_is_spikeloom(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in names_in(wheel)}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"spikeloom"}
    others = [n for n in names_in(wheel) if n.startswith(("spikeloom/tests", "spikeloom/benchmarks", "spikeloom/ex"))]
    assert others == []


def test_wheel_has_entry_point_licence_and_version(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        texts = {name.split("/", 1)[1]: archive.read(name).decode() for name in archive.namelist() if "info/" in name}
    assert "spikeloom = spikeloom.pipelines.cli:main" in texts["entry_points.txt"]
    assert "Apache License" in texts["licenses/LICENSE"]
    assert "License-Expression: Apache-2.0" in texts["METADATA"]
    assert f"Version: {spikeloom.__version__}\n" in texts["METADATA"]


def test_version_is_the_same_wherever_it_is_written() -> None:
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text("utf-8"), re.MULTILINE)
    latest = re.search(r"^## (\d\S*)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert cited is not None
    assert latest is not None
    assert (cited[1], latest[1]) == (spikeloom.__version__,) * 2


def test_conda_recipe_has_the_version_and_the_dependencies_of_the_package() -> None:
    recipe = (ROOT / "packaging/conda/meta.yaml").read_text("utf-8")
    listed = re.findall(
        r"^    - (\S+)(?: +([<>=]\S+))?$", recipe.split("  run:\n")[1].split("\ntest:")[0], re.MULTILINE
    )
    given = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]
    wanted = {(CONDA.get(m[1], m[1]), m[2] or "") for m in (re.fullmatch(r"([\w-]+)(.*)", d) for d in given) if m}
    assert wanted == {(name, bound) for name, bound in listed if name != "python"}
    assert f'{{% set version = "{spikeloom.__version__}" %}}' in recipe


def test_conda_environment_leaves_the_versions_to_the_package() -> None:
    listed = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))["dependencies"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert f"python {project['requires-python']},<3.14" in listed and "Python :: 3.13" in str(project["classifiers"])
    (of_pip,) = [entry["pip"] for entry in listed if isinstance(entry, dict)]
    assert of_pip[-1] == "--editable ." and "cxx-compiler" in listed
    image = (ROOT / "Dockerfile").read_text("utf-8")
    assert of_pip[0] in image and "library(torch.float32)" in image


@pytest.mark.slow
def test_source_archive_builds_the_same_wheel(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        inside = {name.split("/", 1)[-1] for name in archive.getnames()}
        archive.extractall(tmp_path, filter="data")
    tracked = {f.relative_to(ROOT).as_posix() for part in BESIDE for f in (ROOT / part).rglob("*.py")}
    top = {"LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "SECURITY.md", "Makefile"}
    assert (tracked | top | {".ci/run", "pyproject.toml", "setup.py"}) - inside == set()
    source = next(tmp_path.glob("spikeloom-*"))
    (tmp_path / "again").mkdir()
    again = wheel_of(source, tmp_path / "again")
    assert names_in(again) == names_in(wheel)


def test_index_accepts_both_archives(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    if find_spec("twine") is None:
        pytest.skip("twine is not installed")
    checked = run([sys.executable, "-m", "twine", "check", "--strict", str(sdist), str(wheel)], tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_unpacked_wheel_reads_its_own_values(wheel: Path, tmp_path: Path) -> None:
    unpacked, elsewhere = tmp_path / "unpacked", tmp_path / "elsewhere"
    elsewhere.mkdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(unpacked)
    with (unpacked / "spikeloom/conf/trainer/cpu.yaml").open("a", encoding="utf-8") as values:
        values.write("epochs: 977\n")  # a value that no other copy of the package holds
    program = f"""
import sys
sys.path[:] = [{str(unpacked)!r}] + sys.path + {site_folders()!r}
import spikeloom.pipelines.cli
spikeloom.pipelines.cli.main(["train", "--help"])
print(spikeloom.pipelines.cli.__file__)
"""
    # -S: the editable install's .pth would put the checkout on the path.
    shown = run([sys.executable, "-I", "-S", "-c", program], elsewhere)
    assert shown.returncode == 0, shown.stderr
    assert "trainer.epochs=977" in shown.stdout
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
    command = [sys.executable, "-c", "from spikeloom.pipelines.cli import main; main()", "train", "-m", *tiny, *small]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("test accuracy") == 2
    assert sorted(f.parent.name for f in tmp_path.glob("runs/sweep/*/result.json")) == ["seed0", "seed1"]
