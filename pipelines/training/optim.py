"""What trains the weights of every model: the optimiser, and how its learning rate rises and falls."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass
class OptimizerConfig:
    """kind: adamw, or sgd with `momentum`; linear warm-up per iteration, then a cosine to eta_min over the rest (or
    with its own period).

    per_epoch: the rate changes once an epoch, not at every step. warmup_from: rate the warm-up starts from.
    cooldown_epochs: the last ones, at eta_min. decay_vectors: whether biases and norms decay as weights do.
    """

    kind: str = "adamw"
    momentum: float = 0.9  # of sgd
    lr: float = 2e-3  # learning rate after the warm-up
    weight_decay: float = 5e-3  # decoupled with adamw, added to the gradient with sgd
    warmup_epochs: float = 1.0  # linear rise of the learning rate, per iteration; fractions allowed
    eta_min: float = 0.0  # learning rate at the end of the cosine
    cosine_period_epochs: float | None = None  # null: one fall over all epochs
    label_smoothing: float = 0.0  # fraction of each label spread over all classes; in [0, 1)
    warmup_from: float = 0.0
    cooldown_epochs: int = 0
    decay_vectors: bool = True
    nesterov: bool = False  # Nesterov's momentum, of sgd
    per_epoch: bool = False  # change the rate once an epoch

    def check(self) -> None:
        """Raise ValueError for rates and fractions that no optimiser has."""
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"optimizer.label_smoothing={self.label_smoothing} must be in [0, 1); use 0 for none")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"optimizer.lr={self.lr} must be > 0 and finite")
        for name in ("momentum", "weight_decay", "warmup_epochs", "eta_min", "warmup_from", "cooldown_epochs"):
            if not 0 <= (value := getattr(self, name)) < math.inf:
                raise ValueError(f"optimizer.{name}={value} must be >= 0 and finite")

        if self.nesterov and (self.kind != "sgd" or not self.momentum):
            raise ValueError(f"optimizer.nesterov=true needs kind=sgd with momentum, got {self.kind}, {self.momentum}")

    def build(self, parameters: Iterable[nn.Parameter], fused: bool = True) -> torch.optim.Optimizer:
        groups: Any = parameters
        if not self.decay_vectors:
            every = list(parameters)
            vectors = {"params": [p for p in every if p.dim() <= 1], "weight_decay": 0.0}
            groups = [{"params": [p for p in every if p.dim() > 1]}, vectors]
        if self.kind == "adamw":
            return torch.optim.AdamW(groups, lr=self.lr, weight_decay=self.weight_decay, fused=fused)
        if self.kind == "sgd":
            return torch.optim.SGD(
                groups, lr=self.lr, momentum=self.momentum, weight_decay=self.weight_decay, nesterov=self.nesterov
            )
        raise ValueError(f"optimizer.kind={self.kind} is unknown; use adamw or sgd")


def learning_rate_factor(iteration: int, per_epoch: int, epochs: int, config: OptimizerConfig) -> float:
    """Share of the base rate at an optimiser step: k/warm-up up to 1, then eta_min + (1 - eta_min)(1 + cos)/2."""
    if config.per_epoch:
        iteration, per_epoch = iteration // per_epoch, 1
    warmup = round(config.warmup_epochs * per_epoch)
    if iteration < warmup:
        start = config.warmup_from / config.lr
        return start + (1 - start) * (iteration + 1) / warmup
    period = config.cosine_period_epochs
    cooldown = config.cooldown_epochs * per_epoch
    span = period * per_epoch if period is not None else epochs * per_epoch - warmup - cooldown
    low = config.eta_min / config.lr
    if cooldown and iteration >= epochs * per_epoch - cooldown:
        return low
    return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * (iteration - warmup) / max(1, span)))
