"""SEW-ResNets and spiking ResNets: published sizes, the numbers of their released code, and what makes them safe."""

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikeloom.accel.analysis.operations import OperationCounter
from spikeloom.accel.learning.pruning.layers import weighted_layers
from spikeloom.accel.spiking.neuron import LIF
from spikeloom.vision.convert_resnet import convert_resnet, identify, neuron_names, tensor_names, to_released
from spikeloom.vision.models.resnets import RESNETS
from spikeloom.vision.models.spiking_resnet import SpikingResNet
from spikeloom.vision.models.variants import create_model, list_models
from tests.golden import Golden, golden_files, relative_l2
from tests.vision.test_golden import spikes_of

PATTERNS = ("sew_resnet_*.safetensors", "spiking_resnet_*.safetensors")
PUBLISHED = {  # depth: parameters, weights of convolutions, neuron populations of SEW and of the spiking form, tensors
    18: (11_689_512, 11_166_912, 20, 17, 122),
    34: (21_797_672, 21_267_648, 36, 33, 218),
    50: (25_557_032, 23_454_912, 53, 49, 320),
    101: (44_549_160, 42_394_816, 104, 100, 626),
    152: (60_192_808, 57_992_384, 155, 151, 932),
}


def built(golden: Golden) -> tuple[SpikingResNet, dict[str, str], dict[str, str]]:
    """The model, our names of its tensors and of its neurons."""
    connect = golden.json("config")["connect"]
    model, sizes = convert_resnet(
        golden.under("state"), T=int(golden.metadata["T"]), connect=connect.lower() if connect else None
    )
    return model, tensor_names(sizes), neuron_names(sizes)


@pytest.mark.parametrize("depth", PUBLISHED)
@pytest.mark.parametrize("form", ["sew", "spiking"])
def test_published_counts_are_exact(depth: int, form: str) -> None:
    parameters, convolutions, of_sew, of_spiking, tensors = PUBLISHED[depth]
    with torch.device("meta"):
        model = create_model(f"{form}_resnet{depth}")
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Conv2d)) == convolutions
    assert sum(isinstance(m, LIF) for m in model.modules()) == (of_sew if form == "sew" else of_spiking)
    assert len(model.state_dict()) == tensors


@pytest.mark.golden
@pytest.mark.parametrize("pattern", PATTERNS)
def test_released_weights_give_released_spikes_and_logits(pattern: str) -> None:
    for golden in golden_files(pattern):
        model, _, neurons = built(golden)
        with torch.no_grad():
            logits, counts = spikes_of(model.eval(), golden.tensors["input"])
        traces = golden.under("trace")
        assert {neurons[name] for name in traces} == set(counts)
        for name, expected in traces.items():
            assert torch.equal(counts[neurons[name]], expected), f"{golden.path.name} {name}"
        torch.testing.assert_close(logits, golden.tensors["logits"], atol=1e-5, rtol=0)
        with torch.no_grad():
            batch = model(golden.tensors["eval_batch_input"])
        torch.testing.assert_close(batch, golden.tensors["eval_batch_logits"], atol=1e-5, rtol=0)


@pytest.mark.golden
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("keeping", ["all", "compact", "compact, channels last"])
def test_a_training_step_gives_released_loss_gradients_and_statistics(pattern: str, keeping: str) -> None:
    for golden in golden_files(pattern):
        model, names, neurons = built(golden)
        model.train().set_compact("compact" in keeping)
        if "last" in keeping:
            model.to(memory_format=torch.channels_last)
        x = golden.tensors["input"].clone().requires_grad_()
        logits, counts = spikes_of(model, x)
        for name, expected in golden.under("trace_train").items():
            assert torch.equal(counts[neurons[name]], expected), f"{golden.path.name} {name}"
        torch.testing.assert_close(logits, golden.tensors["train_logits"], atol=1e-5, rtol=0)
        loss = F.cross_entropy(logits, golden.tensors["labels"])
        torch.testing.assert_close(loss, golden.tensors["loss"].squeeze(), atol=1e-5, rtol=0)
        loss.backward()
        assert relative_l2(x.grad, golden.tensors["grad_input"]) <= 1e-4
        parameters, state = dict(model.named_parameters()), model.state_dict()
        grads = golden.under("grad")
        assert {names[key] for key in grads} == set(parameters)
        for key, expected in grads.items():
            assert relative_l2(parameters[names[key]].grad, expected) <= 1e-4, f"{golden.path.name} {key}"
        for key, expected in golden.under("train_state").items():
            torch.testing.assert_close(state[names[key]], expected, rtol=1e-5, atol=1e-6, msg=key)


