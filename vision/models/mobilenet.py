"""MobileNet-V1 (Howard et al., arXiv 1704.04861) as its sparsity tables count it: without spikes.

A 3x3 convolution of stride 2, thirteen depthwise-separable pairs (3x3 of each channel by itself, then 1x1), each with
batch norm and ReLU, the mean over places, and a classifier that is a 1x1 convolution without bias.
"""

from typing import Any

import torch.nn.functional as F
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from spikeloom.accel.spiking.conv import Conv2d

# (channels, stride) of the depthwise-separable pairs
PAIRS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))


class Unit(nn.Module):
    """relu(norm(conv(x)))."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = Conv2d(n_in, n_out, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(n_out)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x)))


class MobileNetV1(nn.Module, PyTorchModelHubMixin, library_name="spikeloom", tags=["vision"]):
    """Pictures [B, C, H, W] -> logits [B, classes].

    Args:
        width: factor of all channels. The stem and the first strides halve a picture five times; `small` leaves out the
            stem's, for pictures of 32 x 32.
    """

    def __init__(
        self, *, in_chans: int = 3, num_classes: int = 1000, width: float = 1.0, small: bool = False,
        pretrained_cfg: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if not width > 0:
            raise ValueError(f"width={width} leaves no channel; use 1.0")
        scaled = lambda n: max(1, round(n * width))  # noqa: E731
        self.in_chans, self.num_classes = in_chans, num_classes
        self.pretrained_cfg = self.default_cfg = dict(pretrained_cfg or {})
        layers, n_in = [Unit(in_chans, scaled(32), 3, 1 if small else 2)], scaled(32)
        for channels, stride in PAIRS:
            layers += [Unit(n_in, n_in, 3, stride, groups=n_in), Unit(n_in, scaled(channels), 1)]
            n_in = scaled(channels)
        self.layers = nn.Sequential(*layers)
        self.num_features = n_in
        self.head = nn.Conv2d(n_in, num_classes, 1, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.layers(x).mean((2, 3), keepdim=True))
        return logits.flatten(1)
