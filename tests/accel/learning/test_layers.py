"""Which layers are pruned is said, and the same words mean the same layers in every architecture."""

import pytest
import torch
from torch import nn

from spikeloom.accel.learning.pruning.layers import LayerSelection, prunable
from tests.accel.learning.networks import MobileNet, mlp


def paths(model: nn.Module, **chosen: object) -> list[str]:
    return [path for path, _ in prunable(model, LayerSelection(**chosen))]


def test_weights_of_convolutions_and_linear_maps_are_chosen_and_nothing_else() -> None:
    model = nn.Sequential(nn.Conv1d(4, 8, 3), nn.BatchNorm1d(8), nn.LayerNorm(8), nn.PReLU(), nn.Linear(8, 2))
    assert paths(model) == ["0", "4"]


@pytest.mark.parametrize(
    ("model", "first", "last"), [(mlp(8, 6, 5, 3), "0", "4"), (MobileNet(), "features.0", "classifier")]
)
def test_first_and_last_mean_the_same_everywhere(model: nn.Module, first: str, last: str) -> None:
    every = paths(model)
    assert (every[0], every[-1]) == (first, last)
    assert paths(model, first_layer_dense=True) == every[1:]
    assert paths(model, last_layer_dense=True) == every[:-1]
    assert paths(model, first_layer_dense=True, last_layer_dense=True) == every[1:-1]


def test_kinds_and_names_can_be_spared() -> None:
    model = MobileNet()
    depthwise = {path for path, layer in model.named_modules() if getattr(layer, "groups", 1) > 1}
    assert len(depthwise) == 3
    assert set(paths(model)) - set(paths(model, depthwise=False)) == depthwise
    assert set(paths(model, conv=False)) == depthwise
    assert paths(model, exclude=["features.*"]) == ["classifier"]
    model.features[0].weight.requires_grad_(False)
    assert "features.0" not in paths(model)


def test_nothing_left_is_an_error_that_says_why() -> None:
    with pytest.raises(ValueError, match=r"\b3\b.*linear=False"):
        prunable(mlp(8, 6, 5, 3), LayerSelection(linear=False))
    with pytest.raises(ValueError, match=r"\b0\b"):
        prunable(nn.ReLU(), LayerSelection())
    with pytest.raises(ValueError, match=r"'9'.*\(0, 2, 4"):
        prunable(mlp(8, 6, 5, 3), LayerSelection(exclude=["9"]))


def test_a_shared_weight_is_refused_by_name() -> None:
    model = nn.ModuleDict(
        {"embedding": nn.Embedding(9, 4), "body": nn.Linear(4, 4), "head": nn.Linear(4, 9, bias=False)}
    )
    model["head"].weight = model["embedding"].weight
    with pytest.raises(ValueError, match=r"head\.weight.*embedding\.weight"):
        prunable(model, LayerSelection())
    assert [path for path, _ in prunable(model, LayerSelection(exclude=["head"]))] == ["body"]
    assert torch.equal(model["head"].weight, model["embedding"].weight)
