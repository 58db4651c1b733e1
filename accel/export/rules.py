"""The rules of export: from one node of a program and its tensors to the shape of its layer and what to measure.

A rule gets a `Call` and returns `Found`s, one for each layer that the operation stands for. It reads shapes only; what
values the operands hold is measured by `densities`, who owns a parameter and which gradients exist is worked out by
`observer`. Counting rules are those of `accel.trainer.workload`. Products are in `products`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from spikeloom.accel.spiking.functional import LIFParameters, charge, reset
from spikeloom.accel.spiking.surrogate import Rectangular, from_code
from spikeloom.accel.trainer.workload import Neuron

Place = int | tuple[int, int]  # an argument, or an item of an argument that is a list


class NoRuleError(ValueError):
    """A form of a known operation that no rule covers; it counts as unsupported."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """One executed node: its arguments and result, and the model's steps and batch.

    `constant` holds the places of tensors that do not depend on the input: weights, not activations.
    """

    args: Sequence[Any]
    kwargs: dict[str, Any]
    out: Any
    steps: int
    batch: int
    constant: frozenset[Place] = frozenset()

    def argument(self, index: int, name: str, default: Any = None) -> Any:
        return self.args[index] if len(self.args) > index else self.kwargs.get(name, default)


@dataclass(frozen=True, kw_only=True)
class Operand:
    """A tensor to measure; `lanes` is the axis that is spread over the rows or columns of an array, None if none."""

    tensor: Tensor
    lanes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Found:
    """One layer: fields of `Layer`, operands to measure, and which products of the backward pass exist.

    `backward` and `weight_gradient` list (MACs, places): those MACs take place if a gradient is wanted at any of the
    places. `suffix` tells apart several layers of one operation.
    """

    fields: dict[str, Any]
    operands: dict[str, Operand] = field(default_factory=dict)
    backward: tuple[tuple[int, tuple[Place, ...]], ...] = ()
    weight_gradient: tuple[tuple[int, tuple[Place, ...]], ...] = ()
    suffix: str = ""


Rule = Callable[[Call], list[Found]]


def spread(rows: int, call: Call) -> dict[str, int]:
    """How `rows` rows of a matrix are spread over time, batch and tokens; time or batch may be gone by then."""
    for steps, batch in ((call.steps, call.batch), (1, call.batch), (call.steps, 1)):
        if rows >= steps * batch and rows % (steps * batch) == 0:
            return {"time_steps": steps, "batch_size": batch, "tokens": rows // (steps * batch)}
    return {"time_steps": 1, "batch_size": 1, "tokens": rows}


def neuron(call: Call) -> list[Found]:
    """spikeloom::lif or ::plif, with the window of its surrogate measured step by step."""
    x, v, tau, decay_input, threshold, v_reset, detach, code, parameter = call.args
    surrogate, tau = from_code(code, parameter), float(tau)
    constants = Neuron(
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
    operands = {
        "density_input": Operand(tensor=x),
        "density_spike": Operand(tensor=call.out[0]),
        "density_mask": Operand(tensor=torch.stack(masks)),
    }
    return [Found(fields={**per_element("neuron", call.out[0], call), "neuron": constants}, operands=operands)]


def norm(call: Call) -> list[Found]:
    """Any normalisation; its channels are those of its scale."""
    out = call.out[0] if isinstance(call.out, tuple | list) else call.out
    fixed = [call.args[i] for i in sorted(p for p in call.constant if isinstance(p, int))]  # scale, shift, mean, …
    channels = next((t.numel() for t in fixed if isinstance(t, Tensor)), out.shape[-1])
    rows = out.numel() // channels
    fields = {"kind": "norm", "in_channels": channels, "out_channels": channels, **spread(rows, call)}
    return [Found(fields=fields, operands={"density_input": Operand(tensor=call.args[0])})]


def gather(call: Call) -> list[Found]:
    """Rows of a table, embedding(weight, indices)."""
    width = call.args[0].shape[-1]
    fields = {"kind": "gather", "in_channels": 1, "out_channels": width, **spread(call.out.numel() // width, call)}
    return [Found(fields=fields)]


def elementwise(call: Call) -> list[Found]:
    """Anything that works number by number, or moves numbers."""
    out = call.out if isinstance(call.out, Tensor) else call.out[0]
    given = [t for a in call.args for t in (a if isinstance(a, tuple | list) else (a,))]
    tensors = [t for t in given if isinstance(t, Tensor) and t.is_floating_point()]
    operands = {"density_input": Operand(tensor=tensors[0])} if tensors and tensors[0].numel() else {}
    return [Found(fields=per_element("elementwise", out, call), operands=operands)]


def per_element(kind: str, out: Tensor, call: Call) -> dict[str, Any]:
    """Fields of a layer with one lane for each number of a step."""
    loops = spread(max(1, out.numel()), call)
    channels = loops.pop("tokens")
    return {"kind": kind, "in_channels": channels, "out_channels": channels, **loops}
