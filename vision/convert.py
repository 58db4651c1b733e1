"""Weights of the released Spikingformer, QKFormer, MS-QKFormer and Max-Former under our names, and back.

A released checkpoint says which layers there are and how wide: depth, widths, MLP ratio, channels and classes are read
from its tensors. It does not say heads, tau and T, nor whether the tokenizer is the CML form (the keys are the same):
those come from a published variant or from the caller, and are never guessed. Conversion is strict. The two layer norms
a released Spikingformer block carries but never uses are dropped and listed; anything else unknown, missing or of
another shape is an error that names it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from spikeloom.accel.common.files import first_few
from spikeloom.vision import maxformer_names as maxformer
from spikeloom.vision.checkpoints import read_checkpoint as read_checkpoint
from spikeloom.vision.models.spiking_transformer import SpikingTransformer
from spikeloom.vision.models.variants import MODELS, create_model

Family = Literal["spikingformer", "qkformer"]  # of the tables below; those of the others are in `maxformer_names`
UNUSED = re.compile(r"block\.(\d+)\.norm[12]\.(weight|bias)")
BN = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """How one released model names its tensors: the units of the stem, of every block, and its attentions by stage."""

    family: Family
    layout: str
    stem: Mapping[str, str]  # released prefix -> ours
    block: str  # prefix of block {block} in stage {stage}, counted from 1
    attention: tuple[str, ...]  # released name in each stage
    mlp: tuple[str, str] = ("mlp1", "mlp2")


def _speds(index: int, entry: tuple[str, ...], main: tuple[str, ...]) -> dict[str, str]:
    ours = f"stages.{index}.embed"
    units = {name: f"{ours}.entry.{i}" for i, name in enumerate(entry)}
    units |= {name: f"{ours}.main.{i}" for i, name in enumerate(main)} | {"proj_res": f"{ours}.shortcut"}
    return {f"patch_embed{index + 1}.{name}": path for name, path in units.items()}


def _plain(names: tuple[str, ...]) -> dict[str, str]:
    return {f"patch_embed.{name}": f"stages.0.embed.units.{i}" for i, name in enumerate(names)}


_PROJECTIONS = ("proj", "proj1", "proj2", "proj3", "proj4")
_LATER = {**_speds(1, (), ("proj3", "proj4")), **_speds(2, (), ("proj3", "proj4"))}
SCHEMES: dict[str, Scheme] = {
    "spikingformer_cifar": Scheme(
        family="spikingformer", layout="cifar", stem=_plain(tuple(f"block{i}" for i in range(5))),
        block="block.{block}.", attention=("attn",),
    ),
    "spikingformer_imagenet": Scheme(
        family="spikingformer", layout="imagenet", stem=_plain(_PROJECTIONS), block="block.{block}.",
        attention=("attn",),
    ),
    "spikingformer_dvs": Scheme(
        family="spikingformer", layout="dvs", stem=_plain(_PROJECTIONS), block="block.{block}.", attention=("attn",)
    ),
    "qkformer_imagenet": Scheme(
        family="qkformer", layout="imagenet", stem={**_speds(0, ("proj",), ("proj1", "proj2")), **_LATER},
        block="stage{stage}.{block}.", attention=("tssa", "tssa", "attn"), mlp=("fc1", "fc2"),
    ),
    "qkformer_cifar": Scheme(
        family="qkformer", layout="cifar", stem={**_speds(0, ("proj",), ("proj1",)), **_LATER},
        block="stage{stage}.{block}.", attention=("tssa", "tssa", "ssa"),
    ),
    "qkformer_dvs": Scheme(
        family="qkformer", layout="dvs",
        stem={**_speds(0, ("proj", "proj1"), ("proj2", "proj3")), **_speds(1, (), ("proj", "proj4"))},
        block="stage{stage}.{block}.", attention=("tssa", "ssa"),
    ),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What the tensors of a released checkpoint tell about its model."""

    scheme: str
    in_chans: int
    num_classes: int
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    mlp_ratio: float


@dataclass(frozen=True, kw_only=True)
class Converted:
    model: SpikingTransformer
    sizes: Sizes
    dropped: tuple[str, ...]  # released keys that nothing uses


# --- names ----------------------------------------------------------------------------------------------------------


