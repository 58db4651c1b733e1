"""The closing balance of an export: every trained parameter has an owner and a gradient, every operation a price."""

from collections.abc import Mapping
from dataclasses import dataclass, field


class UnsupportedOpError(ValueError):
    """The program holds operations without a rule; the message lists all of them with their layer paths."""


class BalanceError(ValueError):
    """Trained parameters that no layer owns or that the loss does not reach; the message names all of them."""


@dataclass(frozen=True, kw_only=True)
class Balance:
    """Counts of one export. `sizes` are the trained parameters by name, tied ones once; `notes` are remarks."""

    sizes: Mapping[str, int]
    owned: frozenset[str]
    reached: frozenset[str]
    operations: int
    unsupported: tuple[str, ...] = ()
    frozen: int = 0
    notes: tuple[str, ...] = field(default=())

    @property
    def not_owned(self) -> list[str]:
        """Trained parameters that no layer updates."""
        return [name for name in self.sizes if name not in self.owned]

    @property
    def not_reached(self) -> list[str]:
        """Trained parameters without a way from the model's output back to them."""
        return [name for name in self.sizes if name not in self.reached]

    @property
    def holds(self) -> bool:
        """Whether nothing is missing."""
        return not (self.not_owned or self.not_reached or self.unsupported)

    def __str__(self) -> str:
        total = sum(self.sizes.values())
        owned = sum(size for name, size in self.sizes.items() if name in self.owned)
        lines = [
            f"{owned:,} of {total:,} parameters owned",
            f"{self.operations - len(self.unsupported):,} of {self.operations:,} operations priced",
        ]
        missing = self.not_reached
        lines.append(
            "loss reaches all trained parameters" if not missing else f"loss does not reach {_listed(missing)}"
        )
        if self.not_owned:
            lines.append(f"without an owner: {_listed(self.not_owned)}")
        if self.unsupported:
            lines.append(f"without a price: {_listed(list(self.unsupported))}")
        if self.frozen:
            lines.append(f"{self.frozen:,} parameters frozen")
        return "; ".join([", ".join(lines[:3]), *lines[3:], *self.notes])

    def check(self) -> None:
        """Raise where something is missing.

        Raises:
            UnsupportedOpError: for operations without a rule.
            BalanceError: for parameters without an owner, or out of reach of the loss.
        """
        if self.unsupported:
            raise UnsupportedOpError(
                f"{_count(len(self.unsupported), 'operation has', 'operations have')} no rule: "
                f"{', '.join(self.unsupported)}; replace {'it' if len(self.unsupported) == 1 else 'them'}, or use "
                "strict=false to list them"
            )
        faults = [
            f"{_count(len(names), 'parameter', 'parameters')} {what}: {', '.join(names)}"
            for names, what in ((self.not_owned, "in no layer"), (self.not_reached, "out of reach of the loss"))
            if names
        ]
        if faults:
            raise BalanceError(
                f"{'; '.join(faults)}; remove or freeze (requires_grad=False) what is not trained, or use strict=false"
            )


def _count(n: int, one: str, many: str) -> str:
    return f"{n} {one if n == 1 else many}"


def _listed(names: list[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
