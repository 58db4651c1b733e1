"""Released weights of CET-MAE and E2T-PTR as a run directory that train, evaluate, audit and export take."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from spikeloom.accel.common.files import write_json
from spikeloom.bci.data.datamodule import TextConfig
from spikeloom.bci.data.tokenizer import load_tokenizer
from spikeloom.bci.models.config import AsRecordedConfig, CETMAERecipe, E2TPTRRecipe, TrialConfig
from spikeloom.bci.models.released import Released, convert, describe_left
from spikeloom.bci.zuco.source import ZuCoConfig
from spikeloom.pipelines.config.train import TrainConfig
from spikeloom.pipelines.training.run_dir import TrainedModel, save_config, save_model
from spikeloom.vision.checkpoints import naming

TASKS = ["SR1", "NR1", "NR2"]  # of the released pre-training


def write(
    out: Path, checkpoint: Path, state: Mapping[str, Tensor], tokenizer: str | None, pretrained: str | None
) -> Released:
    """Write the run directory.

    tokenizer: folder of the tokenizer the weights were trained with. pretrained: of a decoder, the run of the CET-MAE
    it inherits from, from which `evaluate` trains its controls. Raises ValueError, with the file, for other weights.
    """
    with naming(checkpoint):
        found = convert(state)
    folder = tokenizer or f"{os.environ.get('SPIKELOOM_DATA', 'data')}/tokenizer/bart"
    text = load_tokenizer(Path(folder))
    model = found.model
    if text.vocab_size != model.vocab_size:
        raise ValueError(
            f"{checkpoint} knows {model.vocab_size:,} ids, the tokenizer of {folder} {text.vocab_size:,}; give "
            "tokenizer=FOLDER of the one it was trained with"
        )
    features = TrialConfig(text=TextConfig(tokenizer=folder))
    trained = TrainedModel(model=model, features=features, class_names=())
    save_model(out / "model", trained, card(found), also=text.save)
    recipe = CETMAERecipe(sizes=found.sizes) if found.name == "cet_mae" else E2TPTRRecipe()
    save_config(out, TrainConfig(
        name=f"{found.name}_released", run=str(out), features=features, augmentation=AsRecordedConfig(), model=recipe,
        data=ZuCoConfig(root=f"{os.environ.get('SPIKELOOM_DATA', 'data')}/zuco", tasks=TASKS), pretrained=pretrained,
    ))  # fmt: skip
    write_json(out / "conversion.json", {
        "checkpoint": checkpoint.name, "sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        "model": found.name, "parameters": sum(p.numel() for p in model.parameters()), "left": found.left,
    })  # fmt: skip
    return found


def card(found: Released) -> str:
    """README.md of the model folder."""
    lines = "\n".join(f"- {line}" for line in describe_left(found.left))
    return f"""---
library_name: spikeloom
tags: [eeg, brain-to-text]
---
# {found.name}, {sum(p.numel() for p in found.model.parameters()):,} parameters

Converted from released weights. Not taken:
{lines}

Numbers of heads are not in the weights: the published ones are taken. The released code adds the EEG to itself and lets
positions count samples; this model does neither, so that its outputs differ and published figures do not carry over.
Which sentences the weights were trained on is not known here: test sentences may be among them. Nothing was trained or
scored in the conversion.
"""
