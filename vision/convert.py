"""Weights of the released Spikingformer and QKFormer under our names, and back.

A released checkpoint says which layers there are and how wide: depth, widths, MLP ratio, channels and classes are read
from its tensors. It does not say heads, tau and T, nor whether the tokenizer is the CML form (the keys are the same):
those come from a published variant or from the caller, and are never guessed. Conversion is strict. The two layer norms
a released Spikingformer block carries but never uses are dropped and listed; anything else unknown, missing or of
another shape is an error that names it.
"""

import argparse
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from accel.files import first_few
from vision.spiking_transformer import SpikingTransformer
from vision.variants import MODELS, create_model

Family = Literal["spikingformer", "qkformer"]
UNUSED = re.compile(r"block\.(\d+)\.norm[12]\.(weight|bias)")
ZIP, PICKLE = b"PK\x03\x04", b"\x80"  # how files of torch.save begin, today's and those before version 1.6
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


def identify(state: Mapping[str, Tensor]) -> Sizes:
    """Which released model a checkpoint is of. Raises ValueError when it is none we have a table for."""
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
            f"no table knows these keys ({shown}, …); released Spikingformer and QKFormer checkpoints can be converted"
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


def _needed(state: Mapping[str, Tensor], key: str) -> Tensor:
    if key not in state:
        raise ValueError(f"the checkpoint lacks {key}; give a complete state_dict")
    return state[key]


# --- tensors --------------------------------------------------------------------------------------------------------


def to_ours(state: Mapping[str, Tensor], model: SpikingTransformer, sizes: Sizes) -> tuple[str, ...]:
    """Load released tensors into `model`; returns the keys that were dropped. Strict, see the module."""
    names, like = tensor_names(SCHEMES[sizes.scheme], sizes.depths), model.state_dict()
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
    family = "qkformer" if model.tokenizer == "speds" else "spikingformer"
    scheme = SCHEMES[f"{family}_{model.layout}"]
    depths = tuple(len(stage.blocks) for stage in model.stages)  # type: ignore[arg-type]
    state = model.state_dict()
    names = tensor_names(scheme, depths)
    token = re.compile(r"attn\.(q|k|v|proj)\.conv\.weight")
    return {t: state[o][..., 0] if token.search(o) else state[o] for t, o in names.items()}


