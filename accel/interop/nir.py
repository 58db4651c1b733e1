"""NIR, the exchange format of spiking networks: written from an exported program. `nir_network` reads it back.

What maps, by forward Euler in steps of dt (tau in the file is tau in steps times dt, rest = v_reset):

    hard reset, decay_input        LIF   tau dv/dt = (v_leak - v) + r I     v_leak = v_reset, r = 1
    hard reset, no input decay     LIF   the same                           v_leak = v_reset, r = tau in steps
    hard reset, no leak (IF)       IF    dv/dt = r I                        r = 1/dt
    a learned time constant        LIF   the number it has when the file is written
    soft reset                     refused: NIR's neurons reset to a value

NIR fires at v > v_threshold and our neurons at v >= threshold, so the file holds the largest float32 below the
threshold: the same spikes. NIR leaves open how time is stepped; metadata say dt, time_steps, reset, where the membrane
starts and the surrogate. Layers: Linear, Affine, Conv1d, Conv2d, AvgPool2d, SumPool2d, Scale and Flatten; batch norm is
folded into the layer before it, or becomes one of its own; a sum is two edges into one node; a mean over time at the
end is named in the metadata as `readout`. A convolution in groups becomes a dense kernel with zeros: the library's own
reader refuses groups. Refused, all in one error: attention, layer norm, max pools, gates, anything else over time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from spikeloom.accel.common.files import whole
from spikeloom.accel.export.program import layer_path
from spikeloom.accel.export.table import BOOKKEEPING, NEURONS
from spikeloom.accel.interop.roundtrip import as_outputs, neuron_parameters
from spikeloom.accel.spiking.functional import LIFParameters
from spikeloom.accel.trainer.engines.rules import Convolution

INSTALL = "pip install 'spikeloom[nir]'"
LISTED = 6  # faults that an error spells out
SAME = {"contiguous", "detach", "alias", "to", "_to_copy", "type_as", "expand", "expand_as", "clone", "dropout",
        "feature_dropout", "lift_fresh"}  # fmt: skip
RESHAPES = {"view", "view_as", "reshape", "reshape_as", "flatten", "unflatten", "squeeze", "unsqueeze"}
MOVES = "it moves axes, and NIR has no axis of time or order of axes; keep [T, B, features], without attention"


class NirError(ValueError):
    """A program that NIR cannot express, or an unreadable file; names the layer, what is missing, the remedy."""


def library() -> Any:
    """The package `nir`. Raises ImportError with the remedy."""
    try:
        import nir
    except ImportError as error:
        raise ImportError(f"the NIR exit needs its library ({error}); {INSTALL}") from error
    return nir


def write_nir(program: torch.export.ExportedProgram, batch: tuple[Tensor, ...], path: Path, *, dt_s: float) -> None:
    """Write an exported program as NIR. `batch`, [T, B, ...], tells the sizes; `dt_s` seconds are one time step.

    Raises:
        NirError: with every operation at which the program leaves what NIR can express.
        ImportError: when the library `nir` is not installed.
    """
    nir = library()
    if not (np.isfinite(dt_s) and dt_s > 0):
        raise NirError(f"nir_dt_s={dt_s} is no length of a time step; use seconds, for example 0.001")
    if len(batch) != 1 or batch[0].dim() < 3:
        raise NirError(f"the program takes {[list(x.shape) for x in batch]}; NIR takes one input [T, B, features]")
    writer = _Writer(nir, program, batch[0], dt_s)
    with torch.no_grad():
        writer.run(*batch)
    if writer.faults:
        told = "; ".join(writer.faults[:LISTED])
        more = f"; and {len(writer.faults) - LISTED} more" if len(writer.faults) > LISTED else ""
        raise NirError(f"NIR cannot express this program: {told}{more}. onnx=true writes the whole program")
    try:
        graph = nir.NIRGraph(nodes=writer.nodes, edges=writer.edges, metadata=writer.metadata)
    except ValueError as error:
        raise NirError(f"NIR's own check of types refuses the network ({error}); use onnx=true") from error
    with whole(path) as partial:
        nir.write(str(partial), graph)


@dataclass(frozen=True, kw_only=True)
class _Signal:
    """A value on its way: the sum of what `sources` (nodes of NIR) give.

    `leading` axes stand in front of its features: 2 of [T, B, ...], 1 of [T*B, ...] or, of a mean over time, [B, ...].
    """

    sources: tuple[str, ...]
    leading: int
    mean: bool = False


class _Fault(Exception):
    """Why an operation has no form in NIR, with the remedy."""


class _Writer(fx.Interpreter):
    """Runs the program on a batch and notes for every value which nodes of NIR make it."""

    def __init__(self, nir: Any, program: torch.export.ExportedProgram, x: Tensor, dt_s: float) -> None:
        module: Any = program.module()
        super().__init__(module)
        self.nir, self.dt_s = nir, dt_s
        self.steps, self.batch = x.shape[:2]
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []
        self.metadata: dict[str, Any] = {"dt": dt_s, "time_steps": self.steps, "readout": "none"}
        self.faults: list[str] = []
        self.paths: list[str] = []  # of populations, as `roundtrip` names them
        self.signals: dict[fx.Node, _Signal | None] = {}  # None: behind a fault
        self.made: dict[fx.Node, str] = {}  # node of the program -> the layer of NIR that it became
        self.aside: set[fx.Node] = set()  # sizes and first membranes: nothing that goes on to the output
        for n in reversed(list(module.graph.nodes)):
            known = n.target in BOOKKEEPING and getattr(n.target, "__name__", "") != "getitem"
            if n.op == "call_function" and (known or self.aside.issuperset(n.users)):
                self.aside.add(n)

    def run_node(self, n: fx.Node) -> Any:
        args, _ = self.fetch_args_kwargs_from_env(n)
        result = super().run_node(n)
        if n.op == "placeholder":
            self.nodes["input"] = self.nir.Input(input_type={"input": np.array(result.shape[2:])})
            self.signals[n] = _Signal(sources=("input",), leading=2)
        elif n.op == "output":
            self._finish(n, result)
        elif n.op == "call_function" and n not in self.aside:
            before = [self.signals[i] for i in n.all_input_nodes if i in self.signals]
            if before:
                self.signals[n] = None if None in before else self._tried(n, args, result)
        return result

    def _tried(self, n: fx.Node, args: Sequence[Any], result: Any) -> _Signal | None:
        try:
            return self._signal(n, args, result)
        except (_Fault, ValueError) as fault:
            self.faults.append(f"{layer_path(n, ())}: {fault}")
            return None

    def _signal(self, n: fx.Node, args: Sequence[Any], result: Any) -> _Signal:
        name = getattr(getattr(n.target, "overloadpacket", n.target), "__name__", str(n.target)).rstrip("_")
        if n.target in NEURONS:
            return self._neuron(n, args)
        if name in ("add", "sub", "mul", "div", "neg"):
            return self._arithmetic(n, name, args, result)
        x, s = args[0], self.signals.get(n.args[0])  # type: ignore[arg-type]
        if s is None:
            raise _Fault(f"NIR has no form of {n.target} with a constant in front; put the constant into a layer")
        if name == "getitem":
            if args[1] != 0:
                raise _Fault("its membranes are used, and NIR gives spikes only; use the spikes")
            return s
        if isinstance(result, Tensor) and result.dtype != torch.float32:
            raise _Fault(f"it turns into {result.dtype}, and NIR holds float32; leave x.to() away")
        if name in SAME and result.shape == x.shape:
            return s
        if name in RESHAPES:
            return self._reshaped(n, s, x, result)
        if name in ("permute", "transpose", "mT", "t", "movedim", "swapaxes"):
            raise _Fault(MOVES)
        if name == "linear":
            return self._linear(n, s, *(*args[:3], None)[:3])
        if name in ("conv1d", "conv2d"):
            return self._convolution(n, s, args)
        if name == "batch_norm":
            return self._batch_norm(n, s, args)
        if name in ("avg_pool2d", "adaptive_avg_pool2d", "mean", "sum"):
            return self._pool(n, s, name, args, result)
        raise _Fault(f"NIR has no node for {n.target}; replace it by layers that it has")

    def _emit(self, n: fx.Node, node: Any, s: _Signal, leading: int | None = None, suffix: str = "") -> _Signal:
        """Add a node of NIR behind `s`."""
        path = (layer_path(n, ()) + suffix).replace(".", "_")
        name = path if path not in self.nodes else f"{path}_{len(self.nodes)}"
        self.nodes[name] = node
        self.edges += [(source, name) for source in s.sources]
        self.made[n] = name
        return replace(s, sources=(name,), leading=leading or s.leading)

    def _reshaped(self, n: fx.Node, s: _Signal, x: Tensor, result: Tensor) -> _Signal:
        before = list(x.shape[s.leading :])
        for leading in (2, 1):
            first = ([self.steps, self.batch], [self.batch if s.mean else self.steps * self.batch])[2 - leading]
            if list(result.shape[:leading]) != first or (s.mean and leading == 2):
                continue
            after = list(result.shape[leading:])
            if after == before:
                return replace(s, leading=leading)
            for start in range(len(before)):
                for end in range(start + 1, len(before)):
                    if [*before[:start], int(np.prod(before[start : end + 1])), *before[end + 1 :]] == after:
                        kind = {"input": np.array(before)}
                        flat = self.nir.Flatten(input_type=kind, start_dim=start, end_dim=end)
                        return self._emit(n, flat, s, leading)
        raise _Fault(f"it turns features {before} into {list(result.shape)}; NIR can only flatten features")

    def _linear(self, n: fx.Node, s: _Signal, x: Tensor, weight: Tensor, bias: Tensor | None) -> _Signal:
        if x.dim() - s.leading != 1:
            features = list(x.shape[s.leading :])
            raise _Fault(f"a linear layer along the last of {features}; NIR's takes one axis: flatten first")
        if bias is None:
            return self._emit(n, self.nir.Linear(weight=_array(weight)), s)
        return self._emit(n, self.nir.Affine(weight=_array(weight), bias=_array(bias)), s)

    def _convolution(self, n: fx.Node, s: _Signal, args: Sequence[Any]) -> _Signal:
        x, weight = args[:2]
        bias = args[2] if len(args) > 2 and args[2] is not None else weight.new_zeros(len(weight))
        if s.leading != 1 or x.dim() != weight.dim():
            raise _Fault("a convolution over time or over the batch; NIR convolves features: flatten(0, 1) first")
        if len(set(weight.shape[2:])) > 1:
            raise _Fault(f"a kernel of {list(weight.shape[2:])}; NIR's own types take square ones: pad it with zeros")
        c = Convolution.of(weight, args[3:])
        dense = weight.new_zeros(len(weight), x.shape[1], *weight.shape[2:])
        out, into = len(weight) // c.groups, weight.shape[1]
        for g in range(c.groups):
            dense[g * out : (g + 1) * out, g * into : (g + 1) * into] = weight[g * out : (g + 1) * out]
        two = weight.dim() == 4
        make, size = (self.nir.Conv2d, tuple(x.shape[2:])) if two else (self.nir.Conv1d, x.shape[2])
        stride, padding, dilation = (v if two else v[0] for v in (c.stride, c.padding, c.dilation))
        node = make(size, _array(dense), stride, padding, dilation, 1, _array(bias))
        return self._emit(n, node, s)

    def _batch_norm(self, n: fx.Node, s: _Signal, args: Sequence[Any]) -> _Signal:
        x, gamma, beta, mean, var, training, _, eps = args[:8]
        if training or mean is None or s.leading != 1:
            raise _Fault("a batch norm with statistics of the batch; export in evaluation mode with running ones")
        scale = 1 / (var.double() + eps).sqrt() * (1 if gamma is None else gamma.double())
        shift = (0 if beta is None else beta.double()) - mean.double() * scale
        name = self._layer_before(n)
        if name is not None:
            node = self.nodes[name]
            weight, axes = torch.from_numpy(node.weight).double(), node.weight.ndim - 1
            bias = torch.from_numpy(node.bias).double() if hasattr(node, "bias") else 0
            weight, bias = weight * scale.reshape(-1, *[1] * axes), bias * scale + shift
            if isinstance(node, self.nir.Linear):
                self.nodes[name] = self.nir.Affine(weight=_array(weight), bias=_array(bias))
            else:
                node.weight, node.bias = _array(weight), _array(bias)
            return s
        weight = torch.diag(scale).reshape(*[len(scale)] * 2, *[1] * (x.dim() - 2))
        if x.dim() == 2:
            return self._emit(n, self.nir.Affine(weight=_array(weight), bias=_array(shift)), s)
        make, size = (self.nir.Conv2d, tuple(x.shape[2:])) if x.dim() == 4 else (self.nir.Conv1d, x.shape[2])
        return self._emit(n, make(size, _array(weight), 1, 0, 1, 1, _array(shift)), s)

    def _layer_before(self, n: fx.Node) -> str | None:
        """The layer whose output goes to the batch norm `n` alone, so that the norm can be folded into it."""
        i = n.args[0]
        while isinstance(i, fx.Node) and sum(user not in self.aside for user in i.users) == 1:
            if i in self.made:
                name = self.made[i]
                kinds = (self.nir.Linear, self.nir.Affine, self.nir.Conv1d, self.nir.Conv2d)
                return name if isinstance(self.nodes[name], kinds) else None
            i = i.args[0] if i.args else None
        return None

    def _pool(self, n: fx.Node, s: _Signal, name: str, args: Sequence[Any], result: Tensor) -> _Signal:
        x = args[0]
        features = tuple(x.shape[s.leading :])
        axes = sorted(a % x.dim() for a in (args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else []))
        if name == "mean" and axes == [0] and s.leading == 2 and len(args) < 3:
            self.metadata["readout"] = "mean over time"
            return replace(s, leading=1, mean=True)
        if len(features) != 3:
            raise _Fault(f"{name} over features {list(features)}; NIR pools [C, H, W] over H and W")
        make = self.nir.SumPool2d if name == "sum" else self.nir.AvgPool2d
        if name in ("mean", "sum"):
            if axes != [x.dim() - 2, x.dim() - 1]:
                raise _Fault(f"{name} over axes {axes} of {list(x.shape)}; NIR pools over H and W only")
            kernel, stride, padding = features[1:], features[1:], (0, 0)
        elif name == "adaptive_avg_pool2d":
            kernel = stride = tuple(a // b for a, b in zip(features[1:], result.shape[-2:], strict=True))
            padding = (0, 0)
            if any(a % b for a, b in zip(features[1:], result.shape[-2:], strict=True)):
                raise _Fault(f"{features[1:]} does not divide into {tuple(result.shape[-2:])}; use a fixed kernel")
        else:
            left_out: tuple[Any, ...] = ([], 0, False, True, None)
            kernel, stride, padding, ceil, padded, divisor = (*args[1:], *left_out[len(args) - 2 :])
            pair = lambda v: (v, v) if isinstance(v, int) else tuple(v) * (2 // len(v))  # noqa: E731
            kernel, stride, padding = pair(kernel), pair(stride or kernel), pair(padding)
            if ceil or (any(padding) and not padded) or divisor not in (None, 1):
                raise _Fault("a pool with ceil_mode, its own divisor or padding left out; NIR has the plain one")
            make = self.nir.SumPool2d if divisor == 1 else make
        s = self._emit(n, make(*(np.array(v) for v in (kernel, stride, padding))), s)
        if result.dim() == x.dim():
            return s
        kind = {"input": np.array([features[0], 1, 1])}
        return self._emit(n, self.nir.Flatten(input_type=kind, start_dim=0, end_dim=-1), s, suffix=".flat")

    def _arithmetic(self, n: fx.Node, name: str, args: Sequence[Any], result: Tensor) -> _Signal:
        signals = [self.signals.get(i) if isinstance(i, fx.Node) else None for i in n.args]
        if name == "neg":
            assert signals[0] is not None
            return self._scaled(n, signals[0], torch.tensor(-1.0), result)
        a, b = signals[:2]
        if a is not None and b is not None and name in ("add", "sub") and not n.kwargs:
            b = b if name == "add" else self._scaled(n, b, torch.tensor(-1.0), result)
            same = args[0].shape == args[1].shape and (a.leading, a.mean) == (b.leading, b.mean)
            if not same or set(a.sources) & set(b.sources):
                raise _Fault("a sum of a value with itself or of other shapes; NIR adds what meets in one node")
            return replace(a, sources=(*a.sources, *b.sources))
        if name in ("mul", "div") and (a is None) != (b is None) and not (name == "div" and a is None):
            factor = torch.as_tensor(args[1] if b is None else args[0], dtype=torch.float64)
            signal = a if a is not None else b
            assert signal is not None
            return self._scaled(n, signal, factor if name == "mul" else 1 / factor, result)
        raise _Fault(f"{n.target} of these operands; NIR adds signals and scales them by constants, no more")

    def _scaled(self, n: fx.Node, s: _Signal, factor: Tensor, result: Tensor) -> _Signal:
        features = result.shape[s.leading :]
        if factor.dim() > len(features):
            raise _Fault(f"a factor {list(factor.shape)} that may differ between steps; NIR scales features {features}")
        return self._emit(n, self.nir.Scale(scale=_array(factor.expand(features))), s, suffix=".scale")

    def _neuron(self, n: fx.Node, args: Sequence[Any]) -> _Signal:
        path = layer_path(n, self.paths)
        self.paths.append(path)
        x, v = args[:2]
        s = self.signals.get(n.args[0])  # type: ignore[arg-type]
        if s is None or s.leading != 2:
            raise _Fault("neurons over something other than [T, B, features]; give them time first")
        if n.args[1] in self.signals or n.args[2] in self.signals:
            raise _Fault("its membrane or time constant comes from the network; NIR's are constants")
        p = neuron_parameters(args)
        if p.v_reset is None:
            raise _Fault("a soft reset; NIR's LIF and IF reset to a value: train with a v_reset such as 0.0")
        if x.dtype != torch.float32 or not bool((v == p.rest).all()):
            raise _Fault("currents that are not float32, or a membrane that does not start at v_reset; NIR has neither")
        return self._emit(n, neuron_node(self.nir, p, x.shape[2:], path, self.dt_s, self.steps), s)

    def _finish(self, n: fx.Node, result: Any) -> None:
        outputs = as_outputs(result)
        signal = self.signals.get(n.all_input_nodes[0]) if n.all_input_nodes else None
        if len(outputs) != 1 or (signal is None and not self.faults):
            self.faults.append(f"the program returns {len(outputs)} tensors; NIR gives one that follows from the input")
        elif signal is not None:
            features = np.array(outputs[0].shape[signal.leading :])
            self.nodes["output"] = self.nir.Output(output_type={"output": features})
            self.edges += [(source, "output") for source in signal.sources]


def neuron_node(nir: Any, p: LIFParameters, shape: Sequence[int], path: str, dt_s: float, steps: int) -> Any:
    """The population as NIR has it; see the module for the mapping."""
    said = {
        "path": path, "dt": dt_s, "time_steps": steps, "reset": "hard", "v_start": p.rest,
        "surrogate": type(p.surrogate).__name__, "surrogate_parameter": p.surrogate.parameter,
        "detach_reset": int(p.detach_reset),
    }  # fmt: skip
    full = lambda value: np.full(tuple(shape), value, dtype=np.float64)  # noqa: E731
    below = np.nextafter(np.float32(p.threshold), np.float32(-np.inf))
    levels = {"v_threshold": full(below), "v_reset": full(p.rest), "metadata": said}
    if np.isinf(p.tau):
        return nir.IF(r=full(1 / dt_s), **levels)
    gain = 1.0 if p.decay_input else p.tau
    return nir.LIF(tau=full(p.tau * dt_s), r=full(gain), v_leak=full(p.rest), **levels)


def _array(t: Tensor) -> np.ndarray:
    return t.detach().float().numpy().copy()
