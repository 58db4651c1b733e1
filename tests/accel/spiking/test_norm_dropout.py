"""Normalisation that sees valid steps only, and dropout."""

import pytest
import torch
from torch import Tensor, nn

from spikeloom.accel.spiking import dropout as dropout_module
from spikeloom.accel.spiking.dropout import Dropout, drop
from spikeloom.accel.spiking.kernels import loader
from spikeloom.accel.spiking.kernels.loader import use_backend
from spikeloom.accel.spiking.norm import LinearNorm, SequenceBatchNorm, mask_steps

LENGTHS = torch.tensor([9, 4, 1])
MASK = torch.arange(9)[:, None] < LENGTHS


def build(kind: str) -> tuple[nn.Module, nn.Module]:
    """(module on [T, B, C] with mask, the same map of packed rows in plain torch)"""
    torch.manual_seed(0)
    if kind == "norm":
        norm = SequenceBatchNorm(5)
        rows: nn.Module = nn.BatchNorm1d(5)
        module: nn.Module = norm
    else:
        module = LinearNorm(5, 7, bias=True)
        rows = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7))
        norm = module.norm
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    rows.load_state_dict(dict(zip(rows.state_dict(), module.state_dict().values(), strict=True)))
    return module.double(), rows.double()


def frames(fill: float) -> Tensor:
    x = torch.randn(9, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 3 + 2
    return torch.where(MASK[:, :, None], x, fill)


@pytest.mark.parametrize("kind", ["norm", "linear"])
@pytest.mark.parametrize("fill", [0.0, 1e6, torch.nan, torch.inf])
def test_masked_norm_equals_batchnorm_of_the_packed_valid_rows(kind, fill):
    module, rows = build(kind)
    x = frames(fill).requires_grad_()
    packed = x.detach()[MASK].requires_grad_()
    for _ in range(2):  # training moves the running statistics, too
        y, expected = module(x, MASK), rows(packed)
        torch.testing.assert_close(y[MASK], expected, rtol=0, atol=1e-12)
        assert (y[~MASK] == 0).all()
    weight = torch.randn_like(expected)
    (y[MASK] * weight).sum().backward()
    (expected * weight).sum().backward()
    torch.testing.assert_close(x.grad[MASK], packed.grad, rtol=0, atol=1e-12)
    assert (x.grad[~MASK] == 0).all()
    for (name, a), b in zip(module.named_parameters(), rows.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=1e-11, msg=name)
    for a, b in zip(module.buffers(), rows.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    y, expected = module.eval()(x, MASK), rows.eval()(packed)
    torch.testing.assert_close(y[MASK], expected, rtol=0, atol=1e-12)
    assert (y[~MASK] == 0).all()


@pytest.mark.parametrize("kind", ["norm", "linear"])
@pytest.mark.parametrize("train", [True, False])
def test_no_mask_means_every_step_is_valid(kind, train):
    module = build(kind)[0].train(train)
    x = frames(0.5)
    torch.testing.assert_close(module(x), module(x, torch.ones_like(MASK)), rtol=0, atol=1e-12)


def test_mask_steps_silences_nan_forward_and_backward():
    x = frames(torch.nan).requires_grad_()
    y = mask_steps(x, MASK)
    y.sum().backward()
    assert torch.equal(y, frames(0.0))
    assert torch.equal(x.grad, MASK[:, :, None].expand_as(x).double())
    assert mask_steps(x, None) is x


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_drops_at_its_rate_and_scales_what_it_keeps(p):
    torch.manual_seed(0)
    y = Dropout(p)(torch.ones(1001, 999))
    dropped = (y == 0).float().mean().item()
    assert dropped == pytest.approx(p, abs=5 * (p * (1 - p) / y.numel()) ** 0.5)
    torch.testing.assert_close(y[y != 0].unique(), torch.tensor([1 / (1 - p)]), rtol=2e-4, atol=0)
    assert y.mean().item() == pytest.approx(1, abs=0.02)


def test_dropout_draws_are_independent_of_neighbours():
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(400_000)) != 0).double() * 2 - 1
    for lag in (1, 2, 3, 4, 8):
        assert abs((kept[lag:] * kept[:-lag]).mean().item()) < 5 / 400_000**0.5


def test_dropout_gradient_uses_the_mask_of_the_forward_pass():
    x = torch.ones(1000, requires_grad=True)
    y = Dropout(0.3)(x)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_dropout_is_the_identity_in_evaluation_and_at_zero():
    x = torch.randn(7, 3)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_dropout_is_seeded_by_torch(dtype):
    x, dropout = torch.ones(3, 5, 7, dtype=dtype), Dropout(0.5)
    torch.manual_seed(1)
    first, second = dropout(x), dropout(x)
    torch.manual_seed(1)
    again = dropout(x)
    assert first.dtype == dtype
    assert torch.equal(first, again)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("p", [-0.1, 1.0, float("nan")])
def test_dropout_outside_its_range_is_an_error(p):
    with pytest.raises(ValueError, match=r"\[0, 1\), got "):
        Dropout(p)


@pytest.mark.parametrize("dtype", loader.TYPES)
@pytest.mark.parametrize("size", [1, 3, 2047, 2049, 100_003])
def test_dropout_draws_alike_on_every_backend_and_number_of_threads(dtype, size):
    x = torch.randn(size).to(dtype)
    with use_backend("torch"):
        expected = drop(x, 20_000, key=-(2**63) + 5)
    threads = torch.get_num_threads()
    try:
        for n in (1, 2, 3):
            torch.set_num_threads(n)
            with use_backend(loader.backend()):
                assert torch.equal(drop(x, 20_000, key=-(2**63) + 5), expected)
    finally:
        torch.set_num_threads(threads)


def test_dropout_follows_the_published_mixer():
    """The first words of SplitMix64 started at 0, as its authors publish them."""
    words = dropout_module._mix(torch.arange(1, 4)) & 0xFFFFFFFF
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert words.tolist() == [word & 0xFFFFFFFF for word in published]
