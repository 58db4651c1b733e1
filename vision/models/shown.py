"""Images and frames as a spiking network is shown them: time first, with the number of steps an image stands for."""

from torch import Tensor


def shown_frames(
    x: Tensor, in_chans: int, T: int | None, T_of_images: int, batch_first: bool = False
) -> tuple[Tensor, int]:
    """Images [B, C, H, W] -> ([1, B, C, H, W], steps to show them); frames [T, B, C, H, W] -> (the frames, 1).

    With `batch_first` frames come as [B, T, C, H, W]. Raises ValueError for another shape or type, naming the remedy.
    """
    shape = f"[B, {in_chans}, H, W] or [T, B, {in_chans}, H, W]"
    if x.dim() not in (4, 5) or x.shape[-3] != in_chans:
        raise ValueError(f"expected images or frames {shape}, got {tuple(x.shape)}; check in_chans and the data")
    if not x.is_floating_point():
        raise ValueError(f"images must be floating point, got {x.dtype}; use x.float() / 255 and normalise")
    if min(x.shape) < 1:
        raise ValueError(f"got an input of shape {tuple(x.shape)}; every size must be a multiple of 1, at least 1")
    if T is not None:
        check_steps(T)
    if x.dim() == 4:
        return x[None], T or T_of_images
    x = x.transpose(0, 1) if batch_first else x
    if T is not None and x.shape[0] != T:
        raise ValueError(f"got frames of {x.shape[0]} steps and T={T}; leave T out, or check batch_first")
    return x, 1


def check_streamed(x: Tensor, in_chans: int, training: bool) -> None:
    """Raise ValueError unless `x` is one frame [B, in_chans, H, W] for a model that is evaluated."""
    if training:
        raise ValueError("step() streams a model in evaluation mode, got a model in training; call eval() first")
    if x.dim() != 4:
        raise ValueError(f"step() takes one frame [B, {in_chans}, H, W], got {tuple(x.shape)}")


def check_steps(T: int) -> None:
    """Raise ValueError for a number of steps that is none."""
    if T < 1 or T % 1:
        raise ValueError(f"T must be at least 1 step and a whole number, got {T}; use for example 4")
