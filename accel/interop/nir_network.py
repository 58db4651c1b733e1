"""A NIR file as a torch module of the neurons of `spikeloom.accel.spiking`: read, run at once or step by step.

Read is what `nir` writes, and files of others that leave nothing open: one input, one output, no loops, populations
with one value a constant, and `dt`, `reset`, `v_start` and the surrogate in the metadata of each. Edges into one node
add up.
"""

import math
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikeloom.accel.common.files import brief, first_few, require_regular
from spikeloom.accel.common.hdf5 import require_own_data
from spikeloom.accel.interop.nir import NirError, library
from spikeloom.accel.interop.roundtrip import Run
from spikeloom.accel.spiking.functional import LIFParameters, LIFState
from spikeloom.accel.spiking.neuron import LIF
from spikeloom.accel.spiking.surrogate import SURROGATES

NEEDED = ("dt", "time_steps", "reset", "v_start", "surrogate", "surrogate_parameter", "detach_reset")
REMEDY = "write the file with `spikeloom export run=RUN nir=true`"
LARGEST_INPUT = 1 << 24  # values of one sample in one step

State = dict[str, LIFState]  # layer path -> what its population remembers


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """What fills in where a file says nothing: seconds of a step, steps of an example, surrogate of the neurons. The
    reset is hard and starts from v_reset, as NIR's own equations have it."""

    dt_s: float | None = None
    time_steps: int | None = None
    surrogate: str | None = None

    def metadata(self) -> dict[str, Any]:
        """The entries of a node's metadata that these stand for."""
        if self.dt_s is None:
            return {}
        name, _, parameter = (self.surrogate or "ATan").partition(":")
        kinds = {kind.__name__.lower(): kind for kind in SURROGATES}
        kind = kinds.get(name.lower())
        if kind is None:
            raise NirError(f"surrogate={self.surrogate} is unknown; use {', '.join(k.__name__ for k in SURROGATES)}")
        if not (np.isfinite(self.dt_s) and self.dt_s > 0):
            raise NirError(f"dt_s={self.dt_s} is no length of a time step; use seconds, for example 0.001")
        made = kind(float(parameter)) if parameter else kind()  # type: ignore[call-arg]
        return {
            "dt": self.dt_s, "time_steps": self.time_steps or 1, "reset": "hard", "surrogate": kind.__name__,
            "surrogate_parameter": made.parameter, "detach_reset": True,
        }  # fmt: skip


def read_nir(path: Path, defaults: Defaults | None = None) -> "NirNetwork":
    """Read a NIR file; `defaults` fill what it leaves open. Raises NirError naming file, node and remedy."""
    import h5py

    nir = library()
    try:
        require_regular(path, REMEDY)
        with h5py.File(path, "r") as file:
            require_own_data(path, file)
        graph = nir.read(str(path), type_check=False)  # the check forgets the groups of a convolution
    except Exception as error:  # the library and h5py raise whatever a damaged file leads them to
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise NirError(f"{path}: not a readable NIR file ({reason}); {REMEDY}") from error
    ends = [[k for k, n in graph.nodes.items() if isinstance(n, kind)] for kind in (nir.Input, nir.Output)]
    if [len(found) for found in ends] != [1, 1]:
        raise NirError(f"{path}: {len(ends[0])} inputs and {len(ends[1])} outputs; read is a network with one of each")
    before: dict[str, list[str]] = {name: [] for name in graph.nodes}
    if loose := sorted({end for edge in graph.edges for end in edge} - before.keys()):
        raise NirError(f"{path}: its edges name {first_few(loose)}, and there is no such node; {REMEDY}")
    for source, target in graph.edges:
        before[target].append(source)
    try:
        order = list(TopologicalSorter(before).static_order())
    except CycleError as error:
        raise NirError(f"{path}: the nodes {error.args[1]} form a loop; read are feed-forward networks") from None
    filled = defaults or Defaults()
    layers = {
        k: _module(nir, graph.nodes[k], f"{path}, node {k}", filled) for k in order if k not in (*ends[0], *ends[1])
    }
    names = {k: str(_plain(graph.nodes[k].metadata.get("path", k))) for k in layers}
    meta = {k: _plain(v) for k, v in graph.metadata.items()}
    shape = np.atleast_1d(next(iter(graph.nodes[ends[0][0]].input_type.values()))).tolist()
    meta |= {"input_shape": [int(n) for n in shape], "steps": filled.time_steps or meta.get("time_steps") or 1}
    network = NirNetwork(layers, before, names, (ends[0][0], ends[1][0]), meta)
    _run_once(path, network)
    return network


