"""The pruning chapter prunes what the demo trained; the bench goes on where it stopped; zeros save what they should."""

import dataclasses
from pathlib import Path

import pytest

from spikeloom.benchmarks import pruning as bench
from spikeloom.benchmarks.pruning_problems import PICTURES, problem
from spikeloom.examples import pruning as chapter
from spikeloom.pipelines.config.demo import DemoConfig
from spikeloom.pipelines.reports.pruned_cost import step_cost
from tests.conftest import data_folder
from tests.pipelines.test_run import config as tiny


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("demo") / "pruning"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("spikeloom.pipelines.training.classification.write_report", lambda *given: None)
        patch.setattr(chapter, "recipe", lambda config, run: tiny(run, epochs=config.epochs, overwrite=True))
        return folder, chapter.tell(DemoConfig(chapters=["pruning"], epochs=3), folder)


def test_the_chapter_tells_accuracy_energy_and_cycles_before_and_after(told) -> None:
    folder, chapter_told = told
    table, layers = (section.table for section in chapter_told.sections)
    assert [row[:2] for row in table.rows] == [
        [chapter.MEANING[mode], name]
        for mode in ("dense", "gating", "skipping", "compressed")
        for name in ("dense", "pruned")
    ]
    numbers = [[float(cell.replace(",", "")) for cell in row[3:]] for row in table.rows]
    # A chip that ignores zeros gains nothing; inputs of a dead layer count as binary, which changes little.
    assert numbers[0][2:] == pytest.approx(numbers[1][2:], rel=0.02)
    assert numbers[3][0] < numbers[2][0] and numbers[3][2] == pytest.approx(
        numbers[2][2], rel=0.02
    )  # gating saves energy, and no time
    assert numbers[5][2] < numbers[4][2] and numbers[5][3] < numbers[4][3]  # skipping saves both
    assert numbers[7][4] < 0.5 * numbers[6][4] and numbers[5][4] == numbers[4][4]  # only compression shrinks weights
    zeros, weights = (sum(int(row[i].replace(",", "")) for row in layers.rows) for i in (2, 1))
    assert zeros / weights >= 0.9
    assert (folder / "pruned/model/model.safetensors").exists()


def test_the_chapter_takes_the_model_of_the_speech_chapter(told, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "speech").mkdir()
    (tmp_path / "speech/result.json").write_text("{}")
    assert (
        chapter.trained_before(DemoConfig(chapters=["speech", "pruning"]), tmp_path / "pruning") == tmp_path / "speech"
    )


@pytest.mark.slow
def test_sparser_weights_cost_less_where_the_chip_knows_zeros(told) -> None:
    folder, _ = told
    workload = chapter.workload(folder / "pruned", tiny(folder / "pruned"))
    full = dataclasses.replace(
        workload,
        layers=tuple(
            dataclasses.replace(layer, density_weight=None) if layer.density_weight else layer
            for layer in workload.layers
        ),
    )
    assert step_cost(workload, "dense") == step_cost(full, "dense")
    assert step_cost(workload, "gating").step_uj < step_cost(full, "gating").step_uj
    assert step_cost(workload, "skipping").step_cycles < step_cost(full, "skipping").step_cycles


def test_the_bench_makes_one_table_and_figure_of_what_is_found(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(bench, "loop", lambda results, out: None)
    results = [
        {"method": m, "target": s, "sparsity": s, "seed": seed, "epochs": 1, "test_accuracy": 0.9 - s / 4 + seed / 100,
         "parameters": 10}
        for m in ("none", *bench.RULES) for s in ((0.0,) if m == "none" else (0.5, 0.9)) for seed in (0, 1)
    ]  # fmt: skip
    bench.tell(results, "test samples", tmp_path)
    lines = (tmp_path / "pruning.csv").read_text().splitlines()
    assert lines[0] == "method,sparsity,accuracy,sd,seeds" and len(lines) == 1 + 3 * len(bench.RULES)
    assert lines[2].startswith("lats,0.5,78.0")
    assert "<svg" in (tmp_path / "pruning.svg").read_text()
    assert "gradual magnitude   90.0 % zeros" in capsys.readouterr().out


def test_the_bench_poses_mnist_with_a_tenth_of_its_pictures_and_refuses_another_task() -> None:
    posed = problem("written_digits", data_folder("mnist").parent)
    splits = posed.data.splits
    assert (len(splits.train), len(splits.valid), posed.n_test) == (PICTURES, 5000, len(splits.test))
    assert not set(splits.train.names) & set(splits.valid.names)
    assert splits.train.counts().min() > PICTURES / 12  # no class is left out
    model = posed.build().model
    assert [batch.shape for batch in posed.example_batches()] == [(2, 16, 1, 16, 16)] * 2
    assert model(posed.example_batches()[0]).shape == (16, 10)
    with pytest.raises(ValueError, match="use spoken_digits or written_digits"):
        problem("letters", Path())


def test_the_bench_takes_no_result_of_another_task_or_length() -> None:
    result = {"task": "written_digits", "epochs": 8}
    assert bench.belongs(result, "written_digits", 8)
    assert not bench.belongs(result, "spoken_digits", 8) and not bench.belongs(result, "written_digits", 12)
