"""Every network by name: the presets of conf/model, the kinds behind them, and the published vision networks."""

import difflib
import fnmatch
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from importlib import resources
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from spikeloom.accel.learning.stochastic.network import StochasticConfig
from spikeloom.bci.models.cet_mae import CETMAEConfig
from spikeloom.bci.models.config import CETMAERecipe, E2TPTRRecipe
from spikeloom.bci.models.e2t_ptr import build_e2t_ptr
from spikeloom.bci.zuco.records import N_FEATURES
from spikeloom.pipelines.config.groups import GROUPS, shape
from spikeloom.speech.models.spikescr import SpikeSCRConfig
from spikeloom.vision.models import variants
from spikeloom.vision.models.config import SpikingNetConfig, SpikingTransformerConfig

__all__ = ["create_model", "list_models"]

VOCABULARY = 2000  # ids of the tokenizer that a training learns, at most
SIZES = "cet_mae_full"  # of an E2T-PTR whose pre-training is not named


def list_models(filter: str = "*") -> list[str]:
    """Names that `create_model` accepts.

    Args:
        filter: shell-style pattern, for example ``"*qkformer*"``.

    Returns:
        The matching names, sorted.

    Examples:
        >>> import spikeloom
        >>> spikeloom.list_models("spikescr_1l*")
        ['spikescr_1l_16_256', 'spikescr_1l_8_128']
    """
    return sorted(fnmatch.filter({*_presets(), *GROUPS["model"], *variants.list_models()}, filter))


def create_model(name: str, /, *, n_inputs: int | None = None, n_outputs: int | None = None, **options: Any) -> Any:
    """A network with fresh weights.

    Args:
        name: one of `list_models()`: a preset of conf/model (``"spikescr_1l_8_128"``, ``"cet_mae_small"``,
            ``"small_ms_qkformer"``, …), a kind (``"spikescr"``, ``"resnet"``, …) or a published vision network
            (``"spikingformer_4_384"``, ``"sew_resnet18"``, …).
        n_inputs: numbers in one step of the input: mel bands or units of speech (default 140), channels of a picture
            (default as published, 3 for the others), not for EEG, which always has 840 features.
        n_outputs: classes (default as published, 35 for speech, 10 for pictures); ids of the vocabulary of EEG models
            (default 2,000).
        **options: keys of the model's configuration, such as ``width=64`` or ``T=2``, and arguments of the published
            networks; ``size``, height and width in pixels, is needed by ``spiking_cnn`` and ``spiking_mlp`` and
            the ``stochastic_*`` networks (default 28); ``sizes`` is the CET-MAE preset that an E2T-PTR has the sizes
            of.

    Returns:
        torch.nn.Module in training mode, float32, on the CPU. Its ``forward`` takes, time first,
        speech [T, B, n_inputs] and lengths [B]; pictures [B, C, H, W] or event frames [T, B, 2, H, W]; EEG
        [L, B, 840] and a mask [L, B]. ``stochastic_*`` is a `StochasticNetwork`, whose weights are separate from it
        (`StochasticConfig.synapses`).

    Raises:
        ValueError: for an unknown name, or values the model cannot have.
        TypeError: for an option the model does not have.

    Examples:
        >>> import spikeloom, torch
        >>> model = spikeloom.create_model("spikescr_1l_8_128", n_inputs=140, n_outputs=10)
        >>> model(torch.zeros(50, 2, 140)).shape  # [T, B, classes]
        torch.Size([50, 2, 10])
    """
    if name in variants.list_models():
        return variants.create_model(name, in_chans=n_inputs, num_classes=n_outputs, **options)
    size, sizes = options.pop("size", None), options.pop("sizes", None)
    config = _configured(name, options)
    if size is not None and not isinstance(config, SpikingNetConfig | StochasticConfig):
        raise TypeError(f"{name} does not depend on the size of its input (got size={size}); leave size out")
    if sizes is not None and not isinstance(config, E2TPTRRecipe):
        raise TypeError(f"sizes is an option of e2t_ptr models (got sizes={sizes!r} for {name}); leave it out")
    if n_inputs is not None and isinstance(config, CETMAERecipe | E2TPTRRecipe):
        raise TypeError(f"EEG tokens have {N_FEATURES} features (got n_inputs={n_inputs}); leave n_inputs out")
    return _build(config, n_inputs, n_outputs, size, sizes or SIZES)


def _build(config: Any, n_inputs: int | None, n_outputs: int | None, size: int | None, sizes: str) -> Any:
    if isinstance(config, SpikeSCRConfig):
        return config.build(n_inputs or 140, n_outputs or 35)
    if isinstance(config, CETMAERecipe):
        return config.sizes.build(n_outputs or VOCABULARY)
    if isinstance(config, E2TPTRRecipe):
        return build_e2t_ptr(_sizes_of(sizes), n_outputs or VOCABULARY, config.stream, config.decoder)
    if isinstance(config, SpikingTransformerConfig):
        as_published: Any = (n_inputs, n_outputs)  # None leaves the published number
        return config.build(*as_published)
    if isinstance(config, SpikingNetConfig):
        return config.build(n_inputs or 1, n_outputs or 10, size=size or 28)
    if isinstance(config, StochasticConfig):
        channels, side = (3, 32) if config.network == "cnn_cifar10" else (1, 28)
        return config.build((n_inputs or channels, size or side, size or side), n_outputs or 10)
    return config.build(n_inputs or 3, n_outputs or 10)


def _configured(name: str, options: Mapping[str, Any]) -> Any:
    """The configuration of a preset or a kind, with `options` in place of its values."""
    values: Any = OmegaConf.create({})
    kind, presets = name, _presets()
    while kind in presets:  # a preset builds on a kind or on another preset
        preset = presets[kind]
        values = OmegaConf.merge({key: preset[key] for key in preset if key != "defaults"}, values)
        kind = preset["defaults"][0]
    if kind not in GROUPS["model"]:
        known = list_models()
        close = difflib.get_close_matches(name, known, 1)
        raise ValueError(
            f"no model is called {name!r}{f'; did you mean {close[0]!r}?' if close else ''}; "
            "`spikeloom.list_models()` names all"
        )
    cls = shape("model", kind)
    names = {f.name for f in fields(CETMAEConfig if cls is CETMAERecipe else cls)} - {"kind"}
    names -= {f.name for f in fields(E2TPTRRecipe)} if cls is E2TPTRRecipe else set()
    if unknown := sorted(set(options) - names):
        allowed = f"takes {', '.join(sorted(names))}" if names else "takes only sizes and n_outputs"
        raise TypeError(f"{name} has no option {', '.join(unknown)}; it {allowed}")
    given = {"sizes": dict(options)} if cls is CETMAERecipe else dict(options)
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), values, given))
    except OmegaConfBaseException as error:
        raise ValueError(f"{name}: {str(error).splitlines()[0]}; give a value of that type") from error


def _sizes_of(preset: str) -> CETMAEConfig:
    config = _configured(preset, {})
    if not isinstance(config, CETMAERecipe):
        known = ", ".join(name for name in _presets() if name.startswith("cet_mae"))
        raise ValueError(f"sizes={preset!r} is not a CET-MAE preset; use one of {known}")
    return config.sizes


@cache
def _presets() -> dict[str, Any]:
    """The files of conf/model: name -> their values."""
    folder = resources.files("spikeloom.conf") / "model"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".yaml")), key=lambda f: f.name)
    return {f.name.removesuffix(".yaml"): OmegaConf.create(f.read_text(encoding="utf-8")) for f in files}
