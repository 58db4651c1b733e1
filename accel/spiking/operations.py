"""What the connections and neurons of a network do on real inputs, counted while it runs.

    Linear, Conv    y = W x. Each entry of x meets the synapses that leave it and lie in range of an output.
    accumulate      x holds whole numbers, events: an n is n additions of each weight it meets (AC)
    multiply        x holds anything else: each weight it meets is multiplied once, x = 0 or not (MAC)

Whether a layer accumulates is read from the values it was given, all of them, not from a name: it is the arithmetic
that the values need. One fraction anywhere makes a layer multiply; a front end that happens to emit whole numbers for
one silent clip does not hide behind it, because the verdict is taken over everything that passed. A weight that is
exactly 0 is no synapse. Batch normalisation is folded into the map before it and costs nothing.

What passes through a layer is counted, padding too: run clips of different lengths one at a time. Products that are
not a layer with weights (attention, gates) are invisible here; the model's own room adds them.
"""

from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from accel.spiking.neuron import LIF, ParametricLIF

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)
CONNECTIONS = (nn.Linear, *CONVOLUTIONS)
NEURONS = (LIF, ParametricLIF, nn.ReLU)


@dataclass(kw_only=True)
class Connections:
    """Totals of one layer of synapses over everything that passed through it."""

    path: str
    integer: bool = True  # so far every input was a whole number
    binary: bool = True  # so far every input was 0 or 1
    inputs: int = 0
    nonzero: int = 0  # inputs that were not 0
    events: float = 0.0  # sum of |x| * synapses in range
    active: float = 0.0  # non-zero inputs * synapses in range
    synapses: float = 0.0  # inputs * synapses in range
    dense: float = 0.0  # inputs * weights in range, those that are 0 included
    largest: float = 0.0  # largest |x|
    outputs: int = 0

    @property
    def rate(self) -> float:
        """Share of inputs that were not 0."""
        return self.nonzero / self.inputs if self.inputs else 0.0

    @property
    def ac(self) -> float:
        return self.events if self.integer else 0.0

    @property
    def mac(self) -> float:
        return 0.0 if self.integer else self.synapses


@dataclass(kw_only=True)
class Activations:
    """Totals of one population over everything it emitted."""

    path: str
    active: int = 0  # outputs that were not 0
    places: int = 0  # outputs: one neuron in one step

    @property
    def rate(self) -> float:
        return self.active / self.places if self.places else 0.0


class OperationCounter:
    """`with OperationCounter(model) as counter: model(x)` fills `counter.connections` and `counter.activations`.

    Entries are in the order of use. Raises ValueError for a module whose weights no rule counts, and on leaving for a
    layer whose module was never called: either would make the count too small without a word.
    """

    def __init__(self, model: nn.Module) -> None:
        self.connections: dict[str, Connections] = {}
        self.activations: dict[str, Activations] = {}
        self._layers = {path: m for path, m in model.named_modules() if isinstance(m, CONNECTIONS)}
        self._populations = {path: m for path, m in model.named_modules() if isinstance(m, NEURONS)}
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []
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
        for path, layer in self._layers.items():
            self._hooks.append(layer.register_forward_hook(self._on_layer(path, layer)))
        for path, population in self._populations.items():
            self._hooks.append(population.register_forward_hook(self._on_population(path)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        missing = sorted(self._layers.keys() - self.connections.keys())
        if missing and error is None:
            raise ValueError(f"{', '.join(missing)} never ran as a module; call the layer, not F.linear on its weight")

    def _on_layer(self, path: str, layer: nn.Module) -> Any:
        present, dense = _fan_out(layer, pruned=True), _fan_out(layer, pruned=False)

        def count(layer: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
            x = args[0].detach().double()
            found = self.connections.setdefault(path, Connections(path=path))
            magnitude, active, every = x.abs(), (x != 0).double(), torch.ones_like(x)
            found.integer &= bool((x == x.round()).all())
            found.binary &= bool(((x == 0) | (x == 1)).all())
            found.inputs += x.numel()
            found.nonzero += int(x.count_nonzero())
            found.events += _meet(layer, magnitude, present)
            found.active += _meet(layer, active, present)
            found.synapses += _meet(layer, every, present)
            found.dense += _meet(layer, every, dense)
            found.largest = max(found.largest, float(magnitude.max()) if x.numel() else 0.0)
            found.outputs += out.numel()

        return count

    def _on_population(self, path: str) -> Any:
        def count(population: nn.Module, args: tuple[Tensor, ...], out: Any) -> None:
            spikes = out[0] if isinstance(out, tuple) else out
            found = self.activations.setdefault(path, Activations(path=path))
            found.active += int(spikes.count_nonzero())
            found.places += spikes.numel()

        return count


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
