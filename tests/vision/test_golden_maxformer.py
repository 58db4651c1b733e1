"""Max-Former and MS-QKFormer against the numbers of their released code: spikes, logits, gradients, statistics."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from spikeloom.accel.spiking.neuron import LIF
from spikeloom.vision import maxformer_names as maxformer
from spikeloom.vision.convert import Converted, to_released
from spikeloom.vision.energy import count_operations, designed_exceptions
from spikeloom.vision.models.spiking_transformer import SpikingTransformer
from tests.golden import Golden, golden_files
from tests.vision.test_golden import assert_step_equal, build, images, spikes_of, step

FILES = ("maxformer_*.safetensors", "ms_qkformer_*.safetensors")


def assert_traces_equal(golden: Golden, prefix: str, converted: Converted, counts: dict[str, Tensor]) -> None:
    names = maxformer.neuron_names(converted.sizes.scheme, converted.sizes.depths)
    traces = golden.under(prefix)
    assert {names[released] for released in traces} == set(counts)
    for released, expected in traces.items():
        assert torch.equal(counts[names[released]], expected), f"{golden.path.name} {released}"


@pytest.mark.golden
@pytest.mark.parametrize("pattern", FILES)
def test_released_weights_give_released_spikes_and_logits(pattern: str) -> None:
    for golden in golden_files(pattern):
        converted = build(golden)
        with torch.no_grad():
            logits, counts = spikes_of(converted.model.eval(), images(golden))
        assert_traces_equal(golden, "trace", converted, counts)
        torch.testing.assert_close(logits, golden.tensors["logits"], atol=1e-5, rtol=0)
        if "eval_batch_input" in golden.tensors:
            with torch.no_grad():
                logits = converted.model(images(golden, "eval_batch_input"))
            torch.testing.assert_close(logits, golden.tensors["eval_batch_logits"], atol=1e-5, rtol=0)


@pytest.mark.golden
@pytest.mark.parametrize("pattern", FILES)
@pytest.mark.parametrize("keeping", ["all", "compact", "checkpoints", "compact, skipping zeros"])
def test_a_training_step_gives_released_loss_gradients_and_statistics(pattern: str, keeping: str) -> None:
    for golden in golden_files(pattern):
        converted = build(golden)
        counts, _ = step(golden, converted, keeping)
        assert_traces_equal(golden, "trace_train", converted, counts)
        names = maxformer.tensor_names(converted.sizes.scheme, converted.sizes.depths)
        # Sums along channels last round once more.
        assert_step_equal(golden, converted, names, noise=2e-6 if "skipping" in keeping else 1e-6)


@pytest.mark.golden
@pytest.mark.parametrize("pattern", FILES)
def test_weights_go_back_to_their_released_names(pattern: str) -> None:
    for golden in golden_files(pattern):
        state = golden.under("state")
        back = to_released(build(golden).model)
        assert set(back) == set(state)
        assert all(torch.equal(back[key], state[key]) for key in state)


@pytest.mark.golden
@pytest.mark.parametrize("pattern", FILES)
def test_only_the_first_convolution_is_given_other_values_than_spikes(pattern: str) -> None:
    for golden in golden_files(pattern):
        model = build(golden).model.eval()
        counted = count_operations(model, [images(golden)])
        exceptions = set(counted.spike_driven.exceptions)
        assert exceptions == designed_exceptions(model) == {"stages.0.embed.entry.0.conv"}


def threshold_of_attention(model: SpikingTransformer) -> SpikingTransformer:
    for path, m in model.named_modules():
        if isinstance(m, LIF) and path.endswith("attn_lif"):
            m.parameters_ = replace(m.parameters_, threshold=1.0)
    return model


def neurons_in_front_of_the_mean(model: SpikingTransformer) -> SpikingTransformer:
    model.readout = "lif_mean"
    return model


def another_tau(model: SpikingTransformer) -> SpikingTransformer:
    for m in model.modules():
        if isinstance(m, LIF):
            m.parameters_ = replace(m.parameters_, tau=1.5)
    return model


@pytest.mark.golden
@pytest.mark.parametrize("mutate", [threshold_of_attention, neurons_in_front_of_the_mean, another_tau])
@pytest.mark.parametrize("pattern", FILES)
def test_a_planted_defect_leaves_the_released_logits(pattern: str, mutate: Callable[[nn.Module], nn.Module]) -> None:
    moved = []
    for golden in golden_files(pattern):
        with torch.no_grad():
            got = mutate(build(golden).model.eval())(images(golden))
        moved.append(float((got - golden.tensors["logits"]).abs().max()))
    assert max(moved) > 1e-3


@pytest.mark.parametrize("readout", ["mean", "mean_lif", "lif_mean"])
def test_steps_one_by_one_are_the_whole_with_every_readout(readout: str) -> None:
    torch.manual_seed(0)
    model = SpikingTransformer(
        tokenizer="max", widths=(16, 32), depths=(1, 1), heads=4, attention=("dwc3", "ssa"), layout="cifar",
        mlp_ratio=1, readout=readout, num_classes=5,
    )  # fmt: skip
    x = torch.randn(6, 3, 3, 16, 16)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
                nn.init.uniform_(module.bias, 0.3, 0.9)
        model.train()(x)
        model.eval()
        whole, state, steps = model(x), None, []
        for frame in x:
            logits, state = model.step(frame, state)
            steps.append(logits)
        torch.testing.assert_close(torch.stack(steps).mean(0), whole, atol=1e-5, rtol=0)
        torch.testing.assert_close(model(x[:, 1:2]), whole[1:2], atol=1e-5, rtol=0)
        assert torch.equal(model.forward_head(model.forward_features(x)), whole)
        assert model.forward_head(model.forward_features(x), pre_logits=True).shape == (3, 32)


@pytest.mark.parametrize("ablation", [{"neuron_kind": "if"}, {"neuron_kind": "plif"}, {"shortcut": False}])
def test_ablations_train_and_differ_from_the_published_form(ablation: dict[str, object]) -> None:
    sizes = {"tokenizer": "speds", "widths": (16, 32), "depths": (1, 1), "heads": 4, "attention": ("qkta", "qkca")}
    torch.manual_seed(0)
    changed = SpikingTransformer(**sizes, **ablation)
    torch.manual_seed(0)
    published = SpikingTransformer(**sizes)
    n, m = (sum(p.numel() for p in model.parameters()) for model in (changed, published))
    populations = sum(isinstance(module, LIF) for module in published.modules())
    assert n - m == {"if": 0, "plif": populations}.get(str(ablation.get("neuron_kind")), n - m)
    assert ("shortcut" in ablation) == (n < m)
    x = torch.randn(2, 3, 16, 16)
    loss = changed.train()(x).square().sum()
    loss.backward()
    assert all(p.grad is not None for p in changed.parameters())
