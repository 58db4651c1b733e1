"""Released weights of CET-MAE and E2T-PTR, read into the models of this package by name, strictly.

    e_branch, fc_eeg, unify_branch            -> front          in_proj is cut into query, key and value
    decoder_embed_e, mask_token, eeg_decoder, decoder_norm -> eeg_decoder      decoder_pred_t -> text_decoder
    t_branch.encoder                          -> text_encoder   or, of an E2T-PTR, PREFIX.model.… -> bart

What is left out, and why, is returned. Numbers of heads are not in the weights: 8 for the EEG, one for each 64 values
elsewhere, as published. What this module does not do: repeat the faults the weights were trained with (a position that
counts samples, EEG added twice, a GELU before the text output), so that outputs are not those of the released code.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from spikeloom.accel.common.files import first_few
from spikeloom.bci.models.cet_mae import CETMAE, CETMAEConfig
from spikeloom.bci.models.e2t_ptr import E2TPTR, build_e2t_ptr
from spikeloom.bci.zuco.records import N_FEATURES

HEAD_WIDTH = 64
STREAM_SUFFIX = {"joint": "", "eeg": "_e", "text": "_t"}
SCALE = "logit_scale"  # rebuilt in every step of the released code, so never saved
LEFT = {
    r"(eeg_encoder_layer|unify_encoder_layer|eeg_decoder_layers)\..*": "layers that were only copied from",
    r"(decoder_)?pos_embed_e\..*": "tables of positions, which are computed here",
    r"t_branch_encoder\..*": "a second name of the text encoder",
    r"t_branch\.(decoder\..*|shared\.weight)": "BART's decoder, which CET-MAE never uses",
}
LEFT_OF_DECODER = {
    r"(t_branch(_encoder)?|decoder_embed_e|eeg_decoder|decoder_norm|decoder_pred_t)\..*|mask_token": "parts of the "
    "CET-MAE that a decoder does not inherit",
    r"unify_branch\..*": "the joint and the text stream",
}


@dataclass(frozen=True, kw_only=True)
class Released:
    """model: with every parameter from the file; left: reason -> keys that were not taken; notes: in words."""

    model: CETMAE | E2TPTR
    sizes: CETMAEConfig
    left: dict[str, list[str]]

    @property
    def name(self) -> str:
        return "e2t_ptr" if isinstance(self.model, E2TPTR) else "cet_mae"


def is_released_eeg(state: Mapping[str, Tensor]) -> bool:
    """Whether tensors have the names of a released CET-MAE or E2T-PTR."""
    return "fc_eeg.weight" in state and any(key.startswith("e_branch.layers.") for key in state)


def convert(state: Mapping[str, Tensor]) -> Released:
    """The model of those tensors. Raises ValueError naming keys that are missing, of another shape or unknown."""
    head = next((key for key in state if re.fullmatch(r"(.*\.)?model\.shared\.weight", key)), None)
    prefix = None if head is None else head.removesuffix("model.shared.weight")
    sizes = _sizes(state, "t_branch.encoder." if prefix is None else f"{prefix}model.encoder.")
    if prefix is None:
        model: CETMAE | E2TPTR = sizes.build(len(_tensor(state, "decoder_pred_t.weight")))
    else:
        model = build_e2t_ptr(sizes, len(_tensor(state, f"{prefix}model.shared.weight")))
    return Released(model=model, sizes=sizes, left=_load(model, state, prefix))


def _tensor(state: Mapping[str, Tensor], key: str) -> Tensor:
    if key not in state:
        raise ValueError(f"{key} is missing; give the whole state_dict of a CET-MAE or an E2T-PTR")
    return state[key]


def _sizes(state: Mapping[str, Tensor], text: str) -> CETMAEConfig:
    def layers(prefix: str) -> int:
        return len({key[len(prefix) :].split(".")[0] for key in state if key.startswith(prefix)})

    text_width, width = _tensor(state, "fc_eeg.weight").shape
    if width != N_FEATURES or text_width % HEAD_WIDTH:
        raise ValueError(
            f"fc_eeg.weight has shape {text_width, width}; use weights of an encoder of {N_FEATURES} values in front "
            f"of a text width that is a multiple of {HEAD_WIDTH}"
        )
    return CETMAEConfig(
        encoder_layers=layers("e_branch.layers."), decoder_layers=layers("eeg_decoder.layers.") or 1,
        ffn=len(_tensor(state, "e_branch.layers.0.linear1.weight")), unify_heads=text_width // HEAD_WIDTH,
        unify_ffn=len(_tensor(state, "unify_branch.layers.0.linear1_e.weight")),
        text_width=text_width, text_layers=layers(f"{text}layers."), text_heads=text_width // HEAD_WIDTH,
        text_ffn=len(_tensor(state, f"{text}layers.0.fc1.weight")), freeze_text=True,
        text_positions=len(_tensor(state, f"{text}embed_positions.weight")) - 2,  # BART's table begins with two more
    )  # fmt: skip


def _load(model: nn.Module, state: Mapping[str, Tensor], prefix: str | None) -> dict[str, list[str]]:
    """Fill the model; reason -> keys not taken."""
    own = model.state_dict()
    found: dict[str, Tensor] = {}
    used: set[str] = set()
    missing, shapes = [], []
    for key, here in own.items():
        if key == SCALE:
            found[key] = here
            continue
        source, part = _source(key, prefix)
        if source not in state:
            missing.append(source)
            continue
        value = state[source] if part is None else state[source].chunk(3)[part]
        value = value.reshape(-1) if key.endswith("mask_token") else value
        if value.shape != here.shape:
            shapes.append(f"{source} has shape {tuple(state[source].shape)}, {key} here {tuple(here.shape)}")
        found[key] = value
        used.add(source)
    if missing or shapes:
        raise ValueError(
            (f"{len(missing)} tensors are missing ({first_few(missing)})" if missing else first_few(shapes))
            + "; give the whole state_dict of a CET-MAE or an E2T-PTR"
        )
    reasons = {**LEFT, **(LEFT_OF_DECODER if prefix is not None else {})}
    left: dict[str, list[str]] = {}
    unknown = []
    for key in sorted(set(state) - used):
        why = next((reason for pattern, reason in reasons.items() if re.fullmatch(pattern, key)), None)
        left.setdefault(why, []).append(key) if why is not None else unknown.append(key)
    if unknown:
        raise ValueError(
            f"{len(unknown)} tensors belong to no CET-MAE or E2T-PTR ({first_few(unknown)}); give released weights as "
            "they are"
        )
    model.load_state_dict(found)
    return left


_INSIDE_LAYER = {
    "attention.out": "self_attn.out_proj", "feed_forward.expand": "linear1", "feed_forward.contract": "linear2",
    "norm1": "norm1", "norm2": "norm2",
}  # fmt: skip
_PLAIN = {
    "front.fc_eeg": "fc_eeg", "eeg_decoder.narrow": "decoder_embed_e", "eeg_decoder.norm": "decoder_norm",
    "text_decoder": "decoder_pred_t",
}  # fmt: skip


def _source(key: str, prefix: str | None) -> tuple[str, int | None]:
    """Released name of one of our tensors, and which third of it, where query, key and value are one there."""
    if key == "eeg_decoder.mask_token":
        return "mask_token", None
    if key.startswith("text_encoder."):
        return "t_branch.encoder." + key.removeprefix("text_encoder."), None
    if key.startswith("bart."):
        return f"{prefix}{key.removeprefix('bart.')}", None
    module, _, kind = key.rpartition(".")
    if module in _PLAIN:
        return f"{_PLAIN[module]}.{kind}", None
    stream = re.fullmatch(r"front\.unify_branch\.(norm1|norm2|final_norm|feed_forward)\.(\w+)(?:\.(\w+))?", module)
    if stream is not None:
        name = {"expand": "linear1", "contract": "linear2"}.get(stream[3], stream[1])
        suffix = STREAM_SUFFIX[stream[2]]
        at = f"unify_branch.norm{suffix}" if name == "final_norm" else f"unify_branch.layers.0.{name}{suffix}"
        return f"{at}.{kind}", None
    block = re.fullmatch(r"(front\.e_branch\.layers\.\d+|front\.unify_branch|eeg_decoder\.layers\.\d+)\.(.+)", module)
    assert block is not None, key
    at = "unify_branch.layers.0" if block[1].endswith("unify_branch") else block[1].removeprefix("front.")
    if block[2] in ("attention.query", "attention.key", "attention.value"):
        return f"{at}.self_attn.in_proj_{kind}", ("query", "key", "value").index(block[2].split(".")[1])
    return f"{at}.{_INSIDE_LAYER[block[2]]}.{kind}", None


def describe_left(left: Mapping[str, Any]) -> list[str]:
    """A line for each reason."""
    return [f"{len(keys)} left out: {reason} ({first_few(keys)})" for reason, keys in left.items()]
