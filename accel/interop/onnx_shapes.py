"""An ONNX file as a workload: shapes only, as the rules of export read them; nothing runs and nothing is measured.

Shapes come from ONNX's own inference for the given input; every operation is read by the same rule as the torch
operation it stands for. Weights are the initializers of the file: they count as trained. Training a file that was
written for inference means that its norms were folded into convolutions, and that its dropout is gone.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from spikeloom.accel.common.files import require_regular
from spikeloom.accel.export import products, rules
from spikeloom.accel.export.axes import positions
from spikeloom.accel.export.balance import Balance
from spikeloom.accel.export.rules import Call, Found, NoRuleError
from spikeloom.accel.trainer.workload import Layer, Unsupported, Workload

INSTALL = "pip install 'spikeloom[onnx]'"
# Operations that move no data a chip would pay for, and those whose value is a size.
_VIEWS = {"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Identity", "Cast", "Expand", "Slice", "Split"}
_SIZES = {"Shape", "Size", "Constant", "ConstantOfShape", "Range", "NonZero"}
_NORMS = {"BatchNormalization", "LayerNormalization", "InstanceNormalization", "GroupNormalization",
          "RMSNormalization", "SimplifiedLayerNormalization"}  # fmt: skip
_ELEMENTWISE = {
    "Add", "Sub", "Mul", "Div", "Neg", "Reciprocal", "Pow", "Sqrt", "Exp", "Log", "Abs", "Sign", "Floor", "Ceil",
    "Round", "Mod", "Clip", "Max", "Min", "Sin", "Cos", "Erf", "Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu",
    "Gelu", "Softplus", "Softsign", "Sigmoid", "HardSigmoid", "HardSwish", "Mish", "Tanh", "Softmax", "LogSoftmax",
    "ThresholdedRelu", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not", "And", "Or", "Xor", "IsNaN",
    "Where", "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
    "ReduceLogSumExp", "ReduceSumSquare", "ArgMax", "ArgMin", "CumSum", "TopK", "Dropout", "Concat", "Pad", "Tile",
    "GatherElements", "GatherND", "ScatterND", "ScatterElements", "OneHot", "Trilu", "MaxPool", "AveragePool",
    "GlobalAveragePool", "GlobalMaxPool", "LpPool", "Resize", "Upsample", "DepthToSpace", "SpaceToDepth", "LRN", "Sum",
    "Mean", "Swish", "BiasGelu", "FastGelu",
}  # fmt: skip


class OnnxError(ValueError):
    """A file that cannot be costed; names the file, the node and the remedy."""


def onnx_workload(path: Path, *, shapes: str | None = None, axes: str | None = None, strict: bool = True) -> Workload:
    """The workload of a file for inputs of `shapes` ("4x3x224x224", several joined by "+"; else those of the file).

    Raises:
        OnnxError: for an unreadable file, open shapes, and in strict mode operations without a rule.
        ImportError: without the package `onnx`.
    """
    graph = _read(path, shapes)
    reader = _Reader(graph, path)
    first = reader.inputs[0]
    time, batch = positions(axes, len(first)) if axes else (None, 0)
    reader.steps, reader.batch = (1 if time is None else first[time]), (first[batch] if first else 1)
    for index, node in enumerate(graph.node):
        try:
            reader.read(node, index)
        except OnnxError:
            raise
        except (
            ValueError,
            TypeError,
            LookupError,
            AttributeError,
            ArithmeticError,
        ) as error:  # torn attributes, inputs
            what = f"{type(error).__name__}: {error}"[:200]
            raise OnnxError(
                f"{path}: node {index} ({node.op_type[:40]}) cannot be costed ({what}); export it again"
            ) from error
    balance = Balance(
        sizes=reader.sizes, owned=frozenset(reader.owned), reached=frozenset(reader.owned),
        operations=len(reader.layers) + len(reader.unsupported),
        unsupported=tuple(f"{u.op} at {u.path}" for u in reader.unsupported),
    )  # fmt: skip
    if strict and reader.unsupported:
        try:
            balance.check()
        except ValueError as error:
            raise OnnxError(f"{path}: {error}") from None
    how = "given" if axes else "inferred: the batch comes first"
    return Workload(
        model_name=path.stem, time_steps=reader.steps, batch_size=reader.batch, dtype="float32",
        layers=tuple(reader.layers), unsupported=tuple(reader.unsupported),
        source={"densities": "none: shapes of an ONNX file", "axes": f"{axes or 'B...'} ({how})",
                "balance": str(balance)},
    )  # fmt: skip


def _read(path: Path, shapes: str | None) -> Any:
    try:
        import onnx
        from onnx import shape_inference
    except ImportError as error:
        raise ImportError(f"reading ONNX needs its library ({error}); {INSTALL}") from error
    require_regular(path, "give an ONNX file")
    try:
        model = onnx.load(str(path), load_external_data=False)
        names = {i.name for i in model.graph.initializer}
        inputs = [i for i in model.graph.input if i.name not in names]
        if shapes is not None:
            given = [[int(n) for n in text.partition(":")[0].split("x")] for text in shapes.split("+")]
            if len(given) != len(inputs):
                raise OnnxError(f"{path}: takes {len(inputs)} inputs, got {len(given)} shapes; join them by +")
            for value, sizes in zip(inputs, given, strict=True):
                dims = value.type.tensor_type.shape.dim
                if len(dims) != len(sizes):
                    raise OnnxError(f"{path}: input {value.name} has {len(dims)} axes, got {sizes}; give as many")
                for dim, size in zip(dims, sizes, strict=True):
                    dim.Clear()
                    dim.dim_value = size
        inferred = shape_inference.infer_shapes(model, strict_mode=False, data_prop=True)
    except (OnnxError, ImportError):
        raise
    except Exception as error:  # protobuf and onnx raise whatever a damaged file leads them to
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise OnnxError(f"{path}: not a readable ONNX file ({reason}); export it again") from error
    return inferred.graph


class _Reader:
    """Walks the nodes of a graph in order."""

    def __init__(self, graph: Any, path: Path) -> None:
        self.path = path
        self.weights = {i.name: tuple(i.dims) for i in graph.initializer}
        self.floats = {i.name for i in graph.initializer if i.data_type in (1, 10, 11, 16)}
        self.shapes: dict[str, tuple[int, ...] | None] = dict(self.weights)
        self.open: dict[str, str] = {}  # value -> a shape that closes its open sizes
        for value in (*graph.input, *graph.value_info, *graph.output):
            dims = value.type.tensor_type.shape.dim
            sizes = tuple(d.dim_value for d in dims)
            self.shapes.setdefault(value.name, sizes if all(sizes) or not sizes else None)
            self.open[value.name] = "x".join(str(size or 1) for size in sizes)
        self.inputs = [self._shape(i.name, "input") for i in graph.input if i.name not in self.weights]
        if not self.inputs:
            raise OnnxError(f"{path}: has no input; export the whole network")
        self.data = {i.name for i in graph.input if i.name not in self.weights}
        self.steps = self.batch = 1
        self.layers: list[Layer] = []
        self.unsupported: list[Unsupported] = []
        self.producers: dict[str, tuple[str, ...]] = {}
        self.learns: set[str] = set()
        self.owned: set[str] = set()
        self.sizes: dict[str, int] = {}
        self.paths: set[str] = set()
        self.constants: dict[str, str] = {}  # value -> the weight that it is a view of

    def _shape(self, name: str, where: str) -> tuple[int, ...]:
        found = self.shapes.get(name)
        if found is None:
            given = self.open.get(name, "4x3x224x224")
            raise OnnxError(
                f"{self.path}: {where} {name!r} has an open shape; give input={given}, with sizes of your own where "
                "the file leaves them open (here 1)"
            )
        if min(found, default=0) < 0:
            raise OnnxError(f"{self.path}: {where} {name!r} has the shape {found}; give a network that can run")
        return found

    def _tensor(self, name: str, where: str) -> Tensor:
        return torch.empty(self._shape(name, where), device="meta")

    def read(self, node: Any, index: int) -> None:
        """One node: a view, a size, or a layer."""
        inputs = [i for i in node.input if i]
        behind = tuple(dict.fromkeys(p for i in inputs for p in self.producers.get(i, ())))
        data = bool(self.data.intersection(inputs))
        learns = bool(self.learns.intersection(inputs))
        if node.op_type in _SIZES or (node.op_type in _VIEWS):
            if node.op_type in _VIEWS:
                for out in node.output:
                    self._pass_on(out, behind, data, learns)
                    if not data and inputs and (root := self.constants.get(inputs[0], inputs[0])) in self.weights:
                        self.constants[out] = root
            return
        where = node.name or f"{node.op_type}_{index}"
        while where in self.paths:
            where += f"_{index}"
        if not data and not any(self._root(i) for i in inputs):
            return  # arithmetic on sizes
        self.paths.add(where)
        weights = [root for i in inputs if (root := self._root(i)) is not None]
        for name in weights:
            self.sizes[name] = int(torch.Size(self.weights[name]).numel())
        out = node.output[0]
        try:
            found = self._rule(node, inputs, where)
        except NoRuleError:
            elements = int(self._tensor(out, where).numel()) if self.shapes.get(out) else 0
            self.unsupported.append(Unsupported(path=where, op=node.op_type, elements=elements))
        else:
            fresh = [name for name in dict.fromkeys(weights) if name not in self.owned]
            self.owned.update(fresh)
            self._add(where, node, inputs, found, behind, sum(self.sizes[n] for n in fresh))
        for name in node.output:
            self._pass_on(name, (where,), data, learns or bool(weights))

    def _root(self, name: str) -> str | None:
        """The weight that a constant is, or is a view of; None for data, sizes, whole numbers and single numbers."""
        root = self.constants.get(name, name)
        known = root in self.weights and root in self.floats
        return root if known and torch.Size(self.weights[root]).numel() > 1 else None

    def _pass_on(self, out: str, producers: tuple[str, ...], data: bool, learns: bool) -> None:
        self.producers[out] = producers
        if data:
            self.data.add(out)
        if learns:
            self.learns.add(out)

    def _add(
        self, where: str, node: Any, inputs: list[str], found: list[Found], behind: tuple[str, ...], parameters: int
    ) -> None:
        for part in found:
            fields = dict(part.fields)
            for name, terms in (("macs_backward", part.backward), ("macs_weight_gradient", part.weight_gradient)):
                wanted = [
                    macs for macs, places in terms
                    if any(self._wants(inputs, place) for place in places)
                ]  # fmt: skip
                fields[name] = sum(wanted)
            op = (
                f"aten.batch_norm.onnx.{node.op_type}"
                if node.op_type == "BatchNormalization"
                else f"onnx.{node.op_type}"
            )
            self.layers.append(
                Layer(path=where, op=op, inputs=behind, parameters=parameters if part is found[0] else 0, **fields)
            )

    def _wants(self, inputs: list[str], place: Any) -> bool:
        index = place[1] if isinstance(place, tuple) else place
        name = inputs[index] if index < len(inputs) else ""
        return name in self.learns or self._root(name) is not None

    def _rule(self, node: Any, inputs: list[str], where: str) -> list[Found]:
        attributes = {a.name: _value(a) for a in node.attribute}
        kind = node.op_type
        constant = frozenset(i for i, name in enumerate(inputs) if name not in self.data)
        tensors = [self._tensor(name, where) for name in inputs] if kind in _SHAPED else []
        out = self._tensor(node.output[0], where)

        def call(*args: Any, constant: frozenset[Any] = constant) -> Call:
            return Call(args=args, kwargs={}, out=out, steps=self.steps, batch=self.batch, constant=constant)

        if kind in ("Conv", "ConvTranspose"):
            x, weight = tensors[:2]
            bias = tensors[2] if len(tensors) > 2 else None
            ones = [1] * (weight.dim() - 2)
            pads = attributes.get("pads", [0] * (2 * len(ones)))
            rest = (
                attributes.get("strides", ones), pads[: len(ones)], attributes.get("dilations", ones),
                int(attributes.get("group", 1)),
            )  # fmt: skip
            if kind == "Conv":
                return _shapes_only(products.convolution(call(x, weight, bias, *rest)))
            stride, padding, dilation, groups = rest
            return _shapes_only(products.transposed(call(x, weight, bias, stride, padding, 0, groups, dilation)))
        if kind == "Gemm":
            a, b = (t.T if attributes.get(key) else t for t, key in zip(tensors[:2], ("transA", "transB"), strict=True))
            return _shapes_only(products.product(call(a, b)))
        if kind == "MatMul":
            return _shapes_only(products.product(call(*tensors[:2])))
        if kind == "Einsum":
            places = frozenset((1, i) for i in constant)
            return _shapes_only(products.einsum(call(attributes["equation"], tensors, constant=places)))
        if kind in _NORMS:
            channels = tensors[1].numel() if len(tensors) > 1 else out.shape[-1]
            fields = {
                "in_channels": channels,
                "out_channels": channels,
                **rules.spread(out.numel() // channels, call()),
            }
            return [Found(fields={"kind": "norm", **fields})]
        if kind == "Gather":
            width = out.shape[-1] if out.dim() else 1
            if 0 in constant:
                return [
                    Found(
                        fields={
                            "kind": "gather", "in_channels": 1, "out_channels": width,
                            **rules.spread(out.numel() // width, call()),
                        }
                    )
                ]  # fmt: skip
            return [Found(fields=rules.per_element("elementwise", out, call()))]
        if kind in _ELEMENTWISE:
            return [Found(fields=rules.per_element("elementwise", out, call()))]
        raise NoRuleError(kind)


_SHAPED = {"Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", *_NORMS}


def _shapes_only(found: list[Found]) -> list[Found]:
    """Without operands to measure: the tensors hold no numbers."""
    return [
        Found(fields=f.fields, backward=f.backward, weight_gradient=f.weight_gradient, suffix=f.suffix) for f in found
    ]


def _value(attribute: Any) -> Any:
    readers: dict[int, Callable[[], Any]] = {
        1: lambda: attribute.f, 2: lambda: attribute.i, 3: lambda: attribute.s.decode(),
        6: lambda: list(attribute.floats), 7: lambda: list(attribute.ints),
    }  # fmt: skip
    read = readers.get(attribute.type)
    return read() if read else None
