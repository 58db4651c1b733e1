"""A binary-stochastic network as a workload: its training step with measured densities of the sampled bits.

    product     input: density of the signals x_l; du: of delta_l
    neuron      spike: density of x_{l+1}; mask: of the derivatives D~_l; du: of the errors e_l
    pooling     one comparison for each analog value

Sampled or thresholded signals are one bit, others 16. A derivative of one bit survives to the backward pass as a
mask. Weights that stay in devices take pulses: how many a weight and update, counted in the run, goes with the file.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Generator, Tensor

from spikeloom.accel.learning.stochastic.network import StochasticNetwork
from spikeloom.accel.learning.stochastic.policies import Conv, Dense, gradients
from spikeloom.accel.learning.stochastic.sampling import Activation
from spikeloom.accel.learning.stochastic.synapses import Synapses
from spikeloom.accel.trainer.workload import Density, Layer, Neuron, Workload

PULSES = "pulses_per_weight"  # entry of `Workload.source`: mean pulses a weight and update


@dataclass
class _Seen:
    """Fractions of non-zeros of one layer, an entry a batch."""

    signal: list[float] = field(default_factory=list)
    delta: list[float] = field(default_factory=list)
    error: list[float] = field(default_factory=list)
    derivative: list[float] = field(default_factory=list)


class _Watch:
    """Mixed into a layer: notes what passes through `gradient` and `error_back`."""

    seen: _Seen

    def gradient(self, x: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
        self.seen.signal.append(_nonzero(x))
        self.seen.delta.append(_nonzero(delta))
        found: tuple[Tensor, Tensor] = super().gradient(x, delta)  # type: ignore[misc]
        return found

    def error_back(self, delta: Tensor, weight: Tensor, x_shape: torch.Size) -> Tensor:
        error: Tensor = super().error_back(delta, weight, x_shape)  # type: ignore[misc]
        self.seen.error.append(_nonzero(error))
        return error


class _Conv(_Watch, Conv):
    pass


class _Dense(_Watch, Dense):
    pass


class _Activation(Activation):
    """Notes the mean derivative, which is the density of its bits."""

    noted: list[Tensor]

    def derivative(self, y: Tensor, p: Tensor) -> Tensor:
        found = super().derivative(y, p)
        self.noted.append(found)
        return found


def _nonzero(x: Tensor) -> float:
    return float((x != 0).double().mean())


def _density(values: Sequence[float]) -> Density | None:
    return Density(mean=sum(values) / len(values), min=min(values), max=max(values)) if values else None


def stochastic_workload(
    network: StochasticNetwork,
    synapses: Sequence[Synapses],
    batches: Sequence[tuple[Tensor, Tensor]],
    *,
    name: str,
    generator: Generator,
    source: dict[str, str],
) -> Workload:
    """The workload of one training step, measured on `batches` of (pixels [B, C, H, W] in [0, 1], labels [B]).

    Raises:
        ValueError: for no batch, or batches of several sizes.
    """
    if not batches or len({x.shape for x, _ in batches}) != 1:
        raise ValueError(f"export needs batches of one size, got {[len(x) for x, _ in batches]}")
    policy, batch = network.policy, len(batches[0][0])
    watched = []
    for layer in network.layers:
        kind = _Conv if isinstance(layer, Conv) else _Dense
        made: Any = kind(**{f.name: getattr(layer, f.name) for f in fields(layer)})
        object.__setattr__(made, "seen", _Seen())
        watched.append(made)
    activation = _Activation(**{f.name: getattr(network.activation, f.name) for f in fields(network.activation)})
    for pixels, labels in batches:
        object.__setattr__(activation, "noted", [])
        gradients(watched, synapses, pixels, labels, policy, activation, generator)
        for layer, slope in zip(watched, activation.noted, strict=False):
            bits = {"s": slope.clamp(0, 1), "b": (slope > 0.5).double()}.get(policy.derivative, (slope != 0).double())
            layer.seen.derivative.append(float(bits.double().mean()))
    layers: list[Layer] = []
    previous: tuple[str, ...] = ()
    binary = policy.forward in ("s", "b")
    for index, (layer, weights) in enumerate(zip(watched, synapses, strict=True)):
        biases = 0 if weights.forward(generator)[1] is None else torch.Size(layer.bias_shape).numel()
        made = _product(f"layer{index}", layer, previous, batch, first=index == 0, binary=binary, biases=biases)
        layers.append(made)
        previous = (made.path,)
        if index + 1 == len(watched):
            break
        if isinstance(layer, Conv) and layer.pool > 1:
            layers.append(_pool(f"layer{index}.pool", layer, previous, batch))
            previous = (layers[-1].path,)
        layers.append(_neuron(f"layer{index}.neuron", layer, watched[index + 1].seen, previous, batch,
                              one_bit=policy.derivative in ("s", "b")))  # fmt: skip
        previous = (layers[-1].path,)
    total = sum(layer.parameters for layer in layers)
    operations = len(layers)
    balance = (
        f"{total:,} of {total:,} parameters owned, {operations} of {operations} operations priced, loss reaches all "
        "trained parameters"
    )
    return Workload(
        model_name=name, time_steps=1, batch_size=batch, dtype="float32", layers=tuple(layers),
        source={"policy": policy.name, "balance": balance, "axes": "BCHW (given)", **source},
    )  # fmt: skip


def _product(
    path: str, layer: Any, inputs: tuple[str, ...], batch: int, *, first: bool, binary: bool, biases: int
) -> Layer:
    macs = layer.fan_in * layer.bias_shape[0] * layer.positions * batch
    shape: dict[str, Any] = {"in_channels": layer.n_in, "out_channels": layer.n_out}
    if isinstance(layer, Conv):
        sides = {"in_height": layer.size, "in_width": layer.size, "out_height": layer.map_size}
        shape |= {**sides, "out_width": layer.map_size, "kernel": (layer.kernel, layer.kernel)}
        shape["padding"] = (layer.padding, layer.padding)
    return Layer(
        path=path, op="spikeloom.stochastic_product", kind="gemm_weight", inputs=inputs, time_steps=1, batch_size=batch,
        macs_forward=macs, macs_backward=0 if first else macs, macs_weight_gradient=macs,
        input_kind="binary" if binary else "real", input_bits=1 if binary else 16,
        parameters=torch.Size(layer.weight_shape).numel() + biases,
        density_input=_density(layer.seen.signal), density_du=_density(layer.seen.delta), **shape,
    )  # fmt: skip


def _maps(layer: Any, side: int) -> dict[str, Any]:
    channels = layer.n_out
    if not isinstance(layer, Conv):
        return {"in_channels": channels, "out_channels": channels}
    sides = dict.fromkeys(("in_height", "in_width", "out_height", "out_width"), side)
    return {"in_channels": channels, "out_channels": channels, **sides}


def _pool(path: str, layer: Conv, inputs: tuple[str, ...], batch: int) -> Layer:
    return Layer(
        path=path, op="aten.max_pool2d.default", kind="elementwise", inputs=inputs, time_steps=1, batch_size=batch,
        **_maps(layer, layer.map_size),
    )  # fmt: skip


def _neuron(path: str, layer: Any, following: _Seen, inputs: tuple[str, ...], batch: int, *, one_bit: bool) -> Layer:
    side = layer.map_size // layer.pool if isinstance(layer, Conv) else 1
    return Layer(
        path=path, op="spikeloom.stochastic_neuron", kind="neuron", inputs=inputs, time_steps=1, batch_size=batch,
        neuron=Neuron(
            decay=0.0, input_gain=1.0, threshold=0.0, v_reset=0.0, reset="hard", detach_reset=True,
            surrogate="derivative of the firing probability", half_width=0.5 if one_bit else None,
        ),
        density_spike=_density(following.signal), density_mask=_density(layer.seen.derivative),
        density_du=_density(following.error), **_maps(layer, side),
    )  # fmt: skip
