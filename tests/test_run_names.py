"""Runs by name: a model goes to a hub and comes back equal, built-in models work everywhere, mistakes cost one line."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

import spikeloom
from spikeloom.pipelines.training.run_dir import load_config
from spikeloom.pipelines.training.run_names import builtin_names, find_run, name_runs, run_to_write
from spikeloom.speech.datasets.audio import read_audio
from spikeloom.speech.streaming import KeywordSpotter
from tests import public_runs
from tests.conftest import data_folder
from tests.hub_double import Hub
from tests.local_server import running


@pytest.fixture(scope="module")
def server() -> Iterator[Hub]:
    with running(Hub()) as hub:
        yield hub


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/digits and runs/decoder."""
    folder = tmp_path_factory.mktemp("project")
    torch.manual_seed(0)
    public_runs.digits(folder / "runs")
    public_runs.decoder(folder / "runs")
    result = {"name": "digits", "seed": 3, "test_accuracy": 0.9753, "parameters": 1}
    (folder / "runs/digits/result.json").write_text(json.dumps(result), encoding="utf-8")
    (folder / "runs/digits/evaluation.json").write_text(
        json.dumps({"energy": {"energy_pj": 2.5e6, "ac": 1000.0, "mac": 10.0}}), encoding="utf-8"
    )
    return folder


def in_project(project: Path, endpoint: str, *arguments: str, home: str = "home") -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "SPIKELOOM_CACHE"))}
    caches = {"HF_HOME": str(project / home / "hf"), "SPIKELOOM_CACHE": str(project / home / "cache")}
    given = {"HF_ENDPOINT": endpoint, "HF_TOKEN": "hf_test", "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1"}
    return subprocess.run(
        [sys.executable, *arguments], cwd=project, env={**environment, **caches, **given}, capture_output=True,
        text=True, timeout=600,
    )  # fmt: skip


WORDS = {
    "hf://someone/nobody": "cannot be fetched", "hf://someone/bert@nowhere": "cannot be fetched",
    "hf://digits": "names no repository", "hf://../../etc/passwd": "names no repository",
    "hf://someone/bert": "is not a model of spikeloom (no model.safetensors)",
    "builtin:nothing": "no built-in model is called 'nothing'", "runs/nothing": "no such run directory",
}  # fmt: skip
SPOKEN = """
import contextlib, io, json
from spikeloom.pipelines.cli import main

def spoken(*command):
    status, lines = 0, io.StringIO()
    with contextlib.redirect_stderr(lines):
        try:
            main(list(command))
        except SystemExit as end:
            status = end.code
    return [str(status), *lines.getvalue().splitlines()]

"""
PROGRAM = f"""
import doctest, spikeloom, torch
from types import SimpleNamespace
from spikeloom.pipelines.api import hub
from spikeloom.pipelines.training.inherit import inherit
from spikeloom.pipelines.training.run_names import name_runs
failed, tried = doctest.testmod(hub)
assert tried and not failed
spikeloom.push("runs/decoder", "someone/decoder", license="cc-by-4.0", revision="v1")

equal = []
for name, revision in (("digits", "main"), ("decoder", "v1")):
    there, here = spikeloom.load(f"hf://someone/{{name}}@{{revision}}"), spikeloom.load(f"runs/{{name}}")
    weights = here.model.state_dict()
    equal.append(there.features == here.features and there.class_names == here.class_names)
    equal.append(all(torch.equal(value, weights[key]) for key, value in there.model.state_dict().items()))
training = SimpleNamespace(run="runs/new", pretrained="hf://someone/digits")
name_runs("train", training)
started, weights = spikeloom.create_model("spiking_cnn", size=16, T=2), spikeloom.load("runs/digits").model.state_dict()
inherit(started, training.pretrained)
equal.append(all(torch.equal(value, weights[key]) for key, value in started.state_dict().items()))
text = spikeloom.pipeline("hf://someone/decoder@v1")(torch.randn(9, 840))

said = dict()
for name in {list(WORDS)!r}:
    try:
        spikeloom.load(name)
    except ValueError as error:
        said[name] = str(error)

verbs = [
    spoken("push", "run=runs/digits", "repo=someone/verbs", "license=apache-2.0"),
    spoken("evaluate", "run=hf://someone/verbs", "split=valid"),
]
print(json.dumps(dict(equal=equal, text=text, said=said, verbs=verbs)))
"""


@pytest.fixture(scope="module")
def told(project: Path, server: Hub) -> dict[str, Any]:
    """What one process found that ran the examples of `push`, pushed both runs, the decoder to the branch v1, loaded
    them, and tried names that lead nowhere and the verbs."""
    server.repos["someone/bert"] = {"1" * 40: {"config.json": b"{}", "pytorch_model.bin": b"x"}}
    server.heads["someone/bert", "main"] = "1" * 40
    done = in_project(project, server.url, "-c", SPOKEN + PROGRAM)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_models_come_back_from_a_hub_with_equal_weights_and_front_ends(told: dict[str, Any], server: Hub) -> None:
    digits, decoder = server.heads["someone/digits", "main"], server.heads["someone/decoder", "v1"]
    assert told["equal"] == [True] * 5  # two models, two front ends, and weights that a training starts from
    assert isinstance(told["text"], str)
    assert "tokenizer.json" in server.repos["someone/decoder"][decoder]
    assert {"config.yaml", "config.json", "model.safetensors"} <= set(server.repos["someone/digits"][digits])


