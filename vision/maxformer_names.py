"""How the released Max-Former and MS-QKFormer name their tensors, and what their checkpoints tell of their sizes.

    Max-Former     patch_embed{n}.{embed, max_embed}{m}.embed_{conv,bn}, stage{s}.{i}.mixer.conv or conv5 (7x7 although
                   named 5), stage{s}.{i}.attn.{q,k,v,proj}_{conv,bn}, mlp.fc{1,2}_{conv,bn}, head
    MS-QKFormer    the same for CIFAR; of ImageNet patch_embed1.{proj_conv, proj_conv1, proj_conv2, rpe_conv} and
                   patch_embed{2,3}.{proj3, proj4, proj_res}

The MS-QKFormer of event recordings cannot run as released and has no table.
"""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

BN = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


class Unit(NamedTuple):
    """Released names of one convolution with its batch norm, and of the neurons in front of it."""

    conv: str
    bn: str
    lif: str


def _named(prefix: str, lif: str = "") -> Unit:
    return Unit(f"{prefix}_conv", f"{prefix}_bn", lif or f"{prefix}_lif")


def _embed(index: int, name: str) -> Unit:
    return _named(f"patch_embed{index}.{name}.embed")


# scheme -> the units of the first embedding (entry.0 …, main.0 …, shortcut), and of a later one with its number.
FIRST: dict[str, dict[str, Unit]] = {
    "maxformer_imagenet": {
        "entry.0": _embed(1, "embed1"), "main.0": _embed(1, "embed2"), "main.1": _embed(1, "embed3"),
        "shortcut": _embed(1, "embed4"),
    },
    "maxformer_cifar": {
        "entry.0": _named("patch_embed1.proj"), "main.0": _embed(1, "embed1"), "shortcut": _embed(1, "embed2"),
    },
    "maxformer_dvs": {
        "entry.0": _named("patch_embed1.proj"), "entry.1": _embed(1, "max_embed1"), "main.0": _embed(1, "max_embed2"),
        "main.1": _embed(1, "max_embed3"), "shortcut": _embed(1, "embed1"),
    },
    "ms_qkformer_imagenet": {
        "entry.0": _named("patch_embed1.proj"),
        "main.0": Unit("patch_embed1.proj_conv1", "patch_embed1.proj_bn1", "patch_embed1.proj_lif1"),
        "main.1": Unit("patch_embed1.proj_conv2", "patch_embed1.proj_bn2", "patch_embed1.proj_lif2"),
        "shortcut": _named("patch_embed1.rpe"),
    },
}  # fmt: skip
FIRST["ms_qkformer_cifar"] = FIRST["maxformer_cifar"]
MAX = {"main.0": "max_embed1", "main.1": "embed1", "shortcut": "max_embed2"}
LATER: dict[str, dict[str, str]] = {
    "maxformer_imagenet": MAX,
    "maxformer_cifar": MAX,
    "maxformer_dvs": MAX,
    "ms_qkformer_cifar": {"main.0": "embed1", "main.1": "max_embed1", "shortcut": "embed2"},
}
MIXERS: dict[str, tuple[str, ...]] = {  # of each stage: the released name of a mixer, "attn", or "" for none
    "maxformer_imagenet": ("conv5", "conv", "attn"), "maxformer_cifar": ("", "conv", "attn"),
    "maxformer_dvs": ("conv", "attn"), "ms_qkformer_imagenet": ("attn",) * 3, "ms_qkformer_cifar": ("attn",) * 3,
}  # fmt: skip
KINDS: dict[str, tuple[str, ...]] = {
    "maxformer_imagenet": ("dwc7", "dwc5", "ssa"), "maxformer_cifar": ("identity", "dwc3", "ssa"),
    "maxformer_dvs": ("dwc3", "ssa"), "ms_qkformer_imagenet": ("qkta", "qkta", "ssa"),
    "ms_qkformer_cifar": ("qkta", "qkta", "ssa"),
}  # fmt: skip


def scheme_of(state: Mapping[str, Tensor]) -> str | None:
    """Which of the schemes these keys are of; None for another family. Raises ValueError for one without a table."""
    if "patch_embed1.embed4.embed_conv.weight" in state:
        return "maxformer_imagenet"
    if "patch_embed1.rpe_conv.weight" in state:
        return "ms_qkformer_imagenet"
    if "patch_embed1.embed1.embed_conv.weight" not in state:
        return None
    attends = "stage1.0.attn.q_conv.weight" in state
    if any(key.startswith("patch_embed3.") for key in state):
        return "ms_qkformer_cifar" if attends else "maxformer_cifar"
    if attends:
        raise ValueError("the released MS-QKFormer of event recordings cannot run, so no table knows its keys")
    return "maxformer_dvs"


