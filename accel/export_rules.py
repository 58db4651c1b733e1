"""The rules of export: from one node of a program and its tensors to the shape of its layer and what to measure.

A rule gets a `Call` and returns the fields of its `Layer` with the operands whose densities are wanted. It reads shapes
only; what values the operands hold is measured by `export`. Counting rules are those of `accel.trainer.workload`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from accel import export_table as table
from accel.spiking.functional import LIFParameters, charge, reset
from accel.spiking.surrogate import Rectangular, from_code
from accel.trainer.workload import Neuron


@dataclass(frozen=True, kw_only=True)
class Call:
    """One executed node: its arguments and result, and the model's steps and batch."""

    args: Sequence[Any]
    kwargs: dict[str, Any]
    out: Any
    steps: int
    batch: int
    constant: frozenset[int]  # positions of arguments that do not depend on the input: weights, not activations
    trained: frozenset[int]  # those of them that depend on a parameter with a gradient

    def argument(self, index: int, name: str, default: Any = None) -> Any:
        return self.args[index] if len(self.args) > index else self.kwargs.get(name, default)


@dataclass(frozen=True, kw_only=True)
class Operand:
    """A tensor to measure; `lanes` is the axis that is spread over the rows or columns of an array, None if none."""

    tensor: Tensor
    lanes: int | None = None


Operands = dict[str, Operand]
Rule = Callable[[Call], tuple[dict[str, Any], Operands]]


def rule_for(target: Any) -> Rule | None:
    """The rule of an operation; None says that it is not supported."""
    return next((rule for family, rule in _RULES if target in family), None)


