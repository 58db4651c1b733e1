"""Workloads of published networks from their shapes alone: S-ResNet18 and 50, S-VGG16, Spikingformer-8-768.

Whole networks for 224 x 224 images, first layer and classifier included, with a norm behind every convolution, spiking
neurons (window surrogate, detached hard reset) and 1x1 shortcuts. Nothing is measured: densities are absent and count
as 1. For a network of your own export it (`spikeloom.accel.export.program`), which also measures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from spikeloom.accel.trainer.workload import Layer, Neuron, Workload

NEURON = Neuron(
    decay=0.5, input_gain=1.0, threshold=1.0, v_reset=0.0, reset="hard", detach_reset=True,
    surrogate="Rectangular(half_width=0.5)", half_width=0.5,
)  # fmt: skip
Paths = tuple[str, ...]


class _Builder:
    """Layers in the order of execution; every method returns the path of what it added."""

    def __init__(self, time_steps: int, batch_size: int) -> None:
        self.common: dict[str, Any] = {"time_steps": time_steps, "batch_size": batch_size}
        self.images = time_steps * batch_size
        self.layers: list[Layer] = []

    def add(self, path: str, inputs: Paths, **fields: Any) -> str:
        self.layers.append(Layer(path=path, inputs=inputs, **fields, **self.common))
        return path

    def conv(self, path: str, inputs: Paths, n_in: int, n_out: int, size: int, kernel: int = 3, stride: int = 1) -> str:
        """Convolution and norm; `size` is the side of the output."""
        first, macs = not inputs, n_in * n_out * kernel**2 * size**2 * self.images
        conv = self.add(
            path, inputs, op="aten.conv2d.default", kind="gemm_weight", in_channels=n_in, out_channels=n_out,
            in_height=size * stride, in_width=size * stride, out_height=size, out_width=size, kernel=(kernel, kernel),
            stride=(stride, stride), padding=(kernel // 2, kernel // 2), macs_forward=macs,
            macs_backward=0 if first else macs, macs_weight_gradient=macs, parameters=n_in * n_out * kernel**2,
            input_kind="real" if first else "binary", input_bits=16 if first else 1,
        )  # fmt: skip
        op = "aten.batch_norm.default"
        return self.add(f"{path}.norm", (conv,), op=op, kind="norm", parameters=2 * n_out, **_maps(n_out, size))

    def fire(self, path: str, inputs: Paths, channels: int, size: int) -> str:
        op = "spikeloom.lif.default"
        return self.add(f"{path}.lif", inputs, op=op, kind="neuron", neuron=NEURON, **_maps(channels, size))

    def block(self, path: str, inputs: Paths, n_in: int, n_out: int, size: int, **options: int) -> str:
        """Convolution, norm and neurons; `options` are those of `conv`."""
        return self.fire(path, (self.conv(path, inputs, n_in, n_out, size, **options),), n_out, size)

    def linear(self, path: str, inputs: Paths, n_in: int, n_out: int) -> str:
        macs = n_in * n_out * self.images
        return self.add(
            path, inputs, op="aten.linear.default", kind="gemm_weight", in_channels=n_in, out_channels=n_out,
            macs_forward=macs, macs_backward=macs, macs_weight_gradient=macs, parameters=(n_in + 1) * n_out,
            input_kind="real", input_bits=16,
        )  # fmt: skip

    def workload(self, name: str) -> Workload:
        return Workload(
            model_name=name, dtype="float32", layers=tuple(self.layers), unsupported=(),
            source={"densities": "none: built from published shapes"}, **self.common,
        )  # fmt: skip


def _maps(channels: int, size: int) -> dict[str, int]:
    sides = dict.fromkeys(("in_height", "in_width", "out_height", "out_width"), size)
    return {"in_channels": channels, "out_channels": channels, **sides}


def spiking_resnet18(time_steps: int = 4, batch_size: int = 16) -> Workload:
    """S-ResNet18: 11.7 million parameters, neurons behind every convolution: that of SEW-ResNet-18. See `_resnet`."""
    return _resnet("S-ResNet18", (2, 2, 2, 2), time_steps, batch_size)


def spiking_resnet50(time_steps: int = 4, batch_size: int = 16) -> Workload:
    """S-ResNet50: bottlenecks of 1x1, 3x3 (with the stride) and 1x1 convolutions, 25.6 million parameters."""
    return _resnet("S-ResNet50", (3, 4, 6, 3), time_steps, batch_size, bottleneck=True)


def summed_resnet18(time_steps: int = 4, batch_size: int = 16) -> Workload:
    """Spiking ResNet-18 as arXiv 2102.04159 compares SEW-ResNet with: a block adds currents and then fires."""
    return _resnet("Spiking ResNet-18", (2, 2, 2, 2), time_steps, batch_size, fires_behind_sum=True)


def _resnet(
    name: str, blocks: tuple[int, ...], time_steps: int, batch_size: int, *, bottleneck: bool = False,
    fires_behind_sum: bool = False,
) -> Workload:  # fmt: skip
    """A 7x7 stem and four stages of blocks. Spikes of a block and of its shortcut meet in the next layer, or, where it
    `fires_behind_sum`, both currents meet in one population; the pooling behind the stem is not modelled. The trainable
    networks of these names (`vision.models.resnets`) export to the same layers."""
    net = _Builder(time_steps, batch_size)
    behind: Paths = (net.block("conv1", (), 3, 64, 112, kernel=7, stride=2),)
    n_in, expansion = 64, 4 if bottleneck else 1
    kernels = (1, 3, 1) if bottleneck else (3, 3)
    for stage, (width, size) in enumerate(((64, 56), (128, 28), (256, 14), (512, 7)), start=1):
        for index in range(blocks[stage - 1]):
            path, stride, n_out = f"layer{stage}.{index}", 2 if index == 0 and stage > 1 else 1, width * expansion
            inner, channels, side = behind, n_in, size * stride
            for number, kernel in enumerate(kernels, start=1):
                here = stride if number == len(kernels) - 1 else 1  # of 3x3, the first one
                last, side = number == len(kernels), side // here
                made = n_out if last else width
                conv = net.conv(f"{path}.conv{number}", inner, channels, made, side, kernel=kernel, stride=here)
                fires = not (last and fires_behind_sum)
                inner = (net.fire(f"{path}.conv{number}", (conv,), made, side) if fires else conv,)
                channels = made
            shortcut: Paths = behind[:1]
            if stride > 1 or n_in != n_out:
                added = net.conv(f"{path}.shortcut", behind, n_in, n_out, size, kernel=1, stride=stride)
                shortcut = (added if fires_behind_sum else net.fire(f"{path}.shortcut", (added,), n_out, size),)
            behind, n_in = (*inner, *shortcut), n_out
            if fires_behind_sum:
                behind = (net.fire(path, behind, n_out, size),)
    net.linear("fc", behind, n_in, 1000)
    return net.workload(name)


def spiking_vgg16(time_steps: int = 4, batch_size: int = 16) -> Workload:
    """S-VGG16: thirteen 3x3 convolutions and one linear classifier; pools are not modelled."""
    net = _Builder(time_steps, batch_size)
    behind: Paths = ()
    width, size = 3, 224
    for stage, (n_out, times) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), start=1):
        for index in range(1, times + 1):
            behind = (net.block(f"conv{stage}_{index}", behind, width, n_out, size),)
            width = n_out
        size //= 2
    net.linear("fc", behind, 512, 1000)
    return net.workload("S-VGG16")


def spikingformer(time_steps: int = 4, batch_size: int = 16, *, depth: int = 8, width: int = 768) -> Workload:
    """Spikingformer (arXiv 2304.11954): a tokenizer of five convolutions down to 14 x 14 tokens, then `depth` blocks of
    spiking self-attention with heads of 64 channels and an MLP of ratio 4. Neurons stand in front of convolutions."""
    net = _Builder(time_steps, batch_size)
    stream = net.conv("stem.0", (), 3, width // 8, 224)
    n_in, size = width // 8, 224
    for index, n_out in enumerate((width // 4, width // 2, width, width), start=1):
        fired = net.fire(f"stem.{index}", (stream,), n_in, size)
        size //= 2  # the spikes are pooled
        stream, n_in = net.conv(f"stem.{index}", (fired,), n_in, n_out, size), n_out
    heads, macs = width // 64, 2 * width * 64 * size**2 * net.images
    streams: Paths = (stream,)
    for index in range(depth):
        path = f"block{index}"
        fired = net.fire(f"{path}.attn", streams, width, size)
        qkv = tuple(net.block(f"{path}.attn.{name}", (fired,), width, width, size, kernel=1) for name in "qkv")
        mixed = net.add(
            f"{path}.attn.mix", qkv, op="aten.matmul.default", kind="gemm_activation", in_channels=width,
            out_channels=width, groups=heads, tokens=size**2, macs_forward=macs, macs_backward=2 * macs,
            input_kind="binary", input_bits=1,
        )  # fmt: skip
        attended = net.fire(f"{path}.attn.mixed", (mixed,), width, size)
        streams = (*streams[:1], net.conv(f"{path}.attn.proj", (attended,), width, width, size, kernel=1))
        fired = net.fire(f"{path}.mlp", streams, width, size)
        hidden = net.conv(f"{path}.mlp.up", (fired,), width, 4 * width, size, kernel=1)
        fired = net.fire(f"{path}.mlp.up", (hidden,), 4 * width, size)
        streams = (*streams[:1], net.conv(f"{path}.mlp.down", (fired,), 4 * width, width, size, kernel=1))
    net.linear("head", (net.fire("last", streams, width, size),), width, 1000)
    return net.workload(f"Spikingformer-{depth}-{width}")


PUBLISHED: dict[str, Callable[[int, int], Workload]] = {
    "s_resnet18": spiking_resnet18, "s_resnet50": spiking_resnet50, "s_vgg16": spiking_vgg16,
    "spiking_resnet18": summed_resnet18, "spikingformer_8_768": spikingformer,
}  # fmt: skip
