"""The published convolutional networks by name: SEW-ResNet, spiking ResNet, ResNet and MobileNet-V1 without spikes.

    sew_resnet18 … 152, spiking_resnet18 … 152     images or frames, neurons (`spiking_resnet`)
    resnet18, resnet50, mobilenet_v1               pictures, no neurons (`resnet`, `mobilenet`)

Every function takes `num_classes`, `in_chans` and any other argument of its class, which then replaces the published
value. No weights are published in a form that can be fetched; `spikeloom convert` takes those you have.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from spikeloom.vision.models.mobilenet import MobileNetV1
from spikeloom.vision.models.resnet import ResNet
from spikeloom.vision.models.spiking_resnet import SpikingResNet

DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
WIDTHS = (64, 128, 256, 512)
BOTTLENECKS = (50, 101, 152)
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
PAPERS = {"sew": "arXiv:2102.04159", "spiking": "arXiv:2102.04159", "resnet": "arXiv:1512.03385"}


def _cfg(options: dict[str, Any], paper: str, first_conv: str) -> dict[str, Any]:
    """What timm calls the pretrained configuration: how a picture is shown."""
    given = {**(options.pop("pretrained_cfg", None) or {}), **(options.pop("pretrained_cfg_overlay", None) or {})}
    channels = options.get("in_chans") or 3
    known = IMAGENET if channels == 3 else {"mean": [0.0] * channels, "std": [1.0] * channels}
    return {
        "input_size": [channels, 224, 224], "num_classes": options.get("num_classes", 1000), **known, "crop_pct": 0.875,
        "interpolation": "bilinear", "first_conv": first_conv, "classifier": "head", "license": "apache-2.0",
        "paper_ids": [paper], **given,
    }  # fmt: skip


def _build(cls: Callable[..., nn.Module], published: dict[str, Any], paper: str, first_conv: str) -> Any:
    def build(pretrained: bool = False, **options: Any) -> nn.Module:
        options = {k: v for k, v in options.items() if v is not None and k != "cache_dir"}
        if pretrained:
            raise ValueError(
                "pretrained=True, but no weights of this model are published; convert a checkpoint you have with "
                "`spikeloom convert`"
            )
        cfg = _cfg(options, paper, first_conv)
        return cls(**{**published, **options}, pretrained_cfg=cfg)

    return build


def _named(name: str, build: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """`build` as a function of that name in this module, which is how timm knows it."""
    made: Any = partial(build)
    made.__name__, made.__module__ = name, __name__
    return made


RESNETS: dict[str, Callable[..., nn.Module]] = {
    f"{form}_resnet{depth}": _build(
        SpikingResNet,
        {
            "form": form, "blocks": blocks, "widths": WIDTHS, "bottleneck": depth in BOTTLENECKS,
            "zero_init_residual": form == "spiking",
        },
        PAPERS[form], "stem.conv",
    )
    for form in ("sew", "spiking")
    for depth, blocks in DEPTHS.items()
}  # fmt: skip
RESNETS |= {
    f"resnet{depth}": _build(
        ResNet,
        {
            "num_classes": 1000, "widths": WIDTHS, "blocks": DEPTHS[depth], "bottleneck": depth in BOTTLENECKS,
            "stem": "imagenet",
        },
        PAPERS["resnet"], "conv",
    )
    for depth in (18, 50)
}  # fmt: skip
RESNETS["mobilenet_v1"] = _build(MobileNetV1, {}, "arXiv:1704.04861", "layers.0.conv")
RESNETS = {name: _named(name, build) for name, build in RESNETS.items()}
