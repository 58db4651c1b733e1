"""Small workloads and chips for the tests of this folder."""

from pathlib import Path
from typing import Any

import yaml

from spikeloom.accel.trainer.chip.chip import Chip
from spikeloom.accel.trainer.workload import Density, Layer, Neuron, Workload

NEUROMC = Path(__file__).parents[3] / "conf" / "chips" / "neuromc.yaml"
LIF = Neuron(
    decay=0.5, input_gain=1.0, threshold=1.0, v_reset=0.0, reset="hard", detach_reset=True, surrogate="rectangular",
    half_width=0.5,
)  # fmt: skip


def chip_mapping() -> dict[str, Any]:
    """A fresh copy of the preset, to be changed by a test. YAML anchors make shared nodes; the copy has none."""
    with NEUROMC.open(encoding="utf-8") as file:
        return _unshared(yaml.safe_load(file))


def _unshared(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _unshared(value) for key, value in node.items()}
    return [_unshared(value) for value in node] if isinstance(node, list) else node


def chip(**changes: Any) -> Chip:
    """The preset with changes such as `mapping__membrane="recompute"` or `dram__energy_pj_per_bit__value=0`."""
    mapping = chip_mapping()
    for path, value in changes.items():
        *parents, last = path.split("__")
        node = mapping
        for key in parents:
            node = node[key]
        node[last] = value
    return Chip.from_mapping(mapping, "test chip")


def conv(path: str, inputs: int, outputs: int, size: int, **changes: Any) -> Layer:
    """A convolution on a size x size map with `same` padding; `kernel`, `stride`, `groups` etc. can be given."""
    kernel, stride, groups = changes.pop("kernel", 3), changes.pop("stride", 1), changes.pop("groups", 1)
    steps, batch = changes.pop("time_steps", 2), changes.pop("batch_size", 3)
    out = -(-size // stride)
    weights = inputs // groups * outputs * kernel * kernel
    macs = weights * out * out * steps * batch
    values: dict[str, Any] = {
        "op": "aten.conv2d.default", "kind": "gemm_weight", "groups": groups, "in_height": size, "in_width": size,
        "out_height": out, "out_width": out, "kernel": (kernel, kernel), "stride": (stride, stride),
        "padding": (kernel // 2, kernel // 2), "macs_forward": macs, "macs_backward": macs,
        "macs_weight_gradient": macs, "input_kind": "binary", "input_bits": 1, "parameters": weights,
    }  # fmt: skip
    values |= changes
    return Layer(path=path, in_channels=inputs, out_channels=outputs, time_steps=steps, batch_size=batch, **values)


def after(producer: Layer, kind: str, **changes: Any) -> Layer:
    """A neuron, norm or elementwise layer on the output of `producer`."""
    values: dict[str, Any] = {"path": f"{producer.path}.{kind}", "op": f"test.{kind}", "kind": kind}
    if kind == "neuron":
        values |= {"neuron": LIF, "op": "spikeloom.lif.default"}
    if kind == "norm":
        values |= {"op": "aten.batch_norm.default", "parameters": 2 * producer.out_channels}
    values |= {"inputs": (producer.path,)}
    values |= changes
    channels, height, width = producer.out_channels, producer.out_height, producer.out_width
    return Layer(
        in_channels=channels, out_channels=channels, in_height=height, in_width=width, out_height=height,
        out_width=width, time_steps=producer.time_steps, batch_size=producer.batch_size, tokens=producer.tokens,
        **values,
    )  # fmt: skip


def workload(*layers: Layer) -> Workload:
    return Workload(
        model_name="test network", time_steps=layers[0].time_steps, batch_size=layers[0].batch_size, dtype="float32",
        layers=layers, source={"data": "none"},
    )  # fmt: skip


def small_network(**conv_changes: Any) -> Workload:
    """Two convolutions, the second strided, with norms and neurons, a residual addition and a linear readout."""
    density = Density(mean=0.25, min=0.2, max=0.3, per_step=(0.2, 0.3))
    first = conv("stem", 2, 8, 8, input_kind="real", input_bits=16)
    second = conv("block.conv", 8, 20, 8, stride=2, density_input=density, density_du=density, **conv_changes)
    norms = [after(layer, "norm") for layer in (first, second)]
    neurons = [
        after(norm, "neuron", path=f"{layer.path}.neuron") for layer, norm in zip((first, second), norms, strict=True)
    ]
    add = after(neurons[1], "elementwise")
    readout = conv("head", 20, 10, 4, kernel=1, in_height=1, in_width=1, out_height=1, out_width=1, tokens=16)
    return workload(first, norms[0], neurons[0], second, norms[1], neurons[1], add, readout)


def resnet18(time_steps: int = 4, batch_size: int = 16) -> Workload:
    """S-ResNet18 for 224x224 images with real shortcuts (1x1), norms and neurons."""
    shared = {"time_steps": time_steps, "batch_size": batch_size}
    layers: list[Layer] = []

    def add(path: str, inputs: int, outputs: int, size: int, **changes: Any) -> None:
        layer = conv(path, inputs, outputs, size, **shared, **changes)
        norm = after(layer, "norm")
        layers.extend((layer, norm, after(norm, "neuron")))

    add("conv1", 3, 64, 224, kernel=7, stride=2, input_kind="real", input_bits=16)
    for index in range(4):
        add(f"layer1.{index}", 64, 64, 56)
    for stage, (width, size) in enumerate(((128, 28), (256, 14), (512, 7)), start=2):
        add(f"layer{stage}.conv1", width // 2, width, 2 * size, stride=2)
        add(f"layer{stage}.conv2", width, width, size)
        add(f"layer{stage}.shortcut", width // 2, width, 2 * size, stride=2, kernel=1)
        add(f"layer{stage}.conv3", width, width, size)
        add(f"layer{stage}.conv4", width, width, size)
    layers.append(conv("fc", 512, 1000, 1, kernel=1, **shared))
    return workload(*layers)
