"""Residual networks of rectified units, as yardsticks without spikes.

The CIFAR form (He et al., arXiv 1512.03385): a 3 x 3 convolution, then at each resolution blocks of two 3 x 3
convolutions with batch norm; the first block of a later resolution halves height and width and has a 1 x 1 convolution
as shortcut. Mean over places, then a linear classifier.

The ImageNet form, as LATS and STR trained it: a 7 x 7 convolution of stride 2 and a 3 x 3 max pooling in front, where
asked for bottlenecks with the stride on their 3 x 3 convolution, and a classifier that is a 1 x 1 convolution without
bias, so that every layer can be pruned and sparsity tables share their denominator.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch.nn.functional as F
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from spikeloom.accel.spiking.conv import Conv2d

EXPANSION = 4  # of a bottleneck


class Block(nn.Module):
    """relu(x' + norm(conv(relu(norm(conv(x)))))), x' = x or its 1 x 1 convolution."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(n_out)
        self.shortcut = _shortcut(n_in, n_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.shortcut(x) + self.norm2(self.conv2(y)))


class Bottleneck(nn.Module):
    """The same around a 1 x 1, a 3 x 3 and a 1 x 1 convolution, the last of them four times as wide."""

    def __init__(self, n_in: int, width: int, stride: int) -> None:
        super().__init__()
        n_out = width * EXPANSION
        self.conv1, self.norm1 = nn.Conv2d(n_in, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.norm3 = nn.Conv2d(width, n_out, 1, bias=False), nn.BatchNorm2d(n_out)
        self.shortcut = _shortcut(n_in, n_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        y = F.relu(self.norm2(self.conv2(y)))
        return F.relu(self.shortcut(x) + self.norm3(self.conv3(y)))


def _shortcut(n_in: int, n_out: int, stride: int) -> nn.Module:
    if stride == 1 and n_in == n_out:
        return nn.Identity()
    return nn.Sequential(Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))


class ResNet(nn.Module, PyTorchModelHubMixin, library_name="spikeloom", tags=["vision"]):
    """Pictures [B, C, H, W] -> logits [B, classes]. One entry of widths and blocks per resolution."""

    def __init__(
        self, *, in_chans: int = 3, num_classes: int = 10, widths: Sequence[int] = (64, 128, 256),
        blocks: Sequence[int] = (2, 2, 2), bottleneck: bool = False, stem: Literal["small", "imagenet"] = "small",
        pretrained_cfg: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if len(widths) != len(blocks) or not widths:
            raise ValueError(f"widths {list(widths)} and blocks {list(blocks)}; give one of each per resolution")
        if stem not in ("small", "imagenet"):
            raise ValueError(f"stem={stem!r} is unknown; use small or imagenet")
        large = stem == "imagenet"
        self.in_chans, self.num_classes, self.pools = in_chans, num_classes, large
        self.pretrained_cfg = self.default_cfg = dict(pretrained_cfg or {})
        side, stride = (7, 2) if large else (3, 1)
        self.conv = nn.Conv2d(in_chans, widths[0], side, stride, side // 2, bias=False)
        self.norm = nn.BatchNorm2d(widths[0])
        layers, n_in = list[nn.Module](), widths[0]
        for stage, (width, n) in enumerate(zip(widths, blocks, strict=True)):
            for i in range(n):
                layers.append((Bottleneck if bottleneck else Block)(n_in, width, 2 if stage and i == 0 else 1))
                n_in = width * EXPANSION if bottleneck else width
        self.blocks = nn.Sequential(*layers)
        self.num_features = n_in
        self.head: nn.Module = nn.Conv2d(n_in, num_classes, 1, bias=False) if large else nn.Linear(n_in, num_classes)
        if large:
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm(self.conv(x)))
        y = self.blocks(F.max_pool2d(y, 3, 2, 1) if self.pools else y).mean((2, 3))
        logits: Tensor = self.head(y[:, :, None, None]).flatten(1) if self.pools else self.head(y)
        return logits
