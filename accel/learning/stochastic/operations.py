"""Operations of one inference of a binary-stochastic network: the same counter and prices as for every other model.

`InferenceModule` is one pass of `policies.scores` as an `nn.Module` whose layers are `nn.Linear` and `nn.Conv2d`; the
neurons sample. With sampled or thresholded signals every layer receives 0 and 1, pixels included; deterministic
signals are probabilities, and every layer multiplies.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from spikeloom.accel.analysis.energy import Convention, EnergyConstants, Operations, per_inference
from spikeloom.accel.analysis.operations import OperationCounter
from spikeloom.accel.learning.stochastic.network import StochasticNetwork
from spikeloom.accel.learning.stochastic.policies import Conv, Dense, Layer, Readable
from spikeloom.accel.learning.stochastic.sampling import signal

PRECISIONS = {"hp": "deterministic", "b": "thresholded", "s": "one Bernoulli sample"}


class Signal(nn.Module):
    """What is passed on of probabilities: themselves (hp), a Bernoulli sample (s), or a threshold (b)."""

    def __init__(self, precision: str, generator: Generator) -> None:
        super().__init__()
        self.precision, self.generator = precision, generator

    def forward(self, p: Tensor) -> Tensor:
        return signal(p, self.precision, self.generator)


class InferenceModule(nn.Module):
    """Pixels [B, C, H, W] in [0, 1] -> signals of the output neurons, [B, classes].

    Weights are read from `synapses` in every pass, as an array is; they are not parameters that learn.
    """

    def __init__(
        self, network: StochasticNetwork, synapses: Sequence[Readable], precision: str, generator: Generator
    ) -> None:
        super().__init__()
        self.network, self.synapses, self.generator = network, list(synapses), generator
        self.input = Signal(precision, generator)
        self.maps = nn.ModuleList(_map(layer) for layer in network.layers)
        self.signals = nn.ModuleList(Signal(precision, generator) for _ in network.layers)
        for layer, weights, linear in zip(network.layers, self.synapses, self.maps, strict=True):
            _set(layer, linear, weights.forward(Generator().manual_seed(0))[0])  # zeros are no synapses

    def forward(self, pixels: Tensor) -> Tensor:
        layers, x = self.network.layers, self.input(pixels)
        for i, (layer, weights, linear) in enumerate(zip(layers, self.synapses, self.maps, strict=True)):
            weight, bias = weights.forward(self.generator)
            _set(layer, linear, weight)
            y = linear(x.flatten(1) if isinstance(layer, Dense) else x)
            y = y if bias is None else y + bias
            p = torch.softmax(y, dim=1) if i == len(layers) - 1 else self.network.activation.probability(y)
            if isinstance(layer, Conv) and layer.pool > 1:
                p = F.max_pool2d(p, layer.pool)
            x = self.signals[i](p)
        return x


def _map(layer: Layer) -> nn.Module:
    linear: nn.Module
    if isinstance(layer, Dense):
        linear = nn.Linear(layer.n_in, layer.n_out, bias=False)
    else:
        linear = nn.Conv2d(layer.n_in, layer.n_out, layer.kernel, padding=layer.padding, bias=False)
    return linear.requires_grad_(False)


def _set(layer: Layer, linear: Any, weight: Tensor) -> None:
    linear.weight.data = weight.T if isinstance(layer, Dense) else weight


def count_operations(
    network: StochasticNetwork, synapses: Sequence[Readable], pixels: Tensor, precision: str, generator: Generator,
    constants: EnergyConstants | None = None,
) -> Operations:  # fmt: skip
    """Operations per picture of one pass over pixels [B, C, H, W] in [0, 1]; `precision`: a key of PRECISIONS."""
    model = InferenceModule(network, synapses, precision, generator)
    with torch.inference_mode(), OperationCounter(model, neurons=(Signal,)) as counter:
        model(pixels)
    for population in counter.activations.values():
        population.spiking = precision != "hp"
    biases = sum(counter.connections[f"maps.{i}"].outputs for i in range(len(network.layers)))
    return per_inference(
        counter, samples=len(pixels), steps=1, what="picture", convention=Convention(permitted=frozenset()),
        name=_name, constants=constants, bias_adds=biases, network="deterministic inference",
        details={"inference": PRECISIONS[precision]}, membranes=False,
    )  # fmt: skip


def _name(path: str) -> str:
    part, _, index = path.partition(".")
    if part == "input":
        return "pixels"
    return f"{'layer' if part == 'maps' else 'neurons'} {int(index) + 1}"
