"""Sampling and activation of binary-stochastic neurons: Bernoulli samples, thresholds, and activation functions.

    S(p) = 1[p > u],  u ~ U(0, 1) independent for every element and call      stochastic
    B(p) = 1[p > 1/2]                                                     binary
    P(y) = sigma_a(y) = 1 / (1 + exp(-a y)),   D(y) = a sigma (1 - sigma)   logistic, at most 1 at a = 4

Sampling takes a generator. Probabilities are not clipped: above 1 a neuron always fires, below 0 it never does.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

PRECISIONS = ("hp", "s", "b")


def bernoulli(p: Tensor, generator: Generator) -> Tensor:
    """S(p): 1 with probability p, else 0, in the dtype of p. u is always below 1."""
    return (p > torch.rand(p.shape, generator=generator, dtype=p.dtype, device=p.device)).to(p.dtype)


def binary(p: Tensor) -> Tensor:
    """B(p): 1 where p is above one half, else 0."""
    return (p > 0.5).to(p.dtype)


def signal(p: Tensor, precision: str, generator: Generator) -> Tensor:
    """The signal for p: p itself (hp), a Bernoulli sample (s) or a threshold (b)."""
    if precision == "hp":
        return p
    return bernoulli(p, generator) if precision == "s" else binary(p)


@dataclass(kw_only=True)
class Activation:
    """The curve of a neuron and the derivative its error is multiplied by; both are elementwise in y.

    name              P(y)                     D(y)
    logistic          sigma_a(y)               a sigma (1 - sigma)
    relu              max(y, 0)                1[y > 0]                         a sample of P > 1 is 1
    clip              clip(a y, 0, 1)          a 1[0 < a y < 1]
    clip_half         clip(a y + 1/2, 0, 1)    a 1[-1/2 < a y < 1/2]
    logistic_boxcar   sigma_a(y)               a/4 1[-2 < a y < 2]              same area and height as the logistic's
    truncated_relu    clip(y, 0, 1)            a sigma (1 - sigma)

    slope: a. derivative_gain multiplies D. A sampled D above 1 saturates, so a > 4 loses gradient and a < 4 caps its
    probability at a/4. Raises ValueError for an unknown name or a slope or gain that is not positive.
    """

    name: str = "logistic"  # logistic, relu, clip, clip_half, logistic_boxcar or truncated_relu
    slope: float = 4.0
    derivative_gain: float = 1.0  # factor on the derivative

    def __post_init__(self) -> None:
        if self.name not in _PROBABILITY:
            raise ValueError(f"activation.name is {self.name!r}; use one of {', '.join(_PROBABILITY)}")
        for key in ("slope", "derivative_gain"):
            value = getattr(self, key)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"activation.{key} is {value}; use a number above 0")

    def probability(self, y: Tensor) -> Tensor:
        """P(y), the shape of y."""
        return _PROBABILITY[self.name](y, self.slope)

    def derivative(self, y: Tensor, p: Tensor) -> Tensor:
        """D(y) times the gain, given p = P(y), from which the logistic one is cheaper."""
        return _DERIVATIVE[self.name](y, p, self.slope) * self.derivative_gain


def _logistic_slope(y: Tensor, p: Tensor, a: float) -> Tensor:
    return a * p * (1 - p)


_PROBABILITY: dict[str, Callable[[Tensor, float], Tensor]] = {
    "logistic": lambda y, a: torch.sigmoid(a * y),
    "relu": lambda y, a: y.clamp_min(0),
    "clip": lambda y, a: (a * y).clamp(0, 1),
    "clip_half": lambda y, a: (a * y + 0.5).clamp(0, 1),
    "logistic_boxcar": lambda y, a: torch.sigmoid(a * y),
    "truncated_relu": lambda y, a: y.clamp(0, 1),
}
_DERIVATIVE: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "logistic": _logistic_slope,
    "relu": lambda y, p, a: (y > 0).to(y.dtype),
    "clip": lambda y, p, a: a * ((y > 0) & (a * y < 1)).to(y.dtype),
    "clip_half": lambda y, p, a: a * ((a * y).abs() < 0.5).to(y.dtype),
    "logistic_boxcar": lambda y, p, a: a / 4 * ((a * y).abs() < 2).to(y.dtype),
    "truncated_relu": lambda y, p, a: _logistic_slope(y, torch.sigmoid(a * y), a),
}
