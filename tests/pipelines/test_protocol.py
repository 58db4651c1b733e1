"""How results are reached: the epoch is chosen before a test clip is read, and every seed is told."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from spikeloom.accel.common.statistics import accuracy
from spikeloom.pipelines.config.train import TrainConfig, TrainerConfig
from spikeloom.pipelines.reports.seeds import print_seed_table
from spikeloom.pipelines.training import classification
from spikeloom.pipelines.training.classification import train
from spikeloom.pipelines.training.run_dir import load_model, save_config
from spikeloom.speech.batches import featurise
from spikeloom.speech.datamodule import SpeechDataModule
from spikeloom.speech.datasets.synthetic import SyntheticConfig
from spikeloom.speech.features.frames import CachedFrames
from spikeloom.speech.features.log_mel import LogMelConfig
from spikeloom.speech.models.prediction import predict
from spikeloom.speech.models.spikescr import SpikeSCRConfig

TINY = SyntheticConfig(n_words=3, n_speakers=5, takes=3, n_test_speakers=1, n_valid_speakers=1)


def config(run: Path, **changes: object) -> TrainConfig:
    base = TrainConfig(
        name="tiny", run=str(run), data=TINY, model=SpikeSCRConfig(width=16, heads=1),
        trainer=TrainerConfig(epochs=3, batch_size=8, threads=1),
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


@pytest.fixture
def unreported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classification, "write_report", lambda *given: None)


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def test_no_test_clip_is_read_before_the_best_epoch_is_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unreported: None
) -> None:
    run, asked = tmp_path / "run", []
    test_names = set(TINY.build().test.names)
    batch = CachedFrames.batch

    def watched(frames: CachedFrames, clip_ids: list[int], *change: Any) -> tuple[torch.Tensor, torch.Tensor]:
        if set(frames.clips.names) & test_names:
            finished = len((run / "metrics.csv").read_text().splitlines()) == 1 + 3
            asked.append(finished and (run / "checkpoints/best.ckpt").exists())
        return batch(frames, clip_ids, *change)

    def never(data: SpeechDataModule) -> None:
        raise AssertionError("training made a loader of the test clips")

    monkeypatch.setattr(CachedFrames, "batch", watched)
    monkeypatch.setattr(SpeechDataModule, "test_dataloader", never)
    train(config(run, report_test_selected=True))
    assert asked
    assert all(asked)


def test_an_audit_tells_the_optimistic_figure_and_changes_nothing(tmp_path: Path, unreported: None) -> None:
    plain, audited = tmp_path / "plain", tmp_path / "audited"
    without, result = train(config(plain)), train(config(audited, report_test_selected=True))
    test = featurise(TINY.build().test, LogMelConfig.gsc().build())
    model = load_model(audited / "model").model
    assert result["test_accuracy"] == accuracy(predict(model, test), test.labels)
    of_epochs = []
    for epoch in range(3):
        stored = torch.load(audited / "epochs" / f"epoch={epoch}.ckpt", weights_only=True)["state_dict"]
        model.load_state_dict({k.removeprefix("model."): v for k, v in stored.items() if k.startswith("model.")})
        of_epochs.append(accuracy(predict(model, test), test.labels))
    assert (result["test_max_optimistic"], result["audited_epochs"]) == (max(of_epochs), 3)
    assert result["test_accuracy"] == of_epochs[result["best_epoch"] - 1] <= max(of_epochs)

    assert all(torch.equal(value, weights(audited)[name]) for name, value in weights(plain).items())
    told = {"seconds", "test_max_optimistic", "audited_epochs"}
    assert {k: v for k, v in result.items() if k not in told} == {k: v for k, v in without.items() if k not in told}
    assert not (plain / "epochs").exists()
    assert "test_max_optimistic" not in without


def finished_run(
    folder: Path, seed: int, results: list[dict[str, object]], kind: str = "result.json", **changes: object
) -> Path:
    """A run's folder as training leaves it, as far as tables read it."""
    folder.mkdir(parents=True)
    for i, told in enumerate(results):
        where = folder if kind == "result.json" else folder / f"speaker{i}"
        where.mkdir(exist_ok=True)
        held_out = dataclasses.replace(TINY, split_seed=seed)
        save_config(where, config(where, seed=seed, data=held_out, **changes))
        told.update(name="tiny", seed=seed)
    values = results[0] if kind == "result.json" else {"seed": seed, "results": results}
    (folder / kind).write_text(json.dumps(values))
    return folder


