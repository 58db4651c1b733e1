"""`spikeloom distill`: a curriculum from fine to coarse time steps, each stage distilled from the one before it (KDCL).

RUN/stage0_5ms, stage1_10ms, … and undistilled_25ms are run folders as `spikeloom train` makes them, each with a
stage.json: what it was trained with, its status, its best epoch and that checkpoint's SHA-256. A finished stage is not
trained again, an interrupted one goes on from its last epoch. RUN/curriculum.csv, .json and report.html are the result.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spikeloom.accel.common.batches import BatchIndex, CacheBudget
from spikeloom.accel.common.datamodule import DataSpec, SplitDataModule
from spikeloom.accel.common.files import contents, read_object, write_json
from spikeloom.accel.common.sizes import flat
from spikeloom.pipelines.config.distill import DistillConfig
from spikeloom.pipelines.config.train import TrainConfig
from spikeloom.pipelines.reports.distillation import write_table
from spikeloom.pipelines.training.callbacks import check_pick
from spikeloom.pipelines.training.claim import claim, holds_a_run
from spikeloom.pipelines.training.classification import TrainingSetup, from_labels, train
from spikeloom.pipelines.training.launch import is_first
from spikeloom.pipelines.training.module import ClassificationModule
from spikeloom.pipelines.training.run_dir import hyperparameters, load_model
from spikeloom.pipelines.training.runtime import set_up
from spikeloom.speech.batches import FeatureSet, featurise
from spikeloom.speech.datamodule import SpeechDataModule
from spikeloom.speech.distillation import (
    DistillationConfig,
    PairedBatch,
    check_resolutions,
    hand_over,
    pair,
)
from spikeloom.speech.energy import count_operations
from spikeloom.speech.models.prediction import PREDICTION_BATCH
from spikeloom.speech.models.spikescr import SpikeSCR

log = logging.getLogger("spikeloom")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One training of the curriculum; `teacher` is the stage whose weights it starts from and listens to."""

    name: str  # 0, 1, … or undistilled
    config: TrainConfig
    teacher: "Stage | None" = None

    @property
    def folder(self) -> Path:
        return Path(self.config.run)

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoints" / "best.ckpt"


class DistillationModule(ClassificationModule):
    """Cross-entropy of the labels plus kl_weight times the KL to the teacher, over `PairedBatch`es.

    Args:
        config, data, model: as in `TrainingModule`.
        distillation: temperature and weight, or their plain values.
    """

    def __init__(
        self, config: TrainConfig | Mapping[str, Any], data: DataSpec | Mapping[str, Any],
        model: nn.Module | None = None, *, distillation: DistillationConfig | Mapping[str, Any],
    ) -> None:  # fmt: skip
        if not isinstance(distillation, DistillationConfig):
            distillation = DistillationConfig(**distillation)
        super().__init__(config, data, model, distillation=asdict(distillation))
        self.distillation = distillation.build()

    def training_loss(self, batch: PairedBatch) -> Tensor:
        student = self.distillation(self.model, batch)
        self.log("train_kl", student.kl.detach(), on_step=False, on_epoch=True, batch_size=len(batch.labels))
        return self.cross_entropy(student.log_p, batch.labels) + self.distillation.kl_weight * student.kl


class PairedDataModule(SplitDataModule):
    """The batches of a stage: training clips as the student gets them, with what the teacher says of each.

    Args:
        student: the data of the stage, set up.
        teacher: frozen, of the stage before.
        fine: the training clips as the teacher gets them, not augmented.
    """

    def __init__(self, student: SpeechDataModule, teacher: SpikeSCR, fine: FeatureSet) -> None:
        super().__init__(
            batch_size=student.batch_size, seed=student.seed, num_workers=student.num_workers, order=student.order
        )
        self.student, self.teacher, self.fine = student, teacher, fine

    def read(self) -> tuple[Any, dict[str, Any]]:
        sets = {"valid": self.student.valid_set, "test": self.student.test_set}
        return self.student.splits, {"train": pair(self.student.train_set, self.teacher, self.fine), **sets}

    @property
    def spec(self) -> DataSpec:
        return self.student.spec


