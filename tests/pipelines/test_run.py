"""A run from training to a costed chip, and what a kill, a second start or a damaged file does to it."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch

from spikeloom.accel.common.datamodule import DataSpec
from spikeloom.accel.common.statistics import accuracy
from spikeloom.pipelines.commands import evaluate, export, simulate
from spikeloom.pipelines.config.evaluate import EvaluateConfig, OtherFolder
from spikeloom.pipelines.config.export import ExportConfig
from spikeloom.pipelines.config.simulate import SimulateConfig
from spikeloom.pipelines.config.train import TrainConfig, TrainerConfig
from spikeloom.pipelines.training import callbacks
from spikeloom.pipelines.training.classification import train
from spikeloom.pipelines.training.module import ClassificationModule
from spikeloom.pipelines.training.optim import OptimizerConfig, learning_rate_factor
from spikeloom.pipelines.training.run_dir import load_config, load_model, save_config
from spikeloom.speech.datasets.synthetic import SyntheticConfig
from spikeloom.speech.models.spikescr import SpikeSCRConfig

DRAWN = True  # these pages stand for all
TINY = SyntheticConfig(n_words=3, n_speakers=6, takes=3, n_test_speakers=2, n_valid_speakers=2)


def config(run: Path, epochs: int = 2, **changes: object) -> TrainConfig:
    base = TrainConfig(
        name="tiny", run=str(run), data=TINY, model=SpikeSCRConfig(width=16, heads=1, dropout=0.1),
        trainer=TrainerConfig(epochs=epochs, batch_size=8, threads=1),
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "whole"
    train(config(run))
    return run


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def test_a_run_leaves_everything_a_reader_needs(finished):
    for name in ("config.yaml", "metrics.csv", "result.json", "report.html", "checkpoints/best.ckpt"):
        assert (finished / name).stat().st_size > 0
    assert sorted(f.name for f in (finished / "model").iterdir()) == [
        "README.md", "config.json", "model.safetensors", "preprocessor_config.json",
    ]  # fmt: skip
    result = json.loads((finished / "result.json").read_text())
    speakers = [set(result[f"{split}_speakers"]) for split in ("train", "valid", "test")]
    assert not (speakers[0] & speakers[1] or speakers[0] & speakers[2] or speakers[1] & speakers[2])
    assert load_config(finished).data == TINY
    assert not list(finished.rglob("*.partial"))


def test_accuracy_counts_clips_and_not_batches():
    """Nine clips in batches of eight: the ninth weighs as much as each of the others."""
    labels = torch.tensor([0, 0, 0, 0, 0, 0, 0, 1, 1])
    log_p = torch.log(torch.tensor([[0.9, 0.1]] * 9))
    config = TrainConfig(name="two", run="", data=TINY)
    task = ClassificationModule(config, DataSpec(n_inputs=1, class_names=("a", "b")), torch.nn.Identity())
    for part in (slice(0, 8), slice(8, 9)):
        task.valid_accuracy(log_p[part], labels[part])
    assert float(task.valid_accuracy.compute()) == pytest.approx(7 / 9)  # the mean of the batches is 7/16
    assert accuracy(log_p, labels) == 7 / 9


def test_an_exit_that_cannot_express_the_model_leaves_nothing(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run, ignore=shutil.ignore_patterns("export"))
    with pytest.raises(ValueError, match=r"NIR cannot express this program: embedding\.conv\S*: it moves axes"):
        export.run(ExportConfig(run=str(run), batches=1, gradients=False, nir=True))
    assert not list(run.glob("export*")) and not list(run.glob(".*"))


@pytest.mark.slow
def test_a_run_is_exported_as_onnx_with_equal_spikes(finished, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    export.run(ExportConfig(run=str(run), batches=2, gradients=False, onnx=True))
    told = capsys.readouterr().err
    assert "model.onnx: 14 populations" in told and "every one equal" in told
    assert {f.name for f in (run / "export").iterdir()} >= {"model.onnx", "program.pt2", "workload.json"}


@pytest.mark.slow
def test_the_default_recipe_recognises_nine_of_ten_words_of_voices_never_heard(tmp_path):
    recipe = TrainConfig(name="synthetic", run=str(tmp_path / "run"), data=SyntheticConfig())
    trained = train(dataclasses.replace(recipe, trainer=TrainerConfig(epochs=15)))
    assert not set(trained["test_speakers"]) & {*trained["train_speakers"], *trained["valid_speakers"]}
    assert trained["test_accuracy"] >= 0.9
    assert trained["seconds"] < 600


def test_a_resumed_run_ends_in_the_same_weights(finished, tmp_path, monkeypatch):
    run = tmp_path / "killed"

    class Killed(Exception):
        pass

    def die_in_second_epoch(self, trainer, module):
        if trainer.current_epoch == 1:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.History, "on_train_epoch_start", die_in_second_epoch)
        with pytest.raises(Killed):
            train(config(run))
    assert not (run / "result.json").exists()
    train(config(run, resume=True))
    whole, resumed = weights(finished), weights(run)
    assert whole.keys() == resumed.keys()
    assert [k for k in whole if not torch.equal(whole[k], resumed[k])] == []
    assert (run / "metrics.csv").read_text() == (finished / "metrics.csv").read_text()


def test_an_existing_run_is_not_overwritten_by_accident(finished, tmp_path):
    with pytest.raises(ValueError, match="already exists; add resume=true"):
        train(config(finished))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="is not a spikeloom run directory"):
        train(config(tmp_path / "mine", overwrite=True))
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_a_damaged_checkpoint_is_named(finished, tmp_path):
    run = tmp_path / "damaged"
    (run / "checkpoints").mkdir(parents=True)
    save_config(run, config(run))
    whole = (finished / "checkpoints/last.ckpt").read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for damaged in (whole[:1000], bytes(flipped)):
        (run / "checkpoints" / "last.ckpt").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"last\.ckpt is damaged.*overwrite=true"):
            train(config(run, resume=True))


def test_damaged_model_files_are_named(finished, tmp_path):
    for name in ("model.safetensors", "config.json", "preprocessor_config.json"):
        copy = tmp_path / name.split(".")[0]
        shutil.copytree(finished / "model", copy)
        (copy / name).write_bytes((copy / name).read_bytes()[:20])
        with pytest.raises(ValueError, match=name.split("_")[0].split(".")[0]):
            load_model(copy)


@pytest.fixture(scope="module")
def exported(finished):
    export.run(ExportConfig(run=str(finished), batches=2, batch_size=4))
    return finished / "export"


def test_evaluate_export_simulate_follow_from_the_folder(finished, exported, tmp_path):
    out = tmp_path / "scores.json"
    evaluate.run(EvaluateConfig(run=str(finished), out=str(out)))
    scores = json.loads(out.read_text())
    assert scores["accuracy"] == json.loads((finished / "result.json").read_text())["test_accuracy"]
    assert sum(map(sum, scores["confusion_matrix"])) == scores["clips"]

    assert json.loads((exported / "unsupported_ops.json").read_text()) == []
    assert (exported / "program.pt2").stat().st_size > 0

    costed = SimulateConfig(workload=str(exported / "workload.json"), what_if=False, uncertainty=False)
    simulate.run(dataclasses.replace(costed, out=str(tmp_path / "sim")))
    simulate.run(dataclasses.replace(costed, out=str(tmp_path / "again")))
    assert (tmp_path / "sim/report.json").read_bytes() == (tmp_path / "again/report.json").read_bytes()
    assert "<svg" in (tmp_path / "sim/report.html").read_text()


def test_a_workload_with_a_missing_field_is_named_and_nothing_is_written(exported, tmp_path):
    document = json.loads((exported / "workload.json").read_text())
    del document["layers"][0]["macs_forward"]
    (tmp_path / "workload.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r"workload\.json.*macs_forward.*re-export"):
        simulate.run(SimulateConfig(workload=str(tmp_path / "workload.json"), out=str(tmp_path / "sim")))
    assert not (tmp_path / "sim").exists()


def test_bad_requests_name_the_fix(finished, tmp_path):
    with pytest.raises(ValueError, match="use one of train, valid, test, all"):
        evaluate.run(EvaluateConfig(run=str(finished), split="dev"))
    with pytest.raises(ValueError, match="which has no folder"):
        evaluate.run(EvaluateConfig(run=str(finished), data=OtherFolder(root="x"), split="all"))
    with pytest.raises(ValueError, match="neither a preset"):
        simulate.load_chip("loihi9")
    with pytest.raises(ValueError, match="holds no trained model"):
        evaluate.run(EvaluateConfig(run=str(tmp_path)))


def test_the_learning_rate_warms_up_by_iteration_and_ends_at_eta_min():
    c = OptimizerConfig(lr=0.005, warmup_epochs=10, eta_min=1e-8)
    trace = [learning_rate_factor(i, 295, 400, c) * c.lr for i in range(400 * 295 + 1)]
    assert trace[2949] == pytest.approx(0.005) and trace[2950] == pytest.approx(0.005)
    assert trace[-1] == pytest.approx(1e-8)
    assert all(a <= b + 1e-15 for a, b in zip(trace[:2950], trace[1:2950], strict=False))
    assert all(a >= b - 1e-15 for a, b in zip(trace[2950:], trace[2951:], strict=False))


def test_a_finished_run_of_other_settings_is_not_taken_for_this_one(finished):
    with pytest.raises(ValueError, match=r"trainer\.epochs=\d+ \(now 99\).*run=FOLDER"):
        train(config(finished, resume=True, epochs=99))
