"""Convolution over time of each channel by itself, in the memory layout [T, B, C] of a spiking network."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class DepthwiseConv1d(nn.Conv1d):
    """`nn.Conv1d` of each channel by itself, [B, C, T]; in training on the CPU the sums of a picture of T x B pixels.

    That is the memory layout of [T, B, C]: channels last, each sum over a vector of channels, without a copy.
    """

    def forward(self, x_BCT: Tensor) -> Tensor:
        if not self.training or x_BCT.device.type != "cpu" or torch.compiler.is_compiling():  # an export is, too
            return super().forward(x_BCT)
        picture_1CTB = x_BCT.permute(2, 0, 1)[None].permute(0, 3, 1, 2)
        y_1CTB = F.conv2d(
            picture_1CTB, self.weight[..., None], self.bias, padding=(*self.padding, 0), groups=self.groups
        )
        return y_1CTB[0].permute(2, 0, 1)
