"""How layers with weights and products of activations are laid on the FP, BP and WG engines.

    FP   x  = s W^T        reduction over the inputs, tap after tap           s  [P, taps, C]   W [K, C, taps]
    BP   ds = dx W         reduction over the outputs, tap after tap          dx [P, taps, K]
    WG   dW = dx^T s       reduction over positions, images and time

Convolutions become such products by gathering the taps of every position (as the engines' loops do; zeros at the border
are exact). BP of a strided convolution reads a gradient with zeros inserted. In FP32 the products are torch's own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from spikeloom.accel.trainer.engines.arithmetic import ROWS, Arithmetic, product


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """Constants of a convolution over one or two axes."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    @classmethod
    def of(cls, weight: Tensor, args: Sequence[Any]) -> "Convolution":
        """From the arguments of aten.conv1d or conv2d behind the bias."""
        axes = weight.dim() - 2
        given: list[Any] = [*args, *([1], [0], [1], 1)[len(args) :]]
        stride, padding, dilation, groups = given
        wide = lambda v: tuple(v) * axes if len(v) == 1 else tuple(v)  # noqa: E731
        if isinstance(padding, str):
            total = [d * (k - 1) for d, k in zip(wide(dilation), weight.shape[2:], strict=True)]
            if padding == "same" and any(t % 2 for t in total):
                raise ValueError(f"padding 'same' of an even kernel {tuple(weight.shape[2:])} is lopsided; pad first")
            padding = [t // 2 for t in total] if padding == "same" else [0] * axes
        return cls(stride=wide(stride), padding=wide(padding), dilation=wide(dilation), groups=groups)


def linear_forward(x: Tensor, weight: Tensor, bias: Tensor | None, arithmetic: Arithmetic) -> Tensor:
    """FP: x [..., C] -> [..., K]."""
    if arithmetic.exact:
        return F.linear(x, weight, bias)
    y = product(x.flatten(0, -2), weight.T, arithmetic)
    y = y if bias is None else arithmetic.round(y + arithmetic.round(bias))
    return y.reshape(*x.shape[:-1], -1)


def linear_backward(dx: Tensor, weight: Tensor, arithmetic: Arithmetic) -> Tensor:
    """BP: gradient of the outputs [..., K] -> of the inputs [..., C]."""
    return product(dx.flatten(0, -2), weight, arithmetic).reshape(*dx.shape[:-1], -1)


def linear_gradient(dx: Tensor, x: Tensor, arithmetic: Arithmetic) -> tuple[Tensor, Tensor]:
    """WG: (dW [K, C], dbias [K])."""
    rows = dx.flatten(0, -2)
    return product(rows.T, x.flatten(0, -2), arithmetic), _summed(rows, arithmetic)


def convolution_forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, c: Convolution, arithmetic: Arithmetic
) -> Tensor:
    """FP: x [N, C, ...] -> [N, K, ...]."""
    if arithmetic.exact:
        convolve = F.conv1d if weight.dim() == 3 else F.conv2d
        return convolve(x, weight, bias, c.stride, c.padding, c.dilation, c.groups)
    taps, out = _taps(x, weight.shape[2:], c)  # [g, N P, taps, C/g]
    filters = weight.flatten(2).unflatten(0, (c.groups, -1)).permute(0, 3, 2, 1)  # [g, taps, C/g, K/g]
    y = _by_taps(taps, filters, arithmetic)  # [g, N P, K/g]
    y = _channels_second(y, x.shape[0], out)
    if bias is None:
        return y
    return arithmetic.round(y + arithmetic.round(bias).view(-1, *[1] * len(out)))


def convolution_backward(
    dx: Tensor, weight: Tensor, c: Convolution, size: Sequence[int], arithmetic: Arithmetic
) -> Tensor:
    """BP: dx [N, K, ...] -> gradient of an input whose maps are of `size`."""
    kernel = weight.shape[2:]
    inserted = dx
    if max(c.stride) > 1:
        spread = [s * (n - 1) + 1 for s, n in zip(c.stride, dx.shape[2:], strict=True)]
        inserted = dx.new_zeros(*dx.shape[:2], *spread)
        every: Any = (..., *(slice(None, None, s) for s in c.stride))
        inserted[every] = dx
    padded = []  # pairs, last axis first
    for n, k, d, p, have in reversed(list(zip(size, kernel, c.dilation, c.padding, inserted.shape[2:], strict=True))):
        before = d * (k - 1) - p
        padded += [before, n + d * (k - 1) - before - have]
    inserted = F.pad(inserted, padded)
    plain = Convolution(stride=(1,) * len(kernel), padding=(0,) * len(kernel), dilation=c.dilation, groups=c.groups)
    taps, out = _taps(inserted, kernel, plain)  # [g, N P, taps, K/g]
    turned = weight.flip([2 + i for i in range(len(kernel))]).flatten(2).unflatten(0, (c.groups, -1))
    ds = _by_taps(taps, turned.permute(0, 3, 1, 2), arithmetic)  # filters [g, taps, K/g, C/g]
    return _channels_second(ds, dx.shape[0], out)


