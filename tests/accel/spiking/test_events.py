"""Products that skip zeros, against the dense ones."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import conv2d
from torch.nn.grad import conv2d_weight

from spikeloom.accel.spiking import events
from spikeloom.accel.spiking.events import (
    SpikeConv2d,
    SpikeLinear,
    active_share,
    dense_from,
    event_conv,
    event_weight_gradient,
)
from spikeloom.accel.spiking.kernels import loader
from tests.timing import least_s

pytestmark = pytest.mark.skipif(
    loader.compiler() is None or dense_from() == 0, reason="no C++ compiler, or a processor without AVX2: always dense"
)


def spikes(*shape: int, share: float, seed: int = 0) -> Tensor:
    """Whole numbers, as the sum of several neurons is, most of them 0."""
    generator = torch.Generator().manual_seed(seed)
    active = torch.rand(shape, generator=generator) < share
    return active * torch.randint(1, 4, shape, generator=generator).float()


def convolutions(n_in: int, n_out: int, side: int, *, seed: int = 0) -> tuple[SpikeConv2d, nn.Conv2d]:
    torch.manual_seed(seed)
    ours, dense = (kind(n_in, n_out, side, padding=side // 2) for kind in (SpikeConv2d, nn.Conv2d))
    dense.load_state_dict(ours.state_dict())
    return ours, dense


def channels_last(x: Tensor) -> Tensor:
    return x.to(memory_format=torch.channels_last)


def layers(n_in: int, n_out: int, *, bias: bool = True, seed: int = 0) -> tuple[SpikeLinear, nn.Linear]:
    torch.manual_seed(seed)
    ours, dense = SpikeLinear(n_in, n_out, bias=bias), nn.Linear(n_in, n_out, bias=bias)
    dense.load_state_dict(ours.state_dict())
    return ours, dense


def training_pass(layer: nn.Module, x: Tensor) -> list[Tensor]:
    """Output and the gradients of input, weight and bias."""
    x = x.clone().requires_grad_()
    y = layer(x)
    generator = torch.Generator().manual_seed(7)
    return [y, *torch.autograd.grad(y, [x, *layer.parameters()], torch.randn(y.shape, generator=generator))]


def took_events(y: Tensor) -> bool:
    names, nodes = set(), [y.grad_fn]
    while nodes:
        node = nodes.pop()
        names.add(node.name())
        nodes += [before for before, _ in node.next_functions if before is not None]
    return any("EventConv" in name for name in names)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    batch=st.integers(1, 3),
    height=st.integers(1, 20),
    width=st.one_of(st.integers(1, 12), st.just(70)),
    n_in=st.one_of(st.integers(1, 80), st.just(300)),
    n_out=st.sampled_from([8, 16, 48, 72, 96]),
    side=st.sampled_from([1, 3, 5]),
    share=st.sampled_from([0.0, 0.05, 0.2]),
    seed=st.integers(0, 99),
)
def test_a_training_pass_equals_that_of_a_dense_convolution(batch, height, width, n_in, n_out, side, share, seed):
    ours, dense = convolutions(n_in, n_out, side, seed=seed)
    x = channels_last(spikes(batch, n_in, height, width, share=share, seed=seed))
    x *= active_share(x) < dense_from(side)
    results = training_pass(ours, x)
    assert took_events(results[0])
    for a, b in zip(results, training_pass(dense, x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5 * max(1.0, b.abs().max().item()))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    rows=st.integers(1, 140),
    n_in=st.integers(1, 600),
    n_out=st.sampled_from([8, 16, 32, 40, 48, 64, 80, 128, 208]),
    share=st.sampled_from([0.0, 0.02, 0.2, 0.28]),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_training_pass_equals_that_of_a_dense_layer(rows, n_in, n_out, share, bias, seed):
    ours, dense = layers(n_in, n_out, bias=bias, seed=seed)
    x = spikes(rows, n_in, share=share, seed=seed)
    x *= active_share(x) < dense_from()  # small ones may come out busy
    results = training_pass(ours, x)
    assert took_events(results[0])
    for a, b in zip(results, training_pass(dense, x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_threads_change_nothing(kind):
    if kind == "linear":
        ours, x = layers(1100, 96)[0], spikes(300, 1100, share=0.1)
    else:
        ours, x = convolutions(70, 96, 3)[0], channels_last(spikes(5, 70, 24, 20, share=0.1))
    threads = torch.get_num_threads()
    try:
        results = []
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            y, _, for_weight, _ = training_pass(ours, x)  # dL/dx is torch's
            results.append((y, for_weight))
    finally:
        torch.set_num_threads(threads)
    for y, for_weight in results[1:]:
        assert torch.equal(y, results[0][0])
        assert torch.equal(for_weight, results[0][1])


def test_a_sample_does_not_depend_on_the_others():
    ours, _ = layers(130, 48)
    x = spikes(90, 130, share=0.2)
    whole = ours(x)
    assert took_events(whole)
    for row in (0, 31, 32, 89):
        assert torch.equal(ours(x[row : row + 1]), whole[row : row + 1])


def test_a_picture_does_not_depend_on_the_others():
    ours, _ = convolutions(40, 48, 3)
    x = channels_last(spikes(6, 40, 9, 9, share=0.1))
    whole = ours(x)
    assert took_events(whole)
    for i in (0, 3, 5):
        assert torch.equal(ours(x[i : i + 1]), whole[i : i + 1])


def test_a_convolution_hands_its_layout_on():
    ours, _ = convolutions(40, 48, 3)
    x = channels_last(spikes(6, 40, 9, 9, share=0.1)).requires_grad_()
    y = ours(x)
    y.sum().backward()
    for map_ in (y, x.grad):
        assert map_.is_contiguous(memory_format=torch.channels_last)
    assert ours.weight.grad.stride() == ours.weight.stride()


@pytest.mark.parametrize(
    "options",
    [{"stride": 2}, {"padding": 0}, {"dilation": 2, "padding": 2}, {"groups": 2}, {"padding_mode": "circular"},
     {"kernel_size": (3, 1)}, {"kernel_size": 2}, {"channels_first": True}],
    ids=str,
)  # fmt: skip
def test_other_convolutions_are_dense_bit_for_bit(options):
    options = {"kernel_size": 3, "padding": 1, **options}
    first = options.pop("channels_first", False)
    torch.manual_seed(0)
    ours, dense = (kind(16, 32, **options) for kind in (SpikeConv2d, nn.Conv2d))
    dense.load_state_dict(ours.state_dict())
    x = spikes(2, 16, 9, 9, share=0.1)
    x = x if first else channels_last(x)
    assert not took_events(ours(x))
    assert torch.equal(ours(x), dense(x))


@pytest.mark.parametrize("tiles", [True, False])
def test_matrix_tiles_make_bfloat16_products_dense_from_fewer_spikes(tiles, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True} if tiles else {})
    monkeypatch.setattr(events, "_dense_time", events._dense_time.__wrapped__)  # past what it remembers
    for dtype, time in ((torch.bfloat16, 0.1 if tiles else 0.5), (torch.float16, 0.5)):
        with torch.autocast("cpu", dtype):
            share = dense_from()
        assert share == pytest.approx(time * dense_from())


@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_under_bfloat16_autocast_sums_are_exact_and_the_input_gradient_is_a_bfloat16_product(kind, monkeypatch):
    monkeypatch.setattr(events, "_dense_time", lambda dtype: 1.0 if dtype is None else 0.5)  # AMX or not
    if kind == "linear":
        (ours, dense), x = layers(64, 32), spikes(50, 64, share=0.08)
    else:
        (ours, dense), x = convolutions(32, 16, 3), channels_last(spikes(2, 32, 7, 7, share=0.05))
    with torch.autocast("cpu", torch.bfloat16):
        assert dense_from(1) < 0.4
        busy = torch.ones_like(x)
        assert not took_events(ours(busy))
        y, for_x, for_weight, for_bias = training_pass(ours, x)
        assert took_events(ours(x))
    expected = training_pass(dense, x)
    for a, b in zip((y, for_weight, for_bias), (expected[0], *expected[2:]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(for_x, expected[1], rtol=0.02, atol=0.02)
    assert not torch.allclose(for_x, expected[1], rtol=1e-5, atol=1e-5)


def test_a_compiled_layer_is_dense():
    ours, dense = layers(64, 32)
    x = spikes(50, 64, share=0.1)
    compiled = torch.compile(ours, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), dense(x))


def test_any_layout_and_any_number_of_axes():
    ours, dense = layers(40, 32)
    x = spikes(6, 40, 5, share=0.2).transpose(1, 2)
    assert took_events(ours(x))
    assert ours(x).shape == (6, 5, 32)
    torch.testing.assert_close(ours(x), dense(x), rtol=1e-5, atol=1e-5)
    slices = spikes(30, 80, share=0.2)[:, ::2]
    torch.testing.assert_close(training_pass(ours, slices), training_pass(dense, slices), rtol=1e-5, atol=1e-5)


def test_only_what_needs_a_gradient_gets_one(monkeypatch):
    ours, _ = layers(40, 32)
    x = spikes(30, 40, share=0.2)
    ours.weight.requires_grad_(False)
    monkeypatch.setattr(events, "event_weight_gradient", None)  # a call would raise
    ours(x).sum().backward()
    assert ours.weight.grad is None
    torch.testing.assert_close(ours.bias.grad, torch.full((32,), 30.0))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_active_share_is_counted_exactly(share):
    x = spikes(113, 1009, share=share)
    assert active_share(x) == int((x != 0).sum()) / x.numel()
    assert active_share(x.t()[3:]) == int((x.t()[3:] != 0).sum()) / x[:, 3:].numel()
    x[0, 0] = float("nan")
    assert active_share(x) == int((x != 0).sum()) / x.numel()


def test_busy_inputs_evaluation_other_numbers_and_the_torch_backend_are_dense_bit_for_bit():
    ours, dense = layers(64, 32)
    quiet, busy = spikes(50, 64, share=0.1), spikes(50, 64, share=0.7)
    assert took_events(ours(quiet))

    def same(x: Tensor) -> None:
        assert not took_events(ours(x))
        assert torch.equal(ours(x), dense(x))

    same(busy)
    odd, odd_dense = layers(64, 35)
    assert torch.equal(odd(quiet), odd_dense(quiet))
    with loader.use_backend("torch"):
        same(quiet)
    ours.eval()
    same(quiet)
    ours.train().double(), dense.double()
    same(quiet.double())


def test_a_pass_without_gradients_equals_one_with_them():
    ours, _ = layers(64, 32)
    x = spikes(50, 64, share=0.1)
    with torch.no_grad():  # as activation checkpointing runs it first
        without = ours(x)
    assert torch.equal(without, ours(x))


def test_a_second_derivative_is_refused():
    ours, _ = layers(20, 16)
    x = spikes(10, 20, share=0.2).requires_grad_()
    (grad,) = torch.autograd.grad(ours(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


@pytest.mark.parametrize("side", [1, 3])
def test_skipping_zeros_is_faster_than_not_skipping_them(side):
    """Half of the time at an eighth of the activity, measured; a kernel whose sums spill takes five times as long."""
    x, weight, gy = spikes(6, 16, 16, 128, share=0.1), torch.randn(128, 128, side, side), torch.randn(6, 16, 16, 128)
    weight, threads = channels_last(weight), torch.get_num_threads()
    x_first, gy_first = x.permute(0, 3, 1, 2), gy.permute(0, 3, 1, 2)
    torch.set_num_threads(1)
    try:
        forward, backward, dense_forward, dense_backward = least_s(
            lambda: event_conv(x, weight),
            lambda: event_weight_gradient(x, gy, side),
            lambda: conv2d(x_first, weight, padding=side // 2),
            lambda: conv2d_weight(x_first, weight.shape, gy_first, padding=side // 2),
        )
    finally:
        torch.set_num_threads(threads)
    assert forward < dense_forward
    assert backward < dense_backward
