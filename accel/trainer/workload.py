"""The workload: what one training iteration of a network computes, as plain numbers and without torch.

A `Workload` is an ordered list of `Layer`s with shapes, MAC counts and measured densities. It is what the exporter
writes and all that the simulator reads. This module checks and stores; it neither traces models nor prices them.

Counting rules, used by every reader of this file:

- `positions` of a layer = out_height * out_width * tokens: how often its kernel is applied for one image and time step.
- `elements` = out_channels * positions * time_steps * batch_size: outputs of the whole iteration.
- `macs_*` are true counts (no zeros inserted for strides) of the WHOLE batch and all time steps. For `gemm_weight`

      macs_forward = positions * in_channels / groups * out_channels * kernel[0] * kernel[1] * time_steps * batch_size

  and the two backward counts are the same number, or 0 where the phase does not exist (an input that needs no
  gradient, frozen weights).
- A convolution over the TIME axis has kernel (1, k), in/out height and width 1, tokens 1 and time_steps T: each time
  step is one output position that reads k input steps.
- An `input_kind` of integer means whole numbers 0, 1, 2, ... (a residual stream that adds spikes): `input_bits` bit
  planes of spikes. Its density is the fraction of non-zero numbers, as everywhere.
- `density_du` is the density of the gradient that arrives at this layer's output: dL/dx for a product, dL/ds for a
  neuron. It takes a backward pass on real tensors; None (not measured) is treated as 1.
- `gemm_activation` multiplies two activations, one matrix per group (head): its loop nest is read as `tokens` rows
  times an (in_channels / groups) x (out_channels / groups) matrix in each group, and `macs_forward` says how many such
  products there are, so a fused attention of two products is one layer with twice the MACs.
"""

from __future__ import annotations

import dataclasses
import json
import math
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from spikeloom.accel.common.files import write_json

SCHEMA = "spikeloom.workload/1"
REMEDY = "re-export with `spikeloom export run=DIR`"

LayerKind = Literal["gemm_weight", "gemm_activation", "neuron", "norm", "elementwise", "gather", "view"]
InputKind = Literal["binary", "ternary", "integer", "real"]

LARGEST = 2**62  # of any count
LARGEST_SIZE = 2**31  # of an axis, a batch or a number of steps
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 80
_REPR.maxlevel = 2

_SIZES = (
    "in_channels", "out_channels", "groups", "in_height", "in_width", "out_height", "out_width",
    "time_steps", "batch_size", "tokens", "input_bits", "weight_bits",
)  # fmt: skip
_COUNTS = ("macs_forward", "macs_backward", "macs_weight_gradient", "parameters")
_PAIRS = {"kernel": 1, "stride": 1, "padding": 0, "dilation": 1}  # field -> smallest permitted entry
_DENSITIES = ("density_input", "density_spike", "density_mask", "density_du", "density_weight")


class WorkloadError(ValueError):
    """A workload that cannot be costed: names the file, the layer, the field and its value, and what to do."""


@dataclass(frozen=True, kw_only=True)
class Density:
    """Fraction of non-zero entries of a tensor, in [0, 1], over the measured batches; `per_step` has one mean per
    time step (empty when it was not resolved in time).

    `busiest` is the mean, over tiles of 16 lanes (channels), of the density of the fullest lane: what an array that
    skips zeros waits for. None says that it was not measured; a reader then draws masks of the density `mean`.
    """

    mean: float
    min: float
    max: float
    per_step: tuple[float, ...] = ()
    busiest: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("mean", self.mean), ("min", self.min), ("max", self.max), *_numbered(self.per_step)):
            if not _is_number(value) or not 0 <= value <= 1:
                raise WorkloadError(f"{name} is {_short(value)}; a density is a number in [0, 1]")
        if self.busiest is not None and not (_is_number(self.busiest) and 0 <= self.busiest <= 1):
            raise WorkloadError(f"busiest is {_short(self.busiest)}; a density is a number in [0, 1], or null")


