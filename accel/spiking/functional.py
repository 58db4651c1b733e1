"""Neuron equations, once: one time step of a leaky integrate-and-fire neuron, and the plain loop over time.

    h[t] = v[t-1] + (x[t] - (v[t-1] - r)) / tau          decay_input
    h[t] = (v[t-1] - r) * (1 - 1/tau) + x[t] + r         otherwise
    s[t] = 1 if h[t] >= threshold else 0                 equality fires
    v[t] = r where s[t], else h[t]                       hard reset to r = v_reset
    v[t] = h[t] - s[t]*threshold                         soft reset (v_reset None; r = 0)

A hard-reset membrane leaks towards the value it resets to. tau = inf with decay_input off is the integrate-and-fire
neuron. This loop is the oracle of every compiled kernel; it is independent of kernels, modules and masks.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from spikeloom.accel.spiking.surrogate import ATan, Surrogate


class LIFState(NamedTuple):
    """State of a neuron: the membrane after reset, shape of one time step."""

    v: Tensor


@dataclass(frozen=True, kw_only=True)
class LIFParameters:
    """Constants of a LIF population. `tau` in time steps; `v_reset=None` selects the soft reset."""

    tau: float = 2.0
    decay_input: bool = True
    threshold: float = 1.0
    v_reset: float | None = 0.0
    detach_reset: bool = True
    surrogate: Surrogate = ATan()

    def __post_init__(self) -> None:
        if not self.tau >= 1.0:
            raise ValueError(f"tau must be >= 1 time step, got {self.tau}; use 2.0, or math.inf for no leak")
        if math.isinf(self.tau) and self.decay_input:
            raise ValueError("tau = inf with decay_input=True ignores every input; use decay_input=False")
        if not math.isfinite(self.threshold):
            raise ValueError(f"threshold must be finite, got {self.threshold}; use 1.0")
        if self.v_reset is not None and not self.v_reset < self.threshold:
            raise ValueError(f"v_reset must be below the threshold {self.threshold}, got {self.v_reset}; use 0.0")

    @property
    def rest(self) -> float:
        return 0.0 if self.v_reset is None else self.v_reset


class _Spike(torch.autograd.Function):
    """Heaviside step with H(0) = 1 forward, surrogate g(u) backward."""

    @staticmethod
    def forward(ctx, u: Tensor, surrogate: Surrogate) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(u)
        ctx.surrogate = surrogate
        return (u >= 0).to(u.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[no-untyped-def]
        (u,) = ctx.saved_tensors
        return grad * ctx.surrogate(u), None


def spike(u: Tensor, surrogate: Surrogate) -> Tensor:
    """1 where u >= 0, else 0; differentiable through `surrogate`."""
    return _Spike.apply(u, surrogate)


def charge(x: Tensor, v: Tensor, p: LIFParameters, tau: float | Tensor | None = None) -> Tensor:
    """Membrane before firing, h. `tau` overrides `p.tau`, as a learnable scalar in the parametric neuron."""
    tau = p.tau if tau is None else tau
    if p.decay_input:
        return v + (x - (v - p.rest)) / tau
    return (v - p.rest) * (1 - 1 / tau) + (x + p.rest)


def reset(h: Tensor, s: Tensor, p: LIFParameters) -> Tensor:
    """Membrane after firing, v. With `detach_reset` the reset carries no gradient to the spike."""
    s = s.detach() if p.detach_reset else s
    if p.v_reset is None:
        return h - s * p.threshold
    if p.detach_reset:
        return torch.where(s > 0, p.v_reset, h)  # a membrane that overflowed is reset, too: inf * 0 would stay NaN
    return h * (1 - s) + p.v_reset * s


def lif_step(
    x: Tensor, state: LIFState | None, p: LIFParameters, tau: float | Tensor | None = None
) -> tuple[Tensor, LIFState]:
    """One time step: x [...] -> (spikes [...], state). Without a state the membrane starts at rest."""
    v = torch.full_like(x, p.rest) if state is None else state.v
    h = charge(x, v, p, tau)
    s = spike(h - p.threshold, p.surrogate)
    return s, LIFState(reset(h, s, p))


def lif_loop(
    x: Tensor, state: LIFState | None, p: LIFParameters, tau: float | Tensor | None = None
) -> tuple[Tensor, LIFState]:
    """The plain loop: x [T, ...] -> (spikes [T, ...], final state). Exact, slow, and the oracle."""
    spikes: list[Tensor] = []  # of one time step each
    state = LIFState(torch.full_like(x[0], p.rest)) if state is None else state
    for x_t in x.unbind(0):
        s, state = lif_step(x_t, state, p, tau)
        spikes.append(s)
    return torch.stack(spikes), state


def lif_loop_backward(
    gs: Tensor, gv: Tensor, x: Tensor, v0: Tensor, p: LIFParameters, tau: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `lif_loop` written out: upstream gs [T, ...] and gv [...] -> (dL/dx, dL/dv0, dL/dtau).

    With dh[t] = dL/dh[t], dv = dL/dv[t] and dh[T] = 0, backwards in time:

        dh[t] = (gs[t] + dv*R) * g(h[t] - threshold) + dv*Q        dx[t] = dh[t] / tau, or dh[t] without decay_input
        R = r - h[t] (hard), -threshold (soft), 0 (detach_reset)   dv    = dh[t] * (1 - 1/tau), for step t-1
        Q = 1 - s[t] (hard), 1 (soft)

    Needed where autograd does not reach, inside an operator; autograd of `lif_loop` is its oracle.
    """
    before, charged = [], []  # membranes v[t-1] and h[t] of one time step each
    v = v0
    for x_t in x.unbind(0):
        before.append(v)
        charged.append(charge(x_t, v, p, tau))
        v = reset(charged[-1], (charged[-1] >= p.threshold).to(v.dtype), p)
    gx, dv, gtau = torch.empty_like(x), gv, torch.zeros((), dtype=x.dtype, device=x.device)
    for t in range(len(charged) - 1, -1, -1):
        h = charged[t]
        ds = gs[t]
        if not p.detach_reset:
            ds = ds + dv * (-p.threshold if p.v_reset is None else p.rest - h)
        kept = dv if p.v_reset is None else dv * (h < p.threshold)
        dh = ds * p.surrogate(h - p.threshold) + kept
        gx[t] = dh / tau if p.decay_input else dh
        slope = before[t] - p.rest - (x[t] if p.decay_input else 0)
        gtau = gtau + (dh * slope).sum() / tau**2
        dv = dh * (1 - 1 / tau)
    return gx, dv, gtau
