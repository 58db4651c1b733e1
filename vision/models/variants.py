"""The published spiking vision transformers, one function each, and a way to make them by name.

    create_model("spikingformer_4_384", num_classes=100)     list_models("*qkformer*")

Names: family _ [hst_] depth _ width [_ data set]. Every function takes `pretrained`, `num_classes`, `in_chans`,
`drop_path_rate`, `T` and any other argument of SpikingTransformer, which then replaces the published value; anything
else raises. No published weights can be fetched (links are dead or in an unknown format): `pretrained=True` needs
`pretrained_cfg={"file": …, "sha256": …}` of a folder or checkpoint of your own.
"""

import fnmatch
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spikeloom.accel.common.files import brief, first_few
from spikeloom.vision.models.resnets import RESNETS
from spikeloom.vision.models.spiking_transformer import SpikingTransformer

CIFAR10 = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2470, 0.2435, 0.2616)}
CIFAR100 = {"mean": (0.5071, 0.4865, 0.4409), "std": (0.2673, 0.2564, 0.2762)}
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
DIGITS = {"mean": (0.3053,), "std": (0.3760,)}
PAPERS = {
    "spikingformer": "arXiv:2304.11954", "cml": "arXiv:2308.06582", "qkformer": "arXiv:2403.16552",
    "maxformer": "arXiv:2505.18608",
}  # fmt: skip
INPUT = {"cifar": (3, 32, 32), "imagenet": (3, 224, 224), "dvs": (2, 128, 128)}


def _build(family: str, pretrained: bool, published: dict[str, Any], options: dict[str, Any]) -> SpikingTransformer:
    """A model of `published` values, replaced by `options`, with a configuration that says how to feed it."""
    cache_dir, overlay = options.pop("cache_dir", None), options.pop("pretrained_cfg_overlay", None)
    from spikeloom.vision.models.features import FeatureMaps, timm_options

    size_given, features, indices = timm_options(options)
    given_cfg = {**(options.pop("pretrained_cfg", None) or {}), **(overlay or {})}
    values = {**published, **{k: v for k, v in options.items() if v is not None}}
    if unknown := sorted(set(options) - _ARGUMENTS):
        raise TypeError(f"unknown argument {', '.join(unknown)}; a model takes {', '.join(sorted(_ARGUMENTS))}")
    layout = values["layout"]
    statistics: dict[str, Any] = {"imagenet": IMAGENET, "cifar": CIFAR10}.get(layout, {"mean": (), "std": ()})
    if layout == "cifar" and values["num_classes"] == 100:
        statistics = CIFAR100
    size = INPUT[layout]
    if published.get("in_chans") == 1:
        statistics, size = DIGITS, (1, 16, 16)
    channels = values.setdefault("in_chans", size[0])
    if len(statistics["mean"]) != channels:  # counts of events, or channels that no published statistics know
        statistics = {"mean": [0.0] * channels, "std": [1.0] * channels}
    cfg = {
        "input_size": [values["in_chans"], *size[1:]], "num_classes": values["num_classes"],
        "mean": list(statistics["mean"]), "std": list(statistics["std"]), "crop_pct": 1.0,
        "interpolation": "bicubic", "first_conv": "stages.0.embed.units.0.conv", "classifier": "head",
        "license": "apache-2.0", "paper_ids": [PAPERS[family]],
    }  # fmt: skip
    if values["tokenizer"] in ("speds", "max"):
        cfg["first_conv"] = "stages.0.embed.entry.0.conv"
    if layout == "imagenet" and family in ("qkformer", "maxformer"):
        cfg["crop_pct"] = 0.875
    cfg |= given_cfg
    model = SpikingTransformer(**values, pretrained_cfg=cfg)
    if pretrained:
        _load(model, cfg, cache_dir)
    if size_given is not None:
        model.set_input_size(size_given)
    return FeatureMaps(model, indices) if features else model  # type: ignore[return-value]


_ARGUMENTS = frozenset({
    "in_chans", "num_classes", "T", "residual", "tokenizer", "layout", "widths", "depths", "heads", "attention",
    "mlp_ratio", "tau", "drop_path_rate", "batch_first", "readout", "neuron_kind", "shortcut",
    "drop_rate",
})  # fmt: skip


