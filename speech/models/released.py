"""Released weights of SpikCommander under our names and shapes, and back.

The released code stores q, k and v apart and 1x1 convolutions as [out, in, 1]; two names of modules differ between its
source (`see`, `scrmlp`) and its checkpoints (`spike_embed`, `mlp`). Every key is accounted for: one that is missing,
unknown, there under both names or of another shape is an error that names it.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from spikeloom.speech.models.spikcommander import VALUE_KERNELS, SpikCommander, SpikCommanderConfig

# Released module (source names) -> ours, and which third of q, k, v it is.
MODULES: dict[str, tuple[str, int | None]] = {
    "see.pwconv.conv": ("embedding.pointwise", None),
    "see.dwconv.conv": ("embedding.depthwise.conv", None),
    "see.bn1": ("embedding.norm", None),
    "see.linear": ("embedding.linear.linear", None),
    "see.bn2": ("embedding.linear.norm", None),
    **{f"attn.{n}_{r}": (f"attention.qkv.{o}", i) for i, n in enumerate("qkv")
       for r, o in (("conv", "linear"), ("bn", "norm"))},
    "attn.v_pw": ("attention.mix_heads", None),
    "attn.v_dw.conv": ("attention.value_conv", None),
    **{f"attn.{n}_{r}": (f"attention.{o}.{p}", None) for n, o in (("mattn", "attended"), ("proj", "out"))
       for r, p in (("conv", "linear"), ("bn", "norm"))},
    "scrmlp.pw1.conv": ("mlp.first.linear", None),
    "scrmlp.bn1": ("mlp.first.norm", None),
    "scrmlp.fc1_linear": ("mlp.hidden.linear", None),
    "scrmlp.fc1_bn": ("mlp.hidden.norm", None),
    "scrmlp.dw.conv": ("mlp.depthwise.conv", None),
    "scrmlp.bn2": ("mlp.depthwise_norm", None),
    "scrmlp.fc2_linear": ("mlp.back.linear", None),
    "scrmlp.fc2_bn": ("mlp.back.norm", None),
    "scrmlp.pw2.conv": ("mlp.out.linear", None),
    "scrmlp.bn3": ("mlp.out.norm", None),
    "head": ("head", None),
}  # fmt: skip
CONVOLUTIONS = ("pwconv.conv", "_conv", "pw1.conv", "pw2.conv")  # stored [out, in, 1]


def from_released(released: Mapping[str, Tensor], model: SpikCommander) -> dict[str, Tensor]:
    """State of `model` from released tensors. Raises ValueError naming the keys that do not fit."""
    like = model.state_dict()
    wrong: list[str] = []
    parts: dict[str, dict[int, Tensor]] = {}
    for key, tensor in released.items():
        target = _ours(key)
        if target is None or target[0] not in like:
            wrong.append(f"{key} is not in the model")
        elif (target[1] or 0) in parts.setdefault(target[0], {}):
            wrong.append(f"{key} is there twice")
        else:
            parts[target[0]][target[1] or 0] = tensor
    state: dict[str, Tensor] = {}
    for name, wanted in like.items():
        pieces = parts.get(name, {})
        n_pieces = 3 if ".qkv." in name else 1
        if len(pieces) != n_pieces:
            wrong.append(f"{name} is missing")
            continue
        whole = pieces[0] if wanted.dim() == 0 or n_pieces == 1 else torch.cat([pieces[i] for i in range(3)])
        flat = whole.squeeze(-1) if whole.dim() == wanted.dim() + 1 and whole.shape[-1] == 1 else whole
        if flat.shape != wanted.shape:
            wrong.append(f"{name} has the shape {tuple(whole.shape)}, the model {tuple(wanted.shape)}")
        state[name] = flat
    if wrong:
        more = f" and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise ValueError(f"weights do not fit a SpikCommander of this size: {'; '.join(wrong[:4])}{more}")
    return state


def is_spikcommander(state: Mapping[str, Tensor]) -> bool:
    """Whether released tensors are those of a SpikCommander, by the keys that only it has."""
    return "blocks.0.attn.v_pw.weight" in state and "blocks.0.attn.mattn_conv.weight" in state


def convert(state: Mapping[str, Tensor]) -> SpikCommander:
    """A SpikCommander with released weights; its sizes and form are read from their shapes.

    Window and scale of the gates are not in the weights: those of the released recipes at 10 ms are taken (window 20;
    S 100, for the form gsc 10). Raises ValueError naming the keys that do not fit.
    """
    needed = ("head.weight", "blocks.0.attn.v_pw.weight", "blocks.0.attn.v_dw.conv.weight")
    if missing := [key for key in needed if key not in state or state[key].dim() < 2]:
        raise ValueError(f"{', '.join(missing)} is missing; give a whole checkpoint of SpikCommander")
    see = "spike_embed" if "spike_embed.pwconv.conv.weight" in state else "see"
    mlp = "mlp" if "blocks.0.mlp.fc1_linear.weight" in state else "scrmlp"
    first, hidden = state.get(f"{see}.pwconv.conv.weight"), state.get(f"blocks.0.{mlp}.fc1_linear.weight")
    if first is None or hidden is None or first.dim() < 2:
        raise ValueError(f"{see}.pwconv.conv.weight or blocks.0.{mlp}.fc1_linear.weight is missing; give a whole file")
    n_classes, width = state["head.weight"].shape
    kernel = tuple(state["blocks.0.attn.v_dw.conv.weight"].shape[-2:])
    form = next((name for name, known in VALUE_KERNELS.items() if known == kernel), None)
    heads = int(state["blocks.0.attn.v_pw.weight"].shape[0])
    if form is None or width < 1 or heads < 1 or width % heads or hidden.shape[0] % width:
        raise ValueError(
            f"values of kernel {kernel}, {heads} heads, width {width} and {hidden.shape[0]} hidden channels are of no "
            "released SpikCommander; give one of SHD, SSC or GSC"
        )
    config = SpikCommanderConfig(
        form=form, width=width, heads=heads, mlp_ratio=hidden.shape[0] // width,
        depth=len({key.split(".")[1] for key in state if key.startswith("blocks.")}),
        global_steps=10 if form == "gsc" else 100,
    )  # fmt: skip
    model = config.build(int(first.shape[1]), n_classes)
    model.load_state_dict(from_released(state, model))
    return model.eval()


def released_tensors(ours: Mapping[str, Tensor], model: SpikCommander) -> dict[str, Tensor]:
    """Tensors under our names (weights, buffers, gradients) under the released ones."""
    found: dict[str, Tensor] = {}
    names: dict[str, tuple[str, int | None]] = {
        name: (released, part) for released, (name, part) in reversed(MODULES.items()) if part is None
    }
    for name, tensor in ours.items():
        match = re.fullmatch(r"(blocks\.\d+\.)?(.*)\.(\w+)", name)
        assert match is not None
        block, module, tail = match[1] or "", match[2], match[3]
        thirds: list[tuple[str, int | None]] = [
            (r, p) for r, (o, p) in MODULES.items() if o == module and p is not None
        ]
        for released, part in thirds or [names[module]]:
            piece = tensor if part is None or tensor.dim() == 0 else tensor.chunk(3)[part]
            if tail == "weight" and piece.dim() == 2 and released.endswith(CONVOLUTIONS):
                piece = piece[..., None]
            found[f"{block}{released}.{tail}"] = piece
    return found


def _ours(key: str) -> tuple[str, int | None] | None:
    match = re.fullmatch(r"(blocks\.\d+\.)?(.*)\.(\w+)", key.replace("spike_embed.", "see."))
    if match is None:
        return None
    block, module, tail = match[1] or "", re.sub(r"^mlp\.", "scrmlp.", match[2]), match[3]
    if module not in MODULES:
        return None
    name, part = MODULES[module]
    return f"{block}{name}.{tail}", part
