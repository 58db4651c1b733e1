"""Batch norm of rows [N, C] by their own statistics, which are exact however many rows there are.

    y = (x - mean) weight / sd + bias,   sd = sqrt(var + eps)
    dL/dx = (g - mean of g - u mean of (g u)) weight / sd,   u = (x - mean) / sd,   g = dL/dy

PyTorch (2.13) adds these means up one row after another in single precision: over a hundred thousand sparse rows a
normalised value was off by 1.6e-3, and neurons near their threshold fired otherwise. Here a thousand rows at most are
added up so; such pieces are joined in double precision (Chan, Golub, LeVeque 1983).

With `joint`, N counts the rows of all processes that train together (torch.distributed): their statistics and the two
means of the gradient are joined likewise, in float64, so that two processes normalise as one with all their rows does.
"""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from spikeloom.accel.spiking.kernels import loader

_SOURCE = Path(__file__).parent / "kernels" / "norm.cpp"
_PIECE = 1024  # rows that are added up one by one


class RowBatchNorm(nn.BatchNorm1d):
    """`nn.BatchNorm1d` of rows [N, C], with exact statistics in training.

    joint: whether those are of the rows of all processes (`spikeloom.accel.spiking.synced`).
    """

    joint = False

    def forward(self, rows: Tensor) -> Tensor:
        joint = self.joint and processes() > 1
        if not self.training or self.running_var is None or not (joint or is_added_one_by_one(rows)):
            return super().forward(rows)
        y, mean, var, n = batch_norm_of_rows(rows, self.weight, self.bias, self.eps, joint=joint)
        count_batch(self, mean, var, n)
        return y


def processes() -> int:
    """How many processes train together; 1 for one alone."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def is_added_one_by_one(x: Tensor) -> bool:
    """Whether PyTorch would add rows like these up in single precision, one after another."""
    return x.device.type == "cpu" and x.dtype != torch.float64 and not torch.compiler.is_compiling()


def batch_norm_of_rows(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, *, joint: bool = False
) -> tuple[Tensor, Tensor, Tensor, int]:
    """Rows normalised by their own statistics.

    Args:
        x: rows [N, C] of at most single precision, or of any where they are joint.
        weight, bias: [C].
        eps: added to the variance.
        joint: whether the rows of the other processes count, too.

    Returns:
        The rows [N, C]; mean and variance (over N), float64 [C]; N, of all processes where they are joint.

    Raises:
        ValueError: for one row.
    """
    x = x.contiguous()
    mean, var = _statistics(x.detach())
    n = len(x)
    if joint:
        mean, var, n = _joined(mean, var, n)
    if n < 2:
        raise ValueError(f"batch norm in training needs more than 1 value per channel, got shape {tuple(x.shape)}")
    of = mean.dtype if x.dtype == torch.float64 else torch.float32
    y: Tensor = _BatchNorm.apply(x, weight, bias, mean.to(of), (var + eps).rsqrt().to(of), n, joint)
    return y, mean, var, n


def _joined(mean: Tensor, var: Tensor, n: int) -> tuple[Tensor, Tensor, int]:
    """Mean and variance [C] of the rows of all processes, and how many they are, from those of each."""
    own = torch.cat([mean, var, mean.new_tensor([n])])
    parts = [torch.empty_like(own) for _ in range(processes())]
    distributed.all_gather(parts, own)
    stacked = torch.stack(parts)
    means, variances, counts = stacked[:, : len(mean)], stacked[:, len(mean) : -1], stacked[:, -1:]
    share = counts / counts.sum()
    mean = (share * means).sum(0)
    return mean, (share * (variances + (means - mean).square())).sum(0), int(counts.sum())


@torch.no_grad()
def count_batch(norm: nn.modules.batchnorm._BatchNorm, mean: Tensor, var: Tensor, n: int) -> None:
    """Move the running statistics as PyTorch does, by the mean and variance (over n) of a batch of n values."""
    assert norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    momentum = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
    norm.running_mean.lerp_(mean.to(norm.running_mean), momentum)
    norm.running_var.lerp_((var * (n / (n - 1))).to(norm.running_var), momentum)


class _BatchNorm(torch.autograd.Function):
    """Normalisation by given statistics of the same input: x [N, C], mean and 1 / sd [C]."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, inverse: Tensor, n: int, joint: bool
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, inverse)
        ctx.n, ctx.joint = n, joint
        scale, shift = weight.to(mean) * inverse, bias.to(mean)
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
        scale = weight.to(mean) * inverse
        own = torch.stack(_gradient_sums(x, g, mean))
        sums, products = own.to(mean)  # of this process: the gradients of weight and bias are averaged like all others
        if ctx.joint:
            own = own.clone()
            distributed.all_reduce(own)
        of_mean, of_sd = (-scale * v for v in (own[0].to(mean) / ctx.n, inverse.square() * own[1].to(mean) / ctx.n))
        if _compiled(x):
            gx = torch.empty_like(x)
            _call("norm_backward", x, x, g, mean, scale, of_sd, of_mean, gx)
        else:
            gx = (g * scale + ((x - mean) * of_sd + of_mean)).to(x.dtype)
        return gx, (products * inverse).to(weight.dtype), sums.to(weight.dtype), *[None] * 4


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (over N) of each channel, float64 [C]."""
    if _compiled(x):
        mean, var = (x.new_empty(x.shape[1], dtype=torch.float64) for _ in range(2))
        _call("norm_statistics", x, x, mean, var)
        return mean, var
    if x.dtype == torch.float64:
        return x.mean(0), x.var(0, unbiased=False)
    pieces = [piece.float() for piece in x.split(_PIECE)]
    share = x.new_tensor([len(piece) for piece in pieces], dtype=torch.float64)[:, None] / len(x)
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
    sums = torch.stack([upstream.to(mean).sum(0) for _, upstream in pieces])
    products = torch.stack([((rows - mean) * upstream).sum(0) for rows, upstream in pieces])
    return sums.double().sum(0), products.double().sum(0)


def _compiled(x: Tensor) -> bool:
    return (
        x.device.type == "cpu" and x.dtype != torch.float64 and x.dtype in loader.TYPES
        and loader.backend() == "compiled"
    )  # fmt: skip


def _call(name: str, rows: Tensor, *tensors: Tensor) -> None:
    """A function of the kernel for the type of `rows`, called with contiguous tensors."""
    assert all(tensor.is_contiguous() for tensor in tensors)
    io = loader.TYPES[rows.dtype][0]
    kernel = loader.build(_SOURCE, f"norm-{io}", f"-DSPIKELOOM_IO={io}")
    loader.call(getattr(kernel, name), *rows.shape, *tensors)
