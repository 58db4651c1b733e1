"""Time and memory of a training step of SpikeSCR, and of the same network in SpikingJelly layers where installed."""

import torch

from spikeloom.benchmarks import peers
from spikeloom.benchmarks.measure import apart, clock, forget_peak, median_ms, peak_mb
from spikeloom.speech.models.spikescr import SpikeSCRConfig, log_mean_probability

STEPS = (  # model, T, B
    ("1L-8-128", SpikeSCRConfig(), 100, 32),
    ("2L-16-256", SpikeSCRConfig(width=256, heads=16, depth=2, mlp_ratio=4), 100, 32),
    ("1L-8-128", SpikeSCRConfig(), 500, 32),
    ("2L-16-256", SpikeSCRConfig(width=256, heads=16, depth=2, mlp_ratio=4), 500, 32),
)


def print_steps(repeats: int, only_steps: int = 0) -> None:
    """One line a network; each figure comes from a fresh process of this run, so that memory can be attributed.

    `only_steps` leaves out the networks of another number of time steps; 0 measures all.
    """
    chosen = [row for row in STEPS if only_steps in (0, row[2])]
    if not chosen:
        raise ValueError(f"no network of {only_steps} steps; use one of {sorted({row[2] for row in STEPS})}, or 0")
    print(
        f"training step of SpikeSCR (forward, loss, backward, AdamW), 140 inputs, {torch.get_num_threads()} threads, "
        f"{clock()}"
    )
    print(
        f"{'network':>12s} {'T':>5s} {'B':>4s} {'ours ms':>9s} {'ours MB':>9s} {'SpikingJelly ms':>16s} {'MB':>7s} "
        f"{'time ratio':>11s}"
    )
    for name, config, steps, batch in chosen:
        ours_ms, ours_mb = apart(training_step, "ours", config, steps, batch, max(3, repeats // 4))
        row = f"{name:>12s} {steps:5d} {batch:4d} {ours_ms:9.0f} {ours_mb:9.0f}"
        if peers.installed():
            peer_ms, peer_mb = apart(training_step, "SpikingJelly", config, steps, batch, max(3, repeats // 4))
            print(f"{row} {peer_ms:16.0f} {peer_mb:7.0f} {peer_ms / ours_ms:11.1f}")
        else:
            print(f"{row} {'not installed':>16s}")


def training_step(whose: str, config: SpikeSCRConfig, steps: int, batch: int, repeats: int) -> tuple[float, float]:
    """Median milliseconds of a step and peak memory in MB above what the process held before its first step."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(steps, batch, 140, generator=generator)
    labels = torch.randint(35, (batch,), generator=generator)
    model = peers.SpikingJellySCR(140, 35, config) if whose == "SpikingJelly" else config.build(140, 35)
    optimizer = torch.optim.AdamW(model.parameters())

    def once() -> None:
        optimizer.zero_grad()
        torch.nn.functional.nll_loss(log_mean_probability(model(x)), labels).backward()
        optimizer.step()

    before = forget_peak()
    return median_ms(once, repeats), peak_mb() - before
