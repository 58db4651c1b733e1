"""Every vision model becomes a workload: nothing unsupported, and the MACs are those of the audit."""

import io

import pytest
import torch

from spikeloom.accel.export.program import export
from spikeloom.accel.trainer.schedule.simulator import simulate
from spikeloom.pipelines.config.chips import load_chip
from spikeloom.vision.energy import count_operations
from tests.vision.small import SMALL, small

QUICK = ("spikingformer_imagenet", "qkformer_cifar")  # the others take as long each


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in SMALL])
def test_an_export_is_whole_and_its_macs_are_those_of_the_audit(name: str) -> None:
    model, x = small(name, batch=3)
    frames = x if x.dim() == 5 else x.expand(4, *x.shape).contiguous()
    exported = export(model, [frames], name=name, source={})
    workload = exported.workload
    assert workload.unsupported == ()
    audit = count_operations(model, [frames])

    def macs(kind: str) -> int:
        return sum(layer.macs_forward for layer in workload.layers if layer.kind == kind)

    assert macs("gemm_weight") == 3 * audit.dense_macs("layer")
    assert macs("gemm_activation") == 3 * audit.dense_macs("product")
    report = simulate(workload, load_chip("neuromc"))
    forward = next(cost for engine, cost in zip(("fp", "bp", "wg"), report.engines, strict=False) if engine == "fp")
    assert forward.true_macs == 3 * (audit.dense_macs("layer") + audit.dense_macs("product"))
    if name == "ms_qkformer_dvs":
        reloaded = torch.export.load(io.BytesIO(exported.program_bytes())).module()
        other = torch.cat((frames, frames))[:, :2]
        with torch.no_grad():
            torch.testing.assert_close(reloaded(other), model(other), atol=1e-6, rtol=0)
