"""Networks that nobody would draw: any kinds of layers in any order, odd sizes, densities down to nothing."""

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

from spikeloom.accel.trainer.workload import Density, Layer, Workload
from tests.accel.trainer.networks import LIF

KINDS = ("conv", "linear", "linear", "norm", "neuron", "neuron", "elementwise", "gather", "product", "view")
INPUTS = (("binary", 1), ("ternary", 2), ("integer", 3), ("real", 16))


def random_density(random: Random) -> Density:
    mean = random.choice([0.0, 1e-4, 0.01, 0.1, 0.5, 1.0, random.random()])
    return Density(mean=mean, min=mean, max=mean, busiest=random.choice([None, min(1.0, 1.5 * mean)]))


def random_workload(random: Random) -> Workload:
    """Up to eight layers, each fed by the one before it, by an older one too, or by none."""
    steps, batch = random.randint(1, 5), random.randint(1, 8)
    width, size = random.randint(1, 70), random.choice([1, 1, 2, 5, 9])
    layers: list[Layer] = []
    for index in range(random.randint(1, 8)):
        before = [layer.path for layer in layers]
        inputs = tuple(dict.fromkeys([before[-1], random.choice(before)])) if before and random.random() < 0.9 else ()
        kind = random.choice(KINDS)
        make = PRODUCTS.get(kind, _other)
        fields = make(random, kind, width, size)
        if kind in PRODUCTS and random.random() < 0.8:
            fields |= {f"density_{name}": random_density(random) for name in ("input", "weight", "du")}
        if kind in ("conv", "linear"):
            macs = (
                fields["in_channels"] // fields["groups"] * fields["out_channels"] * steps * batch * fields["tokens"]
                * fields["kernel"][0] ** 2 * fields.get("out_height", 1) ** 2
            )  # fmt: skip
            fields |= {
                "macs_forward": macs, "macs_backward": random.choice([macs, macs, 0]),
                "macs_weight_gradient": random.choice([macs, macs, 0]),
            }  # fmt: skip
        if kind == "product":
            one = fields.pop("inner") * width * fields["tokens"] * steps * batch
            fields |= {"macs_forward": one, "macs_backward": random.choice([2 * one, one, 0])}
        layers.append(Layer(path=f"l{index}", inputs=inputs, time_steps=steps, batch_size=batch, **fields))
        width, size = layers[-1].out_channels, layers[-1].out_height if kind == "conv" else size
    return Workload(model_name="random", time_steps=steps, batch_size=batch, dtype="float32", layers=tuple(layers))


def _streamed(random: Random) -> dict[str, Any]:
    kind, bits = random.choice(INPUTS)
    return {"input_kind": kind, "input_bits": bits}


def _conv(random: Random, kind: str, width: int, size: int) -> dict[str, Any]:
    kernel, stride, depthwise = random.choice([1, 3]), random.choice([1, 1, 2]), random.random() < 0.2
    outputs, out = width if depthwise else random.randint(1, 150), -(-size // stride)
    return {
        "op": "aten.conv2d.default", "kind": "gemm_weight", "in_channels": width, "out_channels": outputs,
        "groups": width if depthwise else 1, "kernel": (kernel, kernel), "stride": (stride, stride), "tokens": 1,
        "in_height": size, "in_width": size, "out_height": out, "out_width": out,
        "parameters": (1 if depthwise else width) * outputs * kernel**2, **_streamed(random),
    }  # fmt: skip


def _linear(random: Random, kind: str, width: int, size: int) -> dict[str, Any]:
    outputs = random.randint(1, 200)
    return {
        "op": "aten.linear.default", "kind": "gemm_weight", "in_channels": width, "out_channels": outputs, "groups": 1,
        "kernel": (1, 1), "tokens": random.choice([1, 1, 7, 20]), "parameters": width * outputs + outputs,
        **_streamed(random),
    }  # fmt: skip


def _product(random: Random, kind: str, width: int, size: int) -> dict[str, Any]:
    return {
        "op": "aten.matmul.default", "kind": "gemm_activation", "in_channels": width, "out_channels": width,
        "tokens": random.choice([1, 7, 30]), "inner": random.randint(1, 20), **_streamed(random),
    }  # fmt: skip


def _other(random: Random, kind: str, width: int, size: int) -> dict[str, Any]:
    fields: dict[str, Any] = {"kind": kind, "op": f"aten.{kind}", "in_channels": width, "out_channels": width}
    if kind == "gather":
        fields |= {"in_channels": 1, "tokens": random.choice([1, 9]), "parameters": random.choice([0, 9 * width])}
        return fields
    fields |= dict.fromkeys(("in_height", "in_width", "out_height", "out_width"), size)
    if kind == "norm":
        fields |= {"op": random.choice(["aten.batch_norm.default", "aten.layer_norm.default"]), "parameters": 2 * width}
    if kind == "neuron":
        fields["neuron"] = replace(LIF, detach_reset=random.random() < 0.5, half_width=random.choice([None, 0.5]))
    return fields


PRODUCTS: dict[str, Callable[[Random, str, int, int], dict[str, Any]]] = {
    "conv": _conv, "linear": _linear, "product": _product,
}  # fmt: skip
