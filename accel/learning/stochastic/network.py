"""Networks that learn binary-stochastically: their layers, one epoch of training, and the three kinds of inference.

A `StochasticNetwork` is immutable; `synapses` hold everything that training changes, and all random numbers come from
the generator passed in. Training is gradient descent with samples shuffled by that generator.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from spikeloom.accel.learning.stochastic.arrays import ArrayOptions, memristor_synapses
from spikeloom.accel.learning.stochastic.devices import DEVICES, Device
from spikeloom.accel.learning.stochastic.policies import BsPolicy, Conv, Dense, Layer, classify, gradients, scores
from spikeloom.accel.learning.stochastic.sampling import Activation
from spikeloom.accel.learning.stochastic.synapses import (
    INTEGERS,
    Changed,
    Synapses,
    UpdateRule,
    integer_synapses,
    real_synapses,
)

HIDDEN = (500, 200)
CIFAR_MAPS, CIFAR_POOLS, CIFAR_HIDDEN = (48, 48, 96, 96, 192, 192), (1, 2, 1, 2, 1, 2), (512, 256)


def layers_of(name: str, image: tuple[int, ...], n_classes: int, hidden: Sequence[int] = HIDDEN
              ) -> tuple[Layer, ...]:  # fmt: skip
    """Layers for images [C, H, W].

    mlp: C H W - hidden - classes. cnn_mnist: 9x9x8 valid, pool 2, 5x5x12 valid, pool 2, dense; a bias for every
    position. cnn_cifar10: 3x3 same with 48, 48, 96, 96, 192, 192 maps, every second one pooled by 2, dense 512, 256.

    Raises ValueError for another name, or an image a network cannot take.
    """
    channels, height, width = image
    sizes: tuple[int, ...]
    if name == "mlp":
        sizes = (channels * height * width, *hidden, n_classes)
        return tuple(Dense(n_in=a, n_out=b) for a, b in pairwise(sizes))
    if height != width:
        raise ValueError(f"network={name} takes square images, got {height} x {width}; use network=mlp")
    convs: list[Conv] = []
    if name == "cnn_mnist":
        if (height - 8) % 2 or ((height - 8) // 2 - 4) % 2 or height < 18:
            raise ValueError(f"network=cnn_mnist takes images of 18, 20, … 28 … a side 4 k, got {height}; use mlp")
        convs.append(Conv(n_in=channels, n_out=8, size=height, kernel=9, pool=2, untied=True))
        side = (height - 8) // 2
        convs.append(Conv(n_in=8, n_out=12, size=side, kernel=5, pool=2, untied=True))
        side = (side - 4) // 2
        sizes = (12 * side * side, n_classes)
    elif name == "cnn_cifar10":
        if height % 8:
            raise ValueError(f"network=cnn_cifar10 takes images whose side is a multiple of 8, got {height}; use mlp")
        side, maps = height, channels
        for out, pool in zip(CIFAR_MAPS, CIFAR_POOLS, strict=True):
            convs.append(Conv(n_in=maps, n_out=out, size=side, kernel=3, padding=1, pool=pool))
            side, maps = side // pool, out
        sizes = (maps * side * side, *CIFAR_HIDDEN, n_classes)
    else:
        raise ValueError(f"network={name} is unknown; use mlp, cnn_mnist or cnn_cifar10")
    return (*convs, *(Dense(n_in=a, n_out=b) for a, b in pairwise(sizes)))


def synapses_of(
    layers: Sequence[Layer], weights: str, rule: UpdateRule, options: ArrayOptions, batch_size: int,
    generator: Generator, own: Device | None = None,
) -> list[Synapses]:  # fmt: skip
    """Fresh weights of every layer: `real`, a width of `INTEGERS`, a device of `DEVICES`, or the device `own`.

    Raises ValueError for another word.
    """
    if (device := own or DEVICES.get(weights)) is not None:
        if rule.update != "carry":
            raise ValueError(f"weights={weights} take pulses, rule.update is {rule.update}; use carry")
        return [memristor_synapses(layer, device, options, rule, batch_size, generator) for layer in layers]
    if weights in INTEGERS:
        return [integer_synapses(layer, weights, rule, generator) for layer in layers]
    if weights == "real":
        return [real_synapses(layer, rule, batch_size, generator) for layer in layers]
    known = ", ".join(("real", *INTEGERS, *DEVICES))
    raise ValueError(f"weights={weights} is unknown; use {known}, or the file of a device (.yaml)")


@dataclass(frozen=True, kw_only=True)
class StochasticNetwork:
    """Layers, and how their signals, derivatives and errors are passed on."""

    layers: tuple[Layer, ...]
    policy: BsPolicy = field(default_factory=BsPolicy)
    activation: Activation = field(default_factory=Activation)

    @property
    def parameters(self) -> int:
        """Weights, without biases."""
        return sum(torch.Size(layer.weight_shape).numel() for layer in self.layers)


@dataclass(kw_only=True)
class StochasticConfig:
    """Configuration of a binary-stochastic network.

    network: mlp (with `hidden` layers), cnn_mnist or cnn_cifar10. weights: real, int8 … int2, ternary, or a memristor
    device of `DEVICES`; with `device`, its values, the name of that one. Raises ValueError, when built, for an unknown
    value.
    """

    kind: str = "stochastic"
    network: str = "mlp"
    hidden: list[int] = field(default_factory=lambda: list(HIDDEN))  # widths of the hidden layers of mlp
    weights: str = "real"
    device: dict[str, Any] | None = None  # of a memristor of one's own, as a training reads it from weights=FILE.yaml
    policy: BsPolicy = field(default_factory=BsPolicy)
    activation: Activation = field(default_factory=Activation)
    rule: UpdateRule = field(default_factory=UpdateRule)
    array: ArrayOptions = field(default_factory=ArrayOptions)
    repeats: list[int] = field(default_factory=lambda: [1, 10, 25, 50, 100])  # numbers of Bernoulli samples to report
    energy: str = "stochastic"  # constants: a preset of conf/constants, or a file

    def build(self, image: tuple[int, ...], n_classes: int) -> "StochasticNetwork":
        """The network for images [C, H, W]."""
        layers = layers_of(self.network, image, n_classes, self.hidden)
        return StochasticNetwork(layers=layers, policy=self.policy, activation=self.activation)

    def synapses(self, network: "StochasticNetwork", batch_size: int, generator: Generator) -> list[Synapses]:
        """Fresh weights for `network`."""
        own = None if self.device is None else Device.from_values(self.device, f"model.device of {self.weights}")
        return synapses_of(network.layers, self.weights, self.rule, self.array, batch_size, generator, own)


class Epoch(NamedTuple):
    """One epoch: mean cross-entropy of the deterministic softmax, what the updates changed, samples and steps."""

    loss: float
    changed: Changed
    samples: int
    steps: int


def train_epoch(
    network: StochasticNetwork, synapses: Sequence[Synapses], pixels: Tensor, labels: Tensor, batch_size: int,
    generator: Generator,
) -> Epoch:  # fmt: skip
    """Every sample of pixels [n, C, H, W] in [0, 1] once, in random order; synapses change in place."""
    loss, changed, steps = 0.0, Changed(), 0
    for chosen in _shuffled(len(labels), batch_size, generator):
        of = gradients(
            network.layers, synapses, pixels[chosen], labels[chosen], network.policy, network.activation, generator
        )
        for layer_synapses, of_weight, of_bias in zip(synapses, of.weights, of.biases, strict=True):
            changed = changed.plus(layer_synapses.update(of_weight, of_bias, len(chosen), generator))
        loss += of.loss * len(chosen)
        steps += 1
    return Epoch(loss / len(labels), changed, len(labels), steps)


def _shuffled(n: int, batch_size: int, generator: Generator) -> Iterator[Tensor]:
    return iter(torch.randperm(n, generator=generator).split(batch_size))


def votes(
    network: StochasticNetwork, synapses: Sequence[Synapses], pixels: Tensor, precision: str,
    generator: Generator, repeats: int = 1, batch_size: int = 1000,
) -> Tensor:  # fmt: skip
    """The sum [n, classes] of `repeats` passes of pixels [n, C, H, W]; repeats matter for stochastic passes only."""
    total = []
    for batch in pixels.split(batch_size):
        passes = (
            scores(network.layers, synapses, batch, precision, network.activation, generator) for _ in range(repeats)
        )
        total.append(torch.stack(list(passes)).sum(0))
    return torch.cat(total)


def accuracies(
    network: StochasticNetwork, synapses: Sequence[Synapses], pixels: Tensor, labels: Tensor, repeats: Sequence[int],
    generator: Generator,
) -> dict[str, float]:  # fmt: skip
    """Correct / total of every kind of inference: `hp`, `binary`, and `stochastic_n` for each n of `repeats`.

    The longest stochastic run is made once and its first n passes give the shorter ones.
    """

    def share(scored: Tensor) -> float:
        return float((classify(scored) == labels).double().mean())

    found = {
        "hp": share(votes(network, synapses, pixels, "hp", generator)),
        "binary": share(votes(network, synapses, pixels, "b", generator)),
    }
    total = torch.zeros(len(labels), network.layers[-1].n_out)
    for n in range(1, max(repeats, default=0) + 1):
        total += votes(network, synapses, pixels, "s", generator)
        if n in repeats:
            found[f"stochastic_{n}"] = share(total)
    return found