# --- files ----------------------------------------------------------------------------------------------------------


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(state under released keys, description of the model that a safetensors file carries or {}).

    Unwraps `model`, `state_dict`, `module.` and `state/`. No pickled code is run. Raises ValueError naming the file.
    """
    if not path.is_file():
        raise ValueError(f"checkpoint={path} is not a file; give a .safetensors, .pth or .tar file")
    with path.open("rb") as file:
        start = file.read(9)
    metadata: dict[str, str] = {}
    try:
        if path.suffix == ".safetensors" or start[8:] == b"{":  # the length of a header, then the header in JSON
            with safe_open(path, "pt") as f:
                keys = list(f.keys())
                wanted = [k for k in keys if k.startswith("state/")] or keys
                held: Any = {k.removeprefix("state/"): f.get_tensor(k) for k in wanted}
                metadata = f.metadata() or {}
        elif not start.startswith((ZIP, PICKLE)):
            raise ValueError("no checkpoint of PyTorch")
        else:
            with torch.serialization.safe_globals([argparse.Namespace]):  # training scripts store their options
                held = torch.load(path, weights_only=True, map_location="cpu")
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError, KeyError, AttributeError) as error:
        reason = str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__
        raise ValueError(f"checkpoint={path} cannot be read ({reason}); download it again") from error
    except Exception as error:  # the unpickler's own class cannot be named without importing pickle
        found = re.search(r"GLOBAL ([\w.]+)", str(error))  # the rest advises to run whatever code the file holds
        what = f" ({found[1]})" if found else ""
        raise ValueError(f"checkpoint={path} holds more than tensors{what}; save its state_dict alone") from error
    for wrapper in ("model", "state_dict"):
        if isinstance(held, dict) and isinstance(held.get(wrapper), dict):
            held = held[wrapper]
    if not isinstance(held, dict) or not all(isinstance(v, Tensor) for v in held.values()) or not held:
        raise ValueError(f"checkpoint={path} holds no state_dict; give a file of tensors by name")
    if broken := [str(k) for k, v in held.items() if not torch.isfinite(v).all()]:
        raise ValueError(f"checkpoint={path} holds NaN or infinity in {first_few(broken)}; give another checkpoint")
    return {str(k).removeprefix("module."): v for k, v in held.items()}, _description(path, metadata)


def _description(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    """The model as `config` beside the weights describes it, or {}. Raises ValueError where that is no JSON object."""
    if "config" not in metadata:
        return {}
    try:
        found = json.loads(metadata["config"])
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError(f"checkpoint={path}: config in its metadata is no JSON object; save the tensors without it")
    return {**found, "model": metadata.get("model", "")}


def published(sizes: Sizes) -> list[str]:
    """Names of the published variants a checkpoint of these sizes could be of."""
    family, layout = sizes.scheme.split("_")
    found = []
    for name in MODELS:
        if not name.startswith(family):
            continue
        with torch.device("meta"):
            model = create_model(name, num_classes=sizes.num_classes, in_chans=sizes.in_chans)
        widths = tuple(info["num_chs"] for info in model.feature_info)
        depths = tuple(len(stage.blocks) for stage in model.stages)  # type: ignore[arg-type]
        ratio = model.stages[0].blocks[0].mlp.up.conv.out_channels / widths[0]  # type: ignore[union-attr, index]
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
    family, layout = sizes.scheme.split("_")
    built: dict[str, Any] = {
        "in_chans": sizes.in_chans, "num_classes": sizes.num_classes, "mlp_ratio": sizes.mlp_ratio,
    }  # fmt: skip
    given = {"heads": heads, "tau": tau, "T": T}
    if name is None and described:
        if lacking := [key for key in ("num_heads", "tau", "T") if key not in described]:
            raise ValueError(
                f"config in this checkpoint's metadata lacks {', '.join(lacking)}; say what it is with model=NAME, or "
                f"model={family} heads=N tau=… T=…"
            )
        built |= {"heads": described["num_heads"], "tau": described["tau"], "T": described["T"]}
        name = "spikingformer_cml" if "cml" in str(described.get("model", "")).lower() else family
    elif name is None:
        candidates = published(sizes)
        if len(candidates) != 1:
            what = f"could be {' or '.join(candidates)}" if candidates else f"matches no published variant ({sizes})"
            raise ValueError(f"this checkpoint {what}; say which with model=NAME, or model={family} heads=N tau=… T=…")
        name = candidates[0]
    built |= {key: value for key, value in given.items() if value is not None}
    if name in ("spikingformer", "spikingformer_cml", "qkformer"):
        if "heads" not in built:
            raise ValueError(f"model={name} does not say how many heads the checkpoint was trained with; add heads=N")
        built |= {"layout": layout, "widths": sizes.widths, "depths": sizes.depths}
        built |= {"residual": "sew", "tokenizer": "speds"} if family == "qkformer" else {"residual": "ms"}
        if family == "qkformer":
            built["attention"] = (*["qkta"] * (len(sizes.widths) - 1), "ssa")
        else:
            built["tokenizer"] = "cml" if name.endswith("cml") else "spikingformer"
        model = SpikingTransformer(**built)
    else:
        model = create_model(name, **built)
    _check_fit(name, model, sizes, family)
    return Converted(model=model, sizes=sizes, dropped=to_ours(state, model, sizes))


def _check_fit(name: str, model: SpikingTransformer, sizes: Sizes, family: str) -> None:
    widths = tuple(info["num_chs"] for info in model.feature_info)
    depths = tuple(len(stage.blocks) for stage in model.stages)  # type: ignore[arg-type]
    layout = sizes.scheme.split("_")[1]
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
