"""The neuron, forward and backward, against its memory floor, the plain loop and, where installed, SpikingJelly."""

from collections.abc import Callable

import torch
from torch import Tensor

from accel.spiking.functional import LIFParameters, LIFState, lif_loop
from accel.spiking.ops import lif
from accel.spiking.surrogate import ATan
from pipelines.benchmarks import peers
from pipelines.benchmarks.measure import clock, median_ms

SHAPES = ((100, 64, 256), (500, 8, 1024), (4, 32, 384, 64))
FLOOR_BYTES = 20  # forward reads x, writes s; backward reads x and the upstream gradient, writes dx; float32
Neuron = Callable[[Tensor, LIFState | None, LIFParameters], tuple[Tensor, LIFState]]
PARAMETERS = LIFParameters(tau=2.0, decay_input=False, surrogate=ATan(5.0))


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
        f"LIF forward + backward, float32, {torch.get_num_threads()} threads, {clock()}, "
        f"copy bandwidth {bandwidth / 1e9:.1f} GB/s"
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
