"""Batch norm of rows [N, C] by their own statistics, which are exact however many rows there are.

    y = (x - mean) weight / sd + bias,   sd = sqrt(var + eps)
    dL/dx = (g - mean of g - u mean of (g u)) weight / sd,   u = (x - mean) / sd,   g = dL/dy

PyTorch (2.13) adds these means up one row after another in single precision: over a hundred thousand sparse rows a
normalised value was off by 1.6e-3, and neurons near their threshold fired otherwise. Here a thousand rows at most are
added up so; such pieces are joined in double precision (Chan, Golub, LeVeque 1983).
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from accel.spiking.kernels import loader

_SOURCE = Path(__file__).parent / "kernels" / "norm.cpp"
_PIECE = 1024  # rows that are added up one by one


class RowBatchNorm(nn.BatchNorm1d):
    """`nn.BatchNorm1d` of rows [N, C], with exact statistics in training."""

    def forward(self, rows: Tensor) -> Tensor:
        if not self.training or self.running_var is None or not is_added_one_by_one(rows):
            return super().forward(rows)
        y, mean, var = batch_norm_of_rows(rows, self.weight, self.bias, self.eps)
        count_batch(self, mean, var, len(rows))
        return y


def is_added_one_by_one(x: Tensor) -> bool:
    """Whether PyTorch would add rows like these up in single precision, one after another."""
    return x.device.type == "cpu" and x.dtype != torch.float64 and not torch.compiler.is_compiling()


def batch_norm_of_rows(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Rows x [N, C] of at most single precision normalised, with their mean and variance (over N), float64 [C].

    Raises ValueError for one row.
    """
    if len(x) < 2:
        raise ValueError(f"batch norm in training needs more than 1 value per channel, got shape {tuple(x.shape)}")
    x = x.contiguous()
    mean, var = _statistics(x.detach())
    y: Tensor = _BatchNorm.apply(x, weight, bias, mean.float(), (var + eps).rsqrt().float())
    return y, mean, var


@torch.no_grad()
def count_batch(norm: nn.modules.batchnorm._BatchNorm, mean: Tensor, var: Tensor, n: int) -> None:
    """Move the running statistics as PyTorch does, by the mean and variance (over n) of a batch of n values."""
    assert norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    momentum = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
    norm.running_mean.lerp_(mean.to(norm.running_mean), momentum)
    norm.running_var.lerp_((var * (n / (n - 1))).to(norm.running_var), momentum)


class _BatchNorm(torch.autograd.Function):
    """By given statistics of its own input: x [N, C], mean and 1 / sd [C]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight, mean, inverse)
        scale, shift = weight.float() * inverse, bias.float()
        if _compiled(x):
            y = torch.empty_like(x)
            _call("norm_forward", x, x, mean, scale, shift, y)
            return y
        return ((x - mean) * scale + shift).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse = ctx.saved_tensors
        g = g.contiguous()
        scale = weight.float() * inverse
        sums, products = (v.float() for v in _gradient_sums(x, g, mean))
        of_mean, of_sd = -scale * sums / len(x), -scale * inverse.square() * products / len(x)
        if _compiled(x):
            gx = torch.empty_like(x)
            _call("norm_backward", x, x, g, mean, scale, of_sd, of_mean, gx)
        else:
            gx = (g * scale + ((x - mean) * of_sd + of_mean)).to(x.dtype)
        return gx, (products * inverse).to(weight.dtype), sums.to(weight.dtype), None, None


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (over N) of each channel, float64 [C]."""
    if _compiled(x):
        mean, var = (x.new_empty(x.shape[1], dtype=torch.float64) for _ in range(2))
        _call("norm_statistics", x, x, mean, var)
        return mean, var
    pieces = [piece.float() for piece in x.split(_PIECE)]
    share = torch.tensor([len(piece) for piece in pieces], dtype=torch.float64)[:, None] / len(x)
    means = torch.stack([piece.mean(0) for piece in pieces]).double()
    variances = torch.stack([piece.var(0, unbiased=False) for piece in pieces]).double()
    mean = (share * means).sum(0)
    return mean, (share * (variances + (means - mean).square())).sum(0)


def _gradient_sums(x: Tensor, g: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over the rows of g and of g (x - mean), float64 [C]."""
    if _compiled(x):
        sums, products = (x.new_empty(x.shape[1], dtype=torch.float64) for _ in range(2))
        _call("norm_gradient_sums", x, x, g, mean, sums, products)
        return sums, products
    pieces = list(zip(x.split(_PIECE), g.split(_PIECE), strict=True))
    sums = torch.stack([upstream.float().sum(0) for _, upstream in pieces])
    products = torch.stack([((rows - mean) * upstream).sum(0) for rows, upstream in pieces])
    return sums.double().sum(0), products.double().sum(0)


def _compiled(x: Tensor) -> bool:
    return x.dtype != torch.float64 and x.dtype in loader.TYPES and loader.backend() == "compiled"


def _call(name: str, rows: Tensor, *tensors: Tensor) -> None:
    """A function of the kernel for the type of `rows`, given tensors that lie in one block each."""
    assert all(tensor.is_contiguous() for tensor in tensors)
    io = loader.TYPES[rows.dtype][0]
    kernel = loader.build(_SOURCE, f"norm-{io}", f"-DSPIKELOOM_IO={io}")
    loader.call(getattr(kernel, name), *rows.shape, *tensors)
