"""A trained model becomes a program and a workload: what it computes, op by op, with densities measured on real data.

`torch.export` traces the model once; a neuron is one node for any number of steps. The program is then run node by node
on real batches. Every node that touches data becomes a `Layer` or, when no rule knows it, an entry in `unsupported`:
nothing is guessed. Backward and weight-gradient work follows from the forward shapes; no backward graph is traced.

The house's convention is assumed: the first input is time first, [T, B, ...].
"""

import io
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

import accel.spiking.ops  # noqa: F401, registers spikeloom::lif and ::plif
from accel.spiking.surrogate import Rectangular, from_code
from accel.trainer.workload import Density, InputKind, Layer, Neuron, Unsupported, Workload

aten, ops = torch.ops.aten, torch.ops

# Reshapes move no data that a chip would pay for.
VIEWS = frozenset({
    aten.view.default, aten.reshape.default, aten.permute.default, aten.transpose.int, aten.t.default,
    aten.flatten.using_ints, aten.unflatten.int, aten.squeeze.dim, aten.squeeze.default, aten.unsqueeze.default,
    aten.select.int, aten.slice.Tensor, aten.split.Tensor, aten.chunk.default, aten.contiguous.default,
    aten.expand.default, aten.detach.default, aten.alias.default, aten.unbind.int, aten.to.dtype,
    aten._to_copy.default, aten.numpy_T.default, aten.movedim.int,
})  # fmt: skip
# Operations on every element; a dropout that is switched off, a copy and a concatenation count as one each.
ELEMENTWISE = frozenset({
    aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor, aten.neg.default, aten.relu.default,
    aten.gelu.default, aten.sigmoid.default, aten.tanh.default, aten.softmax.int, aten.log_softmax.int,
    aten.where.self, aten.where.ScalarOther, aten.mean.dim, aten.sum.dim_IntList, aten.dropout.default,
    aten.stack.default, aten.cat.default, aten.clone.default, aten.max_pool2d.default, aten.avg_pool2d.default,
    aten.adaptive_avg_pool2d.default, aten.masked_fill.Scalar, aten.pow.Tensor_Scalar, aten.exp.default,
    aten.abs.default, aten.clamp.default, aten.pad.default,
})  # fmt: skip
CONVOLUTIONS = frozenset({aten.conv1d.default, aten.conv2d.default, aten.conv1d.padding, aten.conv2d.padding})
PRODUCTS = frozenset({aten.matmul.default, aten.mm.default, aten.bmm.default})
NORMS = frozenset({aten.batch_norm.default, aten.layer_norm.default})
NEURONS = frozenset({ops.spikeloom.lif.default, ops.spikeloom.plif.default})
# Sizes, bounds and fresh constants (a neuron's first membrane): nothing flows through them.
BOOKKEEPING = frozenset({
    operator.getitem, aten.sym_size.int, aten._assert_tensor_metadata.default, aten._assert_scalar.default,
    aten.full_like.default, aten.zeros_like.default, aten.ones_like.default, aten.new_zeros.default,
    aten.new_full.default,
})  # fmt: skip


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
    model: nn.Module, batches: Sequence[Tensor], *, name: str, source: dict[str, str], strict: bool = True
) -> Exported:
    """Trace `model` in evaluation mode and measure it on `batches`, tensors [T, B, ...] of one shape.

    T and B stay symbolic in the program. `source` describes the data in the workload. Raises UnsupportedOpError in
    strict mode; otherwise unknown operations are listed in `workload.unsupported`.
    """
    if not batches or len({b.shape for b in batches}) != 1:
        raise ValueError(f"export needs batches of one shape, got {[tuple(b.shape) for b in batches]}; crop them alike")
    shape = {0: torch.export.Dim("time", min=2), 1: torch.export.Dim("batch", min=2)}
    was_training = model.training
    with torch.no_grad():
        program = torch.export.export(model.eval(), (batches[0],), dynamic_shapes=(shape,))
    model.train(was_training)
    return Exported(program=program, workload=measure(program, batches, name=name, source=source, strict=strict))


