"""Training on mixtures of two samples: mixup (arXiv 1710.09412) and CutMix (arXiv 1905.04899).

A batch is mixed with itself in reverse order. Labels become shares of the classes, smoothed before they are mixed. From
`mix_until_epoch` on nothing is mixed, so that training ends on real samples.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(kw_only=True)
class MixingConfig:
    """mixup, cutmix: both parameters of the Beta distribution the share is drawn from (0: never).

    mix_prob: how often a batch is mixed. cutmix_prob: where both are on, how often it is CutMix. mix_until_epoch:
    epochs counted from 0 that are mixed; null: all.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    mix_prob: float = 1.0
    cutmix_prob: float = 0.5
    mix_until_epoch: int | None = None

    def check(self) -> None:
        """Raise ValueError for probabilities outside 0…1 or a negative parameter."""
        for name in ("mix_prob", "cutmix_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"augmentation.{name}={getattr(self, name)} must be in [0, 1]")
        if self.mixup < 0 or self.cutmix < 0:
            raise ValueError(f"augmentation.mixup={self.mixup}, cutmix={self.cutmix}; use 0 for none, or more")

    def mixes(self, epoch: int) -> bool:
        """Whether batches of this epoch are mixed."""
        return (self.mixup > 0 or self.cutmix > 0) and (self.mix_until_epoch is None or epoch < self.mix_until_epoch)


def smoothed(labels: Tensor, n_classes: int, smoothing: float) -> Tensor:
    """int64 `[B]` -> `[B, classes]`: 1 - s for the label, and s shared out among all classes."""
    return F.one_hot(labels, n_classes).float() * (1 - smoothing) + smoothing / n_classes


def mix(frames: Tensor, targets: Tensor, config: Any, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Frames `[…, H, W]` with the batch first, and their targets `[B, classes]`, mixed with the reversed batch."""
    if generator.random() >= config.mix_prob:
        return frames, targets
    cut = config.cutmix > 0 and (config.mixup == 0 or generator.random() < config.cutmix_prob)
    alpha = config.cutmix if cut else config.mixup
    share = float(generator.beta(alpha, alpha))
    if cut:
        height, width = frames.shape[-2:]
        h, w = round(height * (1 - share) ** 0.5), round(width * (1 - share) ** 0.5)
        middle_y, middle_x = int(generator.integers(height)), int(generator.integers(width))
        top, bottom = max(0, middle_y - h // 2), min(height, middle_y + (h + 1) // 2)
        left, right = max(0, middle_x - w // 2), min(width, middle_x + (w + 1) // 2)
        mixed = frames.clone()
        mixed[..., top:bottom, left:right] = frames.flip(0)[..., top:bottom, left:right]
        share = 1 - (bottom - top) * (right - left) / (height * width)  # what the border left of the box counts
    else:
        mixed = torch.lerp(frames.flip(0), frames, share)
    return mixed, share * targets + (1 - share) * targets.flip(0)
