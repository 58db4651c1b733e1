"""Layers whose weight is seen through a rule: a parametrisation that stays on the layer while it trains.

The parameter object stays the same, so an optimiser made before or after holds it. `bake_rules` writes what the rule
gives into plain layers.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class WeightRule(nn.Module):
    """theta -> W of one layer; each pruning rule is a subclass."""

    def forward(self, theta: Tensor) -> Tensor:
        raise TypeError(f"{type(self).__name__} has no forward")


R = TypeVar("R", bound=WeightRule)


class Ruled(Generic[R]):
    """A layer whose weight is seen through a rule: its path, latent weight theta and the weight W it uses."""

    def __init__(self, path: str, layer: Any, rule: R) -> None:
        self.path, self.layer, self.rule = path, layer, rule

    @property
    def theta(self) -> nn.Parameter:
        parameter: nn.Parameter = self.layer.parametrizations["weight"].original
        return parameter

    @property
    def weight(self) -> Tensor:
        """W, without a graph."""
        with torch.no_grad():
            weight: Tensor = self.rule(self.theta)
            return weight


def install_rules(layers: Iterable[tuple[str, Any]], make: Callable[[str, Tensor], R]) -> list[Ruled[R]]:
    """See the `weight` of every layer, given with its path, through `make(path, weight)`.

    Raises ValueError for a layer that is seen through another rule already.
    """
    made = []  # Ruled
    for path, layer in layers:
        if parametrize.is_parametrized(layer):
            raise ValueError(f"{path} has another parametrisation already; remove it first")
        rule = make(path, layer.weight.detach())
        parametrize.register_parametrization(layer, "weight", rule)
        made.append(Ruled(path, layer, rule))
    return made


def ruled(model: nn.Module, kind: type[R]) -> Iterator[Ruled[R]]:
    """The layers of `model` that are seen through a rule of this class, in their order."""
    path: str
    layer: Any
    for path, layer in model.named_modules():
        if parametrize.is_parametrized(layer, "weight"):
            for rule in layer.parametrizations["weight"]:
                if isinstance(rule, kind):
                    yield Ruled(path, layer, rule)


def bake_rules(model: nn.Module, kind: type[WeightRule] = WeightRule) -> nn.Module:
    """Write W into plain layers, in place: same outputs, zeros that are stored as zeros, nothing extra."""
    for entry in list(ruled(model, kind)):
        layer, theta, weight = entry.layer, entry.theta, entry.weight
        # Not parametrize.remove_parametrizations: that also takes the weight from every deep copy of the layer.
        layer.__class__ = parametrize.type_before_parametrizations(layer)
        del layer.parametrizations
        theta.data = weight
        layer.register_parameter("weight", theta)
    return model