@dataclass(frozen=True, kw_only=True)
class Neuron:
    """Constants of a spiking neuron: u[t] = decay * v[t-1] + input_gain * x[t], a spike where u >= threshold.

    `reset` is "hard" (to v_reset) or "soft" (subtract the threshold). `half_width` is that of a window surrogate,
    which costs one bit to remember; None says that the surrogate is not a window and needs its real-valued derivative.
    """

    decay: float
    input_gain: float
    threshold: float
    v_reset: float
    reset: Literal["hard", "soft"]
    detach_reset: bool
    surrogate: str
    half_width: float | None

    def __post_init__(self) -> None:
        for name in ("decay", "input_gain", "threshold", "v_reset"):
            if not _is_number(getattr(self, name)):
                raise WorkloadError(f"{name} is {_short(getattr(self, name))}; a finite number is needed")
        if self.reset not in ("hard", "soft"):
            raise WorkloadError(f"reset is {self.reset!r}; use 'hard' or 'soft'")
        if not isinstance(self.detach_reset, bool):
            raise WorkloadError(f"detach_reset is {self.detach_reset!r}; use true or false")
        if self.half_width is not None and not (_is_number(self.half_width) and self.half_width > 0):
            raise WorkloadError(f"half_width is {self.half_width!r}; use a number > 0, or null without a window")


@dataclass(frozen=True, kw_only=True)
class Unsupported:
    """An operation that the exporter met and cannot cost: `elements` is how many outputs it touches per iteration."""

    path: str
    op: str
    elements: int


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One operation of the network; the module docstring gives the counting rules. Densities are None where they were
    not measured. `inputs` and `outputs` are the paths of the producing and consuming layers."""

    path: str
    op: str
    kind: LayerKind
    in_channels: int
    out_channels: int
    groups: int = 1
    in_height: int = 1
    in_width: int = 1
    out_height: int = 1
    out_width: int = 1
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    time_steps: int
    batch_size: int
    tokens: int = 1
    macs_forward: int = 0
    macs_backward: int = 0
    macs_weight_gradient: int = 0
    input_kind: InputKind = "real"
    input_bits: int = 16
    weight_bits: int = 16
    density_input: Density | None = None
    density_spike: Density | None = None
    density_mask: Density | None = None
    density_du: Density | None = None
    density_weight: Density | None = None
    neuron: Neuron | None = None
    parameters: int = 0
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()

    @property
    def image_steps(self) -> int:
        """Images times time steps that this layer sees in one iteration."""
        return self.time_steps * self.batch_size

    @property
    def positions(self) -> int:
        """Output positions of one image and time step."""
        return self.out_height * self.out_width * self.tokens

    @property
    def taps(self) -> int:
        """Kernel positions, FY * FX."""
        return self.kernel[0] * self.kernel[1]

    @property
    def elements(self) -> int:
        """Output elements of one iteration."""
        return self.out_channels * self.positions * self.image_steps

    def __post_init__(self) -> None:
        for name, value in _layer_faults(self):
            raise WorkloadError(f"layer {self.path!r}: field {name} is {value}")


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A network's training iteration: `layers` in program order, `time_steps` and `batch_size` of the model's input.

    `source` holds free text about the origin (torch version, hash of the program, the data of the densities).
    """

    model_name: str
    time_steps: int
    batch_size: int
    dtype: str
    layers: tuple[Layer, ...]
    unsupported: tuple[Unsupported, ...] = ()
    source: Mapping[str, str] = field(default_factory=dict)
    schema: str = SCHEMA

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise WorkloadError(f"field schema is {self.schema!r}; this version reads {SCHEMA!r}")
        for name in ("time_steps", "batch_size"):
            if not _is_count(getattr(self, name), smallest=1) or getattr(self, name) > LARGEST_SIZE:
                raise WorkloadError(
                    f"field {name} is {_short(getattr(self, name))}; a whole number >= 1, at most {LARGEST_SIZE}, "
                    "is needed"
                )
        for name in ("model_name", "dtype"):
            if not isinstance(getattr(self, name), str):
                raise WorkloadError(f"field {name} is {_short(getattr(self, name))}; a text is needed")
        if not isinstance(self.source, Mapping) or not all(isinstance(text, str) for text in self.source.values()):
            raise WorkloadError(f"field source is {_short(self.source)}; an object of texts is needed")
        seen: set[str] = set()
        paths = {layer.path for layer in self.layers}
        for layer in self.layers:
            if layer.path in seen:
                raise WorkloadError(f"layer {layer.path!r}: field path is used twice; layer paths are unique")
            for producer in layer.inputs:
                if producer in paths and producer not in seen:
                    raise WorkloadError(
                        f"layer {layer.path!r}: field inputs is {layer.inputs!r}; {producer!r} does not come before "
                        "it, so the links run in a cycle; list layers in program order, without loops"
                    )
            seen.add(layer.path)

    def to_json(self, path: str | Path) -> None:
        """Write to `path`; equal workloads give equal bytes, and a crash never leaves half a file."""
        write_json(Path(path), dataclasses.asdict(self))

    @classmethod
    def from_json(cls, path: str | Path) -> Workload:
        """Read and check a file written by `to_json`.

        Raises:
            WorkloadError: for a file that is missing, truncated, of another schema, or that holds a bad field.
        """
        try:
            if not Path(path).is_file() and Path(path).exists():
                raise WorkloadError("no regular file")
            document = json.loads(Path(path).read_text(encoding="utf-8"))
            if isinstance(document, dict) and document.get("schema") != SCHEMA:
                raise WorkloadError(f"field schema is {document.get('schema')!r}; this version reads {SCHEMA!r}")
            values = _fields(cls, document, "the workload")
            layers = tuple(_layer(entry, index) for index, entry in enumerate(_list(values["layers"], "layers")))
            unsupported = tuple(
                Unsupported(**_fields(Unsupported, entry, f"unsupported[{index}]"))
                for index, entry in enumerate(_list(values["unsupported"], "unsupported"))
            )
            return cls(**{**values, "layers": layers, "unsupported": unsupported})
        except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise WorkloadError(f"{path}: not a readable workload file ({error}); {REMEDY}") from error
        except WorkloadError as error:
            raise WorkloadError(f"{path}: {error}; {REMEDY}") from error