def distil(config: DistillConfig) -> list[dict[str, Any]]:
    """Train what is not yet finished of the curriculum and return its table, one row a stage."""
    stages = plan(config)
    if config.trainer.ckpt_path is not None:
        raise ValueError(
            "trainer.ckpt_path goes on with one training, and a curriculum is several; add resume=true instead"
        )
    set_up(config.trainer.threads)
    config.data.build()  # before the folder is claimed: data that are missing leave none
    folder = Path(config.run)
    with claim(config, result="curriculum.json", same=False):
        for stage in stages:
            require_unchanged(stage, settings(stage, config))
        rows = [complete(stage, config) for stage in stages]
        if not is_first() or config.trainer.fast_dev_run:
            return rows
        # Runs that differ only in seed are aggregated; the seed also draws the speakers where a source splits by it.
        alike = [{k: v for k, v in settings(s, config).items() if k not in ("seed", "data.split_seed")} for s in stages]
        write_json(
            folder / "curriculum.json",
            {"name": config.name, "seed": config.seed, "settings_sha256": digest(alike), "stages": rows},
        )
        write_table(folder, config)
    return rows


def plan(config: DistillConfig) -> list[Stage]:
    """The stages in the order they run. Raises ValueError for settings no curriculum can have."""
    check_resolutions(config.resolutions_ms)
    config.distillation.build()
    check_pick(config.teacher_pick)
    for name in ("undistilled_epochs", "energy_clips"):
        if (value := getattr(config, name)) is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}; leave it out for the default")
    if config.leave_one_speaker_out:
        raise ValueError(
            "leave_one_speaker_out is not defined for a curriculum; add leave_one_speaker_out=false, and sweep "
            "data.test_speaker with -m to hold out every speaker once"
        )
    stages: list[Stage] = []
    for i, step_ms in enumerate(config.resolutions_ms):
        own = stage_config(config, f"stage{i}_{step_ms:g}ms", step_ms, config.trainer.epochs)
        stages.append(Stage(name=str(i), config=own, teacher=stages[-1] if stages else None))
    if config.undistilled:
        coarsest = config.resolutions_ms[-1]
        epochs = config.undistilled_epochs or config.trainer.epochs * len(config.resolutions_ms)
        own = stage_config(config, f"undistilled_{coarsest:g}ms", coarsest, epochs)
        stages.append(Stage(name="undistilled", config=own))
    return stages


def stage_config(config: DistillConfig, folder: str, step_ms: float, epochs: int) -> TrainConfig:
    """What `spikeloom train` would be given for one stage."""
    shared = {field.name: getattr(config, field.name) for field in fields(TrainConfig)}
    own = {
        "name": f"{config.name}, {folder.replace('_', ', ')}",
        "run": f"{config.run}/{folder}",
        "features": config.features.at(step_ms),
        "trainer": replace(config.trainer, epochs=epochs),
        "resume": True,  # the curriculum's folder is claimed; what is there of a stage is ours
        "overwrite": False,
    }
    return TrainConfig(**{**shared, **own})


def complete(stage: Stage, config: DistillConfig) -> dict[str, Any]:
    """Train the stage unless it is finished, and return its row of the table."""
    setup = from_teacher(stage.teacher, config.distillation) if stage.teacher else from_labels
    if config.trainer.fast_dev_run:
        return train(stage.config, setup, config.teacher_pick)
    told, path = settings(stage, config), stage.folder / "stage.json"
    if stage.teacher is not None:
        told["teacher_sha256"] = file_digest(stage.teacher.checkpoint)
    if require_unchanged(stage, told) == "finished":
        log.info("stage %s (%g ms) is finished", stage.name, stage.config.features.step_ms)
        with contents(path, "delete the stage's folder"):
            return dict(read_object(path, "delete the stage's folder")["row"])
    record = {"stage": stage.name, "status": "training", "settings_sha256": digest(told), "settings": told}
    if is_first():
        write_json(path, record)
    log.info(
        "stage %s: %g ms steps, %s -> %s", stage.name, stage.config.features.step_ms,
        f"distilled from {stage.teacher.config.features.step_ms:g} ms" if stage.teacher else "from scratch",
        stage.folder,
    )  # fmt: skip

    result = train(stage.config, setup, config.teacher_pick)
    if not is_first():
        return {}
    row = measure(stage, result, config.energy_clips)
    chosen = {"best_epoch": result["best_epoch"], "checkpoint_sha256": file_digest(stage.checkpoint)}
    write_json(path, {**record, "status": "finished", **chosen, "row": row})
    return row


