"""The neuron as an operator: `spikeloom::lif` and `spikeloom::plif`, one graph node for any number of time steps.

Export, autograd and the kernels meet here. Membranes are float32 (float64 for float64 input) whatever the input dtype,
so a sequence cut into pieces gives bit for bit the spikes of the whole. The backward pass keeps x and the initial
membrane only and recomputes the rest.
"""

import ctypes
from typing import Any

import torch
from torch import Tensor

from spikeloom.accel.spiking.functional import LIFParameters, LIFState, lif_loop, lif_loop_backward
from spikeloom.accel.spiking.kernels import loader
from spikeloom.accel.spiking.surrogate import from_code

_SIGNATURE = "bool decay_input, float threshold, float? v_reset, bool detach_reset, int surrogate, float parameter"


def state_dtype(dtype: torch.dtype) -> torch.dtype:
    """Dtype of the membrane for an input of `dtype`."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _parameters(
    tau: float, decay: bool, threshold: float, v_reset: float | None, detach: bool, code: int, parameter: float
) -> LIFParameters:
    return LIFParameters(
        tau=tau, decay_input=decay, threshold=threshold, v_reset=v_reset, detach_reset=detach,
        surrogate=from_code(code, parameter),
    )  # fmt: skip


# --- torch loop behind the operators -------------------------------------------------------------------------------


def _loop_forward(x: Tensor, v: Tensor, p: LIFParameters, tau: float) -> tuple[Tensor, Tensor]:
    spikes, state = lif_loop(x.to(v.dtype), LIFState(v), p, tau)
    return torch.empty_like(x).copy_(spikes), state.v.clone(memory_format=torch.contiguous_format)


def _loop_backward(
    gs: Tensor, gv: Tensor, x: Tensor, v: Tensor, p: LIFParameters, tau: float
) -> tuple[Tensor, Tensor, Tensor]:
    gx, gv0, gtau = lif_loop_backward(gs.to(v.dtype), gv, x.to(v.dtype), v, p, tau)
    return torch.empty_like(x).copy_(gx), gv0.clone(memory_format=torch.contiguous_format), gtau


# --- compiled kernel -----------------------------------------------------------------------------------------------


def _dense(x: Tensor) -> Tensor:
    """x in a layout the kernel can walk: dense, with the strides of `torch.empty_like`. Copies only if needed."""
    like = torch.empty_like(x)
    return x if x.stride() == like.stride() else like.copy_(x)


def _walk(x: Tensor) -> tuple[loader.Shape, list[int]]:
    """[time][outer][lane] view of dense x, and the order of the non-time axes from outermost to innermost."""
    order = sorted((d for d in range(1, x.dim()) if x.shape[d] > 1), key=lambda d: x.stride(d), reverse=True)
    lanes = 1
    while order and x.stride(order[-1]) == lanes:
        lanes *= x.shape[order.pop()]
    outer = 1
    outer_stride = x.stride(order[-1]) if order else lanes
    while order and x.stride(order[-1]) == outer_stride * outer:
        outer *= x.shape[order.pop()]
    return loader.Shape(x.shape[0], outer, lanes, x.stride(0), outer_stride, torch.get_num_threads()), order


def _prepare(x: Tensor) -> tuple[Tensor, loader.Shape]:
    x = _dense(x)
    shape, rest = _walk(x)
    if rest:  # time lies between two other axes, as in [B, C, T, W]: no two-level walk covers it
        x = x.contiguous()
        shape, _ = _walk(x)
    return x, shape


def _step_like(x: Tensor, v: Tensor) -> tuple[Tensor, ctypes.c_double | None]:
    """What a kernel takes for v [..]: memory in the axis order of one time step of x, so that one walk covers both.

    It holds a copy of v and may be written. Where all of v is one number in memory, expanded, as membranes at rest are,
    it is left unwritten and that number given beside it.
    """
    order = sorted(range(1, x.dim()), key=lambda d: (x.stride(d), x.shape[d] == 1), reverse=True)
    permuted = v.permute([d - 1 for d in order])
    value = None
    if v.dim() and not any(v.stride()):
        value = ctypes.c_double(v[(0,) * v.dim()].item())
        copy = torch.empty(permuted.shape, dtype=v.dtype)
    else:
        copy = permuted.clone(memory_format=torch.contiguous_format)
    return copy.permute([order.index(d) for d in range(1, x.dim())]), value


def _neuron(p: LIFParameters, tau: float) -> loader.Neuron:
    return loader.Neuron(
        tau,
        p.threshold,
        p.rest,
        p.surrogate.parameter,
        p.decay_input,
        p.v_reset is None,
        p.detach_reset,
        p.surrogate.code,
    )


def _compiled_forward(x: Tensor, v: Tensor, p: LIFParameters, tau: float) -> tuple[Tensor, Tensor]:
    lib = loader.library(x.dtype)
    out = torch.empty_like(x)
    dense, shape = _prepare(x)
    spikes = torch.empty_strided(dense.shape, dense.stride(), dtype=x.dtype)
    membrane, rest = _step_like(dense, v)
    lib.lif_forward(ctypes.byref(shape), ctypes.byref(_neuron(p, tau)), *map(_pointer, (dense, spikes, membrane, rest)))
    return spikes if spikes.stride() == out.stride() else out.copy_(spikes), membrane.contiguous()


def _compiled_backward(
    gs: Tensor, gv: Tensor, x: Tensor, v: Tensor, p: LIFParameters, tau: float, want_tau: bool
) -> tuple[Tensor, Tensor, Tensor]:
    lib = loader.library(x.dtype)
    out = torch.empty_like(x)
    dense, shape = _prepare(x)
    upstream = (
        gs
        if gs.stride() == dense.stride()
        else torch.empty_strided(dense.shape, dense.stride(), dtype=x.dtype).copy_(gs)
    )
    gx = torch.empty_strided(dense.shape, dense.stride(), dtype=x.dtype)
    grad_membrane, nothing = _step_like(dense, gv.to(v.dtype))
    membrane, rest = (v, None) if v.stride() == grad_membrane.stride() else _step_like(dense, v)  # only read
    g_tau = ctypes.c_double(0.0) if want_tau else None
    lib.lif_backward(
        ctypes.byref(shape), ctypes.byref(_neuron(p, tau)),
        *map(_pointer, (dense, membrane, rest, upstream, grad_membrane, nothing, gx, g_tau)),
    )  # fmt: skip
    gx = gx if gx.stride() == out.stride() else out.copy_(gx)
    return gx, grad_membrane.contiguous(), torch.tensor(0.0 if g_tau is None else g_tau.value, dtype=v.dtype)


def _pointer(value: Tensor | ctypes.c_double | None) -> Any:
    """Null where there is no value."""
    if value is None:
        return None
    return ctypes.c_void_p(value.data_ptr()) if isinstance(value, Tensor) else ctypes.byref(value)


# --- Triton kernel ---------------------------------------------------------------------------------------------------


def _in_walk(x: Tensor, v: Tensor) -> tuple[Tensor, list[int]]:
    """v [..], as one row of memory in the axis order of a step of x, and the axes that lead back."""
    order = sorted(range(1, x.dim()), key=lambda d: (x.stride(d), x.shape[d] == 1), reverse=True)
    return v.permute([d - 1 for d in order]).contiguous().flatten(), [order.index(d) for d in range(1, x.dim())]


def _out_of_walk(row: Tensor, x: Tensor, back: list[int]) -> Tensor:
    """What `_in_walk` laid out, in the shape of a step of x."""
    sizes = [0] * len(back)
    for axis, place in enumerate(back):
        sizes[place] = x.shape[axis + 1]
    return row.view(sizes).permute(back).contiguous()


def _triton_forward(x: Tensor, v: Tensor, p: LIFParameters, tau: float | Tensor) -> tuple[Tensor, Tensor]:
    out = torch.empty_like(x)
    dense, shape = _prepare(x)
    row, back = _in_walk(dense, v)
    spikes, last = loader.triton_kernels().forward(dense, _sizes(shape), row, p, tau)
    return spikes if spikes.stride() == out.stride() else out.copy_(spikes), _out_of_walk(last, dense, back)


def _triton_backward(
    gs: Tensor, gv: Tensor, x: Tensor, v: Tensor, p: LIFParameters, tau: float | Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    out = torch.empty_like(x)
    dense, shape = _prepare(x)
    upstream = torch.empty_strided(dense.shape, dense.stride(), dtype=x.dtype, device=x.device).copy_(gs)
    row, back = _in_walk(dense, v)
    gx, gv0, gtau = loader.triton_kernels().backward(
        upstream, _in_walk(dense, gv.to(v.dtype))[0], dense, _sizes(shape), row, p, tau
    )
    return gx if gx.stride() == out.stride() else out.copy_(gx), _out_of_walk(gv0, dense, back), gtau


def _sizes(shape: loader.Shape) -> tuple[int, int, int, int, int]:
    return shape.time, shape.outer, shape.lanes, shape.time_stride, shape.outer_stride


# --- which of them runs ----------------------------------------------------------------------------------------------


def _backend(x: Tensor) -> str:
    return loader.neuron_backend(x.device) if x.numel() > 0 else "torch"


def _forward(x: Tensor, v: Tensor, p: LIFParameters, tau: float | Tensor) -> tuple[Tensor, Tensor]:
    if x.dtype not in loader.TYPES:
        raise ValueError(f"input must be floating point, got {x.dtype}; use x.float()")
    if x.dim() < 1 or v.shape != x.shape[1:]:
        raise ValueError(f"membrane must have the shape of one time step {tuple(x.shape[1:])}, got {tuple(v.shape)}")
    if v.dtype != state_dtype(x.dtype):
        raise ValueError(f"membrane must be {state_dtype(x.dtype)} for {x.dtype} input, got {v.dtype}; use v.to(...)")
    backend = _backend(x)
    if backend == "triton":
        return _triton_forward(x, v, p, tau)
    return (_compiled_forward if backend == "compiled" else _loop_forward)(x, v, p, _number(tau))


def _backward(
    gs: Tensor, gv: Tensor, x: Tensor, v: Tensor, p: LIFParameters, tau: float | Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    backend = _backend(x)
    if backend == "triton":
        return _triton_backward(gs, gv, x, v, p, tau)
    if backend == "compiled":
        return _compiled_backward(gs, gv, x, v, p, _number(tau), want_tau=isinstance(tau, Tensor))
    return _loop_backward(gs, gv, x, v, p, _number(tau))


def _number(tau: float | Tensor) -> float:
    """tau as a number in double precision, which waits for the device where it is learned on one."""
    if not isinstance(tau, Tensor):
        return tau
    if not (number := float(tau)) >= 1.0:
        raise ValueError(f"tau must be >= 1 time step, got {number}; use 2.0, or math.inf for no leak")
    return number


_OF_TENSOR = 2.0  # stands for a tau that is a tensor: reading it would wait for the device

# --- the operators -------------------------------------------------------------------------------------------------


@torch.library.custom_op(
    "spikeloom::lif", mutates_args=(), schema=f"(Tensor x, Tensor v, float tau, {_SIGNATURE}) -> (Tensor, Tensor)"
)
def _lif(x, v, tau, *args):  # type: ignore[no-untyped-def]
    return _forward(x, v, _parameters(tau, *args), tau)


@torch.library.custom_op(
    "spikeloom::lif_backward",
    mutates_args=(),
    schema=f"(Tensor gs, Tensor gv, Tensor x, Tensor v, float tau, {_SIGNATURE}) -> (Tensor, Tensor)",
)
def _lif_backward(gs, gv, x, v, tau, *args):  # type: ignore[no-untyped-def]
    return _backward(gs, gv, x, v, _parameters(tau, *args), tau)[:2]


@torch.library.custom_op(
    "spikeloom::plif", mutates_args=(), schema=f"(Tensor x, Tensor v, Tensor tau, {_SIGNATURE}) -> (Tensor, Tensor)"
)
def _plif(x, v, tau, *args):  # type: ignore[no-untyped-def]
    return _forward(x, v, _parameters(_OF_TENSOR, *args), tau)


@torch.library.custom_op(
    "spikeloom::plif_backward",
    mutates_args=(),
    schema=f"(Tensor gs, Tensor gv, Tensor x, Tensor v, Tensor tau, {_SIGNATURE}) -> (Tensor, Tensor, Tensor)",
)
def _plif_backward(gs, gv, x, v, tau, *args):  # type: ignore[no-untyped-def]
    gx, gv0, gtau = _backward(gs, gv, x, v, _parameters(_OF_TENSOR, *args), tau)
    return gx, gv0, gtau.to(tau)


@_lif.register_fake
@_plif.register_fake
def _(x, v, tau, *args):  # type: ignore[no-untyped-def]
    return torch.empty_like(x), v.new_empty(v.shape)


@_lif_backward.register_fake
def _(gs, gv, x, v, tau, *args):  # type: ignore[no-untyped-def]
    return torch.empty_like(x), v.new_empty(v.shape)


@_plif_backward.register_fake
def _(gs, gv, x, v, tau, *args):  # type: ignore[no-untyped-def]
    return torch.empty_like(x), v.new_empty(v.shape), torch.empty_like(tau)


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.set_materialize_grads(False)
    x, v, ctx.tau, *ctx.args = inputs
    ctx.save_for_backward(x, v)


def _save_tensor_tau(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.set_materialize_grads(False)
    x, v, tau, *ctx.args = inputs
    ctx.save_for_backward(x, v, tau)


def _upstream(gs, gv, x, v):  # type: ignore[no-untyped-def]
    """Gradients of both outputs; zeros for an output without dependents."""
    gs = torch.zeros_like(x) if gs is None else gs
    return gs, v.new_zeros(()).expand(v.shape) if gv is None else gv


def _lif_grad(ctx, gs, gv):  # type: ignore[no-untyped-def]
    x, v = ctx.saved_tensors
    gx, gv0 = torch.ops.spikeloom.lif_backward(*_upstream(gs, gv, x, v), x, v, ctx.tau, *ctx.args)
    return gx, gv0, None, *[None] * len(ctx.args)


def _plif_grad(ctx, gs, gv):  # type: ignore[no-untyped-def]
    x, v, tau = ctx.saved_tensors
    grads = torch.ops.spikeloom.plif_backward(*_upstream(gs, gv, x, v), x, v, tau, *ctx.args)
    return *grads, *[None] * len(ctx.args)


torch.library.register_autograd("spikeloom::lif", _lif_grad, setup_context=_save)
torch.library.register_autograd("spikeloom::plif", _plif_grad, setup_context=_save_tensor_tau)


def lif(x: Tensor, state: LIFState | None, p: LIFParameters, tau: Tensor | None = None) -> tuple[Tensor, LIFState]:
    """A LIF population over a sequence: x [T, ...] -> (spikes [T, ...] in x.dtype, final state).

    `state` holds the membrane of one time step, float32 (float64 for float64 x); None starts at rest. `tau`, a scalar
    tensor, selects the parametric neuron and receives a gradient. Equals `functional.lif_loop`.
    """
    dtype = state_dtype(x.dtype)
    # One number, expanded: a tensor of them would be written, read and kept for the backward pass.
    v = x.new_full((), p.rest, dtype=dtype).expand(x.shape[1:]) if state is None else state.v
    args = (p.decay_input, p.threshold, p.v_reset, p.detach_reset, p.surrogate.code, p.surrogate.parameter)
    if tau is None:
        spikes, v = torch.ops.spikeloom.lif(x, v, p.tau, *args)
    else:
        spikes, v = torch.ops.spikeloom.plif(x, v, tau, *args)
    return spikes, LIFState(v)
