"""The same training iteration on a graphics processor: DRAM bytes, time and energy by kernel, from shapes alone.

Precision: in `fp32` every tensor has 4 bytes an element (TF32 moves the same bytes). In `amp_fp16` activations, spikes,
membranes, gradients and the copies of the weights that kernels read have 2, master weights and Adam's moments 4. Spikes
and masks are full numbers on a GPU.

Kernels, each fused over time, reads -> writes:

    product forward      input, W -> output            product dgrad   output gradient, W -> input gradient
    norm statistics      x -> nothing                  product wgrad   output gradient, input -> dW
    norm forward         x -> z                        norm reduction  x, gradient -> nothing
    neuron forward       x -> spikes, u                norm backward   x, gradient -> gradient
    neuron backward      gradient, u -> gradient       Adam            W, dW, m, v -> W, m, v (and the 2-byte copy)

Residency: a read is free when the kernel before touched the tensor and all operands of the reading kernel fit in the L2
cache together; a write is free when nothing but the next kernel reads the tensor, and that read is free. What is saved
for the backward pass is therefore written and read. No im2col. wgrad runs before dgrad, so that a gradient can stay in
the cache for the layer in front. Where these rules leave a choice, it is the GPU that gains: elementwise operations are
taken to be fused with their neighbours and to cost nothing (`fuse_elementwise=False` makes them kernels).

Not in this model: launch times, workspaces, allocator, host transfers, and the loss, which touches logits only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from spikeloom.accel.trainer.baseline.gpu import PRECISIONS, Gpu, Precision
from spikeloom.accel.trainer.workload import Layer, Workload

PHASES = ("forward", "backward", "weight gradient", "optimizer")
MASTER_BYTES = 4  # master weights and Adam's moments, in both precisions


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A tensor that a kernel touches: its name in the iteration, its class (as in `PhaseCost`) and its size."""

    name: str
    kind: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One kernel: what it reads and writes before any cache, and its arithmetic."""

    name: str
    layer: str
    phase: str
    reads: tuple[Tensor, ...]
    writes: tuple[Tensor, ...]
    flops: int = 0

    @property
    def operand_bytes(self) -> int:
        return sum({t.name: t.bytes for t in (*self.reads, *self.writes)}.values())


@dataclass(frozen=True, kw_only=True)
class KernelTraffic:
    """What of a kernel's operands went to DRAM, by tensor class, and its time on the roofline."""

    name: str
    layer: str
    phase: str
    flops: int
    read_bytes: Mapping[str, int]
    written_bytes: Mapping[str, int]
    time_ms: float

    @property
    def dram_bytes(self) -> int:
        return sum(self.read_bytes.values()) + sum(self.written_bytes.values())