def _layer_faults(layer: Layer) -> Iterator[tuple[str, str]]:
    """Yield (field name, "value; what is permitted") of everything wrong with a layer, the most basic first."""
    for name in ("path", "op"):
        if not isinstance(getattr(layer, name), str):
            yield name, f"{_short(getattr(layer, name))}; a text is needed"
    if layer.kind not in get_args(LayerKind):
        yield "kind", f"{_short(layer.kind)}; use one of {', '.join(get_args(LayerKind))}"
    if layer.input_kind not in get_args(InputKind):
        yield "input_kind", f"{_short(layer.input_kind)}; use one of {', '.join(get_args(InputKind))}"
    for name in _SIZES:
        if not _is_count(getattr(layer, name), smallest=1) or getattr(layer, name) > LARGEST_SIZE:
            yield name, f"{_short(getattr(layer, name))}; a whole number >= 1, at most {LARGEST_SIZE}, is needed"
    for name in _COUNTS:
        if not _is_count(getattr(layer, name), smallest=0):
            yield name, f"{_short(getattr(layer, name))}; a whole number >= 0 is needed"
    for name, smallest in _PAIRS.items():
        pair = getattr(layer, name)
        if not isinstance(pair, tuple) or len(pair) != 2 or not all(_is_count(x, smallest=smallest) for x in pair):
            yield name, f"{_short(pair)}; two whole numbers >= {smallest} are needed"
    for name in ("inputs", "outputs"):
        paths = getattr(layer, name)
        if not isinstance(paths, tuple) or not all(isinstance(path, str) for path in paths):
            yield name, f"{_short(paths)}; a list of layer paths is needed"
    if layer.in_channels % layer.groups or layer.out_channels % layer.groups:
        yield "groups", f"{layer.groups}; it must divide {layer.in_channels} inputs and {layer.out_channels} outputs"
    if (layer.kind == "neuron") != (layer.neuron is not None):
        yield (
            "neuron",
            f"{_short(layer.neuron)}; layers of kind neuron have one and others have null, kind is {layer.kind!r}",
        )
    if layer.kind == "gemm_weight":
        macs = layer.in_channels // layer.groups * layer.out_channels * layer.positions * layer.taps * layer.image_steps
        if layer.macs_forward != macs:
            yield "macs_forward", f"{layer.macs_forward}; the shapes of this layer give {macs}"
        for name in ("macs_backward", "macs_weight_gradient"):
            if getattr(layer, name) not in (0, macs):
                yield name, f"{getattr(layer, name)}; the shapes of this layer give {macs} (or 0 without this phase)"
    if layer.kind == "gemm_activation":
        if layer.macs_forward == 0:
            yield "macs_forward", "0; a product of activations has MACs"
        if layer.macs_weight_gradient:
            yield "macs_weight_gradient", f"{layer.macs_weight_gradient}; a product of activations has no weights"
    if not layer.kind.startswith("gemm"):
        for name in ("macs_forward", "macs_backward", "macs_weight_gradient"):
            if getattr(layer, name):
                yield name, f"{_short(getattr(layer, name))}; a layer of kind {layer.kind} has no MACs"


