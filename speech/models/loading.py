"""Speech models from a folder that `save_pretrained` wrote: which class it holds is read from its config.json."""

from pathlib import Path
from typing import Any

from torch import nn

from spikeloom.accel.common.files import first_few, read_object
from spikeloom.accel.common.sizes import load_pretrained

AGAIN = "write the model again, with save_pretrained or a training"


def load_model(folder: Path) -> nn.Module:
    """The model of `folder`. Raises ValueError for a config.json that no speech model wrote."""
    keys = set(read_object(folder / "config.json", AGAIN))
    kind: Any
    if "stem_kernel" in keys:
        from spikeloom.speech.models.temporal_conv import TemporalConvNet as kind
    elif "recurrent" in keys:
        from spikeloom.speech.models.recurrent import LIFNetwork as kind
    elif "hidden" in keys:
        from spikeloom.speech.models.recurrent import GRUNetwork as kind
    elif "global_steps" in keys:
        from spikeloom.speech.models.spikcommander import SpikCommander as kind
    elif "mlp_ratio" in keys:
        from spikeloom.speech.models.spikescr import SpikeSCR as kind
    else:
        raise ValueError(f"{folder / 'config.json'} is of no speech model ({first_few(sorted(keys), 6)}); {AGAIN}")
    model: nn.Module = load_pretrained(kind, folder, AGAIN)
    return model