def _load(model: SpikingTransformer, cfg: dict[str, Any], cache_dir: str | None) -> None:
    """Weights of `cfg["file"]`, a safetensors file of ours, after its sha256 was compared."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if "file" not in cfg:
        raise ValueError(
            "pretrained=True, but no weights of this model are published; convert a checkpoint you have with "
            "`spikeloom convert`, or give pretrained_cfg={'file': …, 'sha256': …}"
        )
    path = Path(cache_dir or ".") / cfg["file"]
    if not path.is_file():
        raise ValueError(f"{path} is missing; give pretrained_cfg['file'] (and cache_dir) of weights that exist")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if cfg.get("sha256", found) != found:
        raise ValueError(f"{path} has sha256 {found}, expected {cfg['sha256']}; fetch the file again")
    try:
        state = load_file(path)
        if lost := [name for name, value in state.items() if not value.isfinite().all()]:
            raise ValueError(f"{first_few(lost)} hold NaN or infinity")
        model.load_state_dict(state)
    except (SafetensorError, RuntimeError, ValueError, TypeError) as error:
        raise ValueError(f"{path} does not hold the weights of this model ({brief(error)}); fetch it again") from error


# --- Spikingformer and its CML form --------------------------------------------------------------------------------


def _spikingformer(
    depth: int, width: int, layout: str, pretrained: bool, options: dict[str, Any], **published: Any
) -> SpikingTransformer:
    family = "cml" if published.get("tokenizer") == "cml" else "spikingformer"
    values = {"tokenizer": "spikingformer", "layout": layout, "widths": (width,), "depths": (depth,), **published}
    return _build(family, pretrained, values, options)


def _imagenet(depth: int, width: int, pretrained: bool, options: dict[str, Any], **published: Any) -> Any:
    return _spikingformer(
        depth, width, "imagenet", pretrained, options, **{"num_classes": 1000, "heads": 8, **published}
    )


def _cifar(depth: int, width: int, pretrained: bool, options: dict[str, Any], **published: Any) -> Any:
    """Heads as published: 12 for CIFAR-10, 8 for CIFAR-100 and wherever 12 do not divide the width."""
    heads = 8 if options.get("num_classes") == 100 or width % 12 else 12
    return _spikingformer(
        depth, width, "cifar", pretrained, options, **{"num_classes": 10, "heads": heads, **published}
    )


def _dvs(pretrained: bool, options: dict[str, Any], **published: Any) -> Any:
    values = {"num_classes": 10, "heads": 16, "tau": 1.5, "T": 16, **published}
    return _spikingformer(2, 256, "dvs", pretrained, options, **values)


def spikingformer_8_384(pretrained: bool = False, **options: Any) -> SpikingTransformer:
    return _imagenet(8, 384, pretrained, options)


def spikingformer_8_512(pretrained: bool = False, **options: Any) -> SpikingTransformer:
    return _imagenet(8, 512, pretrained, options)


def spikingformer_8_768(pretrained: bool = False, **options: Any) -> SpikingTransformer:
    return _imagenet(8, 768, pretrained, options)


def spikingformer_4_256(pretrained: bool = False, **options: Any) -> SpikingTransformer:
    return _cifar(4, 256, pretrained, options)


def spikingformer_2_384(pretrained: bool = False, **options: Any) -> SpikingTransformer:
    return _cifar(2, 384, pretrained, options)


def spikingformer_4_384(pretrained: bool = False, **options: Any) -> SpikingTransformer:
    return _cifar(4, 384, pretrained, options)


def spikingformer_2_256_dvs(pretrained: bool = False, **options: Any) -> SpikingTransformer:
    return _dvs(pretrained, options)


def spikingformer_digits(pretrained: bool = False, **options: Any) -> SpikingTransformer:
    """Not published: width 64, two blocks, for 16 x 16 pictures with one channel."""
    return _cifar(2, 64, pretrained, options, in_chans=1)


def spikingformer_cml_8_384(pretrained: bool = False, **options: Any) -> SpikingTransformer:
    return _imagenet(8, 384, pretrained, options, tokenizer="cml")


def spikingformer_cml_8_512(pretrained: bool = False, **options: Any) -> SpikingTransformer:
    return _imagenet(8, 512, pretrained, options, tokenizer="cml")


def spikingformer_cml_8_768(pretrained: bool = False, **options: Any) -> SpikingTransformer:
    return _imagenet(8, 768, pretrained, options, tokenizer="cml")


def spikingformer_cml_4_256(pretrained: bool = False, **options: Any) -> SpikingTransformer:
    return _cifar(4, 256, pretrained, options, tokenizer="cml")


def spikingformer_cml_2_384(pretrained: bool = False, **options: Any) -> SpikingTransformer:
    return _cifar(2, 384, pretrained, options, tokenizer="cml")


def spikingformer_cml_4_384(pretrained: bool = False, **options: Any) -> SpikingTransformer:
    return _cifar(4, 384, pretrained, options, tokenizer="cml")


def spikingformer_cml_2_256_dvs(pretrained: bool = False, **options: Any) -> SpikingTransformer:
    """tau 1.75 for the 11 classes of DVS128 Gesture; what CIFAR10-DVS was trained with is unknown: 1.5."""
    return _dvs(pretrained, options, tokenizer="cml", tau=1.75 if options.get("num_classes") == 11 else 1.5)


# --- QKFormer (sew, as published) and MS-QKFormer (ms, spike-driven) ------------------------------------------------


def _qkformer(
    residual: str, layout: str, widths: tuple[int, ...], depths: tuple[int, ...], heads: int, num_classes: int,
    pretrained: bool, options: dict[str, Any], **published: Any,
) -> SpikingTransformer:  # fmt: skip
    values = {
        "residual": residual, "tokenizer": "speds", "layout": layout, "widths": widths, "depths": depths,
        "heads": heads, "attention": (*["qkta"] * (len(widths) - 1), "ssa"), "num_classes": num_classes, **published,
    }  # fmt: skip
    return _build("qkformer", pretrained, values, options)


def _hst_10(residual: str, width: int, heads: int, pretrained: bool, options: dict[str, Any]) -> SpikingTransformer:
    widths = (width // 4, width // 2, width)
    return _qkformer(residual, "imagenet", widths, (1, 2, 7), heads, 1000, pretrained, options)


def _hst_4(residual: str, pretrained: bool, options: dict[str, Any]) -> SpikingTransformer:
    return _qkformer(residual, "cifar", (96, 192, 384), (1, 1, 2), 8, 10, pretrained, options)


def _hst_2(residual: str, classes: int, ratio: int, pretrained: bool, options: dict[str, Any]) -> SpikingTransformer:
    return _qkformer(
        residual, "dvs", (128, 256), (1, 1), 16, classes, pretrained, options, mlp_ratio=ratio, T=16
    )  # fmt: skip


def _hst_digits(residual: str, pretrained: bool, options: dict[str, Any]) -> SpikingTransformer:
    own = {"readout": "lif_mean"} if residual == "ms" else {}
    return _qkformer(residual, "cifar", (16, 32, 64), (1, 1, 1), 8, 10, pretrained, options, in_chans=1, **own)


def qkformer_hst_10_384(pretrained: bool = False, **options: Any) -> SpikingTransformer:
    return _hst_10("sew", 384, 6, pretrained, options)


def qkformer_hst_10_512(pretrained: bool = False, **options: Any) -> SpikingTransformer:
    return _hst_10("sew", 512, 8, pretrained, options)


def qkformer_hst_10_768(pretrained: bool = False, **options: Any) -> SpikingTransformer:
    return _hst_10("sew", 768, 12, pretrained, options)


def qkformer_hst_4_384(pretrained: bool = False, **options: Any) -> SpikingTransformer:
    return _hst_4("sew", pretrained, options)


def qkformer_hst_2_256_cifar10dvs(pretrained: bool = False, **options: Any) -> SpikingTransformer:
    return _hst_2("sew", 10, 1, pretrained, options)


def qkformer_hst_2_256_dvs128(pretrained: bool = False, **options: Any) -> SpikingTransformer:
    """mlp_ratio 4 as released; the parameter count of the paper is that of mlp_ratio=1."""
    return _hst_2("sew", 11, 4, pretrained, options)


def qkformer_digits(pretrained: bool = False, **options: Any) -> SpikingTransformer:
    """Not published: widths 16, 32, 64, one block each, for 16 x 16 pictures with one channel."""
    return _hst_digits("sew", pretrained, options)


def ms_qkformer_hst_10_384(pretrained: bool = False, **options: Any) -> SpikingTransformer:
    return _hst_10("ms", 384, 6, pretrained, options)


def ms_qkformer_hst_10_512(pretrained: bool = False, **options: Any) -> SpikingTransformer:
    return _hst_10("ms", 512, 8, pretrained, options)


def ms_qkformer_hst_10_768(pretrained: bool = False, **options: Any) -> SpikingTransformer:
    return _hst_10("ms", 768, 12, pretrained, options)


def ms_qkformer_hst_4_384(pretrained: bool = False, **options: Any) -> SpikingTransformer:
    return _hst_4("ms", pretrained, options)


def ms_qkformer_hst_2_256_cifar10dvs(pretrained: bool = False, **options: Any) -> SpikingTransformer:
    return _hst_2("ms", 10, 1, pretrained, options)


def ms_qkformer_hst_2_256_dvs128(pretrained: bool = False, **options: Any) -> SpikingTransformer:
    return _hst_2("ms", 11, 4, pretrained, options)


def ms_qkformer_digits(pretrained: bool = False, **options: Any) -> SpikingTransformer:
    """Not published: as qkformer_digits, spike-driven; it classifies averages of spikes over the map."""
    return _hst_digits("ms", pretrained, options)


# --- Max-Former ----------------------------------------------------------------------------------------------------


def _maxformer(
    layout: str, widths: tuple[int, ...], depths: tuple[int, ...], mixers: tuple[str, ...], heads: int, classes: int,
    pretrained: bool, options: dict[str, Any], **published: Any,
) -> SpikingTransformer:  # fmt: skip
    values = {
        "residual": "ms", "tokenizer": "max", "layout": layout, "widths": widths, "depths": depths, "heads": heads,
        "attention": mixers, "num_classes": classes, **published,
    }  # fmt: skip
    return _build("maxformer", pretrained, values, options)


def _max_10(width: int, pretrained: bool, options: dict[str, Any]) -> SpikingTransformer:
    widths, mixers = (width // 4, width // 2, width), ("dwc7", "dwc5", "ssa")
    return _maxformer("imagenet", widths, (1, 2, 7), mixers, width // 64, 1000, pretrained, options)


def maxformer_10_384(pretrained: bool = False, **options: Any) -> SpikingTransformer:
    return _max_10(384, pretrained, options)


def maxformer_10_512(pretrained: bool = False, **options: Any) -> SpikingTransformer:
    return _max_10(512, pretrained, options)


def maxformer_10_768(pretrained: bool = False, **options: Any) -> SpikingTransformer:
    return _max_10(768, pretrained, options)


def maxformer_4_384(pretrained: bool = False, **options: Any) -> SpikingTransformer:
    mixers = ("identity", "dwc3", "ssa")
    return _maxformer("cifar", (96, 192, 384), (1, 1, 2), mixers, 8, 10, pretrained, options)


def maxformer_2_256_cifar10dvs(pretrained: bool = False, **options: Any) -> SpikingTransformer:
    return _maxformer("dvs", (128, 256), (1, 1), ("dwc3", "ssa"), 16, 10, pretrained, options, mlp_ratio=1, T=16)


def maxformer_2_256_dvs128(pretrained: bool = False, **options: Any) -> SpikingTransformer:
    return _maxformer("dvs", (128, 256), (1, 1), ("dwc3", "ssa"), 16, 11, pretrained, options, mlp_ratio=1, T=16)


MODELS: dict[str, Callable[..., SpikingTransformer]] = {
    f.__name__: f
    for f in (
        spikingformer_8_384, spikingformer_8_512, spikingformer_8_768, spikingformer_4_256, spikingformer_2_384,
        spikingformer_4_384, spikingformer_2_256_dvs, spikingformer_digits, spikingformer_cml_8_384,
        spikingformer_cml_8_512, spikingformer_cml_8_768, spikingformer_cml_4_256, spikingformer_cml_2_384,
        spikingformer_cml_4_384, spikingformer_cml_2_256_dvs, qkformer_hst_10_384, qkformer_hst_10_512,
        qkformer_hst_10_768, qkformer_hst_4_384, qkformer_hst_2_256_cifar10dvs, qkformer_hst_2_256_dvs128,
        qkformer_digits, ms_qkformer_hst_10_384, ms_qkformer_hst_10_512, ms_qkformer_hst_10_768,
        ms_qkformer_hst_4_384, ms_qkformer_hst_2_256_cifar10dvs, ms_qkformer_hst_2_256_dvs128, ms_qkformer_digits,
        maxformer_10_384, maxformer_10_512, maxformer_10_768, maxformer_4_384, maxformer_2_256_cifar10dvs,
        maxformer_2_256_dvs128,
    )
}  # fmt: skip


def list_models(filter: str = "*") -> list[str]:
    """Names that match a pattern such as "ms_*" , sorted."""
    return sorted(fnmatch.filter([*MODELS, *RESNETS], filter or "*"))


def create_model(name: str, pretrained: bool = False, **options: Any) -> Any:
    """The model called `name`. Raises ValueError for an unknown name, TypeError for an unknown argument."""
    if name in RESNETS:
        return RESNETS[name](pretrained, **options)
    if name not in MODELS:
        import difflib

        close = difflib.get_close_matches(name, [*MODELS, *RESNETS], 1)
        meant = f", did you mean {close[0]}?" if close else "; list_models() names them"
        raise ValueError(f"no model called {name!r}{meant}")
    return MODELS[name](pretrained, **options)
