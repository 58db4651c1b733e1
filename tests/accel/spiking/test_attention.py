"""Attention of spikes: exact products, rotary positions, and the causal form cut anywhere."""

import math

import pytest
import torch
from torch import Tensor

from spikeloom.accel.spiking.attention import causal_attention, rotate, spiking_attention


def spikes(*shape: int, seed: int = 0, rate: float = 0.4) -> Tensor:
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < rate).float()


def quadratic(q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None = None) -> Tensor:
    scores = torch.einsum("tbhd,sbhd->bhts", q, k)
    scores = scores if seen is None else scores * seen
    return torch.einsum("bhts,sbhd->tbhd", scores, v) * (1 / math.sqrt(q.shape[-1]))


@pytest.mark.parametrize("steps", [1, 7, 300])
def test_linear_order_equals_quadratic_order_bit_for_bit(steps):
    q, k, v = spikes(3, steps, 2, 4, 16)
    out = spiking_attention(q, k, v)
    assert torch.equal(out, quadratic(q, k, v))
    assert out.any()


def test_one_step_of_attention_by_hand():
    q, k = torch.tensor([1.0, 1, 0, 1]), torch.tensor([1.0, 0, 1, 1])
    v = torch.tensor([0.0, 1, 1, 0])
    out = spiking_attention(*(x.reshape(1, 1, 1, 4) for x in (q, k, v)))
    assert out.flatten().tolist() == [0, 1, 1, 0]  # q.k = 2, sqrt(D) = 2


def test_rotation_of_step_zero_is_identity_and_of_step_one_is_by_hand():
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    y = rotate(x)
    assert torch.equal(y[0], x[0])
    for i, angle in enumerate((1.0, 0.01)):  # 10000^(-2i/4)
        a, b = x[1, :, 2 * i], x[1, :, 2 * i + 1]
        torch.testing.assert_close(y[1, :, 2 * i], a * math.cos(angle) - b * math.sin(angle))
        torch.testing.assert_close(y[1, :, 2 * i + 1], b * math.cos(angle) + a * math.sin(angle))


def test_rotation_preserves_norms_of_pairs():
    x = torch.randn(50, 2, 3, 16, dtype=torch.float64)
    torch.testing.assert_close(rotate(x).unflatten(-1, (8, 2)).norm(dim=-1), x.unflatten(-1, (8, 2)).norm(dim=-1))


@pytest.mark.parametrize("start", [3, torch.tensor(3)])
def test_rotation_continues_at_start(start):
    x = torch.randn(10, 2, 3, 8)
    assert torch.equal(rotate(x)[3:], rotate(x[3:], start))


def test_rotation_of_half_precision_is_computed_in_float32():
    x = spikes(200, 2, 8)
    assert torch.equal(rotate(x.bfloat16()), rotate(x))


@pytest.mark.parametrize("window", [None, 1, 4, 16, 100])
def test_causal_equals_masked_quadratic(window):
    q, k, v = spikes(3, 40, 2, 3, 8)
    ago = torch.arange(40)[:, None] - torch.arange(40)
    seen = (ago >= 0) & (ago < (window or 1000))
    assert torch.equal(causal_attention(q, k, v, window=window)[0], quadratic(q, k, v, seen))


@pytest.mark.parametrize("window", [None, 1, 4, 16])
@pytest.mark.parametrize("chunk", [1, 7, 39])
def test_causal_in_chunks_equals_whole(window, chunk):
    q, k, v = spikes(3, 40, 2, 3, 8)
    whole, last = causal_attention(q, k, v, window=window)
    state, pieces = None, []
    for t in range(0, 40, chunk):
        o, state = causal_attention(*(x[t : t + chunk] for x in (q, k, v)), state, window)
        pieces.append(o)
    assert torch.equal(torch.cat(pieces), whole)
    assert all(torch.equal(a, b) for a, b in zip(state, last, strict=True))
    assert len(state.k_SBHD) <= (0 if window is None else window - 1)
