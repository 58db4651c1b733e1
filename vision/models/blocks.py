"""What a spiking vision transformer is made of: convolution with neurons, three attentions, an MLP, a residual block.

Everything is [T, B, C, H, W]; a token is a position, row by row. Two kinds of residual branch:

    ms    LIF - conv - BN    neurons in front of every convolution; the residual stream is real-valued
    sew   conv - BN - LIF    neurons behind every convolution; the residual stream sums spikes, so it holds integers

Attention of spikes q, k, v without softmax, d channels a head:

    ssa   LIF_0.5(0.125 * q (k^T v))           self-attention; the scale is a constant whatever d
    qkta  LIF_0.5(sum of q over channels) * k  a gate for every token of a head
    qkca  LIF_0.5(sum of q over tokens) * k    a gate for every channel

Instead of an attention a block can have a depthwise convolution (`dwc3`, 5, 7: LIF - conv - BN) or nothing
(`identity`).

Neurons look back in time and never across samples. No module keeps state: `forward(x, state=None) -> (y, state)`.
"""

import math
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from spikeloom.accel.spiking.events import SpikeConv2d
from spikeloom.accel.spiking.functional import LIFParameters, LIFState
from spikeloom.accel.spiking.neuron import LIF, ParametricLIF
from spikeloom.accel.spiking.surrogate import Sigmoid
from spikeloom.vision.models.layout import laid_out_as
from spikeloom.vision.models.memory import how_made, keep_as_bytes, keep_nothing_of, made_again, pool
from spikeloom.vision.models.norm import TimeBatchNorm

Residual = Literal["ms", "sew"]
Attention = Literal["ssa", "qkta", "qkca"]
MIXERS = ("dwc3", "dwc5", "dwc7", "identity")  # of Max-Former
Neuron = Literal["lif", "if", "plif"]
State = tuple[Any, ...]  # nested as the modules are; its leaves are LIFState
ATTENTION_SCALE, ATTENTION_THRESHOLD = 0.125, 0.5


@dataclass(frozen=True)
class LearnedTau(LIFParameters):
    """The values of neurons whose time constant is learned, from `tau` on."""


def neuron(tau: float, kind: Neuron = "lif") -> LIFParameters:
    """h = v + (x - v)/tau, a spike at h >= 1, hard reset to 0 without gradient, sigmoid surrogate of slope 4.

    Ablations: `if` h = v + x, `plif` a learned tau for each population.
    """
    if kind not in ("lif", "if", "plif"):
        raise ValueError(f"neuron={kind!r} is unknown; use lif, if or plif")
    values: dict[str, Any] = {"threshold": 1.0, "v_reset": 0.0, "surrogate": Sigmoid(4.0)}
    if kind == "if":
        return LIFParameters(tau=math.inf, decay_input=False, **values)
    return (LearnedTau if kind == "plif" else LIFParameters)(tau=tau, decay_input=True, **values)


def neurons(p: LIFParameters) -> LIF | ParametricLIF:
    """A population of neurons of these values."""
    return ParametricLIF(p) if isinstance(p, LearnedTau) else LIF(p)


