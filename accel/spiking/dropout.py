"""Dropout that generates its random numbers twice instead of keeping a mask.

On a CPU, the cost of dropout is the generator and the passes over memory, not the multiplication: `nn.Dropout` took a
quarter of a training step of a small SpikeSCR. Here a call takes one 64-bit key from torch's generator; the number of
each element is a function of (key, position), so forward and backward are one pass each:

    word[i] = mix(key + i),   mix = SplitMix64 (Steele et al., OOPSLA 2014),   four 16-bit numbers a word
    y[j]    = x[j] / (1 - p) if draw[j] >= 65536 p else 0                      p is a multiple of 1/65536

Under torch.compile, which fuses generator and product itself, it is PyTorch's dropout with the same p.
"""

import ctypes
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spikeloom.accel.spiking.kernels import loader

_SOURCE = Path(__file__).parent / "kernels" / "dropout.cpp"


class Dropout(nn.Module):
    """x / (1-p) with probability 1-p, independently by element, else 0; the identity in evaluation. Seeded by torch."""

    def __init__(self, p: float = 0.1) -> None:
        super().__init__()
        if not 0.0 <= p < 1.0:
            raise ValueError(f"dropout must be in [0, 1), got {p}; use 0.1")
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        cut = round(self.p * 65536)
        if not self.training or cut == 0:
            return x
        if torch.compiler.is_dynamo_compiling():
            return torch.nn.functional.dropout(x, cut / 65536)
        key = int(torch.empty((), dtype=torch.int64).random_(-(2**63), None))
        y: Tensor = _Drop.apply(x, cut, key)
        return y

    def extra_repr(self) -> str:
        return f"p={self.p}"


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, cut: int, key: int) -> Tensor:
        ctx.drawn = cut, key
        return drop(x, cut, key)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return drop(gradient, *ctx.drawn), None, None


def drop(x: Tensor, cut: int, key: int) -> Tensor:
    """The equation above for x of any shape, contiguous order; `cut` = 65536 p, `key` a signed 64-bit number."""
    scale = 65536 / (65536 - cut)
    if x.device.type == "cpu" and x.dtype in loader.TYPES and loader.backend() == "compiled":
        x = x.contiguous()
        y = torch.empty_like(x)
        io, _ = loader.TYPES[x.dtype]
        loader.build(_SOURCE, f"dropout-{io}", f"-DSPIKELOOM_IO={io}").dropout(
            ctypes.c_int64(x.numel()), ctypes.c_uint64(key % 2**64), ctypes.c_uint32(cut), ctypes.c_double(scale),
            ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(y.data_ptr()), ctypes.c_int64(torch.get_num_threads()),
        )  # fmt: skip
        return y
    words = _mix(torch.arange((x.numel() + 3) // 4, device=x.device) + key)
    draws = words.view(torch.int16)[: x.numel()] ^ -32768  # unsigned order, shifted to a signed one
    wide = torch.promote_types(x.dtype, torch.float32)  # halves are rounded once, as in the kernel
    return (x.to(wide) * ((draws >= cut - 32768).to(wide) * scale).view(x.shape)).to(x.dtype)


def _mix(z: Tensor) -> Tensor:
    """SplitMix64 on int64, whose products wrap as unsigned ones do."""
    z = z * (0x9E3779B97F4A7C15 - 2**64)
    z = (z ^ _shifted(z, 30)) * (0xBF58476D1CE4E5B9 - 2**64)
    z = (z ^ _shifted(z, 27)) * (0x94D049BB133111EB - 2**64)
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, bits: int) -> Tensor:
    """Logical right shift."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)