def measure(
    program: torch.export.ExportedProgram, batches: Sequence[Tensor], *, name: str, source: dict[str, str], strict: bool
) -> Workload:
    """Run an exported program node by node on real batches and write down what it computed."""
    observer = _Observer(program.module())
    with torch.no_grad():
        for batch in batches:
            observer.observe(batch)
    unsupported = tuple(observer.unsupported.values())
    if unsupported and strict:
        listed = ", ".join(f"{u.op} at {u.path}" for u in unsupported)
        raise UnsupportedOpError(
            f"{len(unsupported)} operations have no rule: {listed}; replace them, or use strict=false to list them"
        )
    steps, batch_size = batches[0].shape[:2]
    return Workload(
        model_name=name, time_steps=steps, batch_size=batch_size, dtype=str(batches[0].dtype).removeprefix("torch."),
        layers=observer.layers(), unsupported=unsupported, source={"torch": torch.__version__, **source},
    )  # fmt: skip


# --- running node by node -----------------------------------------------------------------------------------------


@dataclass
class _Seen:
    """One data-touching node: how to make its Layer, and what was measured on each batch."""

    describe: dict[str, Any]
    densities: dict[str, list[tuple[float, tuple[float, ...]]]] = field(default_factory=dict)  # name -> per batch
    kinds: set[InputKind] = field(default_factory=set)


class _Observer(fx.Interpreter):
    """Interprets the program and measures operands on the way. `layers()` gives the result in program order."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.seen: dict[fx.Node, _Seen] = {}
        self.unsupported: dict[fx.Node, Unsupported] = {}
        self.paths: dict[fx.Node, str] = {}
        self.producers: dict[fx.Node, tuple[str, ...]] = {}  # layer paths whose data a node carries; none: a constant
        self.data: set[fx.Node] = set()  # nodes whose value depends on the model's input

    def observe(self, batch: Tensor) -> None:
        self.steps, self.batch = batch.shape[:2]
        self.run(batch)

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        touched = [i for i in n.all_input_nodes if i in self.data]
        if n.op == "placeholder":
            self.data.add(n)
            self.producers[n] = ()
        elif n.op == "call_function" and touched:
            self._record(n, result, touched)
        return result

    def _record(self, n: fx.Node, result: Any, touched: list[fx.Node]) -> None:
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
        path = self.paths.setdefault(n, self._path(n))
        self.producers[n] = (path,)
        rule = _rule(n.target)
        if rule is None:
            elements = sum(t.numel() for t in (result if isinstance(result, tuple | list) else [result]))
            self.unsupported[n] = Unsupported(path=path, op=str(n.target), elements=elements)
            return
        args = [self.env[a] if isinstance(a, fx.Node) else a for a in n.args]
        describe, operands = rule(args, n.kwargs, result, self.steps, self.batch)
        seen = self.seen.setdefault(n, _Seen({"path": path, "op": str(n.target), "inputs": behind, **describe}))
        for name, tensor in operands.items():
            seen.densities.setdefault(name, []).append(_density(tensor, self.steps, self.batch))
        if "density_input" in operands:
            seen.kinds.add(_kind(operands["density_input"]))

    def _path(self, n: fx.Node) -> str:
        """Module path of a node. An operation in a parent's own forward gets its node name appended."""
        stack = n.meta.get("nn_module_stack") or {}
        path, kind = list(stack.values())[-1] if stack else ("", None)
        leaf = isinstance(kind, str) and kind.startswith(("torch.nn.", "accel.spiking.neuron."))
        name = path if leaf and path else f"{path}.{n.name}".lstrip(".")
        return name if name not in self.paths.values() else f"{name}.{n.name}"

    def layers(self) -> tuple[Layer, ...]:
        consumers: dict[str, list[str]] = {}
        for seen in self.seen.values():
            for producer in seen.describe["inputs"]:
                consumers.setdefault(producer, []).append(seen.describe["path"])
        made = []  # Layer
        first_gemm = True
        for seen in self.seen.values():
            fields = dict(seen.describe)
            if fields["kind"] == "gemm_weight" and first_gemm:
                fields["macs_backward"] = 0  # nothing in front of the first layer waits for a gradient
                first_gemm = False
            kind: InputKind = (
                "binary"
                if seen.kinds == {"binary"}
                else "ternary"
                if "real" not in seen.kinds and seen.kinds
                else "real"
            )
            fields["input_kind"] = kind
            fields["input_bits"] = {"binary": 1, "ternary": 2, "real": 16}[kind]
            fields["outputs"] = tuple(dict.fromkeys(consumers.get(fields["path"], ())))
            for name, measured in seen.densities.items():
                means = [mean for mean, _ in measured]
                steps = zip(*(per_step for _, per_step in measured), strict=True)
                fields[name] = Density(
                    mean=sum(means) / len(means), min=min(means), max=max(means),
                    per_step=tuple(sum(s) / len(s) for s in steps),
                )  # fmt: skip
            made.append(Layer(**fields))
        return tuple(made)


