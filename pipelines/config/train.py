"""Keys of `spikeloom train` and `pretrain`, and what a configuration of any training must agree on."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING, OmegaConf

from spikeloom.pipelines.config.groups import GROUPS, UNNAMED, default, kind_key, kind_of, package_of, shape
from spikeloom.pipelines.training.optim import OptimizerConfig

# Lightning's names, and amp; the arithmetic of Transformer Engine exists on its GPUs alone.
PRECISIONS = (
    "32-true", "64-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true", "32", "64", "16", "bf16",
    "transformer-engine", "transformer-engine-float16", "amp",
)  # fmt: skip
DETERMINISTIC = ("true", "false", "warn")


@dataclass
class TrainerConfig:
    """How long and on what a model trains; the names are those of `lightning.Trainer` where it has the same."""

    epochs: int = 30  # passes over the training samples
    batch_size: int = 32  # samples a batch, of each device
    threads: int = 0  # of this process; 0: all cores, or $OMP_NUM_THREADS
    accelerator: str = "cpu"  # cpu, gpu, auto or another name of Lightning's
    devices: int = 1  # processes or GPUs on each machine
    num_nodes: int = 1  # machines
    strategy: str = "auto"  # how devices share the work: auto, ddp, fsdp or another name of Lightning's
    strategy_args: dict[str, Any] = field(
        default_factory=dict
    )  # arguments of the strategy's class, as in +trainer.strategy_args.find_unused_parameters=true
    num_workers: int = 0  # processes that make the batches; 0: this one
    cache_mb: float = 2000.0  # memory for features or frames; what does not fit is made again in every epoch
    accumulate: int = 1  # gradient-accumulation steps
    gradient_clip_val: float | None = None  # largest norm of the gradients; null: not clipped
    ema_decay: float = 0.0  # EMA decay of the weights used for validation and checkpoints; 0: no average
    precision: str = "32-true"  # any of Lightning's names; amp: 16-mixed on a GPU, else 32-true
    max_steps: int | None = None  # stop after so many optimiser steps; null: after the last epoch
    limit_train_batches: float | None = None  # fraction (up to 1.0) or number (2, 3, …) of the batches; null: all
    limit_val_batches: float | None = None  # the same of validation
    val_check_interval: float | None = None  # fraction (0.5) or number (100) of batches between validations; null: all
    sync_batchnorm: bool = False  # batch norm over the samples of all processes instead of those of each
    deterministic: str = "false"  # true, false or warn: only deterministic algorithms of PyTorch
    profiler: str | None = None  # simple, advanced or pytorch: a table of times beside the metrics; null: none
    compile: bool = False  # run the training through torch.compile, which needs a C++ compiler
    fast_dev_run: bool = False  # one batch of training and one of validation, and nothing is written
    ckpt_path: str | None = (
        None  # checkpoint of a training (last.ckpt) whose weights, optimiser and epoch to go on from
    )

    def check(self) -> None:
        """Raise ValueError for lengths, fractions and names that no training has."""
        for name in ("epochs", "batch_size", "accumulate", "devices", "num_nodes", "max_steps"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"trainer.{name}={value} must be >= 1")
        for name in ("threads", "num_workers"):
            if (value := getattr(self, name)) < 0:
                raise ValueError(f"trainer.{name}={value} must be >= 0")
        for name in ("gradient_clip_val", "limit_train_batches", "limit_val_batches", "val_check_interval"):
            if (value := getattr(self, name)) is not None and not 0 < value < math.inf:
                raise ValueError(f"trainer.{name}={value} must be > 0; use null for none")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"trainer.ema_decay={self.ema_decay} must be in [0, 1); use 0 for no average")
        if not 0 <= self.cache_mb < math.inf:
            raise ValueError(f"trainer.cache_mb={self.cache_mb} must be >= 0; use 0 for no cache")
        for name, known in (("precision", PRECISIONS), ("deterministic", DETERMINISTIC)):
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"trainer.{name}={value} is not supported; use one of {', '.join(known)}")


@dataclass
class TrainConfig:
    name: str = MISSING  # of the run, in tables and in its run directory
    run: str = MISSING  # folder the run writes
    seed: int = 0  # of weights, order, augmentation and dropout
    resume: bool = False  # go on from checkpoints/last.ckpt
    overwrite: bool = False  # delete the folder first
    leave_one_speaker_out: bool = False  # one training a speaker, each tested on the speaker left out
    report_test_selected: bool = False  # keep the weights of every epoch, and report the test-selected accuracy beside
    pretrained: str | None = None  # weights to start from: RUN, model folder or file; of a decoder, RUN of `pretrain`
    data: Any = MISSING  # a choice of the group data
    features: Any = field(default_factory=default("features", "log_mel"))  # a choice of features
    augmentation: Any = field(default_factory=default("augmentation", "spectrogram"))  # a choice of augmentation
    model: Any = field(default_factory=default("model", "spikescr"))  # a choice of model
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    pruning: Any = field(default_factory=default("pruning", "none"))  # a choice of pruning
    logger: dict[str, Any] = field(
        default_factory=dict
    )  # choices of logger, each by its name: logger=[csv,tensorboard]
    callbacks: dict[str, Any] = field(default_factory=dict)  # choices of callbacks, each by its name


def open_train_config() -> TrainConfig:
    """The shape of a training whose data, features, augmentation and model are still to be chosen."""
    return TrainConfig(data=MISSING, features=MISSING, augmentation=MISSING, model=MISSING, pruning=MISSING)


def typed(values: Mapping[str, Any]) -> TrainConfig:
    """The configuration that plain nested values describe, such as those of a config.yaml or a checkpoint.

    `data.source` and the `kind` of the other groups name the classes; keys of earlier versions are understood.

    Raises:
        KeyError, ValueError: a kind or a value that is not there. OmegaConf's errors for a key that is not.
    """
    values = dict(values)
    if "audit" in values:  # the name before 0.2
        values["report_test_selected"] = values.pop("audit")
    if isinstance(values.get("features"), Mapping):
        values["features"] = renamed(values["features"])
    given: Any = OmegaConf.create(values)
    shapes = {group: shape_of(group, given.get(group, {})) for group in GROUPS}
    if package_of(shapes["data"]) == "bci" and "gradient_clip_val" not in given.get("trainer", {}):
        given = OmegaConf.merge(given, {"trainer": {"gradient_clip_val": 1.0}})  # fixed for EEG before 0.2
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(open_train_config()), shapes, given))
    assert isinstance(config, TrainConfig)
    return config


def renamed(features: Mapping[str, Any]) -> dict[str, Any]:
    """Plain values of a front end, under the kind of today."""
    kinds = {"reading": "trial"}  # the name before 0.2
    kind = features.get("kind")
    return {**features, "kind": kinds[kind]} if kind in kinds else dict(features)


def shape_of(group: str, values: Any) -> Any:
    """The class that the kind in `values` names; values from before there were kinds have that of `UNNAMED`."""
    return shape(group, values.get(kind_key(group), UNNAMED.get(group)))


def check_kinds(config: TrainConfig) -> None:
    """Raise ValueError where a key that tells classes apart was changed without the class, or domains are mixed."""
    for group in GROUPS:
        node = getattr(config, group)
        true, key = kind_of(group, node), kind_key(group)
        given = getattr(node, key, true)
        if given != true:
            raise ValueError(
                f"{group}.{key}={given} does not fit the other keys of {group}, which are those of {true}; "
                f"choose another {group}=NAME instead"
            )
        if (domain := package_of(node)) not in (package_of(config.data), "accel"):
            raise ValueError(
                f"{group} {true} is for {domain}, and {config.data.source} data are {package_of(config.data)}; "
                f"choose another {group}=NAME, or an experiment=NAME that chooses all of them"
            )
    for part in (config.optimizer, config.trainer, config.pruning):
        part.check()
    if config.trainer.ckpt_path is not None and config.pretrained is not None:
        raise ValueError("pretrained and trainer.ckpt_path both give weights to start from; leave one of them out")
