"""Training through the engines: as good as PyTorch, and priced with the densities it had."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from spikeloom.accel.trainer.report.engines import OPERANDS, Epoch
from spikeloom.accel.trainer.workload import Workload
from spikeloom.pipelines import cli
from spikeloom.pipelines.commands import engines as verb
from spikeloom.pipelines.commands.engines import gated, learning_rates
from spikeloom.pipelines.config.chips import load_chip
from spikeloom.pipelines.config.engines import EnginesConfig
from spikeloom.pipelines.training import toy_datasets
from spikeloom.pipelines.training.toy_datasets import small_task
from spikeloom.speech.datasets.synthetic import SyntheticConfig
from tests.conftest import data_folder

DRAWN = True  # these pages stand for all
BASE = EnginesConfig(task="digits", network="mlp", epochs=2, batch_size=64, limit=400)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("engines") / "run"
    verb.run(replace(BASE, out=str(out)))
    return out


def test_a_run_leaves_accuracies_densities_and_costs_of_every_epoch(finished: Path) -> None:
    with (finished / "epochs.csv").open() as file:
        rows = list(csv.DictReader(file))
    result = json.loads((finished / "result.json").read_text())
    assert len(rows) == result["epochs"] == 2
    assert float(rows[-1]["engine_accuracy"]) == result["engine_accuracy"] > 0.3  # chance is 0.1
    assert all(0 < float(r[f"density_{name}"]) < 1 for r in rows for name in ("spike", "mask", "du"))
    assert all(0 < float(r["gated_energy_pj"]) < float(r["dense_energy_pj"]) for r in rows)
    assert result["test_split"] == "random split, writers shared"
    assert (finished / "report.html").read_text().count(result["test_split"]) >= 3  # facts, figure, table
    assert "<svg" in (finished / "report.html").read_text() and not list(finished.parent.rglob("*.partial"))


def test_the_workload_of_a_run_has_the_densities_of_its_last_epoch(finished: Path) -> None:
    with (finished / "epochs.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    layers = Workload.from_json(finished / "workload.json").layers
    spikes = [layer.density_spike.mean for layer in layers if layer.density_spike is not None]
    assert sum(spikes) / len(spikes) == pytest.approx(float(last["density_spike"]), rel=1e-6)
    assert all(layer.density_du is not None for layer in layers if layer.kind == "gemm_weight")


def test_in_single_precision_the_engines_repeat_pytorch(tmp_path: Path) -> None:
    verb.run(replace(BASE, precision="fp32", epochs=1, out=str(tmp_path / "run")))
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert abs(result["difference_points"]) <= 0.6  # two of 359 test samples


def test_a_sweep_over_seeds_ends_in_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["task=digits", "model=mlp", "limit=96", "epochs=1", "anneal=true", f"out={tmp_path}"]
    cli.main(["engines", "-m", "seed=0,1", *arguments])
    (row,) = json.loads((tmp_path / "seeds.json").read_text())
    assert row["seeds"] == [0, 1] and row["model"] == "mlp" and row["anneal"] is True
    found = [json.loads(f.read_text())["difference_points"] for f in tmp_path.glob("*/result.json")]
    assert row["difference_points"] == pytest.approx(sum(found) / 2)
    assert row["test_split"] == "random split, writers shared"
    printed = capsys.readouterr().out
    assert "mean ± sd of 2 seeds" in printed
    with_accuracy = [line for line in printed.splitlines() if line.startswith(("epoch", "digits mlp", "mean"))]
    assert len(with_accuracy) == 5 and all(row["test_split"] in line for line in with_accuracy)


def test_accuracy_on_spoken_digits_says_that_speakers_are_shared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = dict.fromkeys(("loss", "torch_accuracy", "engine_accuracy", "dense_energy_pj", "gated_energy_pj"), 0.5)
    row = Epoch(
        epoch=1, densities=dict.fromkeys(OPERANDS, 0.1), layer_spikes={}, cycles=1, dram_bytes=1, skipped_steps=0,
        **numbers,
    )  # fmt: skip
    few = SyntheticConfig(n_words=2, n_speakers=7, takes=5)
    monkeypatch.setattr(toy_datasets, "SyntheticConfig", lambda: few)
    task = small_task("synthetic")
    assert set(task.test.groups) & set(task.train.groups)
    verb.print_epoch(row, task.split)
    assert "engines 50.00 % (random split, speakers shared)" in capsys.readouterr().out


def test_the_learning_rate_falls_along_half_a_cosine() -> None:
    falling = list(learning_rates(replace(BASE, lr=0.1, anneal=True), 4))
    assert falling == pytest.approx([0.1, 0.0853553, 0.05, 0.0146447], rel=1e-5)
    assert list(learning_rates(replace(BASE, lr=0.1), 3)) == [0.1, 0.1, 0.1]


def test_gating_switches_every_operand_on_or_off() -> None:
    chip = load_chip("neuromc")
    assert gated(chip).wg.zero_gating == ("input", "du") and gated(chip, on=False).fp.zero_gating == ()


@pytest.mark.slow
def test_mnist_through_the_engines_is_as_good_as_pytorch(tmp_path: Path) -> None:
    """784-128-10 LIF, four steps, three seeds, equal schedule: mean accuracy within half a point."""
    root = data_folder("mnist")
    differences = []
    for seed in range(3):
        out = tmp_path / str(seed)
        config = replace(BASE, task="mnist", root=str(root), limit=0, epochs=3, batch_size=128, seed=seed, out=str(out))
        verb.run(config)
        differences.append(json.loads((out / "result.json").read_text())["difference_points"])
    assert abs(sum(differences) / 3) <= 0.5, differences


@pytest.mark.slow
def test_clips_have_one_length_and_know_who_spoke() -> None:
    task = small_task("fsdd", root=str(data_folder("fsdd")), limit=64)
    assert task.model_name == "spikescr" and task.train.x.shape[1] == task.time_steps
    assert len(set(task.train.groups)) > 1 and "" not in task.train.groups
    assert task.encode(task.train.x[:3]).shape[:2] == (task.time_steps, 3)


def test_bad_requests_name_the_fix(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="use fp32 or fp16"):
        verb.run(replace(BASE, precision="int8"))
    with pytest.raises(ValueError, match="power of two"):
        verb.run(replace(BASE, loss_scale=1000.0, out=str(tmp_path / "run")))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"mine holds thesis\.txt, which would be deleted"):
        verb.run(replace(BASE, out=str(tmp_path / "mine")))
    with pytest.raises(FileNotFoundError, match="MNIST's four idx files"):
        small_task("mnist", root=str(tmp_path))
    (tmp_path / "train-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03")
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01")
    with pytest.raises(ValueError, match="cut off in a header"):
        small_task("mnist", root=str(tmp_path))
