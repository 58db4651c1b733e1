"""Spikingformer and QKFormer written with SpikingJelly's multi-step layers, to measure against; never needed otherwise.

As its documentation shows them and the released code has them: every layer sees T*B pictures, an image is repeated T
times in front of the network, neurons keep their state until reset. SpikingJelly needs a separate environment.
"""

from typing import Any

import torch
from torch import Tensor, nn

from spikeloom.vision.models.spiking_transformer import SpikingTransformer
from spikeloom.vision.models.stems import SPEDS


def lif_node(threshold: float = 1.0, tau: float = 2.0) -> Any:
    from spikingjelly.activation_based import neuron, surrogate

    return neuron.LIFNode(
        tau=tau, v_threshold=threshold, v_reset=0.0, detach_reset=True, step_mode="m",
        surrogate_function=surrogate.Sigmoid(4.0),
    )  # fmt: skip


class Unit(nn.Module):
    """LIF, pool, convolution and batch norm in the order of one of ours."""

    def __init__(self, ours: Any) -> None:  # SpikingConv
        super().__init__()
        from spikingjelly.activation_based import layer

        c: Any = ours.conv
        parts: list[Any] = []  # nn.Module
        convolution = layer.Conv2d(
            c.in_channels, c.out_channels, c.kernel_size, c.stride, c.padding, bias=c.bias is not None, step_mode="m"
        )  # fmt: skip
        pool = layer.MaxPool2d(3, 2, 1, step_mode="m")
        if ours.fires == "before":
            parts.append(lif_node())
        if ours.pool == "spikes":
            parts.append(pool)
        parts += [convolution, layer.BatchNorm2d(c.out_channels, step_mode="m")]
        if ours.pool == "sums":
            parts.append(pool)
        if ours.fires == "after":
            parts.append(lif_node())
        self.parts = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.parts(x)
        return y


class Attention(nn.Module):
    def __init__(self, ours: Any) -> None:  # SpikingAttention
        super().__init__()
        self.kind, self.heads = ours.kind, ours.mix.heads
        self.first = lif_node() if ours.lif is not None else nn.Identity()
        self.q, self.k = Unit(ours.q), Unit(ours.k)
        self.v = Unit(ours.v) if ours.v is not None else None
        self.attn_lif = lif_node(0.5)
        self.proj = Unit(ours.proj)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        q, k = (u(x).flatten(3).unflatten(2, (self.heads, -1)) for u in (self.q, self.k))  # [T, B, heads, d, N]
        if self.v is not None:
            v = self.v(x).flatten(3).unflatten(2, (self.heads, -1))
            attended = self.attn_lif((q.mT @ (k @ v.mT) * 0.125).mT.reshape(x.shape))
        else:
            attended = (self.attn_lif(q.sum(3, keepdim=True)) * k).reshape(x.shape)
        y: Tensor = self.proj(attended)
        return y


class Embedding(nn.Module):
    def __init__(self, ours: Any) -> None:  # SPEDS
        super().__init__()
        self.first = lif_node() if ours.lif is not None else nn.Identity()
        self.shortcut = Unit(ours.shortcut)
        self.entry = nn.Sequential(*(Unit(u) for u in ours.entry))
        self.main = nn.Sequential(*(Unit(u) for u in ours.main))

    def forward(self, x: Tensor) -> Tensor:
        u = self.first(self.entry(x))
        y: Tensor = self.main(u) + self.shortcut(u)
        return y


class Twin(nn.Module):
    """The network of `ours`, with its weights, in SpikingJelly layers: images [B, C, H, W] -> logits [B, classes]."""

    def __init__(self, ours: SpikingTransformer) -> None:
        super().__init__()
        self.T = ours.T
        self.stages = nn.ModuleList()
        stages: Any = ours.stages
        for stage in stages:
            embed = stage.embed
            first = Embedding(embed) if isinstance(embed, SPEDS) else nn.Sequential(*(Unit(u) for u in embed.units))
            blocks = [
                nn.ModuleList((Attention(b.attn), nn.Sequential(Unit(b.mlp.up), Unit(b.mlp.down))))
                for b in stage.blocks
            ]
            self.stages.append(nn.ModuleList((first, nn.ModuleList(blocks))))
        self.head_lif = lif_node() if ours.head_lif is not None else nn.Identity()
        self.head = nn.Linear(ours.num_features, ours.num_classes)
        values = ours.state_dict().values()
        with torch.no_grad():
            for mine, value in zip(self.state_dict().values(), values, strict=True):
                mine.copy_(value)

    def forward(self, image: Tensor) -> Tensor:
        from spikingjelly.activation_based import functional

        functional.reset_net(self)
        x = image.unsqueeze(0).repeat(self.T, 1, 1, 1, 1)
        stages: Any = self.stages
        for embed, blocks in stages:
            x = embed(x)
            for attention, mlp in blocks:
                x = x + attention(x)
                x = x + mlp(x)
        y: Tensor = self.head(self.head_lif(x).mean((3, 4)).mean(0))
        return y
