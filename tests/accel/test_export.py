"""Export: what is counted is what was computed, and what is unknown is named."""

import io

import pytest
import torch
from torch import Tensor, nn

from accel.export import UnsupportedOpError, export
from accel.spiking.functional import LIFParameters
from accel.spiking.neuron import LIF
from accel.spiking.surrogate import Rectangular
from accel.trainer.workload import Workload
from speech.spikescr import SpikeSCRConfig


class SmallNet(nn.Module):
    """Convolution, BN, LIF, linear: x [T, B, 2, 8, 8] -> [T, B, 5]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 6, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.neurons = LIF(LIFParameters(threshold=0.3, surrogate=Rectangular(0.5)))
        self.head = nn.Linear(6 * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        steps, batch = x.shape[:2]
        y = self.norm(self.conv(x.flatten(0, 1))).unflatten(0, (steps, batch))
        spikes, _ = self.neurons(y)
        return self.head(spikes.flatten(2))


class Odd(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.fft(x, dim=0).real + torch.erfinv(x * 0.1)


def batches(shape: tuple[int, ...], n: int = 2) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(shape, generator=generator) for _ in range(n)]


def test_macs_shapes_and_parameters_are_those_of_the_network():
    torch.manual_seed(0)
    workload = export(SmallNet(), batches((4, 3, 2, 8, 8)), name="small", source={}).workload
    by_path = {layer.path: layer for layer in workload.layers}
    conv, head = by_path["conv"], by_path["head"]
    assert (conv.kernel, conv.stride, conv.padding) == ((3, 3), (2, 2), (1, 1))
    assert (conv.in_height, conv.out_height, conv.out_width) == (8, 4, 4)
    assert conv.macs_forward == 4 * 3 * 6 * 16 * 2 * 9
    assert conv.macs_backward == 0 and conv.macs_weight_gradient == conv.macs_forward
    assert head.macs_forward == head.macs_backward == 4 * 3 * 96 * 5
    assert sum(layer.parameters for layer in workload.layers) == sum(p.numel() for p in SmallNet().parameters())
    assert head.inputs == ("neurons",) and by_path["neurons"].outputs == ("head",)
    assert by_path["neurons"].neuron.half_width == 0.5
    assert head.input_kind == "binary" and head.input_bits == 1 and conv.input_kind == "real"


def test_densities_are_those_of_the_tensors():
    torch.manual_seed(0)
    model, data = SmallNet().eval(), batches((4, 3, 2, 8, 8))
    workload = export(model, data, name="small", source={}).workload
    fired = []
    for x in data:
        with torch.no_grad():
            y = model.norm(model.conv(x.flatten(0, 1))).unflatten(0, (4, 3))
            fired.append(model.neurons(y)[0])
    means = [float(s.mean()) for s in fired]
    neuron = next(layer for layer in workload.layers if layer.kind == "neuron")
    assert 0 < neuron.density_spike.mean < 1
    assert neuron.density_spike.mean == pytest.approx(sum(means) / 2, abs=1e-6)
    assert (neuron.density_spike.min, neuron.density_spike.max) == pytest.approx((min(means), max(means)), abs=1e-6)
    per_step = [float(torch.stack([s[t] for s in fired]).mean()) for t in range(4)]
    assert neuron.density_spike.per_step == pytest.approx(per_step, abs=1e-6)


def test_spikescr_exports_whole_and_runs_at_other_lengths():
    torch.manual_seed(0)
    model = SpikeSCRConfig(width=32, heads=2).build(20, 4)
    exported = export(model, batches((12, 3, 20)), name="spikescr", source={})
    assert exported.workload.unsupported == ()
    per_step = 3 * 20 * 32 + 4 * 32**2 + 4 * 32 * 32 + 4 * 32**2 + 31 * 32 + 32 * 4
    gemm = [layer for layer in exported.workload.layers if layer.kind == "gemm_weight"]
    assert sum(layer.macs_forward for layer in gemm) == 12 * 3 * per_step
    attention = [layer for layer in exported.workload.layers if layer.kind == "gemm_activation"]
    assert [layer.macs_forward for layer in attention] == [12 * 3 * 32 * 16] * 2
    assert sum(layer.kind == "neuron" for layer in exported.workload.layers) == 14
    reloaded = torch.export.load(io.BytesIO(exported.program_bytes())).module()
    other = batches((31, 2, 20))[0]
    assert torch.equal(reloaded(other), model.eval()(other))


def test_a_workload_survives_its_file(tmp_path):
    workload = export(SmallNet(), batches((4, 3, 2, 8, 8)), name="small", source={"densities": "random"}).workload
    workload.to_json(tmp_path / "workload.json")
    assert Workload.from_json(tmp_path / "workload.json") == workload


def test_unknown_operations_are_all_named_or_listed():
    with pytest.raises(UnsupportedOpError, match=r"fft.*erfinv"):
        export(Odd(), batches((4, 3, 2)), name="odd", source={})
    workload = export(Odd(), batches((4, 3, 2)), name="odd", source={}, strict=False).workload
    assert any("erfinv" in u.op for u in workload.unsupported)


def test_batches_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        export(SmallNet(), [*batches((4, 3, 2, 8, 8), 1), *batches((5, 3, 2, 8, 8), 1)], name="small", source={})
