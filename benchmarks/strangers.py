"""Networks as their authors write them, for `spikeloom export model=benchmarks/strangers.py:NAME` and `simulate`.

Nothing here knows of spikeloom. MACs and parameters of each are counted by hand in tests/accel/test_hand_counts.py and
benchmarks/test_chip_peers.py. The convolutional ones have their published sizes; the transformers are random ones of
`transformers`, the spiking ones those of the tutorials of snnTorch and SpikingJelly.
"""

from typing import Any

import torch
from torch import Tensor, nn


def conv(n_in: int, n_out: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Convolution without bias, batch norm."""
    layer = nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(n_out))


class Residual(nn.Module):
    """Two convolutions of 3 x 3, or with `narrow` 1 x 1, 3 x 3, 1 x 1 with the stride in the middle."""

    def __init__(self, n_in: int, n_out: int, stride: int, narrow: int | None) -> None:
        super().__init__()
        if narrow is None:
            parts = [conv(n_in, n_out, 3, stride), conv(n_out, n_out, 3)]
        else:
            parts = [conv(n_in, narrow, 1), conv(narrow, narrow, 3, stride), conv(narrow, n_out, 1)]
        self.parts = nn.ModuleList(parts)
        self.shortcut = conv(n_in, n_out, 1, stride) if stride > 1 or n_in != n_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for part in self.parts[:-1]:
            y = part(y).relu()
        return (self.parts[-1](y) + self.shortcut(x)).relu()


def resnet(depths: tuple[int, ...], bottleneck: bool) -> nn.Sequential:
    """He et al. (2016) for 1,000 classes."""
    layers: list[nn.Module] = [conv(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    n = 64
    for stage, depth in enumerate(depths):
        width = 64 * 2**stage
        for block in range(depth):
            stride = 2 if stage and not block else 1
            layers.append(Residual(n, 4 * width if bottleneck else width, stride, width if bottleneck else None))
            n = 4 * width if bottleneck else width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n, 1000))


def resnet18() -> nn.Module:
    return resnet((2, 2, 2, 2), bottleneck=False)


def resnet50() -> nn.Module:
    return resnet((3, 4, 6, 3), bottleneck=True)


MOBILENET = (  # outputs and stride of each separable convolution
    (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1),
)  # fmt: skip


def mobilenet() -> nn.Module:
    """Howard et al. (2017), width 1, for 1,000 classes."""
    layers: list[nn.Module] = [conv(3, 32, 3, 2), nn.ReLU()]
    n = 32
    for n_out, stride in MOBILENET:
        layers += [conv(n, n, 3, stride, groups=n), nn.ReLU(), conv(n, n_out, 1), nn.ReLU()]
        n = n_out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(n, 1000))


class Named(nn.Module):
    """One output of a model of `transformers`, as a tensor."""

    def __init__(self, model: nn.Module, output: str, *inputs: str) -> None:
        super().__init__()
        self.model, self.output, self.inputs = model, output, inputs

    def forward(self, *ids: Tensor) -> Tensor:
        given: dict[str, Any] = dict(zip(self.inputs, ids, strict=True))
        found: Tensor = getattr(self.model(**given), self.output)
        return found


def bert() -> nn.Module:
    """The sizes of BERT-mini, random weights."""
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024}
    return Named(BertModel(BertConfig(vocab_size=30522, **sizes)), "pooler_output", "input_ids")


def gpt2() -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=5000, n_embd=128, n_layer=3, n_head=4, n_positions=256))
    return Named(model, "logits", "input_ids")


def bart() -> nn.Module:
    from transformers import BartConfig, BartForConditionalGeneration

    sizes = {f"{side}_{key}": n for side in ("encoder", "decoder") for key, n in (("layers", 2), ("ffn_dim", 256))}
    heads = {f"{side}_attention_heads": 4 for side in ("encoder", "decoder")}
    config = BartConfig(vocab_size=5000, d_model=128, max_position_embeddings=128, use_cache=False, **sizes, **heads)
    return Named(BartForConditionalGeneration(config), "logits", "input_ids", "decoder_input_ids")


class SnnTorchMLP(nn.Module):
    """[T, B, 784] -> membrane potentials [T, B, 10], a loop over time as in the tutorials of snnTorch."""

    def __init__(self) -> None:
        super().__init__()
        import snntorch

        self.fc1, self.lif1 = nn.Linear(784, 1000), snntorch.Leaky(beta=0.95, reset_mechanism="zero")
        self.fc2, self.lif2 = nn.Linear(1000, 10), snntorch.Leaky(beta=0.95, reset_mechanism="zero")

    def forward(self, x: Tensor) -> Tensor:
        mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
        found = []
        for x_t in x:
            spikes, mem1 = self.lif1(self.fc1(x_t), mem1)
            _, mem2 = self.lif2(self.fc2(spikes), mem2)
            found.append(mem2)
        return torch.stack(found)


def snntorch_mlp() -> nn.Module:
    return SnnTorchMLP()


def spikingjelly_cnn() -> nn.Module:
    """[T, B, 1, 28, 28] -> spikes [T, B, 10], multi-step layers as in the tutorial of SpikingJelly, 32 channels."""
    from spikingjelly.activation_based import layer, neuron

    def block(n_in: int) -> list[nn.Module]:
        steps = {"step_mode": "m"}
        return [
            layer.Conv2d(n_in, 32, 3, padding=1, bias=False, **steps), layer.BatchNorm2d(32, **steps),
            neuron.IFNode(**steps), layer.MaxPool2d(2, 2, **steps),
        ]  # fmt: skip

    return nn.Sequential(
        *block(1), *block(32), layer.Flatten(step_mode="m"),
        layer.Linear(32 * 49, 32 * 16, bias=False, step_mode="m"), neuron.IFNode(step_mode="m"),
        layer.Linear(32 * 16, 10, bias=False, step_mode="m"), neuron.IFNode(step_mode="m"),
    )  # fmt: skip
