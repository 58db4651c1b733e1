"""`spikeloom bench kernels`: products that skip zeros and Winograd gradients, relative to PyTorch's dense operators.

One thread. Each line comes from calls in turn; a fraction below 1 is faster than PyTorch.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import conv2d, linear
from torch.nn.grad import conv2d_weight

from spikeloom.accel.spiking.events import dense_from, event_conv, event_weight_gradient
from spikeloom.accel.spiking.kernels import loader
from spikeloom.accel.spiking.winograd import winograd_conv
from spikeloom.benchmarks.measure import clock, medians_ms

ACTIVITIES = (0.02, 0.12, 0.2, 0.3, 0.4, 0.5)  # fractions of inputs that are not 0
# channels in and out, height and width, side of the kernel
MAPS = (
    (48, 96, 32, 3),
    (96, 192, 32, 3),
    (192, 384, 16, 3),
    (384, 384, 8, 3),
    (384, 1536, 8, 1),
)  # in, out, size, side
GRADIENTS = ((96, 48, 32), (192, 96, 32), (192, 192, 32), (384, 192, 16), (384, 384, 8))  # of, from, size
ROWS, INPUTS, OUTPUTS = 3200, 1024, 256  # of the linear map
BATCH = 16  # maps in a call


def print_kernels(repeats: int) -> None:
    """Fractions of the time of PyTorch: linear maps and convolutions by activity, input gradients by shape.

    Raises:
        ValueError: without a compiled backend, or on a processor on which products are always dense.
    """
    if loader.backend() != "compiled" or dense_from() == 0:
        raise ValueError("bench kernels needs the compiled backend and AVX2; see `spikeloom bench env`")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        _print(repeats)
    finally:
        torch.set_num_threads(threads)


def _print(repeats: int) -> None:
    print(f"time as a fraction of the dense product of PyTorch (forward, weight gradient), 1 thread, {clock()}")
    print(f"{'activity':>24s} " + " ".join(f"{f'{100 * activity:.0f} %':>12s}" for activity in ACTIVITIES))
    print(f"{f'linear {INPUTS} → {OUTPUTS}':>24s} " + _by_activity(_linear, repeats))
    for n_in, n_out, size, side in MAPS:
        name = f"{n_in} → {n_out}, {size}×{size}, {side}×{side}"
        row = _by_activity(lambda a, shape=(n_in, n_out, size, side): _conv(a, *shape), repeats)  # type: ignore[misc]
        print(f"{name:>24s} {row}")
    print("input gradient of 3×3 convolutions by Winograd, fraction of the time of PyTorch")
    for n_of, n_from, size in GRADIENTS:
        g, weight = _maps(BATCH, n_of, size), torch.randn(n_from, n_of, 3, 3)
        g_last = g.permute(0, 2, 3, 1)
        ours, dense = medians_ms(
            [partial(winograd_conv, g_last, weight), partial(conv2d, g, weight, padding=1)], repeats
        )
        print(f"{f'{n_of} → {n_from}, {size}×{size}':>24s} {ours / dense:12.2f}")


def _by_activity(passes: Callable[[float], list[Callable[[], object]]], repeats: int) -> str:
    cells = []
    for activity in ACTIVITIES:
        forward, gradient, dense_forward, dense_gradient = medians_ms(passes(activity), repeats)
        cells.append(f"{f'{forward / dense_forward:.2f}, {gradient / dense_gradient:.2f}':>12s}")
    return " ".join(cells)


def _linear(activity: float) -> list[Callable[[], object]]:
    """A linear map is a convolution of side 1 over rows; its dense weight gradient is one matrix product."""
    x, weight, gy = _spikes((ROWS, INPUTS), activity), torch.randn(OUTPUTS, INPUTS), torch.randn(ROWS, OUTPUTS)
    x_4d, gy_4d, weight_4d = x[None, None], gy[None, None], weight[:, :, None, None]
    return [
        lambda: event_conv(x_4d, weight_4d),
        lambda: event_weight_gradient(x_4d, gy_4d, 1),
        lambda: linear(x, weight),
        lambda: gy.T @ x,
    ]


def _conv(activity: float, n_in: int, n_out: int, size: int, side: int) -> list[Callable[[], object]]:
    x = _spikes((BATCH, size, size, n_in), activity)
    gy = torch.randn(BATCH, size, size, n_out)
    weight = torch.randn(n_out, n_in, side, side).contiguous(memory_format=torch.channels_last)
    x_first, gy_first = x.permute(0, 3, 1, 2), gy.permute(0, 3, 1, 2)
    return [
        lambda: event_conv(x, weight),
        lambda: event_weight_gradient(x, gy, side),
        lambda: conv2d(x_first, weight, padding=side // 2),
        lambda: conv2d_weight(x_first, weight.shape, gy_first, padding=side // 2),
    ]


def _spikes(shape: tuple[int, ...], activity: float) -> Tensor:
    return (torch.rand(shape, generator=torch.Generator().manual_seed(0)) < activity).float()


def _maps(batch: int, channels: int, size: int) -> Tensor:
    return torch.randn(batch, channels, size, size).contiguous(memory_format=torch.channels_last)
