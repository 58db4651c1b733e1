"""Leaky integrate-and-fire over a whole sequence, forward and backward, as Triton kernels for CUDA devices.

Equations and names are those of accel/spiking/functional.py; the forward pass rounds like its loop (no fused
multiply-add, division to nearest). A tensor is seen as [time][outer][lane] like in lif.cpp, so channels-last and
batch-first tensors are read where they lie. A program walks through time with a block of membranes in registers. The
backward pass writes the membranes h of the sequence to a scratch in their own precision and walks back over it.

Constants are compiled in; a learned tau is read from its tensor. Nothing waits for the device, so a step can be
captured in a CUDA graph. With TRITON_INTERPRET=1 the kernels run on CPU tensors, in Python, where they are tested.
Needs the package triton, which comes with the CUDA builds of PyTorch.
"""

import contextlib
from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from spikeloom.accel.spiking.functional import LIFParameters

_BLOCK = 256  # membranes of one program
_INTERPRETED = triton.knobs.runtime.interpret


@triton.jit
def _surrogate(u, code: tl.constexpr, a: tl.constexpr):  # type: ignore[no-untyped-def]
    """g(u) of accel/spiking/surrogate.py, by its code."""
    if code == 0:
        z = (1.5707963267948966 * a) * u
        g = (a / 2) / (1 + z * z)
    elif code == 1:
        e = tl.exp(-tl.abs(a * u))
        g = a * e / ((1 + e) * (1 + e))
    elif code == 2:
        z = 1 + a * tl.abs(u)
        g = 1 / (z * z)
    elif code == 3:
        g = (tl.abs(u) < a).to(u.dtype) / (2 * a)
    else:
        z = 1 - tl.abs(u) / a
        g = tl.where(z > 0, z, 0.0).to(u.dtype) / a
    return g


@triton.jit
def _divided(a, tau):  # type: ignore[no-untyped-def]
    """a / tau, to nearest. Triton's own division of float32 is faster and rounds otherwise."""
    return tl.div_rn(a, tau) if a.dtype == tl.float32 else a / tau


@triton.jit
def _charge(x, v, tau, decay, rest: tl.constexpr, decay_input: tl.constexpr):  # type: ignore[no-untyped-def]
    """Membrane before firing, h."""
    return v + _divided(x - (v - rest), tau) if decay_input else (v - rest) * decay + (x + rest)


@triton.jit
def _reset(h, threshold: tl.constexpr, rest: tl.constexpr, soft: tl.constexpr):  # type: ignore[no-untyped-def]
    """Membrane after firing, v."""
    fired = h >= threshold
    return tl.where(fired, h - threshold, h) if soft else tl.where(fired, tl.full(h.shape, rest, h.dtype), h)


@triton.jit
def _time_constant(tau_pointer, tau: tl.constexpr, learned: tl.constexpr, like):  # type: ignore[no-untyped-def]
    """tau and 1 - 1 / tau, each rounded once to the type of a membrane."""
    exact = tl.load(tau_pointer).to(tl.float64) if learned else tl.full((), tau, tl.float64)
    return exact.to(like.dtype), (1 - 1 / exact).to(like.dtype)


