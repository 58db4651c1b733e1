"""`spikeloom bench plan`: time and memory of whole trainings on 1, 8 and 64 devices, from steps measured here.

For each network a training step is measured at two batch sizes b1 < b2 in processes of their own, on this machine as
one device; both are taken to grow linearly with the batch:

    step_s(b)    = a + c b,    memory(b) = m + k b                               a, c, m, k from the two measured steps
    exchange_s   = 2 (n - 1) / n * gradient bytes / link rate                    ring all-reduce, hidden behind nothing
    epoch_s(n)   = ceil(samples / batch) * (step_s(batch / n) + exchange_s)      the joint batch stays the recipe's
    fsdp memory  = memory(batch / n) - (1 - 1/n) * bytes of weights, gradients and moments

A device m times as fast as this machine divides step_s, not exchange_s. What is left out: reading data, validation, and
processes that wait for one another.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from spikeloom.benchmarks.measure import apart, clock, forget_peak, median_ms, peak_mb
from spikeloom.benchmarks.pretraining import pretraining_step
from spikeloom.pipelines.config.bench import PlanBenchConfig
from spikeloom.speech.models.spikescr import SpikeSCRConfig, log_mean_probability
from spikeloom.vision.models.variants import create_model

STATE = 4  # float32 copies of a trained weight: itself, its gradient, two moments of AdamW


class Task(NamedTuple):
    """A published training. small: the two batches that are measured. size: weights, and those that are trained."""

    name: str
    experiment: str
    samples: int
    epochs: int
    batch: int
    small: tuple[int, int]
    step: Callable[[int, int], tuple[float, float]]
    size: Callable[[], tuple[int, int]]


def _speech() -> nn.Module:
    return SpikeSCRConfig(width=256, heads=16, depth=2, mlp_ratio=4).build(140, 35)


def _image() -> nn.Module:
    return create_model("spikingformer_8_512")


def _eeg() -> nn.Module:
    from spikeloom.bci.models.cet_mae import CETMAEConfig
    from spikeloom.benchmarks.pretraining import VOCABULARY

    return CETMAEConfig(freeze_text=True).build(VOCABULARY)


def _measured(once: Callable[[], Any], before: float, repeats: int) -> tuple[float, float]:
    return median_ms(once, repeats), peak_mb() - before


def speech_step(repeats: int, batch: int) -> tuple[float, float]:
    """Median milliseconds and MB of a step of SpikeSCR 2L-16-256 on clips of 100 steps."""
    before = forget_peak()
    x, labels = torch.rand(100, batch, 140), torch.randint(35, (batch,))
    model = _speech()
    optimizer = torch.optim.AdamW(model.parameters())

    def once() -> None:
        optimizer.zero_grad()
        F.nll_loss(log_mean_probability(model(x)), labels).backward()
        optimizer.step()

    return _measured(once, before, repeats)


def image_step(repeats: int, batch: int) -> tuple[float, float]:
    """Median milliseconds and MB of a step of Spikingformer-8-512 on pictures of 224 x 224, four time steps."""
    before = forget_peak()
    images, labels = torch.randn(batch, 3, 224, 224), torch.randint(1000, (batch,))
    model: Any = _image().train()
    model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters())

    def once() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return _measured(once, before, repeats)


def _size(build: Callable[[], nn.Module]) -> tuple[int, int]:
    with torch.device("meta"):
        model = build()
    counts = [(p.numel(), p.numel() if p.requires_grad else 0) for p in model.parameters()]
    return sum(n for n, _ in counts), sum(n for _, n in counts)


TASKS = (
    Task("SpikeSCR 2L-16-256, SSC", "spikescr_ssc", 75_466, 300, 256, (16, 64), speech_step, lambda: _size(_speech)),
    Task("Spikingformer-8-512, ImageNet", "spikingformer_imagenet", 1_281_167, 310, 192, (1, 2), image_step,
         lambda: _size(_image)),
    Task("CET-MAE, ZuCo 1.0 and 2.0", "cet_mae_zuco_full", 20_000, 100, 32, (4, 8), pretraining_step,
         lambda: _size(_eeg)),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Line:
    """value(b) = at_none + per_sample * b."""

    at_none: float
    per_sample: float

    def __call__(self, batch: float) -> float:
        return self.at_none + self.per_sample * batch


def line(b1: int, y1: float, b2: int, y2: float) -> Line:
    """Through two measurements; a slope or an offset below zero, which noise can give, is taken as none."""
    slope = max(0.0, (y2 - y1) / (b2 - b1))
    return Line(at_none=max(0.0, y1 - slope * b1), per_sample=slope)


@dataclass(frozen=True, kw_only=True)
class Planned:
    """One training on `devices`: hours of all epochs, share of them in exchanges, GB a device by DDP and by FSDP."""

    devices: int
    hours: float
    exchanging: float
    ddp_gb: float
    fsdp_gb: float


def planned(
    task: Task, step_s: Line, memory_gb: Line, weights: int, trained: int, devices: int, speed: float, link_gb_s: float
) -> Planned:
    """Time and memory of `task` on `devices`, by the equations of this module.

    Args:
        task: samples, epochs and joint batch.
        step_s, memory_gb: of one device's batch, seconds and GB.
        weights, trained: parameters, and those with gradients.
        speed: a device's speed as a multiple of this machine's.
        link_gb_s: rate at which a device exchanges gradients, GB/s.

    Raises ValueError for more devices than samples of a joint batch.
    """
    if devices > task.batch:
        raise ValueError(f"plan.devices={devices} leaves no sample of {task.name}'s batch of {task.batch} to some")
    share = math.ceil(task.batch / devices)
    exchange_s = 2 * (devices - 1) / devices * 4e-9 * trained / link_gb_s
    one = step_s(share) / speed + exchange_s
    steps = math.ceil(task.samples / task.batch) * task.epochs
    spared = (1 - 1 / devices) * 4e-9 * (weights - trained + STATE * trained)
    ddp = memory_gb(share)
    return Planned(
        devices=devices, hours=steps * one / 3600, exchanging=exchange_s / one, ddp_gb=ddp,
        fsdp_gb=max(ddp - spared, memory_gb.per_sample * share),
    )  # fmt: skip


def print_plan(config: PlanBenchConfig, repeats: int) -> None:
    """Measured steps, then a line for each training and number of devices.

    Raises ValueError for names that are none, and for devices, speeds and rates that are not positive.
    """
    if unknown := sorted(set(config.experiments) - {task.experiment for task in TASKS}):
        raise ValueError(f"plan.experiments={unknown} are unknown; use {', '.join(t.experiment for t in TASKS)}")
    if not config.devices or min(config.devices) < 1 or config.speed <= 0 or config.link_gb_s <= 0:
        raise ValueError("plan.devices, plan.speed and plan.link_gb_s must be above 0")
    print(
        f"one device is {config.speed:g} × this machine ({torch.get_num_threads()} threads, {clock()}); gradients go "
        f"at {config.link_gb_s:g} GB/s"
    )
    for task in TASKS:
        if config.experiments and task.experiment not in config.experiments:
            continue
        (weights, trained), (b1, b2) = task.size(), task.small
        (ms1, mb1), (ms2, mb2) = (apart(task.step, max(1, repeats // 10), b) for b in (b1, b2))
        step_s, memory_gb = line(b1, ms1 / 1e3, b2, ms2 / 1e3), line(b1, mb1 / 1e3, b2, mb2 / 1e3)
        print(
            f"{task.name} (experiment={task.experiment}): {task.samples:,} samples, {task.epochs} epochs, batch "
            f"{task.batch}, {weights / 1e6:.1f} M parameters\n  measured: batch {b1} {ms1:.0f} ms, {mb1:.0f} MB; "
            f"batch {b2} {ms2:.0f} ms, {mb2:.0f} MB"
        )
        print(f"  {'devices':>7s} {'days':>9s} {'exchanging':>10s} {'GB (ddp)':>9s} {'GB (fsdp)':>9s}")
        for n in config.devices:
            if n > task.batch:
                print(f"  {n:7d} more than the {task.batch} samples of a batch")
                continue
            p = planned(task, step_s, memory_gb, weights, trained, n, config.speed, config.link_gb_s)
            print(f"  {n:7d} {p.hours / 24:9.2f} {p.exchanging:10.1%} {p.ddp_gb:9.2f} {p.fsdp_gb:9.2f}")
