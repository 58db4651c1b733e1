"""ONNX: onnxruntime fires the same spikes in every population, and what has no form is named."""

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from spikeloom.accel.interop.onnx import DOMAIN, OnnxError, OnnxRunner, write_onnx
from spikeloom.accel.interop.roundtrip import RoundTripError, round_trip
from spikeloom.accel.spiking.functional import LIFParameters
from spikeloom.accel.spiking.neuron import LIF
from spikeloom.speech.models.spikescr import SpikeSCRConfig
from tests.accel.interop.networks import everything, exported
from tests.vision.small import small

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


class Soft(nn.Module):
    """Two populations of one shape, soft and hard."""

    def __init__(self) -> None:
        super().__init__()
        self.soft, self.linear = LIF(LIFParameters(v_reset=None, threshold=0.25)), nn.Linear(6, 6)
        self.hard = LIF(LIFParameters(tau=4.0, decay_input=False, threshold=0.5, v_reset=-0.25))
        self.unused = LIF(LIFParameters())

    def forward(self, x: Tensor) -> Tensor:
        self.unused(x)
        return self.hard(self.linear(self.soft(x)[0]))[0]


@pytest.fixture(scope="module")
def soft(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.export.ExportedProgram, Path]:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    program = exported(Soft(), torch.rand(5, 3, 6))
    write_onnx(program, path)
    return program, path


def test_onnxruntime_fires_the_same_spikes_at_other_lengths_and_batches(soft):
    program, path = soft
    for shape in ((5, 3, 6), (11, 2, 6)):
        result = round_trip(program, [(torch.rand(shape) * 2,)], OnnxRunner(path), path.name)
        assert list(result.fired) == ["soft", "hard"] and min(result.fired.values()) > 0
        assert result.differing == {} and result.output_difference == 0
    assert list(path.parent.iterdir()) == [path]


def test_neurons_are_functions_of_the_domain_that_say_their_constants(soft):
    model = onnx.load(str(soft[1]))
    calls = {n.name: n.op_type for n in model.graph.node if n.domain == DOMAIN}
    said = {f.name: json.loads(f.doc_string) for f in model.functions if f.domain == DOMAIN}
    assert said[calls["soft"]]["v_reset"] is None and said[calls["hard"]]["v_reset"] == -0.25
    assert said[calls["hard"]]["tau"] == 4.0 and "ATan" in said[calls["hard"]]["surrogate"]


def test_every_layer_of_a_whole_network_agrees(tmp_path: Path):
    model, x = everything()
    program = exported(model, x)
    write_onnx(program, tmp_path / "model.onnx")
    result = round_trip(program, [(x,), (0.7 * x,)], OnnxRunner(tmp_path / "model.onnx"), "model.onnx")
    assert list(result.fired) == ["lif1", "lif2", "learned", "integrate", "lif3"]
    assert min(result.fired.values()) > 0 and result.differing == {}
    assert result.output_difference <= 1e-5


def test_a_file_that_computes_something_else_is_told_from_rounding(soft):
    """Another slope flips spikes far from the threshold; one that sits on it may flip either way."""
    program, path = soft
    x = torch.rand(5, 3, 6) * 2
    other = exported(Soft(), x)  # other weights
    with pytest.raises(RoundTripError, match=r"spikes of hard differ.*more than rounding"):
        round_trip(other, [(x,)], OnnxRunner(path), path.name)
    exact, below = torch.zeros(5, 3, 6), torch.zeros(5, 3, 6)
    exact[0], below[0] = 0.5, 0.5 - 1e-7  # of tau 2: lands on 0.25, or just below
    run = OnnxRunner(path)
    result = round_trip(program, [(exact,)], lambda batch: run((below,)), path.name)
    assert result.differing["soft"] == 18 and "within rounding" in str(result)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["spikingformer_cifar", "cml_cifar", "qkformer_cifar", "ms_qkformer_cifar", "qkca"])
def test_every_spiking_transformer_agrees(tmp_path: Path, name: str):
    model, images = small(name, batch=3)
    x = images.expand(4, *images.shape).contiguous()
    program = exported(model, x)
    write_onnx(program, tmp_path / "model.onnx")
    result = round_trip(program, [(x,), (0.9 * x,)], OnnxRunner(tmp_path / "model.onnx"), name)
    assert len(result.fired) > 10 and min(result.fired.values()) > 0 and result.differing == {}
    assert result.output_difference <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("causal", [False, True])
def test_a_whole_spikescr_agrees(tmp_path: Path, causal: bool):
    torch.manual_seed(0)
    model = SpikeSCRConfig(causal=causal).build(40, 10).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.bias.data.uniform_(0.3, 0.9)
            module.weight.data.uniform_(1, 2)
    x = torch.rand(50, 3, 40)
    program = exported(model, x)
    write_onnx(program, tmp_path / "model.onnx")
    result = round_trip(program, [(x,), (x[:31, :2],)], OnnxRunner(tmp_path / "model.onnx"), "SpikeSCR")
    assert len(result.fired) == 14 and min(result.fired.values()) > 0 and result.differing == {}
    assert result.output_difference <= 1e-5


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lif = LIF(LIFParameters())

    def forward(self, x: Tensor) -> Tensor:
        return torch.lgamma(self.lif(x)[0] + 1) + torch.special.i0(x)


def test_what_has_no_translation_is_named_and_nothing_is_left(tmp_path: Path):
    with pytest.raises(OnnxError, match=r"lgamma.*no ONNX form of \S*lgamma.*replace it"):
        write_onnx(exported(Odd(), torch.rand(4, 3, 2)), tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "b.onnx").write_bytes(b"nothing")
    with pytest.raises(OnnxError, match=r"b\.onnx: onnxruntime cannot run it"):
        OnnxRunner(tmp_path / "b.onnx")


def test_without_the_libraries_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ImportError, match=r"pip install 'spikeloom\[onnx\]'"):
        OnnxRunner(tmp_path / "a.onnx")