def _run_once(path: Path, network: "NirNetwork") -> None:
    """One step of zeros, so that sizes that do not fit show themselves here. Raises NirError."""
    shape = network.metadata["input_shape"]
    if not shape or min(shape) < 1 or math.prod(shape) > LARGEST_INPUT:
        raise NirError(f"{path}: an input of shape {shape[:8]} has no or too many values; {REMEDY}")
    try:
        with torch.no_grad():
            network(torch.zeros(1, 1, *shape))
    except (RuntimeError, ValueError, TypeError, LookupError) as error:
        raise NirError(f"{path}: the layers do not fit each other ({brief(error)}); {REMEDY}") from error


class NirNetwork(nn.Module):
    """x [T, B, ...] -> what the graph's output gives in each step, [T, B, ...], or its mean over time."""

    def __init__(
        self, layers: dict[str, nn.Module], before: dict[str, list[str]], names: dict[str, str],
        ends: tuple[str, str], metadata: dict[str, Any],
    ) -> None:  # fmt: skip
        super().__init__()
        self.layers = nn.ModuleList(layers.values())
        self.order, self.before, self.names, self.ends = list(layers), before, names, ends
        self.metadata = metadata

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x)[0]

    def example(self, batch_size: int, density: float = 0.2) -> Tensor:
        """Random spikes [T, B, ...] of the shape that the file's input has."""
        shape = (int(self.metadata["steps"]), batch_size, *self.metadata["input_shape"])
        return (torch.rand(shape, generator=torch.Generator().manual_seed(0)) < density).float()

    def run(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The output as its readout has it, and the spikes of every population by layer path."""
        y, spikes, _ = self.steps(x, {})
        return (y.mean(0) if self.metadata.get("readout") == "mean over time" else y), spikes

    def steps(self, x: Tensor, state: State) -> tuple[Tensor, dict[str, Tensor], State]:
        """Some time steps: (outputs [T, B, ...], spikes, state for the steps that follow). No state: from the start."""
        values, spikes, after = {self.ends[0]: x}, {}, {}
        for name, layer in zip(self.order, self.layers, strict=True):
            given = self._sum(values, name)
            if isinstance(layer, _Neurons):
                path = self.names[name]
                values[name], after[path] = layer(given, state.get(path))
                spikes[path] = values[name]
            else:
                values[name] = layer(given.flatten(0, 1)).unflatten(0, x.shape[:2])
        return self._sum(values, self.ends[1]), spikes, after

    def _sum(self, values: dict[str, Tensor], name: str) -> Tensor:
        first, *others = (values[source] for source in self.before[name])
        for other in others:
            first = first + other
        return first


class NirRunner:
    """A file as `roundtrip` runs it."""

    def __init__(self, path: Path) -> None:
        self.network = read_nir(path).eval()

    def __call__(self, batch: tuple[Tensor, ...]) -> Run:
        with torch.no_grad():
            y, spikes = self.network.run(*batch)
        return Run((y,), spikes)


class _Neurons(nn.Module):
    def __init__(self, p: LIFParameters, gain: float) -> None:
        super().__init__()
        self.lif, self.gain = LIF(p), gain

    def forward(self, x: Tensor, state: LIFState | None) -> tuple[Tensor, LIFState]:
        spikes, after = self.lif(x if self.gain == 1 else self.gain * x, state)
        return spikes, after


class _Apply(nn.Module):
    """A function of [N, ...] with constants; its weight and bias can be trained."""

    def __init__(self, function: Any, **constants: Any) -> None:
        super().__init__()
        self.function = function
        trained = {k: nn.Parameter(v) for k, v in constants.items() if k in ("weight", "bias") and v is not None}
        self.trained = nn.ParameterDict(trained)
        self.constants = {k: v for k, v in constants.items() if k not in trained}

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.function(x, **dict(self.trained.items()), **self.constants)
        return y


def _module(nir: Any, node: Any, where: str, defaults: Defaults) -> nn.Module:
    """The layer of a node; what its numbers cannot be is named with the node."""
    try:
        return _layer(nir, node, where, defaults)
    except NirError:
        raise
    except (ValueError, TypeError, KeyError, RuntimeError, OverflowError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise NirError(f"{where} ({type(node).__name__}): {reason}; {REMEDY}") from error


def _layer(nir: Any, node: Any, where: str, defaults: Defaults) -> nn.Module:
    pair = lambda v: v if isinstance(v, str) else tuple(int(i) for i in np.atleast_1d(v))  # noqa: E731
    tensor = lambda a: torch.from_numpy(np.array(a, dtype=np.float32))  # noqa: E731
    if isinstance(node, nir.IF | nir.LIF):
        return _neurons(nir, node, where, defaults)
    if isinstance(node, nir.Linear | nir.Affine):
        bias = tensor(node.bias) if hasattr(node, "bias") else None
        return _Apply(F.linear, weight=tensor(node.weight), bias=bias)
    if isinstance(node, nir.Conv1d | nir.Conv2d):
        options = {"stride": pair(node.stride), "padding": pair(_plain(node.padding)), "dilation": pair(node.dilation)}
        function = F.conv2d if isinstance(node, nir.Conv2d) else F.conv1d
        return _Apply(
            function, weight=tensor(node.weight), bias=tensor(node.bias), groups=int(node.groups), **options
        )  # fmt: skip
    if isinstance(node, nir.AvgPool2d | nir.SumPool2d):
        sizes = {"kernel_size": pair(node.kernel_size), "stride": pair(node.stride), "padding": pair(node.padding)}
        return _Apply(F.avg_pool2d, divisor_override=1 if isinstance(node, nir.SumPool2d) else None, **sizes)
    if isinstance(node, nir.Scale):
        return _Apply(torch.mul, other=tensor(node.scale))
    if isinstance(node, nir.Flatten):
        start, end = int(node.start_dim), int(node.end_dim)
        return _Apply(torch.flatten, start_dim=start + 1 if start >= 0 else start, end_dim=end + 1 if end >= 0 else end)
    raise NirError(f"{where}: {type(node).__name__} has no neuron or layer here; {REMEDY}")


def _neurons(nir: Any, node: Any, where: str, defaults: Defaults) -> nn.Module:
    said = {**defaults.metadata(), **{k: _plain(v) for k, v in node.metadata.items()}}
    if defaults.dt_s is not None:
        rests = getattr(node, "v_reset", None)
        said.setdefault("v_start", 0.0 if rests is None else float(np.asarray(rests).flat[0]))
    missing = [name for name in NEEDED if name not in said]
    if missing:
        raise NirError(
            f"{where} leaves open {', '.join(missing)}; give dt_s= (and time_steps=, surrogate=), or {REMEDY}"
        )

    def one(name: str) -> float:
        given = getattr(node, name, None)
        values = np.unique(np.asarray(0.0 if given is None and name == "v_reset" else given))
        if len(values) != 1:
            raise NirError(f"{where}: {name} has {len(values)} values; a population here has one: split it")
        return float(values[0])

    rest, dt = one("v_reset"), float(said["dt"])
    if said["reset"] != "hard" or float(said["v_start"]) != rest:
        raise NirError(f"{where}: reset {said['reset']!r} from v_start {said['v_start']}; read is hard from v_reset")
    kinds = {kind.__name__: kind for kind in SURROGATES}
    if said["surrogate"] not in kinds:
        raise NirError(f"{where}: surrogate {said['surrogate']!r} is unknown; use one of {', '.join(kinds)}")
    if isinstance(node, nir.IF):
        tau, decay, gain = float("inf"), False, one("r") * dt
        gain = 1.0 if np.isclose(gain, 1.0, rtol=1e-12) else gain
    else:
        tau, r = _in_steps(one("tau"), dt), one("r")
        if one("v_leak") != rest:
            raise NirError(f"{where}: v_leak {one('v_leak')} is not v_reset {rest}; neurons here rest where they reset")
        decay = r != tau
        gain = r if decay else 1.0
    threshold = float(np.nextafter(np.float32(one("v_threshold")), np.float32(np.inf)))  # v > it is v >= the next one
    surrogate = kinds[said["surrogate"]](float(said["surrogate_parameter"]))  # type: ignore[call-arg]
    p = LIFParameters(
        tau=tau, decay_input=decay, threshold=threshold, v_reset=rest, surrogate=surrogate,
        detach_reset=bool(said["detach_reset"]),
    )  # fmt: skip
    return _Neurons(p, gain)


def _in_steps(tau: float, dt: float) -> float:
    """tau / dt, where possible the number whose product with dt gives exactly `tau`."""
    steps = tau / dt
    for candidate in (float(f"{steps:.7g}"), float(np.float32(steps)), float(f"{steps:.12g}")):
        if candidate * dt == tau:
            return candidate
    return steps


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic | np.ndarray) and np.ndim(value) == 0 else value
    return value.decode() if isinstance(value, bytes) else value
