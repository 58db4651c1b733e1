"""Accuracy on MNIST: three epochs stay above the measured floors, and drawn inference gains from drawn training."""

import gzip
import os
from pathlib import Path
from statistics import mean

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from spikeloom.accel.learning.stochastic.network import StochasticConfig, accuracies, train_epoch
from spikeloom.accel.learning.stochastic.policies import BsPolicy
from spikeloom.accel.learning.stochastic.synapses import UpdateRule

FOLDER = Path(os.environ.get("SPIKELOOM_DATA", "data")) / "mnist"
needs_mnist = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no MNIST in {FOLDER}; set SPIKELOOM_DATA")
HP = {"forward": "hp", "derivative": "hp", "error": "hp"}
FORWARD_ONLY, ERROR_ONLY, DERIVATIVE_ONLY = ({**HP, k: v} for k, v in
                                             (("forward", "s"), ("error", "sign"), ("derivative", "s")))  # fmt: skip


def idx(name: str) -> np.ndarray:
    """The bytes of an idx file in its shape."""
    raw = gzip.decompress((FOLDER / f"{name}.gz").read_bytes())
    sizes = np.frombuffer(raw, ">u4", raw[3], offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(sizes)


def mnist(split: str) -> tuple[Tensor, Tensor]:
    pixels = torch.from_numpy(idx(f"{split}-images-idx3-ubyte")[:, None] / np.float32(255))
    return pixels, torch.from_numpy(idx(f"{split}-labels-idx1-ubyte").astype(np.int64))


def trained(
    epochs: int, seed: int = 0, policy: dict[str, str] | None = None, weights: str = "real",
    repeats: tuple[int, ...] = (1, 10, 50), images: int = 60_000, rate: float = 0.1,
) -> dict[str, float]:  # fmt: skip
    """Test accuracy in percent after the last epoch on the first `images`, of every kind of inference."""
    device = weights not in ("real", "int8", "int4", "ternary")
    batch_size = 64 if device else 100
    config = StochasticConfig(
        weights=weights,
        policy=BsPolicy(**(policy or {})),
        rule=UpdateRule(rate=rate, update="carry" if device else "real"),
    )
    generator = Generator().manual_seed(seed)
    network = config.build((1, 28, 28), 10)
    synapses = config.synapses(network, batch_size, generator)
    pixels, labels = (part[:images] for part in mnist("train"))
    for _ in range(epochs):
        train_epoch(network, synapses, pixels, labels, batch_size, generator)
    found = accuracies(network, synapses, *mnist("t10k"), repeats, generator)
    return {name: 100 * value for name, value in found.items()}


@needs_mnist
def test_a_short_epoch_of_drawn_training_beats_one_of_exact_training_when_inference_is_drawn() -> None:
    exact, drawn = trained(1, policy=HP, repeats=(1,), images=25_000), trained(1, repeats=(1,), images=25_000)
    assert min(exact["hp"], drawn["hp"]) >= 90
    assert drawn["stochastic_1"] - exact["stochastic_1"] >= 8


@needs_mnist
@pytest.mark.slow
def test_three_epochs_reach_the_fast_floors_over_three_seeds() -> None:
    exact = [trained(3, seed, HP, repeats=(1, 10)) for seed in range(3)]
    drawn = [trained(3, seed, repeats=(1, 10)) for seed in range(3)]
    for runs in (exact, drawn):
        assert mean(run["hp"] for run in runs) >= 95.2
    gain = mean(run["stochastic_1"] for run in drawn) - mean(run["stochastic_1"] for run in exact)
    assert gain >= 8


@needs_mnist
@pytest.mark.slow
@pytest.mark.parametrize(
    ("epochs", "policy", "weights", "floors"),
    [
        (40, HP, "real", {"hp": 98.26, "binary": 96.71, "stochastic_1": 84.45, "stochastic_50": 97.81}),
        (40, {}, "real", {"hp": 98.30, "binary": 97.76, "stochastic_1": 95.72, "stochastic_50": 98.18}),
        (15, FORWARD_ONLY, "real", {"hp": 97.12, "binary": 96.60, "stochastic_1": 91.97}),
        (15, ERROR_ONLY, "real", {"hp": 97.99, "binary": 97.22, "stochastic_1": 92.85}),
        (15, DERIVATIVE_ONLY, "real", {"hp": 97.81, "binary": 96.41, "stochastic_1": 82.27}),
        (10, {}, "int8", {"hp": 97.36, "binary": 96.69, "stochastic_50": 97.24}),
        (10, {}, "int4", {"hp": 96.82 - 0.5, "binary": 95.76 - 0.5, "stochastic_50": 96.66 - 0.5}),
        (10, {}, "ternary", {"hp": 95.56 - 0.5, "binary": 93.71 - 0.5, "stochastic_50": 95.44 - 0.5}),
        (15, {}, "epiram_3", {"hp": 96.13, "binary": 95.00, "stochastic_1": 90.30, "stochastic_50": 95.86}),
        (10, {}, "pcmo", {"hp": 95.79, "binary": 94.27, "stochastic_1": 89.59, "stochastic_50": 95.66}),
        (15, {}, "ecram", {"hp": 94.86, "binary": 93.13, "stochastic_1": 87.34, "stochastic_50": 94.69}),
    ],
)
def test_measured_floors_hold(epochs: int, policy: dict[str, str], weights: str, floors: dict[str, float]) -> None:
    # The floor of the ternary network was measured with a rule whose rate is one over its scale of 2.
    rate = 0.5 if weights == "ternary" else 0.1
    # One drawn pass of a network that never drew its derivatives differs by 0.35 points (sd) from seed to seed.
    runs = [trained(epochs, seed, policy, weights, rate=rate) for seed in range(3 if policy == FORWARD_ONLY else 1)]
    found = {name: mean(run[name] for run in runs) for name in runs[0]}
    assert {name: found[name] for name, floor in floors.items() if found[name] < floor - 0.5} == {}
