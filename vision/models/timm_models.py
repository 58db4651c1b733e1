"""The published variants as models of timm, where timm (1.0 or later) is installed; nothing else here needs it.

import timm, spikeloom.vision.models.timm_models
spikeloom.vision.models.timm_models.register()
model = timm.create_model("spikingformer_4_384", num_classes=100)
"""

from spikeloom.vision.models.resnets import RESNETS
from spikeloom.vision.models.variants import MODELS

# timm has a ResNet-18 and a ResNet-50 of its own; what it would not know is registered.
OURS = {**MODELS, **{name: function for name, function in RESNETS.items() if "_" in name}}


def register() -> list[str]:
    """Make every variant known to timm under its own name; returns the names. Raises ImportError without timm."""
    try:
        from timm.models import is_model, register_model
    except ImportError as error:
        raise ImportError(
            f"timm cannot be imported ({error}); pip install timm, or use spikeloom.vision.models.variants"
        ) from error
    for name, function in OURS.items():
        if not is_model(name):
            register_model(function)
    return sorted(OURS)
