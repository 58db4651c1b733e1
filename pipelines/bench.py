"""`spikeloom bench ops`: the neuron against its memory floor, the plain loop and, where installed, SpikingJelly.
`spikeloom bench step`: a training step of SpikeSCR beside the same network in SpikingJelly layers, time and memory.
`spikeloom bench cochlea`: wavs to spikes, time and memory, in pipelines/cochlea_bench.py.
`spikeloom bench env`: what this machine runs the operators on."""

import os
import platform
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from multiprocessing import get_context
from resource import RUSAGE_SELF, getrusage

import torch
from torch import Tensor

from accel.spiking.functional import LIFParameters, LIFState, lif_loop
from accel.spiking.kernels import loader
from accel.spiking.ops import lif
from accel.spiking.surrogate import ATan
from pipelines import peers
from pipelines.process import set_up
from pipelines.schema import BenchConfig
from speech.spikescr import SpikeSCRConfig, log_mean_probability

SHAPES = ((100, 64, 256), (500, 8, 1024), (4, 32, 384, 64))
FLOOR_BYTES = 20  # forward reads x, writes s; backward reads x and the upstream gradient, writes dx; float32
Neuron = Callable[[Tensor, LIFState | None, LIFParameters], tuple[Tensor, LIFState]]
PARAMETERS = LIFParameters(tau=2.0, decay_input=False, surrogate=ATan(5.0))


def run(config: BenchConfig) -> None:
    set_up()
    if config.what == "env":
        print_environment()
    elif config.what == "ops":
        print_ops(config.repeats)
    elif config.what == "step":
        print_steps(config.repeats)
    elif config.what == "cochlea":
        from pipelines.cochlea_bench import print_cochlea

        print_cochlea(config.repeats)
    else:
        raise ValueError(f"bench {config.what} is unknown; use ops, step, cochlea or env")


def print_environment() -> None:
    print(f"backend    {loader.backend()} (compiler {loader.compiler()}, cache {loader.cache_dir()})")
    print(f"threads    {torch.get_num_threads()} of {os.cpu_count()} processors")
    print(f"torch      {torch.__version__}, CUDA {'available' if torch.cuda.is_available() else 'not available'}")
    print(f"python     {platform.python_version()} on {platform.platform()}")
    print(f"spikeloom  {version('spikeloom')}")


def median_ms(f: Callable[[], object], repeats: int) -> float:
    f()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        f()
        times.append(time.perf_counter() - start)
    return 1e3 * sorted(times)[len(times) // 2]


def copy_bandwidth() -> float:
    """Bytes read plus written per second by a copy of 64 MB, far larger than the caches of one core."""
    a = torch.ones(16 << 20)
    b = torch.empty_like(a)
    return 2 * a.numel() * a.element_size() / (median_ms(lambda: b.copy_(a), 20) / 1e3)


def forward_backward(neuron: Neuron, x: Tensor, upstream: Tensor) -> Callable[[], None]:
    """One training pass of `neuron`, the operator or the plain loop under autograd."""
    x = x.clone().requires_grad_()

    def once() -> None:
        spikes, _ = neuron(x, None, PARAMETERS)
        torch.autograd.grad(spikes, x, upstream)  # backward() would copy the gradient into the leaf

    return once


def print_ops(repeats: int) -> None:
    """One line a shape; every figure of a line comes from the same process, ratios are what to quote."""
    bandwidth = copy_bandwidth()
    print(
        f"LIF forward + backward, float32, {torch.get_num_threads()} threads, copy bandwidth {bandwidth / 1e9:.1f} GB/s"
    )
    print(
        f"{'shape':>18s} {'ours ms':>9s} {'floor ms':>9s} {'/ floor':>8s} {'loop ms':>9s} {'loop / ours':>12s} "
        f"{'SpikingJelly / ours':>20s}"
    )
    for shape in SHAPES:
        generator = torch.Generator().manual_seed(0)
        x, upstream = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
        ours = median_ms(forward_backward(lif, x, upstream), repeats)
        loop = median_ms(forward_backward(lif_loop, x, upstream), max(3, repeats // 4))
        floor = 1e3 * FLOOR_BYTES * x.numel() / bandwidth
        beside = "not installed"
        if peers.installed():
            beside = f"{median_ms(peers.lif_pass(x, upstream), max(3, repeats // 4)) / ours:.1f}"
        name = "×".join(map(str, shape))
        print(f"{name:>18s} {ours:9.2f} {floor:9.2f} {ours / floor:8.2f} {loop:9.1f} {loop / ours:12.1f} {beside:>20s}")


STEPS = (  # model, T, B
    ("1L-8-128", SpikeSCRConfig(), 100, 32),
    ("2L-16-256", SpikeSCRConfig(width=256, heads=16, depth=2, mlp_ratio=4), 100, 32),
    ("1L-8-128", SpikeSCRConfig(), 500, 32),
    ("2L-16-256", SpikeSCRConfig(width=256, heads=16, depth=2, mlp_ratio=4), 500, 32),
)


def print_steps(repeats: int) -> None:
    """One line a network; each figure comes from a fresh process of this run, so that memory can be told apart."""
    print(f"training step of SpikeSCR (forward, loss, backward, AdamW), 140 inputs, {torch.get_num_threads()} threads")
    print(
        f"{'network':>12s} {'T':>5s} {'B':>4s} {'ours ms':>9s} {'ours MB':>9s} {'SpikingJelly ms':>16s} {'MB':>7s} "
        f"{'time ratio':>11s}"
    )
    for name, config, steps, batch in STEPS:
        ours_ms, ours_mb = apart(training_step, "ours", config, steps, batch, max(3, repeats // 4))
        row = f"{name:>12s} {steps:5d} {batch:4d} {ours_ms:9.0f} {ours_mb:9.0f}"
        if peers.installed():
            peer_ms, peer_mb = apart(training_step, "SpikingJelly", config, steps, batch, max(3, repeats // 4))
            print(f"{row} {peer_ms:16.0f} {peer_mb:7.0f} {peer_ms / ours_ms:11.1f}")
        else:
            print(f"{row} {'not installed':>16s}")


def apart(measure: Callable[..., tuple[float, float]], *args: object) -> tuple[float, float]:
    """`measure(*args)` in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=set_up) as pool:
        return pool.submit(measure, *args).result()


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

    before = peak_mb()
    return median_ms(once, repeats), peak_mb() - before


def peak_mb() -> float:
    return getrusage(RUSAGE_SELF).ru_maxrss / 1024
