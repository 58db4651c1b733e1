"""Export: what is counted is what was computed, and what is unknown is named."""

import io

import pytest
import torch
from torch import Tensor, nn

from spikeloom.accel.export.program import UnsupportedOpError, export
from spikeloom.accel.spiking.functional import LIFParameters
from spikeloom.accel.spiking.neuron import LIF
from spikeloom.accel.spiking.surrogate import Rectangular
from spikeloom.accel.trainer.workload import Workload
from spikeloom.speech.models.spikescr import SpikeSCRConfig


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


class EncoderDecoder(nn.Module):
    """As in BART: embedding tied to the readout, attention with a causal mask, cross-attention, GELU, layer norms."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 16)
        self.encoder = nn.TransformerEncoderLayer(16, 2, 32, activation="gelu", batch_first=True)
        self.decoder = nn.TransformerDecoderLayer(16, 2, 32, activation="gelu", batch_first=True)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        causal = torch.full((target.shape[1], target.shape[1]), float("-inf")).triu(1)
        decoded = self.decoder(self.embed(target), self.encoder(self.embed(source)), tgt_mask=causal)
        return decoded @ self.embed.weight.T


def test_an_encoder_decoder_without_time_steps_lowers_whole():
    torch.manual_seed(0)
    tokens = (torch.randint(0, 50, (3, 9)), torch.randint(0, 50, (3, 7)))
    model = EncoderDecoder()
    exported = export(model, [tokens], name="bart", source={}, time_first=False)
    workload = exported.workload
    assert (workload.time_steps, workload.batch_size, workload.unsupported) == (1, 3, ())
    macs = {
        kind: sum(x.macs_forward for x in workload.layers if x.kind == kind)
        for kind in ("gemm_weight", "gemm_activation")
    }
    per_token = 16 * 16
    assert macs["gemm_weight"] == 3 * (
        9 * (4 * per_token + 2 * 16 * 32) + 7 * (4 + 2) * per_token + 9 * 2 * per_token + 7 * (2 * 16 * 32 + 16 * 50)
    )
    assert macs["gemm_activation"] == 3 * 2 * 16 * (9 * 9 + 7 * 7 + 7 * 9)
    assert sum(x.parameters for x in workload.layers) == sum(p.numel() for p in model.parameters())  # tied: once
    attention = next(x for x in workload.layers if "scaled_dot" in x.op)
    assert attention.macs_backward == 2 * attention.macs_forward and attention.macs_weight_gradient == 0
    reloaded = torch.export.load(io.BytesIO(exported.program_bytes())).module()
    other = (torch.randint(0, 50, (5, 9)), torch.randint(0, 50, (5, 7)))
    assert torch.equal(reloaded(*other), model.eval()(*other))


class Conformer(nn.Module):
    """Grouped and strided convolutions, a pooled readout, a product with a weight, a fixed matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(4, 8, 3, padding="same", groups=4), nn.ReLU(inplace=True), nn.AvgPool2d(2), nn.Conv2d(8, 8, 1)
        )
        self.weight = nn.Parameter(torch.randn(8, 3))
        self.register_buffer("fixed", torch.eye(3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.features(x.flatten(0, 1)).mean((2, 3)).unflatten(0, x.shape[:2]).mean(0)
        return (y @ self.weight) @ self.fixed


def test_grouped_pooled_and_frozen_layers_are_counted():
    torch.manual_seed(0)
    layers = export(Conformer(), batches((2, 3, 4, 6, 6)), name="mixed", source={}, axes="TBCHW").workload.layers
    gemms = [layer for layer in layers if layer.kind == "gemm_weight"]
    assert [layer.macs_forward for layer in gemms] == [6 * 36 * 8 * 9, 6 * 9 * 64, 3 * 24, 3 * 9]
    assert (gemms[0].groups, gemms[0].padding) == (4, (1, 1))
    assert (gemms[2].time_steps, gemms[2].batch_size) == (1, 3)  # the mean over time is behind
    assert gemms[3].macs_weight_gradient == 0 and gemms[3].parameters == 0
    assert gemms[0].macs_backward == 0 and gemms[1].macs_backward > 0


def test_einsum_and_matmul_of_activations_agree():
    class Einsum(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.einsum("tbnd,tbmd->tbnm", x, x)

    class Matmul(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x @ x.transpose(-1, -2)

    (first,), (second,) = (
        export(m(), batches((4, 3, 5, 6)), name="p", source={}, axes="TBND").workload.layers for m in (Einsum, Matmul)
    )
    assert first.macs_forward == second.macs_forward == 12 * 5 * 5 * 6
    assert (first.tokens, first.time_steps, first.batch_size) == (second.tokens, second.time_steps, second.batch_size)


class Residual(nn.Module):
    """Spikes added to spikes: whole numbers in front of a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (LIF(LIFParameters(threshold=0.4, surrogate=Rectangular(0.5))) for _ in range(2))
        self.linear = nn.Linear(20, 20)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.first(x)[0], self.second(2 * x)[0]
        return self.linear(a + 2 * b)


def test_whole_numbers_masks_and_busy_lanes_are_measured():
    torch.manual_seed(0)
    model, (x,) = Residual().eval(), batches((4, 3, 20), 1)
    layers = {layer.path: layer for layer in export(model, [x], name="r", source={}).workload.layers}
    linear = layers["linear"]
    assert (linear.input_kind, linear.input_bits) == ("integer", 2)
    with torch.no_grad():
        summed = model.first(x)[0] + 2 * model.second(2 * x)[0]
    lanes = (summed != 0).float().mean(0)  # [B, 20]
    assert linear.density_input.mean == pytest.approx(float(lanes.mean()))
    tiles = torch.stack([lanes[:, :16].amax(1), lanes[:, 16:].amax(1)])
    assert linear.density_input.busiest == pytest.approx(float(tiles.mean()), abs=1e-6)
    v, near = torch.zeros(3, 20), []
    for x_t in x:  # the equation of the neuron: u = v/2 + x/2, fires at 0.4, window of 0.5 on each side
        u = (v + x_t) / 2
        near.append((u - 0.4).abs() < 0.5)
        v = u * (u < 0.4)
    assert layers["first"].density_mask.mean == pytest.approx(float(torch.stack(near).float().mean()))
    assert len(layers["first"].density_mask.per_step) == len(linear.density_input.per_step) == 4
