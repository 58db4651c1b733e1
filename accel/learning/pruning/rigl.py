"""RigL: sparse from the first step to the last, with connections that move (Evci et al., arXiv 1911.11134).

Every so many steps, instead of an optimiser step, in each layer: of its active weights the n smallest |w| are dropped,
then n of all others (those just dropped included) with the largest |dL/dW| are activated, n = f(t) active,

    f(t) = alpha/2 (1 + cos(pi t / T_end))

Newly grown weights start at 0 without momentum; one that is dropped and grown again keeps its value.

How dense each layer is: `uniform`, the first layer dense and all others equal; or `erk`,
density = eps (o + i + kh + kw) / (o i kh kw), where layers that would be more than dense are dense and eps is found
for the rest.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from spikeloom.accel.learning.pruning.layers import LayerSelection, prunable
from spikeloom.accel.learning.pruning.pruner import Changes, ReportsMasks, check_target
from spikeloom.accel.learning.pruning.weight_rule import Ruled, WeightRule, bake_rules, install_rules

MOMENTA = ("momentum_buffer", "exp_avg", "exp_avg_sq", "max_exp_avg_sq")


def erk_densities(shapes: Sequence[Sequence[int]], sparsity: float) -> tuple[float, list[float]]:
    """(eps, density of each weight of these shapes) so that a share `sparsity` of all is 0."""
    sizes = [math.prod(shape) for shape in shapes]
    scores = [sum(shape) / size for shape, size in zip(shapes, sizes, strict=True)]
    dense: set[int] = set()
    while True:
        left = (1 - sparsity) * sum(sizes) - sum(sizes[i] for i in dense)
        among = [i for i in range(len(sizes)) if i not in dense]
        if not among or left < 0:
            raise ValueError(f"a sparsity of {sparsity} leaves no weight to distribute; use a lower or a higher one")
        eps = left / sum(scores[i] * sizes[i] for i in among)
        over = [i for i in among if eps * scores[i] > 1]
        if not over:
            return eps, [1.0 if i in dense else eps * scores[i] for i in range(len(sizes))]
        dense |= {max(over, key=lambda i: scores[i])} if len(over) == 1 else set(over)


def uniform_densities(shapes: Sequence[Sequence[int]], sparsity: float) -> list[float]:
    """The first weight dense, all others 1 - sparsity."""
    return [1.0, *(1 - sparsity for _ in shapes[1:])]


def update_fraction(step: int, end: int, alpha: float) -> float:
    """f(t), and 0 from `end` on."""
    return alpha / 2 * (1 + math.cos(math.pi * step / end)) if step < end else 0.0


class _Masked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, theta: Tensor, mask: Tensor, rule: "MovingMask") -> Tensor:
        ctx.rule = rule
        ctx.save_for_backward(mask)
        return theta * mask

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        (mask,) = ctx.saved_tensors
        ctx.rule.collect(upstream[0])
        return upstream[0] * mask, None, None


class MovingMask(WeightRule):
    """w -> w where the mask says so; keeps dL/dW of all weights while `collecting`."""

    mask: Tensor

    def __init__(self, weight: Tensor, density: float, generator: torch.Generator) -> None:
        super().__init__()
        active = round(density * weight.numel())
        chosen = torch.randperm(weight.numel(), generator=generator)[:active]
        mask = torch.zeros(weight.numel(), dtype=torch.bool)
        mask[chosen] = True
        self.register_buffer("mask", mask.view(weight.shape).to(weight.device))
        self.collecting = False
        self.dense_gradient: Tensor | None = None

    def forward(self, theta: Tensor) -> Tensor:
        masked: Tensor = _Masked.apply(theta, self.mask, self)
        return masked

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight

    def collect(self, gradient: Tensor) -> None:
        if self.collecting:
            held = self.dense_gradient
            self.dense_gradient = gradient.detach().clone() if held is None else held + gradient.detach()


@dataclass
class RigLConfig(LayerSelection):
    """sparsity: share of zeros of all pruned layers, from the first step on. every: steps from one change of the
    connections to the next, until a share of all steps has passed (published: 100, 0.75)."""

    kind: str = "rigl"
    sparsity: float | None = None  # share of zeros of the pruned layers
    distribution: str = "erk"  # erk or uniform (with a dense first layer)
    every: int = 100  # steps from one change of the connections to the next
    until: float = 0.75  # share of all steps after which they stay
    alpha: float = 0.3  # share of the connections that moves at first
    seed: int = 0  # of the first connections

    def check(self) -> None:
        """Raise ValueError for settings that cannot be meant."""
        check_target(sparsity=self.sparsity)
        if self.distribution not in ("erk", "uniform"):
            raise ValueError(f"pruning.distribution={self.distribution} is unknown; use erk or uniform")
        if self.every < 1 or not 0 < self.until <= 1 or not 0 < self.alpha < 1:
            raise ValueError(
                f"pruning.every={self.every}, until={self.until}, alpha={self.alpha}; use at least 1 step, a share in "
                "(0, 1], and one in (0, 1)"
            )

    def build(self, model: nn.Module) -> "RigLPruner":
        return RigLPruner(model, self)


class RigLPruner(ReportsMasks):
    """Keeps the chosen layers of `model` sparse and moves their connections."""

    def __init__(self, model: nn.Module, config: RigLConfig) -> None:
        config.check()
        self.model, self.config, self.method = model, config, config.kind
        layers = prunable(model, config)
        shapes = [tuple(layer.weight.shape) for _, layer in layers]
        sparsity = float(config.sparsity or 0.0)
        found = (
            erk_densities(shapes, sparsity)[1] if config.distribution == "erk" else uniform_densities(shapes, sparsity)
        )
        self.density = dict(zip((path for path, _ in layers), found, strict=True))
        generator = torch.Generator().manual_seed(config.seed)
        self.entries = install_rules(layers, lambda path, weight: MovingMask(weight, self.density[path], generator))
        self.paths = frozenset(path for path, _ in layers)
        self.changes = Changes(layer for _, layer in layers)
        n = sum(entry.theta.numel() for entry in self.entries)
        # Each layer has a whole number of connections.
        self.target: float | None = sum(int((~entry.rule.mask).sum()) for entry in self.entries) / n
        self.step, self.lr_sum, self.end = 0, 0.0, 0

    def plan(self, rates: Sequence[float], optimizer: Optimizer) -> None:
        self.end = round(self.config.until * len(rates))
        self._collect()

    def _moves(self) -> bool:
        """Whether the next step changes the connections."""
        return 0 < self.step < self.end and self.step % self.config.every == 0

    def _collect(self) -> None:
        for entry in self.entries:
            entry.rule.collecting, entry.rule.dense_gradient = self._moves(), None

    def before_step(self, optimizer: Optimizer) -> None:
        """Move the connections instead of stepping: parameters without a gradient are left alone by the optimiser."""
        if not self._moves():
            return
        fraction = update_fraction(self.step, self.end, self.config.alpha)
        for entry in self.entries:
            if entry.rule.dense_gradient is not None:
                self._move(entry, entry.rule.dense_gradient, fraction, optimizer)
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def _move(self, entry: Ruled[MovingMask], gradient: Tensor, fraction: float, optimizer: Optimizer) -> None:
        mask, theta = entry.rule.mask.flatten(), entry.theta.detach().flatten()
        active = int(mask.sum())
        n = min(int(active * fraction), mask.numel() - active)
        if n == 0:
            return
        size = torch.where(mask, theta.abs(), -1.0)
        kept = torch.zeros_like(mask)
        kept[size.argsort(descending=True, stable=True)[: active - n]] = True
        wanted = torch.where(kept, -1.0, gradient.flatten().abs())
        now = kept.clone()
        now[wanted.argsort(descending=True, stable=True)[:n]] = True
        grown = (now & ~mask).view(entry.theta.shape)
        entry.rule.mask.copy_(now.view(entry.theta.shape))
        with torch.no_grad():
            entry.theta[grown] = 0.0
            for name in MOMENTA:
                held = optimizer.state.get(entry.theta, {}).get(name)
                if isinstance(held, Tensor):
                    held[grown] = 0.0

    def after_step(self, optimizer: Optimizer, stepped: bool = True) -> None:
        self.lr_sum += float(optimizer.param_groups[0]["lr"]) if stepped and not self._moves() else 0.0
        self.step += 1
        self._collect()

    @property
    def finished(self) -> bool:
        return True

    def bake(self) -> None:
        bake_rules(self.model, MovingMask)

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "lr_sum": self.lr_sum, "end": self.end, "zero": self.changes.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.lr_sum, self.end = state["step"], state["lr_sum"], state["end"]
        self.changes.load_state_dict(state["zero"])
        self._collect()