def unit_names(scheme: Scheme, depths: tuple[int, ...]) -> dict[str, str]:
    """Released prefix of a convolution with batch norm -> ours: `x_conv`, `x_bn` there are `.conv`, `.norm` here."""
    names = dict(scheme.stem)
    for stage, (depth, attention) in enumerate(zip(depths, scheme.attention, strict=True)):
        for block in range(depth):
            theirs = scheme.block.format(stage=stage + 1, block=block)
            ours = f"stages.{stage}.blocks.{block}."
            projections = ("q", "k", "proj") if attention == "tssa" else ("q", "k", "v", "proj")
            names |= {f"{theirs}{attention}.{p}": f"{ours}attn.{p}" for p in projections}
            up, down = scheme.mlp
            names |= {f"{theirs}mlp.{up}": f"{ours}mlp.up", f"{theirs}mlp.{down}": f"{ours}mlp.down"}
    return names


def tensor_names(scheme: Scheme, depths: tuple[int, ...]) -> dict[str, str]:
    """Released key -> our key, for every tensor a model of this scheme and these depths can have."""
    names = {"head.weight": "head.weight", "head.bias": "head.bias"}
    for theirs, ours in unit_names(scheme, depths).items():
        names[f"{theirs}_conv.weight"] = f"{ours}.conv.weight"
        if ours.endswith(("attn.proj", "mlp.up", "mlp.down")):
            names[f"{theirs}_conv.bias"] = f"{ours}.conv.bias"
        names |= {f"{theirs}_bn.{part}": f"{ours}.norm.{part}" for part in BN}
    return names


def names_of(sizes: Sizes) -> dict[str, str]:
    """Released key -> our key, for every tensor a checkpoint of these sizes has."""
    if sizes.scheme in maxformer.FIRST:
        return maxformer.tensor_names(sizes.scheme, sizes.depths)
    return tensor_names(SCHEMES[sizes.scheme], sizes.depths)


def identify(state: Mapping[str, Tensor]) -> Sizes:
    """Which released model a checkpoint is of. Raises ValueError when it is none we have a table for."""
    if scheme_of_max := maxformer.scheme_of(state):
        return _identify_max(state, scheme_of_max)
    if "patch_embed.block0_conv.weight" in state:
        name = "spikingformer_cifar"
    elif "patch_embed.proj_conv.weight" in state:
        name = "spikingformer_dvs" if state["patch_embed.proj_conv.weight"].shape[1] == 2 else "spikingformer_imagenet"
    elif "patch_embed1.proj_conv.weight" in state:
        marks = {"dvs": "patch_embed1.proj3_conv.weight", "imagenet": "patch_embed1.proj2_conv.weight"}
        name = f"qkformer_{next((layout for layout, key in marks.items() if key in state), 'cifar')}"
    else:
        shown = ", ".join(sorted(state)[:3]) or "nothing"
        raise ValueError(
            f"no table knows these keys ({shown}, …); released Spikingformer, QKFormer, MS-QKFormer, Max-Former and "
            "SEW-ResNet checkpoints can be converted"
        )
    scheme = SCHEMES[name]
    widths, depths, ratio = [], [], 4.0
    for stage, attention in enumerate(scheme.attention, 1):
        prefix = re.escape(scheme.block).replace(r"\{stage\}", str(stage)).replace(r"\{block\}", r"(\d+)")
        pattern = re.compile(rf"{prefix}(?:{attention}|mlp)\.\w+_conv\.weight")  # other keys are no sign of a block
        blocks = {int(m[1]) for m in map(pattern.fullmatch, state) if m}
        first = scheme.block.format(stage=stage, block=0)
        query = _needed(state, f"{first}{attention}.q_conv.weight")
        widths.append(query.shape[0])
        depths.append(max(blocks) + 1)
        ratio = _needed(state, f"{first}mlp.{scheme.mlp[0]}_conv.weight").shape[0] / query.shape[0]
    encoder, classes = state[f"{next(iter(scheme.stem))}_conv.weight"], _needed(state, "head.weight").shape[0]
    if not classes:
        raise ValueError("head.weight is of 0 classes; give a checkpoint with its classifier")
    return Sizes(
        scheme=name, in_chans=encoder.shape[1], num_classes=classes,
        widths=tuple(widths), depths=tuple(depths), mlp_ratio=ratio,
    )  # fmt: skip


