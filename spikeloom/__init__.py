"""Spiking models of brain signals, speech and vision, and what training them costs on neuromorphic hardware.

    import spikeloom
    model = spikeloom.create_model("spikescr_1l_8_128", n_inputs=140, n_outputs=10)

Functions are imported when they are first used, so `import spikeloom` loads neither torch nor any other large library.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from spikeloom._environment import prepare
from spikeloom._torchaudio import tolerate_missing_extension

if TYPE_CHECKING:
    from spikeloom.pipelines.api.chip import export, simulate
    from spikeloom.pipelines.api.evaluation import evaluate
    from spikeloom.pipelines.api.hub import push
    from spikeloom.pipelines.api.inference import pipeline
    from spikeloom.pipelines.api.models import create_model, list_models
    from spikeloom.pipelines.api.runs import load
    from spikeloom.pipelines.api.scoring import score
    from spikeloom.pipelines.export.api import cost

__version__ = "0.2.0"
__all__ = [
    "__version__", "cost", "create_model", "evaluate", "export", "list_models", "load", "pipeline", "push", "score",
    "simulate",
]  # fmt: skip

_MODULES = {  # of spikeloom.pipelines, with what each offers
    "api.chip": ("export", "simulate"),
    "api.evaluation": ("evaluate",),
    "api.hub": ("push",),
    "api.inference": ("pipeline",),
    "api.models": ("create_model", "list_models"),
    "api.runs": ("load",),
    "api.scoring": ("score",),
    "export.api": ("cost",),
}
_HOMES = {name: f"spikeloom.pipelines.{module}" for module, names in _MODULES.items() for name in names}

tolerate_missing_extension()
prepare()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'spikeloom' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
