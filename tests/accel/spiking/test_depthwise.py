"""Depthwise convolution over time against torch's own."""

import pytest
import torch
from torch import Tensor, nn

from spikeloom.accel.spiking.depthwise import DepthwiseConv1d


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("padding", [0, 15])
def test_a_depthwise_convolution_in_training_is_that_of_torch(padding, dtype):
    ours, torchs = (kind(24, 24, 31, padding=padding, groups=24, dtype=dtype) for kind in (DepthwiseConv1d, nn.Conv1d))
    torchs.load_state_dict(ours.state_dict())
    x = torch.randn(40, 3, 24, dtype=dtype).permute(1, 2, 0).requires_grad_()

    def training_pass(conv: nn.Conv1d) -> list[Tensor]:
        y = conv(x)
        return [y, *torch.autograd.grad(y.square().sum(), [x, *conv.parameters()])]

    results = training_pass(ours)
    assert results[0].permute(2, 0, 1).is_contiguous()  # as the network's [T, B, C] lies
    torch.testing.assert_close(results, training_pass(torchs), rtol=1e-4, atol=1e-4)
    assert torch.equal(ours.eval()(x), torchs(x))
