"""Linear maps and convolutions of spikes that skip the zeros: where a neuron fired, weights are added.

    y[m]  = bias + sum over k with x[m, k] != 0 of x[m, k] W[:, k]          forward
    dW    = sum over m with x[m, k] != 0 of x[m, k] dL/dy[m], for each k    weight gradient

and the same at every position under a kernel. Both are the products of `nn.Linear` and `nn.Conv2d` with the terms left
out that are 0; only the order of the sums differs. dL/dx is dense: a surrogate gradient reaches silent neurons, too.
With an eighth of the inputs active a product takes a third to a half of the time of the dense one, the weight gradient
of a convolution a quarter; with `dense_from()` of them they take about as long. Where weights or gradients are infinite
or NaN, a dense product carries them into silent inputs as well; these do not.

Under bfloat16 autocast these sums stay in float32, and dL/dx is a bfloat16 product. With a kernel of side 3 on maps of
many pixels, dL/dx is always a float32 product with a quarter of the multiplications (`winograd.py`).
"""

import ctypes
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_input

from spikeloom.accel.spiking import winograd
from spikeloom.accel.spiking.conv import Conv2d
from spikeloom.accel.spiking.kernels import loader

# Floats in a vector of the processor -> fraction of active inputs from which the dense product is as fast, of side 1
# and of a larger one: measured with AVX-512 (side 1 alone) and with AVX2.
_DENSE_FROM = {16: (0.4, 0.25), 8: (0.4, 0.35)}
_HALF_TIME, _TILE_TIME = 0.5, 0.1  # of a dense product under autocast, relative to one in float32; with AMX tiles
_SOURCE = Path(__file__).parent / "kernels" / "events.cpp"
_LANES = 8  # outputs the kernel adds at a time, at least
_LARGEST = 2**15  # inputs of a linear map, channels and width of a picture: positions are numbers of 16 bits


