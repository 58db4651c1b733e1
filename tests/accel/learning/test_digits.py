"""Floors on handwritten digits: a network with ReLU keeps its accuracy at the sparsity each threshold gives."""

import math
from pathlib import Path
from statistics import fmean

import pytest
import torch

from spikeloom.accel.learning.pruning.lats import LATSConfig
from tests.accel.learning.networks import accuracy, digits, mlp, train
from tests.conftest import data_folder


def trained(
    root: Path, config: LATSConfig, seed: int, *, images: int = 60_000, epochs: int = 5
) -> tuple[float, float, float]:
    """Test accuracy and sparsity in percent after the last epoch, and the mean L1 coefficient."""
    x, y = digits(root, "train")
    torch.manual_seed(seed)
    model = mlp(784, 300, 100, 10)
    pruner, optimizer = config.build(model), torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    plan = train(model, pruner, x[:images], y[:images], optimizer, epochs=epochs, batch=128, seed=seed)
    report = pruner.report()
    sparsity = 100 * report.sparsity.sparsity_of_pruned_layers
    return accuracy(model, *digits(root, "t10k")), sparsity, (1 - 0.9) * report.threshold / math.fsum(plan)


@pytest.mark.slow
def test_a_wanted_share_of_zeros_is_met_exactly_and_keeps_the_accuracy() -> None:
    found, sparsity, _ = trained(data_folder("mnist"), LATSConfig(sparsity=0.9), 0, images=20_000, epochs=3)
    assert found >= 95.0
    assert 90.0 <= sparsity < 90.01


@pytest.mark.slow
@pytest.mark.parametrize(
    ("threshold", "homotopy", "sparsity", "l1"),
    [
        (0.0, 1.0, 0.0, 0.0), (0.02, 1.0, 25.3, 1.709e-5), (0.05, 1.0, 56.7, 4.272e-5), (0.1, 1.0, 84.3, 8.543e-5),
        (0.2, 1.0, 95.5, 1.709e-4), (0.1, 0.01, 83.0, 8.543e-5),
    ],
)  # fmt: skip
def test_every_threshold_gives_its_sparsity_at_full_accuracy(
    threshold: float, homotopy: float, sparsity: float, l1: float
) -> None:
    config = LATSConfig(threshold=threshold, homotopy=homotopy)
    runs = [trained(data_folder("mnist"), config, seed) for seed in (0, 1, 2)]
    assert min(found for found, _, _ in runs) >= 97.8
    assert fmean(zeros for _, zeros, _ in runs) == pytest.approx(sparsity, abs=1.5)
    assert runs[0][2] == pytest.approx(l1, rel=2e-3)
