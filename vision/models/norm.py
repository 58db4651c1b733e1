"""Batch norm of [T*B, C, H, W] over time and batch; exact where PyTorch is not, in maps laid out channels last."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikeloom.accel.spiking.batch_norm import batch_norm_of_rows, count_batch, is_added_one_by_one, processes
from spikeloom.vision.models.memory import is_recomputing


class TimeBatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d`; `repeats` says that the caller stands for that many equal time steps.

    Mean and variance are the same, but the running variance is the unbiased n/(n-1) form, and n counts every step.
    joint: whether they are of the samples of all processes (`spikeloom.accel.spiking.synced`).
    """

    joint = False

    def forward(self, x: Tensor, repeats: int = 1) -> Tensor:
        if not self.training or self.running_var is None:
            return super().forward(x)
        y, mean, var, n = batch_norm(x, self.weight, self.bias, self.eps, joint=self.joint and processes() > 1)
        if not is_recomputing():
            count_batch(self, mean, var, repeats * n)
        return y


def batch_norm(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, *, joint: bool = False
) -> tuple[Tensor, Tensor, Tensor, int]:
    """y = (x - mean) / sqrt(var + eps) * weight + bias of [B, C, H, W], with the mean and the variance (over n) [C] and
    the n = B H W of this batch, or of those of all processes (`joint`)."""
    channels_last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    if joint or (channels_last and is_added_one_by_one(x)):
        rows = x.permute(0, 2, 3, 1).flatten(0, 2)  # [B*H*W, C]
        y, mean, var, n = batch_norm_of_rows(rows, weight, bias, eps, joint=joint)
        return y.view(x.shape[0], *x.shape[2:], x.shape[1]).permute(0, 3, 1, 2), mean, var, n
    mean, var = (torch.zeros_like(weight, requires_grad=False) for _ in range(2))
    y = F.batch_norm(x, mean, var, weight, bias, True, 1.0, eps)
    n = x.numel() // x.shape[1]
    return y, mean, var * ((n - 1) / n), n
