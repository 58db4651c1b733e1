"""What parts an FP16 gradient from that of FP32: with the spikes of FP32, only rounding is left."""

import pytest
import torch

from spikeloom.accel.export.program import export
from spikeloom.accel.trainer.engines.agreement import agreement
from spikeloom.accel.trainer.engines.arithmetic import FP16, FP32
from spikeloom.pipelines.training.toy_datasets import small_task


def test_spikes_that_flip_are_why_gradients_part() -> None:
    task = small_task("digits", "spikingformer", limit=32)
    x, labels = task.encode(task.train.x[:8]), task.train.labels[:8]
    exported = export(task.build(0, 0.5), [x], name="spikingformer", source={}, axes="TB...")
    same, found = (
        agreement(
            exported.program, [x], lambda out: task.loss(out, labels), arithmetic, 1024.0 if arithmetic is FP16 else 1
        )
        for arithmetic in (FP32, FP16)
    )
    assert same.spike_flips == same.mask_flips == 0 and same.cosine == pytest.approx(1, abs=1e-6)
    assert found.spike_flips is not None and 0 < found.spike_flips < 0.02
    assert found.cosine < 0.99 < found.cosine_forced


def test_without_neurons_nothing_flips() -> None:
    torch.manual_seed(0)
    model, x = (
        torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4)),
        torch.randn(2, 5, 8),
    )
    exported = export(model, [x], name="mlp", source={}, axes="TBC")
    found = agreement(exported.program, [x], lambda out: out.square().mean(), FP16, 256.0)
    assert found.spike_flips is None and found.cosine == found.cosine_forced > 0.999