@pytest.mark.golden
@pytest.mark.parametrize(
    ("pattern", "wrong"),
    [
        (PATTERNS[0], {"tau": 2.0}), (PATTERNS[0], {"v_reset": None}), (PATTERNS[0], {"threshold": 1.001}),
        (PATTERNS[1], {"tau": 2.0}), (PATTERNS[1], {"v_reset": None}),
    ],
)  # fmt: skip
def test_a_planted_defect_of_the_neurons_leaves_the_released_logits(pattern: str, wrong: dict[str, object]) -> None:
    moved = []
    for golden in golden_files(pattern):
        model, _, _ = built(golden)
        for module in model.modules():
            if isinstance(module, LIF):
                module.parameters_ = replace(module.parameters_, **wrong)
        with torch.no_grad():
            moved.append(float((model.eval()(golden.tensors["input"]) - golden.tensors["logits"]).abs().max()))
    assert max(moved) > 1e-3


def small(form: str = "sew", **options: object) -> tuple[SpikingResNet, Tensor]:
    """A warmed small model in evaluation mode, and frames."""
    torch.manual_seed(0)
    model = SpikingResNet(num_classes=5, widths=(8, 12), blocks=(1, 2), form=form, stem="small", **options)
    x = torch.randn(4, 3, 3, 12, 10)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
                nn.init.uniform_(module.bias, 0.2, 0.8)
        model.train()(x)
    return model.eval(), x


@pytest.mark.parametrize("form", ["sew", "spiking"])
@pytest.mark.parametrize("bottleneck", [False, True])
def test_weights_go_to_released_names_and_back(form: str, bottleneck: bool) -> None:
    model, x = small(form, bottleneck=bottleneck)
    for module in (True, False):
        prefix = ".module" if module else ""
        sizes = identify({f"{k}": v for k, v in released(model, form, bottleneck, prefix).items()})
        assert (sizes.form, sizes.bottleneck, sizes.widths, sizes.blocks) == (form, bottleneck, (8, 12), (1, 2))
        state = to_released(model, replace(sizes, module=module))
        again, _ = convert_resnet(state)
        with torch.no_grad():
            assert torch.equal(again.eval()(x), model(x))
        lacking = {k: v for k, v in state.items() if k != "bn1.bias"}
        with pytest.raises(ValueError, match=r"misses bn1\.bias"):
            convert_resnet(lacking)
        with pytest.raises(ValueError, match="does not know colour"):
            convert_resnet({**state, "colour": torch.ones(1)})
        with pytest.raises(ValueError, match=r"fc\.bias has shape \(6,\), expected \(5,\)"):
            convert_resnet({**state, "fc.bias": torch.ones(6)})


def released(model: SpikingResNet, form: str, bottleneck: bool, middle: str) -> dict[str, Tensor]:
    """Keys as the released code writes them, made without the table that is tested."""
    state, made = model.state_dict(), {}
    for key, value in state.items():
        parts = key.split(".")
        if parts[0] == "stem":
            made["conv1.weight" if parts[1] == "conv" else f"bn1.{parts[-1]}"] = value
        elif parts[0] == "head":
            made[f"fc.{parts[-1]}"] = value
        else:
            block = f"layer{int(parts[1]) + 1}.{parts[2]}"
            unit = (
                f"conv{int(parts[4]) + 1}" if parts[3] == "convs" else "downsample.0" if form == "sew" else "downsample"
            )
            made[f"{block}.{unit}{middle}.{'0' if parts[-2] == 'conv' else '1'}.{parts[-1]}"] = value
    return made


