"""The published variants as models of timm, where timm (1.0 or later) is installed; nothing else here needs it.

import timm, vision.timm_models
vision.timm_models.register()
model = timm.create_model("spikingformer_4_384", num_classes=100)
"""

from vision.variants import MODELS


def register() -> list[str]:
    """Make every variant known to timm under its own name; returns the names. Raises ImportError without timm."""
    try:
        from timm.models import is_model, register_model
    except ImportError as error:
        raise ImportError(f"timm cannot be imported ({error}); pip install timm, or use vision.variants") from error
    for name, function in MODELS.items():
        if not is_model(name):
            register_model(function)
    return sorted(MODELS)