@dataclass(frozen=True, kw_only=True)
class GpuReport:
    """One training iteration on a GPU. Energies are bounds from a price a bit and from the power limit, no measurement:
    `device` counts the memory chip, `path` the way from there to the cache, `limit` full power over the whole time."""

    model_name: str
    gpu_name: str
    precision: Precision
    l2_bytes: int
    fuse_elementwise: bool
    kernels: tuple[KernelTraffic, ...]
    dram_device_pj_per_bit: float
    dram_path_pj_per_bit: float
    tdp_w: float

    @property
    def dram_bytes(self) -> int:
        return sum(kernel.dram_bytes for kernel in self.kernels)

    @property
    def dram_bytes_without_optimizer(self) -> int:
        return sum(kernel.dram_bytes for kernel in self.kernels if kernel.phase != "optimizer")

    @property
    def time_ms(self) -> float:
        return sum(kernel.time_ms for kernel in self.kernels)

    @property
    def dram_device_pj(self) -> float:
        return 8 * self.dram_bytes * self.dram_device_pj_per_bit

    @property
    def dram_path_pj(self) -> float:
        return 8 * self.dram_bytes * self.dram_path_pj_per_bit

    @property
    def limit_pj(self) -> float:
        return self.tdp_w * self.time_ms * 1e9  # a watt for a millisecond is 1e9 pJ

    def by_phase(self) -> dict[str, int]:
        return {p: sum(k.dram_bytes for k in self.kernels if k.phase == p) for p in PHASES}

    def by_tensor(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for kernel in self.kernels:
            for part in (kernel.read_bytes, kernel.written_bytes):
                for kind, count in part.items():
                    found[kind] = found.get(kind, 0) + count
        return found

    def document(self) -> dict[str, object]:
        """Plain values with units in their names."""
        return {
            "gpu_name": self.gpu_name, "precision": self.precision, "l2_bytes": self.l2_bytes,
            "fuse_elementwise": self.fuse_elementwise, "kernels": len(self.kernels),
            "dram_bytes_per_iteration": self.dram_bytes,
            "dram_bytes_without_optimizer": self.dram_bytes_without_optimizer,
            "dram_bytes_by_phase": self.by_phase(), "dram_bytes_by_tensor": self.by_tensor(),
            "time_per_iteration_ms": self.time_ms, "dram_device_pj": self.dram_device_pj,
            "dram_path_pj": self.dram_path_pj, "limit_pj": self.limit_pj,
        }  # fmt: skip


def gpu_iteration(
    workload: Workload,
    gpu: Gpu,
    *,
    precision: Precision = "amp_fp16",
    l2_bytes: int | None = None,
    fuse_elementwise: bool = True,
    optimizer: bool = True,
) -> GpuReport:
    """One training iteration of `workload` on `gpu`. `l2_bytes` replaces the size of its cache; 0 switches it off.

    Raises:
        ValueError: for an unknown precision or a workload without layers.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision got {precision!r}; use one of {', '.join(PRECISIONS)}")
    if not workload.layers:
        raise ValueError(f"workload {workload.model_name!r} got no layers; use an export with at least one operation")
    cache = gpu.l2_bytes if l2_bytes is None else l2_bytes
    kernels = kernels_of(workload, precision, fuse_elementwise=fuse_elementwise, optimizer=optimizer)
    return GpuReport(
        model_name=workload.model_name, gpu_name=gpu.name, precision=precision, l2_bytes=cache,
        fuse_elementwise=fuse_elementwise, kernels=tuple(_traffic(kernels, gpu, precision, cache)),
        dram_device_pj_per_bit=gpu.dram_device_pj_per_bit, dram_path_pj_per_bit=gpu.dram_path_pj_per_bit,
        tdp_w=gpu.tdp_w,
    )  # fmt: skip


def _traffic(kernels: Sequence[Kernel], gpu: Gpu, precision: Precision, l2_bytes: int) -> list[KernelTraffic]:
    readers: dict[str, list[int]] = {}  # tensor -> kernels that read it
    for index, kernel in enumerate(kernels):
        for tensor in kernel.reads:
            readers.setdefault(tensor.name, []).append(index)
    fits = [kernel.operand_bytes <= l2_bytes for kernel in kernels]
    # The loss stands between the two directions: what is saved by the last layer does not stay in the cache either.
    turned = [i > 0 and k.phase != "forward" and kernels[i - 1].phase == "forward" for i, k in enumerate(kernels)]
    touched: set[str] = set()  # by the kernel before
    traffic = []
    for index, kernel in enumerate(kernels):
        read: dict[str, int] = {}
        written: dict[str, int] = {}
        touched = set() if turned[index] else touched
        for tensor in kernel.reads:
            if not (fits[index] and tensor.name in touched):
                read[tensor.kind] = read.get(tensor.kind, 0) + tensor.bytes
        for tensor in kernel.writes:
            next_only = set(readers.get(tensor.name, ())) == {index + 1}
            passing = next_only and fits[index + 1] and not turned[index + 1]
            if not passing:
                written[tensor.kind] = written.get(tensor.kind, 0) + tensor.bytes
        touched = {t.name for t in (*kernel.reads, *kernel.writes)}
        moved = sum(read.values()) + sum(written.values())
        seconds = max(moved / gpu.dram_bytes_per_s, kernel.flops / gpu.peak_flops(precision))
        cost = KernelTraffic(
            name=kernel.name, layer=kernel.layer, phase=kernel.phase, flops=kernel.flops, read_bytes=read,
            written_bytes=written, time_ms=1e3 * seconds,
        )  # fmt: skip
        traffic.append(cost)
    return traffic


# --- from layers to kernels ---------------------------------------------------------------------------------------


@dataclass
class _Graph:
    """What crosses layers: who needs a gradient, and under which names gradients arrive."""

    layers: Mapping[str, Layer]
    width: int  # bytes of an activation
    fused: bool  # elementwise operations cost nothing
    needs_gradient: set[str] = field(default_factory=set)  # layers whose output needs one
    gradients: dict[str, list[Tensor]] = field(default_factory=dict)  # layer -> parts of the gradient of its output

    def output(self, layer: Layer) -> Tensor:
        kind = "s" if layer.kind == "neuron" else "activation"
        return Tensor(name=f"out {layer.path}", kind=kind, bytes=layer.elements * self.width)

    def input(self, layer: Layer, elements: int) -> Tensor:
        """What a layer reads, in the size it reads it; several producers (behind a view) count as one tensor."""
        kinds = {self.layers[p].kind for p in layer.inputs if p in self.layers}
        kind = "s" if kinds == {"neuron"} or layer.input_kind != "real" else "activation"
        name = f"out {layer.inputs[0]}" if len(layer.inputs) == 1 else f"out {layer.inputs}"
        return Tensor(name=name, kind=kind, bytes=elements * self.width)

    def arriving(self, layer: Layer) -> tuple[Tensor, ...]:
        """The gradient of a layer's output, as the parts that its consumers left."""
        whole = layer.elements * self.width
        parts = self.gradients.get(layer.path)
        if not parts:  # without consumers: the loss leaves one
            return (Tensor(name=f"d {layer.path}", kind="du", bytes=whole),)
        return tuple(replace(part, bytes=min(part.bytes, whole)) for part in parts)

    def leaving(self, layer: Layer, elements: int) -> tuple[Tensor, ...]:
        """The gradient of a layer's input, handed to the producers that need it."""
        producers = [p for p in layer.inputs if p in self.needs_gradient]
        if not producers and layer.inputs:
            return ()
        gradient = Tensor(name=f"d {layer.path} input", kind="du", bytes=elements * self.width)
        for producer in producers:
            self.gradients.setdefault(producer, []).append(gradient)
        return (gradient,)


def kernels_of(
    workload: Workload, precision: Precision, *, fuse_elementwise: bool = True, optimizer: bool = True
) -> list[Kernel]:
    """All kernels of an iteration in the order of execution, before any cache."""
    width = 4 if precision == "fp32" else 2
    graph = _Graph({layer.path: layer for layer in workload.layers}, width, fuse_elementwise)
    for layer in workload.layers:
        if layer.parameters or any(p in graph.needs_gradient for p in layer.inputs):
            graph.needs_gradient.add(layer.path)
    kernels = [kernel for layer in workload.layers for kernel in _forward(layer, graph)]
    kernels += [kernel for layer in reversed(workload.layers) for kernel in _backward(layer, graph)]
    if optimizer:
        kernels += [_adam(layer, precision) for layer in workload.layers if layer.parameters]
    return kernels


def _weights(layer: Layer, width: int) -> Tensor:
    return Tensor(name=f"W {layer.path}", kind="W", bytes=layer.parameters * width)


def _gradient_of_weights(layer: Layer, width: int) -> Tensor:
    return Tensor(name=f"dW {layer.path}", kind="dW", bytes=layer.parameters * width)


def _input_elements(layer: Layer) -> int:
    return layer.in_channels * layer.in_height * layer.in_width * layer.tokens * layer.image_steps


def _second_operand(layer: Layer, width: int) -> Tensor:
    """The right factor of a product of activations."""
    elements = layer.in_channels * layer.out_channels // layer.groups * layer.taps * layer.image_steps
    return Tensor(name=f"right factor of {layer.path}", kind="activation", bytes=elements * width)


def _forward(layer: Layer, graph: _Graph) -> list[Kernel]:
    def kernel(name: str, reads: Sequence[Tensor], writes: Sequence[Tensor], flops: int = 0) -> Kernel:
        return Kernel(
            name=name, layer=layer.path, phase="forward", reads=tuple(reads), writes=tuple(writes), flops=flops
        )

    out, width = graph.output(layer), graph.width
    if layer.kind == "gemm_weight":
        source = graph.input(layer, _input_elements(layer))
        return [kernel("product forward", (source, _weights(layer, width)), (out,), 2 * layer.macs_forward)]
    if layer.kind == "gemm_activation":
        operands = (graph.input(layer, _input_elements(layer)), _second_operand(layer, width))
        return [kernel("product forward", operands, (out,), 2 * layer.macs_forward)]
    source = graph.input(layer, layer.elements)
    if layer.kind == "norm":
        return [kernel("norm statistics", (source,), ()), kernel("norm forward", (source,), (out,))]
    if layer.kind == "neuron":
        return [kernel("neuron forward", (source,), (out, _potential(layer, width)))]
    if layer.kind == "gather":
        rows = Tensor(name=f"W {layer.path}", kind="W", bytes=out.bytes)
        return [kernel("gather", (rows,), (out,))]
    if layer.kind == "elementwise" and not graph.fused:
        return [kernel("elementwise forward", _operands(layer, graph), (out,))]
    return []


def _potential(layer: Layer, width: int) -> Tensor:
    return Tensor(name=f"u {layer.path}", kind="u", bytes=layer.elements * width)


def _operands(layer: Layer, graph: _Graph) -> list[Tensor]:
    producers = [graph.layers[p] for p in layer.inputs if p in graph.layers]
    return [graph.output(producer) for producer in producers] or [graph.input(layer, layer.elements)]


def _backward(layer: Layer, graph: _Graph) -> list[Kernel]:
    if layer.path not in graph.needs_gradient:
        return []

    def kernel(name: str, reads: Sequence[Tensor], writes: Sequence[Tensor], macs: int = 0) -> Kernel:
        phase = "weight gradient" if name in ("product wgrad", "scatter") else "backward"
        return Kernel(
            name=name, layer=layer.path, phase=phase, reads=tuple(reads), writes=tuple(writes), flops=2 * macs
        )

    width, gradient = graph.width, graph.arriving(layer)
    feeds = any(p in graph.needs_gradient for p in layer.inputs)
    if layer.kind == "gemm_weight":
        elements = _input_elements(layer)
        kernels = []
        if layer.macs_weight_gradient:
            reads = (*gradient, graph.input(layer, elements))
            kernels.append(
                kernel("product wgrad", reads, (_gradient_of_weights(layer, width),), layer.macs_weight_gradient)
            )
        if layer.macs_backward and (feeds or not layer.inputs):
            reads = (*gradient, _weights(layer, width))
            kernels.append(kernel("product dgrad", reads, graph.leaving(layer, elements), layer.macs_backward))
        return kernels
    if layer.kind == "gemm_activation":
        left, right = graph.input(layer, _input_elements(layer)), _second_operand(layer, width)
        d_right = Tensor(name=f"d right factor of {layer.path}", kind="du", bytes=right.bytes)
        half = layer.macs_backward // 2
        return [
            kernel("product dgrad", (*gradient, left), (d_right,), half),
            kernel("product dgrad", (*gradient, right), graph.leaving(layer, _input_elements(layer)), half),
        ]
    source = graph.input(layer, layer.elements)
    if layer.kind == "norm":
        writes = graph.leaving(layer, layer.elements) if feeds or not layer.inputs else ()
        reads = (source, *gradient)
        return [
            kernel("norm reduction", reads, (_gradient_of_weights(layer, width),)),
            kernel("norm backward", reads, writes),
        ]
    if layer.kind == "neuron":
        return [kernel("neuron backward", (*gradient, _potential(layer, width)), graph.leaving(layer, layer.elements))]
    if layer.kind == "gather":
        rows = Tensor(name=f"dW {layer.path}", kind="dW", bytes=gradient[0].bytes)
        return [kernel("scatter", (*gradient, rows), (rows,))]
    if layer.kind == "elementwise":
        if graph.fused:  # the gradient is read where it is needed next
            for producer in layer.inputs:
                graph.gradients.setdefault(producer, []).extend(gradient)
            return []
        saved = _operands(layer, graph) if len(layer.inputs) > 1 and "mul" in layer.op else []
        return [kernel("elementwise backward", (*gradient, *saved), graph.leaving(layer, layer.elements))]
    return []


def _adam(layer: Layer, precision: Precision) -> Kernel:
    state = layer.parameters * MASTER_BYTES
    width = 4 if precision == "fp32" else 2
    moments = tuple(Tensor(name=f"{m} {layer.path}", kind="optimizer", bytes=state) for m in ("m", "v"))
    master = Tensor(name=f"master W {layer.path}", kind="W", bytes=state)
    copies = (_weights(layer, width),) if precision == "amp_fp16" else ()
    return Kernel(
        name="Adam", layer=layer.path, phase="optimizer", reads=(master, _gradient_of_weights(layer, width), *moments),
        writes=(master, *moments, *copies),
    )  # fmt: skip
