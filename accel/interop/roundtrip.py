"""Whether another format says the same: the spikes of every population and the outputs, on the same batches.

A program is run as torch runs it, the file as its own runner does. Spikes must be equal one by one and outputs to 1e-5.
Two libraries add in another order, so a membrane that lands within rounding of its threshold can fall on either side,
and everything behind it may then differ. That, and only that, is told apart from a wrong file: in the first population
that differs, each neuron's first other spike must come from a membrane within `ROUNDING` of the threshold.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from spikeloom.accel.export.program import layer_path
from spikeloom.accel.export.table import NEURONS
from spikeloom.accel.spiking.functional import LIFParameters, charge, reset
from spikeloom.accel.spiking.surrogate import from_code

OUTPUTS_EQUAL = 1e-5  # of the largest output, or of 1
ROUNDING = 1e-5  # of the largest current, or of 1


class RoundTripError(ValueError):
    """A file that does not compute what the program computes."""


class Run(NamedTuple):
    """What came out, and the spikes [T, ...] of every population by layer path."""

    outputs: tuple[Tensor, ...]
    spikes: dict[str, Tensor]


@dataclass(kw_only=True)
class RoundTrip:
    """Totals over all batches; `differing` holds the populations whose spikes are not all equal."""

    fired: dict[str, int] = field(default_factory=dict)
    differing: dict[str, int] = field(default_factory=dict)
    output_difference: float = 0.0  # largest, as a share of the largest output (of 1 where that is smaller)

    def __str__(self) -> str:
        if not self.fired:
            return f"no spiking population; outputs equal to {self.output_difference:.1e}"
        silent = sum(n == 0 for n in self.fired.values())
        told = f"{len(self.fired)} population{'s' * (len(self.fired) > 1)} with {sum(self.fired.values()):,} spikes"
        told += f" ({silent} of them silent)" if silent else ""
        if self.differing:
            first = next(iter(self.differing))
            return (
                f"{told}, {sum(self.differing.values()):,} spikes differ from {first} on, where a membrane lay within "
                f"rounding of its threshold; outputs differ by up to {self.output_difference:.1e}"
            )
        return f"{told}, every one equal; outputs to {self.output_difference:.1e}"


def round_trip(
    program: torch.export.ExportedProgram,
    batches: Sequence[tuple[Tensor, ...]],
    run: Callable[[tuple[Tensor, ...]], Run],
    what: str,
) -> RoundTrip:
    """Compare `run`, the runner of a file called `what`, with the program.

    Raises:
        RoundTripError: for another set of populations, other shapes, spikes that differ beyond rounding, or equal
            spikes and other outputs.
    """
    result = RoundTrip()
    for batch in batches:
        expected, found = run_program(program, batch), run(batch)
        if set(expected.spikes) != set(found.spikes):
            raise RoundTripError(f"{what} has the populations {sorted(found.spikes)}, not {sorted(expected.spikes)}")
        other = []  # paths of populations that differ in this batch
        for path, spikes in expected.spikes.items():
            if spikes.shape != found.spikes[path].shape:
                raise RoundTripError(f"{what}: {path} is {tuple(found.spikes[path].shape)}, not {tuple(spikes.shape)}")
            n = int((spikes != found.spikes[path]).sum())
            result.fired[path] = result.fired.get(path, 0) + int((spikes != 0).sum())
            if n:
                other.append(path)
                result.differing[path] = result.differing.get(path, 0) + n
        if other:
            _only_rounding(program, batch, other[0], expected, found, what)
        worst = max(_difference(a, b, what) for a, b in zip(expected.outputs, found.outputs, strict=True))
        if not other and not worst <= OUTPUTS_EQUAL:
            raise RoundTripError(f"{what}: equal spikes, but outputs differ by {worst:.1e} of the largest")
        result.output_difference = max(result.output_difference, worst)
    return result


def run_program(program: torch.export.ExportedProgram, batch: tuple[Tensor, ...]) -> Run:
    """The program's own outputs and spikes."""
    watcher = _Watcher(program)
    with torch.no_grad():
        return Run(as_outputs(watcher.run(*batch)), watcher.spikes)


def as_outputs(value: Any) -> tuple[Tensor, ...]:
    """The tensors that a program returned."""
    return tuple(torch.utils._pytree.tree_leaves(value))


def populations(graph: fx.Graph) -> list[fx.Node]:
    """The neurons that an output depends on, in program order."""
    needed: set[fx.Node] = set()
    for n in reversed(graph.nodes):
        if n.op == "output" or n in needed:
            needed.update(n.all_input_nodes)
    return [n for n in graph.nodes if n.target in NEURONS and n in needed]


class _Watcher(fx.Interpreter):
    """Keeps every population's spikes, and the arguments of the one called `kept`."""

    def __init__(self, program: torch.export.ExportedProgram, kept: str | None = None) -> None:
        module: Any = program.module()
        super().__init__(module)
        self.populations = set(populations(module.graph))
        self.spikes: dict[str, Tensor] = {}
        self.kept = kept
        self.arguments: tuple[Any, ...] = ()

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        if n in self.populations:
            path = layer_path(n, self.spikes)
            self.spikes[path] = result[0]
            if path == self.kept:
                self.arguments = self.fetch_args_kwargs_from_env(n)[0]
        return result


def neuron_parameters(arguments: Sequence[Any]) -> LIFParameters:
    """Constants of a `spikeloom::lif` or `plif` from the arguments of its node, input and membrane included."""
    _, _, tau, decay_input, threshold, v_reset, detach, code, parameter = arguments
    return LIFParameters(
        tau=float(tau), decay_input=decay_input, threshold=threshold, v_reset=v_reset, detach_reset=detach,
        surrogate=from_code(code, parameter),
    )  # fmt: skip


@torch.no_grad()
def _only_rounding(
    program: torch.export.ExportedProgram, batch: tuple[Tensor, ...], path: str, expected: Run, found: Run, what: str
) -> None:
    """Raise RoundTripError unless the first other spike of each neuron of `path` hung on rounding."""
    watcher = _Watcher(program, kept=path)
    watcher.run(*batch)
    x, v = watcher.arguments[:2]
    p = neuron_parameters(watcher.arguments)
    other = expected.spikes[path] != found.spikes[path]
    first = other & (other.cumsum(0) == 1)
    v = v.to(x.dtype)
    worst, step = 0.0, 0
    for t, x_t in enumerate(x.unbind(0)):
        h = charge(x_t, v, p)
        distance = float((h - p.threshold).abs()[first[t]].max()) if first[t].any() else 0.0
        worst, step = max((worst, step), (distance, t))
        v = reset(h, (h >= p.threshold).to(h.dtype), p)
    if not worst <= ROUNDING * max(1.0, float(x.abs().max())):
        raise RoundTripError(
            f"{what}: {int(other.sum())} of {other.numel()} spikes of {path} differ, the farthest in step {step} with "
            f"the membrane {worst:.2g} from the threshold: more than rounding"
        )


def _difference(expected: Tensor, found: Tensor, what: str) -> float:
    if expected.shape != found.shape:
        raise RoundTripError(f"{what} gives {tuple(found.shape)}, not {tuple(expected.shape)}")
    if not expected.numel():
        return 0.0
    expected, found = expected.double(), found.double()
    return float((expected - found).abs().max() / max(1.0, float(expected.abs().max())))
