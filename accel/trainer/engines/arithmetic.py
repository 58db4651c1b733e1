"""Numbers as the arrays see them: FP16 operands and products, FP16 or FP32 accumulators, one fixed order of summation.

A matrix product sums its reduction axis in folds of up to 16 rows: within a fold by a tree, ((0+1)+(2+3))+…, and fold
after fold into the accumulator. What leaves the array is FP16 again. Values travel as float32 tensors that hold FP16
numbers. `fp32` is the mode of comparison: nothing is rounded beyond the dtype of the tensors (float64 ones stay so).
"""

import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from spikeloom.accel.spiking.kernels import loader

ROWS, MOST_ROWS = 16, 64  # terms of a fold: of the chip's array, and the most the kernel holds
Precision = Literal["fp32", "fp16"]
_SOURCE = Path(__file__).with_name("product.cpp")


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """`operands`: fp16 rounds everything that an engine reads or writes; `accumulate`: precision of partial sums."""

    operands: Precision = "fp16"
    accumulate: Precision = "fp32"

    def __post_init__(self) -> None:
        for name in ("operands", "accumulate"):
            if getattr(self, name) not in ("fp32", "fp16"):
                raise ValueError(f"{name} got {getattr(self, name)!r}; use fp32 or fp16")
        if self.operands == "fp32" and self.accumulate == "fp16":
            raise ValueError("accumulate=fp16 of fp32 operands is no mode of the chip; use accumulate=fp32")

    @property
    def exact(self) -> bool:
        """Nothing is rounded beyond the dtype of the tensors."""
        return self.operands == "fp32"

    def round(self, x: Tensor) -> Tensor:
        """x as an engine or memory holds it."""
        if self.exact or not x.is_floating_point():
            return x
        if not (x.device.type == "cpu" and x.dtype == torch.float32 and x.numel() and loader.backend() == "compiled"):
            return x.half().float()
        x = x.contiguous()
        y = torch.empty_like(x)
        loader.call(_library().engine_round, x.numel(), x, y)
        return y


FP32 = Arithmetic(operands="fp32", accumulate="fp32")
FP16 = Arithmetic(operands="fp16", accumulate="fp32")
FP16_ACCUMULATED = Arithmetic(operands="fp16", accumulate="fp16")


def product(a: Tensor, b: Tensor, arithmetic: Arithmetic, rows: int = ROWS) -> Tensor:
    """a [..., M, K] @ b [..., K, N], reduced in folds of `rows` neighbours along K (the last fold may be shorter)."""
    if arithmetic.exact:  # the mode of comparison adds no error of its own to long sums
        return (a.double() @ b.double()).to(a.dtype)
    if not 1 <= rows <= MOST_ROWS:
        raise ValueError(f"a fold got {rows} rows; use 1 to {MOST_ROWS}")
    batch = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    a, b = (arithmetic.round(x).expand(*batch, *x.shape[-2:]).flatten(0, -3) if batch else x for x in (a, b))
    if not batch:
        a, b = arithmetic.round(a)[None], arithmetic.round(b)[None]
    half = arithmetic.accumulate == "fp16"
    compiled = a.device.type == "cpu" and a.dtype == torch.float32 and loader.backend() == "compiled"
    if compiled and _density(b) < _density(a) / 2:  # the kernel skips zeros of its first operand; the sums are the same
        c = _compiled(b.mT, a.mT, rows, half).mT
    else:
        c = (_compiled if compiled else folded)(a, b, rows, half)
    return arithmetic.round(c).reshape(*batch, a.shape[-2], b.shape[-1])


def folded(a: Tensor, b: Tensor, rows: int, half: bool) -> Tensor:
    """The plain form of `product`: a [G, M, K] @ b [G, K, N] of FP16 values, partial sums in FP16 if `half`."""

    def add(x: Tensor, y: Tensor) -> Tensor:
        return (x + y).half().float() if half else x + y

    total = a.new_zeros(a.shape[0], a.shape[1], b.shape[2])
    for start in range(0, a.shape[2], rows):
        fold = slice(start, start + rows)
        terms = list((a[:, :, fold, None] * b[:, None, fold, :]).half().float().unbind(2))
        stride = 1
        while stride < len(terms):
            for i in range(0, len(terms) - stride, 2 * stride):
                terms[i] = add(terms[i], terms[i + stride])
            stride *= 2
        total = add(total, terms[0])
    return total


def _compiled(a: Tensor, b: Tensor, rows: int, half: bool) -> Tensor:
    a, b = a.contiguous(), b.contiguous()
    c = torch.empty(a.shape[0], a.shape[1], b.shape[2])
    loader.call(_library().engine_product, *a.shape, b.shape[2], rows, int(half), a, b, c)
    return c


def _library() -> ctypes.CDLL:
    return loader.build(_SOURCE, "engine-product")


def _density(x: Tensor) -> float:
    """Fraction that is not zero, of a few thousand elements: it decides what is faster, not what is computed."""
    some = x.flatten()[:: max(1, x.numel() // 4093)]
    return int(some.count_nonzero()) / max(1, some.numel())
