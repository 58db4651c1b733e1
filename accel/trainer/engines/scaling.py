"""Loss scaling: the power of two that keeps FP16 gradients above the smallest number and below the largest.

overflow (a gradient that is not finite)   the step is left out, the scale halves
`patience` steps without one               the scale doubles
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

SMALLEST, LARGEST = 2.0**-24, 2.0**24


def finite(gradients: Mapping[str, Tensor]) -> bool:
    """Whether every gradient holds numbers only."""
    return all(bool(torch.isfinite(g).all()) for g in gradients.values())


@dataclass
class LossScale:
    """The scale in use, and what was seen: `overflows` lists the scales at which a gradient overflowed."""

    value: float = 1024.0
    patience: int = 200
    clean: int = 0
    overflows: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.value > 0 or 2 ** round(torch.tensor(self.value).log2().item()) != self.value:
            raise ValueError(f"loss_scale got {self.value}; use a power of two, for example 1024")

    def update(self, gradients: Mapping[str, Tensor]) -> bool:
        """Take note of a step's gradients; False where they overflowed and nothing may be updated."""
        if not finite(gradients):
            self.overflows.append(self.value)
            self.value, self.clean = max(SMALLEST, self.value / 2), 0
            return False
        self.clean += 1
        if self.clean >= self.patience:
            self.value, self.clean = min(LARGEST, 2 * self.value), 0
        return True
