"""A residual network of rectified units (He et al., arXiv 1512.03385; the CIFAR form), as a yardstick without spikes.

A 3 x 3 convolution, then at each resolution blocks of two 3 x 3 convolutions with batch norm; the first block of a
later resolution halves height and width and has a 1 x 1 convolution as shortcut. Mean over places, then a classifier.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn


class Block(nn.Module):
    """relu(x' + norm(conv(relu(norm(conv(x)))))), x' = x or its 1 x 1 convolution."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(n_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or n_in != n_out:
            self.shortcut = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.shortcut(x) + self.norm2(self.conv2(y)))


class ResNet(nn.Module, PyTorchModelHubMixin, library_name="spikeloom", tags=["vision"]):
    """Pictures [B, C, H, W] -> logits [B, classes]. One entry of widths and blocks per resolution."""

    def __init__(
        self, *, in_chans: int = 3, num_classes: int = 10, widths: Sequence[int] = (64, 128, 256),
        blocks: Sequence[int] = (2, 2, 2),
    ) -> None:  # fmt: skip
        super().__init__()
        if len(widths) != len(blocks) or not widths:
            raise ValueError(f"widths {list(widths)} and blocks {list(blocks)}; give one of each per resolution")
        self.conv = nn.Conv2d(in_chans, widths[0], 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(widths[0])
        layers, n_in = list[nn.Module](), widths[0]
        for stage, (width, n) in enumerate(zip(widths, blocks, strict=True)):
            for i in range(n):
                layers.append(Block(n_in, width, 2 if stage and i == 0 else 1))
                n_in = width
        self.blocks = nn.Sequential(*layers)
        self.head = nn.Linear(n_in, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        y = self.blocks(F.relu(self.norm(self.conv(x))))
        logits: Tensor = self.head(y.mean((2, 3)))
        return logits
