"""Workloads of published networks from their shapes alone: S-ResNet18 and S-VGG16 for 224 x 224 images.

Whole networks, first layer and classifier included, with a norm and spiking neurons (window surrogate, detached hard
reset) behind every convolution and 1x1 shortcuts. Nothing is measured: densities are absent and count as 1. For a
network of your own export it (`accel.export`), which also measures.
"""

from __future__ import annotations

from accel.trainer.workload import Layer, Neuron, Workload

NEURON = Neuron(
    decay=0.5, input_gain=1.0, threshold=1.0, v_reset=0.0, reset="hard", detach_reset=True,
    surrogate="Rectangular(half_width=0.5)", half_width=0.5,
)  # fmt: skip


class _Builder:
    """Layers in the order of execution; every call returns the path of the spikes it ends in."""

    def __init__(self, time_steps: int, batch_size: int) -> None:
        self.common = {"time_steps": time_steps, "batch_size": batch_size}
        self.layers: list[Layer] = []

    def block(
        self, path: str, inputs: tuple[str, ...], n_in: int, n_out: int, size: int, kernel: int = 3, stride: int = 1
    ) -> str:
        """Convolution, norm and neurons; `size` is the side of the output."""
        first = not inputs
        weights = n_in * n_out * kernel**2
        macs = weights * size**2 * self.common["time_steps"] * self.common["batch_size"]
        maps = {"out_height": size, "out_width": size, **self.common}
        conv = Layer(
            path=path, op="aten.conv2d.default", kind="gemm_weight", in_channels=n_in, out_channels=n_out,
            in_height=size * stride, in_width=size * stride, kernel=(kernel, kernel), stride=(stride, stride),
            padding=(kernel // 2, kernel // 2), macs_forward=macs, macs_backward=0 if first else macs,
            macs_weight_gradient=macs, parameters=weights, inputs=inputs, input_kind="real" if first else "binary",
            input_bits=16 if first else 1, **maps,
        )  # fmt: skip
        same = {"in_channels": n_out, "out_channels": n_out, "in_height": size, "in_width": size, **maps}
        norm = Layer(
            path=f"{path}.norm", op="aten.batch_norm.default", kind="norm", parameters=2 * n_out, inputs=(path,), **same
        )
        fire = Layer(
            path=f"{path}.lif", op="spikeloom.lif.default", kind="neuron", neuron=NEURON, inputs=(norm.path,), **same
        )
        self.layers += [conv, norm, fire]
        return fire.path

    def linear(self, path: str, inputs: tuple[str, ...], n_in: int, n_out: int) -> None:
        macs = n_in * n_out * self.common["time_steps"] * self.common["batch_size"]
        self.layers.append(
            Layer(
                path=path, op="aten.linear.default", kind="gemm_weight", in_channels=n_in, out_channels=n_out,
                macs_forward=macs, macs_backward=macs, macs_weight_gradient=macs, parameters=(n_in + 1) * n_out,
                inputs=inputs, input_kind="real", input_bits=16, **self.common,
            )
        )  # fmt: skip

    def workload(self, name: str) -> Workload:
        return Workload(
            model_name=name, dtype="float32", layers=tuple(self.layers), unsupported=(),
            source={"densities": "none: built from published shapes"}, **self.common,
        )  # fmt: skip


def spiking_resnet18(time_steps: int = 4, batch_size: int = 16) -> Workload:
    """S-ResNet18: a 7x7 stem, four stages of two blocks, 11.7 million parameters. Spikes of a block and its shortcut
    meet in the next layer; the pooling behind the stem is not modelled, its output is 56 x 56."""
    net = _Builder(time_steps, batch_size)
    net.block("conv1", (), 3, 64, 112, kernel=7, stride=2)
    behind: tuple[str, ...] = ("conv1.lif",)
    width = 64
    for stage, (n_out, size) in enumerate(((64, 56), (128, 28), (256, 14), (512, 7)), start=1):
        for index in range(2):
            path, stride = f"layer{stage}.{index}", 2 if index == 0 and stage > 1 else 1
            inner = net.block(f"{path}.conv1", behind, width, n_out, size, stride=stride)
            outer = net.block(f"{path}.conv2", (inner,), n_out, n_out, size)
            if stride > 1:
                shortcut = net.block(f"{path}.shortcut", behind, width, n_out, size, kernel=1, stride=2)
                behind = (outer, shortcut)
            else:
                behind = (outer, behind[0])
            width = n_out
    net.linear("fc", behind, 512, 1000)
    return net.workload("S-ResNet18")


def spiking_vgg16(time_steps: int = 4, batch_size: int = 16) -> Workload:
    """S-VGG16: thirteen 3x3 convolutions and one linear classifier on pooled maps."""
    net = _Builder(time_steps, batch_size)
    behind: tuple[str, ...] = ()
    width, size = 3, 224
    for stage, (n_out, times) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), start=1):
        for index in range(1, times + 1):
            behind = (net.block(f"conv{stage}_{index}", behind, width, n_out, size),)
            width = n_out
        size //= 2
    net.linear("fc", behind, 512, 1000)
    return net.workload("S-VGG16")
