"""Why an FP16 gradient parts from that of FP32: spikes that flip, or arithmetic?

The same program, weights and batch run three times: in FP32, in FP16, and in FP16 with the spikes, surrogate masks and
membranes of FP32 in place of its own. What the third has in common with the first is what rounding alone leaves.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from spikeloom.accel.trainer.engines.arithmetic import FP32, Arithmetic
from spikeloom.accel.trainer.engines.program import Engines


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Fractions of spikes and of surrogate masks that differ from FP32's (None without neurons), and the cosines of the
    gradient of all parameters with FP32's: as it is, and with FP32's spikes and masks."""

    spike_flips: float | None
    mask_flips: float | None
    cosine: float
    cosine_forced: float


def agreement(
    program: torch.export.ExportedProgram, inputs: Sequence[Tensor], loss: Callable[[Tensor], Tensor],
    arithmetic: Arithmetic, loss_scale: float = 1.0,
) -> Agreement:  # fmt: skip
    """How the engines in `arithmetic` differ from FP32 on one batch; weights and running statistics are left alone.

    Args:
        program: exported from the model, whose weights are read.
        inputs: of the program.
        loss: of its output.
        arithmetic: to compare with FP32.
        loss_scale: a power of two, of the gradients in `arithmetic`.
    """

    def gradients(engines: Engines) -> dict[str, Tensor]:
        out = engines.forward(*inputs).requires_grad_()
        (gradient,) = torch.autograd.grad(loss(out), out)
        return engines.backward(gradient)

    exact = Engines(program, forward=FP32, learn_statistics=False)
    rounded, forced = (
        Engines(program, forward=arithmetic, loss_scale=loss_scale, learn_statistics=False) for _ in range(2)
    )
    expected, found = gradients(exact), gradients(rounded)
    forced.forced = exact.remembered
    masks = [(exact.remembered[p].mask, rounded.remembered[p].mask) for p in exact.remembered]
    return Agreement(
        spike_flips=_differing([(exact.remembered[p].spikes, rounded.remembered[p].spikes) for p in exact.remembered]),
        mask_flips=_differing([(a, b) for a, b in masks if a is not None and b is not None]),
        cosine=cosine(expected, found), cosine_forced=cosine(expected, gradients(forced)),
    )  # fmt: skip


def cosine(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """Of two gradients of all parameters, each as one vector."""
    dot = sum(float((a[name].double() * b[name].double()).sum()) for name in a)
    return dot / (_norm(a) * _norm(b))


def _norm(gradients: Mapping[str, Tensor]) -> float:
    return float(sum(float(g.double().square().sum()) for g in gradients.values())) ** 0.5


def _differing(pairs: Sequence[tuple[Tensor, Tensor]]) -> float | None:
    total = sum(a.numel() for a, _ in pairs)
    return sum(int((a != b).sum()) for a, b in pairs) / total if total else None
