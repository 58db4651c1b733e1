"""Packages and folders of others called conf, accel, speech or pipelines and spikeloom leave each other whole."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.environments import ENVIRONMENT, copy_of_checkout, fresh_venv, pip, site_folders, wheel_of, write_wheel

STRANGERS = ("conf", "accel", "speech", "pipelines")
IMPORTED = 'raise AssertionError("a stranger\'s package was imported")\n'
COMPOSE_EACH = """
import contextlib, io, json, sys
from spikeloom.pipelines.cli import VERBS, main
import spikeloom
composed = {}
for verb in VERBS:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        main([verb, "--help"])
    composed[verb] = out.getvalue()
print(json.dumps({"file": spikeloom.__file__, "composed": composed}))
"""


def run(command: list[str], cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment with the strangers installed first and the wheel after them."""
    if not site_folders():
        pytest.skip("the packages of this environment are not in a site-packages folder")
    root = tmp_path_factory.mktemp("collisions")
    found = fresh_venv(root / "venv")
    install(found, *(write_wheel(root, name, IMPORTED) for name in STRANGERS))
    install(found, wheel_of(copy_of_checkout(root), root))
    return found


def install(python: Path, *wheels: Path) -> None:
    pip(python, "install", "--no-deps", "--no-index", "--ignore-installed", *map(str, wheels))


def check_every_verb(python: Path, cwd: Path) -> None:
    """Each verb's configuration is composed from the wheel's own values in the environment of `python`."""
    shown = json.loads(run([str(python), "-c", COMPOSE_EACH], cwd))
    assert Path(shown["file"]).is_relative_to(python.parents[1])
    assert len(shown["composed"]) >= 15
    for verb, text in shown["composed"].items():
        assert text.startswith(f"spikeloom {verb}"), verb
        assert "stranger" not in text, verb


def strangers_there(python: Path) -> list[str]:
    site = next(python.parents[1].glob("lib/python*/site-packages"))
    return [name for name in STRANGERS if (site / name / "train.yaml").is_file()]


def test_every_verb_composes_beside_strangers(python: Path, tmp_path: Path) -> None:
    assert strangers_there(python) == list(STRANGERS)
    check_every_verb(python, tmp_path)


@pytest.mark.slow
def test_every_verb_composes_whichever_was_installed_first_or_removed(python: Path, tmp_path: Path) -> None:
    pip(python, "uninstall", "--yes", *STRANGERS)
    assert strangers_there(python) == []
    check_every_verb(python, tmp_path)
    install(python, *(write_wheel(tmp_path, name, IMPORTED) for name in STRANGERS))
    check_every_verb(python, tmp_path)
    assert strangers_there(python) == list(STRANGERS)


def test_project_with_folders_of_the_same_names_runs_its_scripts_and_ours(python: Path, tmp_path: Path) -> None:
    for name in (*STRANGERS, "tests", "bci", "vision", "examples"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f'OWN = "{name} of the project"\n', encoding="utf-8")
    (tmp_path / "conf" / "train.yaml").write_text("stranger: true\n", encoding="utf-8")
    (tmp_path / "main.py").write_text(
        "import speech, tests, spikeloom.speech, spikeloom.pipelines.config.chips as chips\n"
        "print(speech.OWN, tests.OWN, spikeloom.speech.__file__, 'neuromc' in chips.names('chip'))\n",
        encoding="utf-8",
    )
    shown = run([str(python), "main.py"], tmp_path)
    assert shown.startswith("speech of the project tests of the project ")
    assert shown.rstrip().endswith("True")
    assert "usage: spikeloom VERB" in run([str(python), "-m", "spikeloom", "--help"], tmp_path)
    assert "stranger" not in run([str(python), "-m", "spikeloom", "train", "--help"], tmp_path)
    step = ["simulate", "network=s_vgg16", "batch_size=1", "gpu=null", "what_if=false", "uncertainty=false"]
    assert "energy of one training step" in run([str(python), "-m", "spikeloom", *step], tmp_path)
    assert (tmp_path / "runs" / "simulate" / "s_vgg16" / "report.json").is_file()
    assert "energy of one training step" in run([str(python.parent / "spikeloom"), *step], tmp_path)


def test_uninstalling_spikeloom_leaves_the_strangers_whole(python: Path) -> None:
    before = strangers_there(python)
    assert before == list(STRANGERS)
    pip(python, "uninstall", "--yes", "spikeloom")
    assert strangers_there(python) == before
    site = next(python.parents[1].glob("lib/python*/site-packages"))
    assert not (site / "spikeloom").exists()