def from_teacher(before: Stage, distillation: DistillationConfig) -> TrainingSetup:
    """The setup of a student that starts from, and is distilled from, the best model of the stage `before`."""

    def setup(config: TrainConfig, data: SpeechDataModule) -> tuple[ClassificationModule, SplitDataModule]:
        module = DistillationModule(config, data.spec, distillation=distillation)
        teacher: Any = module.build()
        if not config.trainer.fast_dev_run:  # the stage before has kept nothing
            hand_over(before.checkpoint, module.model, teacher)
        if config.trainer.accelerator != "cpu" and torch.cuda.is_available():
            teacher.cuda()
        # Each clip is read once at the finer resolution: keeping those frames would only crowd out the student's.
        fine = featurise(data.splits.train, before.config.features.build(), budget=CacheBudget(0))
        return module, PairedDataModule(data, teacher, fine)

    return setup


def measure(stage: Stage, result: dict[str, Any], energy_clips: int) -> dict[str, Any]:
    """The stage's row: what its run found, and what its test clips cost in steps and operations a clip."""
    trained = load_model(stage.folder / "model")
    clips = stage.config.data.build().test
    test = featurise(clips, trained.features.build())
    steps = np.concatenate([batch.lengths.numpy() for batch in in_order(test)])
    some = np.linspace(0, len(clips) - 1, min(energy_clips, len(clips))).round().astype(int)  # clips lie sorted by word
    counts = count_operations(trained.model, featurise(clips.select(some), trained.features.build()), len(some))
    return {
        "stage": stage.name, "resolution_ms": stage.config.features.step_ms,
        "steps_mean": round(float(steps.mean()), 1), "steps_max": int(steps.max()),
        "params": result["parameters"], "val_acc": result["valid_accuracy"],
        "test_acc_at_best_val": result["test_accuracy"], "test_max_optimistic": result.get("test_max_optimistic"),
        "ac_m": counts.ac / 1e6, "mac_m": counts.mac / 1e6, "energy_mj": counts.energy_pj / 1e9,
        "best_epoch": result["best_epoch"], "seed": result["seed"], "seconds": result["seconds"],
        "epochs": stage.config.trainer.epochs,
    }  # fmt: skip


def in_order(features: FeatureSet) -> Iterator[Any]:
    """The batches of a set from its first clip to its last."""
    return (features[BatchIndex(0, ids)] for ids in torch.arange(len(features)).split(PREDICTION_BATCH))


def require_unchanged(stage: Stage, told: dict[str, Any]) -> str:
    """Status of the stage on disk: absent, training or finished.

    Raises ValueError when it was begun with other settings than `told`, or its checkpoint is not the recorded one.
    """
    path = stage.folder / "stage.json"
    anew = f"delete {stage.folder} to train this stage again, or add overwrite=true to train all of them"
    if not path.exists():
        if holds_a_run(stage.folder):  # what a stage killed before its first record leaves is no run
            raise ValueError(f"{path} is missing, so the settings of {stage.folder} are unknown; {anew}")
        return "absent"
    with contents(path, anew):
        record = read_object(path, anew)
        status, ended_with = str(record["status"]), record.get("checkpoint_sha256")
        before = {key: value for key, value in record["settings"].items() if key in told or key != "teacher_sha256"}
    if differing := sorted(k for k in before.keys() | told.keys() if before.get(k) != told.get(k)):
        key = differing[0]
        more = f" and {len(differing) - 1} more" if len(differing) > 1 else ""
        raise ValueError(
            f"stage {stage.name} in {stage.folder} was trained with {key}={before.get(key)}, now it is "
            f"{told.get(key)}{more}; set it back, or {anew}"
        )
    if status == "finished" and file_digest(stage.checkpoint) != ended_with:
        raise ValueError(f"{stage.checkpoint} is not the checkpoint that stage {stage.name} ended with; {anew}")
    return status


def settings(stage: Stage, config: DistillConfig) -> dict[str, Any]:
    """Everything that decides what comes out of a stage, as flat JSON values; its teacher's checkpoint comes later."""
    told = hyperparameters(stage.config)
    told["teacher_pick"] = config.teacher_pick
    if stage.teacher is not None:
        told |= {"teacher_ms": stage.teacher.config.features.step_ms, **flat(asdict(config.distillation))}
    return told


def digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def file_digest(checkpoint: Path) -> str:
    """SHA-256 of a stage's checkpoint. Raises ValueError when it is missing."""
    if not checkpoint.is_file():
        stage = checkpoint.parents[1]
        raise ValueError(f"{checkpoint} is missing; delete {stage} to train this stage again, or add overwrite=true")
    with checkpoint.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
