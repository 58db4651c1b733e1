"""SEW-ResNet and the spiking ResNet it is compared with (Fang et al., arXiv 2102.04159): residual networks of
integrate-and-fire neurons.

    SEW block        out = a ∘ id,  a = IF(BN conv IF(BN conv x)),  id = x or IF(BN conv1x1 x)
                     ∘: add a + id, and a * id, iand id * (1 - a)
    spiking block    out = IF(BN conv IF(BN conv x) + id),  id = x or BN conv1x1 x
    bottleneck       1x1, 3x3, 1x1 to four times the width, each with neurons

    images [B, C, H, W]        shown for `T` steps; the stem's convolution and batch norm see an image once
    frames [T, B, C, H, W]     events in time bins
    features [T, B, D, H', W'] logits [B, K] = Linear(mean over T of mean over H', W')

Neurons: h = v + x, a spike at h >= 1, hard reset to 0 without gradient, arctangent surrogate of slope 2. The stem of
ImageNet is a 7x7 convolution of stride 2 and a 3x3 max pooling of the spikes; the small one, for pictures of 32 x 32
and below (not published), a 3x3 convolution without pooling.
"""

import math
from collections.abc import Sequence
from typing import Any, Literal

from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from spikeloom.accel.spiking.functional import LIFParameters
from spikeloom.accel.spiking.neuron import LIF
from spikeloom.accel.spiking.surrogate import ATan
from spikeloom.vision.models.blocks import SpikingConv, State
from spikeloom.vision.models.layout import keep_layout_of_gradient
from spikeloom.vision.models.memory import compact, pool
from spikeloom.vision.models.shown import check_streamed, shown_frames

Form = Literal["sew", "spiking"]
Connect = Literal["add", "and", "iand"]
Stem = Literal["imagenet", "small"]
NEURON = LIFParameters(tau=math.inf, decay_input=False, threshold=1.0, v_reset=0.0, surrogate=ATan(2.0))
EXPANSION = 4  # of a bottleneck


class ResidualBlock(nn.Module):
    """One block of either form, [T, B, n_in, H, W] -> [T, B, width or 4 width, H', W']."""

    def __init__(
        self, n_in: int, width: int, stride: int, *, bottleneck: bool, form: Form, connect: Connect
    ) -> None:  # fmt: skip
        super().__init__()
        n_out = width * EXPANSION if bottleneck else width
        last: Literal["after", "never"] = "after" if form == "sew" else "never"
        kernels = (1, 3, 1) if bottleneck else (3, 3)
        sizes = (n_in, *(width for _ in kernels[1:]), n_out)
        strided = 1 if bottleneck else 0  # the convolution that has the stride
        self.convs = nn.ModuleList(
            SpikingConv(
                sizes[i], sizes[i + 1], kernel, NEURON, stride=stride if i == strided else 1,
                fires=last if i == len(kernels) - 1 else "after",
            )
            for i, kernel in enumerate(kernels)
        )  # fmt: skip
        self.shortcut = (
            SpikingConv(n_in, n_out, 1, NEURON, fires=last, stride=stride) if stride != 1 or n_in != n_out else None
        )
        self.lif = LIF(NEURON) if form == "spiking" else None
        self.connect = connect

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        of_convs, of_shortcut, of_sum = state or (None, None, None)
        states, a = [], x  # LIFState | None of each convolution
        for i, conv in enumerate(self.convs):
            a, of_conv = conv(a, of_convs and of_convs[i])
            states.append(of_conv)
        identity = x
        if self.shortcut is not None:
            identity, of_shortcut = self.shortcut(x, of_shortcut)
        if self.lif is not None:
            out, of_sum = self.lif(a + identity, of_sum)
        else:
            out = self._connected(a, identity)
        return out, (tuple(states), of_shortcut, of_sum)

    def _connected(self, a: Tensor, identity: Tensor) -> Tensor:
        if self.connect == "add":
            return a + identity
        return a * identity if self.connect == "and" else identity * (1 - a)

    def extra_repr(self) -> str:
        return "" if self.lif is not None else f"connect={self.connect}"


