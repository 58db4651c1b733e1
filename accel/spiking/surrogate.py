"""Surrogate derivatives: they replace the derivative of the Heaviside step when a spike is differentiated.

Each surrogate is a callable value g(u), with u = membrane - threshold, finite for every finite u. It also carries the
`code` of the compiled kernels and its one `parameter`, so that an exported graph holds it as two numbers. This module
has derivatives only; firing and reset are in `functional`.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor


class Surrogate(Protocol):
    """g(u), the replacement of d(spike)/d(membrane); `u` may have any shape."""

    code: ClassVar[int]

    @property
    def parameter(self) -> float: ...

    def __call__(self, u: Tensor) -> Tensor: ...


def _positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"surrogate {name} must be a positive number, got {value}; use for example 2.0")


@dataclass(frozen=True)
class ATan:
    """g(u) = (alpha/2) / (1 + (pi*alpha*u/2)^2), the derivative of an arctangent step (Fang et al., 2021)."""

    alpha: float = 2.0
    code: ClassVar[int] = 0

    def __post_init__(self) -> None:
        _positive("alpha", self.alpha)

    @property
    def parameter(self) -> float:
        return self.alpha

    def __call__(self, u: Tensor) -> Tensor:
        return (self.alpha / 2) / (1 + (math.pi / 2 * self.alpha * u) ** 2)


@dataclass(frozen=True)
class Sigmoid:
    """g(u) = alpha * s * (1 - s) with s = sigmoid(alpha*u)."""

    alpha: float = 4.0
    code: ClassVar[int] = 1

    def __post_init__(self) -> None:
        _positive("alpha", self.alpha)

    @property
    def parameter(self) -> float:
        return self.alpha

    def __call__(self, u: Tensor) -> Tensor:
        # g is even; exp(-|alpha*u|) cannot overflow, where alpha*s*(1-s) would lose all digits for large u.
        e = torch.exp(-(self.alpha * u).abs())
        return self.alpha * e / (1 + e) ** 2


@dataclass(frozen=True)
class FastSigmoid:
    """g(u) = 1 / (1 + alpha*|u|)^2 (SuperSpike; Zenke & Ganguli, 2018)."""

    alpha: float = 10.0
    code: ClassVar[int] = 2

    def __post_init__(self) -> None:
        _positive("alpha", self.alpha)

    @property
    def parameter(self) -> float:
        return self.alpha

    def __call__(self, u: Tensor) -> Tensor:
        return 1 / (1 + self.alpha * u.abs()) ** 2


@dataclass(frozen=True)
class Rectangular:
    """g(u) = 1/(2w) where |u| < w, else 0 (STBP; Wu et al., 2018). The one surrogate a chip can store in one bit."""

    half_width: float = 0.5
    code: ClassVar[int] = 3

    def __post_init__(self) -> None:
        _positive("half_width", self.half_width)

    @property
    def parameter(self) -> float:
        return self.half_width

    def __call__(self, u: Tensor) -> Tensor:
        return (u.abs() < self.half_width).to(u.dtype) / (2 * self.half_width)


@dataclass(frozen=True)
class PiecewiseLinear:
    """g(u) = max(0, 1 - |u|/w) / w, a triangle of unit area (Bellec et al., 2018)."""

    half_width: float = 1.0
    code: ClassVar[int] = 4

    def __post_init__(self) -> None:
        _positive("half_width", self.half_width)

    @property
    def parameter(self) -> float:
        return self.half_width

    def __call__(self, u: Tensor) -> Tensor:
        return (1 - u.abs() / self.half_width).clamp(min=0) / self.half_width


SURROGATES: tuple[type[Surrogate], ...] = (ATan, Sigmoid, FastSigmoid, Rectangular, PiecewiseLinear)


def from_code(code: int, parameter: float) -> Surrogate:
    """The surrogate an exported graph names by number. Inverse of (`code`, `parameter`)."""
    for cls in SURROGATES:
        if cls.code == code:
            return cls(parameter)  # type: ignore[call-arg]
    raise ValueError(f"unknown surrogate code {code}; use one of {[c.code for c in SURROGATES]}")
