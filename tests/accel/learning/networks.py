"""Small networks to prune, and digits to train them on."""

import gzip
import itertools
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from spikeloom.accel.learning.pruning.pruner import Pruner


def mlp(*widths: int) -> nn.Sequential:
    """Linear maps with ReLU between them, weights N(0, 2/fan_in), biases 0."""
    layers: list[nn.Module] = []
    for n_in, n_out in itertools.pairwise(widths):
        linear = nn.Linear(n_in, n_out)
        nn.init.normal_(linear.weight, std=(2 / n_in) ** 0.5)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class MobileNet(nn.Module):
    """MobileNet-V1, narrow: a convolution, depthwise and pointwise pairs, a classifier that is a 1x1 convolution."""

    def __init__(self, width: int = 8, n_classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        for n_in, n_out, stride in ((1, 2, 1), (2, 4, 2), (4, 4, 1)):
            layers += [
                nn.Conv2d(n_in * width, n_in * width, 3, stride, 1, groups=n_in * width, bias=False),
                nn.BatchNorm2d(n_in * width), nn.ReLU(),
                nn.Conv2d(n_in * width, n_out * width, 1, bias=False), nn.BatchNorm2d(n_out * width), nn.ReLU(),
            ]  # fmt: skip
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Conv2d(4 * width, n_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3), keepdim=True)).flatten(1)


def digits(root: Path, split: str) -> tuple[Tensor, Tensor]:
    """MNIST as float rows of mean 0 and deviation 1, and labels."""
    with gzip.open(root / f"{split}-images-idx3-ubyte.gz") as f:
        images = np.frombuffer(f.read(), np.uint8, offset=16).reshape(-1, 784)
    with gzip.open(root / f"{split}-labels-idx1-ubyte.gz") as f:
        labels = np.frombuffer(f.read(), np.uint8, offset=8)
    return (torch.from_numpy(images.astype(np.float32)) / 255 - 0.1307) / 0.3081, torch.from_numpy(
        labels.astype(np.int64)
    )


def train(
    model: nn.Module,
    pruner: Pruner,
    x: Tensor,
    y: Tensor,
    optimizer: torch.optim.Optimizer,
    *,
    epochs: int,
    batch: int,
    seed: int = 0,
    steps: range | None = None,
) -> list[float]:
    """Minimise cross-entropy with a cosine per step; returns the learning rates. `steps`: only these of the whole."""
    per_epoch = len(x) // batch
    base = optimizer.param_groups[0]["lr"] if steps is None or steps.start == 0 else optimizer.param_groups[0]["base"]
    optimizer.param_groups[0]["base"] = base
    plan = [0.5 * base * (1 + np.cos(np.pi * n / (epochs * per_epoch))).item() for n in range(epochs * per_epoch)]
    if steps is None or steps.start == 0:
        pruner.plan(plan, optimizer)
    orders = [torch.randperm(len(x), generator=torch.Generator().manual_seed(1000 * seed + e)) for e in range(epochs)]
    for n in steps or range(len(plan)):
        rows = orders[n // per_epoch][n % per_epoch * batch :][:batch]
        optimizer.param_groups[0]["lr"] = plan[n]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
        pruner.before_step(optimizer)
        optimizer.step()
        pruner.after_step(optimizer)
    return plan


def accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """In percent."""
    with torch.no_grad():
        return 100 * float((model(x).argmax(1) == y).double().mean())
