"""From logits of every step to one answer a clip, over the valid steps only.

    mean_probability   log of the mean over t of softmax(z[t])      every step is a vote; silent steps vote for nothing
    mean_logit         log softmax of the mean over t of z[t]       evidence adds up, and silent steps add none

A model says which by `readout`, and how long its output is by `output_lengths` where it is shorter than its input.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

READOUTS = ("mean_probability", "mean_logit")


def check_readout(name: str) -> None:
    if name not in READOUTS:
        raise ValueError(f"model.readout={name} is unknown; use {' or '.join(READOUTS)}")


def valid_steps(lengths: Tensor, steps: int) -> Tensor:
    """Mask [T, B]: true where step t belongs to sample b."""
    return torch.arange(steps, device=lengths.device)[:, None] < lengths


def padding_mask(lengths: Tensor | None, steps: int) -> Tensor | None:
    """What a model masks steps with: `valid_steps`, or None where no step is padding, which is the same and faster."""
    if lengths is None:
        return None
    known = lengths.device.type == "cpu" and not torch.compiler.is_compiling()  # to ask a GPU would be to wait for it
    if known and bool((lengths >= steps).all()):
        return None
    return valid_steps(lengths, steps)


def log_mean_probability(logits: Tensor, lengths: Tensor | None = None) -> Tensor:
    """log of the mean over valid steps of softmax(logits[t]): [T, B, classes] -> [B, classes], by log-sum-exp."""
    log_p = F.log_softmax(logits, dim=2)
    if lengths is None:
        return log_p.logsumexp(0) - math.log(logits.shape[0])
    log_p = log_p.masked_fill(~valid_steps(lengths, logits.shape[0])[:, :, None], -math.inf)
    return log_p.logsumexp(0) - lengths.to(logits.dtype).log()[:, None]


def mean_logits(logits: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Mean over valid steps of logits [T, B, classes] -> [B, classes]."""
    if lengths is None:
        return logits.mean(0)
    valid = valid_steps(lengths, logits.shape[0])[:, :, None]
    return torch.where(valid, logits, logits.new_zeros(())).sum(0) / lengths.to(logits.dtype)[:, None]


def output_lengths(model: Any, lengths: Tensor | None) -> Tensor | None:
    """Valid steps [B] of a model's output, from those of its input."""
    shorten = getattr(model, "output_lengths", None)
    return lengths if lengths is None or shorten is None else shorten(lengths)


def read_out(model: Any, logits: Tensor, lengths: Tensor | None = None) -> Tensor:
    """log of the class probabilities by the readout of `model`: logits [T', B, classes], lengths [B] of its input."""
    valid = output_lengths(model, lengths)
    if getattr(model, "readout", READOUTS[0]) == "mean_logit":
        return F.log_softmax(mean_logits(logits, valid), dim=1)
    return log_mean_probability(logits, valid)