def _layer(entry: Any, index: int) -> Layer:
    where = f"layer {entry['path']!r}" if isinstance(entry, dict) and "path" in entry else f"layers[{index}]"
    values = _fields(Layer, entry, where)
    for name in (*_PAIRS, "inputs", "outputs"):
        values[name] = tuple(_list(values[name], f"{where}: field {name}"))
    for name in _DENSITIES:
        if values[name] is not None:
            density = _fields(Density, values[name], f"{where}: field {name}", optional=("busiest",))
            density["per_step"] = tuple(_list(density["per_step"], f"{where}: field {name}.per_step"))
            values[name] = _nested(Density, density, f"{where}: field {name}")
    if values["neuron"] is not None:
        neuron = _fields(Neuron, values["neuron"], f"{where}: field neuron")
        values["neuron"] = _nested(Neuron, neuron, f"{where}: field neuron")
    return Layer(**values)


def _nested(kind: type, values: dict[str, Any], where: str) -> Any:
    try:
        return kind(**values)
    except WorkloadError as error:
        raise WorkloadError(f"{where}.{error}") from error


def _fields(kind: type, document: Any, where: str, optional: Sequence[str] = ()) -> dict[str, Any]:
    """Return a copy of a JSON object after checking that it has exactly the fields of the dataclass `kind`; the
    `optional` ones may be missing."""
    if not isinstance(document, dict):
        raise WorkloadError(f"{where} is {_short(document)}; a JSON object is needed")
    names = [entry.name for entry in dataclasses.fields(kind)]
    for name in names:
        if name not in document and name not in optional:
            raise WorkloadError(f"{where}: field {name} is missing")
    for name, value in document.items():
        if name not in names:
            raise WorkloadError(f"{where}: field {name} is unknown (value {_short(value)})")
    return dict(document)


def _short(value: object) -> str:
    """A value for a message: at most a line of it."""
    return _REPR.repr(value)


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise WorkloadError(f"{where} is {_short(value)}; a list is needed")
    return value


def _numbered(values: tuple[float, ...]) -> Iterator[tuple[str, float]]:
    return ((f"per_step[{index}]", value) for index, value in enumerate(values))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: object, *, smallest: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and smallest <= value <= LARGEST