def _identify_max(state: Mapping[str, Tensor], scheme: str) -> Sizes:
    """Sizes of a Max-Former or MS-QKFormer."""
    widths, depths, ratio = [], [], 4.0
    for stage in range(1, len(maxformer.KINDS[scheme]) + 1):
        blocks = {
            int(m[1]) for key in state if (m := re.fullmatch(rf"stage{stage}\.(\d+)\.mlp\.fc1_conv\.weight", key))
        }
        up = _needed(state, f"stage{stage}.0.mlp.fc1_conv.weight")
        widths.append(up.shape[1])
        depths.append(max(blocks) + 1)
        ratio = up.shape[0] / up.shape[1]
    classes = _needed(state, "head.weight").shape[0]
    if not classes:
        raise ValueError("head.weight is of 0 classes; give a checkpoint with its classifier")
    encoder = _needed(state, maxformer.encoder_key(scheme))
    return Sizes(
        scheme=scheme, in_chans=encoder.shape[1], num_classes=classes, widths=tuple(widths), depths=tuple(depths),
        mlp_ratio=ratio,
    )  # fmt: skip


def _needed(state: Mapping[str, Tensor], key: str) -> Tensor:
    if key not in state:
        raise ValueError(f"the checkpoint lacks {key}; give a complete state_dict")
    return state[key]


# --- tensors --------------------------------------------------------------------------------------------------------


def to_ours(state: Mapping[str, Tensor], model: SpikingTransformer, sizes: Sizes) -> tuple[str, ...]:
    """Load released tensors into `model`; returns the keys that were dropped. Strict, see the module."""
    names, like = names_of(sizes), model.state_dict()
    dropped = tuple(
        key for key in state
        if sizes.scheme.startswith("spikingformer") and (m := UNUSED.fullmatch(key)) and int(m[1]) < sizes.depths[0]
    )  # fmt: skip
    unknown = sorted(set(state) - set(names) - set(dropped))
    missing = sorted(set(names) - set(state))
    if unknown or missing:
        found = {"does not know": unknown, "misses": missing}
        listed = " and ".join(f"{what} {first_few(keys)}" for what, keys in found.items() if keys)
        raise ValueError(f"the table of {sizes.scheme} {listed}; give a complete released checkpoint")
    ours = {}
    for theirs, name in names.items():
        tensor, shape = state[theirs], like[name].shape
        if tensor.dim() == 3:  # a convolution over tokens is a 1x1 convolution over positions
            tensor = tensor[..., None]
        if tensor.shape != shape:
            raise ValueError(f"{theirs} has shape {tuple(state[theirs].shape)}, expected {tuple(shape)} for {name}")
        ours[name] = tensor
    model.load_state_dict(ours)
    return dropped


def to_released(model: SpikingTransformer) -> dict[str, Tensor]:
    """The state of `model` under released keys and shapes; without the layer norms that were never used."""
    stages: Any = model.stages
    depths = tuple(len(stage.blocks) for stage in stages)
    family = {"speds": "ms_qkformer" if model.residual == "ms" else "qkformer", "max": "maxformer"}.get(
        model.tokenizer, "spikingformer"
    )
    scheme = f"{family}_{model.layout}"
    if family in ("maxformer", "ms_qkformer"):
        if scheme not in maxformer.FIRST:
            raise ValueError(f"{scheme} was not released in a form that runs, so its keys are not known")
        names = maxformer.tensor_names(scheme, depths)
    else:
        names = tensor_names(SCHEMES[scheme], depths)
    state = model.state_dict()
    token = re.compile(r"attn\.(q|k|v|proj)\.conv\.weight")
    return {t: state[o][..., 0] if token.search(o) else state[o] for t, o in names.items()}


def published(sizes: Sizes) -> list[str]:
    """Names of the published variants a checkpoint of these sizes could be of."""
    family, layout = sizes.scheme.rsplit("_", 1)
    found = []
    for name in MODELS:
        if not name.startswith(family):
            continue
        with torch.device("meta"):
            model = create_model(name, num_classes=sizes.num_classes, in_chans=sizes.in_chans)
        widths = tuple(info["num_chs"] for info in model.feature_info)
        depths = tuple(len(stage.blocks) for stage in model.stages)
        ratio = model.stages[0].blocks[0].mlp.up.conv.out_channels / widths[0]
        if (model.layout, widths, depths, ratio) == (layout, sizes.widths, sizes.depths, sizes.mlp_ratio):
            found.append(name)
    return found


