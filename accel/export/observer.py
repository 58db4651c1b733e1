"""A program run node by node on real batches: which layers it has, who feeds whom, who owns which parameter.

Data flow is followed through values and through memory: an operation that writes into a tensor hands its result to
every later reader of that memory, whatever view it was written through. A node is a constant if it does not depend on
the model's input. Operations on constants that depend on a trained parameter (a position table that is looked up, the
norm of a weight) are layers too: they run once a step, whatever the batch.

A trained parameter belongs to the first layer that reads it, or reads views of it. A gradient is wanted by whatever
depends on a trained parameter, and passes through operations without a rule.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from spikeloom.accel.common.units import counted
from spikeloom.accel.export.balance import Balance
from spikeloom.accel.export.densities import Measured, bits_of, measure_operand, over_batches, wider
from spikeloom.accel.export.families import rule_for
from spikeloom.accel.export.paths import in_place, layer_path
from spikeloom.accel.export.rules import Call, Found, NoRuleError, Place
from spikeloom.accel.export.table import BOOKKEEPING, CHOICES, CUTS, NEURONS, THRESHOLDS, VIEWS
from spikeloom.accel.trainer.workload import InputKind, Layer, Unsupported

_GETITEM = next(target for target in BOOKKEEPING if getattr(target, "__name__", "") == "getitem")


@dataclass
class _Seen:
    """One layer: how to make it, and what was measured on each batch."""

    node: fx.Node
    path: str
    found: Found
    inputs: tuple[str, ...]
    owns: list[str] = field(default_factory=list)  # names of parameters
    densities: dict[str, list[Measured]] = field(default_factory=dict)  # name -> per batch
    kind: InputKind | None = None  # the widest of all batches
    largest: int = 0  # of an integer input
    weight_kind: InputKind | None = None  # of the second factor of a product of activations
    weight_largest: int = 0


class Observer(fx.Interpreter):
    """Interprets the program and measures operands on the way; `layers` gives the result in program order."""

    def __init__(self, module: fx.GraphModule, steps: int, batch: int, *, time_first: bool = True) -> None:
        super().__init__(module)
        self.steps, self.batch, self.time_first = steps, batch, time_first
        self.seen: dict[fx.Node, list[_Seen]] = {}
        self.unsupported: dict[fx.Node, Unsupported] = {}
        self.paths: dict[fx.Node, str] = {}
        self.producers: dict[fx.Node, tuple[str, ...]] = {}  # layer paths whose results a node carries
        self.data: set[fx.Node] = set()  # nodes whose value depends on the model's input
        self.trained: dict[fx.Node, frozenset[str]] = {}  # constants -> the trained parameters that they depend on
        self.learns: set[fx.Node] = set()  # nodes that a gradient passes through on its way to a trained parameter
        self.owned: set[str] = set()
        self.followed = False
        self.memory: dict[int, list[fx.Node]] = {}  # address of a storage -> nodes whose value lies there
        self.writers: dict[fx.Node, list[fx.Node]] = {}  # nodes that wrote into the memory of a node
        self.sizes: dict[str, int] = {}  # trained parameters, tied ones once
        self.frozen = 0
        self.names: dict[str, str] = {}  # name -> name of the first parameter that is the same tensor
        first: dict[tuple[int, tuple[int, ...]], str] = {}
        for name, parameter in module.named_parameters(remove_duplicate=False):
            key = parameter.data_ptr() or id(parameter), tuple(parameter.shape)
            same = first.setdefault(key, name)
            self.names[name] = same
            if same == name and parameter.requires_grad:
                self.sizes[name] = parameter.numel()
            elif same == name:
                self.frozen += parameter.numel()

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """One batch. The first one shows the flow of data; what later ones add is what their operands hold."""
        self.memory.clear()
        result = super().run(*args, **kwargs)
        self.followed = True
        return result

    def run_node(self, n: fx.Node) -> Any:
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        writes = n.op == "call_function" and in_place(n)
        before = [a.clone() if isinstance(a, Tensor) and writes else a for a in args]
        result = super().run_node(n)
        if self.followed:
            if n in self.seen:
                data = n in self.data
                self._measure(self.seen[n], self._found(n, result, before, kwargs, data), data)
            return result
        if n.op == "placeholder":
            self.data.add(n)
            self.producers[n] = ()
        elif n.op == "get_attr":
            name = self.names.get(str(n.target))
            if name in self.sizes:
                self.trained[n] = frozenset((name,))
                self.learns.add(n)
        elif n.op == "call_function":
            self._follow(n, result, before, kwargs)
            if writes and isinstance(args[0], Tensor):
                self._written(n, args[0])
        for tensor in (result,) if isinstance(result, Tensor) else ():
            self.memory.setdefault(_address(tensor), []).append(n)
        return result

    def _follow(self, n: fx.Node, result: Any, args: Sequence[Any], kwargs: Any) -> None:
        """Dependence of one operation, and its layers."""
        aside = n.target in BOOKKEEPING and n.target is not _GETITEM
        if aside or not isinstance(result, Tensor | tuple | list):
            return  # sizes and fresh constants carry nothing
        inputs = n.all_input_nodes
        data = any(i in self.data for i in inputs)
        reach: frozenset[str] = frozenset().union(*(self.trained.get(i, ()) for i in inputs))
        if data:
            self.data.add(n)
        elif reach:
            self.trained[n] = reach
        places = n.target is _GETITEM and isinstance(result, Tensor) and result.dtype == torch.int64  # of a sort
        if any(i in self.learns for i in inputs) and n.target not in CUTS and not places:
            self.learns.add(n)
        behind = tuple(dict.fromkeys(p for i in inputs for p in self.producers.get(i, ())))
        self.producers[n] = behind
        if n.target in VIEWS or n.target is _GETITEM or not (data or reach):
            return
        path = self.paths.setdefault(n, layer_path(n, self.paths.values()))
        self._describe(n, path, result, args, kwargs, behind, data)
        self.producers[n] = (self.seen[n][-1].path if n in self.seen else path,)

    def _found(self, n: fx.Node, result: Any, args: Sequence[Any], kwargs: Any, data: bool) -> list[Found]:
        rule = rule_for(n.target)
        if rule is None:
            raise NoRuleError(f"{n.target} has no rule")
        constant: set[Place] = set()
        for i, a in enumerate(n.args):
            if isinstance(a, fx.Node) and a not in self.data:
                constant.add(i)
            elif isinstance(a, list | tuple):
                constant |= {(i, j) for j, b in enumerate(a) if isinstance(b, fx.Node) and b not in self.data}
        steps, batch = (self.steps, self.batch) if data else (1, 1)
        return rule(
            Call(
                args=args,
                kwargs=dict(kwargs),
                out=result,
                steps=steps,
                batch=batch,
                constant=frozenset(constant),
            )
        )

    def _describe(
        self, n: fx.Node, path: str, result: Any, args: Sequence[Any], kwargs: Any, behind: tuple[str, ...], data: bool
    ) -> None:
        try:
            found = self._found(n, result, args, kwargs, data)
        except NoRuleError:
            outs = result if isinstance(result, tuple | list) else [result]
            elements = sum(t.numel() for t in outs if isinstance(t, Tensor))
            self.unsupported[n] = Unsupported(path=path, op=str(n.target), elements=elements)
            return
        seen = []
        for part in found:
            name = f"{path}.{part.suffix}" if part.suffix else path
            seen.append(_Seen(node=n, path=name, found=part, inputs=behind))
            behind = (name,)
        self.seen[n] = seen
        for place, node in _places(n):
            for name in sorted(self.trained.get(node, frozenset()) - self.owned):
                self.owned.add(name)
                owner = next((s for s in seen for _, ps in s.found.weight_gradient if place in ps), seen[0])
                owner.owns.append(name)
        self._measure(seen, found, data)

    def _measure(self, seen: list[_Seen], found: list[Found], data: bool) -> None:
        steps, batch = (self.steps, self.batch) if data else (1, 1)
        for layer, part in zip(seen, found, strict=True):
            activations = part.fields["kind"] == "gemm_activation"
            for name, operand in part.operands.items():
                time = name != "density_weight" or activations
                layer.densities.setdefault(name, []).append(
                    measure_operand(operand, steps, batch, time=time, time_first=self.time_first)
                )
            if "density_input" in part.operands:
                tensor = part.operands["density_input"].tensor
                layer.kind, layer.largest = wider(layer.kind, layer.largest, tensor)
            if activations:
                second = part.operands["density_weight"].tensor
                layer.weight_kind, layer.weight_largest = wider(layer.weight_kind, layer.weight_largest, second)

    def _written(self, n: fx.Node, target: Tensor) -> None:
        """Hand what `n` wrote to everything that reads the same memory from now on."""
        for other in self.memory.get(_address(target), ()):
            if other is n or other not in self.env:
                continue
            self.writers.setdefault(other, []).append(n)
            if n in self.data:
                self.data.add(other)
                self.trained.pop(other, None)
            elif n in self.trained:
                self.trained[other] = self.trained.get(other, frozenset()) | self.trained[n]
            if n in self.learns:
                self.learns.add(other)
            self.producers[other] = tuple(dict.fromkeys((*self.producers.get(other, ()), *self.producers.get(n, ()))))

    # --- results ----------------------------------------------------------------------------------------------------

    def layers(self) -> tuple[Layer, ...]:
        """All layers in program order."""
        consumers: dict[str, list[str]] = {}
        every = [layer for seen in self.seen.values() for layer in seen]
        for layer in every:
            for producer in layer.inputs:
                consumers.setdefault(producer, []).append(layer.path)
        return tuple(self._layer(layer, tuple(dict.fromkeys(consumers.get(layer.path, ())))) for layer in every)

    def _layer(self, seen: _Seen, outputs: tuple[str, ...]) -> Layer:
        fields = dict(seen.found.fields)
        places = dict(_places(seen.node))
        for name, products in (
            ("macs_backward", seen.found.backward), ("macs_weight_gradient", seen.found.weight_gradient),
        ):  # fmt: skip
            fields[name] = sum(macs for macs, ps in products if any(places.get(p) in self.learns for p in ps))
        fields["parameters"] = sum(self.sizes[name] for name in seen.owns)
        fields["input_kind"] = seen.kind or "real"
        fields["input_bits"] = bits_of(seen.kind or "real", seen.largest)
        if seen.weight_kind is not None:
            fields["weight_bits"] = bits_of(seen.weight_kind, seen.weight_largest)
        fields |= {name: over_batches(measured) for name, measured in seen.densities.items()}
        return Layer(path=seen.path, op=str(seen.node.target), inputs=seen.inputs, outputs=outputs, **fields)

    def balance(self) -> Balance:
        """What the export holds, and what is missing."""
        return Balance(
            sizes=self.sizes, owned=frozenset(self.owned), reached=self._reached(), frozen=self.frozen,
            operations=len(self.seen) + len(self.unsupported),
            unsupported=tuple(f"{u.op} at {u.path}" for u in self.unsupported.values()), notes=self._notes(),
        )  # fmt: skip

    def _reached(self) -> frozenset[str]:
        """Trained parameters from which a way leads to the output."""
        assert isinstance(self.module, fx.GraphModule)
        reached: set[fx.Node] = set()
        pending = [n for n in self.module.graph.nodes if n.op == "output"]
        while pending:
            n = pending.pop()
            if n in reached:
                continue
            reached.add(n)
            if n.target not in CUTS:
                pending += [*n.all_input_nodes, *self.writers.get(n, ())]
        names = (self.names.get(str(n.target)) for n in reached if n.op == "get_attr")
        return frozenset(name for name in names if name in self.sizes)

    def _notes(self) -> tuple[str, ...]:
        notes = []
        repeated: dict[str, list[Any]] = {}
        for seen in self.seen.values():
            stack = list((seen[0].node.meta.get("nn_module_stack") or {}).values())
            if stack and seen[0].found.fields["kind"] == "gemm_weight" and self.steps > 1:
                repeated.setdefault(stack[-1][0], []).append(seen[0].node.target)
        loops = [path for path, targets in repeated.items() if path and len(targets) == self.steps]
        if loops:
            notes.append(f"a time loop written by hand runs {', '.join(loops[:4])} once a step, {self.steps} times")
        spikes = [
            n for n in self.seen
            if n.target in THRESHOLDS and any(i in self.learns for i in n.all_input_nodes) and not self._chooses(n)
        ]  # fmt: skip
        if spikes and not any(n.target in NEURONS for n in self.seen):
            notes.append(f"{counted(len(spikes), 'comparison')} taken as spikes whose surrogate passes a gradient")
        return tuple(notes)

    def _chooses(self, n: fx.Node) -> bool:
        """Whether a comparison does nothing but choose between values that learn."""

        def one(user: fx.Node) -> bool:
            condition, values = CHOICES.get(user.target, (None, ()))
            given = [user.args[i] for i in values if i < len(user.args)]
            return (
                condition is not None
                and user.args[condition] is n
                and any(isinstance(a, fx.Node) and a in self.learns for a in given)
            )

        return bool(n.users) and all(one(user) for user in n.users)


def _address(tensor: Tensor) -> int:
    try:
        return tensor.untyped_storage().data_ptr() or id(tensor)
    except (NotImplementedError, RuntimeError):  # sparse and wrapped tensors have no storage of their own
        return id(tensor)


def _places(n: fx.Node) -> list[tuple[Place, fx.Node]]:
    """Every argument that is a node, also inside a list, with its place."""
    found: list[tuple[Place, fx.Node]] = []
    for i, a in enumerate((*n.args, *n.kwargs.values())):
        if isinstance(a, fx.Node):
            found.append((i, a))
        elif isinstance(a, list | tuple):
            found += [((i, j), b) for j, b in enumerate(a) if isinstance(b, fx.Node)]
    return found
