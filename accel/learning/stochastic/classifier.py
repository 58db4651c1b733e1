"""A trained binary-stochastic network as a module, for whoever wants answers and no learning."""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor, nn

from spikeloom.accel.learning.stochastic.network import StochasticNetwork, votes
from spikeloom.accel.learning.stochastic.synapses import Synapses


class StochasticClassifier(nn.Module):
    """Pictures [B, C, H, W] with values in [0, 1] -> log-probabilities [B, classes], deterministic.

    The weights are those of `synapses`, which are not parameters: no optimizer can train them, and they stay float32 on
    the CPU. Raises ValueError for pictures of another shape, range, precision or device.
    """

    def __init__(self, network: StochasticNetwork, synapses: Sequence[Synapses]) -> None:
        super().__init__()
        self.network, self.synapses = network, tuple(synapses)

    def forward(self, pixels: Tensor) -> Tensor:
        if pixels.dtype != torch.float32 or pixels.device.type != "cpu":
            raise ValueError(
                f"a binary-stochastic network computes in float32 on the CPU, got {pixels.dtype} on {pixels.device}; "
                "use pixels.float().cpu()"
            )
        if pixels.dim() != 4 or not bool(((pixels >= 0) & (pixels <= 1)).all()):
            raise ValueError(
                f"pictures are [B, C, H, W] with values in [0, 1] (got {list(pixels.shape)}); "
                "use features.mean=[0] and features.std=[1]"
            )
        probabilities = votes(self.network, self.synapses, pixels, "hp", Generator())
        return probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log()