class SpikingResNet(nn.Module, PyTorchModelHubMixin, library_name="spikeloom", tags=["spiking", "vision"]):
    """See the module. One entry of blocks and widths a stage; every stage but the first halves height and width.

    Args:
        T: steps an image is shown.
        zero_init_residual: the last batch norm of a block starts at 0 (`and`: at 0 with a bias of 1), as for the
            published spiking ResNets but not for SEW.

    Raises ValueError for sizes that do not fit, naming value and remedy.
    """

    def __init__(
        self,
        *,
        in_chans: int = 3,
        num_classes: int = 1000,
        T: int = 4,
        blocks: Sequence[int] = (2, 2, 2, 2),
        widths: Sequence[int] = (64, 128, 256, 512),
        bottleneck: bool = False,
        form: Form = "sew",
        connect: Connect = "add",
        stem: Stem = "imagenet",
        zero_init_residual: bool = False,
        pretrained_cfg: dict[str, Any] | None = None,
        **unknown: Any,  # of a configuration file: left out, it would make another network
    ) -> None:
        if unknown:
            raise TypeError(f"unknown argument {', '.join(sorted(unknown))} of a spiking ResNet")
        super().__init__()
        blocks, widths = tuple(blocks), tuple(widths)
        _check(in_chans, num_classes, T, blocks, widths, form, connect, stem)
        self.in_chans, self.num_classes, self.T, self.form = in_chans, num_classes, T, form
        self.pretrained_cfg = self.default_cfg = dict(pretrained_cfg or {})
        self.compact = False
        large = stem == "imagenet"
        self.stem = SpikingConv(
            in_chans, widths[0], 7 if large else 3, NEURON, fires="never", stride=2 if large else 1, spikes_in=False
        )
        self.stem_lif = LIF(NEURON)
        self.pools = large
        n_in, reduction = widths[0], 4 if large else 1
        self.stages = nn.ModuleList()
        self.feature_info: list[dict[str, Any]] = []
        for i, (width, depth) in enumerate(zip(widths, blocks, strict=True)):
            stage = nn.ModuleList()
            for j in range(depth):
                stride = 2 if i and j == 0 else 1
                stage.append(ResidualBlock(n_in, width, stride, bottleneck=bottleneck, form=form, connect=connect))
                n_in = width * EXPANSION if bottleneck else width
            self.stages.append(stage)
            self.feature_info.append({"num_chs": n_in, "reduction": reduction * 2**i, "module": f"stages.{i}"})
        self.num_features = self.head_hidden_size = n_in
        self.head: nn.Module = nn.Linear(n_in, num_classes) if num_classes else nn.Identity()
        self._init_weights(zero_init_residual)

    def _init_weights(self, zero_init_residual: bool) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, ResidualBlock) and zero_init_residual:
                norm: Any = module.convs[-1].norm
                nn.init.zeros_(norm.weight)
                if module.lif is None and module.connect == "and":
                    nn.init.ones_(norm.bias)

    # --- forward ----------------------------------------------------------------------------------------------------

    def forward(self, x: Tensor, T: int | None = None) -> Tensor:
        """Images or frames -> logits [B, num_classes]. `T` shows images for another number of steps."""
        return self.forward_head(self.forward_features(x, T))

    def forward_features(self, x: Tensor, T: int | None = None) -> Tensor:
        """Images or frames -> maps of every step [T, B, D, H', W'], not pooled."""
        return self._run(*shown_frames(x, self.in_chans, T, self.T), None)[0]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Features [T, B, D, H', W'] -> logits [B, num_classes], or with `pre_logits` their averages [B, D]."""
        keep_layout_of_gradient(x)
        x = x.mean((3, 4)).mean(0)
        return x if pre_logits else self.head(x)

    def step(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """The next frame [B, C, H, W] -> (its logits [B, K], state). The mean over all steps is what `forward` gives.

        Evaluation only: batch norm in training needs all steps at once.
        """
        check_streamed(x, self.in_chans, self.training)
        features, state = self._run(*shown_frames(x[None], self.in_chans, None, self.T), state)
        return self.forward_head(features), state

    def _run(self, x: Tensor, repeats: int, state: State | None) -> tuple[Tensor, State]:
        of_stem, of_stages = state or (None, None)
        states: list[tuple[State, ...]] = []
        with compact(self.compact):
            x, _ = self.stem(x)  # batch norm counts an image once, not once a step as the transformers' stems do
            x, of_stem = self.stem_lif(x.expand(repeats, *x.shape[1:]) if repeats > 1 else x, of_stem)
            if self.pools:
                x = pool(x.flatten(0, 1)).unflatten(0, x.shape[:2])
            for i, stage in enumerate(self.stages):
                of_blocks = []  # State of each block
                blocks: Any = stage
                for j, block in enumerate(blocks):
                    x, of_block = block(x, of_stages and of_stages[i][j])
                    of_blocks.append(of_block)
                states.append(tuple(of_blocks))
        return x, (of_stem, tuple(states))

    # --- the interface that timm's models have ------------------------------------------------------------------------

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new classifier; 0 classes leave the averages as they are. The one way of pooling is "avg"."""
        if global_pool not in (None, "avg"):
            raise ValueError(f"global_pool={global_pool!r} is not offered; use 'avg'")
        if num_classes < 0:
            raise ValueError(f"num_classes must be at least 0 (no classifier), got {num_classes}")
        like = next(self.parameters())
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes).to(like) if num_classes else nn.Identity()

    def set_compact(self, enable: bool = True) -> None:
        """Training keeps spikes as bytes and makes normalised sums again: less memory, some time, equal gradients."""
        self.compact = enable


def _check(
    in_chans: int, num_classes: int, T: int, blocks: tuple[int, ...], widths: tuple[int, ...], form: str, connect: str,
    stem: str,
) -> None:  # fmt: skip
    for name, value, choices in (
        ("form", form, ("sew", "spiking")), ("connect", connect, ("add", "and", "iand")),
        ("stem", stem, ("imagenet", "small")),
    ):  # fmt: skip
        if value not in choices:
            raise ValueError(f"{name}={value!r} is unknown; use one of {', '.join(choices)}")
    if not widths or len(widths) != len(blocks):
        raise ValueError(f"widths {list(widths)} and blocks {list(blocks)}; give one of each per stage")
    for name, least in (
        ("in_chans", in_chans),
        ("T", T),
        *(("widths", w) for w in widths),
        *(("blocks", n) for n in blocks),
    ):
        if least < 1 or least % 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {least}")
    if num_classes < 0:
        raise ValueError(f"num_classes must be at least 0 (no classifier), got {num_classes}")
