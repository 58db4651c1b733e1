"""Operations and energy of one inference of a vision model, from shapes and from the spikes of real inputs.

    E_pj = 0.9 * AC + 4.6 * MAC          45 nm, 32-bit float (Horowitz, ISSCC 2014)

Two ways to count. Both call a layer spike-driven (AC) only when everything it saw was 0 or 1; every other is MAC, and
so are the first convolution and the classifier, whatever they saw: pixels, counts of events, averages.

exact     AC = sum over spikes, MAC = sum over inputs, of the synapses each really meets: borders, pruned weights;
          k^T v adds |k_n|*|v_n| at each token n of a head, q (k^T v) adds d for each spike of q; a gate adds its |q|
formula   the published rule. AC = rate of the inputs * operations of the layer, where operations include the bias;
          attention: T * heads * N * d^2 * (min(rate_k, rate_v) + rate_q). It over-counts at padded borders.

A static image needs its first convolution once; published figures count it T times. `count_encoder_once` chooses.
Batch norm is folded (0). Not counted: membranes, residual adds, memory. Dense MACs are what nothing skipped would cost.
"""

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from accel.spiking.operations import OperationCounter
from vision.blocks import SpikeProduct, SpikeSum, _heads
from vision.purity import Purity, PurityProbe, encoder_path
from vision.spiking_transformer import SpikingTransformer

Mode = Literal["exact", "formula"]


@dataclass(frozen=True, kw_only=True)
class EnergyConstants:
    """Energy of one operation at 45 nm, 32-bit float; 16-bit float: 0.4 and 1.5, 8-bit integer: 0.03 and 0.23."""

    ac_pj: float = 0.9
    mac_pj: float = 4.6

    def energy_pj(self, ac: float, mac: float) -> float:
        return self.ac_pj * ac + self.mac_pj * mac


@dataclass(frozen=True, kw_only=True)
class LayerShape:
    """One layer for one sample and one step: multiply-accumulates, and additions of a bias."""

    path: str
    macs: int
    bias_adds: int


def layer_shapes(model: SpikingTransformer, input_size: tuple[int, int, int]) -> tuple[LayerShape, ...]:
    """Convolutions and classifier of one step, in the order of use. Nothing is computed: shapes alone."""
    found: list[LayerShape] = []

    def watch(path: str) -> Any:
        def hook(layer: Any, args: tuple[Tensor, ...], out: Tensor) -> None:
            bias = out.numel() if layer.bias is not None else 0
            found.append(LayerShape(path=path, macs=out.numel() * layer.weight[0].numel(), bias_adds=bias))

        return hook

    shadow = deepcopy(model).to("meta").eval()
    for path, module in shadow.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(watch(path))
    with torch.no_grad():
        shadow(torch.empty(1, *input_size, device="meta"), 1)
    return tuple(found)


def dense_macs(model: SpikingTransformer, input_size: tuple[int, int, int]) -> int:
    """Multiply-accumulates of convolutions and classifier in one step; neither attention nor bias."""
    return sum(layer.macs for layer in layer_shapes(model, input_size))


def real_valued_macs(
    model: SpikingTransformer, input_size: tuple[int, int, int], T: int | None = None, count_encoder_once: bool = False
) -> int:
    """MACs that a spike-driven model needs whatever its spikes: first convolution and classifier, bias included."""
    shapes = {layer.path: layer for layer in layer_shapes(model, input_size)}
    encoder, head = shapes[encoder_path(model)], shapes["head"]
    times = 1 if count_encoder_once else (T or model.T)
    return times * (encoder.macs + encoder.bias_adds) + head.macs + head.bias_adds


@dataclass(frozen=True, kw_only=True)
class LayerOperations:
    """One layer or attention product, per inference."""

    path: str
    kind: Literal["layer", "attention"]
    binary: bool
    largest: float
    rate: float  # of its inputs; of an attention product: of all its operands together
    dense: float
    exact_ac: float
    exact_mac: float
    formula_ac: float
    formula_mac: float


@dataclass(frozen=True, kw_only=True)
class Operations:
    """Operations of one inference, mean over `samples`."""

    layers: tuple[LayerOperations, ...]
    purity: Purity
    T: int
    samples: int
    count_encoder_once: bool
    constants: EnergyConstants

    def total(self, what: str) -> float:
        """Sum over layers of one field, such as exact_ac or dense."""
        return sum(getattr(layer, what) for layer in self.layers)

    def dense_macs(self, kind: Literal["layer", "attention"]) -> float:
        return sum(layer.dense for layer in self.layers if layer.kind == kind)

    def energy_pj(self, mode: Mode) -> float:
        return self.constants.energy_pj(self.total(f"{mode}_ac"), self.total(f"{mode}_mac"))

    @property
    def multiplying(self) -> tuple[str, ...]:
        """Layers that were given something else than spikes."""
        return tuple(layer.path for layer in self.layers if not layer.binary)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        both: tuple[Mode, Mode] = ("exact", "formula")
        modes: dict[str, Any] = {
            mode: {"ac": self.total(f"{mode}_ac"), "mac": self.total(f"{mode}_mac"), "energy_pj": self.energy_pj(mode)}
            for mode in both
        }
        return {
            "verdict": self.purity.verdict, "exceptions": sorted(self.purity.exceptions),
            "permitted_exceptions": sorted(self.purity.permitted), "silent": sorted(self.purity.silent),
            "binary_layers": self.purity.binary_layers, "layers_total": len(self.purity.layers),
            "T": self.T, "samples": self.samples, "count_encoder_once": self.count_encoder_once,
            "ac_pj": self.constants.ac_pj, "mac_pj": self.constants.mac_pj,
            "dense_macs": self.dense_macs("layer"), "dense_attention_macs": self.dense_macs("attention"), **modes,
            "layers": [vars(layer) for layer in self.layers],
        }  # fmt: skip


