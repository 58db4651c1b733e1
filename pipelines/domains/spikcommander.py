"""Released weights of SpikCommander as a run directory that evaluate, audit and export take."""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from spikeloom.accel.common.files import write_json
from spikeloom.pipelines.config.train import TrainConfig
from spikeloom.pipelines.training.run_dir import TrainedModel, save_config, save_model
from spikeloom.speech.augmentation import AugmentationConfig
from spikeloom.speech.datasets.shd import SHDConfig, SSCConfig
from spikeloom.speech.datasets.speech_commands import CommandsConfig
from spikeloom.speech.features.event_bins import EventBinsConfig
from spikeloom.speech.features.log_mel import LogMelConfig
from spikeloom.speech.models.released import convert
from spikeloom.speech.spike_augmentation import SpikeAugmentationConfig
from spikeloom.vision.checkpoints import naming


def write(
    out: Path, checkpoint: Path, state: Mapping[str, Tensor], named: Callable[[int], tuple[str, ...]]
) -> tuple[str, ...]:
    """Write the run directory; returns the names of the classes. named: their number -> their names.

    Raises ValueError, with the file, for weights that are of no SpikCommander.
    """
    with naming(checkpoint):
        model = convert(state)
    form = model.config.form
    root = os.environ.get("SPIKELOOM_DATA", "data")
    sources: dict[str, Any] = {
        "shd": SHDConfig(root=f"{root}/shd"), "ssc": SSCConfig(root=f"{root}/ssc"),
        "gsc": CommandsConfig(root=f"{root}/gsc"),
    }  # fmt: skip
    features: Any = LogMelConfig.gsc_paper() if form == "gsc" else EventBinsConfig()
    augmentation: Any = AugmentationConfig() if form == "gsc" else SpikeAugmentationConfig()
    names, n_parameters = named(model.n_classes), sum(p.numel() for p in model.parameters())
    text = f"""---
library_name: spikeloom
tags: [spiking, keyword-spotting]
---
# SpikCommander ({form}), {n_parameters:,} parameters

Converted from released weights. Window and scale of the gates are not in them: those of the released recipe are taken.
Results never depend on padding here, as they do in the released code: published figures do not carry over.
Nothing was trained or scored in the conversion: `spikeloom evaluate run=FOLDER` scores it.
"""
    save_model(out / "model", TrainedModel(model=model, features=features, class_names=names), text)
    name = f"spikcommander_{form}"
    save_config(
        out, TrainConfig(name=name, run=str(out), data=sources[form], features=features, augmentation=augmentation,
                         model=model.config),
    )  # fmt: skip
    write_json(
        out / "conversion.json",
        {"checkpoint": checkpoint.name, "sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(), "model": name,
         **asdict(model.config), "parameters": n_parameters},
    )  # fmt: skip
    return names
