"""An exported program run through the engines: forwards (FP) node by node, then backwards (BP and WG) in reverse.

Products with weights and of activations go to the arrays (`rules`), neurons, batch norms to their units (`units`).
Elementwise operations and reshapes have a derivative each, taken from torch operation by operation; what they compute
is rounded like everything that meets a memory. No gradient of more than one operation is ever asked from torch.

Batch norms use the statistics of the batch, whatever mode the program was exported in. A program that writes into its
tensors is first made functional. Operations of several heads (attention, einsum) are lowered to products
(`contractions`). What has no engine is named: an einsum of three operands, recurrent layers.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from spikeloom.accel.export.paths import functional
from spikeloom.accel.export.program import UnsupportedOpError, layer_path
from spikeloom.accel.export.table import (
    ATTENTIONS,
    BOOKKEEPING,
    CONVOLUTIONS,
    EINSUMS,
    ELEMENTWISE,
    GATHERS,
    LINEAR,
    NEURONS,
    NORMS,
    PRODUCTS,
    VIEWS,
)
from spikeloom.accel.spiking.functional import LIFParameters
from spikeloom.accel.spiking.surrogate import Rectangular, from_code
from spikeloom.accel.trainer.engines import contractions, rules, units
from spikeloom.accel.trainer.engines.activity import Activity
from spikeloom.accel.trainer.engines.arithmetic import FP16, Arithmetic, product

Gradients = list[tuple[fx.Node, Tensor]]  # of the inputs of a node
Backward = Callable[[Any], Gradients]  # gradient of a node's output -> of its inputs
BATCH_NORM = torch.ops.aten.batch_norm.default
FUNCTIONAL_BATCH_NORM = torch.ops.aten._native_batch_norm_legit_no_training.default
ADDMM = torch.ops.aten.addmm.default
CONV3D = frozenset({torch.ops.aten.conv3d.default, torch.ops.aten.conv3d.padding})
KNOWN = VIEWS | ELEMENTWISE | LINEAR | CONVOLUTIONS - CONV3D | PRODUCTS | NEURONS | NORMS | GATHERS | BOOKKEEPING
KNOWN |= ATTENTIONS | EINSUMS | {ADDMM}


class Engines:
    """Runs a program exported by torch.export. The parameters are those of the exported model, read at every run.

    `forward` and `backward` are the arithmetics of FP, and of BP and WG. `window` replaces the surrogate of every
    neuron by a window of that half-width, the one that needs a single bit. `loss_scale`, a power of two, keeps small
    gradients above the smallest FP16 number; gradients come out without it. `learn_statistics` updates running means
    and variances as training does.
    """

    def __init__(
        self,
        program: torch.export.ExportedProgram,
        *,
        forward: Arithmetic = FP16,
        backward: Arithmetic | None = None,
        window: float | None = None,
        loss_scale: float = 1.0,
        learn_statistics: bool = True,
    ) -> None:
        if not loss_scale > 0 or 2 ** round(torch.tensor(loss_scale).log2().item()) != loss_scale:
            raise ValueError(f"loss_scale got {loss_scale}; use a power of two, for example 1024")
        self.module = functional(program).module()
        assert isinstance(self.module, fx.GraphModule)
        self.fp, self.bp = forward, backward or forward
        self.window, self.loss_scale, self.learn_statistics = window, loss_scale, learn_statistics
        self.parameters: dict[str, Tensor] = dict(self.module.named_parameters())
        tied = dict(self.module.named_parameters(remove_duplicate=False))
        first = {id(p): name for name, p in self.parameters.items()}
        self.names = {name: first[id(p)] for name, p in tied.items()}  # of tied parameters: that of the first
        self.attributes = {**tied, **dict(self.module.named_buffers(remove_duplicate=False))}
        self.data, self.needs = self._reach()
        self.activity = Activity()
        self.remembered: dict[str, units.Remembered] = {}  # layer path -> what its neurons kept from FP to BP
        self.forced: dict[str, units.Remembered] = {}  # what neurons fire and keep instead, by path: for comparisons
        self.env: dict[fx.Node, Any] = {}
        self.paths: dict[fx.Node, str] = {}
        self.tape: list[tuple[fx.Node, Backward]] = []
        self._check()

    def _reach(self) -> tuple[set[fx.Node], set[fx.Node]]:
        """Nodes that depend on the input, and nodes that depend on a trained parameter."""
        data: set[fx.Node] = set()
        needs: set[fx.Node] = set()
        for n in self.module.graph.nodes:
            aside = n.target in BOOKKEEPING and n.target is not _getitem  # sizes and constants carry no data
            if n.op == "placeholder" or (data.intersection(n.all_input_nodes) and not aside):
                data.add(n)
            trained = n.op == "get_attr" and getattr(self.attributes.get(str(n.target)), "requires_grad", False)
            if trained or (needs.intersection(n.all_input_nodes) and not aside):
                needs.add(n)
        return data, needs

    def _check(self) -> None:
        nodes = [n for n in self.module.graph.nodes if n.op == "call_function" and n in self.data | self.needs]
        unknown = [f"{n.target} at {layer_path(n, ())}" for n in nodes if n.target not in KNOWN or not _has_engine(n)]
        if unknown:
            raise UnsupportedOpError(f"{len(unknown)} operations have no engine: {', '.join(unknown)}; replace them")

    # --- FP -------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def forward(self, *inputs: Tensor) -> Tensor:
        """FP of one batch [T, B, ...]; keeps what BP and WG need, until the next call."""
        self.activity.steps, self.activity.batch = inputs[0].shape[:2]
        self.tape, self.remembered, given = [], {}, iter(inputs)
        for n in self.module.graph.nodes:
            if n.op == "placeholder":
                self.env[n] = self.fp.round(next(given))
            elif n.op == "get_attr":
                value = self.attributes[n.target]
                self.env[n] = self.fp.round(value.detach()) if n in self.needs else value
            elif n.op == "call_function":
                self.env[n] = self._compute(n)
            elif n.op == "output":
                out = n.args[0]
                self.out: fx.Node = out[0] if isinstance(out, tuple | list) else out
        result = self.env[self.out]
        assert isinstance(result, Tensor)
        return result

    def _compute(self, n: fx.Node) -> Any:
        args: Any = fx.node.map_arg(n.args, lambda a: self.env[a])
        if n in self.data and n.target not in BOOKKEEPING | VIEWS:
            self.paths.setdefault(n, layer_path(n, self.paths.values()))
        for family, rule in (
            (LINEAR, self._linear), (CONVOLUTIONS, self._convolution), (PRODUCTS, self._product),
            (NEURONS, self._neurons), (ATTENTIONS, self._attention), (EINSUMS, self._einsum),
        ):  # fmt: skip
            if n.target in family and n in self.data:
                return rule(n, *args)
        if n.target is ADDMM and n in self.data:
            return self._addmm(n, *args)
        if n.target is BATCH_NORM and n in self.data:
            return self._batch_norm(n, *args)
        if n.target is FUNCTIONAL_BATCH_NORM and n in self.data:
            return (self._batch_norm(n, *args[:5], False, *args[5:]), None, None)
        return self._local(n, args)

    def _linear(self, n: fx.Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        self._note(n, input=x, weight=weight)

        def backward(dx: Tensor) -> Gradients:
            self._note(n, du=dx)
            found: Gradients = []
            if _node(n, 0) in self.needs:
                found.append((_node(n, 0), rules.linear_backward(dx, weight, self.bp)))
            if _node(n, 1) in self.needs:
                dw, db = rules.linear_gradient(dx, x, self.bp)
                found += [(_node(n, 1), dw), *([(_node(n, 2), db)] if bias is not None else [])]
            return found

        self.tape.append((n, backward))
        return rules.linear_forward(x, weight, bias, self.fp)

    def _convolution(
        self, n: fx.Node, x: Tensor, weight: Tensor, bias: Tensor | None = None, *constants: Any
    ) -> Tensor:
        self._note(n, input=x, weight=weight)
        shape = rules.Convolution.of(weight, constants)

        def backward(dx: Tensor) -> Gradients:
            self._note(n, du=dx)
            found: Gradients = []
            if _node(n, 0) in self.needs:
                found.append((_node(n, 0), rules.convolution_backward(dx, weight, shape, x.shape[2:], self.bp)))
            if _node(n, 1) in self.needs:
                dw, db = rules.convolution_gradient(dx, x, weight, shape, self.bp)
                found += [(_node(n, 1), dw), *([(_node(n, 2), db)] if bias is not None else [])]
            return found

        self.tape.append((n, backward))
        return rules.convolution_forward(x, weight, bias, shape, self.fp)

    def _product(self, n: fx.Node, a: Tensor, b: Tensor) -> Tensor:
        self._note(n, input=a, weight=b)

        def backward(dx: Tensor) -> Gradients:
            self._note(n, du=dx)
            both = rules.matmul_backward(dx, a, b, self.bp)
            return [(_node(n, i), g) for i, g in enumerate(both) if _node(n, i) in self.needs]

        self.tape.append((n, backward))
        return a @ b if self.fp.exact else product(a, b, self.fp)

    def _addmm(self, n: fx.Node, bias: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        self._note(n, input=x, weight=weight)

        def backward(dx: Tensor) -> Gradients:
            self._note(n, du=dx)
            da, db = rules.matmul_backward(dx, x, weight, self.bp)
            dbias = self.bp.round(dx.sum_to_size(bias.shape))
            return [(_node(n, i), g) for i, g in enumerate((dbias, da, db)) if _wanted(n, i, self.needs)]

        self.tape.append((n, backward))
        return torch.addmm(bias, x, weight) if self.fp.exact else self.fp.round(product(x, weight, self.fp) + bias)

    def _attention(
        self, n: fx.Node, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, dropout: float = 0.0,
        causal: bool = False,
    ) -> Tensor:  # fmt: skip
        scale = n.kwargs.get("scale")
        out, kept = contractions.attention_forward(q, k, v, mask, causal, scale, self.fp)  # type: ignore[arg-type]
        self._note(n, input=q, weight=k)

        def backward(do: Tensor) -> Gradients:
            self._note(n, du=do)
            found = contractions.attention_backward(do, q, k, v, kept, self.bp)
            return [(_node(n, i), g) for i, g in enumerate(found) if _wanted(n, i, self.needs)]

        self.tape.append((n, backward))
        return out

    def _einsum(self, n: fx.Node, equation: str, operands: list[Tensor], *path: Any) -> Tensor:
        a, b = operands
        self._note(n, input=a, weight=b)
        nodes: Any = n.args[1]

        def backward(dy: Tensor) -> Gradients:
            self._note(n, du=dy)
            both = contractions.contract_backward(equation, dy, a, b, self.bp)
            return [(node, g) for node, g in zip(nodes, both, strict=True) if node in self.needs]

        self.tape.append((n, backward))
        return torch.einsum(equation, a, b) if self.fp.exact else contractions.contract(equation, a, b, self.fp)

    def _neurons(self, n: fx.Node, x: Tensor, v: Tensor, *constants: Any) -> tuple[Tensor, Tensor]:
        tau, decay_input, threshold, v_reset, detach, code, parameter = constants
        learned = isinstance(tau, Tensor)
        p = LIFParameters(
            tau=float(tau), decay_input=decay_input, threshold=threshold, v_reset=v_reset, detach_reset=detach,
            surrogate=from_code(code, parameter) if self.window is None else Rectangular(self.window),
        )  # fmt: skip
        before = v.to(x.dtype)
        fired, v, kept = units.soma(x, before, p, self.fp)
        if self.paths[n] in self.forced:
            kept = self.forced[self.paths[n]]
            fired = kept.spikes.to(fired.dtype)
        self.remembered[self.paths[n]] = kept
        derivative = kept.mask if kept.mask is not None else kept.derivative
        assert derivative is not None
        self._note(n, spike=fired, mask=derivative)

        def backward(gradient: dict[int, Tensor]) -> Gradients:
            gs = gradient.get(0, torch.zeros_like(fired))
            du, dx = units.gradient_unit(gs, gradient.get(1), kept, p, self.bp)
            self._note(n, du=du)
            found: Gradients = [(_node(n, 0), dx)] if _node(n, 0) in self.needs else []
            if learned and _wanted(n, 2, self.needs):
                dtau = units.time_constant_gradient(du, x, before, p, self.fp)
                found.append((_node(n, 2), dtau.to(tau.dtype).reshape(tau.shape)))
            return found

        self.tape.append((n, backward))
        return fired, v

    def _batch_norm(
        self, n: fx.Node, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor | None,
        var: Tensor | None, training: bool, momentum: float, eps: float, *rest: Any,
    ) -> Tensor:  # fmt: skip
        running = (mean, var) if self.learn_statistics and mean is not None and var is not None else None
        out, kept = units.batch_norm_forward(x, weight, bias, running, momentum, eps, self.fp)
        self._note(n, input=x)

        def backward(dz: Tensor | dict[int, Tensor]) -> Gradients:
            dz = dz[0] if isinstance(dz, dict) else dz
            self._note(n, du=dz)
            grads = units.batch_norm_backward(dz, kept, weight, self.bp)
            arguments = [a for a in n.args[:3] if isinstance(a, fx.Node)]
            return [(a, g) for a, g in zip(arguments, grads, strict=False) if a in self.needs]

        self.tape.append((n, backward))
        return out

    def _local(self, n: fx.Node, args: Any) -> Any:
        """An operation without an engine of its own: computed, rounded, and differentiated alone."""
        compute: Any = _copied if n.target is torch.ops.aten.copy.default else n.target
        assert callable(compute)
        rounded = self.fp.round if n.target not in VIEWS | BOOKKEEPING else (lambda x: x)
        kwargs = fx.node.map_arg(n.kwargs, lambda a: self.env[a])
        if n.target is _getitem:
            if n in self.needs:
                source, index = n.args
                self.tape.append((n, lambda g: [(source, {index: g})]))  # type: ignore[list-item]
            return args[0][args[1]]
        if n not in self.needs:
            out = compute(*args, **kwargs)
            return _mapped(rounded, out) if n in self.data else out
        leaves: dict[fx.Node, Tensor] = {}

        def leaf(a: fx.Node) -> Any:
            value = self.env[a]
            if a in self.needs and isinstance(value, Tensor) and value.is_floating_point():
                return leaves.setdefault(a, value.detach().clone().requires_grad_())
            return value

        with torch.enable_grad():
            traced = fx.node.map_arg(n.args, leaf)
            out = compute(*traced, **kwargs)
        outs = [out] if isinstance(out, Tensor) else list(out)

        def backward(gradient: Tensor | dict[int, Tensor]) -> Gradients:
            given = gradient if isinstance(gradient, dict) else {0: gradient}
            used = [i for i in given if outs[i].requires_grad]
            found = torch.autograd.grad(
                [outs[i] for i in used], list(leaves.values()), [given[i] for i in used], allow_unused=True
            )
            back = self.bp.round if n.target not in VIEWS else (lambda x: x)
            return [(a, back(g)) for a, g in zip(leaves, found, strict=True) if g is not None]

        self.tape.append((n, backward))
        return _mapped(lambda t: rounded(t.detach()), out)

    # --- BP and WG ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def backward(self, gradient: Tensor) -> dict[str, Tensor]:
        """BP and WG of the last batch: gradient of its output -> gradients of the parameters, by name, in float32."""
        scaled = self.bp.round(gradient * self.loss_scale)
        arrived: dict[fx.Node, Any] = {self.out: scaled}
        while self.tape:
            n, step = self.tape.pop()
            if n not in arrived:
                continue
            for source, part in step(arrived.pop(n)):
                arrived[source] = self._sum(arrived.get(source), part)
        found: dict[str, Tensor] = {}
        for n, g in arrived.items():
            if n.op == "get_attr" and n in self.needs:
                name = self.names[str(n.target)]
                found[name] = found[name] + g if name in found else g
        return {name: g / self.loss_scale for name, g in found.items()}

    def _sum(self, have: Any, part: Any) -> Any:
        """Gradients that meet; those of several outputs are kept apart by index."""
        if have is None:
            return part
        if isinstance(have, dict):
            return {**have, **{i: self._sum(have.get(i), g) for i, g in part.items()}}
        return self.bp.round(have + part)

    def _note(self, n: fx.Node, **tensors: Tensor) -> None:
        for operand, tensor in tensors.items():
            self.activity.note(self.paths[n], operand, tensor)


_getitem = next(target for target in BOOKKEEPING if getattr(target, "__name__", "") == "getitem")


def _node(n: fx.Node, index: int) -> fx.Node:
    argument = n.args[index]
    assert isinstance(argument, fx.Node)
    return argument


def _copied(into: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
    """aten.copy, which autograd has no derivative for."""
    return source.to(into.dtype).expand(into.shape).clone()


def _wanted(n: fx.Node, index: int, needs: set[fx.Node]) -> bool:
    """Whether an argument is a node whose gradient somebody waits for."""
    return isinstance(n.args[index], fx.Node) and n.args[index] in needs


def _has_engine(n: fx.Node) -> bool:
    """Whether a form of a known operation is one of those that are lowered."""
    if n.target in EINSUMS:
        operands = n.args[1]
        if not isinstance(operands, list | tuple) or len(operands) != 2:
            return False
        try:
            contractions.terms(n.args[0])
        except ValueError:
            return False
    if n.target in ATTENTIONS:
        return not n.kwargs.get("enable_gqa") and (len(n.args) < 5 or not n.args[4])
    return True


def _mapped(f: Callable[[Tensor], Tensor], out: Any) -> Any:
    if isinstance(out, Tensor):
        return f(out)
    return type(out)(f(t) for t in out) if isinstance(out, tuple | list) else out
