"""Pruning as an option of training: targets met and reported, a killed run goes on exactly, models come out plain."""

import csv
import dataclasses
import functools
import json
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from spikeloom.accel.learning.pruning.at_init import AtInitConfig
from spikeloom.accel.learning.pruning.lats import LATSConfig, LinearThresholdConfig, SineThresholdConfig
from spikeloom.accel.learning.pruning.layerwise import DNWConfig, LayerwiseConfig
from spikeloom.accel.learning.pruning.learned_threshold import LearnedThresholdConfig
from spikeloom.accel.learning.pruning.magnitude import MagnitudeConfig
from spikeloom.accel.learning.pruning.rigl import RigLConfig
from spikeloom.pipelines.cli import main
from spikeloom.pipelines.commands import export
from spikeloom.pipelines.config.export import ExportConfig
from spikeloom.pipelines.config.register import register
from spikeloom.pipelines.config.train import TrainConfig
from spikeloom.pipelines.reports.pruning import pruning_sections
from spikeloom.pipelines.training import callbacks
from spikeloom.pipelines.training.classification import train
from spikeloom.pipelines.training.run_dir import load_config, load_model
from spikeloom.speech.datasets.synthetic import synthesise_keywords
from tests.pipelines.test_run import config

RULES = {
    "lats": LATSConfig(sparsity=0.7, scope="layer"),
    "linear": LinearThresholdConfig(threshold=0.05),
    "magnitude": MagnitudeConfig(sparsity=0.7, updates=5),
    "prune_at_init": AtInitConfig(sparsity=0.7, steps=3, first_layer_dense=True),
    "str": LearnedThresholdConfig(s_init=-5.0, s_decay=0.1),
    "gmp": LayerwiseConfig(sparsity=0.7),
    "dnw": DNWConfig(sparsity=0.7),
    "rigl": RigLConfig(sparsity=0.7, every=2),
    "sine": SineThresholdConfig(sparsity=0.7),
}


QUICK = ("lats", "magnitude", "str", "rigl")  # a schedule of thresholds, of sparsity, learned, and one that regrows
every_rule = pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in RULES]
)


