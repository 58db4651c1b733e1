"""The typed shape of every verb's configuration. YAML in `conf` gives the values; a key not named here is refused."""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING

from pipelines.tasks import OptimizerConfig
from speech.augmentation import AugmentationConfig
from speech.digits import DigitsConfig
from speech.features import LogMelConfig
from speech.spikescr import SpikeSCRConfig
from speech.synthetic import SyntheticConfig

# `data.source` of a configuration -> its shape.
SOURCES = {"fsdd": DigitsConfig, "synthetic": SyntheticConfig}


@dataclass
class TrainerConfig:
    """How long and on what: epochs, clips a batch, threads (0: all cores), and the accelerator Lightning should use."""

    epochs: int = 30
    batch_size: int = 32
    threads: int = 0
    accelerator: str = "cpu"


@dataclass
class TrainConfig:
    name: str = MISSING
    run: str = MISSING  # folder the run writes
    seed: int = 0
    resume: bool = False  # go on from checkpoints/last.ckpt
    overwrite: bool = False  # delete the folder first
    leave_one_speaker_out: bool = False  # one training a speaker, each tested on the speaker it never heard
    data: Any = MISSING
    features: LogMelConfig = field(default_factory=LogMelConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    model: SpikeSCRConfig = field(default_factory=SpikeSCRConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)


@dataclass
class OtherFolder:
    root: str | None = None


@dataclass
class EvaluateConfig:
    run: str = MISSING
    split: str = "test"  # train, valid, test or all
    data: OtherFolder = field(default_factory=OtherFolder)  # root: a folder to score instead of the run's own data
    out: str | None = None  # JSON file; default RUN/evaluation.json


@dataclass
class ExportConfig:
    run: str = MISSING
    batches: int = 4  # real batches on which densities are measured
    batch_size: int = 16
    strict: bool = True  # an operator without a price is an error, not an entry in unsupported_ops.json


@dataclass
class SimulateConfig:
    workload: str = MISSING
    chip: str = "neuromc"  # name of a preset, or path of a YAML file
    out: str | None = None  # folder; default: sim/ beside the workload's folder


@dataclass
class DemoConfig:
    run: str = "runs/demo"
    epochs: int = 16
    seed: int = 0
    chip: str = "neuromc"


@dataclass
class BenchConfig:
    what: str = "ops"  # ops or env
    repeats: int = 20


def register() -> None:
    """Make the shapes known to Hydra under the names the YAML files build on."""
    store = ConfigStore.instance()
    for name, node in {
        "train": TrainConfig, "evaluate": EvaluateConfig, "export": ExportConfig,
        "simulate": SimulateConfig, "demo": DemoConfig, "bench": BenchConfig,
    }.items():  # fmt: skip
        store.store(name=f"{name}_schema", node=node)
    for group, name, node in (
        *(("data", f"{name}_schema", source) for name, source in SOURCES.items()),
        ("features", "log_mel", LogMelConfig),
        ("augmentation", "spectrogram", AugmentationConfig),
        ("model", "spikescr", SpikeSCRConfig),
        ("optimizer", "adamw_cosine", OptimizerConfig),
        ("trainer", "lightning", TrainerConfig),
    ):
        store.store(group=group, name=name, node=node)
