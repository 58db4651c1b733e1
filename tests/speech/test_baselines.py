"""The networks beside SpikeSCR: their sizes, what they cost, and that padding and batch mates never matter."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spikeloom.accel.analysis.operations import OperationCounter
from spikeloom.speech.energy import _gru_gates
from spikeloom.speech.models import recurrent, temporal_conv
from spikeloom.speech.models.loading import load_model
from spikeloom.speech.models.prediction import layer_name, record_spikes
from spikeloom.speech.models.readout import (
    log_mean_probability,
    mean_logits,
    output_lengths,
    padding_mask,
    read_out,
    valid_steps,
)  # fmt: skip
from spikeloom.speech.models.recurrent import GRUConfig, GRULayer, LIFNetworkConfig
from spikeloom.speech.models.spikescr import SpikeSCRConfig
from spikeloom.speech.models.temporal_conv import TemporalConvConfig

DILATED = TemporalConvConfig(channels=[48, 64, 80, 96], strides=[1] * 4, dilations=[1, 2, 4, 8], kernel=5, causal=True)
MODELS: dict[str, tuple[Any, int]] = {
    "cnn": (TemporalConvConfig(), 262_392),
    "ds_cnn": (TemporalConvConfig(channels=[96, 128, 160], separable=True), 164_300),
    "tcn": (DILATED, 242_600),
    "spiking_tcn": (TemporalConvConfig(strides=[1, 2, 1], neuron="lif"), 259_992),
    "ms_tcn": (TemporalConvConfig(strides=[1, 2, 1], neuron="lif", shortcut="currents", tau=1.25), 259_992),
    "gru": (GRUConfig(), 254_632),
    "lif": (LIFNetworkConfig(), 112_682),
    "recurrent_lif": (LIFNetworkConfig(recurrent=True), 243_754),
}


def built(name: str, dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = MODELS[name][0].build(140, 40)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):  # statistics that let neurons fire
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.02, 0.2)
    return model.to(dtype).eval()


def frames(steps: int = 41, batch: int = 3) -> Tensor:
    return torch.rand(steps, batch, 140, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_those_of_the_configuration_and_at_most_three_hundred_thousand(name: str) -> None:
    config, n_parameters = MODELS[name]
    assert sum(p.numel() for p in config.build(140, 40).parameters()) == n_parameters <= 300_000


@pytest.mark.parametrize("name", MODELS)
def test_padding_and_batch_mates_change_nothing_and_get_no_gradient(name: str) -> None:
    model, x = built(name), frames()
    lengths = torch.tensor([41, 30, 17])
    alone = torch.cat([read_out(model, model(x[:n, i : i + 1])) for i, n in enumerate(lengths.tolist())])
    past = torch.arange(41)[:, None] >= lengths
    for garbage in (0.0, 7.0, float("nan")):
        padded = torch.where(past[:, :, None], garbage, x).requires_grad_()
        log_p = read_out(model, model(padded, lengths), lengths)
        torch.testing.assert_close(log_p, alone, atol=1e-9, rtol=0)
        log_p[0].sum().backward()
        assert padded.grad is not None
        assert int(padded.grad[:, 1:].count_nonzero()) == 0
        assert int(padded.grad[:, 0].count_nonzero()) > 0


@pytest.mark.parametrize("name", MODELS)
def test_training_is_the_same_whatever_the_padding_holds(name: str) -> None:
    lengths = torch.tensor([41, 30, 17])
    past = torch.arange(41)[:, None] >= lengths
    losses = []
    for garbage in (0.0, 5.0):
        model, x = built(name).train(), torch.where(past[:, :, None], garbage, frames())
        for module in model.modules():
            if hasattr(module, "p"):
                module.p = 0.0
        losses.append(float(read_out(model, model(x, lengths), lengths)[:, 3].sum()))
    assert losses[0] == pytest.approx(losses[1], abs=1e-9)


@pytest.mark.parametrize("name", ["tcn", "gru", "lif", "recurrent_lif"])
def test_causal_networks_see_no_future(name: str) -> None:
    model, x = built(name), frames()
    later = x.clone()
    later[20:] += 1
    assert torch.equal(model(x)[:20], model(later)[:20])


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_model_is_loaded_as_its_own_kind(name: str, tmp_path: Path) -> None:
    model = built(name, torch.float32)
    model.save_pretrained(tmp_path)
    again = load_model(tmp_path).eval()
    assert type(again) is type(model)
    x = frames().float()
    assert torch.equal(again(x), model(x))


def test_the_units_are_those_of_pytorch() -> None:
    layer, reference = GRULayer(7, 5).double(), nn.GRU(7, 5).double()
    reference.weight_ih_l0, reference.bias_ih_l0 = layer.inputs.weight, layer.inputs.bias
    reference.weight_hh_l0, reference.bias_hh_l0 = layer.recurrent.weight, layer.recurrent.bias
    x = torch.randn(9, 4, 7, dtype=torch.float64)
    torch.testing.assert_close(layer(x), reference(x)[0])


def test_a_gated_layer_is_counted_with_its_gates() -> None:
    layer = GRULayer(7, 5)
    with torch.inference_mode(), OperationCounter(layer, {GRULayer: _gru_gates}) as counter:
        layer(torch.randn(9, 1, 7))
    assert {path: c.mac for path, c in counter.connections.items()} == {"inputs": 9 * 7 * 15, "recurrent": 9 * 5 * 15}
    assert [p.mac for p in counter.products.values()] == [9 * 3 * 5]


def test_with_shortcuts_of_currents_every_convolution_of_a_block_reads_spikes() -> None:
    model = built("ms_tcn", torch.float32)
    read: dict[str, Tensor] = {}
    for path, module in model.named_modules():
        if isinstance(module, nn.Conv1d):
            module.register_forward_pre_hook(lambda _, args, path=path: read.update({path: args[0].detach()}))
    model(frames().float())
    assert len(read) == 9
    assert all(set(values.unique().tolist()) == {0.0, 1.0} for path, values in read.items() if path != "stem.maps.0")


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"shortcut": "both", "neuron": "lif"}, "model.shortcut=both"),
        ({"shortcut": "currents"}, "neuron=relu"),
        ({"spiking_head": True, "neuron": "lif"}, "needs shortcut=currents"),
    ],
)
def test_shortcuts_that_are_not_defined_are_refused(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TemporalConvConfig(**keys).build(140, 40)


@pytest.mark.parametrize("name", ["spiking_tcn", "ms_tcn", "lif", "recurrent_lif"])
def test_spikes_of_every_population_are_recorded_over_all_steps(name: str) -> None:
    spikes = record_spikes(built(name, torch.float32), frames()[:, 0].float())
    assert spikes
    assert {len(s) for s in spikes.values()} <= {41, 21}
    assert all(set(s.ravel().tolist()) <= {0.0, 1.0} for s in spikes.values())
    assert record_spikes(built("cnn", torch.float32), frames()[:, 0].float()) == {}


@pytest.mark.parametrize("name", MODELS)
def test_clips_without_padding_train_bit_for_bit_as_with_a_mask_of_all_steps(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, lengths = frames(12).float(), torch.tensor([12, 12, 12])
    assert padding_mask(lengths, 12) is None
    assert padding_mask(lengths - torch.tensor([0, 1, 0]), 12) is not None

    def trained() -> list[Tensor]:
        model = built(name, torch.float32).train()
        log_p = read_out(model, model(x, lengths), lengths)
        log_p[:, 0].sum().backward()
        return [log_p.detach(), *(p.grad for p in model.parameters() if p.grad is not None), *model.buffers()]

    unmasked = trained()
    for module in (temporal_conv, recurrent):
        monkeypatch.setattr(module, "padding_mask", valid_steps)
    assert all(torch.equal(a, b) for a, b in zip(unmasked, trained(), strict=True))


def test_a_strided_network_tells_how_long_its_output_is() -> None:
    model, lengths = built("cnn"), torch.tensor([1, 2, 8, 9, 41])
    assert output_lengths(model, lengths).tolist() == [len(model(frames(n, 1))) for n in lengths.tolist()]  # type: ignore[union-attr]
    assert output_lengths(built("gru"), lengths) is lengths


def test_both_readouts_are_over_valid_steps() -> None:
    logits, lengths = torch.randn(5, 2, 3), torch.tensor([5, 2])
    model = SpikeSCRConfig(width=16, heads=1, readout="mean_logit").build(4, 3)
    torch.testing.assert_close(read_out(model, logits, lengths)[1], logits[:2, 1].mean(0).log_softmax(0))
    torch.testing.assert_close(mean_logits(logits), logits.mean(0))
    probability = logits[:2, 1].softmax(1).mean(0).log()
    torch.testing.assert_close(log_mean_probability(logits, lengths)[1], probability)
    with pytest.raises(ValueError, match=r"model\.readout=vote is unknown; use mean_probability or mean_logit"):
        SpikeSCRConfig(width=16, heads=1, readout="vote").build(4, 3)


@pytest.mark.parametrize(
    ("changes", "absent", "present"),
    [
        ({"global_branch": False}, ".attention", ".convolution"),
        ({"local_branch": False}, ".convolution", ".attention"),
        ({"kernel": 7}, "", ".convolution"),
        ({"rotary": False}, "", ".attention"),
        ({"learned_tau": True}, "", ".lif.w"),
    ],
)
@pytest.mark.parametrize("causal", [False, True])
def test_what_an_ablation_leaves_out_is_gone_and_the_rest_runs(
    changes: dict[str, Any], absent: str, present: str, causal: bool
) -> None:
    model = SpikeSCRConfig(width=16, heads=1, causal=causal, **changes).build(140, 5).eval()
    keys = " ".join(model.state_dict())
    assert present in keys
    assert not absent or absent not in keys
    x = frames(12).float()
    assert model(x).shape == (12, 3, 5)
    if causal:
        first, state = model.stream(x[:5])
        rest, _ = model.stream(x[5:], state)
        torch.testing.assert_close(torch.cat((first, rest)), model(x))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (TemporalConvConfig(strides=[2]), "channels, strides and dilations have 3, 1 and 3 entries"),
        (TemporalConvConfig(neuron="elu"), "neuron=elu is unknown; use relu or lif"),
        (TemporalConvConfig(kernel=4), "kernel=4"),
        (SpikeSCRConfig(kernel=8), "kernel=8 must be an odd number"),
        (SpikeSCRConfig(global_branch=False, local_branch=False), "leave one of them"),
    ],
)
def test_sizes_that_make_no_network_are_refused(config: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config.build(140, 40)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("embedding.neurons.lif", "embedding"),
        ("embedding.first_neurons.lif", "embedding: first"),
        ("blocks.0.attention.qkv_neurons.lif", "block 1, attention: qkv"),
        ("blocks.1.attention.gates.local_neurons.lif", "block 2, attention: gates local"),
        ("blocks.2.first_neurons.neuron", "block 3: first"),
        ("stem_neurons.neuron", "stem"),
        ("layers.0.neurons", "layer 1"),
        ("layers.1.inputs.linear", "layer 2, inputs: linear"),
        ("head", "head"),
    ],
)
def test_layers_have_names_of_their_own(path: str, name: str) -> None:
    assert layer_name(path) == name
