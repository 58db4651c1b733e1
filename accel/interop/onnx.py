"""ONNX: a whole exported program in one file that onnxruntime runs as it is.

torch's exporter translates the program; its opset is 18, time and batch stay open where the program leaves them so. A
population is a call of a function of the domain `spikeloom`, which the file itself defines in plain ONNX: a Scan of the
neuron's step over time, with the operations of `accel.spiking.functional` in the same order. The call bears the layer
path, the function's doc string the constants as JSON, the surrogate among them (nothing trains in ONNX).

    every variant has a form   decay_input or not, hard reset to any v_reset, soft reset, no leak (tau = inf)
    a learned time constant    becomes the number it has when the file is written
    refused                    operations that torch's exporter cannot translate, inputs that are not float32 (indices
                               apart), files of more than 2 GB
"""

import copy
import json
import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

from spikeloom.accel.common.files import require_regular, whole
from spikeloom.accel.export.program import layer_path
from spikeloom.accel.export.table import NEURONS
from spikeloom.accel.interop.roundtrip import Run, neuron_parameters, populations
from spikeloom.accel.spiking.functional import LIFParameters

DOMAIN, OPSET = "spikeloom", 18
LARGEST_BYTES = 2**31 - 1  # of one protobuf message
INSTALL = "pip install 'spikeloom[onnx]'"


class OnnxError(ValueError):
    """A program that has no form in ONNX; the message names the layer, what is missing and the remedy."""


def write_onnx(program: torch.export.ExportedProgram, path: Path) -> None:
    """Write an exported program as one ONNX file.

    Raises:
        OnnxError: for what ONNX cannot express.
        ImportError: when the libraries of the extra `onnx` are not installed.
    """
    onnx, onnxscript = libraries()[:2]
    program = _constant_time_constants(program)
    paths = _paths(program)
    _check_types(program)
    _declare(onnx)
    domain = onnxscript.values.Opset(DOMAIN, 1)

    def lif(x: Any, v: Any, *constants: Any) -> Any:
        return domain.LIF(x, v, constants=json.dumps(constants))

    try:
        with _quiet():
            made = torch.onnx.export(
                program, (), dynamo=True, custom_translation_table={torch.ops.spikeloom.lif.default: lif},
                opset_version=OPSET, verbose=False,
            )  # fmt: skip
            assert made is not None
            model = made.model_proto
    except torch.onnx.errors.OnnxExporterError as error:
        where, operation = _untranslated(error)
        remedy = "replace it by operations that have one; program.pt2 holds the model as it is"
        raise OnnxError(f"{where}: torch's exporter has no ONNX form of {operation}; {remedy}") from error
    _define(onnx, model, paths)
    if model.ByteSize() > LARGEST_BYTES:
        raise OnnxError(f"the model takes {model.ByteSize():,} bytes, one ONNX file holds 2 GB; use program.pt2")
    onnx.checker.check_model(model)
    with whole(path) as partial:
        partial.write_bytes(model.SerializeToString(deterministic=True))


class OnnxRunner:
    """A file of `write_onnx` in onnxruntime on the CPU, with every population's spikes beside the outputs."""

    def __init__(self, path: Path) -> None:
        onnx, _, onnxruntime = libraries()
        require_regular(path, "write it again with write_onnx")
        try:
            model = onnx.load(str(path))
            calls = [n for n in model.graph.node if n.domain == DOMAIN]
            shown = {o.name for o in model.graph.output}
            self.outputs = [o.name for o in model.graph.output]
            self.paths = {n.name: n.output[0] for n in calls}  # layer path -> name of the spikes
            new = [name for name in self.paths.values() if name not in shown]
            kind = onnx.TensorProto.FLOAT
            model.graph.output.extend(onnx.helper.make_tensor_value_info(name, kind, None) for name in new)
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3
            options.intra_op_num_threads = torch.get_num_threads()
            self.session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # protobuf and onnxruntime have error types of their own
            raise OnnxError(f"{path}: onnxruntime cannot run it ({_line(error)}); export the model again") from error

    def __call__(self, batch: tuple[Tensor, ...]) -> Run:
        names = [i.name for i in self.session.get_inputs()]
        wanted = list(dict.fromkeys([*self.outputs, *self.paths.values()]))
        feeds = {name: x.numpy() for name, x in zip(names, batch, strict=True)}
        values = {k: torch.from_numpy(v) for k, v in zip(wanted, self.session.run(wanted, feeds), strict=True)}
        return Run(
            tuple(values[name] for name in self.outputs), {path: values[name] for path, name in self.paths.items()}
        )


