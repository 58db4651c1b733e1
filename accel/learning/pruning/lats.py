"""Pruning while training by a soft threshold that grows with the learning rate (LATS), linearly in the steps, or as a
sine of them (STDS).

The target is one of three: the final threshold D, the L1 coefficient lambda (SGD only), or the share of zeros.

The share of zeros is reached by aiming. Before a step the threshold Q is known at which the latent weights, as they
are now, would have the wanted share of zeros; c is chosen so that the learning rates that are left grow the threshold
from d to exactly Q:  c = (Q - d) / sum of the h eta that are left.  Where the latents do not move, c is a constant and
so is lambda; as they move, c follows, and what it was is logged. The last planned step lands on Q, and from then on the
threshold is lifted whenever weights come back, so that the share of zeros holds.

For optimisers of the Adam family a growth per learning rate is no L1 coefficient: their step in a coordinate hardly
depends on the size of the gradient. lambda is None there, with the reason, and the threshold itself is reported.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from spikeloom.accel.learning.pruning.layers import LayerSelection, prunable
from spikeloom.accel.learning.pruning.pruner import Changes, PruneReport, check_target
from spikeloom.accel.learning.pruning.schedules import IntegratedLR, check_base, l1_coefficient, mu_of_l1, sine
from spikeloom.accel.learning.pruning.soft_threshold import bake, install
from spikeloom.accel.learning.pruning.sparsity import sparsity_report

HELD_AFTER = 0.75  # of all steps
DECAYS = ("effective", "latent", "off")
AIMS = 500  # how often a horizon is aimed anew, at least
NO_L1 = "{}: a step hardly depends on the size of the gradient, so a growing threshold is no L1 coefficient"


@dataclass
class SoftThresholdConfig(LayerSelection):
    """What both soft-threshold rules share. Exactly one target: sparsity (share of zeros among the weights of pruned
    layers) or threshold (D, in units of the weights).

    decay: on what the optimiser's weight decay acts: effective (W), latent (theta: a growing L1 term) or off.
    start_step: first step that prunes; until: share of all steps after which the threshold is only held; null: 0.75
    where LATS aims at a sparsity (what the last steps with their small rates remove is not learned again), else 1.
    freeze_step: after so many steps a weight that is 0 stays 0. scope: one threshold for all (global), or in units of
    each layer's own root mean square at the start (layer).
    """

    kind: str = "lats"
    sparsity: float | None = None  # target: fraction of zeros among the weights of pruned layers
    threshold: float | None = None  # target: the final threshold, in units of the weights
    decay: str = "effective"
    start_step: int = 0
    until: float | None = None  # share of all steps after which the threshold is held; null: see above
    freeze_step: int | None = None
    scope: str = "global"

    def check(self) -> None:
        """Raise ValueError for settings that cannot be meant."""
        check_target(**self.targets())
        if self.decay not in DECAYS:
            raise ValueError(f"pruning.decay={self.decay} is unknown; use one of {', '.join(DECAYS)}")
        if self.scope not in ("global", "layer"):
            raise ValueError(f"pruning.scope={self.scope} is unknown; use global or layer")
        if self.until is not None and not 0 < self.until <= 1:
            raise ValueError(f"pruning.until={self.until} must be in (0, 1]")
        if self.freeze_step is not None and self.freeze_step < 1:
            raise ValueError(f"pruning.freeze_step={self.freeze_step} is no step; use a whole number >= 1, or null")

    def targets(self) -> dict[str, float | None]:
        return {"sparsity": self.sparsity, "threshold": self.threshold}

    def held_after(self) -> float:
        """The share of all steps after which the threshold is held."""
        return 1.0 if self.until is None else self.until


@dataclass
class LATSConfig(SoftThresholdConfig):
    """Threshold proportional to the learning rates so far. l1: the target given as lambda, for SGD. homotopy: b of
    h(x) = b^x; below 1 most of the growth comes early."""

    l1: float | None = None
    homotopy: float = 1.0

    def check(self) -> None:
        super().check()
        check_base(self.homotopy)

    def targets(self) -> dict[str, float | None]:
        return {**super().targets(), "l1": self.l1}

    def held_after(self) -> float:
        return HELD_AFTER if self.until is None and self.sparsity is not None else super().held_after()

    def build(self, model: nn.Module) -> "SoftThresholdPruner":
        return SoftThresholdPruner(model, self, l1=self.l1, base=self.homotopy)


@dataclass
class LinearThresholdConfig(SoftThresholdConfig):
    """Threshold proportional to the number of steps so far, whatever the learning rate."""

    kind: str = "linear"

    def build(self, model: nn.Module) -> "SoftThresholdPruner":
        return SoftThresholdPruner(model, self)


@dataclass
class SineThresholdConfig(SoftThresholdConfig):
    """STDS: the threshold D (1 - cos(pi n/N))/2 after n of N steps, whatever the learning rate."""

    kind: str = "sine"

    def build(self, model: nn.Module) -> "SoftThresholdPruner":
        return SoftThresholdPruner(model, self)


class SoftThresholdPruner:
    """Sees the chosen layers of `model` through one growing soft threshold."""

    def __init__(
        self, model: nn.Module, config: SoftThresholdConfig, *, l1: float | None = None, base: float = 1.0
    ) -> None:
        config.check()
        self.model, self.config, self.l1_target, self.base = model, config, l1, base
        self.method, self.target = config.kind, config.sparsity
        layers = prunable(model, config)
        scales = None
        if config.scope == "layer":
            scales = {path: _root_mean_square(layer) for path, layer in layers}
        self.entries = install(layers, scales=scales, maskable=config.freeze_step is not None)
        self.paths = frozenset(path for path, _ in layers)
        self.changes = Changes(layer for _, layer in layers)
        self.n_weights = sum(entry.theta.numel() for entry in self.entries)
        self.schedule: IntegratedLR | None = None
        self.lr_sum = 0.0
        self.mu = 0.0  # this and the next two are of the last step
        self.l1: float | None = None
        self.l1_missing: str | None = None
        self._taken_back: list[tuple[nn.Parameter, Tensor]] = []  # decoupled decay, to undo after the step

    # --- the threshold ------------------------------------------------------------------------------------------

    def plan(self, rates: Sequence[float], optimizer: Optimizer) -> None:
        horizon = max(1, round(self.config.held_after() * len(rates)))
        group, mu, threshold = self._group(optimizer), None, self.config.threshold
        if self.l1_target is not None:
            if not isinstance(optimizer, torch.optim.SGD):
                raise ValueError(
                    f"pruning.l1={self.l1_target} has no meaning with {NO_L1.format(type(optimizer).__name__)}; give "
                    "pruning.sparsity or pruning.threshold, or train with optimizer=sgd"
                )
            mu = mu_of_l1(self.l1_target, momentum=group["momentum"], dampening=group["dampening"])
        elif threshold is None:
            threshold = self._threshold_for(self.config.sparsity or 0.0)  # `after_step` aims again before it is used
        self.schedule = IntegratedLR(
            [self._clock(rate, n, horizon) for n, rate in enumerate(rates[:horizon])],
            final_threshold=threshold, mu=mu, base=self.base, start_step=self.config.start_step,
        )  # fmt: skip

    def after_step(self, optimizer: Optimizer, stepped: bool = True) -> None:
        schedule, group = self._planned(), self._group(optimizer)
        for theta, decay in self._taken_back:
            if stepped:
                theta.data.add_(decay)
        self._taken_back = []
        before, rate = schedule.state, float(group["lr"])
        last = before.step >= schedule.horizon - 1  # the last planned step, and any later one
        needed = self._needed(before.step)
        if needed is not None:
            schedule.aim(needed)
        clock = self._clock(rate, before.step, schedule.horizon)
        schedule.step(clock, stepped)
        # Not (d' - d) / rate, whose rounding would show in a coefficient that is constant.
        self.mu = schedule.state.mu * (clock / rate) if rate else 0.0
        if needed is not None and last:
            schedule.raise_to(needed)
            self.mu = (schedule.threshold - before.threshold) / rate if rate else 0.0
        for entry in self.entries:
            entry.rule.threshold.fill_(schedule.threshold * entry.rule.scale)
        if before.step + 1 == self.config.freeze_step:
            for entry in self.entries:
                entry.rule.freeze(entry.theta)
        self.lr_sum += rate if stepped else 0.0
        self._account(optimizer, group)

    def _clock(self, rate: float, step: int, horizon: int) -> float:
        """What the threshold grows in proportion to: the learning rate, the steps (linear) or a sine of them."""
        if self.config.kind == "sine":
            first = self.config.start_step
            x = (step - first) / (horizon - first)
            return sine(x + 1 / (horizon - first)) - sine(x) if 0 <= x < 1 else 0.0
        return rate if self.config.kind == "lats" else 1.0

    def _needed(self, step: int) -> float | None:
        """The threshold to aim at in `step`; None in a step that keeps its course."""
        schedule, wanted = self._planned(), self.config.sparsity
        every = max(1, schedule.horizon // AIMS)
        if wanted is None or step < schedule.start_step or (step % every and step < schedule.horizon - every):
            return None
        return self._threshold_for(wanted)

    def _threshold_for(self, sparsity: float) -> float:
        """The smallest threshold d at which the share of zeros would be at least `sparsity`."""
        zeros = math.ceil(sparsity * self.n_weights - 1e-9)
        if zeros == 0:
            return 0.0
        parts = []
        for entry in self.entries:
            theta = entry.theta.detach() if entry.rule.mask is None else entry.theta.detach() * entry.rule.mask
            parts.append(theta.abs().flatten() / entry.rule.scale)
        found = float(torch.cat(parts).kthvalue(zeros).values)
        return found if self.config.scope == "global" else found * (1 + 1e-6)  # d * scale is rounded

    # --- weight decay -------------------------------------------------------------------------------------------

    def before_step(self, optimizer: Optimizer) -> None:
        """Turn the decay of theta, which the optimiser is about to apply, into the one that is configured."""
        self._taken_back = []
        group = self._group(optimizer)
        strength = float(group.get("weight_decay", 0.0))
        if self.config.decay == "latent" or not strength:
            return
        for entry in self.entries:
            theta = entry.theta
            if theta.grad is None:
                continue
            wrong = theta.detach() - entry.weight if self.config.decay == "effective" else theta.detach().clone()
            if group.get("decoupled_weight_decay", False):
                self._taken_back.append((theta, wrong.mul_(strength * float(group["lr"]))))
            else:
                theta.grad.sub_(wrong, alpha=strength)

    def _group(self, optimizer: Optimizer) -> dict[str, Any]:
        """The options all thresholded weights are optimised with. Raises ValueError where they are not the same."""
        options = {id(p): group for group in optimizer.param_groups for p in group["params"]}
        for entry in self.entries:
            if id(entry.theta) not in options:
                raise ValueError(f"{entry.path}.weight is pruned but not optimised; add it to pruning.exclude")
        first = options[id(self.entries[0].theta)]
        for entry in self.entries:
            group = options[id(entry.theta)]
            for name in ("lr", "weight_decay", "momentum", "dampening"):
                if group.get(name) != first.get(name):
                    raise ValueError(
                        f"{self.entries[0].path} and {entry.path} are optimised with {name} {first.get(name)} and "
                        f"{group.get(name)}, but one threshold follows one rule; spare one of them with pruning.exclude"
                    )
        return first

    # --- what is told -------------------------------------------------------------------------------------------

    def _account(self, optimizer: Optimizer, group: dict[str, Any]) -> None:
        """lambda(t) of this step, or why there is none."""
        if isinstance(optimizer, torch.optim.SGD):
            decay = float(group["weight_decay"]) if self.config.decay == "latent" else 0.0
            self.l1 = l1_coefficient(
                self.mu, momentum=float(group["momentum"]), dampening=float(group["dampening"]), weight_decay=decay,
                threshold=self._planned().threshold,
            )  # fmt: skip
        else:
            self.l1_missing = NO_L1.format(type(optimizer).__name__)

    def report(self, macs: dict[str, int] | None = None) -> PruneReport:
        state = self._planned().state
        pruned, regrown = self.changes.count()
        return PruneReport(
            sparsity=sparsity_report(self.model, macs, self.paths), threshold=state.threshold, mu=self.mu, l1=self.l1,
            l1_missing=self.l1_missing, lr_sum=self.lr_sum, step=state.step, pruned=pruned, regrown=regrown,
        )  # fmt: skip

    @property
    def finished(self) -> bool:
        return self._planned().finished

    def bake(self) -> None:
        bake(self.model)

    def state_dict(self) -> dict[str, Any]:
        """What the model's own state dict (latent weights, thresholds, masks) does not hold."""
        names = ("lr_sum", "mu", "l1", "l1_missing")
        return {
            "schedule": self._planned().state_dict(), "zero": self.changes.state_dict(),
            **{name: getattr(self, name) for name in names},
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """After `plan` and after the model's own state."""
        self._planned().load_state_dict(state["schedule"])
        self.changes.load_state_dict(state["zero"])
        self.lr_sum, self.mu, self.l1, self.l1_missing = (state[name] for name in ("lr_sum", "mu", "l1", "l1_missing"))

    def _planned(self) -> IntegratedLR:
        if self.schedule is None:
            raise ValueError("plan(rates, optimizer) comes before the first step")
        return self.schedule


def _root_mean_square(layer: Any) -> float:
    return float(layer.weight.detach().square().mean().sqrt()) or 1.0