def convolution_gradient(
    dx: Tensor, x: Tensor, weight: Tensor, c: Convolution, arithmetic: Arithmetic
) -> tuple[Tensor, Tensor]:
    """WG: (dW, dbias)."""
    taps, _ = _taps(x, weight.shape[2:], c)  # [g, N P, taps, C/g]
    rows = dx.flatten(2).transpose(0, 1).unflatten(0, (c.groups, -1)).flatten(2)  # [g, K/g, N P]
    dw = product(rows, taps.flatten(2), arithmetic)  # [g, K/g, taps C/g]
    dw = dw.unflatten(2, (-1, weight.shape[1])).transpose(2, 3).reshape(weight.shape)
    return dw, _summed(dx.transpose(0, 1).flatten(1).T, arithmetic)


def matmul_backward(dx: Tensor, a: Tensor, b: Tensor, arithmetic: Arithmetic) -> tuple[Tensor, Tensor]:
    """Two products of BP: dA = dx B^T, dB = A^T dx, summed over axes that were broadcast."""
    da, db = product(dx, b.mT, arithmetic), product(a.mT, dx, arithmetic)
    return arithmetic.round(da.sum_to_size(a.shape)), arithmetic.round(db.sum_to_size(b.shape))


def _summed(rows: Tensor, arithmetic: Arithmetic) -> Tensor:
    """Column sums of rows [P, K], in the engines' order."""
    if arithmetic.exact:
        return rows.sum(0, dtype=torch.float64).to(rows.dtype)
    return product(rows.T, rows.new_ones(rows.shape[0], 1), arithmetic).squeeze(1)


def _taps(x: Tensor, kernel: Sequence[int], c: Convolution) -> tuple[Tensor, tuple[int, ...]]:
    """The inputs of every position, [g, N P, taps, C/g], and the sizes of the output maps."""
    two = len(kernel) == 2
    image = x if two else x.unsqueeze(2)
    pair = lambda v, first: tuple(v) if two else (first, *v)  # noqa: E731
    stride, padding, dilation = pair(c.stride, 1), pair(c.padding, 0), pair(c.dilation, 1)
    sizes, k = image.shape[2:], pair(kernel, 1)
    axes = zip(sizes, padding, dilation, k, stride, strict=True)
    out = tuple((n + 2 * p - d * (m - 1) - 1) // s + 1 for n, p, d, m, s in axes)
    alone = k == (1, 1) and max(padding) == 0 and max(stride) == 1
    columns = image.flatten(2) if alone else F.unfold(image, k, dilation, padding, stride)  # [N, C taps, P]
    n, positions = columns.shape[0], columns.shape[2]
    columns = columns.reshape(n, c.groups, x.shape[1] // c.groups, -1, positions)
    return columns.permute(1, 0, 4, 3, 2).flatten(1, 2), out if two else out[1:]


def _by_taps(taps: Tensor, filters: Tensor, arithmetic: Arithmetic) -> Tensor:
    """[g, M, taps, C] and [g, taps, C, K] -> [g, M, K]; folds hold neighbours of one tap, never of two."""
    channels = taps.shape[3]
    rows = min(ROWS, channels)
    if not arithmetic.exact and channels % rows:
        short = rows - channels % rows
        taps, filters = F.pad(taps, (0, short)), F.pad(filters, (0, 0, 0, short))
    return product(taps.flatten(2), filters.flatten(1, 2), arithmetic, rows)


def _channels_second(y: Tensor, images: int, sizes: Sequence[int]) -> Tensor:
    """[g, N P, K/g] -> [N, K, ...]."""
    return y.unflatten(1, (images, -1)).permute(1, 0, 3, 2).flatten(1, 2).unflatten(2, tuple(sizes)).contiguous()
