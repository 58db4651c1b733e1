"""Accumulate and carry: gradients add up in a digital accumulator, and whole multiples of a threshold become pulses.

    R <- R + g,   k = -trunc(R / theta),   R <- R + k theta            so that   sum g = R - theta sum k

at any time, for every synapse (arXiv 2304.12866). k > 0 is a potentiation, k < 0 a depression. With |g| <= batch <=
theta no step carries more than one pulse; where a gradient can be larger (more samples than theta, or the positions of
a convolution) |k| pulses are needed. The accumulators hold whole numbers, exact in float32 below 2^24.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Pulses(NamedTuple):
    """The synapses that carried in one step, as flat places [n] (int64), and how many pulses each, signed [n]."""

    places: Tensor
    counts: Tensor

    @property
    def total(self) -> int:
        return int(self.counts.abs().sum())


def accumulate(residual: Tensor, gradient: Tensor, theta: float, *, single_pulse: bool) -> Pulses:
    """Add a gradient to the accumulators `residual`, IN PLACE, and take the carries out of them.

    Raises ValueError when a synapse would need more than one pulse where only one is allowed; the residuals then hold
    the sum, so none of it is lost.
    """
    residual += gradient
    flat = residual.view(-1)
    places = torch.nonzero(flat.abs() >= theta).view(-1)
    there = flat[places]
    counts = -torch.trunc(there / theta)
    if single_pulse and counts.numel() and counts.abs().max() > 1:
        raise ValueError(
            f"a synapse carries {int(counts.abs().max())} pulses in one step where one is allowed; use theta at least "
            f"the largest gradient (batch size times the positions of a convolution), or pulses=multiple; got {theta:g}"
        )
    flat[places] = there + counts * theta
    return Pulses(places, counts)
