"""Maps of spikes are the mean of what a layer's neurons gave at each place."""

import pytest
import torch
from torch import nn

from spikeloom.accel.spiking.neuron import LIF, LIFParameters
from spikeloom.vision.models.maps import shown_layers, spike_maps
from spikeloom.vision.models.variants import create_model


class Bright(nn.Module):
    """A network whose one layer fires where its input is above threshold."""

    def __init__(self) -> None:
        super().__init__()
        self.lif = LIF(LIFParameters(tau=1.0, threshold=0.5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spikes, _ = self.lif(x)
        return spikes.mean((0, 3, 4))


def test_a_place_that_fires_always_is_one_and_a_silent_one_zero() -> None:
    frames = torch.zeros(3, 2, 1, 4, 5)
    frames[:, 0, 0, 1, 2] = 1.0
    frames[1, 1, 0, 3, 4] = 1.0
    (found,) = spike_maps(Bright(), frames).values()
    expected = torch.zeros(2, 4, 5)
    expected[0, 1, 2], expected[1, 3, 4] = 1.0, 1 / 3
    assert torch.equal(torch.from_numpy(found), expected)


@pytest.mark.parametrize("name", ["qkformer_hst_4_384", "spikingformer_4_384"])
def test_every_map_has_the_places_of_its_layer_and_attentions_are_shown(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(name, num_classes=3).eval()
    maps = spike_maps(model, torch.rand(2, 3, 32, 32))
    assert all(found.shape[0] == 2 and found.min() >= 0 and found.max() <= 1 for found in maps.values())
    attention = [path for path in maps if path.endswith("attn_lif")]
    assert attention and {maps[path].shape[1:] for path in attention} <= {(32, 32), (16, 16), (8, 8)}
    shown = shown_layers(maps, 7)
    assert len(shown) == 7 and sum("attention product" in layer for layer in shown) == min(6, len(attention))
    assert model.training is False
