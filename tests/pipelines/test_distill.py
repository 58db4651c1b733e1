"""A whole curriculum from one call: its hand-overs, its table, and what a kill or a changed setting does to it."""

import csv
import dataclasses
import functools
import json
import shutil
from pathlib import Path

import lightning
import pytest
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from torch import Tensor
from torch.utils.data import DataLoader

from spikeloom.pipelines.config.distill import DistillConfig
from spikeloom.pipelines.config.register import register
from spikeloom.pipelines.config.train import TrainerConfig
from spikeloom.pipelines.reports.distillation import over_seeds
from spikeloom.pipelines.training import callbacks
from spikeloom.pipelines.training import distillation as distill
from spikeloom.pipelines.training.callbacks import BestEpoch
from spikeloom.pipelines.training.distillation import DistillationModule, distil
from spikeloom.pipelines.training.optim import OptimizerConfig
from spikeloom.pipelines.training.run_dir import load_config, load_model
from spikeloom.speech.datasets.synthetic import SyntheticConfig, synthesise_keywords
from spikeloom.speech.distillation import DistillationConfig
from spikeloom.speech.features.frames import CachedFrames
from spikeloom.speech.models.spikescr import SpikeSCRConfig
from tests.pipelines.small_data import write_spikes

TINY = SyntheticConfig(n_words=3, n_speakers=6, takes=2, n_test_speakers=2, n_valid_speakers=2)
COLUMNS = [  # of the specification
    "stage", "resolution_ms", "steps_mean", "steps_max", "params", "val_acc", "test_acc_at_best_val",
    "test_max_optimistic", "ac_m", "mac_m", "energy_mj", "best_epoch", "seed", "seconds",
]  # fmt: skip
STAGES = ("stage0_10ms", "stage1_20ms", "stage2_40ms", "undistilled_40ms")


