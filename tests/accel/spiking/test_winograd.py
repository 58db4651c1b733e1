"""Convolutions in fewer multiplications, against plain ones in double precision."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import conv2d

from spikeloom.accel.spiking.events import SpikeConv2d, dense_from
from spikeloom.accel.spiking.kernels import loader
from spikeloom.accel.spiking.winograd import pays, winograd_conv
from tests.timing import least_s

pytestmark = pytest.mark.skipif(loader.compiler() is None, reason="no C++ compiler: convolutions are plain")


def maps(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def plain(x: Tensor, weight: Tensor) -> Tensor:
    return conv2d(x.double().permute(0, 3, 1, 2), weight.double(), padding=1).permute(0, 2, 3, 1)


def relative_l2(a: Tensor, b: Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    batch=st.integers(1, 5),
    height=st.integers(1, 33),
    width=st.integers(1, 33),
    n_in=st.sampled_from([8, 24, 96]),
    n_out=st.sampled_from([8, 16, 40]),
    seed=st.integers(0, 99),
)
def test_it_is_a_convolution_whatever_the_size(batch, height, width, n_in, n_out, seed):
    x, weight = maps(batch, height, width, n_in, seed=seed), maps(n_out, n_in, 3, 3, seed=seed + 1)
    y = winograd_conv(x, weight)
    assert y.shape == (batch, height, width, n_out)
    assert relative_l2(y, plain(x, weight)) < 5e-6


def test_inputs_and_kernels_may_lie_anyhow():
    x, weight = maps(3, 16, 20, 9).transpose(1, 3), maps(3, 3, 16, 8).permute(3, 2, 0, 1)
    assert relative_l2(winograd_conv(x, weight), plain(x, weight)) < 5e-6


def test_a_picture_does_not_reach_the_others():
    """Not even by the margin of the last tiles, which a map of 9 x 9 has."""
    x, weight = maps(30, 9, 9, 8), maps(8, 8, 3, 3, seed=1)
    whole = winograd_conv(x, weight)
    x[4] = float("nan")
    broken = winograd_conv(x, weight)
    assert torch.equal(broken[:4], whole[:4])
    assert broken[4].isnan().all()
    assert torch.equal(broken[5:], whole[5:])


@pytest.mark.skipif(loader.compiler() is None or dense_from(3) == 0, reason="without AVX2 always dense")
def test_a_gradient_of_many_pixels_comes_this_way_and_is_that_of_the_dense_layer(monkeypatch):
    torch.manual_seed(0)
    layer = SpikeConv2d(16, 24, 3, padding=1)
    x = (torch.rand(10, 16, 14, 18) < 0.1).float().to(memory_format=torch.channels_last).requires_grad_()
    gy = torch.randn(10, 24, 14, 18)
    calls = []
    monkeypatch.setattr(
        "spikeloom.accel.spiking.winograd.winograd_conv", lambda *args: calls.append(1) or winograd_conv(*args)
    )
    (gx,) = torch.autograd.grad(layer(x), x, gy)
    assert calls
    assert gx.is_contiguous(memory_format=torch.channels_last)
    double = x.detach().double().requires_grad_()
    (expected,) = torch.autograd.grad(conv2d(double, layer.weight.detach().double(), padding=1), double, gy.double())
    assert relative_l2(gx, expected) < 5e-6


@pytest.mark.parametrize(
    ("x", "n_out", "why"),
    [
        (torch.zeros(8, 32, 32, 8), 12, "channels that fill no vector"),
        (torch.zeros(8, 32, 32, 9), 8, "channels that fill no vector"),
        (torch.zeros(2, 16, 16, 8), 8, "few tiles"),
        (torch.zeros(500, 2, 2, 8), 8, "tiles that are mostly margin"),
        (torch.zeros(8, 32, 32, 8, dtype=torch.float64), 8, "double precision"),
        (torch.zeros(8, 32, 32, 8, dtype=torch.bfloat16), 8, "half precision"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_it_stays_away_where_it_is_no_help(x, n_out, why):
    assert pays(torch.zeros(8, 32, 32, 8), 8)
    assert not pays(x, n_out)
    with loader.use_backend("torch"):
        assert not pays(torch.zeros(8, 32, 32, 8), 8)


def test_it_is_faster_than_a_plain_convolution():
    x, weight = maps(16, 16, 16, 192), maps(192, 192, 3, 3, seed=1)
    x_first, threads = x.permute(0, 3, 1, 2), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        fast, slow = least_s(lambda: winograd_conv(x, weight), lambda: conv2d(x_first, weight, padding=1), runs=10)
    finally:
        torch.set_num_threads(threads)
    assert fast < slow
