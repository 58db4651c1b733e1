"""Defects that are easy to make, planted on purpose: the released numbers must notice every one of them.

A golden test that a wrong model passes would prove nothing. Each mutation is one of the mistakes a reader of the
equations could make; in at least one file the logits must then leave their tolerance by far. One file may not notice:
without an exact tie `>` is `>=`, and a head of 64 channels has the scale 1/8 anyway.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from spikeloom.accel.spiking.neuron import LIF
from spikeloom.vision.models.blocks import ATTENTION_SCALE, SpikeProduct, SpikingAttention
from spikeloom.vision.models.spiking_transformer import SpikingTransformer
from tests.golden import golden_files
from tests.vision.test_golden import build, images

CLEAR = 1e-3  # a hundred tolerances


class LIFOfTheWholeBatch(LIF):
    """The mistake of the released attention: samples stand behind each other in time."""

    def forward(self, x: Tensor, state=None):
        spikes, state = super().forward(x.flatten(0, 1), None)
        return spikes.view_as(x), state


def greater_instead_of_at_least(model: SpikingTransformer) -> SpikingTransformer:
    """h > th is h >= the next float32 above th."""
    for m in model.modules():
        if isinstance(m, LIF):
            above = float(np.nextafter(np.float32(m.parameters_.threshold), np.float32(np.inf)))
            m.parameters_ = replace(m.parameters_, threshold=above)
    return model


def scale_by_the_width_of_a_head(model: SpikingTransformer) -> SpikingTransformer:
    def rescale(product: SpikeProduct, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        return out / ATTENTION_SCALE * (args[0].shape[2] // product.heads) ** -0.5

    for m in model.modules():
        if isinstance(m, SpikeProduct):
            m.register_forward_hook(rescale)
    return model


def pool_sums_instead_of_spikes(model: SpikingTransformer) -> SpikingTransformer:
    """The same weights in the order of CML."""
    block = model.stages[0].blocks[0]
    other = SpikingTransformer(
        in_chans=model.in_chans, num_classes=model.num_classes, T=model.T, tokenizer="cml", layout=model.layout,
        widths=(model.num_features,), depths=(len(model.stages[0].blocks),), heads=block.attn.mix.heads,
        mlp_ratio=block.mlp.up.conv.out_channels / model.num_features,
        tau=block.attn.attn_lif.parameters_.tau,
    )  # fmt: skip
    other.load_state_dict(model.state_dict())
    return other.train(model.training)


def tau_of_pictures(model: SpikingTransformer) -> SpikingTransformer:
    for m in model.modules():
        if isinstance(m, LIF):
            m.parameters_ = replace(m.parameters_, tau=2.0)
    return model


def neurons_across_samples(model: SpikingTransformer) -> SpikingTransformer:
    for m in model.modules():
        if isinstance(m, SpikingAttention) and m.kind == "ssa":
            assert isinstance(m.proj.lif, LIF)
            m.proj.lif = LIFOfTheWholeBatch(m.proj.lif.parameters_)
    return model


def wrong_by(pattern: str, mutate: Callable[[nn.Module], nn.Module], entry: str, logits: str) -> list[float]:
    """max |difference of logits| for every file that has `entry`."""
    found = []
    for golden in golden_files(pattern):
        if entry in golden.tensors:
            with torch.no_grad():
                got = mutate(build(golden).model.eval())(images(golden, entry))
            found.append(float((got - golden.tensors[logits]).abs().max()))
    return found


@pytest.mark.golden
@pytest.mark.parametrize(
    ("pattern", "mutate"),
    [
        ("spikingformer_*.safetensors", greater_instead_of_at_least),
        ("qkformer_*.safetensors", greater_instead_of_at_least),
        ("spikingformer_*.safetensors", scale_by_the_width_of_a_head),
        ("qkformer_*.safetensors", scale_by_the_width_of_a_head),
        ("spikingformer_*.safetensors", pool_sums_instead_of_spikes),
        ("spikingformer_dvs*.safetensors", tau_of_pictures),
    ],
)
def test_a_planted_defect_leaves_the_released_logits(pattern: str, mutate: Callable[[nn.Module], nn.Module]) -> None:
    assert max(wrong_by(pattern, mutate, "input", "logits")) > CLEAR


@pytest.mark.golden
def test_neurons_that_run_on_into_the_next_sample_are_noticed_in_a_batch() -> None:
    of_batches = wrong_by("qkformer_*.safetensors", neurons_across_samples, "eval_batch_input", "eval_batch_logits")
    if not of_batches:
        pytest.skip("no qkformer golden file with a batch of samples")
    assert max(of_batches) > CLEAR
    single = [
        golden for golden in golden_files("qkformer_*.safetensors") if images(golden).shape[-4] == 1
    ]  # one sample has no neighbour: there the defect is invisible, and the batch is needed
    for golden in single:
        with torch.no_grad():
            got = neurons_across_samples(build(golden).model.eval())(images(golden))
        torch.testing.assert_close(got, golden.tensors["logits"], atol=1e-5, rtol=0)
