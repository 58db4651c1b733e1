"""Operations of a binary-stochastic network: the counted module is the network, bit for bit, and its bits only add."""

import pytest
import torch
from torch import Generator

from spikeloom.accel.learning.stochastic.arrays import ArrayOptions
from spikeloom.accel.learning.stochastic.network import StochasticNetwork, synapses_of
from spikeloom.accel.learning.stochastic.operations import InferenceModule, count_operations
from spikeloom.accel.learning.stochastic.policies import Conv, Dense, Layer, scores
from spikeloom.accel.learning.stochastic.synapses import UpdateRule

MLP: tuple[Layer, ...] = (Dense(n_in=16, n_out=6), Dense(n_in=6, n_out=3))
CNN: tuple[Layer, ...] = (
    Conv(n_in=1, n_out=2, size=4, kernel=3, padding=1, pool=2, untied=True), Dense(n_in=8, n_out=3),
)  # fmt: skip


def rng(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def made(layers: tuple[Layer, ...], weights: str) -> tuple[StochasticNetwork, list]:
    rule = UpdateRule(update="real" if weights == "real" else "carry")
    return StochasticNetwork(layers=layers), synapses_of(layers, weights, rule, ArrayOptions(), 4, rng())


@pytest.mark.parametrize("layers", [MLP, CNN], ids=["mlp", "cnn"])
@pytest.mark.parametrize("weights", ["real", "int4", "pcm"])
@pytest.mark.parametrize("precision", ["hp", "s", "b"])
def test_the_counted_module_is_the_network(layers: tuple[Layer, ...], weights: str, precision: str) -> None:
    network, synapses = made(layers, weights)
    pixels = torch.rand(5, 1, 4, 4, generator=rng(1))
    module = InferenceModule(network, synapses, precision, rng(2))
    wanted = scores(layers, synapses, pixels, precision, network.activation, rng(2))
    assert torch.equal(module(pixels), wanted)


@pytest.mark.parametrize("precision", ["s", "b"])
def test_bits_are_added_and_never_multiplied(precision: str) -> None:
    network, synapses = made(CNN, "real")
    pixels = torch.rand(5, 1, 4, 4, generator=rng(1))
    found = count_operations(network, synapses, pixels, precision, rng(2))
    assert found.mac == 0 and 0 < found.ac < found.dense_macs() and found.membrane_updates == 0
    assert found.spike_driven.verdict in ("spike-driven", "inconclusive")
    if precision == "b":
        bits = (pixels > 0.5).double()
        taps = torch.nn.functional.conv2d(bits, torch.ones(1, 1, 3, 3, dtype=torch.float64), padding=1).sum()
        assert found.layers[0].ac == pytest.approx(2 * float(taps) / 5)


def test_probabilities_are_multiplied() -> None:
    network, synapses = made(MLP, "real")
    found = count_operations(network, synapses, torch.rand(5, 1, 4, 4, generator=rng(1)), "hp", rng(2))
    assert (found.ac, found.mac) == (0, 16 * 6 + 6 * 3)
    assert found.spike_driven.verdict == "not spike-driven"