def test_card_has_licence_task_accuracy_energy_and_use(told: dict[str, Any], server: Hub) -> None:
    card = server.repos["someone/digits"][server.heads["someone/digits", "main"]]["README.md"].decode()
    header = yaml.safe_load(card.split("---")[1])
    assert header["license"] == "apache-2.0"
    assert header["pipeline_tag"] == "image-classification"
    assert header["library_name"] == "spikeloom"
    (result,) = header["model-index"][0]["results"]
    assert result["metrics"][0]["value"] == 0.9753
    assert result["dataset"]["split"] == "test"
    assert "2.5 µJ an inference: 1,000 accumulations and 10 multiplications" in card
    assert 'spikeloom.pipeline("hf://someone/digits")' in card


def test_verbs_push_a_model_and_take_it_from_a_hub_to_write_below_runs(
    told: dict[str, Any], project: Path, server: Hub
) -> None:
    pushed, evaluated = told["verbs"]
    assert (pushed[0], evaluated[0]) == ("0", "0"), (pushed, evaluated)
    assert any(f"-> hf://someone/verbs@{server.heads['someone/verbs', 'main'][:12]}" in line for line in pushed)
    (written,) = (project / "runs/hub/someone--verbs").glob("*/evaluation.json")
    assert json.loads(written.read_text("utf-8"))["samples"] == 180


def test_name_that_leads_nowhere_is_one_line_of_what_is_wrong(told: dict[str, Any], project: Path) -> None:
    assert set(told["said"]) == set(WORDS)
    for name, message in told["said"].items():
        assert WORDS[name] in message
        assert len(message.splitlines()) == 1
    assert not list((project / "home").rglob("pytorch_model.bin"))


def test_hub_that_cannot_be_reached_costs_one_line_in_either_direction(project: Path) -> None:
    push = ("push", "run=runs/digits", "repo=someone/x", "license=apache-2.0")
    program = f'{SPOKEN}print(json.dumps([spoken("evaluate", "run=hf://a/b"), spoken(*{push!r})]))'
    done = in_project(project, "http://127.0.0.1:9", "-c", program, home="other")
    assert done.returncode == 0, done.stderr
    fetched, refused = json.loads(done.stdout.splitlines()[-1])
    assert (fetched[0], refused[0]) == ("2", "2")
    assert fetched[-1].startswith("spikeloom: hf://a/b cannot be fetched")
    assert "the Hub refused the upload" in refused[-1]


# --- built-in models --------------------------------------------------------------------------------------------------


def test_built_in_models_are_small_and_whole() -> None:
    assert builtin_names() == ["digits", "fsdd"]
    for name in builtin_names():
        run = find_run(f"builtin:{name}")
        files = [f for f in run.rglob("*") if f.is_file()]
        assert sum(f.stat().st_size for f in files) < 2e6
        assert {"config.yaml", "result.json"} <= {f.name for f in run.iterdir()}
        trained = spikeloom.load(f"builtin:{name}")
        stored = load_file(run / "model/model.safetensors")
        assert all(
            torch.equal(stored[key], value) for key, value in trained.model.state_dict().items() if key in stored
        )
        card = (run / "model/README.md").read_text("utf-8")
        assert "license:" in card
        assert "/" not in yaml.safe_load((run / "config.yaml").read_text("utf-8"))["run"].removeprefix("runs/")


def test_built_in_digits_reach_the_accuracy_of_their_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = spikeloom.evaluate("builtin:digits", split="test")
    result = json.loads((find_run("builtin:digits") / "result.json").read_text("utf-8"))
    assert found["accuracy"] == pytest.approx(result["test_accuracy"], abs=0.003)
    assert found["accuracy"] > 0.96
    assert (tmp_path / "runs/builtin/digits/evaluation.json").is_file()
    assert not (find_run("builtin:digits") / "evaluation.json").exists()


def test_built_in_speech_model_streams_and_finds_its_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recordings = data_folder("fsdd") / "recordings"
    monkeypatch.chdir(tmp_path)
    recognise = spikeloom.pipeline("builtin:fsdd")
    clips = [recordings / f"{digit}_george_{take}.wav" for digit in range(10) for take in range(3)]
    found = recognise(clips)
    assert sum(clip.name[0] == p.label for clip, p in zip(clips, found, strict=True)) >= 24
    config = load_config(run_to_write("builtin:fsdd"))
    assert Path(config.data.root) == recordings.parent
    spotter = KeywordSpotter(recognise.trained.model, recognise.trained.features, recognise.trained.class_names)
    sound = torch.from_numpy(read_audio(clips[21], recognise.trained.features.input_rate_hz))
    detections, state = spotter.step(sound, spotter.init_state())
    assert [d.keyword for d in [*detections, *spotter.finish(state)]] == ["7"]


def test_copy_of_a_built_in_model_keeps_what_was_written_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = run_to_write("builtin:digits")
    (run / "evaluation.json").write_text("{}", encoding="utf-8")
    assert run_to_write("builtin:digits") == run
    assert (run / "evaluation.json").is_file()


def test_training_does_not_write_into_a_model_that_is_shipped() -> None:
    class Config:
        run = "builtin:digits"

    with pytest.raises(ValueError, match="give a new folder"):
        name_runs("train", Config())
