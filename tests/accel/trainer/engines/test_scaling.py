"""An overflow is seen, recorded, and met with a smaller scale."""

import pytest
import torch
from torch import nn

from spikeloom.accel.export.program import export
from spikeloom.accel.trainer.engines.gradients import with_gradient_densities
from spikeloom.accel.trainer.engines.scaling import LossScale


def test_the_scale_halves_on_an_overflow_and_doubles_after_patience() -> None:
    scale, good, bad = LossScale(1024.0, patience=3), {"w": torch.ones(2)}, {"w": torch.tensor([1.0, float("inf")])}
    assert not scale.update(bad) and scale.value == 512
    assert [scale.update(good) for _ in range(3)] == [True] * 3 and scale.value == 1024
    assert scale.overflows == [1024.0]
    with pytest.raises(ValueError, match="power of two"):
        LossScale(1000.0)


def test_an_export_repeats_a_pass_that_overflowed_and_says_so() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 16, bias=False), nn.Linear(16, 1, bias=False))
    with torch.no_grad():
        model[1].weight.fill_(60.0)  # times 1024: 61,440; a weight gradient of 8 samples passes 65,504
    x = torch.full((8, 16), 4.0)
    exported = export(model, [x], name="n", source={}, axes="BN")
    workload = with_gradient_densities(exported, [x]).workload
    assert "overflow at 1024" in workload.source["density_du"]
    assert all(layer.density_du is not None and layer.density_du.mean > 0 for layer in workload.layers)