def test_a_mixture_of_key_schemes_is_refused() -> None:
    model, _ = small()
    mixed = released(model, "sew", False, ".module") | released(model, "sew", False, "")
    with pytest.raises(ValueError, match=r"some keys have \.module"):
        identify(mixed)


@pytest.mark.parametrize("form", ["sew", "spiking"])
def test_steps_one_by_one_are_the_whole_and_samples_do_not_meet(form: str) -> None:
    model, x = small(form)
    with torch.no_grad():
        whole, state, steps = model(x), None, []
        for frame in x:
            logits, state = model.step(frame, state)
            steps.append(logits)
        torch.testing.assert_close(torch.stack(steps).mean(0), whole, atol=1e-5, rtol=0)
        torch.testing.assert_close(model(x[:, 1:2]), whole[1:2], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("connect", "largest"), [("add", 3), ("and", 1), ("iand", 1)])
def test_blocks_hold_small_whole_numbers(connect: str, largest: int) -> None:
    model, x = small(connect=connect)
    with torch.no_grad():
        features = model.forward_features(x)
    assert torch.equal(features, features.round())
    assert features.min() >= 0
    assert features.max() <= largest
    if connect == "add":
        assert features.max() > 1


def test_the_layers_that_see_more_than_spikes_are_the_published_ones() -> None:
    """SEW-18: 9 of 21 layers see 0 and 1 only; spiking ResNet-18: 19 of 21."""
    for form, binary in (("sew", 9), ("spiking", 19)):
        torch.manual_seed(0)
        model = create_model(f"{form}_resnet18", widths=(8, 16, 24, 32), num_classes=7, T=4)
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    nn.init.uniform_(module.bias, 0.6, 1.0)
                    module.momentum = 1.0
            x = torch.randn(4, 3, 64, 64)
            model.train()(x)
            model.eval()
            with OperationCounter(model) as counter:
                model(x)
        assert len(counter.connections) == 21
        assert sum(layer.binary for layer in counter.connections.values()) == binary


def test_names_are_listed_and_unknown_arguments_refused() -> None:
    assert set(RESNETS) <= set(list_models())
    assert {"sew_resnet18", "spiking_resnet50", "resnet50", "mobilenet_v1"} <= set(list_models("*net*"))
    with pytest.raises(TypeError, match="unknown argument colour"):
        create_model("sew_resnet18", colour=3)
    with pytest.raises(ValueError, match="one of each per stage"):
        SpikingResNet(widths=(8,), blocks=(1, 1))
    with pytest.raises(ValueError, match="connect='or' is unknown"):
        SpikingResNet(connect="or")
    assert json.loads(json.dumps(create_model("sew_resnet18").pretrained_cfg))["input_size"] == [3, 224, 224]


@pytest.mark.parametrize(
    ("name", "parameters", "layers", "weights", "macs"),
    [
        ("resnet50", 25_556_032, 54, 25_502_912, 4_089_184_256),
        ("resnet18", 11_688_512, 21, 11_678_912, 1_814_073_344),
        ("mobilenet_v1", 4_230_976, 28, 4_209_088, 568_740_352),
    ],
)
def test_networks_without_spikes_have_the_denominators_of_the_sparsity_tables(
    name: str, parameters: int, layers: int, weights: int, macs: int
) -> None:
    with torch.device("meta"):
        model = create_model(name).eval()
    found = dict(weighted_layers(model))
    counted = {}
    for path, layer in found.items():
        layer.register_forward_hook(
            lambda m, args, out, path=path: counted.__setitem__(path, out.numel() * m.weight[0].numel())
        )
    model(torch.empty(1, 3, 224, 224, device="meta"))
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert len(found) == layers
    assert sum(layer.weight.numel() for layer in found.values()) == weights
    assert sum(counted.values()) == macs
