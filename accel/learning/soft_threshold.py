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
from torch.nn.utils import parametrize


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


class SoftThreshold(nn.Module):
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


class Thresholded:
    """A layer whose weight is seen through a SoftThreshold: its path, latent weight theta and the weight W it uses."""

    def __init__(self, path: str, layer: Any, rule: SoftThreshold) -> None:
        self.path, self.layer, self.rule = path, layer, rule

    @property
    def theta(self) -> nn.Parameter:
        return self.layer.parametrizations["weight"].original

    @property
    def weight(self) -> Tensor:
        """W = S_d(theta), without a graph."""
        with torch.no_grad():
            return self.rule(self.theta)


def install(
    layers: Iterable[tuple[str, Any]],
    *,
    threshold: float = 0.0,
    scales: dict[str, float] | None = None,
    maskable: bool = False,
) -> list[Thresholded]:
    """See the `weight` of every layer, given with its path, through a soft threshold. W does not change.

    The parameter object stays the same, so an optimiser made before or after holds theta.
    """
    made = []  # Thresholded
    for path, layer in layers:
        if parametrize.is_parametrized(layer):
            raise ValueError(f"{path} has another parametrisation already; remove it first")
        scale = 1.0 if scales is None else scales[path]
        rule = SoftThreshold(layer.weight.detach(), threshold=threshold, scale=scale, maskable=maskable)
        parametrize.register_parametrization(layer, "weight", rule)
        made.append(Thresholded(path, layer, rule))
    return made


def thresholded(model: nn.Module) -> Iterator[Thresholded]:
    """The layers of `model` that `install` changed, in their order."""
    path: str
    layer: Any
    for path, layer in model.named_modules():
        if parametrize.is_parametrized(layer, "weight"):
            for rule in layer.parametrizations["weight"]:
                if isinstance(rule, SoftThreshold):
                    yield Thresholded(path, layer, rule)


def bake(model: nn.Module) -> nn.Module:
    """Write W = S_d(theta) into plain layers, in place: same outputs, zeros that are stored as zeros, nothing extra."""
    for entry in list(thresholded(model)):
        layer, theta, weight = entry.layer, entry.theta, entry.weight
        # Not parametrize.remove_parametrizations: that also takes the weight from every deep copy of the layer.
        layer.__class__ = parametrize.type_before_parametrizations(layer)
        del layer.parametrizations
        theta.data = weight
        layer.register_parameter("weight", theta)
    return model
