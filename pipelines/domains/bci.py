"""Readings, as the verbs see them: CET-MAE is pre-trained, E2T-PTR learns on top, and is judged beside controls."""

from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import nn

from bci.cet_mae import CETMAE
from bci.e2t_ptr import E2TPTR
from bci.recipes import CETMAERecipe
from pipelines.reading_export import example_batches as example_batches
from pipelines.reading_export import export_parts as export_parts
from pipelines.schema import TrainConfig


def load_weights(folder: Path) -> nn.Module:
    with safe_open(folder / "model.safetensors", framework="pt") as weights:
        decodes = any(name.startswith("bart.") for name in weights.keys())  # noqa: SIM118, no mapping
    model: nn.Module = (E2TPTR if decodes else CETMAE).from_pretrained(folder, strict=True)
    return model


def train(config: TrainConfig) -> None:
    from pipelines.reading_runs import pretrain, train_decoder

    (pretrain if isinstance(config.model, CETMAERecipe) else train_decoder)(config)


def evaluate(trained: Any, trained_with: TrainConfig, config: Any) -> None:
    from pipelines.reading_protocol import evaluate as judge

    judge(trained, trained_with, config)
