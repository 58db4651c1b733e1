"""The units beside the arrays: soma and gradient unit of the neurons, normalisation, and the optimizer.

Equations of a neuron with decay a, input gain b, threshold th, rest r, window or other surrogate g:

    u[t] = a (v[t-1] - r) + b x[t] + r     s[t] = 1{u[t] >= th}     m[t] = 1{|u[t] - th| < w}
    v[t] = r where s[t], else u[t] (hard)                           v[t] = u[t] - th s[t] (soft)

    dv = a du[t+1]                         ds = gs[t] + dv R        R = r - u (hard), -th (soft), 0 (detached)
    du[t] = ds g(u[t]) + dv Q              dx[t] = b du[t]          Q = 1 - s (hard), 1 (soft)

With a window, g is the mask over 2w, and the mask and the spike (a bit each) are all that BP needs; u is kept only for
a reset that passes a gradient. Another surrogate keeps its derivative, 16 bits. A normalisation works in FP32 inside
and meets the memories in FP16. The optimizer is AdamW on 32-bit weights and moments.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from spikeloom.accel.spiking.functional import LIFParameters, charge, reset
from spikeloom.accel.spiking.surrogate import Rectangular
from spikeloom.accel.trainer.engines.arithmetic import Arithmetic


@dataclass(frozen=True, kw_only=True)
class Remembered:
    """What a population keeps from FP to BP, [T, ...] each: `spikes` and `mask` are bits, the others FP16 or absent."""

    spikes: Tensor
    mask: Tensor | None
    derivative: Tensor | None
    potential: Tensor | None

    @property
    def bits(self) -> int:
        """Bits for each neuron and step."""
        return 1 + (self.mask is not None) + 16 * ((self.derivative is not None) + (self.potential is not None))


def soma(x: Tensor, v: Tensor, p: LIFParameters, arithmetic: Arithmetic) -> tuple[Tensor, Tensor, Remembered]:
    """FP of a population: currents x [T, ...], membranes v [...] -> (spikes, membranes after the last step, kept)."""
    window = p.surrogate.half_width if isinstance(p.surrogate, Rectangular) else None
    spikes, masks, derivatives, potentials = [], [], [], []  # of one time step each
    for x_t in x.unbind(0):
        u = _charge(x_t, v, p, arithmetic)
        distance = u - p.threshold
        s = (distance >= 0).to(u.dtype)
        v = arithmetic.round(reset(u, s, p))
        spikes.append(s)
        if window is not None:
            masks.append(distance.abs() < window)
        else:
            derivatives.append(arithmetic.round(p.surrogate(distance)))
        if not p.detach_reset:
            potentials.append(u)
    fired = torch.stack(spikes)
    kept = Remembered(
        spikes=fired > 0, mask=torch.stack(masks) if masks else None,
        derivative=torch.stack(derivatives) if derivatives else None,
        potential=torch.stack(potentials) if potentials else None,
    )  # fmt: skip
    return fired, v, kept


def _charge(x: Tensor, v: Tensor, p: LIFParameters, arithmetic: Arithmetic) -> Tensor:
    if arithmetic.exact:
        return charge(x, v, p)
    leaked = arithmetic.round((v - p.rest) * (1 - 1 / p.tau))
    current = arithmetic.round(x / p.tau) if p.decay_input else x
    return arithmetic.round(leaked + current + p.rest)


def gradient_unit(
    gs: Tensor, gv: Tensor | None, kept: Remembered, p: LIFParameters, arithmetic: Arithmetic
) -> tuple[Tensor, Tensor]:
    """BP of a population: gradients of spikes gs [T, ...] and of the last membranes -> (du, dx), [T, ...] each."""
    rnd, a = arithmetic.round, 1 - 1 / p.tau
    gain = 1 / (2 * p.surrogate.half_width) if isinstance(p.surrogate, Rectangular) else 1.0
    dus = torch.empty_like(gs)
    dv = torch.zeros_like(gs[0]) if gv is None else gv
    for t in range(gs.shape[0] - 1, -1, -1):
        ds = gs[t]
        if kept.potential is not None:
            ds = rnd(ds + rnd(dv * (-p.threshold if p.v_reset is None else p.rest - kept.potential[t])))
        if kept.mask is not None:
            slope = ds * kept.mask[t] * gain
        else:
            assert kept.derivative is not None, "a population keeps its mask or its derivative"
            slope = ds * kept.derivative[t]
        passed = dv if p.v_reset is None else dv * ~kept.spikes[t]
        dus[t] = rnd(rnd(slope) + passed)
        dv = rnd(dus[t] * a)
    return dus, rnd(dus / p.tau) if p.decay_input else dus


def time_constant_gradient(du: Tensor, x: Tensor, v: Tensor, p: LIFParameters, arithmetic: Arithmetic) -> Tensor:
    """WG of a learned time constant, dL/dtau = sum du[t] du[t]/dtau, du/dtau = ((v[t-1] - r) - x[t]) / tau^2 (without
    the x where inputs do not decay). Membranes are worked out once more; the sum is FP32."""
    total = torch.zeros((), dtype=torch.float64)
    for t, x_t in enumerate(x.unbind(0)):
        u = _charge(x_t, v, p, arithmetic)
        pulled = v - p.rest - (x_t if p.decay_input else 0)
        total += (du[t].double() * pulled.double()).sum() / p.tau**2
        v = arithmetic.round(reset(u, (u - p.threshold >= 0).to(u.dtype), p))
    return total


@dataclass(frozen=True, kw_only=True)
class Normalised:
    """What a batch normalisation keeps: its input as stored, mean and 1 / standard deviation of each channel (FP32)."""

    x: Tensor
    mean: Tensor
    inverse: Tensor


def batch_norm_forward(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, running: tuple[Tensor, Tensor] | None, momentum: float,
    eps: float, arithmetic: Arithmetic,
) -> tuple[Tensor, Normalised]:  # fmt: skip
    """z = w (x - mean) / sqrt(var + eps) + b for x [N, C, ...], statistics of the batch; updates `running` in place."""
    mean_var = running or (None, None)
    out, mean, inverse = torch.ops.aten.native_batch_norm(x, weight, bias, *mean_var, True, momentum, eps)
    return arithmetic.round(out), Normalised(x=x, mean=mean, inverse=inverse)


def batch_norm_backward(
    dz: Tensor, kept: Normalised, weight: Tensor | None, arithmetic: Arithmetic
) -> tuple[Tensor, Tensor, Tensor]:
    """dx = w/std (dz - mean(dz) - xhat mean(dz xhat)), dw = sum(dz xhat), db = sum(dz)."""
    axes = [0, *range(2, dz.dim())]
    shape = [1, -1, *[1] * (dz.dim() - 2)]
    n = dz.numel() // dz.shape[1]
    xhat = (kept.x - kept.mean.view(shape)) * kept.inverse.view(shape)
    wide = torch.float64 if arithmetic.exact else dz.dtype
    db, dw = dz.sum(axes, dtype=wide).to(dz.dtype), (dz * xhat).sum(axes, dtype=wide).to(dz.dtype)
    scale = kept.inverse if weight is None else kept.inverse * weight
    dx = scale.view(shape) * (dz - db.view(shape) / n - xhat * (dw.view(shape) / n))
    return arithmetic.round(dx), arithmetic.round(dw), arithmetic.round(db)


@dataclass
class Adam:
    """AdamW as the optimizer unit runs it: decoupled decay, bias-corrected moments, everything 32 bits wide."""

    lr: float
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    step: int = 0
    moments: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)  # name -> (first, second)

    def update(self, parameters: dict[str, Tensor], gradients: dict[str, Tensor], lr: float | None = None) -> None:
        """One step, in place, on the parameters that have a gradient; `lr` replaces the rate for this step."""
        lr = self.lr if lr is None else lr
        self.step += 1
        b1, b2 = self.betas
        correct1, correct2 = 1 - b1**self.step, 1 - b2**self.step
        for name, gradient in gradients.items():
            weight = parameters[name].detach()
            zeros = (torch.zeros_like(weight), torch.zeros_like(weight))
            m, v = self.moments.setdefault(name, zeros)
            weight.mul_(1 - lr * self.weight_decay)
            m.lerp_(gradient, 1 - b1)
            v.mul_(b2).addcmul_(gradient, gradient, value=1 - b2)
            weight.addcdiv_(m, (v.sqrt() / correct2**0.5).add_(self.eps), value=-lr / correct1)
