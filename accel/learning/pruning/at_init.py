"""Pruning before training, an extension under a name of its own: a soft threshold grows for a few steps on a COPY of
the model, its zeros become a mask, and the untouched model then trains densely inside that mask, with no threshold.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from spikeloom.accel.learning.pruning.lats import LATSConfig
from spikeloom.accel.learning.pruning.layers import LayerSelection, prunable
from spikeloom.accel.learning.pruning.pruner import Changes, PruneReport, check_target
from spikeloom.accel.learning.pruning.soft_threshold import bake, install
from spikeloom.accel.learning.pruning.sparsity import sparsity_report

METHOD = "prune_at_init"


@dataclass
class AtInitConfig(LayerSelection):
    """sparsity: share of zeros among the weights of pruned layers. steps: how long the copy trains; lr: its rate."""

    kind: str = METHOD
    sparsity: float | None = None
    steps: int = 100
    lr: float = 2e-3

    def check(self) -> None:
        """Raise ValueError for settings that cannot be meant."""
        check_target(sparsity=self.sparsity)
        if self.steps < 1 or self.lr <= 0:
            raise ValueError(f"pruning.steps={self.steps} and pruning.lr={self.lr} must be positive; use 100 and 0.002")

    def build(self, model: nn.Module) -> "AtInitPruner":
        return AtInitPruner(model, self)


def zeros_of_a_copy(
    model: nn.Module,
    config: LATSConfig,
    losses: Callable[[nn.Module], Iterator[Tensor]],
    make_optimizer: Callable[[list[nn.Parameter]], Optimizer],
    steps: int,
) -> dict[str, Tensor]:
    """Path -> true where a weight survived `steps` steps of soft-threshold pruning on a copy of `model`.

    `losses(copy)` yields the loss of one batch after the other; `model` is not touched.
    """
    twin = copy.deepcopy(model).train()
    optimizer = make_optimizer([p for p in twin.parameters() if p.requires_grad])
    pruner = config.build(twin)
    pruner.plan([float(optimizer.param_groups[0]["lr"])] * steps, optimizer)
    batches = losses(twin)
    for step in range(steps):
        optimizer.zero_grad()
        loss = next(batches, None)
        if loss is None:
            raise ValueError(f"the data end after {step} of {steps} steps before training; use a smaller pruning.steps")
        loss.backward()
        pruner.before_step(optimizer)
        optimizer.step()
        pruner.after_step(optimizer)
    return {entry.path: entry.weight != 0 for entry in pruner.entries}


class AtInitPruner:
    """Trains `model` inside a mask that `find` chooses before the first step."""

    def __init__(self, model: nn.Module, config: AtInitConfig) -> None:
        config.check()
        self.model, self.config, self.method, self.target = model, config, config.kind, config.sparsity
        layers = prunable(model, config)
        self.entries = install(layers, maskable=True)
        self.paths = frozenset(path for path, _ in layers)
        self.changes = Changes(layer for _, layer in layers)
        self.step, self.lr_sum, self.found = 0, 0.0, False

    def find(self, losses: Callable[[nn.Module], Iterator[Tensor]]) -> None:
        """Choose the mask. `losses(copy)` yields the training loss of one batch after the other."""
        twin = copy.deepcopy(self.model)
        bake(twin)
        chosen = LATSConfig(
            sparsity=self.config.sparsity,
            until=1.0,
            exclude=[path for path, _ in prunable(twin, LayerSelection()) if path not in self.paths],
        )
        lr = self.config.lr
        kept = zeros_of_a_copy(twin, chosen, losses, lambda of: torch.optim.Adam(of, lr=lr), self.config.steps)
        for entry in self.entries:
            assert entry.rule.mask is not None
            entry.rule.mask.copy_(kept[entry.path])
        self.found = True

    def masks(self) -> list[Tensor]:
        """The mask of every pruned layer, true where a weight is kept; to be changed in place."""
        return [entry.rule.mask for entry in self.entries if entry.rule.mask is not None]

    def plan(self, rates: Sequence[float], optimizer: Optimizer) -> None:
        pass

    def before_step(self, optimizer: Optimizer) -> None:
        if not self.found:
            raise ValueError("find(losses) comes before the first step")

    def after_step(self, optimizer: Optimizer, stepped: bool = True) -> None:
        self.step += 1
        self.lr_sum += float(optimizer.param_groups[0]["lr"]) if stepped else 0.0

    def report(self, macs: dict[str, int] | None = None) -> PruneReport:
        pruned, regrown = self.changes.count()
        return PruneReport(
            sparsity=sparsity_report(self.model, macs, self.paths), threshold=0.0, mu=0.0, l1=0.0, l1_missing=None,
            lr_sum=self.lr_sum, step=self.step, pruned=pruned, regrown=regrown,
        )  # fmt: skip

    @property
    def finished(self) -> bool:
        return self.found

    def bake(self) -> None:
        bake(self.model)

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step, "lr_sum": self.lr_sum, "found": self.found, "zero": self.changes.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.lr_sum, self.found = state["step"], state["lr_sum"], state["found"]
        self.changes.load_state_dict(state["zero"])
