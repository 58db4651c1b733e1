"""Spikingformer, CML, QKFormer, MS-QKFormer and Max-Former as one model: tokenizer x stages x residual x attention.

    images [B, C, H, W]                one picture, shown for `T` steps; the encoder sees it once
    frames [T, B, C, H, W]             events in time bins ([B, T, C, H, W] with batch_first)
    features [T, B, D, H', W']         logits [B, K], by the readout:
        mean         Linear(mean over T of mean over H', W')                    Spikingformer, CML, QKFormer
        mean_lif     mean over T of Linear(LIF(mean over H', W'))               released MS-QKFormer, Max-Former
        lif_mean     Linear(mean over T of mean over H', W' of LIF)             our small MS-QKFormers

A result never depends on what else is in the batch: no neuron runs over anything but time. Published sizes are in
`variants`; training and data are elsewhere. Sources: Spikingformer (arXiv 2304.11954), CML (2308.06582), QKFormer
(2403.16552), Max-Former (2505.18608). Departures from released code: no layer that is never used, shapes computed and
not assumed, any height and width, the last neurons of an attention look back within their own sample only.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from spikeloom.accel.spiking.functional import LIFParameters
from spikeloom.vision.models.blocks import MIXERS, Block, Neuron, Residual, State, neuron, neurons
from spikeloom.vision.models.layout import keep_layout_of_gradient
from spikeloom.vision.models.memory import compact, plain, recomputing
from spikeloom.vision.models.shown import check_steps, check_streamed, shown_frames
from spikeloom.vision.models.stems import REDUCTION, SPEDS, SPEDS_REDUCTION, Layout, PlainStem, Tokenizer

Readout = Literal["mean", "mean_lif", "lif_mean"]
BRANCHING = ("speds", "max")  # tokenizers with a shortcut, one embedding a stage


class Stage(nn.Module):
    """Patch embedding, then blocks at one resolution."""

    def __init__(self, embed: PlainStem | SPEDS, blocks: Sequence[Block]) -> None:
        super().__init__()
        self.embed, self.blocks = embed, nn.ModuleList(blocks)

    def forward(
        self, x: Tensor, state: State | None = None, repeats: int = 1, checkpointing: bool = False
    ) -> tuple[Tensor, State]:
        of_embed, of_blocks = state or (None, None)
        x, of_embed = self.embed(x, of_embed, repeats)
        states = []  # State of each block
        for i, block in enumerate(self.blocks):
            if checkpointing and not torch.compiler.is_compiling():
                x, of_block = checkpoint(
                    block, x, of_blocks and of_blocks[i], use_reentrant=False,
                    context_fn=lambda: (plain(), recomputing()),
                )  # fmt: skip
            else:
                x, of_block = block(x, of_blocks and of_blocks[i])
            states.append(of_block)
        return x, (of_embed, tuple(states))


class SpikingTransformer(nn.Module, PyTorchModelHubMixin, library_name="spikeloom", tags=["spiking", "vision"]):
    """See the module. One entry of widths, depths, heads and attention per stage; a number of heads or a name of an
    attention stands for all stages.

    `T`: steps an image is shown. `readout`: null for the published one. `drop_path_rate` grows linearly over the blocks
    and needs residual="ms": rescaled branches would not be integers. Ablations: `neuron_kind` (lif, if, plif) and
    `shortcut` (false: patch embeddings without theirs). Raises ValueError for sizes that do not fit, naming value and
    remedy.
    """

    def __init__(
        self,
        *,
        in_chans: int = 3,
        num_classes: int = 10,
        T: int = 4,
        residual: Residual = "ms",
        tokenizer: Tokenizer = "spikingformer",
        layout: Layout = "cifar",
        widths: Sequence[int] = (384,),
        depths: Sequence[int] = (4,),
        heads: int | Sequence[int] = 8,
        attention: str | Sequence[str] = "ssa",
        mlp_ratio: float = 4.0,
        tau: float = 2.0,
        drop_path_rate: float = 0.0,
        batch_first: bool = False,
        drop_rate: float = 0.0,
        readout: Readout | None = None,
        neuron_kind: Neuron = "lif",
        shortcut: bool = True,
        pretrained_cfg: dict[str, Any] | None = None,
        **unknown: Any,  # of a configuration file: left out, it would make another network
    ) -> None:
        if unknown:
            raise TypeError(f"unknown argument {', '.join(sorted(unknown))} of a spiking transformer")
        super().__init__()
        widths, depths = ((n,) if isinstance(n, int) else tuple(n) for n in (widths, depths))
        n = len(widths)
        heads = (heads,) * n if isinstance(heads, int) else tuple(heads)
        kinds = (attention,) * n if isinstance(attention, str) else tuple(attention)
        _check(residual, tokenizer, layout, widths, depths, heads, kinds, T, drop_path_rate)
        _check_sizes(in_chans, num_classes, widths, depths, mlp_ratio)
        if not 0 <= drop_rate < 1:
            raise ValueError(f"drop_rate must lie in [0, 1), got {drop_rate}")
        self.in_chans, self.num_classes, self.T = in_chans, num_classes, T
        self.residual, self.tokenizer, self.layout, self.batch_first = residual, tokenizer, layout, batch_first
        self.pretrained_cfg = self.default_cfg = dict(pretrained_cfg or {})
        self.num_features = self.head_hidden_size = widths[-1]
        self.grad_checkpointing = self.compact = False
        self.drop_rate = drop_rate
        p = neuron(tau, neuron_kind)
        self.shortcut, second = shortcut, residual == "ms" and tokenizer in BRANCHING and mlp_ratio == 1
        total = sum(depths)
        rates = [drop_path_rate * i / max(1, total - 1) for i in range(total)]  # of each block
        self.stages = nn.ModuleList()
        self.feature_info: list[dict[str, Any]] = []
        n_in = in_chans
        for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            embed = self._embedding(i, n_in, width, p)
            blocks = [
                Block(width, heads[i], kinds[i], mlp_ratio, p, residual, rates.pop(0), second) for _ in range(depth)
            ]
            self.stages.append(Stage(embed, blocks))
            first = (SPEDS_REDUCTION if tokenizer in BRANCHING else REDUCTION)[layout]
            self.feature_info.append({"num_chs": width, "reduction": first * 2**i, "module": f"stages.{i}"})
            n_in = width
        # The published QKFormer classifies averages of spikes: its ms form needs neurons at the end of the stream.
        self.readout: Readout = readout or ("mean_lif" if residual == "ms" and tokenizer in BRANCHING else "mean")
        self.head_lif = neurons(p) if self.readout != "mean" else None
        self.head: nn.Module = nn.Linear(n_in, num_classes) if num_classes else nn.Identity()
        self._init_weights()

    def _embedding(self, index: int, n_in: int, width: int, p: LIFParameters) -> PlainStem | SPEDS:
        if self.tokenizer in BRANCHING:
            return SPEDS(self.layout, index, n_in, width, p, self.residual, self.tokenizer, self.shortcut)
        return PlainStem(self.layout, self.tokenizer == "cml", n_in, width, p)

    def _init_weights(self) -> None:
        """Truncated normal of 0.02 for the classifier, else torch's own; of MS-QKFormer and Max-Former in the layout of
        ImageNet for the convolutions outside attention and not for the classifier; of our small ones for both."""
        ours, released = self.readout == "lif_mean", self.residual == "ms" and self.tokenizer in BRANCHING
        of_imagenet = released and self.layout == "imagenet" and not ours
        for path, module in self.named_modules():
            if isinstance(module, nn.Linear) and not of_imagenet:
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Conv2d) and (ours or (of_imagenet and ".attn." not in path)):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None and of_imagenet:
                    nn.init.zeros_(module.bias)

    # --- forward ----------------------------------------------------------------------------------------------------

    def forward(self, x: Tensor, T: int | None = None) -> Tensor:
        """Images or frames -> logits [B, num_classes]. `T` shows images for another number of steps."""
        return self.forward_head(self.forward_features(x, T))

    def forward_features(self, x: Tensor, T: int | None = None) -> Tensor:
        """Images or frames -> feature maps of every step [T, B, D, H', W'], not pooled."""
        return self._run(*self._frames(x, T), None)[0]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Features [T, B, D, H', W'] -> logits [B, num_classes], or with `pre_logits` averages over time [B, D]."""
        return self._head(x, pre_logits, None)[0]

    def _head(self, x: Tensor, pre_logits: bool, state: State | None) -> tuple[Tensor, Any]:
        keep_layout_of_gradient(x)
        of_head: Any = state
        if self.readout == "lif_mean" and self.head_lif is not None:
            x, of_head = self.head_lif(x, of_head)
        x = x.mean((3, 4))
        if self.readout == "mean_lif" and self.head_lif is not None:
            x, of_head = self.head_lif(x, of_head)
            # Each step's spikes are classified.
            return (x.mean(0) if pre_logits else self.head(self._dropped(x)).mean(0)), of_head
        return (x.mean(0) if pre_logits else self.head(self._dropped(x.mean(0)))), of_head

    def _dropped(self, x: Tensor) -> Tensor:
        """Dropout in front of the classifier, in training alone."""
        return nn.functional.dropout(x, self.drop_rate, self.training) if self.drop_rate else x

    def step(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """The next frame [B, C, H, W] -> (its logits [B, K], state). The mean over all steps is what `forward` gives.

        Evaluation only: batch norm in training needs all steps at once.
        """
        check_streamed(x, self.in_chans, self.training)
        frames, _ = self._frames(x[None] if not self.batch_first else x[:, None], None)
        of_stages, of_head = state or (None, None)
        features, of_stages = self._run(frames, 1, of_stages)
        logits, of_head = self._head(features, False, of_head)
        return logits, (of_stages, of_head)

    def _frames(self, x: Tensor, T: int | None) -> tuple[Tensor, int]:
        """(x as [T, B, C, H, W], 1), or ([1, B, C, H, W], T) for images."""
        return shown_frames(x, self.in_chans, T, self.T, self.batch_first)

    def _run(self, x: Tensor, repeats: int, state: State | None) -> tuple[Tensor, State]:
        states = []  # State of each stage
        checkpointing = self.grad_checkpointing and self.training and torch.is_grad_enabled()
        with compact(self.compact):
            for i, stage in enumerate(self.stages):
                x, of_stage = stage(x, state and state[i], repeats if i == 0 else 1, checkpointing)
                states.append(of_stage)
        return x, tuple(states)

    # --- the interface that timm's models have ------------------------------------------------------------------------

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new classifier; 0 classes leave the averages as they are. The one way of pooling is "avg"."""
        if global_pool not in (None, "avg"):
            raise ValueError(f"global_pool={global_pool!r} is not offered; use 'avg'")
        _check_classes(num_classes)
        like = next(self.parameters())
        self.num_classes = num_classes
        self.head = (
            nn.Linear(self.num_features, num_classes, device=like.device, dtype=like.dtype)
            if num_classes
            else nn.Identity()
        )
        if isinstance(self.head, nn.Linear):
            nn.init.trunc_normal_(self.head.weight, std=0.02)
            nn.init.zeros_(self.head.bias)

    def save_pretrained(self, save_directory: str | Path, *, config: Any = None, **options: Any) -> str | None:
        """As PyTorchModelHubMixin has it; the classifier and the input size are those the model has by now."""
        now = {"num_classes": self.num_classes, "pretrained_cfg": self.pretrained_cfg}
        config = config or {**self._hub_mixin_config, **now}  # type: ignore[dict-item]
        saved: str | None = super().save_pretrained(save_directory, config=config, **options)
        return saved

    def no_weight_decay(self) -> set[str]:
        """Names of parameters with more than one axis that decay should spare: there are none."""
        return set()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Patterns that sort parameters into a stem and layers, for rates that differ by depth."""
        stem = r"^stages\.0\.embed"
        if coarse:
            return {"stem": stem, "blocks": [(r"^stages\.(\d+)", None), (r"^head", (99999,))]}
        return {
            "stem": stem,
            "blocks": [
                (r"^stages\.(\d+)\.embed", None),
                (r"^stages\.(\d+)\.blocks\.(\d+)", None),
                (r"^head", (99999,)),
            ],
        }

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Training keeps only the input of each block and computes the rest again in the backward pass."""
        self.grad_checkpointing = enable

    def set_compact(self, enable: bool = True) -> None:
        """Training keeps spikes as bytes and makes normalised sums again: less memory, some time, equal gradients."""
        self.compact = enable

    def set_input_size(self, img_size: int | tuple[int, int] | None = None, patch_size: int | None = None) -> None:
        """Any height and width work as they are; this only records the size. The patch size cannot be changed."""
        if patch_size is not None:
            raise ValueError(f"patch_size={patch_size}: the reduction belongs to layout={self.layout!r}")
        if img_size is not None:
            height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
            if height < 1 or width < 1:
                raise ValueError(f"img_size must be a multiple of 1, at least 1, got {img_size}")
            self.pretrained_cfg["input_size"] = (self.in_chans, height, width)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: Literal["NCHW"] = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """(features, [map of each chosen stage, mean over T, [B, D_i, H_i, W_i]]). `indices`: stages, or the last n."""
        if output_fmt != "NCHW" or norm:
            raise ValueError(f"got output_fmt={output_fmt!r}, norm={norm}; maps come as 'NCHW', there is no final norm")
        n = len(self.stages)
        if isinstance(indices, int) and not 1 <= indices <= n:
            raise ValueError(f"indices={indices} asks for the last {indices} of {n} stages; use 1 to {n}")
        chosen = range(n) if indices is None else range(n - indices, n) if isinstance(indices, int) else indices
        wanted = [i % n if -n <= i < n else _no_stage(i, n) for i in chosen]
        x, repeats = self._frames(x, None)
        maps: dict[int, Tensor] = {}  # stage -> map
        for i, stage in enumerate(self.stages):
            x, _ = stage(x, None, repeats if i == 0 else 1)
            if i in wanted:
                maps[i] = x.mean(0)
            if stop_early and i >= max(wanted, default=0):
                break
        intermediates = [maps[i] for i in wanted]
        if intermediates_only:
            return intermediates
        return x, intermediates


def _no_stage(index: int, n: int) -> int:
    raise ValueError(f"index {index} is no stage of this model; use 0 to {n - 1}")


def _check(
    residual: str, tokenizer: str, layout: str, widths: Sequence[int], depths: Sequence[int], heads: Sequence[int],
    kinds: Sequence[str], T: int, drop_path_rate: float,
) -> None:  # fmt: skip
    for name, value, choices in (
        ("residual", residual, ("ms", "sew")), ("tokenizer", tokenizer, ("spikingformer", "cml", *BRANCHING)),
        ("layout", layout, ("cifar", "imagenet", "dvs")),
        *(("attention", kind, ("ssa", "qkta", "qkca", *MIXERS)) for kind in kinds),
    ):  # fmt: skip
        if value not in choices:
            raise ValueError(f"{name}={value!r} is unknown; use one of {', '.join(choices)}")
    if not widths or len({len(widths), len(depths), len(heads), len(kinds)}) != 1:
        raise ValueError(
            f"got {len(widths)} widths, {len(depths)} depths, {len(heads)} heads and {len(kinds)} attentions; "
            "give one of each for every stage"
        )
    if tokenizer not in BRANCHING and len(widths) != 1:
        raise ValueError(f"tokenizer {tokenizer!r} has one stage, got {len(widths)} widths; use 'speds' for more")
    if tokenizer != "speds" and residual == "sew":
        raise ValueError(f"residual 'sew' sums spikes, but tokenizer {tokenizer!r} gives real values; use 'speds'")
    if residual == "sew" and (mixed := [kind for kind in kinds if kind in MIXERS]):
        raise ValueError(f"attention={mixed[0]!r} gives real values, but residual 'sew' sums spikes; use residual 'ms'")
    check_steps(T)
    if not 0 <= drop_path_rate < 1:
        raise ValueError(f"drop_path_rate must lie in [0, 1), got {drop_path_rate}")
    if drop_path_rate and residual == "sew":
        raise ValueError(
            f"drop_path_rate={drop_path_rate} would rescale the integer sums of residual 'sew'; use 0, or 'ms'"
        )


def _check_sizes(
    in_chans: int, num_classes: int, widths: Sequence[int], depths: Sequence[int], mlp_ratio: float
) -> None:
    for name, value in (("in_chans", in_chans), *(("widths", w) for w in widths), *(("depths", d) for d in depths)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if int(min(widths) * mlp_ratio) < 1:
        raise ValueError(f"mlp_ratio={mlp_ratio} leaves a width of {min(widths)} without hidden channels; use 4")
    _check_classes(num_classes)


def _check_classes(num_classes: int) -> None:
    if num_classes < 0:
        raise ValueError(f"num_classes must be at least 0 (no classifier), got {num_classes}")
