"""A model becomes a program and a workload: what it computes, op by op, with densities measured on real data.

`torch.export` traces the model once; a neuron is one node for any number of steps. The program is then run node by node
on real batches. Every node that touches data becomes a `Layer` or, when no rule knows it, an entry in `unsupported`:
nothing is guessed. Backward and weight-gradient work follows from the forward shapes; no backward graph is traced.

Any module whose operations are in `export_table` goes this way, `export_rules` says how each is read. The house's
convention is time first, [T, B, ...]; a model without time steps is exported with `time_first=False` and has T = 1.
"""

import io
import operator
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from accel.export_rules import Call, Operand, rule_for
from accel.export_table import BOOKKEEPING, VIEWS
from accel.trainer.workload import Density, InputKind, Layer, Unsupported, Workload

Batch = Tensor | tuple[Tensor, ...]  # the arguments of one call
TILE = 16  # lanes of an array among which the busiest is looked for
LARGEST_INTEGER = 255  # inputs 0, 1, ... up to this are bit planes; anything else counts as real


class UnsupportedOpError(ValueError):
    """The program holds operations without a rule; the message lists all of them with their layer paths."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """`program` reloads with torch.export once accel.spiking.ops is imported; `workload` needs no torch."""

    program: torch.export.ExportedProgram
    workload: Workload

    def program_bytes(self) -> bytes:
        buffer = io.BytesIO()
        torch.export.save(self.program, buffer)
        return buffer.getvalue()


def export(
    model: nn.Module,
    batches: Sequence[Batch],
    *,
    name: str,
    source: dict[str, str],
    strict: bool = True,
    time_first: bool = True,
) -> Exported:
    """Trace `model` in evaluation mode and measure it on `batches`: tensors, or tuples of them, of one shape each.

    The first tensor is [T, B, ...], or [B, ...] without `time_first`. T and B stay symbolic in the program wherever the
    model leaves them open. `source` describes the data in the workload. Raises UnsupportedOpError in strict mode;
    otherwise unknown operations are listed in `workload.unsupported`.
    """
    calls = _calls(batches)
    symbolic = range(2 if time_first else 1)
    shapes = tuple({axis: torch.export.Dim.AUTO for axis in symbolic if axis < x.dim()} for x in calls[0])
    was_training = model.training
    with torch.no_grad():
        program = torch.export.export(model.eval(), calls[0], dynamic_shapes=shapes)
    model.train(was_training)
    workload = measure(program, batches, name=name, source=source, strict=strict, time_first=time_first)
    return Exported(program=program, workload=workload)


def measure(
    program: torch.export.ExportedProgram | str | Path,
    batches: Sequence[Batch],
    *,
    name: str,
    source: dict[str, str],
    strict: bool = True,
    time_first: bool = True,
) -> Workload:
    """Run an exported program, or the file of one, node by node on real batches and write down what it computed."""
    if isinstance(program, str | Path):
        program = torch.export.load(program)
    calls = _calls(batches)
    steps = calls[0][0].shape[0] if time_first else 1
    batch_size = calls[0][0].shape[1 if time_first else 0]
    observer = _Observer(program.module(), steps, batch_size)
    with torch.no_grad():
        for call in calls:
            observer.run(*call)
    unsupported = tuple(observer.unsupported.values())
    if unsupported and strict:
        listed = ", ".join(f"{u.op} at {u.path}" for u in unsupported)
        raise UnsupportedOpError(
            f"{len(unsupported)} operations have no rule: {listed}; replace them, or use strict=false to list them"
        )
    return Workload(
        model_name=name, time_steps=steps, batch_size=batch_size,
        dtype=str(calls[0][0].dtype).removeprefix("torch."), layers=observer.layers(), unsupported=unsupported,
        source={"torch": torch.__version__, **source},
    )  # fmt: skip


def _calls(batches: Sequence[Batch]) -> list[tuple[Tensor, ...]]:
    calls = [batch if isinstance(batch, tuple) else (batch,) for batch in batches]
    shapes = [tuple(tuple(x.shape) for x in call) for call in calls]
    if not calls or len(set(shapes)) != 1:
        raise ValueError(f"export needs batches of one shape, got {shapes}; crop them alike")
    return calls


# --- running node by node -----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """Fraction of non-zeros of one operand in one batch; `busiest` as in `Density`."""

    mean: float
    per_step: tuple[float, ...]
    busiest: float | None


@dataclass
class _Seen:
    """One data-touching node: how to make its Layer, and what was measured on each batch."""

    describe: dict[str, Any]
    densities: dict[str, list[_Measured]] = field(default_factory=dict)  # name -> per batch
    kind: InputKind | None = None  # the widest of all batches
    largest: int = 0  # of an integer input
    weight_kind: InputKind | None = None  # of the second factor of a product of activations
    weight_largest: int = 0


class _Observer(fx.Interpreter):
    """Interprets the program and measures operands on the way. `layers()` gives the result in program order."""

    def __init__(self, module: fx.GraphModule, steps: int, batch: int) -> None:
        super().__init__(module)
        self.steps: int = steps
        self.batch: int = batch
        self.seen: dict[fx.Node, _Seen] = {}
        self.unsupported: dict[fx.Node, Unsupported] = {}
        self.paths: dict[fx.Node, str] = {}
        self.producers: dict[fx.Node, tuple[str, ...]] = {}  # layer paths whose data a node carries; none: a constant
        self.data: set[fx.Node] = set()  # nodes whose value depends on the model's input
        self.trained: set[fx.Node] = set()  # nodes that depend on a trained parameter, and not on the input
        self.owners: dict[tuple[int, int], fx.Node] = {}  # (address, size) of a weight -> the first node that uses it

    def run_node(self, n: fx.Node) -> Any:
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        before = [a.clone() if isinstance(a, Tensor) and _in_place(n) else a for a in args]
        result = super().run_node(n)
        touched = [i for i in n.all_input_nodes if i in self.data]
        if n.op == "placeholder":
            self.data.add(n)
            self.producers[n] = ()
        elif n.op == "call_function" and touched:
            self._record(n, result, touched, before, kwargs)
        elif (n.op == "get_attr" and getattr(result, "requires_grad", False)) or self.trained.intersection(
            n.all_input_nodes
        ):
            self.trained.add(n)
        return result

    def _record(self, n: fx.Node, result: Any, touched: list[fx.Node], args: Sequence[Any], kwargs: Any) -> None:
        behind = tuple(dict.fromkeys(p for i in touched for p in self.producers[i]))
        if n.target in BOOKKEEPING or not isinstance(result, Tensor | tuple | list):
            if n.target is operator.getitem:
                self.data.add(n)
                self.producers[n] = behind
            return
        self.data.add(n)
        if n.target in VIEWS:
            self.producers[n] = behind
            return
        path = self.paths.setdefault(n, layer_path(n, self.paths.values()))
        self.producers[n] = (path,)
        rule = rule_for(n.target)
        if rule is None:
            elements = sum(t.numel() for t in (result if isinstance(result, tuple | list) else [result]))
            self.unsupported[n] = Unsupported(path=path, op=str(n.target), elements=elements)
            return
        constant = frozenset(i for i, a in enumerate(n.args) if isinstance(a, fx.Node) and a not in self.data)
        call = Call(
            args=args, kwargs=dict(kwargs), out=result, steps=self.steps, batch=self.batch, constant=constant,
            trained=frozenset(i for i in constant if n.args[i] in self.trained),
        )  # fmt: skip
        describe, operands = rule(call)
        self._count_once(n, describe, call)
        seen = self.seen.setdefault(n, _Seen({"path": path, "op": str(n.target), "inputs": behind, **describe}))
        for name, operand in operands.items():
            time = name != "density_weight" or describe["kind"] == "gemm_activation"
            seen.densities.setdefault(name, []).append(_measured(operand, self.steps, self.batch, time))
        if "density_input" in operands:
            seen.kind, seen.largest = _wider(seen.kind, seen.largest, operands["density_input"].tensor)
        if describe["kind"] == "gemm_activation":
            second = operands["density_weight"].tensor
            seen.weight_kind, seen.weight_largest = _wider(seen.weight_kind, seen.weight_largest, second)

    def _count_once(self, n: fx.Node, describe: dict[str, Any], call: Call) -> None:
        """Weights that are frozen are no parameters, and those of two layers (tied) are parameters of the first."""
        if not call.trained and describe.get("parameters"):
            describe["parameters"] = 0
            if describe["kind"] == "gemm_weight":
                describe["macs_weight_gradient"] = 0
        for weight in (call.args[i] for i in call.trained):
            if isinstance(weight, Tensor) and self.owners.setdefault((weight.data_ptr(), weight.numel()), n) is not n:
                describe["parameters"] = max(0, describe.get("parameters", 0) - weight.numel())

    def layers(self) -> tuple[Layer, ...]:
        consumers: dict[str, list[str]] = {}
        for seen in self.seen.values():
            for producer in seen.describe["inputs"]:
                consumers.setdefault(producer, []).append(seen.describe["path"])
        made = []  # Layer
        learns: set[str] = set()  # paths whose output depends on something that is trained
        for seen in self.seen.values():
            fields = dict(seen.describe)
            behind = learns.intersection(fields["inputs"])
            if fields["kind"] == "gemm_weight" and not behind:
                fields["macs_backward"] = 0  # nothing in front of this layer waits for a gradient
            if behind or fields.get("parameters"):
                learns.add(fields["path"])
            fields["input_kind"] = seen.kind or "real"
            fields["input_bits"] = _bits(seen.kind or "real", seen.largest)
            if seen.weight_kind is not None:
                fields["weight_bits"] = _bits(seen.weight_kind, seen.weight_largest)
            fields["outputs"] = tuple(dict.fromkeys(consumers.get(fields["path"], ())))
            fields |= {name: _over_batches(measured) for name, measured in seen.densities.items()}
            made.append(Layer(**fields))
        return tuple(made)


# Where modules are defined that hold no others.
_LEAVES = ("torch.nn.", *(f"accel.spiking.{room}." for room in ("neuron", "events", "batch_norm", "depthwise")))


def layer_path(n: fx.Node, taken: Collection[str]) -> str:
    """Module path of a node. An operation in a parent's own forward gets its node name appended."""
    stack = n.meta.get("nn_module_stack") or {}
    path, kind = list(stack.values())[-1] if stack else ("", None)
    leaf = isinstance(kind, str) and kind.startswith(_LEAVES)
    name = path if leaf and path else f"{path}.{n.name}".lstrip(".")
    return name if name not in taken else f"{name}.{n.name}"


