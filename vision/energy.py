"""Operations and energy of one inference of a vision model, from shapes and from the spikes of real inputs.

Layers are counted by `spikeloom.accel.analysis`. Two ways to count attention of spiking transformers:

event by event   k^T v adds |k_n|*|v_n| at each token n of a head, q (k^T v) adds d for each spike of q; a gate adds |q|
formula          the published rule: T * heads * N * d^2 * (min(rate_k, rate_v) + rate_q)

Both book a layer as additions (AC) only where everything it was given was 0 or 1, and both always count the first
convolution and a classifier of averages as MACs: pixels, counts of events, averages. The formula over-counts at padded
borders.

A static image needs its first convolution once; published figures count it T times. `count_encoder_once` chooses.
Dense MACs are what nothing skipped would cost, taps on padding included, as published.
"""

from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from spikeloom.accel.analysis.energy import Convention, EnergyConstants, Operations, per_inference
from spikeloom.accel.analysis.operations import SPIKING, OperationCounter, Product
from spikeloom.vision.models.blocks import SpikeProduct, SpikeSum, _heads
from spikeloom.vision.models.prediction import layer_name
from spikeloom.vision.models.spiking_transformer import SpikingTransformer


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
    """MACs that a spike-driven model needs whatever its spikes, those of `permitted`, bias included."""
    shapes = {layer.path: layer for layer in layer_shapes(model, input_size)}
    encoder = shapes[encoder_path(model)]
    times = 1 if count_encoder_once else (T or model.T)
    once = [shapes[path] for path in permitted(model) - {encoder_path(model)}]
    return times * (encoder.macs + encoder.bias_adds) + sum(layer.macs + layer.bias_adds for layer in once)


def encoder_path(model: SpikingTransformer) -> str:
    """Path of the convolution that sees the input."""
    first = "entry" if model.tokenizer in ("speds", "max") else "units"
    return f"stages.0.embed.{first}.0.conv"


def permitted(model: SpikingTransformer) -> frozenset[str]:
    """The layers of a spike-driven network that are given real values: the first convolution and, where it does not
    classify the spikes of each step, the classifier."""
    classifies_spikes = model.readout == "mean_lif" or not model.num_classes
    return frozenset({encoder_path(model)} if classifies_spikes else {encoder_path(model), "head"})


def designed_exceptions(model: SpikingTransformer) -> frozenset[str]:
    """Exactly the layers that are given other values than 0 and 1 by design.

    ms: those of `permitted`. sew: besides, every reader of the stream of sums: q, k (and v) of every block, the first
    convolution of every MLP, the first and the shortcut convolution of every later embedding.
    """
    found = set(permitted(model))
    if model.residual == "sew":
        for i, stage in enumerate(model.stages):
            if i:
                found |= {f"stages.{i}.embed.main.0.conv", f"stages.{i}.embed.shortcut.conv"}
            for j, block in enumerate(stage.blocks):  # type: ignore[arg-type]
                assert block.attn is not None  # mixers need real residuals
                names = ("attn.q", "attn.k", *(["attn.v"] if block.attn.v is not None else []), "mlp.up")
                found |= {f"stages.{i}.blocks.{j}.{name}.conv" for name in names}
    return frozenset(found)


def counting(model: nn.Module) -> OperationCounter:
    """The counter of a vision model, which knows the products of spiking attention."""
    return OperationCounter(model, {SpikeProduct: _attention, SpikeSum: _attention})


def count_operations(
    model: nn.Module, batches: Iterable[Tensor], *, count_encoder_once: bool = False,
    constants: EnergyConstants | None = None,
) -> Operations:  # fmt: skip
    """Run `batches` (images [B, C, H, W], or frames as the model takes them) in evaluation mode and count."""
    was_training, samples, steps, static = model.training, 0, getattr(model, "T", 1), False
    batch_first = bool(getattr(model, "batch_first", False))
    model.eval()
    try:
        with torch.inference_mode(), counting(model) as counter:
            for x in batches:
                static = x.dim() == 4
                samples += x.shape[0] if static or batch_first else x.shape[1]
                if not static:
                    if count_encoder_once:
                        raise ValueError("count_encoder_once is for pictures; frames differ, so leave it false")
                    steps = x.shape[1 if batch_first else 0]
                model(x)
    finally:
        model.train(was_training)
    if not samples:
        raise ValueError("operations are counted on real inputs, got none; give at least one batch")
    spiking = any(isinstance(m, SPIKING) for m in model.modules())
    if isinstance(model, SpikingTransformer):
        encoder, ran = encoder_path(model), 1 if static else steps
        convention = Convention(
            permitted=permitted(model), always_mac=permitted(model), whole_numbers_add=False, padded=True
        )
    else:
        encoder, ran = next(iter(counter.connections)), steps
        everything = frozenset(counter.connections)  # without neurons there are no events
        convention = Convention(padded=True, always_mac=frozenset() if spiking else everything)
    return per_inference(
        counter, samples=samples, steps=steps, what="picture" if static else "recording", convention=convention,
        name=layer_name, times={encoder: (1 if count_encoder_once else steps) / ran} if static else {},
        constants=constants, formula=spiking, network=f"this {type(model).__name__}",
        details={"T": steps, "count_encoder_once": count_encoder_once},
    )  # fmt: skip


def _attention(module: nn.Module, product: Callable[[str], Product]) -> list[RemovableHandle]:
    """Rule of one attention product over spikes q (k^T v), or of the sum of q that gates k."""
    assert isinstance(module, SpikeProduct | SpikeSum)
    fired = [0.0, 0.0, 0.0]  # spikes of q, k, v

    def add(mix: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
        found, spikes = product(""), [_heads(x.double(), module.heads) for x in args]  # [T, B, heads, d, N]
        width, tokens = spikes[0].shape[3:]
        for i, x in enumerate(spikes):
            fired[i] += float(x.sum())
            found.add(args[i].double())
        if isinstance(module, SpikeSum):
            found.ac += float(spikes[0].sum())
            found.formula_ac = fired[0]
            return
        q, k, v = spikes
        found.ac += float((k.sum(3) * v.sum(3)).sum()) + width * float(q.sum())
        found.dense += 2 * args[0].numel() * min(width, tokens)  # what is executed: the cheaper order of two products
        found.formula_ac = (fired[0] + min(fired[1:])) * width  # T * B * heads * N * d^2, times the rates

    return [module.register_forward_hook(add)]
