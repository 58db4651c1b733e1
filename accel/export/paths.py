"""Nodes of a program: the path of the module that they come from, and which of them write into tensors."""

from collections.abc import Collection

import torch
from torch import fx

from spikeloom.accel.export.table import VIEWS

# Where modules are defined that hold no others.
_LEAVES = (
    "torch.nn.",
    *(f"spikeloom.accel.spiking.{file}." for file in ("neuron", "events", "batch_norm", "depthwise")),
)


def layer_path(n: fx.Node, taken: Collection[str]) -> str:
    """Module path of a node. An operation in a parent's own forward gets its node name appended."""
    stack = n.meta.get("nn_module_stack") or {}
    path, kind = list(stack.values())[-1] if stack else ("", None)
    leaf = isinstance(kind, str) and kind.startswith(_LEAVES)
    name = path if leaf and path else f"{path}.{n.name}".lstrip(".")
    return name if name not in taken else f"{name}.{n.name}"


def in_place(n: fx.Node) -> bool:
    """Whether the node writes into its first argument."""
    name = getattr(getattr(n.target, "overloadpacket", None), "__name__", "")
    return bool(name.endswith("_") and not name.startswith("_"))


def functional(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The program without writes into tensors that something else reads too."""
    nodes = list(program.graph.nodes)

    def seen_elsewhere(n: fx.Node) -> bool:
        target = n.args[0]
        return isinstance(target, fx.Node) and (len(target.users) > 1 or target.target in VIEWS)

    if any(n.op == "call_function" and in_place(n) and seen_elsewhere(n) for n in nodes):
        return program.run_decompositions({})
    return program