def _in_place(n: fx.Node) -> bool:
    name = getattr(getattr(n.target, "overloadpacket", None), "__name__", "")
    return name.endswith("_") and not name.startswith("_")


def _over_batches(measured: Sequence[_Measured]) -> Density:
    means = [m.mean for m in measured]
    steps = zip(*(m.per_step for m in measured), strict=True)
    busiest = [m.busiest for m in measured if m.busiest is not None]
    return Density(
        mean=sum(means) / len(means), min=min(means), max=max(means),
        per_step=tuple(sum(s) / len(s) for s in steps),
        busiest=sum(busiest) / len(busiest) if busiest else None,
    )  # fmt: skip


def _measured(operand: Operand, steps: int, batch: int, time: bool) -> _Measured:
    """Fraction of non-zeros: whole, per step (where the tensor is laid out time first), and of the busiest lane.

    A tile is 16 neighbouring lanes of one image, over all its steps and positions.
    """
    nonzero = operand.tensor != 0
    rows = nonzero.shape[0] if nonzero.dim() else 0
    first = time and rows in (steps, steps * batch)
    per_step = nonzero.reshape(steps, -1).double().mean(1).tolist() if first else []
    busiest = None
    if operand.lanes is not None and nonzero.dim():
        lanes = nonzero.movedim(operand.lanes, -1)  # [..., L]
        images = batch if first and lanes.numel() // lanes.shape[-1] % (steps * batch) == 0 else 1
        streams = lanes.reshape(steps if images > 1 else 1, images, -1, lanes.shape[-1]).float().mean((0, 2))
        padded = torch.nn.functional.pad(streams, (0, -streams.shape[-1] % TILE))
        busiest = float(padded.unflatten(-1, (-1, TILE)).amax(-1).mean())
    return _Measured(mean=float(nonzero.double().mean()), per_step=tuple(per_step), busiest=busiest)


_WIDTH: tuple[InputKind, ...] = ("binary", "ternary", "integer", "real")


def _wider(kind: InputKind | None, largest: int, tensor: Tensor) -> tuple[InputKind, int]:
    """The kind that holds what was seen so far and `tensor`, and the largest integer in it."""
    low, high = (float(v) for v in tensor.aminmax()) if tensor.numel() else (0.0, 0.0)
    if not bool((tensor == tensor.round()).all()) or high > LARGEST_INTEGER or low < -1 or (low < 0 and high > 1):
        new: InputKind = "real"
    else:
        new = "ternary" if low < 0 else "binary" if high <= 1 else "integer"
    if {kind, new} == {"ternary", "integer"}:
        return "real", 0
    return max(kind or new, new, key=_WIDTH.index), max(largest, int(high) if new != "real" else 0)


def _bits(kind: InputKind, largest: int) -> int:
    return {"binary": 1, "ternary": 2, "integer": max(2, largest.bit_length()), "real": 16}[kind]