class Runs(dict[str, Path]):
    """Rule -> its run, trained when it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.words = folder, functools.cache(synthesise_keywords)

    def __missing__(self, name: str) -> Path:
        self[name] = self.folder / name
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("spikeloom.speech.datasets.synthetic.synthesise_keywords", self.words)
            if name != "lats":  # one page is looked at
                patch.setattr("spikeloom.pipelines.training.classification.write_report", lambda *given: None)
            rule = RULES[name]
            train(config(self[name], epochs=3, pruning=rule, report_test_selected=name == "magnitude"))
        return self[name]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return Runs(tmp_path_factory.mktemp("runs"))


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "pruning.csv").open() as file:
        return list(csv.DictReader(file))


@every_rule
def test_a_run_tells_accuracy_and_sparsity_of_the_last_and_of_the_kept_epoch(name: str, runs: dict[str, Path]) -> None:
    result = json.loads((runs[name] / "result.json").read_text())
    kept, last = result["pruning"], result["last_epoch"]
    assert kept["method"] == name
    if kept["target"] is not None:
        assert kept["target"] == pytest.approx(0.7, abs=0.01)  # whole numbers of weights in each layer
        assert kept["target"] <= kept["sparsity"] < 0.72 and last["sparsity"] >= kept["target"]
    assert last["epoch"] == 3 and 0 <= last["test_accuracy"] <= 1 and 0 <= last["valid_accuracy"] <= 1
    assert len(rows(runs[name])) == 3
    assert float(rows(runs[name])[-1]["sparsity_of_pruned_layers"]) == last["sparsity"]
    if name in ("lats", "linear"):  # the threshold grows until the end, so only the last epoch is sparse enough
        assert result["best_epoch"] == 3
    assert name not in ("lats", "linear") or "AdamW" in kept["l1_missing"]


@every_rule
def test_the_model_that_is_kept_is_plain_and_as_sparse_as_told(name: str, runs: dict[str, Path]) -> None:
    model = load_model(runs[name] / "model").model
    told = json.loads((runs[name] / "result.json").read_text())["pruning"]["report"]["layers"]
    for layer in told:
        weight = model.get_submodule(layer["path"]).weight
        assert isinstance(weight, torch.nn.Parameter)
        assert int((weight == 0).sum()) == layer["zeros"]
    assert not [key for key in model.state_dict() if "parametrizations" in key or "mask" in key]
    assert load_config(runs[name]).pruning == RULES[name]


def test_the_exported_workload_has_the_density_of_every_pruned_layer(runs: dict[str, Path]) -> None:
    export.run(ExportConfig(run=str(runs["lats"]), batches=1, batch_size=4))
    workload = json.loads((runs["lats"] / "export/workload.json").read_text())
    told = json.loads((runs["lats"] / "result.json").read_text())["pruning"]["report"]["layers"]
    density = {layer["path"]: layer["density_weight"] for layer in workload["layers"]}
    assert len(told) > 5
    for layer in told:
        assert density[layer["path"]]["mean"] == pytest.approx(1 - layer["zeros"] / layer["numel"], abs=1e-12)


def test_the_report_shows_how_the_zeros_came(runs: dict[str, Path]) -> None:
    text = (runs["lats"] / "report.html").read_text("utf-8")
    assert "How the zeros came" in text and "Where the zeros are" in text
    assert "{'method'" not in text  # nested results have sections of their own


@every_rule
def test_the_page_of_every_rule_has_its_curves_and_layers(name: str, runs: dict[str, Path]) -> None:
    sections = pruning_sections(runs[name], json.loads((runs[name] / "result.json").read_text()))
    assert len(sections[0].figure.axes) == (1 if name in ("magnitude", "gmp", "dnw", "rigl") else 2)
    assert len(sections[1].table.rows) > 5


@pytest.mark.parametrize("name", ["lats", pytest.param("magnitude", marks=pytest.mark.slow)])
def test_a_killed_run_goes_on_exactly(name: str, runs: dict[str, Path], tmp_path: Path, monkeypatch) -> None:
    class Killed(Exception):
        pass

    def die(self, trainer, module):
        if trainer.current_epoch == 1:
            raise Killed

    monkeypatch.setattr("spikeloom.pipelines.training.classification.write_report", lambda *given: None)
    settings = config(tmp_path / "killed", epochs=3, pruning=RULES[name], report_test_selected=name == "magnitude")
    with monkeypatch.context() as patch:
        patch.setattr(callbacks.History, "on_train_epoch_start", die)
        with pytest.raises(Killed):
            train(settings)
    train(dataclasses.replace(settings, resume=True))
    last = [
        torch.load(r / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for r in (runs[name], tmp_path / "killed")
    ]
    assert last[0].keys() == last[1].keys()
    assert [k for k in last[0] if not torch.equal(last[0][k], last[1][k])] == []
    assert (tmp_path / "killed/pruning.csv").read_text() == (runs[name] / "pruning.csv").read_text()


def test_the_planned_rates_are_the_rates_that_come(runs: dict[str, Path]) -> None:
    table = rows(runs["lats"])
    mu = [float(row["mu"]) for row in table]
    assert float(table[-1]["lr_sum"]) > 0 and all(m >= 0 for m in mu)
    assert [int(row["regrown"]) >= 0 for row in table] == [True] * 3
    assert float(table[0]["threshold"]) < float(table[1]["threshold"]) < float(table[2]["threshold"])


def composed(*overrides: str) -> TrainConfig:
    register()
    with initialize_config_module("spikeloom.conf", version_base="1.3"):
        made = OmegaConf.to_object(compose("train", overrides=["name=synthetic", *overrides]))
    assert isinstance(made, TrainConfig)
    return made


def test_the_command_line_chooses_a_rule_and_runs_lie_apart() -> None:
    chosen = composed("pruning=lats", "pruning.sparsity=0.9", "pruning.homotopy=0.1")
    assert chosen.pruning == LATSConfig(sparsity=0.9, homotopy=0.1)
    assert chosen.run == "runs/synthetic/lats-sparsity0.9/seed0"
    assert composed().run == "runs/synthetic/seed0"
    assert composed("pruning=linear", "pruning.threshold=0.1").run == "runs/synthetic/linear-threshold0.1/seed0"


def test_an_unknown_key_or_kind_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for overrides, words in (
        (["pruning=lats", "pruning.sparsty=0.9"], "pruning.sparsty"),
        (["pruning=lat"], "did you mean lats?"),
        (["pruning=magnitude", "pruning.homotopy=0.1"], "pruning.homotopy"),
        (["pruning=lats", "run=RUN"], "pruning.sparsity"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(["train", *overrides])
        assert stopped.value.code == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert words in line
