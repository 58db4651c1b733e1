"""How many entries of a tensor are not zero, and how wide its numbers are: what an export measures of each operand."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spikeloom.accel.export.rules import Operand
from spikeloom.accel.trainer.workload import Density, InputKind

TILE = 16  # lanes of an array among which the busiest is looked for
LARGEST_INTEGER = 255  # inputs 0, 1, ... up to this are bit planes; anything else counts as real
_WIDTH: tuple[InputKind, ...] = ("binary", "ternary", "integer", "real")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Fraction of non-zeros of one operand in one batch; `busiest` as in `Density`."""

    mean: float
    per_step: tuple[float, ...]
    busiest: float | None


def over_batches(measured: Sequence[Measured]) -> Density:
    """Mean and range over batches."""
    means = [m.mean for m in measured]
    steps = zip(*(m.per_step for m in measured), strict=True)
    busiest = [m.busiest for m in measured if m.busiest is not None]
    return Density(
        mean=sum(means) / len(means), min=min(means), max=max(means),
        per_step=tuple(sum(s) / len(s) for s in steps),
        busiest=sum(busiest) / len(busiest) if busiest else None,
    )  # fmt: skip


def measure_operand(operand: Operand, steps: int, batch: int, *, time: bool, time_first: bool = True) -> Measured:
    """Fraction of non-zeros: whole, per step (where the layout shows the steps), and of the busiest lane.

    A tile is 16 neighbouring lanes of one image, over all its steps and positions.
    """
    nonzero = operand.tensor != 0
    rows = nonzero.shape[0] if nonzero.dim() else 0
    lanes_axis = operand.lanes
    if time and not time_first and steps > 1 and nonzero.dim() > 1:
        if nonzero.shape[:2] == (batch, steps) and lanes_axis not in (0, 1):
            nonzero, rows = nonzero.transpose(0, 1), steps
        elif rows == batch * steps and lanes_axis != 0:
            nonzero = nonzero.unflatten(0, (batch, steps)).transpose(0, 1).flatten(0, 1)
        else:
            rows = 0  # the steps cannot be told apart
    first = time and rows in (steps, steps * batch)
    per_step = nonzero.reshape(steps, -1).double().mean(1).tolist() if first and nonzero.numel() else []
    busiest = None
    if lanes_axis is not None and nonzero.dim() and nonzero.numel():
        lanes = nonzero.movedim(lanes_axis, -1)  # [..., L]
        images = batch if first and lanes.numel() // lanes.shape[-1] % (steps * batch) == 0 else 1
        streams = lanes.reshape(steps if images > 1 else 1, images, -1, lanes.shape[-1]).float().mean((0, 2))
        padded = torch.nn.functional.pad(streams, (0, -streams.shape[-1] % TILE))
        busiest = float(padded.unflatten(-1, (-1, TILE)).amax(-1).mean())
    mean = float(nonzero.double().mean()) if nonzero.numel() else 0.0
    return Measured(mean=mean, per_step=tuple(per_step), busiest=busiest)


def wider(kind: InputKind | None, largest: int, tensor: Tensor) -> tuple[InputKind, int]:
    """The kind that holds what was seen so far and `tensor`, and the largest integer in it."""
    low, high = (float(v) for v in tensor.aminmax()) if tensor.numel() else (0.0, 0.0)
    if not bool((tensor == tensor.round()).all()) or high > LARGEST_INTEGER or low < -1 or (low < 0 and high > 1):
        new: InputKind = "real"
    else:
        new = "ternary" if low < 0 else "binary" if high <= 1 else "integer"
    if {kind, new} == {"ternary", "integer"}:
        return "real", 0
    return max(kind or new, new, key=_WIDTH.index), max(largest, int(high) if new != "real" else 0)


def bits_of(kind: InputKind, largest: int) -> int:
    """Bits of one number of a kind whose largest entry is `largest`."""
    return {"binary": 1, "ternary": 2, "integer": max(2, largest.bit_length()), "real": 16}[kind]