class SpikeLinear(nn.Linear):
    """`nn.Linear` for inputs that are mostly 0: x [..., C_in] -> [..., C_out].

    In training on a CPU with the compiled backend, C_out a multiple of 8, float32 inputs with less than `dense_from()`
    of active entries go through the sums of rows above; everything else, evaluation and export with it, is `nn.Linear`.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and _takes(x, self.weight):
            column = x.reshape(1, -1, 1, self.in_features)
            y: Tensor = _EventConv.apply(column, self.weight[:, :, None, None], self.bias)
            return y.view(*x.shape[:-1], self.out_features)
        return super().forward(x)


class SpikeConv2d(Conv2d):
    """`nn.Conv2d` for inputs that are mostly 0: [B, C_in, H, W] -> [B, C_out, H', W'].

    As `SpikeLinear`, and in evaluation without gradients, too, where the input is laid out channels last and the output
    has the size of what the kernel reads: stride 1, or side 1 with any stride; `dense_from(side)` for a kernel of that
    side. With channels first every row would have to be collected.
    """

    def forward(self, x: Tensor) -> Tensor:
        if _may_skip(self) and self._keeps_size and _is_channels_last(x) and not torch.compiler.is_compiling():
            read = self.read(x).contiguous(memory_format=torch.channels_last)
            if _takes(read, self.weight):
                rows = read.permute(0, 2, 3, 1)
                if torch.is_grad_enabled():
                    y: Tensor = _EventConv.apply(rows, self.weight, self.bias)
                else:
                    y = event_conv(rows, self.weight, self.bias)
                return y.permute(0, 3, 1, 2)
        return super().forward(x)

    @property
    def _keeps_size(self) -> bool:
        side = self.kernel_size[0]
        return (
            self.kernel_size == (side, side)
            and side % 2 == 1
            and self.padding == (side // 2, side // 2)
            and self.padding_mode == "zeros"
            and (self.stride == (1, 1) or side == 1)
            and self.dilation == (1, 1)
            and self.groups == 1
        )


def _may_skip(module: nn.Module) -> bool:
    """In training, and in evaluation without gradients: fine-tuning through frozen statistics stays dense."""
    return module.training or not torch.is_grad_enabled()


def _is_channels_last(x: Tensor) -> bool:
    return x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)


def _takes(x: Tensor, weight: Tensor) -> bool:
    return (
        not torch.compiler.is_compiling()
        and x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() > 0
        and weight.shape[0] % _LANES == 0
        and max(weight.shape[1], x.shape[-1]) <= _LARGEST
        and loader.backend() == "compiled"
        and active_share(x) < dense_from(weight.shape[2] if weight.dim() == 4 else 1)
    )


def dense_from(side: int = 1) -> float:
    """Share of active inputs from which a convolution of this side (1: a linear map) is dense on this processor.

    Less where autocast makes dense products fast; 0, so always, where it was not measured.
    """
    linear, larger = _DENSE_FROM.get(_lanes(), (0.0, 0.0))
    return (linear if side == 1 else larger) * _dense_time(_autocast_dtype())


@cache
def _dense_time(dtype: torch.dtype | None) -> float:
    """Time of a dense product under autocast to `dtype` (None: without), relative to one in float32."""
    if dtype is None:
        return 1.0
    tiles = dtype == torch.bfloat16 and torch.cpu.get_capabilities().get("amx_bf16", False)
    return _TILE_TIME if tiles else _HALF_TIME


def _autocast_dtype() -> torch.dtype | None:
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None


@cache
def _lanes() -> int:
    return int(_kernel().events_lanes())


class _EventConv(torch.autograd.Function):
    """Channels last: x [B, H, W, C_in], weight [C_out, C_in, side, side] -> [B, H, W, C_out]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.dense_dtype = _autocast_dtype() or x.dtype
        return event_conv(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gy: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        for_x, for_weight, for_bias = ctx.needs_input_grad
        g_weight = event_weight_gradient(x, gy, weight.shape[2]) if for_weight else None
        del x  # it may have been unpacked for this alone, and dL/dx is as large
        return (
            _input_gradient(gy, weight, ctx.dense_dtype) if for_x else None,
            g_weight,
            gy.sum((0, 1, 2)) if for_bias else None,
        )


def _input_gradient(gy: Tensor, weight: Tensor, product_dtype: torch.dtype) -> Tensor:
    """Dense: gy [B, H, W, C_out], weight [C_out, C_in, side, side] -> dL/dx [B, H, W, C_in] in the dtype of gy."""
    n_in, side = weight.shape[1:3]
    if side == 3 and winograd.pays(gy, n_in):
        return winograd.winograd_conv(gy, weight.transpose(0, 1).flip(2, 3))
    g, weight = gy.to(product_dtype), weight.to(product_dtype)
    if side == 1:
        return (g @ weight[:, :, 0, 0]).to(gy.dtype)
    shape = (g.shape[0], n_in, *g.shape[1:3])
    gx = conv2d_input(shape, weight, g.permute(0, 3, 1, 2), padding=side // 2)
    return gx.permute(0, 2, 3, 1).to(gy.dtype)


def active_share(x: Tensor) -> float:
    """Share of the entries of a float32 tensor on the CPU that are not 0, whatever their order."""
    if not (x.is_contiguous() or _is_channels_last(x)):
        x = x.contiguous()
    count = _kernel().events_count
    count.restype = ctypes.c_int64
    return int(loader.call(count, x, x.numel())) / x.numel()


def event_conv(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [B, H, W, K], weight [N, K, side, side] of an odd side, bias [N] or None -> [B, H, W, N].

    Stride 1, zeros beyond the borders; float32 on the CPU, N a multiple of 8.
    """
    x, kernel = x.contiguous(), weight.permute(2, 3, 1, 0).contiguous()
    y = x.new_empty(*x.shape[:3], weight.shape[0])
    bias = None if bias is None else bias.contiguous()
    loader.call(_kernel().events_forward, *y.shape[:3], *kernel.shape[2:], len(kernel), x, kernel, bias, y)
    return y


def event_weight_gradient(x: Tensor, gy: Tensor, side: int) -> Tensor:
    """x [B, H, W, K], dL/dy [B, H, W, N] of such a convolution -> dL/dW [N, K, side, side]."""
    x, gy = x.contiguous(), gy.contiguous()
    kernel = x.new_empty(side, side, x.shape[3], gy.shape[3])
    loader.call(_kernel().events_weight_gradient, *gy.shape[:3], *kernel.shape[2:], side, x, gy, kernel)
    return kernel.permute(3, 2, 0, 1)


def _kernel() -> ctypes.CDLL:
    return loader.build(_SOURCE, "events", "-ffp-contract=fast")  # a dense product adds in another order anyway
