"""A model becomes a program and a workload: what it computes, op by op, with densities measured on real data.

`torch.export` traces the model once; a neuron is one node for any number of steps. The program is then run node by node
on real batches (`observer`). Every node that touches data becomes a `Layer` or, when no rule knows it, an entry in
`unsupported`: nothing is guessed. Backward and weight-gradient work follows from the forward shapes; no backward graph
is traced. The closing `Balance` says whether every trained parameter has an owner and every operation a price.

Any module whose operations are in `table` goes this way, `rules` and `products` say how each is read. `axes` names the
axes of the input; the package's own models are time first, "TB...".
"""

import inspect
import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spikeloom.accel.common.files import require_regular
from spikeloom.accel.export.axes import positions, read_axes
from spikeloom.accel.export.balance import Balance, BalanceError, UnsupportedOpError
from spikeloom.accel.export.observer import Observer
from spikeloom.accel.export.paths import layer_path
from spikeloom.accel.export.unchanged import unchanged
from spikeloom.accel.trainer.workload import Workload

__all__ = ["Balance", "BalanceError", "Batch", "Exported", "UnsupportedOpError", "export", "layer_path", "measure"]

Batch = Tensor | tuple[Tensor, ...]  # the arguments of one call


class TraceError(ValueError):
    """torch.export cannot follow the model."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """`program` reloads with torch.export once spikeloom.accel.spiking.ops is imported; `workload` needs no torch."""

    program: torch.export.ExportedProgram
    workload: Workload
    balance: Balance

    def program_bytes(self) -> bytes:
        buffer = io.BytesIO()
        torch.export.save(self.program, buffer)
        return buffer.getvalue()


def export(
    model: nn.Module,
    batches: Sequence[Batch],
    *,
    name: str,
    source: dict[str, str],
    strict: bool = True,
    axes: str | None = None,
    time_first: bool | None = None,
) -> Exported:
    """Trace `model` in evaluation mode and measure it on `batches`; the model is left as it was.

    Args:
        model: any module whose `forward` takes tensors.
        batches: tensors, or tuples of them, of one shape each.
        name: of the workload.
        source: where the data come from; free text that the workload keeps.
        strict: fail where an operation has no rule or a trained parameter is lost; otherwise the balance names them.
        axes: a letter for each axis of the first tensor, T for time and B for the batch: "TBN", "BCHW", "BTC". Without
            it the axes are inferred from the program, and `workload.source["axes"]` says how.
        time_first: short for axes "TB..." (True) or "B..." without time (False).

    Returns:
        The program, in which T and B stay symbolic wherever the model leaves them open, the workload and the balance.

    Raises:
        UnsupportedOpError: in strict mode, with all operations that have no rule.
        BalanceError: in strict mode, with all trained parameters that have no owner or that the loss does not reach.
        TraceError: where torch.export cannot follow the model's Python.
        ValueError: for batches that are empty, of several shapes, or not finite, or axes that do not fit.
    """
    calls = _calls(batches)
    if axes is not None:
        time, batch = positions(axes, calls[0][0].dim())
        symbolic = [a for a in (time, batch) if a is not None]
    else:
        symbolic = [0] if time_first is False else [0, 1]
    shapes = tuple(
        {axis: torch.export.Dim.AUTO for axis in symbolic if axis < x.dim() and x.shape[axis] > 1} for x in calls[0]
    )
    with unchanged(model), torch.no_grad():
        program = _traced(model.eval(), calls[0], shapes)
        workload, balance = _measured(
            program, calls, name=name, source=source, strict=strict, axes=axes, time_first=time_first
        )
    return Exported(program=program, workload=workload, balance=balance)


def measure(
    program: torch.export.ExportedProgram | str | Path,
    batches: Sequence[Batch],
    *,
    name: str,
    source: dict[str, str],
    strict: bool = True,
    axes: str | None = None,
    time_first: bool | None = None,
) -> Exported:
    """Run an exported program, or the file of one, node by node on real batches and write down what it computed.

    Arguments, result and errors are those of `export`.
    """
    if isinstance(program, str | Path):
        program = load_program(program)
    calls = _calls(batches)
    with torch.no_grad():
        workload, balance = _measured(
            program, calls, name=name, source=source, strict=strict, axes=axes, time_first=time_first
        )
    return Exported(program=program, workload=workload, balance=balance)


def load_program(path: str | Path) -> torch.export.ExportedProgram:
    """The program of a .pt2 file.

    Raises:
        ValueError: for a file that torch.export cannot read.
    """
    require_regular(Path(path), "name a program that torch.export.save wrote")
    try:
        return torch.export.load(path)
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file; name a program that torch.export.save wrote") from error
    except Exception as error:  # torch raises whatever its archive reader or its deserializer meets
        raise ValueError(
            f"{path}: torch {torch.__version__} cannot read this program ({_first_line(error)}); export it again with "
            "this version of torch"
        ) from error


def _measured(
    program: torch.export.ExportedProgram, calls: list[tuple[Tensor, ...]], *, name: str, source: dict[str, str],
    strict: bool, axes: str | None, time_first: bool | None,
) -> tuple[Workload, Balance]:  # fmt: skip
    found = read_axes(program, calls[0][0], axes, time_first)
    module = program.module()
    assert isinstance(module, torch.fx.GraphModule)
    observer = Observer(module, found.steps, found.batch_size, time_first=found.time_first)
    buffers = [(b, b.clone()) for b in module.buffers()]
    for call in calls:
        try:
            observer.run(*_copied(call))
        except (RuntimeError, IndexError, TypeError) as error:  # of an operation: tracing alone does not run it
            raise ValueError(
                f"{name} cannot run on its inputs: {_first_line(error)}; check example= or input="
            ) from error
    for buffer, content in buffers:
        buffer.copy_(content)
    balance = observer.balance()
    if strict:
        balance.check()
    workload = Workload(
        model_name=name, time_steps=found.steps, batch_size=found.batch_size,
        dtype=str(calls[0][0].dtype).removeprefix("torch."), layers=observer.layers(),
        unsupported=tuple(observer.unsupported.values()),
        source={"torch": torch.__version__, "axes": f"{found.text} ({found.why})", "balance": str(balance), **source},
    )  # fmt: skip
    return workload, balance


def _traced(
    model: nn.Module, call: tuple[Tensor, ...], shapes: tuple[dict[int, Any], ...]
) -> torch.export.ExportedProgram:
    try:
        with warnings.catch_warnings():  # of tensors that a model derives from its weights at every call
            warnings.filterwarnings("ignore", message="The tensor attributes? .* assigned during export")
            return torch.export.export(model, _copied(call), dynamic_shapes=(shapes,) if _varied(model) else shapes)
    except Exception as error:  # the model's own Python runs in here: it may raise anything
        kind = type(error).__name__
        advice = "run the model on this input first"
        if "DataDependent" in kind:
            advice = "its Python decides by the values of a tensor: use torch.where, or fix the decision"
        raise TraceError(
            f"torch.export cannot trace {type(model).__name__} on inputs {[tuple(x.shape) for x in call]}: {kind}, "
            f"{_first_line(error)}; {advice}"
        ) from error


def _varied(model: nn.Module) -> bool:
    """Whether `forward` takes its tensors as *args, which torch.export counts as one argument."""
    kinds = [p.kind for p in inspect.signature(model.forward).parameters.values()]
    return bool(kinds) and kinds[0] is inspect.Parameter.VAR_POSITIONAL


def _copied(call: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Copies, since a model may write into its input."""
    return tuple(x.clone() for x in call)


def _calls(batches: Sequence[Batch]) -> list[tuple[Tensor, ...]]:
    calls = [batch if isinstance(batch, tuple) else (batch,) for batch in batches]
    shapes = [tuple(tuple(x.shape) for x in call) for call in calls]
    if not calls or not calls[0] or len(set(shapes)) != 1:
        raise ValueError(f"export needs batches of one shape, got {shapes}; crop them alike")
    for call in calls:
        for i, x in enumerate(call):
            if not x.numel():
                raise ValueError(
                    f"input {i} of a batch is empty, {tuple(x.shape)}; every axis needs at least one entry"
                )
            if x.is_complex():
                raise ValueError(f"input {i} of a batch is complex; give its real and imaginary parts as real numbers")
            if x.is_floating_point() and not bool(torch.isfinite(x).all()):
                bad = int((~torch.isfinite(x)).sum())
                raise ValueError(f"input {i} of a batch holds {bad} values that are NaN or infinite; remove them first")
    return calls


def _first_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]
