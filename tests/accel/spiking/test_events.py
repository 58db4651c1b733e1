"""Products that skip zeros, against the dense ones."""

import time
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from accel.spiking import events
from accel.spiking.events import SpikeLinear, active_share, dense_from, event_product, event_weight_gradient
from accel.spiking.kernels import loader

pytestmark = pytest.mark.skipif(
    loader.compiler() is None or dense_from() == 0, reason="no C++ compiler, or a processor without AVX2: always dense"
)


def spikes(*shape: int, share: float, seed: int = 0) -> Tensor:
    """Whole numbers, as the sum of several neurons is, most of them 0."""
    generator = torch.Generator().manual_seed(seed)
    active = torch.rand(shape, generator=generator) < share
    return active * torch.randint(1, 4, shape, generator=generator).float()


def layers(n_in: int, n_out: int, *, bias: bool = True, seed: int = 0) -> tuple[SpikeLinear, nn.Linear]:
    torch.manual_seed(seed)
    ours, dense = SpikeLinear(n_in, n_out, bias=bias), nn.Linear(n_in, n_out, bias=bias)
    dense.load_state_dict(ours.state_dict())
    return ours, dense


def training_pass(layer: nn.Linear, x: Tensor) -> list[Tensor]:
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
    return any("EventLinear" in name for name in names)


def least_s(call: Callable[[], object], runs: int = 30) -> float:
    """Least processor time of a call, in seconds: what others do on the machine can only add."""

    def run() -> float:
        start = time.process_time()
        call()
        return time.process_time() - start

    return min(run() for _ in range(runs))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    rows=st.integers(1, 140),
    n_in=st.integers(1, 600),
    n_out=st.sampled_from([16, 32, 48, 64, 80, 128, 208]),
    share=st.sampled_from([0.0, 0.02, 0.2, 0.33]),
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


def test_threads_change_nothing():
    ours, _ = layers(1100, 96)
    x, threads = spikes(300, 1100, share=0.1), torch.get_num_threads()
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
    with torch.autocast("cpu", torch.bfloat16):
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


def test_skipping_zeros_is_faster_than_not_skipping_them():
    """Half of the time at an eighth of the activity, measured; a kernel whose sums spill takes five times as long."""
    x, weight, gy = spikes(2000, 256, share=0.12), torch.randn(256, 256), torch.randn(2000, 256)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        forward = least_s(lambda: event_product(x, weight)), least_s(lambda: x @ weight.t())
        backward = least_s(lambda: event_weight_gradient(x, gy)), least_s(lambda: gy.t() @ x)
    finally:
        torch.set_num_threads(threads)
    assert forward[0] < forward[1]
    assert backward[0] < backward[1]
