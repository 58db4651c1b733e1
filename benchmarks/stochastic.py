"""Binary-stochastic learning: seconds per epoch of the size of MNIST, with real weights and with memristors."""

import torch
from torch import Generator

from spikeloom.accel.learning.stochastic.network import StochasticConfig, train_epoch
from spikeloom.accel.learning.stochastic.synapses import UpdateRule
from spikeloom.benchmarks.measure import clock, median_ms

IMAGES, CLASSES = 60_000, 10
BATCHES = {"real": 100, "pcm": 64, "epiram_3": 64}  # weights: images in a step, which is the memristors' threshold
PIECES = 10  # an epoch is timed by a tenth of it


def print_stochastic(repeats: int) -> None:
    """One line for each kind of weights of the 784-500-200-10 network; all signals are sampled; training only."""
    generator = Generator().manual_seed(0)
    n = IMAGES // PIECES
    pixels = torch.rand(n, 1, 28, 28, generator=generator)
    pixels *= torch.rand(pixels.shape, generator=generator) < 0.2  # about as much ink as a digit has
    labels = torch.randint(CLASSES, (n,), generator=generator)
    print(
        f"784-500-200-10, signals, derivatives and errors sampled, an epoch of {IMAGES:,} images, "
        f"{torch.get_num_threads()} threads, {clock()}"
    )
    print(f"{'weights':>10s} {'batch':>6s} {'s an epoch':>11s} {'/ real':>7s}")
    real = 0.0
    for weights, batch in BATCHES.items():
        rule = UpdateRule(update="real" if weights == "real" else "carry")
        config = StochasticConfig(weights=weights, rule=rule)
        network = config.build((1, 28, 28), CLASSES)
        synapses = config.synapses(network, batch, generator)
        piece = median_ms(lambda: train_epoch(network, synapses, pixels, labels, batch, generator), repeats)  # noqa: B023
        epoch_s = PIECES * piece / 1e3
        real = real or epoch_s
        print(f"{weights:>10s} {batch:6d} {epoch_s:11.2f} {epoch_s / real:7.2f}")
