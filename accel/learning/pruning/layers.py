"""Which layers are pruned: convolutions, depthwise convolutions and linear maps, and nothing else.

Biases, normalisation and neuron parameters are never chosen. Layers count in the order in which the model defines them,
so "first" and "last" mean the same for every architecture. Frozen weights are left out: pruning them is not learning.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass
class LayerSelection:
    """conv, depthwise, linear: which kinds are pruned; first_layer_dense, last_layer_dense: spare the first or the last
    of them; exclude: paths to spare, with * for any text."""

    conv: bool = True
    depthwise: bool = True
    linear: bool = True
    first_layer_dense: bool = False
    last_layer_dense: bool = False
    exclude: list[str] = field(default_factory=list)


def kind_of(layer: nn.Module) -> str | None:
    """conv, depthwise or linear; None for anything else."""
    if isinstance(layer, nn.Linear):
        return "linear"
    if isinstance(layer, CONVOLUTIONS):
        return "depthwise" if layer.groups == layer.in_channels > 1 else "conv"
    return None


def weighted_layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Every convolution and linear map with its path, in the order of definition."""
    return ((path, layer) for path, layer in model.named_modules() if kind_of(layer))


def prunable(model: nn.Module, selection: LayerSelection) -> list[tuple[str, Any]]:
    """The layers that `selection` names, with their paths. Raises ValueError when there are none, when a pattern of
    `exclude` fits nothing, and for a weight that two modules share."""
    every = list(weighted_layers(model))
    for pattern in selection.exclude:
        if not any(fnmatchcase(path, pattern) for path, _ in every):
            known = ", ".join(path for path, _ in every[:8])
            raise ValueError(
                f"pruning.exclude names {pattern!r}, which fits none of the {len(every)} layers ({known} …)"
            )
    spared = {every[0][0]} if every and selection.first_layer_dense else set()
    spared |= {every[-1][0]} if every and selection.last_layer_dense else set()
    chosen = [
        (path, layer)
        for path, layer in every
        if getattr(selection, kind_of(layer) or "")
        and path not in spared
        and layer.weight.requires_grad
        and not any(fnmatchcase(path, pattern) for pattern in selection.exclude)
    ]
    if not chosen:
        raise ValueError(
            f"no layer is left to prune: the model has {len(every)} convolutions and linear maps, and conv="
            f"{selection.conv}, depthwise={selection.depthwise}, linear={selection.linear}, dense first or last layers "
            f"and exclude={selection.exclude} spare them all, or they are frozen; allow one"
        )
    names = dict(chosen)
    owners: dict[int, str] = {}  # parameter -> the first name it has
    for name, parameter in model.named_parameters(remove_duplicate=False):
        other = owners.setdefault(id(parameter), name)
        if other != name and any(one.removesuffix(".weight") in names for one in (name, other)):
            raise ValueError(f"{name} and {other} are one weight and cannot be pruned apart; add it to pruning.exclude")
    return chosen
