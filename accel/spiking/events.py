"""Linear maps of spikes that skip the zeros in training: the CPU adds rows of the weights where a neuron fired.

    y[m]  = bias + sum over k with x[m, k] != 0 of x[m, k] W[:, k]          forward
    dW    = sum over m with x[m, k] != 0 of x[m, k] dL/dy[m], for each k    weight gradient

Both are the products of `nn.Linear` with the terms left out that are 0; only the order of the sums differs. dL/dx is
dense, since a surrogate gradient reaches silent neurons, too. With an eighth of the inputs active a product takes a
third to a half of the time of the dense one, with `dense_from()` of them about as long. Where weights or gradients are
infinite or NaN, a dense product carries them into silent inputs as well; this one does not.
"""

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from accel.spiking.kernels import loader

# Floats in a vector of the processor -> share of active inputs from which the dense product is as fast: measured with
# AVX-512 and with AVX2.
_DENSE_FROM = {16: 0.4, 8: 0.35}
_SOURCE = Path(__file__).parent / "kernels" / "events.cpp"
_LANES = 16  # outputs the kernel adds at a time
_MAX_INPUTS = 65536


class SpikeLinear(nn.Linear):
    """`nn.Linear` for inputs that are mostly 0: x [..., C_in] -> [..., C_out].

    In training on a CPU in float32 with the compiled backend, C_out a multiple of 16, inputs with less than
    `dense_from()` of active entries go through the sums of rows above; everything else, evaluation and export with it,
    is `nn.Linear`.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and _takes(x, self.weight):
            y: Tensor = _EventLinear.apply(x.reshape(-1, self.in_features), self.weight, self.bias)
            return y.unflatten(0, x.shape[:-1])
        return super().forward(x)


def _takes(x: Tensor, weight: Tensor) -> bool:
    return (
        x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() > 0
        and weight.shape[0] % _LANES == 0
        and weight.shape[1] <= _MAX_INPUTS
        and not torch.is_autocast_enabled("cpu")
        and loader.backend() == "compiled"
        and active_share(x) < dense_from()
    )


@cache
def dense_from() -> float:
    """Share of active inputs from which products are dense on this processor; 0 where it was not measured: always."""
    return _DENSE_FROM.get(int(_kernel().events_lanes()), 0.0)


class _EventLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return event_product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        return (
            gy @ weight if for_x else None,
            event_weight_gradient(x, gy) if for_weight else None,
            gy.sum(0) if for_bias else None,
        )


def active_share(x: Tensor) -> float:
    """Share of the entries of a float32 tensor on the CPU that are not 0."""
    x = x.contiguous()
    return _count(_pointer(x), ctypes.c_int64(x.numel()), _threads()) / x.numel()


def event_product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [M, K], weight [N, K], bias [N] or None -> x Wᵀ + bias [M, N]; float32 on the CPU, N a multiple of 16."""
    x, columns = x.contiguous(), weight.t().contiguous()
    y = x.new_empty(x.shape[0], weight.shape[0])
    bias = None if bias is None else bias.contiguous()
    _kernel().events_forward(*_sizes(x, y), *map(_pointer, (x, columns, bias, y)), _threads())
    return y


def event_weight_gradient(x: Tensor, gy: Tensor) -> Tensor:
    """x [M, K], dL/dy [M, N] -> dL/dW = dL/dyᵀ x [N, K]; float32 on the CPU, N a multiple of 16."""
    x, gy = x.contiguous(), gy.contiguous()
    columns = x.new_empty(x.shape[1], gy.shape[1])
    _kernel().events_weight_gradient(*_sizes(x, gy), *map(_pointer, (x, gy, columns)), _threads())
    return columns.t()


def _count(*args: Any) -> int:
    count = _kernel().events_count
    count.restype = ctypes.c_int64
    return int(count(*args))


def _kernel() -> ctypes.CDLL:
    return loader.build(_SOURCE, "events", "-ffp-contract=fast")  # a dense product adds in another order anyway


def _sizes(x: Tensor, y: Tensor) -> tuple[ctypes.c_int64, ctypes.c_int64, ctypes.c_int64]:
    return ctypes.c_int64(x.shape[0]), ctypes.c_int64(x.shape[1]), ctypes.c_int64(y.shape[1])


def _pointer(x: Tensor | None) -> ctypes.c_void_p | None:
    return None if x is None else ctypes.c_void_p(x.data_ptr())


def _threads() -> ctypes.c_int64:
    return ctypes.c_int64(torch.get_num_threads())
