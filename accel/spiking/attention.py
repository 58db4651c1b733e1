"""Attention of spikes without softmax: rotary positions, and products that are sums of integers.

Shape suffixes: T query steps, S key steps, B batch, H heads, D features of a head. q, k, v hold 0 and 1, so a score is
an integer and every order of summation gives the same float32 below 2^24: the cheap order q (k^T v) is exact.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor


def rotate(x_TBxD: Tensor, start: int | Tensor = 0, base: float = 10_000.0) -> Tensor:
    """Rotary position embedding of x [T, B, ..., D] over interleaved pairs, positions start, start+1, …

        theta[t, i] = t * base^(-2i/D)        (a, b) = (x[2i], x[2i+1]) -> (a cos - b sin, b cos + a sin)

    Computed in float32 or better: the neuron behind it fires at exactly 1, and a half-precision cosine would decide.
    """
    dtype = torch.promote_types(x_TBxD.dtype, torch.float32)
    x = x_TBxD.to(dtype)
    steps, width = x.shape[0], x.shape[-1]
    frequency = base ** (-torch.arange(0, width, 2, device=x.device, dtype=dtype) / width)
    theta = (torch.arange(steps, device=x.device, dtype=dtype) + start)[:, None] * frequency
    theta = theta.reshape(steps, *[1] * (x.dim() - 2), width // 2)
    cos, sin = theta.cos(), theta.sin()
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2)


def spiking_attention(q_TBHD: Tensor, k_SBHD: Tensor, v_SBHD: Tensor) -> Tensor:
    """(q k^T) v / sqrt(D) over the whole sequence, as q (k^T v): [T, B, H, D], cost linear in T."""
    q, k, v = (x.permute(1, 2, 0, 3) for x in (q_TBHD, k_SBHD, v_SBHD))
    kv_BHDD = k.transpose(-1, -2) @ v
    return (q @ kv_BHDD).permute(2, 0, 1, 3) * (1 / math.sqrt(q.shape[-1]))


class CausalAttentionState(NamedTuple):
    """State of causal attention. Unlimited: the sum of k v^T. Windowed: the last W-1 steps of k and v."""

    kv_BHDD: Tensor
    k_SBHD: Tensor
    v_SBHD: Tensor


def causal_attention(
    q_TBHD: Tensor, k_TBHD: Tensor, v_TBHD: Tensor, state: CausalAttentionState | None = None, window: int | None = None
) -> tuple[Tensor, CausalAttentionState]:
    """o[t] = q[t] sum_{s<=t} k[s] v[s]^T / sqrt(D), over the past or its last `window` steps: ([T, B, H, D], state).

    A sequence may be cut anywhere: passing the state on continues it exactly.
    """
    steps, batch, heads, width = q_TBHD.shape
    if state is None:
        empty = q_TBHD.new_zeros(0, batch, heads, width)
        state = CausalAttentionState(q_TBHD.new_zeros(batch, heads, width, width), empty, empty)
    k_SBHD, v_SBHD = torch.cat((state.k_SBHD, k_TBHD)), torch.cat((state.v_SBHD, v_TBHD))
    q, k, v = (x.permute(1, 2, 0, 3) for x in (q_TBHD, k_SBHD, v_SBHD))
    now = torch.arange(steps, device=q.device)[:, None] + state.k_SBHD.shape[0]
    then = torch.arange(k_SBHD.shape[0], device=q.device)
    seen = (then <= now) if window is None else (then <= now) & (then > now - window)
    o = (q @ k.transpose(-1, -2) * seen) @ v
    if window is None:
        o = o + q @ state.kv_BHDD
        state = CausalAttentionState(state.kv_BHDD + k.transpose(-1, -2) @ v, state.k_SBHD, state.v_SBHD)
    else:
        kept = max(0, k_SBHD.shape[0] - (window - 1))
        state = CausalAttentionState(state.kv_BHDD, k_SBHD[kept:], v_SBHD[kept:])
    return o.permute(2, 0, 1, 3) * (1 / math.sqrt(width)), state
