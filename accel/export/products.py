"""The rules of products: linear layers, convolutions, products of activations, attention, einsum, bilinear layers.

    y [M, N] = x [M, K] W [K, N]     a layer with weights: BP needs M K N more MACs if x wants a gradient, WG if W does
    c [M, N] = a [M, K] b [K, N]     of activations: M K N more for each factor that wants one

A product of G matrices side by side (heads, experts) is one layer of G groups.
"""

from dataclasses import replace
from math import prod
from typing import Any

import torch
from torch import Tensor

from spikeloom.accel.export.rules import Call, Found, NoRuleError, Operand, Place, spread


def weighted(fields: dict[str, Any], macs: int, x: Operand, weight: Operand, places: tuple[Place, Place]) -> Found:
    """A layer with weights; `places` are those of its input and of its weight."""
    return Found(
        fields={"kind": "gemm_weight", "macs_forward": macs, **fields},
        operands={"density_input": x, "density_weight": weight},
        backward=((macs, places[:1]),), weight_gradient=((macs, places[1:]),),
    )  # fmt: skip


def _matrix(x: Tensor, weight: Tensor, call: Call, places: tuple[Place, Place]) -> list[Found]:
    """x [..., C] times weight [K, C]."""
    n_out, n_in = weight.shape
    rows = x.numel() // n_in
    fields = {**spread(rows, call), "in_channels": n_in, "out_channels": n_out}
    found = weighted(fields, rows * n_in * n_out, Operand(tensor=x, lanes=-1), Operand(tensor=weight, lanes=0), places)
    return [found]


def linear(call: Call) -> list[Found]:
    """linear(x, weight, bias). A weight of one axis is a single output."""
    weight = call.args[1]
    return _matrix(call.args[0], weight if weight.dim() == 2 else weight[None], call, (0, 1))


def addmm(call: Call) -> list[Found]:
    """addmm(bias, x, weight), addmv(bias, matrix, vector)."""
    x, weight = call.args[1:3]
    if weight.dim() == 1:
        return _matrix(weight[None], x, call, (2, 1))
    return _matrix(x, weight.T, call, (1, 2))


