"""The neuron, forward and backward, against its memory floor, the plain loop and, where installed, SpikingJelly."""

from collections.abc import Callable

import torch
from torch import Tensor

from spikeloom.accel.spiking.functional import LIFParameters, LIFState, lif_loop
from spikeloom.accel.spiking.ops import lif
from spikeloom.accel.spiking.surrogate import ATan
from spikeloom.benchmarks import peers
from spikeloom.benchmarks.measure import clock, medians_ms

SHAPES = ((100, 64, 256), (500, 8, 1024), (4, 32, 384, 64))
FLOOR_BYTES = 20  # forward reads x, writes s; backward reads x and the upstream gradient, writes dx; float32
COPIED_BYTES = 2**27  # read and written by one copy
Neuron = Callable[[Tensor, LIFState | None, LIFParameters], tuple[Tensor, LIFState]]
PARAMETERS = LIFParameters(tau=2.0, decay_input=False, surrogate=ATan(5.0))


def copy() -> Callable[[], None]:
    """Copies COPIED_BYTES / 2, far more than the caches of one core hold, to another place."""
    a = torch.ones(COPIED_BYTES // 8)
    b = torch.empty_like(a)

    def once() -> None:
        b.copy_(a)

    return once


def forward_backward(neuron: Neuron, x: Tensor, upstream: Tensor) -> Callable[[], None]:
    """One training pass of `neuron`, the operator or the plain loop under autograd."""
    x = x.clone().requires_grad_()

    def once() -> None:
        spikes, _ = neuron(x, None, PARAMETERS)
        torch.autograd.grad(spikes, x, upstream)  # backward() would copy the gradient into the leaf

    return once


def print_ops(repeats: int) -> None:
    """One line a shape, whose figures come from calls in turn; ratios are what to quote."""
    print(f"LIF forward + backward, float32, {torch.get_num_threads()} threads, {clock()}")
    print(
        f"{'shape':>18s} {'copy GB/s':>10s} {'ours ms':>9s} {'floor ms':>9s} {'/ floor':>8s} {'loop ms':>9s} "
        f"{'loop / ours':>12s} {'SpikingJelly / ours':>20s}"
    )
    for shape in SHAPES:
        generator = torch.Generator().manual_seed(0)
        x, upstream = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
        passes = [copy(), forward_backward(lif, x, upstream), forward_backward(lif_loop, x, upstream)]
        if peers.installed():
            passes.append(peers.lif_pass(x, upstream))
        copying, ours, loop, *peer = medians_ms(passes, repeats)
        floor = FLOOR_BYTES * x.numel() / COPIED_BYTES * copying
        speedup = f"{peer[0] / ours:.1f}" if peer else "not installed"
        print(
            f"{'×'.join(map(str, shape)):>18s} {COPIED_BYTES / copying / 1e6:10.1f} {ours:9.2f} {floor:9.2f} "
            f"{ours / floor:8.2f} {loop:9.1f} {loop / ours:12.1f} {speedup:>20s}"
        )