def convert(
    state: Mapping[str, Tensor], described: Mapping[str, Any] | None = None, *, name: str | None = None,
    heads: int | None = None, tau: float | None = None, T: int | None = None,
) -> Converted:  # fmt: skip
    """A model with the weights of a released checkpoint.

    `name`: a published variant, or a family (spikingformer, spikingformer_cml, qkformer) where `heads` are given, too.
    Without it, `described` (heads, tau and T beside the weights) decides, else the only published variant of these
    sizes. Raises ValueError where that is not unique.
    """
    sizes = identify(state)
    family, layout = sizes.scheme.rsplit("_", 1)
    built: dict[str, Any] = {
        "in_chans": sizes.in_chans, "num_classes": sizes.num_classes, "mlp_ratio": sizes.mlp_ratio,
    }  # fmt: skip
    given = {"heads": heads, "tau": tau, "T": T}
    if name is None and described:
        heads_key = "heads" if "heads" in described else "num_heads"
        if lacking := [key for key in (heads_key, "tau", "T") if key not in described]:
            raise ValueError(
                f"config in this checkpoint's metadata lacks {', '.join(lacking)}; say what it is with model=NAME, or "
                f"model={family} heads=N tau=… T=…"
            )
        built |= {
            "heads": _heads(described[heads_key], len(sizes.widths)),
            "tau": described["tau"],
            "T": described["T"],
        }
        name = "spikingformer_cml" if "cml" in str(described.get("model", "")).lower() else family
    elif name is None:
        candidates = published(sizes)
        if len(candidates) != 1:
            what = f"could be {' or '.join(candidates)}" if candidates else f"matches no published variant ({sizes})"
            raise ValueError(f"this checkpoint {what}; say which with model=NAME, or model={family} heads=N tau=… T=…")
        name = candidates[0]
    built |= {key: value for key, value in given.items() if value is not None}
    if name in ("spikingformer", "spikingformer_cml", "qkformer", "ms_qkformer", "maxformer"):
        if "heads" not in built:
            raise ValueError(f"model={name} does not say how many heads the checkpoint was trained with; add heads=N")
        built |= {"layout": layout, "widths": sizes.widths, "depths": sizes.depths}
        built |= {"residual": "sew" if family == "qkformer" else "ms"}
        if family == "qkformer":
            built |= {"tokenizer": "speds", "attention": (*["qkta"] * (len(sizes.widths) - 1), "ssa")}
        elif family in ("ms_qkformer", "maxformer"):
            built |= {"tokenizer": "max" if family == "maxformer" else "speds"}
            built["attention"] = maxformer.KINDS[sizes.scheme]
        else:
            built["tokenizer"] = "cml" if name.endswith("cml") else "spikingformer"
        model = SpikingTransformer(**built)
    else:
        model = create_model(name, **built)
    _check_fit(name, model, sizes, family)
    return Converted(model=model, sizes=sizes, dropped=to_ours(state, model, sizes))


def _heads(given: Any, stages: int) -> Any:
    """Heads of each stage, where a description gives them by attention (`stage3.0.attn`)."""
    if not isinstance(given, Mapping):
        return given
    found = {key.partition(".")[0]: n for key, n in given.items()}
    return tuple(found.get(f"stage{stage}", 1) for stage in range(1, stages + 1))


def _check_fit(name: str, model: SpikingTransformer, sizes: Sizes, family: str) -> None:
    widths = tuple(info["num_chs"] for info in model.feature_info)
    depths = tuple(len(stage.blocks) for stage in model.stages)  # type: ignore[arg-type]
    layout = sizes.scheme.rsplit("_", 1)[1]
    if family == "qkformer" and model.residual == "ms":
        raise ValueError(
            f"model={name} has residuals of the form ms, released {sizes.scheme} weights those of sew, and the keys do "
            f"not tell them apart; choose {name.removeprefix('ms_')}"
        )
    if not name.startswith(family) or (model.layout, widths, depths) != (layout, sizes.widths, sizes.depths):
        raise ValueError(
            f"model={name} is {model.layout} of widths {widths} and depths {depths}, but the checkpoint is "
            f"{sizes.scheme} of widths {sizes.widths} and depths {sizes.depths}; choose the variant it was trained as"
        )
