"""Magnitude pruning with the same share of zeros in every layer, while all weights go on training: DNW and GMP.

    W = w where |w| is among the largest (1 - p) n of its layer's n weights, else 0, chosen anew in every step

    dnw    p from the first step on; the gradient reaches every weight          (Wortsman et al., arXiv 1906.00586)
    gmp    p grows, s(x) = p (1 - (1 - x)^3); the gradient reaches the kept     (Zhu and Gupta, arXiv 1710.01878)

As STR compares with them. `magnitude` is the gradual rule over all layers together, whose masks only ever grow.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from spikeloom.accel.learning.pruning.layers import LayerSelection, prunable
from spikeloom.accel.learning.pruning.pruner import Changes, ReportsMasks, check_target
from spikeloom.accel.learning.pruning.weight_rule import WeightRule, bake_rules, install_rules


def whole_share(rate: float, n: int) -> int:
    """n p truncated to a whole number, whatever rounding made of p."""
    return int(rate * n + 1e-9)


def largest(weight: Tensor, zeros: int) -> Tensor:
    """True at all but the `zeros` smallest |w|; of equal ones the first goes first."""
    kept = torch.ones(weight.numel(), dtype=torch.bool, device=weight.device)
    kept[weight.abs().flatten().argsort(stable=True)[:zeros]] = False
    return kept.view(weight.shape)


class _KeepLargest(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, theta: Tensor, kept: Tensor, masked: bool) -> Tensor:
        ctx.masked = masked
        ctx.save_for_backward(kept)
        return theta * kept

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        (kept,) = ctx.saved_tensors
        return upstream[0] * kept if ctx.masked else upstream[0], None, None


class KeepLargest(WeightRule):
    """w -> w where it is among the largest. zeros: buffer of one whole number, which no change of precision rounds."""

    zeros: Tensor

    def __init__(self, zeros: int, masked_gradient: bool) -> None:
        super().__init__()
        self.masked_gradient = masked_gradient
        self.register_buffer("zeros", torch.tensor(zeros))

    def forward(self, theta: Tensor) -> Tensor:
        kept = largest(theta.detach(), int(self.zeros))
        kept_weight: Tensor = _KeepLargest.apply(theta, kept, self.masked_gradient)
        return kept_weight

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight


@dataclass
class LayerwiseConfig(LayerSelection):
    """sparsity: final share of zeros of every pruned layer. start, until: shares of all steps between which GMP's
    grows (the released recipe: epochs 20 to 80 of 100)."""

    kind: str = "gmp"
    sparsity: float | None = None  # final share of zeros of each pruned layer
    start: float = 0.2  # share of all steps after which it grows
    until: float = 0.8  # share of all steps after which it is held

    def check(self) -> None:
        """Raise ValueError for settings that cannot be meant."""
        check_target(sparsity=self.sparsity)
        if not 0 <= self.start < self.until <= 1:
            raise ValueError(
                f"pruning.start={self.start} and pruning.until={self.until} must be shares of the steps, the first the "
                "smaller; use 0.2 and 0.8"
            )

    def build(self, model: nn.Module) -> "LayerwisePruner":
        return LayerwisePruner(model, self)


@dataclass
class DNWConfig(LayerSelection):
    """DNW. sparsity: share of zeros of every pruned layer, from the first step on."""

    kind: str = "dnw"
    sparsity: float | None = None  # share of zeros of each pruned layer

    def check(self) -> None:
        """Raise ValueError for settings that cannot be meant."""
        check_target(sparsity=self.sparsity)

    def build(self, model: nn.Module) -> "LayerwisePruner":
        return LayerwisePruner(model, self)


class LayerwisePruner(ReportsMasks):
    """Keeps the largest weights of each chosen layer of `model`."""

    def __init__(self, model: nn.Module, config: LayerwiseConfig | DNWConfig) -> None:
        config.check()
        self.model, self.config, self.method = model, config, config.kind
        self.rate = float(config.sparsity or 0.0)
        layers = prunable(model, config)
        gradual = isinstance(config, LayerwiseConfig)
        self.entries = install_rules(
            layers,
            lambda path, weight: KeepLargest(
                0 if gradual else whole_share(self.rate, weight.numel()), masked_gradient=gradual
            ).to(weight.device),
        )
        self.paths = frozenset(path for path, _ in layers)
        self.changes = Changes(layer for _, layer in layers)
        n = sum(entry.theta.numel() for entry in self.entries)
        # n p of a layer is truncated, so that the share of all can be a little less.
        self.target: float | None = sum(whole_share(self.rate, e.theta.numel()) for e in self.entries) / n
        self.step, self.lr_sum = 0, 0.0
        self.first = self.last = 0

    def plan(self, rates: Sequence[float], optimizer: Optimizer) -> None:
        if isinstance(self.config, LayerwiseConfig):
            self.first = round(self.config.start * len(rates))
            self.last = max(self.first + 1, round(self.config.until * len(rates)))

    def before_step(self, optimizer: Optimizer) -> None:
        pass

    def after_step(self, optimizer: Optimizer, stepped: bool = True) -> None:
        self.step += 1
        self.lr_sum += float(optimizer.param_groups[0]["lr"]) if stepped else 0.0
        if isinstance(self.config, LayerwiseConfig):
            x = min(1.0, max(0.0, (self.step - self.first) / (self.last - self.first)))
            for entry in self.entries:
                entry.rule.zeros.fill_(whole_share(self.rate * (1 - (1 - x) ** 3), entry.theta.numel()))

    @property
    def finished(self) -> bool:
        return self.step >= self.last

    def bake(self) -> None:
        bake_rules(self.model, KeepLargest)

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "lr_sum": self.lr_sum, "zero": self.changes.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.lr_sum = state["step"], state["lr_sum"]
        self.changes.load_state_dict(state["zero"])
