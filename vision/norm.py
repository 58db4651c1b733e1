"""Batch norm of [T*B, C, H, W], statistics over time and batch at once.

PyTorch adds up the statistics of maps laid out channels last one by one, in single precision: over a hundred thousand
sparse positions a normalised value was off by 1.6e-3 (torch 2.13), and neurons near their threshold fired otherwise.
Here such maps are counted in pieces of a thousand positions, which are joined in double precision (Chan, Golub, LeVeque
1983).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vision.memory import is_recomputing

_PIECE = 1024  # positions that are added up one by one


class TimeBatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d`; `repeats` says that the caller stands for that many equal time steps.

    Mean and variance are the same, but the running variance is the unbiased n/(n-1) form, and n counts every step.
    """

    def forward(self, x: Tensor, repeats: int = 1) -> Tensor:
        if not self.training or self.running_var is None:
            return super().forward(x)
        y, mean, var = batch_norm(x, self.weight, self.bias, self.eps)
        if not is_recomputing():
            self._count(mean, var, repeats * (x.numel() // x.shape[1]))
        return y

    @torch.no_grad()
    def _count(self, mean: Tensor, var: Tensor, n: int) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = self.momentum if self.momentum is not None else 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean.to(self.running_mean), momentum)
        self.running_var.lerp_((var * (n / (n - 1))).to(self.running_var), momentum)


def batch_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """y = (x - mean) / sqrt(var + eps) * weight + bias of [B, C, H, W], with the mean and the variance (over n) [C] of
    this batch."""
    if _is_added_one_by_one(x):
        mean, var = _statistics(x.detach())
        y: Tensor = _BatchNorm.apply(x, weight, bias, mean.to(x.dtype), var.to(x.dtype), eps)
        return y, mean, var
    mean, var = (torch.zeros_like(weight, requires_grad=False) for _ in range(2))
    y = F.batch_norm(x, mean, var, weight, bias, True, 1.0, eps)
    n = x.numel() // x.shape[1]
    return y, mean, var * ((n - 1) / n)


def _is_added_one_by_one(x: Tensor) -> bool:
    return (
        x.device.type == "cpu"
        and x.is_contiguous(memory_format=torch.channels_last)
        and not x.is_contiguous()
        and not torch.compiler.is_compiling()
    )


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (over n) of each channel, float64 [C]."""
    rows = _rows(x)
    pieces = [torch.batch_norm_update_stats(piece, None, None, 0.0) for piece in rows.split(_PIECE)]
    means = torch.stack([mean for mean, _ in pieces]).double()
    variances = torch.stack([var for _, var in pieces]).double()
    share = torch.tensor([len(piece) for piece in rows.split(_PIECE)], dtype=torch.float64)[:, None] / len(rows)
    mean = (share * means).sum(0)
    return mean, (share * (variances + (means - mean).square())).sum(0)


class _BatchNorm(torch.autograd.Function):
    """Batch norm by given statistics of its own input, channels last.

        dL/dx = (gy - mean of gy - u * mean of (gy * u)) * weight / sd,   u = (x - mean) / sd

    PyTorch's kernel adds these means up one by one, too.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x, weight, mean, (var + eps).rsqrt())
        y: Tensor = torch.native_batch_norm(x, weight, bias, mean, var, False, 0.0, eps)[0]
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, inverse = ctx.saved_tensors
        upstream, rows = _rows(gy.contiguous(memory_format=torch.channels_last)), _rows(x)
        gx = torch.empty_like(rows)
        pieces = [part.split(_PIECE) for part in (upstream, rows, gx)]
        g_bias = upstream.sum(0)
        g_weight = torch.stack([((u - mean) * g).sum(0) for g, u, _ in zip(*pieces, strict=True)]).sum(0) * inverse
        scale = weight * inverse
        of_mean, of_sd = -scale * g_bias / len(rows), -scale * inverse * g_weight / len(rows)
        for g, u, out in zip(*pieces, strict=True):
            torch.addcmul(of_mean, u - mean, of_sd, out=out).addcmul_(g, scale)
        return gx.view(x.shape[0], *x.shape[2:], x.shape[1]).permute(0, 3, 1, 2), g_weight, g_bias, None, None, None


def _rows(x: Tensor) -> Tensor:
    """[B, C, H, W], channels last -> [B*H*W, C]."""
    return x.permute(0, 2, 3, 1).flatten(0, 2)
