"""Dropout whose random numbers cost a quarter: four 16-bit draws from each 64-bit word of torch's generator.

On a CPU the generator, not the multiplication, is what dropout pays for: with `nn.Dropout` it took a quarter of a
training step of a small SpikeSCR. The probability is a multiple of 1/65536.
"""

import torch
from torch import Tensor, nn


class Dropout(nn.Module):
    """x / (1-p) where an independent draw keeps it, else 0; the identity in evaluation. Seeded by torch's generator."""

    def __init__(self, p: float = 0.1) -> None:
        super().__init__()
        if not 0.0 <= p < 1.0:
            raise ValueError(f"dropout must lie in [0, 1), got {p}; use 0.1")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        cut = round(self.p * 65536)
        if not self.training or cut == 0:
            return x
        words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64, device=x.device).random_(-(2**63), None)
        kept = words.view(torch.int16)[: x.numel()] >= cut - 32768
        return x * kept.to(x.dtype).mul_(65536 / (65536 - cut)).view(x.shape)

    def extra_repr(self) -> str:
        return f"p={self.p}"
