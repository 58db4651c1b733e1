"""`nn.Conv2d` that is safe to train with a kernel of side 1 and a stride.

Such a convolution reads every `stride`-th position and no other: it is a slice and a convolution of stride 1. It has
to be computed so, since oneDNN of torch 2.13 writes past its buffers in the weight gradient of the strided form
(channels last, input channels not a multiple of 16, AVX-512): the process dies with SIGSEGV or "double free".
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Conv2d(nn.Conv2d):
    """`nn.Conv2d`, [B, C_in, H, W] -> [B, C_out, H', W']; an export keeps the one strided node."""

    def forward(self, x: Tensor) -> Tensor:
        if self.slices_input and not torch.compiler.is_exporting():
            return F.conv2d(self.read(x), self.weight, self.bias, groups=self.groups)
        return super().forward(x)

    @property
    def slices_input(self) -> bool:
        """Whether some positions of the input are never read."""
        return self.kernel_size == (1, 1) and self.stride != (1, 1) and self.padding in ((0, 0), "valid")

    def read(self, x: Tensor) -> Tensor:
        """The positions of x that the kernel reads, [B, C_in, H', W'], a view; x itself unless `slices_input`."""
        return x[..., :: self.stride[0], :: self.stride[1]] if self.slices_input else x
