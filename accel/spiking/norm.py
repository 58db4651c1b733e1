"""Batch normalisation over the valid entries of a padded sequence, alone and behind a linear map.

`mask` [T, B] is true where a step belongs to the utterance, or None when every step does. In training, statistics and
products are taken over the valid rows only, packed together; in evaluation the statistics are fixed, so the padding is
zeroed afterwards. Either way padded steps come out exactly 0, whatever their input was.
"""

import torch
from torch import Tensor, nn

from spikeloom.accel.spiking.batch_norm import RowBatchNorm
from spikeloom.accel.spiking.events import SpikeLinear


def mask_steps(x: Tensor, mask: Tensor | None) -> Tensor:
    """x [T, B, ...] with padded steps set to 0, even where they held NaN."""
    if mask is None:
        return x
    return torch.where(mask.reshape(*mask.shape, *[1] * (x.dim() - 2)), x, x.new_zeros(()))


class SequenceBatchNorm(RowBatchNorm):
    """BatchNorm of [T, B, C] over time and batch; unbiased running variance, eps 1e-5, momentum 0.1."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return _over_valid_rows(super().forward, x, mask, self.training)


class LinearNorm(nn.Module):
    """BN(Linear(x)): [T, B, C_in] -> [T, B, C_out]."""

    def __init__(self, n_in: int, n_out: int, *, bias: bool) -> None:
        super().__init__()
        self.linear = SpikeLinear(n_in, n_out, bias=bias)
        self.norm = RowBatchNorm(n_out)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return _over_valid_rows(lambda rows: self.norm(self.linear(rows)), x, mask, self.training)


def _over_valid_rows(f, x: Tensor, mask: Tensor | None, training: bool) -> Tensor:  # type: ignore[no-untyped-def]
    """f, a map of rows [n, C_in] -> [n, C_out], applied to the valid rows of x [T, B, C_in]; 0 elsewhere."""
    steps, batch = x.shape[:2]
    rows = x.flatten(0, 1)
    if mask is None:
        return f(rows).unflatten(0, (steps, batch))
    if not training:
        return mask_steps(f(rows).unflatten(0, (steps, batch)), mask)
    valid = mask.flatten().nonzero().squeeze(1)
    if torch.compiler.is_compiling():  # a batch norm asks for two rows, and their number is known with the data only
        torch._check(valid.shape[0] > 1)
    packed = f(rows.index_select(0, valid))
    return packed.new_zeros(steps * batch, packed.shape[1]).index_copy_(0, valid, packed).unflatten(0, (steps, batch))