class SpikingConv(nn.Module):
    """A convolution, its batch norm and its neurons: [T, B, C_in, H, W] -> [T, B, C_out, H', W'].

        fires "before"   LIF - [pool] - conv - BN - [pool]     pool "spikes" or "sums" says which of the two
        fires "after"    conv - BN - [pool] - LIF              pool "sums"
        fires "never"    conv - BN - [pool]

    Max pooling is 3x3 with stride 2, so a size n becomes ceil(n/2), as with a 1x1 convolution of stride 2. Of a static
    image (T = 1 given, `repeats` steps meant) everything in front of the neurons is computed once. `spikes_in` says
    that the convolution sees 0 and 1 (or small whole numbers) only.
    """

    def __init__(
        self, n_in: int, n_out: int, kernel: int, p: LIFParameters, *, fires: Literal["before", "after", "never"],
        pool: Literal["spikes", "sums"] | None = None, stride: int = 1, bias: bool = False, spikes_in: bool = True,
        groups: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        assert pool != "spikes" or fires == "before"
        self.fires, self.pool, self.spikes_in = fires, pool, spikes_in
        self.lif = None if fires == "never" else neurons(p)
        self.conv = SpikeConv2d(n_in, n_out, kernel, stride, padding=kernel // 2, bias=bias, groups=groups)
        self.norm = TimeBatchNorm(n_out)

    def forward(self, x: Tensor, state: LIFState | None = None, repeats: int = 1) -> tuple[Tensor, LIFState | None]:
        if self.lif is not None and self.fires == "before":
            x, state = fire(self.lif, x, state)
        steps, batch = x.shape[:2]
        y = x.flatten(0, 1)
        if self.pool == "spikes":
            y = pool(y)
        with keep_as_bytes(y, self.conv.read(y)) if self.spikes_in else nullcontext():
            z = self.conv(y)

        def sums() -> Tensor:
            # Under autocast the product may be bfloat16; what decides about a spike is computed in float32.
            normed = self.norm(z.to(self.norm.weight.dtype), repeats)
            return (pool(normed) if self.pool == "sums" else normed).unflatten(0, (steps, batch))

        y = sums()
        if repeats > 1:
            y = y.expand(repeats, *y.shape[1:])
        elif self.training:
            y = made_again(y, sums)
        if self.lif is not None and self.fires == "after":
            return fire(self.lif, y, state)
        return y, state


def fire(lif: LIF | ParametricLIF, x: Tensor, state: LIFState | None) -> tuple[Tensor, LIFState]:
    """Spikes of x [T, ...] and the state; what the backward pass needs of x is made again where that is known how."""
    with keep_nothing_of(x):
        return lif(x, state)


def unit(n_in: int, n_out: int, p: LIFParameters, residual: Residual) -> SpikingConv:
    """A 1x1 convolution with bias as branches of this residual have it."""
    return SpikingConv(n_in, n_out, 1, p, bias=True, fires="before" if residual == "ms" else "after")


class SpikeProduct(nn.Module):
    """0.125 * q (k^T v) in each head, [T, B, C, H, W] each. Sums of integers: either order gives the same float32."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # Entries reach d*N: exact integers in float32, not in bfloat16 (256) or float16 (2048).
        with torch.autocast(q.device.type, enabled=False) if _autocasting(q) else nullcontext():
            q_TBHdN, k_TBHdN, v_TBHdN = (_heads(z, self.heads) for z in (q, k, v))
            with keep_as_bytes(q_TBHdN, k_TBHdN, v_TBHdN):  # copies of q, k, v where their channels are last
                if q_TBHdN.shape[3] <= q_TBHdN.shape[4]:
                    o_TBHdN = (v_TBHdN @ k_TBHdN.mT) @ q_TBHdN
                else:
                    o_TBHdN = v_TBHdN @ (k_TBHdN.mT @ q_TBHdN)
        return (o_TBHdN * ATTENTION_SCALE).reshape(q.shape)

    def extra_repr(self) -> str:
        return f"heads={self.heads}"


class SpikeSum(nn.Module):
    """Sum of q over the channels of each head or over tokens: [T, B, C, H, W] -> [T, B, heads, 1, N] or [.., d, 1]."""

    def __init__(self, heads: int, over: Literal["channels", "tokens"]) -> None:
        super().__init__()
        self.heads, self.over = heads, over

    def forward(self, q: Tensor) -> Tensor:
        return _heads(q, self.heads).sum(3 if self.over == "channels" else 4, keepdim=True)

    def extra_repr(self) -> str:
        return f"heads={self.heads}, over={self.over}"


def _heads(x: Tensor, heads: int) -> Tensor:
    """[T, B, C, H, W] -> [T, B, heads, d, N]; a head holds neighbouring channels."""
    return x.flatten(3).unflatten(2, (heads, -1))


def _autocasting(x: Tensor) -> bool:
    kind = x.device.type
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)


class SpikingAttention(nn.Module):
    """One of the three attentions on [T, B, C, H, W], as a residual branch."""

    def __init__(self, width: int, heads: int, kind: Attention, p: LIFParameters, residual: Residual) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"width {width} does not divide into {heads} heads; use a width that is a multiple of it")
        self.kind = kind
        self.lif = neurons(p) if residual == "ms" else None
        self.q, self.k = (SpikingConv(width, width, 1, p, fires="after") for _ in range(2))
        self.v = SpikingConv(width, width, 1, p, fires="after") if kind == "ssa" else None
        self.mix: SpikeProduct | SpikeSum = (
            SpikeProduct(heads) if kind == "ssa" else SpikeSum(heads, "channels" if kind == "qkta" else "tokens")
        )
        self.attn_lif = neurons(replace(p, threshold=ATTENTION_THRESHOLD))
        self.proj = SpikingConv(width, width, 1, p, bias=True, fires="never" if residual == "ms" else "after")

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        first, of_q, of_k, of_v, of_attention, of_proj = state or (None,) * 6
        if self.lif is not None:
            x, first = self.lif(x, first)
        q, of_q = self.q(x, of_q)
        k, of_k = self.k(x, of_k)
        if self.v is not None:
            v, of_v = self.v(x, of_v)
            attended, of_attention = self.attn_lif(self.mix(q, k, v), of_attention)
        else:
            gate, of_attention = self.attn_lif(self.mix(q), of_attention)
            k_TBHdN = _heads(k, self.mix.heads)
            with keep_as_bytes(gate, k_TBHdN):
                attended = (gate * k_TBHdN).reshape(k.shape)
        y, of_proj = self.proj(laid_out_as(k, attended), of_proj)
        return y, (first, of_q, of_k, of_v, of_attention, of_proj)


class SpikingMLP(nn.Module):
    """Two 1x1 convolutions C -> ratio*C -> C with batch norm and neurons, as a residual branch.

    `second`: released MS-QKFormer and Max-Former of ratio 1 have a residual around each, x1 = x + up(x) and
    x2 = x1 + down(x1); the branch is then x2 - x, summed without the subtraction.
    """

    def __init__(self, width: int, ratio: float, p: LIFParameters, residual: Residual, second: bool = False) -> None:
        super().__init__()
        hidden = int(width * ratio)
        self.up, self.down = unit(width, hidden, p, residual), unit(hidden, width, p, residual)
        self.second = second

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        of_up, of_down = state or (None, None)
        y, of_up = self.up(x, of_up)
        z, of_down = self.down(x + y if self.second else y, of_down)
        return y + z if self.second else z, (of_up, of_down)


class Block(nn.Module):
    """x + attention(x), then x + mlp(x). `drop_path` leaves branches out of a sample, for all its time steps.

    kind: an attention, or one of `MIXERS`. second: see `SpikingMLP`.
    """

    attn: SpikingAttention | None
    mixer: SpikingConv | None

    def __init__(
        self, width: int, heads: int, kind: str, mlp_ratio: float, p: LIFParameters, residual: Residual,
        drop_path: float = 0.0, second: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.attn = None if kind in MIXERS else SpikingAttention(width, heads, kind, p, residual)  # type: ignore[arg-type]
        side = int(kind[3:]) if kind.startswith("dwc") else 0
        self.mixer = SpikingConv(width, width, side, p, fires="before", bias=True, groups=width) if side else None
        self.mlp = SpikingMLP(width, mlp_ratio, p, residual, second)
        self.drop_path = drop_path

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        of_first, of_mlp = state or (None, None)
        first, u = self.attn or self.mixer, x
        if first is not None:
            y, of_first = first(x, of_first)
            u = x + self._dropped(y)
            if (branch := how_made(y)) and not self.drop_path:
                u = made_again(u, lambda: x + branch())  # x is kept for the neurons in front of the attention
        y, of_mlp = self.mlp(u, of_mlp)
        return u + self._dropped(y), (of_first, of_mlp)

    def _dropped(self, y: Tensor) -> Tensor:
        if not self.training or self.drop_path == 0:
            return y
        kept = 1 - self.drop_path
        return y * (torch.rand(y.shape[1], 1, 1, 1, device=y.device) < kept).to(y.dtype).div(kept)