def _density(tensor: Tensor, steps: int, batch: int) -> tuple[float, tuple[float, ...]]:
    """Fraction of non-zeros, whole and (where the tensor is laid out time first) per step."""
    nonzero = (tensor != 0).double()
    rows = tensor.shape[0] if tensor.dim() else 0
    per_step = nonzero.reshape(steps, -1).mean(1).tolist() if rows in (steps, steps * batch) else []
    return float(nonzero.mean()), tuple(per_step)


def _kind(tensor: Tensor) -> InputKind:
    magnitude = tensor.abs()
    if not bool(((magnitude == 0) | (magnitude == 1)).all()):
        return "real"
    return "ternary" if bool((tensor < 0).any()) else "binary"


# --- rules: node -> shape of its layer, and the operands to measure -----------------------------------------------

Rule = Callable[[list[Any], dict[str, Any], Any, int, int], tuple[dict[str, Any], dict[str, Tensor]]]


def _rule(target: Any) -> Rule | None:
    if target is aten.linear.default:
        return _linear
    for family, rule in (
        (CONVOLUTIONS, _convolution),
        (PRODUCTS, _product),
        (NEURONS, _neuron),
        (NORMS, _norm),
        (ELEMENTWISE, _elementwise),
    ):
        if target in family:
            return rule
    return None


def _gemm(macs: int, weight: Tensor, bias: Tensor | None) -> dict[str, Any]:
    return {
        "kind": "gemm_weight", "macs_forward": macs, "macs_backward": macs, "macs_weight_gradient": macs,
        "parameters": weight.numel() + (0 if bias is None else bias.numel()),
    }  # fmt: skip


def _argument(args: list[Any], index: int, default: Any) -> Any:
    return args[index] if len(args) > index else default


