"""Weights seen through a soft threshold: W = S_d(theta), with S_d(theta) = sign(theta) max(|theta| - d, 0).

`theta` is the latent weight that the optimiser moves, W what the layer multiplies with. The gradient reaches theta
unchanged, also where W is 0 and where theta is 0, so a weight that was cut off can come back. The threshold d is a
persistent buffer: a checkpoint holds it, and evaluation uses it.

While theta keeps its sign and |theta| > d, an optimiser step on theta followed by a step of d is one step of ISTA,
W' = S_{d' - d}(W - eta g). Who moves d, and when, is in `schedules` and `pruning`; here is arithmetic only.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from spikeloom.accel.learning.pruning.weight_rule import Ruled, WeightRule, bake_rules, install_rules, ruled


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, theta: Tensor, threshold: Tensor) -> Tensor:
        return theta - torch.clamp(theta, -threshold, threshold)  # exactly 0 in the dead zone

    @staticmethod
    def backward(ctx: FunctionCtx, *upstream: Tensor) -> tuple[Tensor, None]:
        return upstream[0], None


def soft_threshold(theta: Tensor, threshold: Tensor) -> Tensor:
    """S_d(theta) with dW/dtheta taken as 1 everywhere; no gradient reaches the threshold (a tensor of one value)."""
    return _StraightThrough.apply(theta, threshold)


class SoftThreshold(WeightRule):
    """Parametrisation of one weight tensor: theta -> S_d(theta), and 0 where a mask was frozen.

    threshold: buffer of one value, `scale` times the threshold d of the whole model. mask: a buffer where zeroed
    weights may be frozen (`maskable`), else None. Assigning a weight W sets theta = sign(W)(|W| + d), so that S_d
    gives W back.
    """

    threshold: Tensor
    mask: Tensor | None

    def __init__(self, weight: Tensor, *, threshold: float = 0.0, scale: float = 1.0, maskable: bool = False) -> None:
        super().__init__()
        if threshold < 0 or scale <= 0:
            raise ValueError(f"threshold {threshold} and scale {scale} must be >= 0 and > 0; start at 0 and 1")
        self.scale = scale
        self.register_buffer("threshold", weight.new_full((), threshold * scale))
        self.register_buffer("mask", torch.ones_like(weight, dtype=torch.bool) if maskable else None)

    def forward(self, theta: Tensor) -> Tensor:
        weight = soft_threshold(theta, self.threshold)
        return weight if self.mask is None else weight * self.mask

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight + weight.sign() * self.threshold

    def freeze(self, theta: Tensor) -> None:
        """From now on a weight that is 0 stays 0."""
        if self.mask is None:
            raise ValueError("this SoftThreshold has no mask; build it with maskable=True")
        with torch.no_grad():
            self.mask.copy_(self(theta) != 0)


Thresholded = Ruled[SoftThreshold]


def install(
    layers: Iterable[tuple[str, Any]],
    *,
    threshold: float = 0.0,
    scales: dict[str, float] | None = None,
    maskable: bool = False,
) -> list[Thresholded]:
    """See the `weight` of every layer, given with its path, through a soft threshold. W does not change."""

    def rule(path: str, weight: Tensor) -> SoftThreshold:
        return SoftThreshold(
            weight, threshold=threshold, scale=1.0 if scales is None else scales[path], maskable=maskable
        )

    return install_rules(layers, rule)


def thresholded(model: nn.Module) -> Iterator[Thresholded]:
    """The layers of `model` that `install` changed, in their order."""
    return ruled(model, SoftThreshold)


def bake(model: nn.Module) -> nn.Module:
    """Write W = S_d(theta) into plain layers, in place: same outputs, zeros that are stored as zeros, nothing extra."""
    return bake_rules(model, SoftThreshold)
