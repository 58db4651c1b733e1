"""Is a network spike-driven? Every convolution, linear layer and attention product is watched while real inputs pass.

A layer is driven by spikes when everything it ever saw was exactly 0 or 1. Two layers of a spike-driven network may see
real values: the first convolution (pixels, event counts) and the classifier (averages). Any other exception means that
hardware must multiply there. A `sew` residual sums spikes, so its stream holds 2, 3, …: integers, which are events to
add but no spikes, and it fails here with its list. A silent layer proves nothing: the verdict is then "void".
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from accel.spiking.neuron import LIF
from vision.blocks import SpikeProduct, SpikeSum, _heads
from vision.spiking_transformer import SpikingTransformer

Verdict = Literal["spike-driven", "not spike-driven", "void"]


@dataclass(kw_only=True)
class Seen:
    """What one layer saw. For an attention product: its spike operands, all of them."""

    path: str
    binary: bool = True
    integer: bool = True
    largest: float = 0.0
    nonzero: int = 0
    inputs: int = 0

    @property
    def rate(self) -> float:
        return self.nonzero / self.inputs if self.inputs else 0.0

    def add(self, x: Tensor) -> None:
        self.binary &= bool(((x == 0) | (x == 1)).all())
        self.integer &= bool((x == x.round()).all())
        self.largest = max(self.largest, float(x.abs().max()))
        self.nonzero += int(x.count_nonzero())
        self.inputs += x.numel()


@dataclass(frozen=True, kw_only=True)
class Purity:
    """The finding. `exceptions` saw something else than 0 and 1; `permitted` of them are part of the design."""

    layers: tuple[Seen, ...]  # convolutions and linear layers, in the order of use
    products: tuple[Seen, ...]  # attention products
    permitted: frozenset[str]

    @property
    def exceptions(self) -> frozenset[str]:
        return frozenset(seen.path for seen in (*self.layers, *self.products) if not seen.binary)

    @property
    def silent(self) -> frozenset[str]:
        return frozenset(seen.path for seen in (*self.layers, *self.products) if seen.nonzero == 0)

    @property
    def binary_layers(self) -> int:
        return sum(seen.binary for seen in self.layers)

    @property
    def verdict(self) -> Verdict:
        if self.exceptions - self.permitted:
            return "not spike-driven"
        return "void" if self.silent else "spike-driven"


class PurityProbe:
    """`with PurityProbe(model) as probe: model(x)`, then `probe.purity()`. Works in training and under autocast."""

    def __init__(self, model: SpikingTransformer) -> None:
        self.permitted = permitted(model)
        kinds = (nn.Conv1d, nn.Conv2d, nn.Linear)
        self._layers = {path: m for path, m in model.named_modules() if isinstance(m, kinds)}
        self._products = {path: m for path, m in model.named_modules() if isinstance(m, SpikeProduct | SpikeSum)}
        self._seen: dict[str, Seen] = {}  # in the order of use
        self._hooks: list[Any] = []

    def __enter__(self) -> "PurityProbe":
        for path, layer in self._layers.items():
            self._hooks.append(layer.register_forward_pre_hook(self._on_inputs(path)))
        for path, product in self._products.items():
            self._hooks.append(product.register_forward_pre_hook(self._on_inputs(path)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _on_inputs(self, path: str) -> Any:
        def look(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            seen = self._seen.setdefault(path, Seen(path=path))
            for x in args:
                seen.add(x.detach())
            if isinstance(module, SpikeProduct):
                check_first_product(module, args[1].detach(), args[2].detach(), path)

        return look

    def purity(self) -> Purity:
        """The finding over everything that passed. Raises ValueError for a layer that never ran."""
        missing = sorted((self._layers.keys() | self._products.keys()) - self._seen.keys())
        if missing:
            raise ValueError(f"{', '.join(missing)} never ran; give the model at least one input")
        return Purity(
            layers=tuple(s for path, s in self._seen.items() if path in self._layers),
            products=tuple(s for path, s in self._seen.items() if path in self._products),
            permitted=self.permitted,
        )


def check_first_product(product: SpikeProduct, k: Tensor, v: Tensor, path: str) -> None:
    """k^T v of spikes counts coincidences over N tokens: whole numbers up to N. Raises ValueError otherwise."""
    k_TBHdN, v_TBHdN = (_heads(z.float(), product.heads) for z in (k, v))
    kv = v_TBHdN @ k_TBHdN.mT
    if not bool((kv == kv.round()).all()) or float(kv.max()) > k_TBHdN.shape[4]:
        raise ValueError(
            f"{path}: k^T v reaches {float(kv.max())}, more than its {k_TBHdN.shape[4]} tokens; not spikes"
        )


def permitted(model: SpikingTransformer) -> frozenset[str]:
    """The two layers of a spike-driven network that see real values: first convolution and classifier."""
    return frozenset({encoder_path(model), "head"} if model.num_classes else {encoder_path(model)})


def encoder_path(model: SpikingTransformer) -> str:
    """Path of the convolution that sees the input."""
    first = "entry" if model.tokenizer == "speds" else "units"
    return f"stages.0.embed.{first}.0.conv"


def designed_exceptions(model: SpikingTransformer) -> frozenset[str]:
    """Exactly the layers that see other values than 0 and 1 by design.

    ms: those of `permitted`. sew: besides, every reader of the stream of sums: q, k (and v) of every block, the first
    convolution of every MLP, the first and the shortcut convolution of every later embedding.
    """
    found = set(permitted(model))
    if model.residual == "sew":
        for i, stage in enumerate(model.stages):
            if i:
                found |= {f"stages.{i}.embed.main.0.conv", f"stages.{i}.embed.shortcut.conv"}
            for j, block in enumerate(stage.blocks):  # type: ignore[arg-type]
                names = ("attn.q", "attn.k", *(["attn.v"] if block.attn.v is not None else []), "mlp.up")
                found |= {f"stages.{i}.blocks.{j}.{name}.conv" for name in names}
    return frozenset(found)


def warm(model: SpikingTransformer, batches: Iterable[Tensor]) -> None:
    """Set running statistics to those of the last of some training passes, so that an untrained model fires.

    An untrained model in evaluation mode can be silent from the second layer on, and passes every test of purity.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta, was_training = [m.momentum for m in norms], model.training
    for norm in norms:
        norm.momentum = 1.0
    model.train()
    with torch.no_grad():
        for x in batches:
            model(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.train(was_training)


@contextmanager
def firing_rates(model: nn.Module) -> Iterator[dict[str, float]]:
    """`with firing_rates(model) as rates: model(x)`: share of neurons that fire in a step, by path."""
    fired: dict[str, tuple[int, int]] = {}  # path -> spikes, places
    rates: dict[str, float] = {}

    def watch(path: str) -> Any:
        def hook(module: nn.Module, args: Any, out: tuple[Tensor, Any]) -> None:
            spikes, places = fired.get(path, (0, 0))
            fired[path] = spikes + int(out[0].count_nonzero()), places + out[0].numel()
            rates[path] = fired[path][0] / fired[path][1]

        return hook

    hooks = [m.register_forward_hook(watch(path)) for path, m in model.named_modules() if isinstance(m, LIF)]
    try:
        yield rates
    finally:
        for hook in hooks:
            hook.remove()
