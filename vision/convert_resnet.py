"""Weights of released SEW-ResNets and spiking ResNets under our names, and back.

    conv1, bn1, fc, layer{s}.{b}.conv{j}.module.{0 conv, 1 bn},
    layer{s}.{b}.downsample.0.module.* (SEW) or .downsample.module.* (spiking)

Later versions of the library drop `.module`; both are accepted, a mixture is not. Widths, depths, bottlenecks and the
form are read from the tensors; the steps T, `connect` and whether the stem is that of ImageNet are not in them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from spikeloom.accel.common.files import first_few
from spikeloom.vision.models.spiking_resnet import EXPANSION, SpikingResNet

BN = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True, kw_only=True)
class ResNetSizes:
    """What the tensors of a released checkpoint tell about its model. module: whether keys have `.module` in them."""

    form: str
    in_chans: int
    num_classes: int
    widths: tuple[int, ...]
    blocks: tuple[int, ...]
    bottleneck: bool
    stem: str
    module: bool

    @property
    def scheme(self) -> str:
        return f"{self.form}_resnet"


def is_resnet(state: Mapping[str, Tensor]) -> bool:
    """Whether these are the keys of a released spiking ResNet."""
    return "conv1.weight" in state and any(re.match(r"layer1\.0\.conv1\.(module\.)?0\.weight", key) for key in state)


def identify(state: Mapping[str, Tensor]) -> ResNetSizes:
    """Sizes of the model. Raises ValueError where the keys contradict each other or lack what tells a size."""
    with_module = any(re.match(r"layer\d+\.\d+\.conv\d\.module\.", key) for key in state)
    without = any(re.match(r"layer\d+\.\d+\.conv\d\.\d\.", key) for key in state)
    if with_module and without:
        raise ValueError("some keys have .module in them and others do not; give one complete state_dict")
    middle = "module." if with_module else ""
    found: dict[int, set[int]] = {}
    for key in state:
        if match := re.match(r"layer(\d+)\.(\d+)\.conv1\.", key):
            found.setdefault(int(match[1]), set()).add(int(match[2]))
    stages = sorted(found)
    if stages != list(range(1, len(stages) + 1)):
        raise ValueError(f"stages {stages} are not counted from 1; give a complete state_dict")
    bottleneck = f"layer1.0.conv3.{middle}0.weight" in state
    widths = [_needed(state, f"layer{s}.0.conv1.{middle}0.weight").shape[0] for s in stages]
    nested = [key for key in state if re.match(rf"layer\d+\.\d+\.downsample\.0\.{middle}0\.weight", key)]
    plain = [key for key in state if re.match(rf"layer\d+\.\d+\.downsample\.{middle}0\.weight", key)]
    if bool(nested) == bool(plain):
        raise ValueError(
            "whether this is a SEW-ResNet or a spiking ResNet is told by the keys of its shortcuts, and they "
            + ("contradict each other" if nested else "are missing")
            + "; give a complete state_dict of one model"
        )
    first = _needed(state, "conv1.weight")
    return ResNetSizes(
        form="sew" if nested else "spiking", in_chans=first.shape[1], num_classes=_needed(state, "fc.weight").shape[0],
        widths=tuple(widths), blocks=tuple(max(found[s]) + 1 for s in stages), bottleneck=bottleneck,
        stem="imagenet" if first.shape[2] == 7 else "small", module=with_module,
    )  # fmt: skip


def unit_names(sizes: ResNetSizes) -> dict[str, tuple[str, str]]:
    """Our prefix of a convolution with batch norm -> the released prefixes of its convolution and of its batch norm."""
    names = {"stem": ("conv1", "bn1")}
    middle = ".module" if sizes.module else ""
    n_in = sizes.widths[0]
    for s, (width, depth) in enumerate(zip(sizes.widths, sizes.blocks, strict=True)):
        n_out = width * EXPANSION if sizes.bottleneck else width
        for b in range(depth):
            theirs, ours = f"layer{s + 1}.{b}", f"stages.{s}.{b}"
            for j in range(3 if sizes.bottleneck else 2):
                names[f"{ours}.convs.{j}"] = (f"{theirs}.conv{j + 1}{middle}.0", f"{theirs}.conv{j + 1}{middle}.1")
            if b == 0 and (s or n_in != n_out):
                down = f"{theirs}.downsample{'.0' if sizes.form == 'sew' else ''}{middle}"
                names[f"{ours}.shortcut"] = (f"{down}.0", f"{down}.1")
            n_in = n_out
    return names


def tensor_names(sizes: ResNetSizes) -> dict[str, str]:
    """Released key -> our key."""
    names = {"fc.weight": "head.weight", "fc.bias": "head.bias"}
    for ours, (conv, norm) in unit_names(sizes).items():
        names[f"{conv}.weight"] = f"{ours}.conv.weight"
        names |= {f"{norm}.{part}": f"{ours}.norm.{part}" for part in BN}
    return names


def neuron_names(sizes: ResNetSizes) -> dict[str, str]:
    """Released path of a neuron -> ours."""
    names = {"sn1": "stem_lif"}
    for ours, (conv, _) in unit_names(sizes).items():
        if not ours.startswith("stages"):
            continue
        block, last = ours.rsplit(".", 1) if ours.endswith("shortcut") else ours.rsplit(".convs.", 1)
        theirs = conv.split(".downsample")[0].split(".conv")[0]
        final = 3 if sizes.bottleneck else 2
        if last == "shortcut":
            if sizes.form == "sew":
                names[f"{theirs}.downsample.1"] = f"{ours}.lif"
        elif int(last) == final - 1 and sizes.form == "spiking":
            names[f"{theirs}.sn{final}"] = f"{block}.lif"
        else:
            names[f"{theirs}.sn{int(last) + 1}"] = f"{ours}.lif"
    return names


def convert_resnet(
    state: Mapping[str, Tensor], *, T: int | None = None, connect: str | None = None
) -> tuple[SpikingResNet, ResNetSizes]:
    """A model with the weights of a released checkpoint. Strict: an unknown, missing or mis-shaped key raises."""
    sizes = identify(state)
    options: Any = {"form": sizes.form, "connect": connect or "add", "stem": sizes.stem, "T": T or 4}
    model = SpikingResNet(
        in_chans=sizes.in_chans, num_classes=sizes.num_classes, widths=sizes.widths, blocks=sizes.blocks,
        bottleneck=sizes.bottleneck, **options,
    )  # fmt: skip
    names, like = tensor_names(sizes), model.state_dict()
    unknown, missing = sorted(set(state) - set(names)), sorted(set(names) - set(state))
    if unknown or missing:
        found = {"does not know": unknown, "misses": missing}
        listed = " and ".join(f"{what} {first_few(keys)}" for what, keys in found.items() if keys)
        raise ValueError(f"the table of {sizes.scheme} {listed}; give a complete released checkpoint")
    for theirs, ours in names.items():
        if state[theirs].shape != like[ours].shape:
            wrong, right = tuple(state[theirs].shape), tuple(like[ours].shape)
            raise ValueError(f"{theirs} has shape {wrong}, expected {right} for {ours}")
    model.load_state_dict({ours: state[theirs] for theirs, ours in names.items()})
    return model, sizes


def _needed(state: Mapping[str, Tensor], key: str) -> Tensor:
    if key not in state:
        raise ValueError(f"the checkpoint lacks {key}; give a complete state_dict")
    return state[key]


def to_released(model: SpikingResNet, sizes: ResNetSizes) -> dict[str, Tensor]:
    """The state of `model` under released keys."""
    state = model.state_dict()
    return {theirs: state[ours] for theirs, ours in tensor_names(sizes).items()}
