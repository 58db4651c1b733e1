"""Operations counted by hand on networks small enough to do so, and the names NeuroBench gives them."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikeloom.accel.analysis.operations import OperationCounter
from spikeloom.accel.interop.neurobench import neurobench_metrics
from spikeloom.accel.spiking.functional import LIFParameters
from spikeloom.accel.spiking.neuron import LIF


class TwoLayers(nn.Module):
    """Events [T, 2] -> Linear 2 -> 3 -> LIF -> Linear 3 -> 1, with weights that make the spikes predictable."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 3, bias=False)
        self.neurons = LIF(LIFParameters(tau=2.0, decay_input=False))
        self.second = nn.Linear(3, 1)
        self.first.weight.data = torch.tensor([[1.0, 0.5], [0.5, 0.0], [0.25, 0.25]])
        self.second.weight.data = torch.tensor([[1.0, -1.0, 2.0]])

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.neurons(self.first(x))[0])


def counted(model: nn.Module, *inputs: Tensor) -> OperationCounter:
    with OperationCounter(model) as counter:
        for x in inputs:
            model(x)
    return counter


def test_two_layers_by_hand():
    # Input 3 at (step 0, channel 0), 1 at (step 1, channel 1). Channel 0 has 3 synapses, channel 1 has 2 (one is 0).
    # Currents: step 0: 3.0 1.5 .75 -> spikes 1 1 0, membrane .75; step 1: .5 0 .25+.375 -> no spike.
    counter = counted(TwoLayers(), torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
    first, second = counter.connections["first"], counter.connections["second"]
    assert (first.ac, first.mac, first.active, first.dense) == (3 * 3 + 1 * 2, 0, 3 + 2, 12)
    assert (second.ac, second.mac, second.dense) == (2, 0, 6)
    assert (counter.activations["neurons"].active, counter.activations["neurons"].places) == (2, 6)


def test_one_fraction_makes_a_layer_multiply():
    silent, spoken = torch.zeros(2, 2), torch.tensor([[0.5, 0.0], [0.0, 2.0]])
    counter = counted(TwoLayers(), silent, spoken)
    first = counter.connections["first"]
    assert (first.ac, first.mac) == (0, 2 * 2 * 5)  # zeros are multiplied, too; the weight that is 0 is not there
    assert first.active == 3 + 2
    assert counter.connections["second"].mac == 0


def test_a_convolution_counts_the_taps_in_range():
    conv = nn.Conv1d(1, 4, 3, padding=1)
    events = torch.zeros(1, 1, 5)
    events[0, 0, 0], events[0, 0, 2] = 1, 2  # the first meets 2 taps, the other all 3
    counted_ = counted(nn.Sequential(conv), events).connections["0"]
    assert counted_.ac == (1 * 2 + 2 * 3) * 4
    assert counted_.dense == (3 * 5 - 2) * 4


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv1d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2),
        nn.Conv2d(2, 3, (3, 2), stride=(1, 2), padding=(1, 0)),
        nn.Conv2d(4, 4, 3, padding="same", groups=4),
    ],
)
def test_convolutions_agree_with_a_walk_over_events_and_outputs(layer):
    """Each event alone through weights of one: the outputs it reaches are its fan-out."""
    shape = (2, layer.in_channels, 9) if isinstance(layer, nn.Conv1d) else (2, layer.in_channels, 5, 6)
    x = torch.randint(0, 4, shape, generator=torch.Generator().manual_seed(0)).float()
    layer.weight.data[0] = 0.0
    found = counted(nn.Sequential(layer), x).connections["0"]
    present = type(layer)(
        layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, layer.dilation,
        layer.groups, bias=False,
    )  # fmt: skip
    present.weight.data = (layer.weight != 0).float()
    ac = active = 0.0
    for at in x.nonzero():
        alone = torch.zeros_like(x)
        alone[tuple(at)] = 1
        fan_out = float(present(alone).detach().sum())
        ac += float(x[tuple(at)]) * fan_out
        active += fan_out
    assert (found.ac, found.active) == (ac, active)
    assert found.ac <= found.largest * found.dense


def test_metrics_carry_the_published_names_and_meanings():
    model = TwoLayers()
    metrics = neurobench_metrics(model, counted(model, *[torch.tensor([[1.0, 0.0]])] * 2), n_samples=2)
    assert metrics == {
        "Footprint": 4 * (6 + 3 + 1),
        "ParameterCount": 10,
        "ConnectionSparsity": 1 / 9,
        "ActivationSparsity": 1 - 1 / 3,  # currents 1, .5, .25: one of three fires
        "SynapticOperations": {"Effective_MACs": 0.0, "Effective_ACs": 3 + 1, "Dense": 6 + 3},
    }


def test_the_worked_example_of_the_published_definition():
    """A 3 x 3 map with three zero weights and one zero input: 4 effective of 9 operations."""
    layer = nn.Linear(3, 3, bias=False)
    layer.weight.data = torch.tensor([[1.3, 0, -3.2], [0, 1.2, -5.1], [-1.1, 2.7, 0]])
    model = nn.Sequential(layer)
    metrics = neurobench_metrics(model, counted(model, torch.tensor([[0, 1.3, -1]])), n_samples=1)
    assert metrics["SynapticOperations"] == {"Effective_MACs": 4, "Effective_ACs": 0, "Dense": 9}
    assert metrics["ConnectionSparsity"] == pytest.approx(1 / 3)
    assert metrics["ActivationSparsity"] is None  # a network without neurons


def test_what_cannot_be_counted_is_named():
    with pytest.raises(ValueError, match="no rule counts GRU at 0"):
        OperationCounter(nn.Sequential(nn.GRU(3, 3)))
    with pytest.raises(ValueError, match="padding_mode=circular"):
        OperationCounter(nn.Sequential(nn.Conv1d(1, 1, 3, padding=1, padding_mode="circular")))

    class Bypass(TwoLayers):
        def forward(self, x: Tensor) -> Tensor:
            return F.linear(self.neurons(self.first(x))[0], self.second.weight)

    with pytest.raises(ValueError, match="second never ran as a module"):
        counted(Bypass(), torch.ones(1, 2))
    with pytest.raises(ValueError, match="run at least one sample"):
        neurobench_metrics(TwoLayers(), OperationCounter(TwoLayers()), 0)


def test_the_counter_leaves_nothing_behind():
    model = TwoLayers()
    with pytest.raises(RuntimeError, match="mat1"), OperationCounter(model):
        model(torch.ones(1, 5))
    assert not any(m._forward_hooks for m in model.modules())