def count_operations(
    model: SpikingTransformer,
    batches: Iterable[Tensor],
    *,
    count_encoder_once: bool = False,
    constants: EnergyConstants | None = None,
) -> Operations:
    """Run `batches` (images [B, C, H, W], or frames as the model takes them) in evaluation mode and count."""
    attention = {p: _Attention(m) for p, m in model.named_modules() if isinstance(m, SpikeProduct | SpikeSum)}
    hooks = [model.get_submodule(p).register_forward_hook(a.add) for p, a in attention.items()]
    was_training, samples, steps, static = model.training, 0, model.T, False
    model.eval()
    try:
        with torch.inference_mode(), OperationCounter(model) as counter, PurityProbe(model) as probe:
            for x in batches:
                static = x.dim() == 4
                samples += x.shape[0] if static or model.batch_first else x.shape[1]
                if not static:
                    if count_encoder_once:
                        raise ValueError("count_encoder_once is for pictures; frames differ, so leave it false")
                    steps = x.shape[1 if model.batch_first else 0]
                model(x)
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)
    if not samples:
        raise ValueError("operations are counted on real inputs, got none; give at least one batch")
    purity = probe.purity()
    rows = []
    for path, found in counter.connections.items():
        times = steps if static and path == encoder_path(model) and not count_encoder_once else 1
        share = times / samples
        layer: Any = model.get_submodule(path)
        dense = found.outputs * layer.weight[0].numel()  # padded borders included
        operations = dense + (found.outputs if layer.bias is not None else 0)
        adds = found.binary and path not in (encoder_path(model), "head")
        rows.append(
            LayerOperations(
                path=path, kind="layer", binary=found.binary, largest=found.largest, rate=found.rate,
                dense=share * dense,
                exact_ac=share * found.events if adds else 0.0,
                exact_mac=0.0 if adds else share * found.synapses,
                formula_ac=share * found.rate * operations if adds else 0.0,
                formula_mac=0.0 if adds else share * operations,
            )
        )  # fmt: skip
    products = {seen.path: seen for seen in purity.products}
    rows += [attended.row(path, products[path], samples) for path, attended in attention.items()]
    return Operations(
        layers=tuple(rows), purity=purity, T=steps, samples=samples, count_encoder_once=count_encoder_once,
        constants=constants or EnergyConstants(),
    )  # fmt: skip


class _Attention:
    """Totals of one attention product over everything that passed."""

    def __init__(self, module: SpikeProduct | SpikeSum) -> None:
        self.module = module
        self.exact = self.dense = self.places = 0.0
        self.formula_dense = 0.0
        self.fired = [0.0, 0.0, 0.0]  # spikes of q, k, v
        self.operands = 1

    def add(self, module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
        spikes = [_heads(x.double(), self.module.heads) for x in args]  # [T, B, heads, d, N]
        width, tokens = spikes[0].shape[3:]
        self.operands = len(args)
        self.places += args[0].numel()
        for i, x in enumerate(spikes):
            self.fired[i] += float(x.sum())
        if isinstance(self.module, SpikeSum):
            self.exact += float(spikes[0].sum())
            self.formula_dense += args[0].numel()
            return
        q, k, v = spikes
        self.exact += float((k.sum(3) * v.sum(3)).sum()) + width * float(q.sum())
        self.formula_dense += args[0].numel() * width  # T * B * heads * N * d^2
        # What is executed: the cheaper order of the two products.
        self.dense += 2 * args[0].numel() * min(width, tokens)

    def row(self, path: str, seen: Any, samples: int) -> LayerOperations:
        q, k, v = (fired / self.places for fired in self.fired)
        rates = q + min(k, v) if self.operands == 3 else q
        return LayerOperations(
            path=path, kind="attention", binary=seen.binary, largest=seen.largest, rate=seen.rate,
            dense=self.dense / samples, exact_ac=self.exact / samples, exact_mac=0.0,
            formula_ac=rates * self.formula_dense / samples, formula_mac=0.0,
        )  # fmt: skip
