"""Every family trains at widths and sizes that nobody tuned for, in a process of its own: a bad write kills that."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from spikeloom.accel.spiking.conv import Conv2d
from spikeloom.accel.spiking.events import SpikeConv2d
from spikeloom.vision.models.config import ResNetConfig
from spikeloom.vision.models.variants import create_model, list_models

TRAIN = """
import torch
from spikeloom.vision.models.mobilenet import MobileNetV1
from spikeloom.vision.models.resnet import ResNet
from spikeloom.vision.models.spiking_resnet import SpikingResNet
from spikeloom.vision.models.variants import create_model

def train(model, x):
    model = model.train().to(memory_format=torch.channels_last)
    for _ in range(2):
        loss = model(x).square().mean()
        loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())

torch.manual_seed(0)
pictures = lambda side, n: torch.randn(2, n, side, side)
for name, options, side in {cases}:
    model = create_model(name, T=2, **options)
    x = torch.randn(2, 2, 2, side, side) if model.in_chans == 2 else pictures(side, model.in_chans)
    train(model, x)
    print(name, side, "trained", flush=True)
for form in ("sew", "spiking"):
    for bottleneck in (False, True):
        net = SpikingResNet(T=2, widths=(6, 12, 20), blocks=(1, 1, 1), form=form, bottleneck=bottleneck, num_classes=3)
        train(net, pictures(45, 3))
        print(form, "trained", flush=True)
train(ResNet(widths=(12, 20), blocks=(1, 1), bottleneck=True, stem="imagenet"), pictures(61, 3))
train(MobileNetV1(width=0.2, num_classes=3), pictures(39, 3))
train(ResNet(widths=(12, 20, 36), blocks=(1, 1, 1)), pictures(33, 3))
print("resnet trained")
"""
CASES = [
    (f"{ms}qkformer_hst_{of}", {"widths": widths, "heads": heads, **depths}, side)
    for ms in ("", "ms_")
    for of, widths, heads, depths, side in (
        ("10_384", (12, 24, 48), 4, {"depths": (1, 1, 1)}, 80),
        ("10_384", (24, 48, 96), (6, 12, 16), {"depths": (1, 1, 1)}, 80),
        ("4_384", (12, 20, 36), 4, {"depths": (1, 1, 1)}, 17),
        ("2_256_dvs128", (12, 20), 4, {}, 41),
        ("2_256_cifar10dvs", (20, 36), 4, {}, 48),
    )
] + [
    (name, {"widths": (width,), "depths": (1,), "heads": 2}, side)
    for name, width, side in (
        ("spikingformer_4_384", 12, 33),
        ("spikingformer_8_384", 20, 50),
        ("spikingformer_2_256_dvs", 36, 47),
        ("spikingformer_cml_4_384", 28, 19),
    )
]


@pytest.mark.parametrize("cases", [CASES[:2] + CASES[8:11], pytest.param(CASES, marks=pytest.mark.slow)])
def test_training_at_odd_widths_does_not_crash(cases: list[tuple[str, dict[str, object], int]]) -> None:
    """Strided 1 × 1 convolutions of 12 and of 8 channels end the process in oneDNN's weight gradient."""
    done = subprocess.run(
        [sys.executable, "-c", TRAIN.replace("{cases}", repr(cases))], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"ended with {done.returncode} after:\n{done.stdout}\n{done.stderr[-2000:]}"
    assert done.stdout.count("trained") == len(cases) + 5


def test_no_model_has_a_plain_strided_convolution_of_side_1() -> None:
    with torch.device("meta"):
        models = [create_model(name) for name in list_models()] + [ResNetConfig().build(3, 10)]
    strided = [
        module
        for model in models
        for module in model.modules()
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.stride != (1, 1)
    ]
    assert strided
    assert all(isinstance(module, Conv2d) for module in strided)


@pytest.mark.parametrize("cls", [Conv2d, SpikeConv2d])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("stride", [2, 4, (1, 3)])
def test_a_slice_and_a_convolution_are_the_strided_convolution(cls, layout, stride) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(16, 24, 1, stride).double()
    ours = cls(16, 24, 1, stride).to(memory_format=layout)
    ours.load_state_dict(plain.state_dict())
    x = (torch.rand(3, 16, 13, 11) < 0.1).float().to(memory_format=layout).requires_grad_()
    x_exact = x.detach().double().requires_grad_()
    y, y_exact = ours(x), plain(x_exact)
    torch.testing.assert_close(y.double(), y_exact, rtol=1e-6, atol=1e-6)
    gradient = torch.randn_like(y)
    y.backward(gradient)
    y_exact.backward(gradient.double())
    for found, exact in (
        (x.grad, x_exact.grad),
        *zip((p.grad for p in ours.parameters()), (p.grad for p in plain.parameters()), strict=True),
    ):
        torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)


def test_an_export_keeps_one_node_of_a_strided_convolution() -> None:
    program = torch.export.export(Conv2d(4, 8, 1, 2).eval(), (torch.randn(1, 4, 6, 6),))
    calls = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert calls == ["aten.conv2d.default"]


def test_widths_whose_eighth_is_no_whole_number_round_down() -> None:
    """As the released code divides: 12 -> 1, 3, 6 and 12 channels."""
    model = create_model("qkformer_hst_2_256_dvs128", widths=(12, 24), heads=4)
    embed = model.stages[0].embed
    assert [unit.conv.out_channels for unit in (*embed.entry, *embed.main)] == [1, 3, 6, 12]
    units = create_model("spikingformer_4_384", widths=(12,), heads=4).stages[0].embed.units
    assert [unit.conv.out_channels for unit in units] == [1, 3, 6, 12, 12]
    with pytest.raises(ValueError, match="at least 8"):
        create_model("spikingformer_4_384", widths=(6,), heads=2)
