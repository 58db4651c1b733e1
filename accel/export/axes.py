"""Which axis of a model's input is time, and which is the batch: said by a string, or read from the program and said.

One letter names each axis of the first input: T is time and B the batch, any other letter is anything else. "TBN" is
spikes [T, B, N], "BCHW" a batch of pictures, "BTC" a batch of sequences; "TB..." leaves the others open. Without
a string the program decides, and the workload records it: neurons run over their first axis, and a model that picks its
steps one by one (`x[t]`) has time first; every other model gets the batch first and one time step.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from spikeloom.accel.export.table import NEURONS


@dataclass(frozen=True, kw_only=True)
class Axes:
    """Positions of time and batch among the axes of the first input; `why` says who decided."""

    text: str
    time: int | None
    batch: int | None
    steps: int  # time steps of the network
    batch_size: int
    why: str

    @property
    def time_first(self) -> bool:
        """Whether data lie [T, B, ...] or without time; otherwise they lie [B, T, ...]."""
        return self.time is None or self.batch is None or self.time < self.batch


def positions(text: str, n_axes: int) -> tuple[int | None, int]:
    """Where T (None without) and B stand in `text`, for an input of `n_axes` axes. "TB..." names the first two only.

    Raises:
        ValueError: for another number of letters, a letter that comes twice, or no B.
    """
    letters = text.upper()
    if letters.endswith("..."):
        letters = letters[:-3] + "ZYXWVUSRQP"[: max(0, n_axes - len(letters) + 3)]
    if len(letters) != n_axes or len(set(letters)) != n_axes or not letters.isalpha():
        raise ValueError(
            f"axes got {text!r} for an input of {n_axes} axes; name each of them once, such as TBN or BCHW"
        )
    if "B" not in letters:
        raise ValueError(f"axes got {text!r} without B; name the batch axis, of size 1 for a single sample")
    return (letters.index("T") if "T" in letters else None), letters.index("B")


def read_axes(program: torch.export.ExportedProgram, x: Tensor, text: str | None, time_first: bool | None) -> Axes:
    """The axes of `x`, the first input of `program`: of `text` (or `time_first`), else those that the program shows."""
    why = "given"
    inner = _neuron_steps(program)
    if text is not None:
        time, batch = positions(text, x.dim())
    elif time_first is not None:
        time, batch = (0, 1) if time_first else (None, 0)
        if x.dim() <= batch:
            raise ValueError(f"time_first needs an input [T, B, ...], got {tuple(x.shape)}; name its axes, axes=BN")
    elif inner is not None and x.dim() > 1 and inner == _first_size(program):
        (time, batch), why = (0, 1), "inferred: the neurons run over axis 0"
    elif x.dim() > 1 and _picks_steps(program):
        (time, batch), why = (0, 1), "inferred: the model takes its steps from axis 0 one by one"
    else:
        (time, batch), why = (None, 0), "inferred: no operation runs over time"
    # Without a time axis the model may repeat its input for every step.
    repeated = int(inner) if inner is not None and inner.isdigit() else 1
    steps = repeated if time is None else x.shape[time]
    letters = [{time: "T", batch: "B"}.get(i, "*") for i in range(x.dim())]
    return Axes(
        text=text.upper() if text else "".join(letters), time=time, batch=batch, steps=steps,
        batch_size=x.shape[batch] if x.dim() else 1, why=why,
    )  # fmt: skip


def _nodes(program: torch.export.ExportedProgram) -> Iterator[fx.Node]:
    return iter(program.graph.nodes)


def _neuron_steps(program: torch.export.ExportedProgram) -> str | None:
    """Steps of the first population, as a number or the symbol of a free size."""
    for n in _nodes(program):
        if n.target in NEURONS and isinstance(n.args[0], fx.Node) and "val" in n.args[0].meta:
            return str(n.args[0].meta["val"].shape[0])
    return None


def _input(program: torch.export.ExportedProgram) -> fx.Node | None:
    names = program.graph_signature.user_inputs
    return next((n for n in _nodes(program) if n.op == "placeholder" and n.name in names), None)


def _first_size(program: torch.export.ExportedProgram) -> str | None:
    n = _input(program)
    value = None if n is None else n.meta.get("val")
    return str(value.shape[0]) if isinstance(value, torch.Tensor) and value.dim() else None


def _picks_steps(program: torch.export.ExportedProgram) -> bool:
    n = _input(program)
    readers = [] if n is None else [u for u in n.users if "sym_size" not in str(u.target)]
    steps = (torch.ops.aten.select.int, torch.ops.aten.unbind.int)
    return bool(readers) and all(u.target in steps and (*u.args, 0)[1] == 0 for u in readers)
