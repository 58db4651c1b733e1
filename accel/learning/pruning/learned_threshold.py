"""STR: a soft threshold for each layer that is learned (Kusupati et al., arXiv 2002.03231).

    W = sign(w) max(|w| - g(s), 0),  g = sigmoid,  one parameter s a layer
    dW/dw = 1[|w| > g(s)],   dL/ds = -g'(s) sum over dL/dW sign(w) 1[|w| > g(s)]

A weight that was cut off gets no gradient. s starts so low that g(s) is 0 in float32, and with it its gradient: at
first s moves towards 0 by weight decay alone, and how sparse the network ends is steered by that decay, `s_decay`, not
by a target.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from spikeloom.accel.learning.pruning.layers import LayerSelection, prunable
from spikeloom.accel.learning.pruning.pruner import Changes, PruneReport
from spikeloom.accel.learning.pruning.sparsity import sparsity_report
from spikeloom.accel.learning.pruning.weight_rule import WeightRule, bake_rules, install_rules

NO_L1 = "the threshold of each layer is learned"


class LearnedThreshold(WeightRule):
    """w -> sign(w) max(|w| - sigmoid(s), 0); s: parameter `[1, 1]`, so that decay spares it no more than a weight."""

    def __init__(self, s_init: float) -> None:
        super().__init__()
        self.s = nn.Parameter(torch.full((1, 1), s_init))

    def forward(self, theta: Tensor) -> Tensor:
        return theta.sign() * torch.relu(theta.abs() - torch.sigmoid(self.s))

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight + weight.sign() * torch.sigmoid(self.s.detach())


@dataclass
class LearnedThresholdConfig(LayerSelection):
    """STR. s_init: s of every layer at the start, -3200 for ResNet-50 and -12800 for MobileNet-V1 on ImageNet; a short
    training needs a higher one. s_decay: weight decay of s; null: that of the weights."""

    kind: str = "str"
    s_init: float = -3200.0  # s of every layer at the start
    s_decay: float | None = None  # weight decay of s; null: that of the weights

    def check(self) -> None:
        """Raise ValueError for settings that cannot be meant."""
        if self.s_decay is not None and not self.s_decay >= 0:
            raise ValueError(f"pruning.s_decay={self.s_decay} must be >= 0; use null for the decay of the weights")

    def build(self, model: nn.Module) -> "LearnedThresholdPruner":
        return LearnedThresholdPruner(model, self)


class LearnedThresholdPruner:
    """Sees the chosen layers of `model` through a threshold each; the optimiser moves the thresholds, too."""

    def __init__(self, model: nn.Module, config: LearnedThresholdConfig) -> None:
        config.check()
        self.model, self.config, self.method = model, config, config.kind
        self.target: float | None = None  # whatever comes out
        layers = prunable(model, config)
        self.entries = install_rules(layers, lambda path, weight: LearnedThreshold(config.s_init).to(weight.device))
        self.paths = frozenset(path for path, _ in layers)
        self.changes = Changes(layer for _, layer in layers)
        self.step, self.lr_sum = 0, 0.0
        self._before: list[Tensor] = []  # s, where its decay is set right after the step

    def plan(self, rates: Sequence[float], optimizer: Optimizer) -> None:
        self._groups(optimizer)

    def _groups(self, optimizer: Optimizer) -> list[dict[str, Any]]:
        """The options each s is optimised with. Raises ValueError for one that is not optimised."""
        options = {id(p): group for group in optimizer.param_groups for p in group["params"]}
        for entry in self.entries:
            if id(entry.rule.s) not in options:
                raise ValueError(f"the threshold of {entry.path} is not optimised; make the optimizer after the pruner")
        return [options[id(entry.rule.s)] for entry in self.entries]

    def before_step(self, optimizer: Optimizer) -> None:
        """Replace the decay of s, which the optimiser is about to apply, by `s_decay`."""
        self._before = []
        if self.config.s_decay is None:
            return
        for entry, group in zip(self.entries, self._groups(optimizer), strict=True):
            s, wrong = entry.rule.s, self.config.s_decay - float(group["weight_decay"])
            if group.get("decoupled_weight_decay", False):
                self._before.append(s.detach() * (-wrong * float(group["lr"])))
            elif s.grad is not None:
                s.grad.add_(s.detach(), alpha=wrong)

    def after_step(self, optimizer: Optimizer, stepped: bool = True) -> None:
        for entry, change in zip(self.entries, self._before, strict=False):
            if stepped:
                entry.rule.s.data.add_(change)
        self._before = []
        self.step += 1
        self.lr_sum += float(optimizer.param_groups[0]["lr"]) if stepped else 0.0

    def report(self, macs: dict[str, int] | None = None) -> PruneReport:
        pruned, regrown = self.changes.count()
        thresholds = [float(torch.sigmoid(entry.rule.s.detach())) for entry in self.entries]
        return PruneReport(
            sparsity=sparsity_report(self.model, macs, self.paths), threshold=sum(thresholds) / len(thresholds),
            mu=None, l1=None, l1_missing=NO_L1, lr_sum=self.lr_sum, step=self.step, pruned=pruned, regrown=regrown,
        )  # fmt: skip

    @property
    def finished(self) -> bool:
        return True

    def bake(self) -> None:
        bake_rules(self.model, LearnedThreshold)

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "lr_sum": self.lr_sum, "zero": self.changes.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.lr_sum = state["step"], state["lr_sum"]
        self.changes.load_state_dict(state["zero"])
