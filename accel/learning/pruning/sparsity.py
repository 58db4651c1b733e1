"""How sparse a model is: zeros counted on the weights that are used, W and never theta, layer by layer.

A share of zeros says nothing without what it is a share of, so the totals name their denominator.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spikeloom.accel.learning.pruning.layers import kind_of, weighted_layers


@dataclass(frozen=True, kw_only=True)
class LayerSparsity:
    """One layer: weights, zeros among them, share of non-zeros; multiply-accumulates of one sample, dense and left.

    macs_left leaves out the products with a zero weight; both are None where the layer was never seen to run.
    """

    path: str
    kind: str
    pruned: bool  # whether the rule may zero it
    numel: int
    zeros: int
    density: float
    macs: int | None
    macs_left: int | None


@dataclass(frozen=True, kw_only=True)
class SparsityReport:
    """All convolutions and linear maps of a model, and the share of zeros under three denominators."""

    layers: tuple[LayerSparsity, ...]
    zeros: int
    sparsity_of_pruned_layers: float
    sparsity_of_conv_and_linear: float
    sparsity_of_all_parameters: float
    macs: int | None
    macs_left: int | None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def weight_of(layer: Any) -> Tensor:
    """The weight a layer uses now: of a soft threshold, of torch.nn.utils.prune, or its own."""
    with torch.no_grad():
        if hasattr(layer, "weight_mask"):  # `layer.weight` is as old as the last forward pass there
            return (layer.weight_orig * layer.weight_mask).detach()
        return layer.weight.detach()


def sparsity_report(
    model: nn.Module, macs: Mapping[str, int] | None = None, pruned: frozenset[str] | None = None
) -> SparsityReport:
    """Count. `macs`: dense multiply-accumulates of one sample by path (`MacCounter`). `pruned`: paths of the layers
    that a rule may zero; None: every layer."""
    layers = []  # LayerSparsity
    for path, layer in weighted_layers(model):
        weight = weight_of(layer)
        zeros = int((weight == 0).sum())
        density = 1 - zeros / weight.numel()
        dense = None if macs is None else macs.get(path)
        layers.append(
            LayerSparsity(
                path=path, kind=kind_of(layer) or "", pruned=pruned is None or path in pruned, numel=weight.numel(),
                zeros=zeros, density=density, macs=dense,
                macs_left=None if dense is None else dense * (weight.numel() - zeros) // weight.numel(),
            )
        )  # fmt: skip
    inside = [layer for layer in layers if layer.pruned]
    zeros = sum(layer.zeros for layer in layers)
    everything = sum(parameter.numel() for parameter in model.parameters())
    known = [layer for layer in layers if layer.macs is not None]
    return SparsityReport(
        layers=tuple(layers),
        zeros=zeros,
        sparsity_of_pruned_layers=_share(sum(layer.zeros for layer in inside), sum(layer.numel for layer in inside)),
        sparsity_of_conv_and_linear=_share(zeros, sum(layer.numel for layer in layers)),
        sparsity_of_all_parameters=_share(zeros, everything),
        macs=sum(layer.macs or 0 for layer in known) if known else None,
        macs_left=sum(layer.macs_left or 0 for layer in known) if known else None,
    )


class MacCounter:
    """Counts the dense multiply-accumulates of every convolution and linear map that runs, from its making until
    `of_one`. A layer whose weight is read without calling it is not seen."""

    def __init__(self, model: nn.Module) -> None:
        self.counted: dict[str, int] = {}
        self.hooks = [layer.register_forward_hook(self._count(path)) for path, layer in weighted_layers(model)]

    def _count(self, path: str) -> Callable[..., None]:
        def hook(layer: Any, args: tuple[Any, ...], out: Tensor) -> None:
            products = layer.in_features if isinstance(layer, nn.Linear) else layer.weight[0].numel()
            self.counted[path] = self.counted.get(path, 0) + out.numel() * int(products)

        return hook

    def of_one(self, samples: int) -> dict[str, int]:
        """By path, of one of the `samples` samples that ran. Counting ends."""
        for hook in self.hooks:
            hook.remove()
        return {path: macs // samples for path, macs in self.counted.items()}


def _share(zeros: int, of: int) -> float:
    return zeros / of if of else 0.0
