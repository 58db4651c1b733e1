"""Energy, time and traffic of a network of one's own: any torch module, neurons included."""

import torch
from torch import nn

import spikeloom
from spikeloom.accel.spiking.functional import LIFParameters
from spikeloom.accel.spiking.neuron import LIF


class Net(nn.Module):
    """A spiking network of two convolutions; input [T, B, 1, 16, 16]."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.fire, self.head = LIF(LIFParameters(tau=2.0, threshold=0.5)), nn.Linear(32, 10)  # neurons keep no state

    def forward(self, x_TBCHW: torch.Tensor) -> torch.Tensor:
        steps, batch = x_TBCHW.shape[:2]
        spikes, _ = self.fire(self.first(x_TBCHW.flatten(0, 1)).unflatten(0, (steps, batch)))
        spikes, _ = self.fire(self.second(spikes.flatten(0, 1)).unflatten(0, (steps, batch)))
        return self.head(spikes.mean((0, 3, 4)))


pictures = (torch.rand(4, 8, 1, 16, 16) < 0.3).float()  # 4 steps, 8 pictures
for chip in ("neuromc", "cacti28", "edge4"):
    cost = spikeloom.cost(Net(), pictures, axes="TBCHW", chip=chip)
    print(f"{chip:8s} {cost.energy_mj:8.3f} mJ  {cost.time_ms:8.4f} ms")