def config(run: Path, **changes: object) -> DistillConfig:
    base = DistillConfig(
        name="tiny", run=str(run), report_test_selected=True, data=TINY, model=SpikeSCRConfig(width=16, heads=1),
        trainer=TrainerConfig(epochs=2, batch_size=8, threads=1), optimizer=OptimizerConfig(eta_min=1e-8),
        resolutions_ms=[10.0, 20.0, 40.0], energy_clips=4,
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


def best(run: Path) -> dict[str, Tensor]:
    return weights(run, "best")


def weights(run: Path, which: str = "last") -> dict[str, Tensor]:
    return torch.load(run / "checkpoints" / f"{which}.ckpt", weights_only=True)["state_dict"]


def equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Nine tenths of the time would go into synthesising the same words again and drawing the stages' own pages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("spikeloom.speech.datasets.synthetic.synthesise_keywords", functools.cache(synthesise_keywords))
        patch.setattr(
            "spikeloom.pipelines.training.classification.write_report", lambda *given: None
        )  # test_run.py looks at such a page
        yield


class Watched(dict):
    """What happened inside a curriculum: student, teacher and their state, by stage folder."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory, quick) -> tuple[Path, Watched]:
    """A curriculum of three stages, watched: weights at every hand-over, and every look at a test clip."""
    run = tmp_path_factory.mktemp("runs") / "seed0"
    watched = Watched(student={}, teacher={}, early_looks=[])
    test_clips = set(TINY.build().test.names)
    current: list[Path] = []
    patch = pytest.MonkeyPatch()

    class WatchedTask(DistillationModule):
        def on_train_start(self):
            watched["student"][current[-1].name] = {k: v.clone() for k, v in self.model.state_dict().items()}

    def pair(student, teacher, fine):
        watched["teacher"][current[-1].name] = {k: v.clone() for k, v in teacher.state_dict().items()}
        return real_pair(student, teacher, fine)

    def train(stage, *given):
        current.append(Path(stage.run))
        return real_train(stage, *given)

    def batch(self, clip_ids, *change):
        if set(self.clips.names) <= test_clips:
            folder = current[-1]
            rows = (folder / "metrics.csv").read_text().splitlines() if (folder / "metrics.csv").exists() else []
            if len(rows) != 1 + load_config(folder).trainer.epochs or not (folder / "checkpoints/best.ckpt").exists():
                watched["early_looks"].append(folder)
        return real_batch(self, clip_ids, *change)

    real_pair, real_train, real_batch = distill.pair, distill.train, CachedFrames.batch
    patch.setattr(distill, "DistillationModule", WatchedTask)
    patch.setattr(distill, "pair", pair)
    patch.setattr(distill, "train", train)
    patch.setattr(CachedFrames, "batch", batch)
    try:
        distil(config(run))
    finally:  # a failure here is not to fail the tests after it
        patch.undo()
    return run, watched


def table(run: Path) -> list[dict[str, str]]:
    with (run / "curriculum.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_table_has_every_column_and_stage(finished):
    run, _ = finished
    rows = table(run)
    assert list(rows[0])[: len(COLUMNS)] == COLUMNS
    assert all(value != "" for row in rows for value in row.values())
    assert [row["stage"] for row in rows] == ["0", "1", "2", "undistilled"]
    assert [float(row["resolution_ms"]) for row in rows] == [10, 20, 40, 40]
    steps = [float(row["steps_mean"]) for row in rows]
    assert steps[0] > 1.7 * steps[1] and steps[1] > 1.7 * steps[2] and steps[2] == steps[3]
    assert len({row["params"] for row in rows}) == 1
    for row in rows:
        assert float(row["energy_mj"]) == pytest.approx(
            (0.9 * float(row["ac_m"]) + 4.6 * float(row["mac_m"])) * 1e-3, rel=1e-6
        )
        assert float(row["test_max_optimistic"]) >= float(row["test_acc_at_best_val"])
    assert [int(row["epochs"]) for row in rows] == [2, 2, 2, 6]  # the comparison learns as long as all stages together
    page = (run / "report.html").read_text()
    assert "<svg" in page and "not a valid estimate" in page and "steps, mean" in page
    assert json.loads((run / "curriculum.json").read_text())["stages"][1]["stage"] == "1"


def test_every_stage_is_a_run_other_verbs_can_read(finished):
    run, _ = finished
    for name, step_ms in zip(STAGES, (10, 20, 40, 40), strict=True):
        assert load_config(run / name).features.step_ms == step_ms
        assert load_model(run / name / "model").features.step_ms == step_ms
        record = json.loads((run / name / "stage.json").read_text())
        assert record["status"] == "finished" and record["best_epoch"] >= 1
        assert record["checkpoint_sha256"] == distill.file_digest(run / name / "checkpoints/best.ckpt")


def test_student_and_teacher_begin_as_the_best_of_the_stage_before(finished):
    run, watched = finished
    assert sorted(watched["student"]) == sorted(watched["teacher"]) == list(STAGES[1:3])
    for before, stage in zip(STAGES, STAGES[1:3], strict=False):
        kept = {key.removeprefix("model."): value for key, value in best(run / before).items()}
        kept = {key: kept[key] for key in watched["student"][stage]}
        assert equal(kept, watched["student"][stage]) and equal(kept, watched["teacher"][stage])
        assert any("running_mean" in key for key in kept)
        assert not equal(kept, {k.removeprefix("model."): v for k, v in weights(run / stage).items() if k in kept})


def test_no_test_clip_is_read_before_the_best_epoch_is_on_disk(finished):
    assert finished[1]["early_looks"] == []


def test_each_stage_warms_up_and_ends_at_eta_min_and_logs_its_kl(finished):
    run, _ = finished
    for name in STAGES:
        with (run / name / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert float(rows[-1]["lr"]) == pytest.approx(1e-8) and float(rows[0]["lr"]) == pytest.approx(2e-3)
        assert ("train_kl" in rows[0]) == (name in STAGES[1:3])


def test_a_killed_curriculum_goes_on_where_it_was(finished, tmp_path, monkeypatch, capfd):
    whole, _ = finished
    run = tmp_path / "seed0"

    class Killed(Exception):
        pass

    def die(self, trainer, module):
        if isinstance(module, DistillationModule) and "stage2" in str(self.path) and trainer.current_epoch == 1:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.History, "on_train_epoch_start", die, raising=False)
        with pytest.raises(Killed):
            distil(config(run))
    assert json.loads((run / "stage2_40ms/stage.json").read_text())["status"] == "training"
    assert not (run / "curriculum.csv").exists()
    with pytest.raises(ValueError, match="already exists; add resume=true"):
        distil(config(run))

    before = {name: (run / name / "checkpoints/last.ckpt").stat().st_mtime_ns for name in STAGES[:2]}
    trained = []
    real = distill.train
    monkeypatch.setattr(distill, "train", lambda c, *given: trained.append(Path(c.run).name) or real(c, *given))
    distil(config(run, resume=True))
    assert trained == list(STAGES[2:])
    assert before == {name: (run / name / "checkpoints/last.ckpt").stat().st_mtime_ns for name in STAGES[:2]}
    assert [{**row, "seconds": ""} for row in table(run)] == [{**row, "seconds": ""} for row in table(whole)]
    for name in STAGES:
        assert equal(weights(run / name), weights(whole / name))


def test_changed_settings_name_the_stage_they_concern(finished, tmp_path):
    run = tmp_path / "copy"
    shutil.copytree(finished[0], run)

    def again(**changes: object) -> list[dict[str, object]]:
        return distil(config(run, resume=True, **changes))

    with pytest.raises(ValueError, match=r"stage 0 .*optimizer\.lr=0\.002, now it is 0\.1; .*overwrite=true"):
        again(optimizer=OptimizerConfig(lr=0.1, eta_min=1e-8))
    with pytest.raises(ValueError, match=r"stage 1 .*temperature=2\.0, now it is 4\.0; .*delete .*stage1_20ms"):
        again(distillation=DistillationConfig(temperature=4.0))
    with pytest.raises(ValueError, match=r"stage 0 .*teacher_pick=best_acc"):
        again(teacher_pick="best_loss")
    again(trainer=TrainerConfig(epochs=2, batch_size=8, threads=2))  # how fast, not what
    checkpoint = run / "stage0_10ms/checkpoints/best.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes() + b"0")
    with pytest.raises(ValueError, match=r"best\.ckpt is not the checkpoint that stage 0 ended with"):
        again()
    checkpoint.unlink()
    with pytest.raises(ValueError, match=r"best\.ckpt is missing; delete .*stage0_10ms"):
        again()
    (run / "stage0_10ms/stage.json").unlink()
    with pytest.raises(ValueError, match=r"stage\.json is missing.*delete .*stage0_10ms"):
        again()


def test_a_coarser_stage_can_be_added_to_a_finished_curriculum(finished, tmp_path, monkeypatch):
    run = tmp_path / "copy"
    shutil.copytree(finished[0], run)
    trained = []
    real = distill.train
    monkeypatch.setattr(distill, "train", lambda c, *given: trained.append(Path(c.run).name) or real(c, *given))
    rows = distil(config(run, resume=True, resolutions_ms=[10.0, 20.0, 40.0, 80.0], undistilled=False))
    assert trained == ["stage3_80ms"] and [row["stage"] for row in rows] == ["0", "1", "2", "3"]


def test_impossible_curricula_are_refused_before_anything_is_written(tmp_path):
    for changes, message in (
        ({"resolutions_ms": [10.0, 5.0]}, "rise strictly"),
        ({"leave_one_speaker_out": True}, "leave_one_speaker_out=false"),
        ({"teacher_pick": "worst"}, "best_acc or best_loss, got 'worst'"),
        ({"undistilled_epochs": 0}, "undistilled_epochs"),
        ({"energy_clips": 0}, "energy_clips"),
        ({"distillation": DistillationConfig(temperature=0.0)}, "temperature must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            distil(config(tmp_path / "none", **changes))
    assert not (tmp_path / "none").exists()


def composed(*overrides: str) -> DistillConfig:
    """The configuration the command line would hand to the verb."""
    register()
    with initialize_config_module("spikeloom.conf", version_base="1.3"):
        made = OmegaConf.to_object(compose("distill", overrides=["run=unused", *overrides]))
    assert isinstance(made, DistillConfig)
    return made


@pytest.mark.parametrize(
    ("experiment", "resolutions_ms", "epochs"),
    [
        ("kdcl_shd", [10, 25], 800),
        ("kdcl_ssc", [2, 5, 10, 25], 400),
        ("kdcl_gsc35", [2.5, 5, 10, 25], 400),
        ("kdcl_speech_commands", [5, 10, 25], None),
        ("kdcl_fsdd", [5, 10, 25], None),
    ],
)
def test_the_recipes_are_curricula(experiment, resolutions_ms, epochs):
    made = composed(f"experiment={experiment}")
    stages = distill.plan(made)
    assert [stage.config.features.step_ms for stage in stages] == [*resolutions_ms, resolutions_ms[-1]]
    assert epochs in (None, made.trainer.epochs) and made.optimizer.eta_min == 1e-8
    assert made.name == experiment and made.report_test_selected and made.undistilled
    assert [stage.teacher and stage.teacher.name for stage in stages[:2]] == [None, "0"]


def test_spikes_are_distilled_as_sounds_are(tmp_path):
    write_spikes(tmp_path / "shd" / "shd_train.h5", 80, 20, 4)
    write_spikes(tmp_path / "shd" / "shd_test.h5", 20, 20, 4, seed=1)
    made = composed(
        "experiment=kdcl_shd", f"data.root={tmp_path / 'shd'}", "model.width=16", "model.heads=1", "trainer.epochs=1",
        "trainer.threads=1", "undistilled=false", "report_test_selected=false",
    )  # fmt: skip
    rows = distil(dataclasses.replace(made, run=str(tmp_path / "run")))
    assert [row["resolution_ms"] for row in rows] == [10, 25] and rows[0]["steps_max"] > 2 * rows[1]["steps_max"]
    assert all(row["test_max_optimistic"] is None for row in rows)
    assert (tmp_path / "run" / "report.html").exists()


class Scripted(lightning.LightningModule):
    """Reports the validation accuracy and loss it is told to, epoch by epoch."""

    def __init__(self, told: list[tuple[float, float]]) -> None:
        super().__init__()
        self.told, self.weight = told, torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch, index):
        return self.weight.sum()

    def validation_step(self, batch, index):
        accuracy, loss = self.told[self.current_epoch]
        self.log_dict({"valid_accuracy": accuracy, "valid_loss": loss})

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


@pytest.mark.parametrize(("pick", "epoch"), [("best_acc", 3), ("best_loss", 1)])
def test_the_epoch_handed_over_is_best_and_ties_go_to_the_lower_loss(tmp_path, pick, epoch):
    told = [(0.5, 0.9), (0.4, 0.1), (0.75, 0.8), (0.75, 0.6), (0.75, 0.6), (0.75, 0.7)]
    chosen = BestEpoch(tmp_path, pick)
    loader = DataLoader([0.0])
    trainer = lightning.Trainer(
        max_epochs=len(told), accelerator="cpu", logger=False, callbacks=[chosen], num_sanity_val_steps=0,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Scripted(told), loader, loader)
    kept = torch.load(tmp_path / "best.ckpt", weights_only=True)
    assert kept["epoch"] == epoch and [f.name for f in tmp_path.iterdir()] == ["best.ckpt"]
    assert (chosen.valid_accuracy, chosen.valid_loss) == pytest.approx(told[epoch])


def test_seeds_are_pooled_with_the_deviation_of_a_sample():
    rows = [
        {"stage": "0", "resolution_ms": 5.0, "val_acc": acc, "test_acc_at_best_val": acc, "test_max_optimistic": None,
         "steps_mean": 10.0, "ac_m": 1.0, "mac_m": 1.0, "energy_mj": 1.0}
        for acc in (0.5, 0.7, 0.9)
    ]  # fmt: skip
    (pooled,) = over_seeds([{"stages": [row]} for row in rows])
    assert pooled["seeds"] == 3 and pooled["val_acc"] == pytest.approx(0.7)
    assert pooled["val_acc_sd"] == pytest.approx(0.2)
    assert pooled["test_max_optimistic"] is None and pooled["test_max_optimistic_sd"] is None
