"""What timm's users ask for: maps, sizes, dropout; and evaluation that skips zeros with the same results."""

import pytest
import torch

from spikeloom.accel.spiking.events import dense_from
from spikeloom.accel.spiking.kernels import loader
from spikeloom.vision.models.prediction import skipping_zeros
from spikeloom.vision.models.variants import create_model
from tests.vision.small import small
from tests.vision.test_golden import products_of_events

SIZES = {"widths": (16, 32), "depths": (1, 1), "heads": 4, "attention": ("qkta", "ssa")}


def test_features_only_gives_the_maps_of_the_stages() -> None:
    torch.manual_seed(0)
    maps = create_model("qkformer_hst_4_384", features_only=True, **SIZES).eval()
    torch.manual_seed(0)
    model = create_model("qkformer_hst_4_384", **SIZES).eval()
    x = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        found, expected = maps(x), model.forward_intermediates(x, intermediates_only=True)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
        (last,) = create_model("qkformer_hst_4_384", features_only=True, out_indices=(-1,), **SIZES).eval()(x)
    assert maps.feature_info.channels() == [16, 32]
    assert maps.feature_info.reduction() == [1, 2]
    assert last.shape == (2, 32, 8, 8)
    with pytest.raises(ValueError, match="out_indices names 2, the model has stages 0 to 1"):
        create_model("qkformer_hst_4_384", features_only=True, out_indices=(2,), **SIZES)


def test_sizes_pooling_and_dropout_are_taken_as_timm_gives_them() -> None:
    model = create_model("ms_qkformer_hst_4_384", img_size=48, global_pool="avg", drop_rate=0.5, **SIZES)
    assert tuple(model.pretrained_cfg["input_size"]) == (3, 48, 48)
    with pytest.raises(ValueError, match="global_pool='max' is not offered; use 'avg'"):
        create_model("ms_qkformer_hst_4_384", global_pool="max", **SIZES)
    with pytest.raises(ValueError, match=r"drop_rate must lie in \[0, 1\), got 1.0"):
        create_model("ms_qkformer_hst_4_384", drop_rate=1.0, **SIZES)
    features = torch.full((4, 2, 32, 2, 2), 3.0)
    assert torch.equal(model.eval().forward_head(features), model.forward_head(features))
    assert not torch.equal(model.train().forward_head(features), model.forward_head(features))


@pytest.mark.parametrize("name", ["qkformer_cifar", "ms_qkformer_imagenet", "spikingformer_cifar", "maxformer_cifar"])
def test_evaluation_without_gradients_skips_zeros_with_the_same_spikes(name: str) -> None:
    model, x = small(name)
    with torch.no_grad():
        dense = model(x)
        with products_of_events() as products:
            skipped = skipping_zeros(model)(x)
    assert bool(products) == (loader.backend() == "compiled" and dense_from() > 0)
    torch.testing.assert_close(skipped, dense, atol=1e-4, rtol=0)
    x.requires_grad_()
    with products_of_events() as products:
        model(x)
    assert not products
