"""Batch norm of rows against double precision, compiled and plain."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spikeloom.accel.spiking.batch_norm import RowBatchNorm, batch_norm_of_rows
from spikeloom.accel.spiking.kernels import loader

BACKENDS = pytest.mark.parametrize("backend", ["compiled", "torch"])


@pytest.fixture(autouse=True)
def _a_compiler_where_one_is_asked_for(request) -> None:
    if "compiled" in request.node.name and loader.compiler() is None:
        pytest.skip("no C++ compiler")


@BACKENDS
def test_statistics_of_many_sparse_rows_are_exact(backend) -> None:
    x = (torch.rand(131_072, 4) < 0.01) * (3 + torch.rand(131_072, 4))
    with loader.use_backend(backend):
        _, mean, var, _ = batch_norm_of_rows(x, torch.ones(4), torch.zeros(4), 1e-5)
    exact = x.double()
    torch.testing.assert_close(mean, exact.mean(0), rtol=1e-6, atol=0)
    torch.testing.assert_close(var, exact.var(0, unbiased=False), rtol=3e-6, atol=0)


@BACKENDS
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    rows=st.sampled_from([2, 3, 5, 1024, 1025, 3000]), channels=st.sampled_from([1, 7, 64, 300]), seed=st.integers(0, 9)
)
def test_outputs_gradients_and_running_statistics_are_those_of_double_precision(backend, rows, channels, seed) -> None:
    torch.manual_seed(seed)
    ours, theirs = RowBatchNorm(channels), nn.BatchNorm1d(channels).double()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        nn.init.normal_(p)
        q.data.copy_(p)
    # No channel is nearly constant, and rows lie apart in memory.
    x = (torch.rand(channels, rows) + 2 * (torch.arange(rows) % 2)).t().requires_grad_()
    x64, upstream = x.detach().double().requires_grad_(), torch.randn(rows, channels)
    with loader.use_backend(backend):
        y, y64 = ours(x), theirs(x64)
        y.backward(upstream), y64.backward(upstream.double())
    torch.testing.assert_close(y.double(), y64, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(x.grad.double(), x64.grad, rtol=1e-4, atol=1e-5)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p.grad.double(), q.grad, rtol=1e-4, atol=1e-3)
    for name, buffer in ours.named_buffers():
        torch.testing.assert_close(buffer.double(), theirs.get_buffer(name).double(), rtol=1e-5, atol=1e-6)
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(x).double(), theirs(x64), rtol=1e-5, atol=1e-5)


def test_threads_change_nothing() -> None:
    x, upstream, norm = torch.randn(5000, 48).requires_grad_(), torch.randn(5000, 48), RowBatchNorm(48)
    threads, results = torch.get_num_threads(), []
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            y = norm(x)
            results.append((y, *torch.autograd.grad(y, (x, *norm.parameters()), upstream)))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


@BACKENDS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_rows_are_counted_in_float32_and_stay_what_they_are(backend, dtype) -> None:
    norm, x = RowBatchNorm(8), (3 + torch.randn(5000, 8)).to(dtype).requires_grad_()
    upstream = torch.randn(5000, 8).to(dtype)
    exact, exact_norm = x.detach().double().requires_grad_(), nn.BatchNorm1d(8).double()
    with loader.use_backend(backend):
        y, exact_y = norm(x), exact_norm(exact)
        y.backward(upstream), exact_y.backward(upstream.double())
    assert y.dtype == x.grad.dtype == dtype
    assert norm.weight.grad.dtype == torch.float32
    torch.testing.assert_close(norm.running_mean.double(), exact_norm.running_mean, rtol=1e-5, atol=0)
    torch.testing.assert_close(norm.running_var.double(), exact_norm.running_var, rtol=1e-5, atol=0)
    torch.testing.assert_close(y.double(), exact_y, rtol=0.01, atol=1e-3)
    torch.testing.assert_close(x.grad.double(), exact.grad, rtol=0.01, atol=1e-3)
    for p, q in zip(norm.parameters(), exact_norm.parameters(), strict=True):
        torch.testing.assert_close(p.grad.double(), q.grad, rtol=1e-4, atol=1e-3)


def test_one_row_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(1, 4\)"):
        RowBatchNorm(4)(torch.randn(1, 4))
