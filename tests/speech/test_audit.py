"""What an audit of SpikeSCR reports: which layers receive sums of spikes, and that a silent layer is no proof."""

import pytest
import torch
from torch import nn

from spikeloom.accel.analysis import report
from spikeloom.speech.energy import count_operations
from spikeloom.speech.models.spikescr import SpikeSCR
from tests.speech.test_energy import build, count_set, mel_set

READ_THE_SUM = ("attention.qkv", "feed_forward1.hidden", "convolution.expand", "feed_forward2.hidden")


def silence(model: SpikeSCR, *endings: str, units: slice = slice(None)) -> None:
    """Nothing that these batch norms feed reaches a threshold."""
    with torch.no_grad():
        for path, norm in model.named_modules():
            if isinstance(norm, nn.BatchNorm1d) and path.endswith(endings):
                norm.weight[units], norm.bias[units] = 0.0, -1.0


@pytest.mark.parametrize("clips", [mel_set, count_set])
def test_layers_that_read_the_sum_of_branches_are_the_exceptions(clips) -> None:
    found = count_operations(build(depth=2), clips(), 3)
    seen = found.spike_driven
    sums = [f"blocks.{block}.{layer}.linear" for block in (0, 1) for layer in READ_THE_SUM][1:]  # before it: spikes
    assert list(seen.exceptions) == ["embedding.conv.conv", *sums, "head"] and not seen.silent
    written = found.as_dict()
    assert seen.verdict == written["verdict"] == "not spike-driven" and written["exceptions"] == list(seen.exceptions)
    words = seen.sentence()
    assert "7 of 20 layers" in words and "block 2, attention: qkv" in words and "embedding" not in words
    assert report.facts(found)["layers that receive spikes, and only spikes"] == "13 of 22"


def test_branches_that_add_nothing_leave_a_stream_of_spikes() -> None:
    model = build()
    silence(model, "attention.out.norm", "feed_forward1.out.norm", "feed_forward2.out.norm")
    silence(model, "value_and_gate.norm", units=slice(0, 32))  # the value, not the gate
    seen = count_operations(model, mel_set(), 3).spike_driven
    assert seen.exceptions == ("embedding.conv.conv",) and seen.verdict == "spike-driven"
    assert "all 10 layers" in seen.sentence()


def test_a_silent_layer_makes_the_verdict_inconclusive_and_is_named() -> None:
    model = build()
    silence(model, "qkv.norm", "hidden.norm", "out.norm", "expand.norm", "depthwise_norm", "value_and_gate.norm")
    seen = count_operations(model, mel_set(), 3).spike_driven
    assert seen.exceptions == ("embedding.conv.conv",) and "blocks.0.attention.out.linear" in seen.silent
    assert seen.verdict == "inconclusive"
    assert "attention: out" in seen.sentence()
