"""What every pruning rule offers to a training loop, and what it tells.

A pruner is told of every optimiser step, before and after; it knows no training loop, and no loop knows its rule.
The rules are in `lats` (soft thresholds), `magnitude` (gradual masks) and `at_init` (a mask found before training).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from spikeloom.accel.learning.pruning.sparsity import SparsityReport, sparsity_report, weight_of


@dataclass(frozen=True, kw_only=True)
class PruneReport:
    """One look at a model in pruning. l1 is lambda(t) of the last step, or None for the reason in `l1_missing`;
    pruned and regrown count the weights that became 0 or came back since the look before."""

    sparsity: SparsityReport
    threshold: float | None
    mu: float | None
    l1: float | None
    l1_missing: str | None
    lr_sum: float
    step: int
    pruned: int
    regrown: int


class Pruner(Protocol):
    """What a training loop needs of any pruning rule. `method` is the name its results go by."""

    method: str
    target: float | None  # share of zeros in the pruned layers that has to be met; None: whatever comes out

    def plan(self, rates: Sequence[float], optimizer: Optimizer) -> None:
        """Learn, before the first step, the learning rate that every step is planned to have."""

    def before_step(self, optimizer: Optimizer) -> None:
        """Between the backward pass and the optimiser step."""

    def after_step(self, optimizer: Optimizer, stepped: bool = True) -> None:
        """After the optimiser step, whether it moved (`stepped`) or was skipped."""

    def report(self, macs: dict[str, int] | None = None) -> PruneReport: ...

    @property
    def finished(self) -> bool:
        """Whether the final sparsity is reached and only held from here on."""

    def bake(self) -> None:
        """Leave plain layers with zeros in them; the pruner is of no use afterwards."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass
class NoPruningConfig:
    """Every weight stays."""

    kind: str = "none"

    def check(self) -> None:
        pass

    def build(self, model: nn.Module) -> None:
        return None


class Changes:
    """Counts, from one look at some layers to the next, the weights that became 0 and those that came back."""

    def __init__(self, layers: Iterable[nn.Module]) -> None:
        self.layers = list(layers)
        self.zero = self._zero()

    def _zero(self) -> list[Tensor]:
        return [weight_of(layer) == 0 for layer in self.layers]

    def count(self) -> tuple[int, int]:
        """(pruned, regrown) since the last look."""
        before, self.zero = self.zero, self._zero()
        pairs = list(zip(before, self.zero, strict=True))
        return sum(int((~a & b).sum()) for a, b in pairs), sum(int((a & ~b).sum()) for a, b in pairs)

    def state_dict(self) -> list[Tensor]:
        return [zero.cpu() for zero in self.zero]

    def load_state_dict(self, state: list[Tensor]) -> None:
        self.zero = [zero.to(mine.device) for zero, mine in zip(state, self.zero, strict=True)]


def check_target(**targets: float | None) -> None:
    """Raise ValueError unless exactly one target is given, and is a share below 1 (sparsity) or not negative."""
    given = {name: value for name, value in targets.items() if value is not None}
    names = " or ".join(f"pruning.{name}" for name in targets)
    if len(given) != 1:
        said = ", ".join(f"{name}={value}" for name, value in given.items()) or "none"
        raise ValueError(
            f"pruning needs exactly one target, got {said}; give {names}, for example pruning.sparsity=0.9"
        )
    ((name, value),) = given.items()
    if not 0 <= value < (1 if name == "sparsity" else float("inf")):
        allowed = "[0, 1)" if name == "sparsity" else "[0, inf)"
        raise ValueError(f"pruning.{name}={value} is out of range; use a number in {allowed}")


class ReportsMasks:
    """What all rules of masks report, from what each of them keeps under these names."""

    model: nn.Module
    paths: Any
    changes: Changes
    lr_sum: float
    step: int

    def report(self, macs: dict[str, int] | None = None) -> PruneReport:
        pruned, regrown = self.changes.count()
        return PruneReport(
            sparsity=sparsity_report(self.model, macs, self.paths), threshold=None, mu=None, l1=None,
            l1_missing="masks have no L1 coefficient", lr_sum=self.lr_sum, step=self.step, pruned=pruned,
            regrown=regrown,
        )  # fmt: skip
