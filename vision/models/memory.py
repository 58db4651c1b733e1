"""What a compact training step keeps for its backward pass: spikes in one byte, normalised sums not at all.

    spikes        0 and 1 as uint8 instead of float32, unpacked when the weight gradient needs them
    pooling       where in its window a maximum was, one byte; neither the spikes nor 64-bit positions
    neurons       a neuron's input is the output of a batch norm, whose own input is kept anyway: it is made again,
                  in front of an MLP with the residual stream added

Values are exact, so gradients are bit for bit those of plain autograd. `recomputing` marks a second run of a forward
pass; `plain` switches all of it off, as inside a checkpointed block, which keeps nothing in the first place.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

_recomputing: ContextVar[bool] = ContextVar("recomputing", default=False)
_plain: ContextVar[bool] = ContextVar("plain", default=False)


@contextmanager
def _set(variable: ContextVar[bool]) -> Iterator[None]:
    token = variable.set(True)
    try:
        yield
    finally:
        variable.reset(token)


@contextmanager
def recomputing() -> Iterator[None]:
    """Inside, batch norms leave their running statistics alone: the batch has been counted the first time."""
    with _set(_recomputing), _set(_plain):
        yield


def plain() -> AbstractContextManager[None]:
    """Inside, everything is kept as autograd does it."""
    return nullcontext() if torch.compiler.is_compiling() else _set(_plain)


def compact(enable: bool) -> AbstractContextManager[None]:
    """Inside, a training step keeps what this module says if `enable`, else everything as autograd does it."""
    return nullcontext() if enable else plain()


def is_recomputing() -> bool:
    return not torch.compiler.is_compiling() and _recomputing.get()


def _active() -> bool:
    return not torch.compiler.is_compiling() and torch.is_grad_enabled() and not _plain.get()


def keep_as_bytes(*spikes: Tensor) -> AbstractContextManager[Any]:
    """Inside, these tensors and copies of their shape, small whole numbers all, are kept in one byte an element."""
    if not _active():
        return nullcontext()
    shapes = {s.shape for s in spikes}
    storages = {s.untyped_storage().data_ptr() for s in spikes}

    def pack(t: Tensor) -> Any:
        ours = t.shape in shapes or t.untyped_storage().data_ptr() in storages
        return (t.to(torch.uint8), t.dtype) if ours and t.is_floating_point() else t

    def unpack(kept: Any) -> Tensor:
        if isinstance(kept, Tensor):
            return kept
        packed, dtype = kept
        unpacked: Tensor = packed.to(dtype)
        return unpacked

    return saved_tensors_hooks(pack, unpack)


def made_again(y: Tensor, make: Callable[[], Tensor]) -> Tensor:
    """`y`, with a note how to make the same values again from what is kept anyway."""
    if _active():
        y._made_again = make  # type: ignore[attr-defined]
    return y


def how_made(y: Tensor) -> Callable[[], Tensor] | None:
    """What `made_again` noted of y."""
    return getattr(y, "_made_again", None) if _active() else None


def keep_nothing_of(x: Tensor) -> AbstractContextManager[Any]:
    """Inside, a saved `x` is made again when it is needed, if `made_again` has said how."""
    make = how_made(x)
    if make is None:
        return nullcontext()
    pointer, shape = x.data_ptr(), x.shape

    def pack(t: Tensor) -> Any:
        return make if t.shape == shape and t.data_ptr() == pointer else t

    def unpack(kept: Any) -> Tensor:
        if isinstance(kept, Tensor):
            return kept
        with torch.no_grad(), recomputing():
            again: Tensor = kept()
        return again

    return saved_tensors_hooks(pack, unpack)


class _SpikePool(torch.autograd.Function):
    """3x3 max pooling with stride 2 that keeps one byte an output: the place of the maximum in its window."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y, index = torch.nn.functional.max_pool2d(x, 3, 2, 1, return_indices=True)
        ctx.shape, ctx.like = x.shape, torch.empty_like(x, device="meta")
        width = x.shape[3]
        top, left = _corners(y)
        ctx.save_for_backward(((index // width - top) * 3 + index % width - left).to(torch.uint8))
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (place,) = ctx.saved_tensors
        top, left = _corners(grad)
        place = place.long()
        index = (place // 3 + top) * ctx.shape[3] + place % 3 + left
        x = torch.empty_strided(ctx.shape, ctx.like.stride(), dtype=grad.dtype, device=grad.device)  # for its shape
        out: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(
            grad, x, [3, 3], [2, 2], [1, 1], [1, 1], False, index
        )
        return out


def _corners(y: Tensor) -> tuple[Tensor, Tensor]:
    """First row [H', 1] and column [W'] of every window, -1 in the padding."""
    rows, columns = (2 * torch.arange(n, device=y.device) - 1 for n in y.shape[2:])
    return rows[:, None], columns


def pool(x: Tensor) -> Tensor:
    """Max pooling 3x3, stride 2, padding 1, of [N, C, H, W]."""
    if _active() and x.requires_grad and x.device.type != "meta":
        out: Tensor = _SpikePool.apply(x)
        return out
    return torch.nn.functional.max_pool2d(x, 3, 2, 1)
