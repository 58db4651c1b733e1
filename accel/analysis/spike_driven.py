"""Is a network spike-driven? The verdict over everything that the layers and products of a counter were given.

A layer is driven by spikes when every value it was ever given was exactly 0 or 1. Two layers of a spike-driven network
may be given more: the first (pixels, mel frames, event counts) and the classifier (sums, averages). Any other exception
means that hardware must multiply, or at least count, there. Residual branches whose spikes are added up hold 2, 3, …:
whole numbers, which are events to add but no spikes; their readers are exceptions. A layer that never fired passes any
test, so the verdict is then "inconclusive".
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from spikeloom.accel.analysis.operations import SPIKING, OperationCounter, Values

Verdict = Literal["spike-driven", "not spike-driven", "inconclusive"]
NAMED = 6  # layers a sentence names at most


@dataclass(frozen=True, kw_only=True)
class SpikeDriven:
    """The finding. `exceptions` were given something else than 0 and 1, `silent` only 0, each in the order of use.

    neurons: whether the network has spiking neurons. name: path -> how people call it. network: subject of sentences.
    """

    layers: tuple[Values, ...]
    products: tuple[Values, ...]
    permitted: frozenset[str]
    neurons: bool = True
    name: Callable[[str], str] = str
    network: str = "The network"

    @property
    def exceptions(self) -> tuple[str, ...]:
        return tuple(given.path for given in (*self.layers, *self.products) if not given.binary)

    @property
    def forbidden(self) -> tuple[str, ...]:
        return tuple(path for path in self.exceptions if path not in self.permitted)

    @property
    def silent(self) -> tuple[str, ...]:
        return tuple(given.path for given in (*self.layers, *self.products) if given.nonzero == 0)

    @property
    def spikes_only(self) -> int:
        """Layers that were given spikes, and nothing else."""
        return sum(layer.binary and layer.nonzero > 0 for layer in self.layers)

    @property
    def verdict(self) -> Verdict:
        if self.forbidden or not self.neurons:
            return "not spike-driven"
        return "inconclusive" if self.silent else "spike-driven"

    def sentence(self) -> str:
        """The verdict with its reason, for people."""
        judged = [layer for layer in self.layers if layer.path not in self.permitted]
        n, bad, silent = len(judged), sum(not layer.binary for layer in judged), len(self.silent)
        beyond = "beyond the first layer and the classifier" if self.permitted else "without exception"
        if not self.neurons:
            return f"Not spike-driven: {self.network} has no spiking neurons, so every layer multiplies."
        if self.verdict == "spike-driven":
            they = "the only layer was" if n == 1 else f"all {n} layers were"
            return f"Spike-driven: {beyond}, {they} given nothing but 0 and 1."
        if self.verdict == "inconclusive":
            return (
                f"Inconclusive: {silent} layer{'s' * (silent != 1)} never fired ({self._names(self.silent)}). No layer "
                "failed, but a silent one cannot; train longer or use more inputs."
            )
        whole = all(given.integer for given in (*judged, *self.products) if not given.binary)
        products = f", and {len(self.forbidden) - bad} products of activations," if len(self.forbidden) > bad else ""
        also = f" {silent} never fired ({self._names(self.silent)})." if silent else ""
        return (
            f"Not spike-driven: {beyond}, {bad} of {n} layers{products} were given values other than 0 and 1 "
            f"({self._names(self.forbidden)}). "
            + ("They receive sums of spikes of several branches: 2, 3, …" if whole else "Hardware must multiply there.")
            + also
        )

    def _names(self, paths: Sequence[str]) -> str:
        more = f"; … {len(paths)} in all" if len(paths) > NAMED else ""
        return "; ".join(self.name(path) for path in paths[:NAMED]) + more


def first_and_last(counter: OperationCounter) -> frozenset[str]:
    """The first and the last layer in the order of use: of a classifier those that may be given real values."""
    paths = list(counter.connections)
    return frozenset({paths[0], paths[-1]})


def unique_names(name: Callable[[str], str], paths: Iterable[str]) -> dict[str, str]:
    """path -> how people call it; a path whose name is taken keeps its own, so that no entry replaces another."""
    names: dict[str, str] = {}
    for path in paths:
        called = name(path)
        names[path] = path if called in names.values() else called
    return names


@contextmanager
def firing_rates(model: nn.Module) -> Iterator[dict[str, float]]:
    """`with firing_rates(model) as rates: model(x)`: fraction of neurons that fire in a step, by path, in use order."""
    fired: dict[str, tuple[int, int]] = {}  # path -> spikes, places
    rates: dict[str, float] = {}

    def watch(path: str) -> Any:
        def hook(module: nn.Module, args: Any, out: Any) -> None:
            spikes, places = fired.get(path, (0, 0))
            fired[path] = spikes + int(out[0].count_nonzero()), places + out[0].numel()
            rates[path] = fired[path][0] / fired[path][1]

        return hook

    hooks = [m.register_forward_hook(watch(path)) for path, m in model.named_modules() if isinstance(m, SPIKING)]
    try:
        yield rates
    finally:
        for hook in hooks:
            hook.remove()
