"""The same things written with SpikingJelly, to measure against where it is installed; never needed otherwise.

SpikingJelly pulls in packages that break this environment, so it is installed without dependencies in an environment
that also has spikeloom. Nothing here is tuned: multi-step layers and neurons as its documentation shows.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from spikeloom.accel.spiking.attention import rotate
from spikeloom.speech.models.spikescr import SpikeSCRConfig


def installed() -> bool:
    try:
        import spikingjelly.activation_based  # noqa: F401
    except ImportError:
        return False
    return True


def lif_node(alpha: float = 5.0) -> Any:
    """A multi-step LIF with the constants of SpikeSCR; it keeps its state on the module: call reset() before each use.

    Raises ImportError without SpikingJelly.
    """
    from spikingjelly.activation_based import neuron, surrogate

    return neuron.LIFNode(
        tau=2.0,
        decay_input=False,
        v_reset=0.0,
        surrogate_function=surrogate.ATan(alpha),
        detach_reset=True,
        step_mode="m",
    )


def lif_pass(x: Tensor, upstream: Tensor) -> Callable[[], None]:
    """One training pass of the neuron: x and upstream [T, ...]."""
    node = lif_node()
    x = x.clone().requires_grad_()

    def once() -> None:
        node.reset()
        torch.autograd.grad(node(x), x, upstream)

    return once


class Branch(nn.Module):
    """Linear, batch norm, LIF on [T, B, C]."""

    def __init__(self, n_in: int, n_out: int, *, bias: bool, dropout: float = 0.0, fires: bool = True) -> None:
        super().__init__()
        from spikingjelly.activation_based import layer

        self.linear = layer.Linear(n_in, n_out, bias=bias, step_mode="m")
        self.norm = layer.BatchNorm1d(n_out, step_mode="m")
        self.lif = lif_node() if fires else nn.Identity()
        self.dropout = layer.Dropout(dropout, step_mode="m")

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dropout(self.lif(self.norm(self.linear(x))))
        return y


class TimeConvolution(nn.Module):
    """Centred convolution over time and batch norm on [T, B, C]."""

    def __init__(self, n_in: int, n_out: int, kernel: int, *, groups: int = 1, bias: bool) -> None:
        super().__init__()
        from spikingjelly.activation_based import layer

        self.conv = nn.Conv1d(n_in, n_out, kernel, padding=kernel // 2, groups=groups, bias=bias)
        self.norm = layer.BatchNorm1d(n_out, step_mode="m")

    def forward(self, x_TBC: Tensor) -> Tensor:
        y_TBC: Tensor = self.norm(self.conv(x_TBC.permute(1, 2, 0)).permute(2, 0, 1).contiguous())
        return y_TBC


class Attention(nn.Module):
    def __init__(self, config: SpikeSCRConfig) -> None:
        super().__init__()
        width, self.heads = config.width, config.heads
        self.q, self.k, self.v = (Branch(width, width, bias=True) for _ in range(3))
        self.q_lif, self.k_lif, self.attended_lif = lif_node(), lif_node(), lif_node()
        self.dropout = nn.Dropout(config.dropout)
        self.out = Branch(width, width, bias=True, dropout=config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (branch(x).unflatten(2, (self.heads, -1)) for branch in (self.q, self.k, self.v))
        q_TBHD, k_TBHD = self.q_lif(rotate(q, 0)), self.k_lif(rotate(k, 0))
        q_BHTD, k_BHTD, v_BHTD = (z.permute(1, 2, 0, 3) for z in (q_TBHD, k_TBHD, v))
        o_BHTD = (q_BHTD @ k_BHTD.mT) @ v_BHTD * v_BHTD.shape[3] ** -0.5
        o_TBC = self.attended_lif(o_BHTD.permute(2, 0, 1, 3).flatten(2))
        y: Tensor = self.out(self.dropout(o_TBC))
        return y


class FeedForward(nn.Module):
    def __init__(self, config: SpikeSCRConfig) -> None:
        super().__init__()
        hidden = config.mlp_ratio * config.width
        self.hidden = Branch(config.width, hidden, bias=False, dropout=config.dropout)
        self.out = Branch(hidden, config.width, bias=False, dropout=config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(self.hidden(x))
        return y


class GatedConvolution(nn.Module):
    def __init__(self, config: SpikeSCRConfig) -> None:
        super().__init__()
        width = config.width
        self.expand = Branch(width, width, bias=True, dropout=config.dropout)
        self.depthwise = TimeConvolution(width, width, 31, groups=width, bias=False)
        self.depthwise_lif, self.out_lif, self.gate_in_lif = lif_node(), lif_node(), lif_node()
        self.value_and_gate = Branch(width, 2 * width, bias=True, fires=False)
        self.gate = Branch(width, width, bias=True)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(self.depthwise_lif(self.depthwise(self.expand(x))))
        value, gate = self.value_and_gate(x).chunk(2, dim=2)
        y: Tensor = self.dropout(self.out_lif(value * self.gate(self.gate_in_lif(gate.contiguous()))))
        return y


class SpikingJellySCR(nn.Module):
    """SpikeSCR on whole utterances, frames [T, B, N] -> logits [T, B, classes], with SpikingJelly layers."""

    def __init__(self, n_inputs: int, n_classes: int, config: SpikeSCRConfig) -> None:
        super().__init__()
        self.embedding = TimeConvolution(n_inputs, config.width, 3, bias=True)
        self.embedding_lif = lif_node()
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(
            nn.ModuleList((Attention(config), FeedForward(config), GatedConvolution(config), FeedForward(config)))
            for _ in range(config.depth)
        )
        self.head = nn.Linear(config.width, n_classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        from spikingjelly.activation_based import functional

        functional.reset_net(self)
        x = self.dropout(self.embedding_lif(self.embedding(x)))
        for block in self.blocks:
            for branch in block.children():
                x = x + branch(x)
        y: Tensor = self.head(self.dropout(x))
        return y