def encoder_key(scheme: str) -> str:
    """The weight of the convolution that sees the input."""
    return f"{FIRST[scheme]['entry.0'].conv}.weight"


def units(scheme: str, depths: tuple[int, ...]) -> dict[str, Unit]:
    """Our path of a convolution with batch norm -> its released names."""
    found = {f"stages.0.embed.{ours}": unit for ours, unit in FIRST[scheme].items()}
    for stage in range(1, len(depths)):
        at = f"patch_embed{stage + 1}"
        if scheme == "ms_qkformer_imagenet":
            later = {"main.0": "proj3", "main.1": "proj4", "shortcut": "proj_res"}
            found |= {f"stages.{stage}.embed.{ours}": _named(f"{at}.{name}") for ours, name in later.items()}
        else:
            later = LATER[scheme]
            found |= {f"stages.{stage}.embed.{ours}": _embed(stage + 1, name) for ours, name in later.items()}
    for stage, depth in enumerate(depths):
        mixer, kind = MIXERS[scheme][stage], KINDS[scheme][stage]
        for block in range(depth):
            theirs, ours = f"stage{stage + 1}.{block}", f"stages.{stage}.blocks.{block}"
            if mixer == "attn":
                names = ("q", "k", "v", "proj") if kind == "ssa" else ("q", "k", "proj")
                found |= {f"{ours}.attn.{name}": _named(f"{theirs}.attn.{name}") for name in names}
            elif mixer:
                at = f"{theirs}.mixer.{mixer}"
                found[f"{ours}.mixer"] = Unit(at, f"{at}_bn", f"{at}_neuron")
            found |= {f"{ours}.mlp.{name}": _named(f"{theirs}.mlp.fc{i}") for i, name in ((1, "up"), (2, "down"))}
    return found


def tensor_names(scheme: str, depths: tuple[int, ...]) -> dict[str, str]:
    """Released key -> our key."""
    names = {"head.weight": "head.weight", "head.bias": "head.bias"}
    for ours, unit in units(scheme, depths).items():
        names[f"{unit.conv}.weight"] = f"{ours}.conv.weight"
        if ours.endswith(("attn.proj", "mlp.up", "mlp.down", "mixer")):
            names[f"{unit.conv}.bias"] = f"{ours}.conv.bias"
        names |= {f"{unit.bn}.{part}": f"{ours}.norm.{part}" for part in BN}
    return names


def neuron_names(scheme: str, depths: tuple[int, ...]) -> dict[str, str]:
    """Released path of a neuron -> ours; of a branching point the neurons of either path are our one population."""
    names = {"head_lif": "head_lif"}
    for ours, unit in units(scheme, depths).items():
        place, _, last = ours.partition(".embed.")
        if last in ("main.0", "shortcut"):
            names[unit.lif] = f"{place}.embed.lif"
        elif last != "entry.0" and not ours.endswith("attn.proj"):
            names[unit.lif] = f"{ours}.lif"
    for stage in range(1, len(depths)):
        names[f"patch_embed{stage + 1}.init_lif"] = f"stages.{stage}.embed.lif"
        if scheme == "ms_qkformer_imagenet":
            names[f"patch_embed{stage + 1}.proj3_lif"] = f"stages.{stage}.embed.main.1.lif"
    if scheme == "ms_qkformer_imagenet":
        names["patch_embed1.proj_lif1"] = "stages.0.embed.lif"
        names["patch_embed1.proj_lif2"] = "stages.0.embed.main.1.lif"
    for stage, depth in enumerate(depths):
        if MIXERS[scheme][stage] == "attn":
            first = "x_lif" if KINDS[scheme][stage] == "ssa" else "proj_lif"
            for block in range(depth):
                ours = f"stages.{stage}.blocks.{block}.attn"
                names[f"stage{stage + 1}.{block}.attn.{first}"] = f"{ours}.lif"
                names[f"stage{stage + 1}.{block}.attn.attn_lif"] = f"{ours}.attn_lif"
    return names
