"""Trials, as the verbs see them: CET-MAE is pre-trained, E2T-PTR learns on top, and is evaluated beside controls."""

from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn

from spikeloom.accel.analysis.energy import Operations
from spikeloom.accel.common.batches import evenly_spread
from spikeloom.accel.common.datamodule import DataSpec
from spikeloom.accel.common.sizes import load_pretrained
from spikeloom.bci.models.cet_mae import CETMAE
from spikeloom.bci.models.config import CETMAERecipe
from spikeloom.bci.models.e2t_ptr import E2TPTR
from spikeloom.pipelines.config.audit import AuditConfig
from spikeloom.pipelines.config.train import TrainConfig
from spikeloom.pipelines.eeg.export import example_batches as example_batches
from spikeloom.pipelines.eeg.export import export_parts as export_parts
from spikeloom.pipelines.training.run_dir import load_model


def load_weights(folder: Path) -> nn.Module:
    with safe_open(folder / "model.safetensors", framework="pt") as weights:
        decodes = any(name.startswith("bart.") for name in weights.keys())  # noqa: SIM118, no mapping
    model: nn.Module = load_pretrained(E2TPTR if decodes else CETMAE, folder, "train again")
    return model


def build_model(config: TrainConfig, data: DataSpec) -> nn.Module:
    """A CET-MAE. Raises ValueError for a decoder, whose sizes are those of the encoder it inherits."""
    if not is_pretraining(config):
        raise ValueError("the sizes of an E2T-PTR are those of its CET-MAE; use pipelines.eeg.module.DecodingModule")
    model: nn.Module = config.model.sizes.build(data.vocab_size)
    return model


def train(config: TrainConfig) -> dict[str, Any]:
    from spikeloom.pipelines.eeg.train import pretrain, train_decoder

    return (pretrain if is_pretraining(config) else train_decoder)(config)


def report(config: TrainConfig) -> None:
    from spikeloom.pipelines.eeg.train import report as report_eeg

    report_eeg(config)


def is_pretraining(config: TrainConfig) -> bool:
    return isinstance(config.model, CETMAERecipe)


def print_table(config: TrainConfig) -> None:
    """A run of EEG has no single number to compare over seeds; `evaluate` judges it beside its controls."""


def evaluate(config: Any, trained_with: TrainConfig) -> dict[str, Any]:
    from spikeloom.pipelines.eeg.evaluate import evaluate as evaluate_eeg

    return evaluate_eeg(load_model(Path(config.run) / "model"), trained_with, config)


def print_summary(found: dict[str, Any]) -> None:
    print(found["verdict"])


def audit(trained_with: TrainConfig, config: AuditConfig) -> tuple[Operations, str]:
    """Validation trials, each run alone: the EEG encoder of a CET-MAE, free-running decoding of an E2T-PTR."""
    from spikeloom.bci.data.trials import read_splits
    from spikeloom.bci.models.operations import count_operations

    config.refuse_still_pictures()
    trained, features = load_model(Path(config.run) / "model"), trained_with.features
    valid = read_splits(trained_with.data.build(), features.samples.build(), features.split, ("valid",))["valid"]
    rows = evenly_spread(len(valid), config.batches * config.batch_size).tolist()
    decoding = None if is_pretraining(trained_with) else trained_with.model.decoding
    found = count_operations(trained.model, [torch.from_numpy(valid.eeg[row]) for row in rows], decoding)
    return found, f"{found.samples} validation trials"