def convolution(call: Call) -> list[Found]:
    """conv1d, conv2d, conv3d (x, weight, bias, stride, padding, dilation, groups). Depth counts with the tokens."""
    x, weight, out = call.args[0], call.args[1], call.out
    groups = call.argument(6, "groups", 1)
    n_out, per_group, *kernel = weight.shape
    spatial = len(kernel)
    if x.dim() == spatial + 1:  # without a batch axis
        x, out = x[None], out[None]

    def pair(value: Any) -> tuple[int, int]:
        values = [value] * spatial if isinstance(value, int) else list(value) * (spatial if len(value) == 1 else 1)
        return (1, values[0]) if spatial == 1 else (values[-2], values[-1])

    taps = pair(kernel) if spatial < 3 else (kernel[0] * kernel[1], kernel[2])
    fields = {"in_channels": per_group * groups, "out_channels": n_out, "groups": groups, "kernel": taps}
    macs = out.numel() * weight[0].numel()
    weights = Operand(tensor=weight, lanes=0)
    padding = call.argument(4, "padding", 0)
    dilation = pair(call.argument(5, "dilation", 1))
    if isinstance(padding, str):  # "same" or "valid"
        given = call.argument(5, "dilation", 1)
        spaced = [given] * spatial if isinstance(given, int) else list(given) * (spatial if len(given) == 1 else 1)
        padding = [d * (k - 1) // 2 if padding == "same" else 0 for d, k in zip(spaced, kernel, strict=True)]
    same = {"stride": pair(call.argument(3, "stride", 1)), "dilation": dilation}
    same["padding"] = pair(padding) if spatial > 1 else (0, pair(padding)[1])
    over_time = spatial == 1 and x.shape[0] == call.batch and call.steps > 1
    if over_time and x.shape[-1] == out.shape[-1] == call.steps:  # each step is one position that reads `kernel` steps
        fields |= {**same, "time_steps": call.steps, "batch_size": call.batch}
        return [weighted(fields, macs, Operand(tensor=x.permute(2, 0, 1), lanes=-1), weights, (0, 1))]
    sizes = [(1, *t.shape[2:])[-2:] for t in (x, out)]
    (fields["in_height"], fields["in_width"]), (fields["out_height"], fields["out_width"]) = sizes
    images = spread(x.shape[0], call)
    depth = out.shape[2] if spatial == 3 else 1
    fields |= {**same, **images, "tokens": depth, "batch_size": images["batch_size"] * images["tokens"]}
    return [weighted(fields, macs, Operand(tensor=x, lanes=1), weights, (0, 1))]


def transposed(call: Call) -> list[Found]:
    """conv_transpose (x [N, C, ...], weight [C, K/groups, taps]): every input position times all taps of all outputs.

    It is read as the product that it is, C inputs to K taps outputs at every INPUT position, whose results are then
    added where they overlap; so its `out_channels` are partial results.
    """
    x, weight = call.args[0], call.args[1]
    spatial = weight.dim() - 2
    groups = call.argument(6, "groups", 1)
    if x.dim() == spatial + 1:
        x = x[None]
    n_in, taps = weight.shape[0], prod(weight.shape[2:])
    images = spread(x.shape[0], call)
    height, width = (1, *x.shape[2:])[-2:]
    fields = {
        "in_channels": n_in, "out_channels": weight.shape[1] * groups * taps, "groups": groups,
        "in_height": height, "in_width": width, "out_height": height, "out_width": width,
        "time_steps": images["time_steps"], "batch_size": images["batch_size"] * images["tokens"],
        "tokens": x.shape[2] if spatial == 3 else 1,
    }  # fmt: skip
    operands = Operand(tensor=x, lanes=1), Operand(tensor=weight, lanes=0)
    return [weighted(fields, x.numel() * weight[0].numel(), *operands, (0, 1))]


def product(call: Call) -> list[Found]:
    """a [..., M, K] @ b [..., K, N]. A factor that is a weight makes it a layer with weights."""
    a, b = call.args[:2]
    return _multiplied(a, b, call, (0, 1))


def biased_product(call: Call) -> list[Found]:
    """baddbmm(bias, a, b)."""
    return _multiplied(call.args[1], call.args[2], call, (1, 2))


def _multiplied(a: Tensor, b: Tensor, call: Call, places: tuple[Place, Place]) -> list[Found]:
    first, second = (place in call.constant for place in places)
    a, b = (a[None] if a.dim() == 1 else a), (b[:, None] if b.dim() == 1 else b)
    if second:
        return _grouped(a, b, call, places)
    if first:
        return _grouped(b.mT, a.mT, call, places[::-1])
    m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
    return _activations(a, b, products=call.out.numel() // (m * n), m=m, k=k, n=n, call=call, places=places)


def _grouped(x: Tensor, weight: Tensor, call: Call, places: tuple[Place, Place]) -> list[Found]:
    """x [..., M, K] @ weight [..., K, N]: leading axes of the weight that x has too are groups, others more outputs."""
    k, n = weight.shape[-2:]
    leading = weight.shape[:-2]
    own = [1] * max(0, len(leading) - (x.dim() - 2)) + list(x.shape[:-2])[-len(leading) :] if leading else []
    groups = prod(w for w, s in zip(leading, own, strict=True) if s > 1)
    copies = prod(leading) // groups
    rows = x.numel() // (k * groups)
    fields = {
        **spread(rows, call), "in_channels": k * groups, "out_channels": n * copies * groups, "groups": groups,
    }  # fmt: skip
    operands = Operand(tensor=x, lanes=-1), Operand(tensor=weight, lanes=-1)
    return [weighted(fields, rows * k * n * copies * groups, *operands, places)]


def _activations(
    a: Tensor, b: Tensor, *, products: int, m: int, k: int, n: int, call: Call, places: tuple[Place, Place]
) -> list[Found]:
    """`products` products [M, K] x [K, N]; time is a leading axis, or the axis of length T among M and K."""
    macs = products * m * k * n
    fields = {"kind": "gemm_activation", "macs_forward": macs, **_nest(a, products, m, k, n, call)}
    operands = {"density_input": Operand(tensor=a, lanes=-1), "density_weight": Operand(tensor=b, lanes=-1)}
    return [Found(fields=fields, operands=operands, backward=tuple((macs, (p,)) for p in places))]


def _nest(a: Tensor, products: int, m: int, k: int, n: int, call: Call) -> dict[str, int]:
    """The loop nest of products of activations."""
    steps, batch = call.steps, call.batch
    leading = products % (steps * batch) == 0 and (a.shape[0] in (steps, steps * batch, batch))
    if leading or steps not in (m, k) or products % batch:
        shared = batch if products % batch == 0 else 1
        timed = steps if products % (steps * shared) == 0 else 1
        rows, columns, tokens, groups = k, n, m, products // (timed * shared)
    else:  # time is one of the multiplied axes
        shared, timed, groups = batch, steps, products // batch
        rows, columns, tokens = (k, n, 1) if m == steps else (m, n, 1)
    return {
        "in_channels": rows * groups, "out_channels": columns * groups, "groups": groups, "time_steps": timed,
        "batch_size": shared, "tokens": tokens,
    }  # fmt: skip


def attention(call: Call) -> list[Found]:
    """softmax(q kT) v as one layer of two products; its backward pass has four, dP and dV, dQ and dK."""
    q, k, v = call.args[:3]
    queries, keys, width = q.shape[-2], k.shape[-2], q.shape[-1]
    products = q.numel() // (queries * width)
    scores, mixed = products * queries * width * keys, products * queries * keys * v.shape[-1]
    fields = {
        "kind": "gemm_activation", "macs_forward": scores + mixed,
        **_nest(q, products, queries, width, keys, call),
    }  # fmt: skip
    return [
        Found(
            fields=fields,
            operands={"density_input": Operand(tensor=q, lanes=-1), "density_weight": Operand(tensor=k, lanes=-1)},
            backward=((mixed, (2,)), (mixed, (0, 1)), (scores, (0,)), (scores, (1,))),
        )
    ]


def einsum(call: Call) -> list[Found]:
    """Two operands: the letters they share and sum over are K, those of one only M and N, the rest are groups."""
    equation, tensors = call.args[0].replace(" ", ""), call.args[1]
    if len(tensors) != 2:
        raise NoRuleError(f"einsum {equation!r} of {len(tensors)} operands has no rule; write out two at a time")
    first, second, result = _terms(equation, tensors)
    a, b = tensors
    sizes = dict(zip(first, a.shape, strict=True))
    for letter, size in zip(second, b.shape, strict=True):
        sizes[letter] = max(size, sizes.get(letter, 1))
    shared = [x for x in sizes if x in first and x in second]
    k = prod(sizes[x] for x in shared if x not in result) * prod(
        sizes[x] for x in sizes if x not in result and x not in shared
    )
    groups = prod(sizes[x] for x in shared if x in result)
    m = prod(sizes[x] for x in first if x in result and x not in second)
    n = prod(sizes[x] for x in second if x in result and x not in first)
    places: tuple[Place, Place] = ((1, 0), (1, 1))
    constant = [place in call.constant for place in places]
    if not any(constant):
        return _activations(a, b, products=groups, m=m, k=k, n=n, call=call, places=places)
    if constant[0] and not constant[1]:
        a, b, m, n, places = b, a, n, m, places[::-1]
    fields = {**spread(m, call), "in_channels": k * groups, "out_channels": n * groups, "groups": groups}
    operands = Operand(tensor=a, lanes=-1), Operand(tensor=b, lanes=-1)
    return [weighted(fields, m * k * n * groups, *operands, places)]


def _terms(equation: str, tensors: Any) -> tuple[str, str, str]:
    """The letters of both operands and of the result, with `...` and a result left out spelled out."""
    left, arrow, result = equation.partition("->")
    terms = left.split(",")
    spare = [c for c in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if c not in equation]
    longest = max(t.dim() - len(term.replace("...", "")) for term, t in zip(terms, tensors, strict=True))
    dots = "".join(spare[: max(0, longest)])
    spelled = []
    for term, tensor in zip(terms, tensors, strict=True):
        count = tensor.dim() - len(term.replace("...", ""))
        spelled.append(term.replace("...", dots[len(dots) - count :] if count else ""))
    if not arrow:
        letters = "".join(spelled)
        result = ("..." if "..." in left else "") + "".join(
            c for c in sorted(set(letters)) if letters.count(c) == 1 and c not in dots
        )
    return spelled[0], spelled[1], result.replace("...", dots)


def bilinear(call: Call) -> list[Found]:
    """bilinear(a [..., I], b [..., J], weight [K, I, J]): a product of a with the weight, and one of its result with b
    for each output."""
    a, b, weight = call.args[:3]
    n_out, first, second = weight.shape
    rows = a.numel() // first
    fields = {**spread(rows, call), "in_channels": first, "out_channels": n_out * second}
    whole = Operand(tensor=a, lanes=-1), Operand(tensor=weight, lanes=0)
    mixed = weighted(fields, rows * first * n_out * second, *whole, (0, 2))
    inner = torch.einsum("...i,kij->...jk", a, weight)
    last = _activations(b, inner, products=rows, m=1, k=second, n=n_out, call=call, places=(1, 0))[0]
    macs = rows * second * n_out
    return [mixed, replace(last, suffix="second", backward=((macs, (1,)), (macs, (0, 2))))]
