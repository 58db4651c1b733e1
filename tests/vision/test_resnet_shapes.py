"""Trainable spiking ResNets export to the layers that the simulator prices from published shapes."""

from dataclasses import fields
from typing import Any

import pytest
import torch

from spikeloom.accel.export.program import export
from spikeloom.accel.spiking.functional import LIFParameters
from spikeloom.accel.spiking.surrogate import Rectangular
from spikeloom.accel.trainer.networks import PUBLISHED
from spikeloom.accel.trainer.schedule.simulator import simulate
from spikeloom.accel.trainer.workload import Layer, Workload
from spikeloom.pipelines.config.chips import load_chip
from spikeloom.vision.models.resnets import RESNETS

STEPS = 2
PRICED = ("gemm_weight", "norm", "neuron")  # pooling, sums and the mean in front of the classifier have no shapes there
OF_NEURONS = LIFParameters(
    tau=2.0, decay_input=False, threshold=1.0, v_reset=0.0, detach_reset=True, surrogate=Rectangular(0.5)
)


def exported(name: str) -> Workload:
    """The trained network on one picture of 224 x 224, its neurons those of the published shapes."""
    torch.manual_seed(0)
    model: Any = RESNETS[name](T=STEPS)
    for module in model.modules():
        if isinstance(getattr(module, "parameters_", None), LIFParameters):
            module.parameters_ = OF_NEURONS
    found = export(model.eval(), [torch.rand(STEPS, 1, 3, 224, 224)], name=name, source={}, axes="TBCHW")
    assert found.balance.holds
    return found.workload


def described(layer: Layer) -> dict[str, Any]:
    """What a layer computes; not its name, what was measured of it, and which layers it follows."""
    if layer.kind != "gemm_weight":  # an export has their elements, whatever the axes
        names: tuple[str, ...] = ("kind", "elements", "time_steps", "batch_size", "parameters", "neuron")
    elif layer.kernel == (1, 1) and layer.out_height == 1:  # the trained classifier runs once, on the mean over time
        names = ("kind", "in_channels", "out_channels", "parameters", "batch_size")
    else:
        names = tuple(
            f.name
            for f in fields(layer)
            if f.name not in ("path", "inputs", "outputs", "op", "input_kind", "input_bits")
        )
    return {name: getattr(layer, name) for name in names if not name.startswith("density")}


@pytest.mark.parametrize(
    ("model", "shapes"),
    [
        ("sew_resnet18", "s_resnet18"), ("spiking_resnet18", "spiking_resnet18"),
        pytest.param("sew_resnet50", "s_resnet50", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_a_trainable_network_has_the_layers_of_the_shapes(model: str, shapes: str) -> None:
    trained, priced = exported(model), PUBLISHED[shapes](STEPS, 1)
    mine = [layer for layer in trained.layers if layer.kind in PRICED]
    for here, there in zip(mine, priced.layers, strict=True):
        assert described(here) == described(there), (here.path, there.path)
    assert sum(layer.parameters for layer in trained.layers) == sum(layer.parameters for layer in priced.layers)


def test_the_parameters_are_those_of_the_networks_without_spikes() -> None:
    for name, parameters in (("s_resnet18", 11_689_512), ("spiking_resnet18", 11_689_512), ("s_resnet50", 25_557_032)):
        assert sum(layer.parameters for layer in PUBLISHED[name](1, 1).layers) == parameters
    report = simulate(PUBLISHED["s_resnet50"](4, 1), load_chip("neuromc"))
    assert (
        report.energy_per_iteration_pj
        > simulate(PUBLISHED["s_resnet18"](4, 1), load_chip("neuromc")).energy_per_iteration_pj
    )
