"""What the layers, products and neurons of a network do on real inputs, counted while it runs.

    Linear, Conv    y = W x. Each entry of x meets the synapses that leave it and lie in range of an output.
    accumulate      x holds whole numbers, events: an n is n additions of each weight it meets (AC)
    multiply        x holds anything else: each weight it meets is multiplied once, x = 0 or not (MAC)

Whether a layer accumulates is read from the values it was given, all of them, not from a name: it is the arithmetic
that the values need. One fraction anywhere makes a layer multiply; a front end that happens to emit whole numbers for
one silent clip does not hide behind it, because the verdict is taken over everything that passed. A weight that is
exactly 0 is no synapse. Batch normalisation is folded into the map before it and costs nothing.

Products of two activations (attention) have no weights. Where a rule is given for a type of module, the rule counts
what happens inside; every other matrix product is seen where it is called (`@`, bmm, einsum, scaled dot products).
Softmax, layer norms, activation functions and elementwise products are not counted.

What passes through a layer is counted, padding too: run samples of different lengths one at a time.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from types import MappingProxyType, TracebackType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from spikeloom.accel.spiking.neuron import LIF, ParametricLIF

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)
CONNECTIONS = (nn.Linear, *CONVOLUTIONS)
SPIKING = (LIF, ParametricLIF)
NEURONS = (*SPIKING, nn.ReLU)


@dataclass(kw_only=True)
class Values:
    """What one layer or product was given, over everything that passed."""

    path: str
    integer: bool = True  # so far every input was a whole number
    binary: bool = True  # so far every input was 0 or 1
    inputs: int = 0
    nonzero: int = 0  # inputs that were not 0
    largest: float = 0.0  # largest |x|

    @property
    def rate(self) -> float:
        """Fraction of inputs that were not 0."""
        return self.nonzero / self.inputs if self.inputs else 0.0

    def add(self, x: Tensor) -> None:
        self.integer &= bool((x == x.round()).all())
        self.binary &= bool(((x == 0) | (x == 1)).all())
        self.inputs += x.numel()
        self.nonzero += int(x.count_nonzero())
        self.largest = max(self.largest, float(x.abs().max()) if x.numel() else 0.0)


@dataclass(kw_only=True)
class Connections(Values):
    """Totals of one layer of synapses over everything that passed through it."""

    events: float = 0.0  # sum of |x| * synapses in range
    active: float = 0.0  # non-zero inputs * synapses in range
    synapses: float = 0.0  # inputs * synapses in range
    dense: float = 0.0  # inputs * weights in range, those that are 0 included
    padded: float = 0.0  # outputs * weights of one output: taps on padding included
    outputs: int = 0
    biased: bool = False

    @property
    def ac(self) -> float:
        return self.events if self.integer else 0.0

    @property
    def mac(self) -> float:
        return 0.0 if self.integer else self.synapses


@dataclass(kw_only=True)
class Product(Values):
    """Totals of one product of activations. `judged`: whether a spike-driven network must see only 0 and 1 here; a
    product that multiplies by design (positions, gates) is counted as MACs and not judged."""

    ac: float = 0.0
    mac: float = 0.0
    dense: float = 0.0
    formula_ac: float = 0.0  # by the formula that its paper publishes, where there is one
    judged: bool = True


@dataclass(kw_only=True)
class Activations:
    """Totals of one population over everything it emitted."""

    path: str
    spiking: bool
    active: int = 0  # outputs that were not 0
    places: int = 0  # outputs: one neuron in one step

    @property
    def rate(self) -> float:
        return self.active / self.places if self.places else 0.0


# (path of the module, the module, how to get a named total of it) -> the hooks of the rule
Rule = Callable[[nn.Module, Callable[[str], Product]], list[RemovableHandle]]


class OperationCounter:
    """`with OperationCounter(model) as counter: model(x)` fills `connections`, `products` and `activations`.

    Args:
        model: any network of Linear, Conv1d and Conv2d layers.
        rules: type of a module -> who counts the products inside it, by hooks that fill the totals handed out.
        neurons: types of modules whose outputs are counted as activity.
        unused_ok: layers that were never called are listed in `unused` instead of being an error.

    Entries are in the order of use. Raises ValueError for a module whose weights no rule counts, and on leaving for a
    layer whose module was never called: either would make the count too small without a word.
    """

    def __init__(
        self, model: nn.Module, rules: Mapping[type[nn.Module], Rule] = MappingProxyType({}),
        neurons: tuple[type[nn.Module], ...] = NEURONS, unused_ok: bool = False,
    ) -> None:  # fmt: skip
        self.connections: dict[str, Connections] = {}
        self.products: dict[str, Product] = {}
        self.activations: dict[str, Activations] = {}
        self.unused: tuple[str, ...] = ()
        self._model, self._unused_ok = model, unused_ok
        self._layers = {path: m for path, m in model.named_modules() if isinstance(m, CONNECTIONS)}
        self._populations = {path: m for path, m in model.named_modules() if isinstance(m, neurons)}
        self._ruled = {path: (m, rules[type(m)]) for path, m in model.named_modules() if type(m) in rules}
        self._hooks: list[RemovableHandle] = []
        self._mode = _MatrixProducts(self)
        self._running: list[str] = []  # paths of the modules that are running, innermost last
        self._closed = 0  # > 0: inside a layer or a module with a rule, or while counting
        for path, module in model.named_modules():
            weights = [p for p in module.parameters(recurse=False) if p.dim() >= 2]
            if weights and path not in self._layers and not isinstance(module, nn.Embedding):  # a look-up adds nothing
                known = "Linear, Conv1d and Conv2d"
                raise ValueError(
                    f"no rule counts {type(module).__name__} at {path or 'the top'}; build it from {known}"
                )
            if path in self._layers and getattr(module, "padding_mode", "zeros") != "zeros":
                raise ValueError(f"{path} has padding_mode={module.padding_mode}; counted is only padding_mode=zeros")

    def __enter__(self) -> "OperationCounter":
        for path, module in self._model.named_modules():
            closed = path in self._layers or path in self._ruled
            self._hooks.append(module.register_forward_pre_hook(self._enter(path, closed), prepend=True))
            self._hooks.append(module.register_forward_hook(self._leave(closed), prepend=True))
        for path, layer in self._layers.items():
            self._hooks.append(layer.register_forward_hook(self._on_layer(path, layer), with_kwargs=True))
        for path, population in self._populations.items():
            self._hooks.append(population.register_forward_hook(self._on_population(path)))
        for path, (module, rule) in self._ruled.items():
            self._hooks += rule(module, partial(self._product, path))
        self._mode.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._mode.__exit__(kind, error, trace)
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        self.unused = tuple(sorted(self._layers.keys() - self.connections.keys()))
        if self.unused and error is None and not self._unused_ok:
            raise ValueError(
                f"{', '.join(self.unused)} never ran as a module; call the layer, not F.linear on its weight"
            )

    def _product(self, *parts: str) -> Product:
        path = ".".join(filter(None, parts))
        return self.products.setdefault(path, Product(path=path))

    def _enter(self, path: str, closed: bool) -> Any:
        def enter(module: nn.Module, args: Any) -> None:
            self._running.append(path)
            self._closed += closed

        return enter

    def _leave(self, closed: bool) -> Any:
        def leave(module: nn.Module, args: Any, out: Any) -> None:
            self._running.pop()
            self._closed -= closed

        return leave

    def _on_layer(self, path: str, layer: nn.Module) -> Any:
        present, dense = _fan_out(layer, pruned=True), _fan_out(layer, pruned=False)

        def count(layer: Any, args: tuple[Tensor, ...], kwargs: Mapping[str, Tensor], out: Tensor) -> None:
            self._closed += 1
            x = (args[0] if args else kwargs["input"]).detach().double()
            found = self.connections.setdefault(path, Connections(path=path, biased=layer.bias is not None))
            found.add(x)
            found.events += _meet(layer, x.abs(), present)
            found.active += _meet(layer, (x != 0).double(), present)
            every = torch.ones_like(x)
            found.synapses += _meet(layer, every, present)
            found.dense += _meet(layer, every, dense)
            found.padded += out.numel() * layer.weight[0].numel()
            found.outputs += out.numel()
            self._closed -= 1

        return count

    def _on_population(self, path: str) -> Any:
        def count(population: nn.Module, args: tuple[Tensor, ...], out: Any) -> None:
            spikes = out[0] if isinstance(out, tuple) else out
            found = self.activations.setdefault(
                path, Activations(path=path, spiking=not isinstance(population, nn.ReLU))
            )
            found.active += int(spikes.count_nonzero())
            found.places += spikes.numel()

        return count

    def on_matrix_product(self, what: str, operands: Sequence[Tensor], macs: int, adds: bool = False) -> None:
        """Note a product of activations outside layers and rules. `adds`: a @ b, where whole numbers only add."""
        if self._closed or not self._running:  # outside the model: a front end, a loss
            return
        self._closed += 1
        found = self._product(self._running[-1], what)
        for operand in operands:
            found.add(operand.detach().double())
        found.dense += macs
        if adds and found.integer:
            a, b = (x.detach().double().abs() for x in operands)
            found.ac += float((a @ b).sum())
        else:
            found.ac, found.mac = 0.0, found.dense
        self._closed -= 1


class _MatrixProducts(TorchFunctionMode):
    """Sees the matrix products that no module with weights makes."""

    def __init__(self, counter: OperationCounter) -> None:
        super().__init__()
        self.counter = counter

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        note = self.counter.on_matrix_product
        if func in _MATMULS:
            a, b = args[-2:] if func in _ADDED else args[:2]
            if func is Tensor.__rmatmul__:
                a, b = b, a
            note("product", (a, b), out.numel() * a.shape[-1], adds=True)
        elif func is F.scaled_dot_product_attention:
            q, k, v = (args[i] if len(args) > i else kwargs[name] for i, name in enumerate(("query", "key", "value")))
            pairs = q.shape[:-1].numel() * k.shape[-2]  # all of them: a mask leaves none out
            note("scaled dot product", (q, k, v), pairs * (q.shape[-1] + v.shape[-1]))
        elif func is torch.einsum:
            operands = args[1] if isinstance(args[1], list | tuple) else args[1:]
            terms = args[0].replace(" ", "").split("->")[0].split(",")
            if len(operands) != 2 or "..." in args[0]:
                raise ValueError(f"no rule counts einsum {args[0]!r}; write it as matrix products of two tensors")
            sizes = {i: n for term, x in zip(terms, operands, strict=True) for i, n in zip(term, x.shape, strict=True)}
            note("einsum", operands, prod(sizes.values()))
        return out


_ADDED = (torch.addmm, torch.baddbmm, Tensor.addmm, Tensor.baddbmm)
_MATMULS = {
    torch.matmul, torch.mm, torch.bmm, Tensor.matmul, Tensor.mm, Tensor.bmm, Tensor.__matmul__, Tensor.__rmatmul__,
    *_ADDED,
}  # fmt: skip


def _fan_out(layer: Any, *, pruned: bool) -> Tensor:
    """How many weights an input meets, float64: [in] of a linear layer, a kernel with one output a group otherwise."""
    present = (layer.weight != 0 if pruned else torch.ones_like(layer.weight)).double()
    return present.sum(0) if isinstance(layer, nn.Linear) else present.unflatten(0, (layer.groups, -1)).sum(1)


def _meet(layer: Any, x: Tensor, fan_out: Tensor) -> float:
    """sum over all inputs of x * the weights that carry it to an output in range."""
    if isinstance(layer, nn.Linear):
        return float(x.reshape(-1, x.shape[-1]).sum(0) @ fan_out)
    convolve: Any = F.conv1d if isinstance(layer, nn.Conv1d) else F.conv2d
    return float(convolve(x, fan_out, None, layer.stride, layer.padding, layer.dilation, layer.groups).sum())
