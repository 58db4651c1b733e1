"""Attention and einsum as the products that they are, on the FP and BP engines.

    attention   S = scale Q K^T + mask     P = softmax(S)        O = P V
                dV = P^T dO                dP = dO V^T           dS = P (dP - sum(dP P))
                dQ = scale dS K            dK = scale dS^T Q
    einsum      permuted to [G, M, K] x [G, K, N], G the letters of both that stay, K those of both that are summed

The softmax is a unit of its own: FP32 inside, FP16 at the memories. In FP32 the results are torch's own.
"""

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from spikeloom.accel.trainer.engines.arithmetic import Arithmetic, product


@dataclass(frozen=True, kw_only=True)
class Attention:
    """What an attention keeps for BP: probabilities [..., Q, K] and the scale of the scores."""

    probabilities: Tensor
    scale: float


def attention_forward(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, scale: float | None, arithmetic: Arithmetic
) -> tuple[Tensor, Attention]:
    """FP: q [..., Q, D], k [..., K, D], v [..., K, E] -> [..., Q, E]. A mask is bool (True: attend) or added."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    scores = arithmetic.round(product(q, k.mT, arithmetic) * scale)
    if causal:
        allowed = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool).tril()
        scores = scores.masked_fill(~allowed, float("-inf"))
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    kept = Attention(probabilities=arithmetic.round(scores.softmax(-1)), scale=scale)
    if arithmetic.exact:
        return F.scaled_dot_product_attention(q, k, v, mask, 0.0, causal, scale=scale), kept
    return product(kept.probabilities, v, arithmetic), kept


def attention_backward(
    do: Tensor, q: Tensor, k: Tensor, v: Tensor, kept: Attention, arithmetic: Arithmetic
) -> tuple[Tensor, Tensor, Tensor]:
    """BP: gradients of q, k and v."""
    p, rnd = kept.probabilities, arithmetic.round
    dv = product(p.mT, do, arithmetic)
    dp = product(do, v.mT, arithmetic)
    ds = rnd(p * (dp - (dp * p).sum(-1, keepdim=True)))
    dq = rnd(product(ds, k, arithmetic) * kept.scale)
    dk = rnd(product(ds.mT, q, arithmetic) * kept.scale)
    return rnd(dq.sum_to_size(q.shape)), rnd(dk.sum_to_size(k.shape)), rnd(dv.sum_to_size(v.shape))


def contract(equation: str, a: Tensor, b: Tensor, arithmetic: Arithmetic) -> Tensor:
    """einsum of two operands, "bnd,hde->bhne".

    Raises:
        ValueError: for a letter that is summed and belongs to one operand only, or that comes twice in one.
    """
    first, second, result = terms(equation)
    sizes = dict(zip((*first, *second), (*a.shape, *b.shape), strict=True))
    groups = [x for x in first if x in second and x in result]
    summed = [x for x in first if x in second and x not in result]
    rows = [x for x in first if x not in second]
    columns = [x for x in second if x not in first]
    left = a.permute([first.index(x) for x in (*groups, *rows, *summed)])
    right = b.permute([second.index(x) for x in (*groups, *summed, *columns)])
    g, m, k, n = (prod(sizes[x] for x in letters) for letters in (groups, rows, summed, columns))
    y = product(left.reshape(g, m, k), right.reshape(g, k, n), arithmetic)
    made = [*groups, *rows, *columns]
    return y.reshape([sizes[x] for x in made]).permute([made.index(x) for x in result])


def contract_backward(equation: str, dy: Tensor, a: Tensor, b: Tensor, arithmetic: Arithmetic) -> tuple[Tensor, Tensor]:
    """Gradients of both operands: einsums again, of the result with the other operand."""
    first, second, result = terms(equation)
    da = contract(f"{result},{second}->{first}", dy, b, arithmetic)
    db = contract(f"{first},{result}->{second}", a, dy, arithmetic)
    return da, db


def terms(equation: Any) -> tuple[str, str, str]:
    """The letters of both operands and of the result.

    Raises:
        ValueError: for an equation that is no product of two matrices side by side.
    """
    left, arrow, result = str(equation).replace(" ", "").partition("->")
    operands = left.split(",")
    if not arrow or len(operands) != 2 or "." in equation:
        raise ValueError(f"einsum {equation!r} has no engine; write out two operands and the result")
    first, second = operands
    for letters, other in ((first, second), (second, first)):
        lost = [x for x in letters if x not in other and x not in result]
        if lost or len(set(letters)) != len(letters):
            raise ValueError(f"einsum {equation!r} sums {''.join(lost) or letters} of one operand; sum before it")
    return first, second, result