def _linear(
    args: list[Any], kwargs: dict[str, Any], out: Tensor, steps: int, batch: int
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    x, weight, bias = args[0], args[1], _argument(args, 2, None)
    n_out, n_in = weight.shape
    images = steps * batch
    shape = {"time_steps": steps, "batch_size": batch, "tokens": out.numel() // (n_out * images)}
    return (
        {**_gemm(out.numel() * n_in, weight, bias), **shape, "in_channels": n_in, "out_channels": n_out},
        {"density_input": x, "density_weight": weight},
    )


def _convolution(
    args: list[Any], kwargs: dict[str, Any], out: Tensor, steps: int, batch: int
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    x, weight, bias = args[0], args[1], _argument(args, 2, None)
    groups = _argument(args, 6, 1)
    n_out, per_group, *kernel = weight.shape
    macs = out.numel() * weight[0].numel()
    pair = lambda v: (1, *v) if len(v) == 1 else tuple(v)  # noqa: E731
    shape = {"in_channels": per_group * groups, "out_channels": n_out, "groups": groups, "kernel": pair(tuple(kernel))}
    shape |= {"time_steps": steps, "batch_size": batch}
    if weight.dim() == 3 and x.shape[0] == batch:  # over time: every step is one position that reads `kernel` steps
        return {**_gemm(macs, weight, bias), **shape}, {"density_input": x.permute(2, 0, 1), "density_weight": weight}
    sizes = lambda t: (1, t.shape[2]) if t.dim() == 3 else tuple(t.shape[2:])  # noqa: E731
    (shape["in_height"], shape["in_width"]), (shape["out_height"], shape["out_width"]) = sizes(x), sizes(out)
    padding = _argument(args, 4, [0] * len(kernel))
    shape["stride"] = pair(tuple(_argument(args, 3, [1] * len(kernel))))
    if not isinstance(padding, str):
        shape["padding"] = tuple(padding) if len(padding) == 2 else (0, *padding)
    return {**_gemm(macs, weight, bias), **shape}, {"density_input": x, "density_weight": weight}


def _product(
    args: list[Any], kwargs: dict[str, Any], out: Tensor, steps: int, batch: int
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """a [..., M, K] @ b [..., K, N]; the axis of length T among M and K is time."""
    a, b = args
    m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
    groups = max(1, out.numel() // (m * n) // batch)
    rows, columns, tokens = (k, n, 1) if m == steps else (m, n, 1) if k == steps else (k, n, m)
    timed = steps if steps in (m, k) else 1
    macs = out.numel() * k
    return {
        "kind": "gemm_activation", "in_channels": rows * groups, "out_channels": columns * groups, "groups": groups,
        "time_steps": timed, "batch_size": batch, "tokens": tokens,
        "macs_forward": macs, "macs_backward": 2 * macs, "macs_weight_gradient": 0,
    }, {"density_input": a}  # fmt: skip


def _neuron(
    args: list[Any], kwargs: dict[str, Any], out: tuple[Tensor, Tensor], steps: int, batch: int
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    x, _, tau, decay_input, threshold, v_reset, detach, code, parameter = args
    tau = float(tau)
    surrogate = from_code(code, parameter)
    neuron = Neuron(
        decay=1 - 1 / tau, input_gain=1 / tau if decay_input else 1.0, threshold=threshold, v_reset=v_reset or 0.0,
        reset="soft" if v_reset is None else "hard", detach_reset=detach, surrogate=repr(surrogate),
        half_width=surrogate.half_width if isinstance(surrogate, Rectangular) else None,
    )  # fmt: skip
    return {**_per_element("neuron", out[0], steps, batch), "neuron": neuron}, {
        "density_input": x,
        "density_spike": out[0],
    }


def _norm(
    args: list[Any], kwargs: dict[str, Any], out: Tensor, steps: int, batch: int
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    learned = [a for a in args[1:3] if isinstance(a, Tensor)]
    channels = learned[0].numel() if learned else out.shape[-1]
    shape = {
        "kind": "norm",
        "in_channels": channels,
        "out_channels": channels,
        "time_steps": steps,
        "batch_size": batch,
        "tokens": max(1, out.numel() // (channels * steps * batch)),
        "parameters": sum(p.numel() for p in learned),
    }
    return shape, {"density_input": args[0]}


def _elementwise(
    args: list[Any], kwargs: dict[str, Any], out: Tensor, steps: int, batch: int
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    tensors = [a for a in args if isinstance(a, Tensor)]
    return _per_element("elementwise", out, steps, batch), {"density_input": tensors[0]} if tensors else {}


def _per_element(kind: str, out: Tensor, steps: int, batch: int) -> dict[str, Any]:
    channels = max(1, -(-out.numel() // (steps * batch)))
    return {"kind": kind, "in_channels": channels, "out_channels": channels, "time_steps": steps, "batch_size": batch}
