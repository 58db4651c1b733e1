"""Batch norm of maps laid out channels last, against double precision and torch's own."""

import pytest
import torch
from torch import nn

from spikeloom.vision.models.norm import TimeBatchNorm, batch_norm

LAYOUTS = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["first", "last"])


@LAYOUTS
def test_statistics_of_many_sparse_positions_are_exact(layout: torch.memory_format) -> None:
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(8, 4, 128, 128, generator=generator) < 0.01) * (3 + torch.rand(8, 4, 128, 128, generator=generator))
    x = x.to(memory_format=layout)
    _, mean, var, _ = batch_norm(x, torch.ones(4), torch.zeros(4), 1e-5)
    exact = x.double()
    torch.testing.assert_close(mean.double(), exact.mean((0, 2, 3)), rtol=1e-6, atol=0)
    torch.testing.assert_close(var.double(), exact.var((0, 2, 3), unbiased=False), rtol=3e-6, atol=0)


@LAYOUTS
@pytest.mark.parametrize("shape", [(3, 5, 7, 6), (2, 16, 40, 40)], ids=str)
def test_outputs_gradients_and_running_statistics_are_those_of_torch(layout, shape) -> None:
    torch.manual_seed(1)
    ours, theirs = TimeBatchNorm(shape[1]), nn.BatchNorm2d(shape[1]).double()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        nn.init.normal_(p)
        q.data.copy_(p)
    for _ in range(2):
        x = (2 * torch.randn(shape) + 3).to(memory_format=layout).requires_grad_()
        x64, upstream = x.detach().double().requires_grad_(), torch.randn(shape)
        y, y64 = ours(x), theirs(x64)
        ours.zero_grad(), theirs.zero_grad()
        y.backward(upstream), y64.backward(upstream.double())
        assert y.is_contiguous(memory_format=layout)
        torch.testing.assert_close(y.double(), y64, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(x.grad.double(), x64.grad, rtol=1e-4, atol=1e-5)
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(p.grad.double(), q.grad, rtol=1e-4, atol=1e-3)
    for name, buffer in ours.named_buffers():
        torch.testing.assert_close(buffer.double(), theirs.get_buffer(name).double(), rtol=1e-6, atol=1e-6)
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(x).double(), theirs(x.double()), rtol=1e-5, atol=1e-5)


@LAYOUTS
def test_repeats_count_as_many_steps(layout: torch.memory_format) -> None:
    once, repeated = TimeBatchNorm(4), TimeBatchNorm(4)
    x = torch.randn(2, 4, 5, 5).to(memory_format=layout)
    once(x, repeats=3)
    repeated(x.repeat(3, 1, 1, 1))
    torch.testing.assert_close(once.running_mean, repeated.running_mean)
    torch.testing.assert_close(once.running_var, repeated.running_var)


def test_one_value_a_channel_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        TimeBatchNorm(4)(torch.randn(1, 4, 1, 1))
