"""`spikeloom bench ops`: the neuron against its memory floor, the plain loop and, where installed, SpikingJelly.
`spikeloom bench env`: what this machine runs the operators on."""

import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version

import torch
from torch import Tensor

from accel.spiking.functional import LIFParameters, LIFState, lif_loop
from accel.spiking.kernels import loader
from accel.spiking.ops import lif
from accel.spiking.surrogate import ATan
from pipelines.process import set_up
from pipelines.schema import BenchConfig

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
    else:
        raise ValueError(f"bench {config.what} is unknown; use ops or env")


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
        x.grad = None
        spikes, _ = neuron(x, None, PARAMETERS)
        spikes.backward(upstream)

    return once


def spikingjelly(x: Tensor, upstream: Tensor) -> Callable[[], None] | None:
    """The same neuron in SpikingJelly's CPU form, or None where it is not installed."""
    try:
        from spikingjelly.activation_based import neuron, surrogate
    except ImportError:
        return None
    node = neuron.LIFNode(
        tau=2.0,
        decay_input=False,
        v_reset=0.0,
        surrogate_function=surrogate.ATan(5.0),
        detach_reset=True,
        step_mode="m",
    )
    x = x.clone().requires_grad_()

    def once() -> None:
        x.grad = None
        node.reset()
        node(x).backward(upstream)

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
        peer = spikingjelly(x, upstream)
        beside = f"{median_ms(peer, max(3, repeats // 4)) / ours:.1f}" if peer else "not installed"
        name = "×".join(map(str, shape))
        print(f"{name:>18s} {ours:9.2f} {floor:9.2f} {ours / floor:8.2f} {loop:9.1f} {loop / ours:12.1f} {beside:>20s}")