@triton.jit
def _forward(  # type: ignore[no-untyped-def]
    x_pointer, s_pointer, v_pointer, out_pointer, tau_pointer, n, steps, lanes, time_stride, outer_stride,
    tau: tl.constexpr, learned: tl.constexpr, decay_input: tl.constexpr, threshold: tl.constexpr, rest: tl.constexpr,
    soft: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = i < n
    at = (i // lanes) * outer_stride + i % lanes
    v = tl.load(v_pointer + i, mask=inside, other=0.0)
    constant, decay = _time_constant(tau_pointer, tau, learned, v)
    for _ in range(steps):
        x = tl.load(x_pointer + at, mask=inside, other=0.0).to(v.dtype)
        h = _charge(x, v, constant, decay, rest, decay_input)
        tl.store(s_pointer + at, (h >= threshold).to(v.dtype).to(s_pointer.dtype.element_ty), mask=inside)
        v = _reset(h, threshold, rest, soft)
        at += time_stride
    tl.store(out_pointer + i, v, mask=inside)


@triton.jit
def _backward(  # type: ignore[no-untyped-def]
    x_pointer, v_pointer, gs_pointer, gv_pointer, h_pointer, gx_pointer, out_pointer, gtau_pointer, tau_pointer, n,
    steps, lanes, time_stride, outer_stride, tau: tl.constexpr, learned: tl.constexpr, decay_input: tl.constexpr,
    threshold: tl.constexpr, rest: tl.constexpr, soft: tl.constexpr, detach: tl.constexpr, code: tl.constexpr,
    parameter: tl.constexpr, block: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = i < n
    at = (i // lanes) * outer_stride + i % lanes
    kept = i  # position of h in the scratch [steps, n]
    v0 = tl.load(v_pointer + i, mask=inside, other=0.0)
    constant, decay = _time_constant(tau_pointer, tau, learned, v0)
    v = v0
    for _ in range(steps):
        x = tl.load(x_pointer + at, mask=inside, other=0.0).to(v.dtype)
        h = _charge(x, v, constant, decay, rest, decay_input)
        tl.store(h_pointer + kept, h, mask=inside)
        v = _reset(h, threshold, rest, soft)
        at += time_stride
        kept += n
    tl.debug_barrier()  # what one thread has written another may read
    dv = tl.load(gv_pointer + i, mask=inside, other=0.0)
    gtau = tl.zeros((block,), dtype=v0.dtype)
    for _ in range(steps):
        at -= time_stride
        kept -= n
        h = tl.load(h_pointer + kept, mask=inside, other=0.0)
        ds = tl.load(gs_pointer + at, mask=inside, other=0.0).to(dv.dtype)
        if not detach:
            ds += dv * (-threshold if soft else rest - h)
        stays = dv if soft else tl.where(h < threshold, dv, 0.0)
        dh = ds * _surrogate(h - threshold, code, parameter) + stays
        gx = _divided(dh, constant) if decay_input else dh
        tl.store(gx_pointer + at, gx.to(gx_pointer.dtype.element_ty), mask=inside)
        if learned:
            earlier = kept >= n
            before = _reset(tl.load(h_pointer + kept - n, mask=inside & earlier, other=0.0), threshold, rest, soft)
            slope = tl.where(earlier, before, v0) - rest
            if decay_input:
                slope -= tl.load(x_pointer + at, mask=inside, other=0.0).to(dv.dtype)
            gtau += tl.where(inside, dh * slope, 0.0)
        dv = dh * decay
    tl.store(out_pointer + i, dv, mask=inside)
    if learned:
        tl.store(gtau_pointer + tl.program_id(0), tl.sum(gtau, 0))


def runs_on(device: torch.device) -> bool:
    """Whether the kernels take tensors of this device: CUDA, or the CPU under Triton's interpreter."""
    return bool(_INTERPRETED) if device.type == "cpu" else device.type == "cuda"


def forward(
    x: Tensor, walk: tuple[int, int, int, int, int], v: Tensor, p: LIFParameters, tau: float | Tensor
) -> tuple[Tensor, Tensor]:
    """A LIF population over a sequence.

    Args:
        x: dense, [T, ...].
        walk: sizes of time, outer and lanes, and the strides of time and outer, in elements.
        v: membrane, contiguous in the order of the walk, [outer * lanes].
        p: constants.
        tau: the time constant in steps; a tensor of one element where it is learned.

    Returns:
        Spikes in the memory layout of x, and the membrane after the last step, in the order of the walk.
    """
    steps, outer, lanes, time_stride, outer_stride = walk
    spikes, last, n = (
        torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device),
        torch.empty_like(v),
        outer * lanes,
    )
    learned = isinstance(tau, Tensor)
    with _on(x.device):
        _forward[(triton.cdiv(n, _BLOCK),)](
            x, spikes, v, last, tau if learned else v, n, steps, lanes, time_stride, outer_stride,
            tau=1.0 if learned else tau, learned=learned, decay_input=p.decay_input, threshold=p.threshold,
            rest=p.rest, soft=p.v_reset is None, block=_BLOCK, enable_fp_fusion=False,
        )  # fmt: skip
    return spikes, last


def backward(
    gs: Tensor, gv: Tensor, x: Tensor, walk: tuple[int, int, int, int, int], v: Tensor, p: LIFParameters,
    tau: float | Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of `forward`.

    Args:
        gs: of the spikes, in the memory layout of x.
        gv: of the last membrane, in the order of the walk.
        x, walk, v, p, tau: as in `forward`.

    Returns:
        dL/dx in the memory layout of x, dL/dv in the order of the walk, and dL/dtau, a tensor of the membrane's type
        (0 where tau is not learned).
    """
    steps, outer, lanes, time_stride, outer_stride = walk
    n, learned = outer * lanes, isinstance(tau, Tensor)
    programs = triton.cdiv(n, _BLOCK)
    gx, gv0 = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=x.device), torch.empty_like(v)
    scratch = v.new_empty((steps, n))
    gtau = v.new_zeros(programs if learned else 1)
    with _on(x.device):
        _backward[(programs,)](
            x, v, gs, gv, scratch, gx, gv0, gtau, tau if learned else v, n, steps, lanes, time_stride, outer_stride,
            tau=1.0 if learned else tau, learned=learned, decay_input=p.decay_input, threshold=p.threshold,
            rest=p.rest, soft=p.v_reset is None, detach=p.detach_reset, code=p.surrogate.code,
            parameter=p.surrogate.parameter, block=_BLOCK, enable_fp_fusion=False,
        )  # fmt: skip
    summed = gtau.sum()
    return gx, gv0, summed / tau.to(summed) ** 2 if isinstance(tau, Tensor) else summed


@contextlib.contextmanager
def _on(device: torch.device) -> Iterator[None]:
    """Launches go to the current device, which need not be that of the tensors."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            yield
    else:
        yield