def result(accuracy: float, **more: object) -> dict[str, object]:
    return {"test_speakers": ["ann"], "test_accuracy": accuracy, **more}


def test_seeds_are_told_one_by_one_with_mean_and_deviation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, value in ((10, 0.9), (0, 0.8), (1, 0.85)):
        run = finished_run(tmp_path / f"seed{seed}", seed, [result(value)])
    print_seed_table(run, "result.json")
    said = capsys.readouterr().out.splitlines()[1:]
    assert said[0] == "tiny: test accuracy at the best validation epoch, 3 seeds"
    assert [line.split() for line in said[1:4]] == [
        ["seed", str(s), str(v), "%"] for s, v in ((0, 80.0), (1, 85.0), (10, 90.0))
    ]
    assert said[4].split() == ["mean", "85.0", "±", "5.0", "%", "(sd", "over", "the", "seeds)"]
    assert len(said) == 5


def test_copies_of_a_seed_count_once_and_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(6):
        run = finished_run(tmp_path / f"copy{i}", 0, [result(0.8)])
    finished_run(tmp_path / "other", 1, [result(0.9)])
    print_seed_table(run, "result.json")
    printed = capsys.readouterr().out
    assert "seed 0 was run 6 times: copy5 counts, copy0, copy1, copy2, … (5 in all) left out" in printed
    assert "2 seeds" in printed and "85.0 ±  7.1 %" in printed


def test_a_run_of_other_settings_is_not_one_of_the_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    longer = TrainerConfig(epochs=30, batch_size=8, threads=2)
    finished_run(tmp_path / "other_model", 2, [result(0.1)], model=SpikeSCRConfig(width=32, heads=1))
    finished_run(tmp_path / "longer", 3, [result(0.2)], trainer=longer)
    finished_run(tmp_path / "other_name", 4, [result(0.3)], name="another")
    (finished_run(tmp_path / "broken", 5, [result(0.4)]) / "config.yaml").write_text("model: {kind: none}")
    finished_run(tmp_path / "more_threads", 1, [result(0.7)], trainer=TrainerConfig(epochs=3, batch_size=8, threads=2))
    print_seed_table(finished_run(tmp_path / "ours", 0, [result(0.8)]), "result.json")
    said = capsys.readouterr().out
    assert "2 seeds" in said
    assert "75.0 ±  7.1 %" in said


def test_optimistic_figures_are_labelled_wherever_they_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, value in ((0, 0.8), (1, 0.9)):
        run = finished_run(tmp_path / f"seed{seed}", seed, [result(value, test_max_optimistic=value + 0.05)])
    print_seed_table(run, "result.json")
    said = capsys.readouterr().out
    assert said.count("selected on test") == 3
    assert "85.0 %" in said and "optimistic    90.0 ±  7.1 %" in said


def test_speakers_held_out_have_a_row_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, (ann, bob) in ((0, (0.8, 0.6)), (1, (0.9, 0.7))):
        results = [result(ann), result(bob, test_speakers=["bob"])]
        run = finished_run(tmp_path / f"seed{seed}", seed, results, "speakers.json")
    print_seed_table(run, "speakers.json")
    said = capsys.readouterr().out
    assert "ann           85.0 ±  7.1 %   (80.0, 90.0)" in said
    assert "bob           65.0 ±  7.1 %   (60.0, 70.0)" in said
    assert "seed 0        70.0 %" in said
    assert "mean          75.0 ±  7.1 %" in said


def test_a_single_run_needs_no_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_seed_table(finished_run(tmp_path / "seed0", 0, [result(0.8)]), "result.json")
    assert capsys.readouterr().out == ""
