"""Maps [T, B, C, H, W] with their channels last in memory: what leaves that layout is brought back to it.

Convolutions skip zeros there, and where a map meets a gradient of the other layout, PyTorch's batch norm and pooling
take ten times as long as the copy.
"""

import torch
from torch import Tensor


def is_channels_last(x: Tensor) -> bool:
    """Whether [T, B, C, H, W] is one block of memory with the channels last."""
    return x.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)


def channels_last(x: Tensor) -> Tensor:
    """[T, B, C, H, W], channels last."""
    return x.flatten(0, 1).contiguous(memory_format=torch.channels_last).unflatten(0, x.shape[:2])


def laid_out_as(model: Tensor, y: Tensor) -> Tensor:
    """y, channels last where `model` is; the products of attention leave channels first."""
    return channels_last(y) if is_channels_last(model) else y


def keep_layout_of_gradient(x: Tensor) -> None:
    """The gradient of x [T, B, C, H, W] will be laid out as x; that of an average over H and W would not be."""
    if x.requires_grad and not torch.compiler.is_compiling() and is_channels_last(x):
        x.register_hook(channels_last)
