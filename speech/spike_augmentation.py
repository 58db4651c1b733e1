"""Augmentation of event frames, for training only: one time mask and one channel mask a clip, each in half the cases.

These are the masks the published SHD and SSC results of SpikeSCR were trained with. As for audio, every number is a
pure function of (seed, epoch, sample id, draw).
"""

from dataclasses import dataclass
from typing import Any

import torch

from spikeloom.speech.augmentation import Span, keyed_uniform, mask
from spikeloom.speech.features.event_bins import EventBinsConfig


@dataclass
class SpikeAugmentationConfig:
    """The defaults are the preset `shd`.

    time_mask_fraction: the time mask covers floor(this * valid steps). channel_mask_channels: the channel mask covers
    0 to this many channels less one. probability: of each mask, for each clip; 0 switches both off.
    """

    kind: str = "spikes"
    time_mask_fraction: float = 0.2
    channel_mask_channels: int = 20
    probability: float = 0.5

    def build(self, features: Any, seed: int) -> "SpikeAugmentation":
        """Raises ValueError for features that are not event bins, and for strengths that make no sense."""
        if not isinstance(features, EventBinsConfig):
            raise ValueError(
                f"a spike augmentation got features of the kind {features.kind}; use augmentation=masks or none"
            )
        return SpikeAugmentation(self, features, seed=seed)


class SpikeAugmentation:
    """Augments batches of the counts that `EventBins` with `features` makes; stateless, so calls come in any order."""

    def __init__(self, config: SpikeAugmentationConfig, features: EventBinsConfig, *, seed: int) -> None:
        if not 0 <= config.time_mask_fraction < 1:
            raise ValueError(f"time_mask_fraction must be in [0, 1), got {config.time_mask_fraction}; use 0.2")
        if not 0 <= config.probability <= 1:
            raise ValueError(f"probability must be in [0, 1], got {config.probability}; use 0.5")
        if not 1 <= config.channel_mask_channels <= features.n_channels:
            raise ValueError(
                f"channel_mask_channels must be 1 (no mask) to {features.n_channels} (all channels), "
                f"got {config.channel_mask_channels}; use 20"
            )
        self.config = config
        self.seed = seed

    def __call__(
        self, features: torch.Tensor, lengths: torch.Tensor, sample_ids: torch.Tensor, epoch: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`[B, T, N]`, int64 `[B]`, int64 `[B]` -> new features of that size, and the lengths as they were."""
        config = self.config
        draw = torch.from_numpy(keyed_uniform(self.seed, epoch, sample_ids.numpy(), 5))
        width = torch.floor(config.time_mask_fraction * lengths) * (draw[:, 0] < config.probability)
        steps = Span(torch.floor(draw[:, 1] * (lengths - width + 1)), width)
        width = torch.floor(draw[:, 2] * config.channel_mask_channels) * (draw[:, 3] < config.probability)
        channels = Span(torch.floor(draw[:, 4] * (features.shape[2] - width + 1)), width)
        return mask(features, lengths, steps, channels, fill=0.0), lengths
