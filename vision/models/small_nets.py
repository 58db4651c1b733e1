"""Two small spiking classifiers of pictures shown in every time step: fully connected, and convolutional.

They are what the engines of the trainer and the federated workers train within minutes on one core. `SpikingNet` is
either of them as a model that a training builds: feed-forward, so that NIR can express it.
"""

from typing import Literal

from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from spikeloom.accel.spiking.functional import LIFParameters
from spikeloom.accel.spiking.neuron import LIF
from spikeloom.accel.spiking.surrogate import Rectangular

# The window reaches from 0 to 1: a neuron at rest still passes a gradient.
NEURON = LIFParameters(tau=2.0, decay_input=False, threshold=0.5, v_reset=0.0, surrogate=Rectangular(0.5))


class SpikingMLP(nn.Module):
    """x [T, B, C, H, W] -> linear 128, LIF -> linear, LIF -> spikes [T, B, classes]."""

    def __init__(self, size: int, n_classes: int, hidden: int = 128, in_chans: int = 1) -> None:
        super().__init__()
        self.hidden, self.hidden_lif = nn.Linear(in_chans * size * size, hidden), LIF(NEURON)
        self.out, self.out_lif = nn.Linear(hidden, n_classes), LIF(NEURON)

    def forward(self, x: Tensor) -> Tensor:
        spikes, _ = self.hidden_lif(self.hidden(x.flatten(2)))
        return self.out_lif(self.out(spikes))[0]


class SpikingCNN(nn.Module):
    """x [T, B, C, H, W] -> conv 16, conv 32 with stride 2, each with norm and LIF -> linear: logits [T, B, classes]."""

    def __init__(self, size: int, n_classes: int, in_chans: int = 1) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(in_chans, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.lif1 = LIF(NEURON)
        self.conv2, self.norm2 = nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32)
        self.lif2 = LIF(NEURON)
        side = -(-size // 2)
        self.head = nn.Linear(32 * side * side, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        steps, batch = x.shape[:2]
        y, _ = self.lif1(self.norm1(self.conv1(x.flatten(0, 1))).unflatten(0, (steps, batch)))
        y, _ = self.lif2(self.norm2(self.conv2(y.flatten(0, 1))).unflatten(0, (steps, batch)))
        return self.head(y.flatten(2))


def small_net(name: Literal["mlp", "cnn"], size: int, n_classes: int, in_chans: int = 1) -> nn.Module:
    """One of the two for pictures of `size` x `size`. Raises ValueError for another name."""
    if name not in ("mlp", "cnn"):
        raise ValueError(f"model={name} is no network for pictures; use mlp or cnn")
    return (SpikingMLP if name == "mlp" else SpikingCNN)(size, n_classes, in_chans=in_chans)


class SpikingNet(nn.Module, PyTorchModelHubMixin, library_name="spikeloom", tags=["spiking", "vision"]):
    """Pictures [B, C, H, W], shown T times, or frames [T, B, C, H, W] -> logits [B, classes], the mean over steps."""

    def __init__(
        self, *, net: Literal["mlp", "cnn"] = "cnn", size: int, in_chans: int = 1, num_classes: int = 10, T: int = 4
    ) -> None:
        super().__init__()
        if T < 1:
            raise ValueError(f"T={T} shows a picture in no step; use at least 1")
        self.T, self.layers = T, small_net(net, size, num_classes, in_chans)

    def forward(self, x: Tensor) -> Tensor:
        frames = x.expand(self.T, *x.shape) if x.dim() == 4 else x
        logits: Tensor = self.layers(frames).mean(0)
        return logits