def libraries() -> tuple[Any, Any, Any]:
    """onnx, onnxscript, onnxruntime. Raises ImportError with the remedy."""
    try:
        import onnx
        import onnxruntime
        import onnxscript
    except ImportError as error:
        raise ImportError(f"the ONNX exit needs onnx, onnxscript and onnxruntime ({error}); {INSTALL}") from error
    return onnx, onnxscript, onnxruntime


# --- before the translation -----------------------------------------------------------------------------------------


def _constant_time_constants(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The program with every learned time constant as a number: `plif` nodes become `lif` nodes."""
    if not any(n.target is torch.ops.spikeloom.plif.default for n in program.graph.nodes):
        return program
    values = _constants(program)
    program = copy.deepcopy(program)
    for n in program.graph.nodes:
        if n.target is torch.ops.spikeloom.plif.default:
            x, v, tau, *rest = n.args
            if tau.name not in values:
                path = layer_path(n, ())
                raise OnnxError(f"{path}: its time constant depends on the input; use one tau a population")
            n.target, n.args = torch.ops.spikeloom.lif.default, (x, v, float(values[tau.name]), *rest)
    program.graph.eliminate_dead_code()
    program.graph_module.recompile()
    return program


def _constants(program: torch.export.ExportedProgram) -> dict[str, Any]:
    """Values of the nodes that depend on no input, by name."""
    held = {**program.state_dict, **program.constants}
    named = {**program.graph_signature.inputs_to_parameters, **program.graph_signature.inputs_to_buffers,
             **program.graph_signature.inputs_to_lifted_tensor_constants}  # fmt: skip
    values: dict[str, Any] = {}
    for n in program.graph.nodes:
        if n.name in named:
            values[n.name] = held[named[n.name]]
        elif n.op == "call_function" and n.all_input_nodes and all(i.name in values for i in n.all_input_nodes):
            args, kwargs = fx.node.map_arg((n.args, n.kwargs), lambda i: values[i.name])
            with torch.no_grad():
                values[n.name] = n.target(*args, **kwargs)
    return values


def _paths(program: torch.export.ExportedProgram) -> list[str]:
    """Layer paths of the populations, as `roundtrip` names them."""
    paths: list[str] = []
    for n in populations(program.graph):
        paths.append(layer_path(n, paths))
    return paths


def _check_types(program: torch.export.ExportedProgram) -> None:
    for n in program.graph.nodes:
        if n.target in NEURONS and (kind := n.args[0].meta["val"].dtype) != torch.float32:
            raise OnnxError(f"{layer_path(n, ())}: its currents are {kind}, the ONNX neuron is float32; use x.float()")


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter and its helpers tell of every node they tidy up, of torchvision and of their own deprecations."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _untranslated(error: BaseException) -> tuple[str, str]:
    """(layer path, operation) of the node at which the exporter stopped: it is a local variable where it raised."""
    cause: BaseException | None = error
    while cause is not None:
        frame = cause.__traceback__
        while frame is not None:
            node = frame.tb_frame.f_locals.get("node")
            if isinstance(node, fx.Node):
                return layer_path(node, ()), str(node.target)
            frame = frame.tb_next
        cause = cause.__cause__
    return "the model", f"an operation ({_line(error)})"


def _line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


# --- the neuron -----------------------------------------------------------------------------------------------------


def _declare(onnx: Any) -> None:
    """Tell the library what the call looks like, which the translation asks for."""
    if onnx.defs.has("LIF", DOMAIN):
        return
    make = onnx.defs.OpSchema
    inputs, outputs = ([make.FormalParameter(name, "T") for name in side] for side in (("x", "v"), ("s", "last")))
    constants = make.Attribute("constants", make.AttrType.STRING, required=True)
    types = [("T", ["tensor(float)"], "single precision")]
    onnx.defs.register_schema(
        make("LIF", DOMAIN, 1, inputs=inputs, outputs=outputs, type_constraints=types, attributes=[constants])
    )


def _define(onnx: Any, model: Any, paths: list[str]) -> None:
    """Give every set of constants a function of its own, let the calls name it and bear the layer path."""
    calls = [n for n in model.graph.node if n.domain == DOMAIN]
    assert len(calls) == len(paths), (len(calls), paths)
    functions: dict[str, str] = {}  # constants -> name
    for node, path in zip(calls, paths, strict=True):
        said = node.attribute[0].s.decode()
        node.op_type = functions.setdefault(said, f"LIF_{len(functions)}")
        node.name = path
        del node.attribute[:]
    for said, name in functions.items():
        model.functions.append(_function(onnx, name, neuron_parameters((None, None, *json.loads(said)))))
    if DOMAIN not in {o.domain for o in model.opset_import} and functions:
        model.opset_import.append(onnx.helper.make_opsetid(DOMAIN, 1))


def _function(onnx: Any, name: str, p: LIFParameters) -> Any:
    """x [T, ...], v [...] -> (spikes [T, ...], last membranes): a Scan of `functional.lif_step` over the first axis."""
    h, make, kind = onnx.helper, onnx.helper.make_node, onnx.TensorProto.FLOAT
    numbers = {"tau": p.tau, "leak": 1 - 1 / p.tau, "rest": p.rest, "threshold": p.threshold, "zero": 0.0}
    constants = [make("Constant", [], [k], value=h.make_tensor(k, kind, [], [v])) for k, v in numbers.items()]
    if p.decay_input:  # h = v + (x - (v - rest)) / tau
        charge = [make("Sub", ["v", "rest"], ["a"]), make("Sub", ["x", "a"], ["b"]), make("Div", ["b", "tau"], ["c"]),
                  make("Add", ["v", "c"], ["h"])]  # fmt: skip
    else:  # h = (v - rest) * (1 - 1/tau) + (x + rest)
        charge = [make("Sub", ["v", "rest"], ["a"]), make("Mul", ["a", "leak"], ["b"]),
                  make("Add", ["x", "rest"], ["c"]), make("Add", ["b", "c"], ["h"])]  # fmt: skip
    fire = [make("Sub", ["h", "threshold"], ["u"]), make("GreaterOrEqual", ["u", "zero"], ["fired"]),
            make("Cast", ["fired"], ["s"], to=kind)]  # fmt: skip
    if p.v_reset is None:
        back = [make("Mul", ["s", "threshold"], ["d"]), make("Sub", ["h", "d"], ["next"])]
    else:
        back = [make("Where", ["fired", "rest", "h"], ["next"])]
    value = lambda n: h.make_tensor_value_info(n, kind, None)  # noqa: E731
    step = h.make_graph(
        [*constants, *charge, *fire, *back], f"{name}_step", [value("v"), value("x")], [value("next"), value("s")]
    )
    scan = make("Scan", ["membranes", "currents"], ["last", "spikes"], body=step, num_scan_inputs=1)
    said = {**asdict(p), "tau": "inf" if math.isinf(p.tau) else p.tau, "surrogate": repr(p.surrogate)}
    return h.make_function(
        DOMAIN, name, ["currents", "membranes"], ["spikes", "last"], [scan], [h.make_opsetid("", OPSET)],
        doc_string=json.dumps(said),
    )  # fmt: skip
