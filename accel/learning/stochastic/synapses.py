"""Weights that learn by summed gradients: real numbers and whole numbers. Memristors are in `arrays`.

    real, update=real     W -= eta g / B
    real, update=carry    W += k eta theta / B              k pulses of `spikeloom.accel.learning.stochastic.carry`
    integer               R += eta s g / B,  t = trunc(R),  R -= t,  w <- clip(w - t)        W = w / s

Each kind is read by `forward` and `backward` and changed by `update`, which works IN PLACE on its tensors: they are the
whole state, are passed to a network by the caller, and `tensors` names them for a checkpoint.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Generator, Tensor

from spikeloom.accel.learning.stochastic.carry import Pulses, accumulate
from spikeloom.accel.learning.stochastic.policies import Layer, Readable

# Width -> (s, smallest and largest w). int2 and ternary both have s = 2: a step of one half.
INTEGERS: Mapping[str, tuple[int, int, int]] = {
    **{f"int{bits}": (2 ** (bits - 1), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in range(8, 1, -1)},
    "ternary": (2, -1, 1),
}


@dataclass(kw_only=True)
class UpdateRule:
    """How gradients become changes of weights. rate: eta; theta: threshold of an accumulator, in summed gradients.

    pulses: `single` asserts that no step carries more than one, `multiple` allows more, `auto` asserts it where
    theta >= batch size times positions makes it a theorem. Raises ValueError for another word or a number <= 0.
    """

    update: str = "real"  # real: add the gradient; carry: accumulate it and send pulses
    rate: float = 0.1
    theta: float = 64.0
    pulses: str = "auto"

    def __post_init__(self) -> None:
        for key, allowed in (("update", ("real", "carry")), ("pulses", ("auto", "single", "multiple"))):
            if getattr(self, key) not in allowed:
                raise ValueError(f"rule.{key} is {getattr(self, key)!r}; use one of {', '.join(allowed)}")
        for key in ("rate", "theta"):
            if not getattr(self, key) > 0:
                raise ValueError(f"rule.{key} is {getattr(self, key)}; use a number above 0")

    def single_pulse(self, batch_size: int, positions: int) -> bool:
        """Whether more than one pulse a synapse and step is a fault."""
        return self.pulses == "single" or (self.pulses == "auto" and self.theta >= batch_size * positions)


class Changed(NamedTuple):
    """What one update did: pulses upwards and downwards, and gradients that met an accumulator."""

    pulses_up: int = 0
    pulses_down: int = 0
    accumulated: int = 0

    @classmethod
    def by(cls, pulses: Pulses, accumulated: int) -> "Changed":
        up = int(pulses.counts.clamp_min(0).sum())
        return cls(up, pulses.total - up, accumulated)

    def plus(self, other: "Changed") -> "Changed":
        return Changed(*(a + b for a, b in zip(self, other, strict=True)))


class Synapses(Readable, Protocol):
    """The weights of one layer, as `train_epoch` and checkpoints use them."""

    def update(self, of_weight: Tensor, of_bias: Tensor, batch: int, generator: Generator) -> Changed: ...

    def tensors(self) -> dict[str, Tensor]: ...


@dataclass(frozen=True, kw_only=True)
class RealSynapses:
    """weight and bias as floats; residuals (accumulators) empty unless `rule.update` is carry."""

    weight: Tensor
    bias: Tensor
    residuals: tuple[Tensor, ...]
    rule: UpdateRule
    batch_size: int
    positions: int

    def forward(self, generator: Generator) -> tuple[Tensor, Tensor | None]:
        return self.weight, self.bias

    def backward(self, generator: Generator) -> Tensor:
        return self.weight

    def update(self, of_weight: Tensor, of_bias: Tensor, batch: int, generator: Generator) -> Changed:
        changed = Changed()
        for index, (value, gradient) in enumerate(((self.weight, of_weight), (self.bias, of_bias))):
            if self.rule.update == "real":
                value.sub_(gradient, alpha=self.rule.rate / batch)
                continue
            single = self.rule.single_pulse(self.batch_size, self.positions)
            pulses = accumulate(self.residuals[index], gradient, self.rule.theta, single_pulse=single)
            step = self.rule.rate * self.rule.theta / self.batch_size
            value.view(-1)[pulses.places] += step * pulses.counts
            changed = changed.plus(Changed.by(pulses, gradient.numel()))
        return changed

    def tensors(self) -> dict[str, Tensor]:
        named = {"weight": self.weight, "bias": self.bias}
        return named | {f"residual_{n}": r for n, r in zip(("weight", "bias"), self.residuals, strict=False)}


@dataclass(frozen=True, kw_only=True)
class IntegerSynapses:
    """Whole numbers w in float32 and their residuals R in float64, of a width of `INTEGERS`.

    A step that would leave the range is dropped at the bound; R keeps its remainder.
    """

    weight: Tensor
    bias: Tensor
    residuals: tuple[Tensor, Tensor]
    width: str
    rule: UpdateRule

    def forward(self, generator: Generator) -> tuple[Tensor, Tensor | None]:
        scale, _, _ = INTEGERS[self.width]
        return self.weight / scale, self.bias / scale

    def backward(self, generator: Generator) -> Tensor:
        return self.weight / INTEGERS[self.width][0]

    def update(self, of_weight: Tensor, of_bias: Tensor, batch: int, generator: Generator) -> Changed:
        scale, low, high = INTEGERS[self.width]
        changed = Changed()
        for value, residual, gradient in zip(
            (self.weight, self.bias), self.residuals, (of_weight, of_bias), strict=True
        ):
            residual.add_(gradient, alpha=self.rule.rate * scale / batch)
            step = torch.trunc(residual)
            residual -= step
            before = value.clone()
            value.sub_(step.to(value.dtype)).clamp_(low, high)
            moved = value - before
            changed = changed.plus(
                Changed(int(moved.clamp_min(0).sum()), int(-moved.clamp_max(0).sum()), gradient.numel())
            )
        return changed

    def tensors(self) -> dict[str, Tensor]:
        return {
            "weight": self.weight, "bias": self.bias,
            "residual_weight": self.residuals[0], "residual_bias": self.residuals[1],
        }  # fmt: skip


def real_synapses(layer: Layer, rule: UpdateRule, batch_size: int, generator: Generator) -> RealSynapses:
    """W ~ N(0, 2 / fan_in), b = 0, accumulators 0."""
    weight = torch.randn(layer.weight_shape, generator=generator) * (2 / layer.fan_in) ** 0.5
    bias = torch.zeros(layer.bias_shape)
    residuals = (torch.zeros_like(weight), torch.zeros_like(bias)) if rule.update == "carry" else ()
    return RealSynapses(
        weight=weight, bias=bias, residuals=residuals, rule=rule, batch_size=batch_size, positions=layer.positions
    )


def integer_synapses(layer: Layer, width: str, rule: UpdateRule, generator: Generator) -> IntegerSynapses:
    """W ~ N(0, 2 / fan_in), brought to whole numbers by chance, floor(s W + u), so that small weights are not all 0.

    Raises ValueError for a width that is not one of `INTEGERS`.
    """
    if width not in INTEGERS:
        raise ValueError(f"weights={width} is no width of whole numbers; use one of {', '.join(INTEGERS)}")
    scale, low, high = INTEGERS[width]
    drawn = torch.randn(layer.weight_shape, generator=generator) * (2 / layer.fan_in) ** 0.5 * scale
    weight = torch.floor(drawn + torch.rand(layer.weight_shape, generator=generator)).clamp_(low, high)
    bias = torch.zeros(layer.bias_shape)
    return IntegerSynapses(
        weight=weight, bias=bias, width=width, rule=rule,
        residuals=(torch.zeros_like(weight, dtype=torch.float64), torch.zeros_like(bias, dtype=torch.float64)),
    )  # fmt: skip
