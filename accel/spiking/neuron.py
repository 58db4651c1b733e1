"""Neurons as thin modules over `ops.lif`. No module keeps state: it comes in and goes out with every call."""

import math

import torch
from torch import Tensor, nn

from spikeloom.accel.spiking.functional import LIFParameters, LIFState
from spikeloom.accel.spiking.ops import lif


class LIF(nn.Module):
    """Leaky integrate-and-fire population: x [T, ...] -> (spikes [T, ...], state). Has no parameters to learn."""

    def __init__(self, parameters: LIFParameters) -> None:
        super().__init__()
        self.parameters_ = parameters

    def forward(self, x: Tensor, state: LIFState | None = None) -> tuple[Tensor, LIFState]:
        return lif(x, state, self.parameters_)

    def extra_repr(self) -> str:
        return repr(self.parameters_)


def integrate_and_fire(threshold: float = 1.0, v_reset: float | None = 0.0, **options: object) -> LIF:
    """A neuron without leak, h[t] = v[t-1] + x[t]: the LIF of infinite tau. `options` are those of LIFParameters."""
    return LIF(LIFParameters(tau=math.inf, decay_input=False, threshold=threshold, v_reset=v_reset, **options))  # type: ignore[arg-type]


class ParametricLIF(nn.Module):
    """LIF whose time constant is learned: 1/tau = sigmoid(w), one w per population (Fang et al., 2021)."""

    def __init__(self, parameters: LIFParameters) -> None:
        super().__init__()
        if not 1.0 < parameters.tau < math.inf:
            raise ValueError(f"a learned tau must start inside (1, inf), got {parameters.tau}; use 2.0")
        self.parameters_ = parameters
        self.w = nn.Parameter(torch.tensor(-math.log(parameters.tau - 1.0)))

    @property
    def tau(self) -> Tensor:
        return 1 / torch.sigmoid(self.w)

    def forward(self, x: Tensor, state: LIFState | None = None) -> tuple[Tensor, LIFState]:
        return lif(x, state, self.parameters_, self.tau)

    def extra_repr(self) -> str:
        return repr(self.parameters_)
