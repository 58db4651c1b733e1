"""Gradual global magnitude pruning, the method to compare with: masks of torch.nn.utils.prune that only ever grow.

Between two shares of all steps the smallest weights are cut off a few at a time, over all layers together, so that the
share of zeros follows  s(x) = s_final (1 - (1 - x)^3)  (Zhu and Gupta, 2017). A weight that was cut off gets no
gradient and stays 0.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.utils import prune
from torch.optim import Optimizer

from spikeloom.accel.learning.pruning.layers import LayerSelection, prunable
from spikeloom.accel.learning.pruning.pruner import Changes, ReportsMasks, check_target


@dataclass
class MagnitudeConfig(LayerSelection):
    """sparsity: final share of zeros among the weights of pruned layers. start, until: shares of all steps between
    which it grows; updates: how many times it does."""

    kind: str = "magnitude"
    sparsity: float | None = None
    start: float = 0.0
    until: float = 0.75
    updates: int = 100

    def check(self) -> None:
        """Raise ValueError for settings that cannot be meant."""
        check_target(sparsity=self.sparsity)
        if not 0 <= self.start < self.until <= 1:
            raise ValueError(
                f"pruning.start={self.start} and pruning.until={self.until} must be shares of the steps, the first the "
                "smaller; use 0 and 0.75"
            )
        if self.updates < 1:
            raise ValueError(f"pruning.updates={self.updates} must be at least 1; use 100")

    def build(self, model: nn.Module) -> "MagnitudePruner":
        return MagnitudePruner(model, self)


class MagnitudePruner(ReportsMasks):
    """Masks the chosen layers of `model`."""

    def __init__(self, model: nn.Module, config: MagnitudeConfig) -> None:
        config.check()
        self.model, self.config, self.method, self.target = model, config, config.kind, config.sparsity
        self.layers = prunable(model, config)
        for _, layer in self.layers:
            prune.identity(layer, "weight")
        self.paths = frozenset(path for path, _ in self.layers)
        self.changes = Changes(layer for _, layer in self.layers)
        self.n_weights = sum(int(layer.weight_mask.numel()) for _, layer in self.layers)
        self.step, self.lr_sum = 0, 0.0
        self.at: list[int] = []  # steps after which weights are cut off, in order

    def plan(self, rates: Sequence[float], optimizer: Optimizer) -> None:
        first, last = round(self.config.start * len(rates)), max(1, round(self.config.until * len(rates)))
        times = [first + round((last - first) * (i + 1) / self.config.updates) for i in range(self.config.updates)]
        self.at = sorted({max(1, step) for step in times})
        self.first = first

    def before_step(self, optimizer: Optimizer) -> None:
        pass

    def after_step(self, optimizer: Optimizer, stepped: bool = True) -> None:
        self.step += 1
        self.lr_sum += float(optimizer.param_groups[0]["lr"]) if stepped else 0.0
        if self.step in self.at:
            x = (self.step - self.first) / (self.at[-1] - self.first) if self.at[-1] > self.first else 1.0
            self._cut(math.ceil((self.config.sparsity or 0.0) * (1 - (1 - x) ** 3) * self.n_weights - 1e-9))

    def _cut(self, zeros: int) -> None:
        """Mask the smallest weights, until `zeros` of all are masked."""
        masked = self.n_weights - sum(int(layer.weight_mask.sum()) for _, layer in self.layers)
        if zeros <= masked:
            return
        prune.global_unstructured(
            [(layer, "weight") for _, layer in self.layers], pruning_method=prune.L1Unstructured, amount=zeros - masked
        )
        for _, layer in self.layers:  # one mask instead of a growing chain of them
            mask = layer.weight_mask
            prune.remove(layer, "weight")
            prune.custom_from_mask(layer, "weight", mask)

    @property
    def finished(self) -> bool:
        return bool(self.at) and self.step >= self.at[-1]

    def bake(self) -> None:
        for _, layer in self.layers:
            prune.remove(layer, "weight")

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "lr_sum": self.lr_sum, "zero": self.changes.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.lr_sum = state["step"], state["lr_sum"]
        self.changes.load_state_dict(state["zero"])