def _loops(rows: int, call: Call) -> dict[str, int]:
    """How `rows` rows of a matrix are spread over time, batch and tokens; time or batch may be gone by then."""
    for steps, batch in ((call.steps, call.batch), (1, call.batch), (call.steps, 1)):
        if rows >= steps * batch and rows % (steps * batch) == 0:
            return {"time_steps": steps, "batch_size": batch, "tokens": rows // (steps * batch)}
    return {"time_steps": 1, "batch_size": 1, "tokens": rows}


def _gemm(macs: int, weight: Tensor, bias: Tensor | None) -> dict[str, Any]:
    return {
        "kind": "gemm_weight", "macs_forward": macs, "macs_backward": macs, "macs_weight_gradient": macs,
        "parameters": weight.numel() + (0 if bias is None else bias.numel()),
    }  # fmt: skip


def _matrix(x: Tensor, weight: Tensor, bias: Tensor | None, call: Call) -> tuple[dict[str, Any], Operands]:
    """x [..., C] times weight [K, C]."""
    n_out, n_in = weight.shape
    rows = x.numel() // n_in
    return (
        {**_gemm(rows * n_in * n_out, weight, bias), **_loops(rows, call), "in_channels": n_in, "out_channels": n_out},
        {"density_input": Operand(tensor=x, lanes=-1), "density_weight": Operand(tensor=weight, lanes=0)},
    )


def _linear(call: Call) -> tuple[dict[str, Any], Operands]:
    return _matrix(call.args[0], call.args[1], call.argument(2, "bias"), call)


def _addmm(call: Call) -> tuple[dict[str, Any], Operands]:
    bias, x, weight = call.args[:3]
    return _matrix(x, weight.T, bias, call)


def _convolution(call: Call) -> tuple[dict[str, Any], Operands]:
    x, weight, bias, out = call.args[0], call.args[1], call.argument(2, "bias"), call.out
    groups = call.argument(6, "groups", 1)
    n_out, per_group, *kernel = weight.shape
    spatial = len(kernel)
    if x.dim() == spatial + 1:  # without a batch axis
        x, out = x[None], out[None]

    def pair(value: Any) -> tuple[int, int]:
        values = [value] * spatial if isinstance(value, int) else list(value) * (spatial if len(value) == 1 else 1)
        return (1, values[0]) if spatial == 1 else (values[0], values[1])

    shape = {"in_channels": per_group * groups, "out_channels": n_out, "groups": groups, "kernel": pair(kernel)}
    shape |= _gemm(out.numel() * weight[0].numel(), weight, bias)
    weights = Operand(tensor=weight, lanes=0)
    padding = call.argument(4, "padding", 0)
    dilation = pair(call.argument(5, "dilation", 1))
    if isinstance(padding, str):  # "same" or "valid"
        padding = [
            d * (k - 1) // 2 if padding == "same" else 0 for d, k in zip(dilation[-spatial:], kernel, strict=True)
        ]
    same = {"stride": pair(call.argument(3, "stride", 1)), "dilation": dilation}
    same["padding"] = pair(padding) if spatial == 2 else (0, pair(padding)[1])
    over_time = spatial == 1 and x.shape[0] == call.batch and call.steps > 1
    if over_time and x.shape[-1] == out.shape[-1] == call.steps:  # each step is one position that reads `kernel` steps
        shape |= {**same, "time_steps": call.steps, "batch_size": call.batch}
        return shape, {"density_input": Operand(tensor=x.permute(2, 0, 1), lanes=-1), "density_weight": weights}
    sizes = [(1, *t.shape[2:])[-2:] for t in (x, out)]
    (shape["in_height"], shape["in_width"]), (shape["out_height"], shape["out_width"]) = sizes
    images = _loops(x.shape[0], call)
    shape |= {**same, **images, "tokens": 1, "batch_size": images["batch_size"] * images["tokens"]}
    return shape, {"density_input": Operand(tensor=x, lanes=1), "density_weight": weights}


def _product(call: Call) -> tuple[dict[str, Any], Operands]:
    """a [..., M, K] @ b [..., K, N]. A factor that is a weight makes it a layer with weights."""
    a, b = call.args[:2]
    if 1 in call.constant and b.dim() == 2:
        return _matrix(a, b.T, None, call)
    if 0 in call.constant and a.dim() == 2 and b.dim() >= 2:
        return _matrix(b.transpose(-1, -2), a, None, call)
    a, b = (a[None] if a.dim() == 1 else a), (b[:, None] if b.dim() == 1 else b)
    m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
    return _activation_product(a, b, products=call.out.numel() // (m * n), m=m, k=k, n=n, call=call)


def _activation_product(
    a: Tensor, b: Tensor, *, products: int, m: int, k: int, n: int, call: Call, gemms: int = 1
) -> tuple[dict[str, Any], Operands]:
    """`products` products [M, K] x [K, N]; time is a leading axis, or the axis of length T among M and K."""
    steps, batch = call.steps, call.batch
    leading = products % (steps * batch) == 0 and (a.shape[0] in (steps, steps * batch))
    if leading or steps not in (m, k) or products % batch:
        shared = batch if products % batch == 0 else 1
        timed = steps if products % (steps * shared) == 0 else 1
        rows, columns, tokens, groups = k, n, m, products // (timed * shared)
    else:  # time is one of the multiplied axes
        shared, timed, groups = batch, steps, products // batch
        rows, columns, tokens = (k, n, 1) if m == steps else (m, n, 1)
    macs = products * m * k * n * gemms
    return {
        "kind": "gemm_activation", "in_channels": rows * groups, "out_channels": columns * groups, "groups": groups,
        "time_steps": timed, "batch_size": shared, "tokens": tokens,
        "macs_forward": macs, "macs_backward": 2 * macs, "macs_weight_gradient": 0,
    }, {"density_input": Operand(tensor=a, lanes=-1), "density_weight": Operand(tensor=b, lanes=-1)}  # fmt: skip


def _einsum(call: Call) -> tuple[dict[str, Any], Operands]:
    """Two operands: the letters they share and sum over are K, those of one only M and N, the rest are products."""
    equation, tensors = call.args[0].replace(" ", ""), call.args[1]
    if len(tensors) != 2 or "..." in equation or "->" not in equation:
        raise ValueError(f"einsum {equation!r} of {len(tensors)} operands has no rule; write out two at a time")
    terms, result = equation.split("->")
    first, second = terms.split(",")
    a, b = tensors
    sizes = {**dict(zip(first, a.shape, strict=True)), **dict(zip(second, b.shape, strict=True))}
    size = {
        "k": prod(sizes[x] for x in sizes if x not in result),
        "m": prod(sizes[x] for x in sizes if x in result and x not in second),
        "n": prod(sizes[x] for x in sizes if x in result and x not in first),
    }
    products = prod(sizes[x] for x in sizes if x in result and x in first and x in second)
    return _activation_product(a, b, products=products, **size, call=call)


def _attention(call: Call) -> tuple[dict[str, Any], Operands]:
    """softmax(q kT) v as one layer of two products; backward has four."""
    q, k, v = call.args[:3]
    queries, keys, width = q.shape[-2], k.shape[-2], q.shape[-1]
    fields, operands = _activation_product(
        q, k, products=q.numel() // (queries * width), m=queries, k=width, n=keys, call=call
    )
    second = q.numel() // width * keys * v.shape[-1]
    fields["macs_forward"] += second
    fields["macs_backward"] += 2 * second
    return fields, operands


def _neuron(call: Call) -> tuple[dict[str, Any], Operands]:
    x, v, tau, decay_input, threshold, v_reset, detach, code, parameter = call.args
    surrogate, learned = from_code(code, parameter), isinstance(tau, Tensor)
    tau = float(tau)
    neuron = Neuron(
        decay=1 - 1 / tau, input_gain=1 / tau if decay_input else 1.0, threshold=threshold, v_reset=v_reset or 0.0,
        reset="soft" if v_reset is None else "hard", detach_reset=detach, surrogate=repr(surrogate),
        half_width=surrogate.half_width if isinstance(surrogate, Rectangular) else None,
    )  # fmt: skip
    p = LIFParameters(
        tau=tau, decay_input=decay_input, threshold=threshold, v_reset=v_reset, detach_reset=detach,
        surrogate=surrogate,
    )  # fmt: skip
    masks = []  # Tensor of one step each: where the surrogate lets a gradient through
    v = v.to(x.dtype)
    for x_t in x.unbind(0):
        u = charge(x_t, v, p)
        masks.append(surrogate(u - threshold) != 0)
        v = reset(u, (u >= threshold).to(u.dtype), p)
    fields = {**_per_element("neuron", call.out[0], call), "neuron": neuron, "parameters": 1 if learned else 0}
    return fields, {
        "density_input": Operand(tensor=x),
        "density_spike": Operand(tensor=call.out[0]),
        "density_mask": Operand(tensor=torch.stack(masks)),
    }


def _norm(call: Call) -> tuple[dict[str, Any], Operands]:
    out = call.out[0] if isinstance(call.out, tuple | list) else call.out
    fixed = [call.args[i] for i in sorted(call.constant) if isinstance(call.args[i], Tensor)]  # scale, shift, mean, …
    learned = [call.args[i] for i in sorted(call.trained) if isinstance(call.args[i], Tensor)]
    channels = fixed[0].numel() if fixed else out.shape[-1]
    rows = out.numel() // channels
    shape = {"kind": "norm", "in_channels": channels, "out_channels": channels, **_loops(rows, call)}
    return {**shape, "parameters": sum(p.numel() for p in learned)}, {"density_input": Operand(tensor=call.args[0])}


def _gather(call: Call) -> tuple[dict[str, Any], Operands]:
    """Rows of a table, embedding(weight, indices)."""
    weight = call.args[0]
    rows = call.out.numel() // weight.shape[-1]
    shape = {"kind": "gather", "in_channels": 1, "out_channels": weight.shape[-1], **_loops(rows, call)}
    return {**shape, "parameters": weight.numel()}, {}


def _elementwise(call: Call) -> tuple[dict[str, Any], Operands]:
    out = call.out if isinstance(call.out, Tensor) else call.out[0]
    tensors = [a for a in call.args if isinstance(a, Tensor) and a.is_floating_point()]
    operands = {"density_input": Operand(tensor=tensors[0])} if tensors and tensors[0].numel() else {}
    return _per_element("elementwise", out, call), operands


def _per_element(kind: str, out: Tensor, call: Call) -> dict[str, Any]:
    loops = _loops(max(1, out.numel()), call)
    channels = loops.pop("tokens")
    return {"kind": kind, "in_channels": channels, "out_channels": channels, **loops}


_RULES: tuple[tuple[frozenset[Any], Rule], ...] = (
    (table.LINEAR, _linear), (table.ADDMM, _addmm), (table.CONVOLUTIONS, _convolution), (table.PRODUCTS, _product),
    (table.EINSUMS, _einsum), (table.ATTENTIONS, _attention), (table.NEURONS, _neuron), (table.NORMS, _norm),
    (table.GATHERS, _gather), (table.ELEMENTWISE, _elementwise),
)  # fmt: skip
