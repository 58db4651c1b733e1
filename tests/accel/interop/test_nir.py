"""NIR: the same spikes after a round trip, by NIR's own equations too, and a clear refusal of what it cannot say."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from spikeloom.accel.interop.nir import NirError, write_nir
from spikeloom.accel.interop.nir_network import NirRunner, read_nir
from spikeloom.accel.interop.roundtrip import round_trip, run_program
from spikeloom.accel.spiking.functional import LIFParameters
from spikeloom.accel.spiking.neuron import LIF, integrate_and_fire
from spikeloom.accel.spiking.surrogate import Rectangular
from tests.accel.interop.networks import P, Q, everything, exported

nir = pytest.importorskip("nir")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.export.ExportedProgram, Tensor, Path]:
    model, x = everything()
    path = tmp_path_factory.mktemp("nir") / "model.nir"
    program = exported(model, x)
    write_nir(program, (x,), path, dt_s=1e-3)
    return program, x, path


def test_a_round_trip_gives_the_same_spikes_in_every_population(written):
    program, x, path = written
    result = round_trip(program, [(x,), (0.7 * x,)], NirRunner(path), path.name)
    assert list(result.fired) == ["lif1", "lif2", "learned", "integrate", "lif3"]
    assert min(result.fired.values()) > 0 and result.differing == {}
    assert result.output_difference <= 1e-5
    assert list(path.parent.iterdir()) == [path]


def test_a_file_run_one_step_at_a_time_gives_the_spikes_of_the_whole(written):
    _, x, path = written
    network = read_nir(path)
    whole, state, pieces = network.run(x)[1], {}, []
    for x_t in x.split(1):
        _, spikes, state = network.steps(x_t, state)
        pieces.append(spikes)
    for name, spikes in whole.items():
        assert torch.equal(torch.cat([piece[name] for piece in pieces]), spikes)


def test_the_librarys_own_reader_takes_the_file_and_finds_time_explicit(written):
    graph = nir.read(str(written[2]))  # with its check of types, which a convolution in groups would not pass
    assert graph.nodes["grouped"].groups == 1 and graph.nodes["grouped"].weight.shape == (8, 8, 3, 3)
    assert graph.metadata["dt"] == 1e-3 and graph.metadata["time_steps"] == 7
    assert graph.metadata["readout"] == "mean over time"
    lif1, lif2, learned, integrate = (graph.nodes[k] for k in ("lif1", "lif2", "learned", "integrate"))
    for node in (lif1, lif2, learned, integrate):
        assert {"dt", "time_steps", "reset", "v_start", "surrogate", "surrogate_parameter"} <= set(node.metadata)
    assert np.allclose(lif1.tau, 2e-3) and np.allclose(lif1.r, 2) and np.allclose(lif1.v_threshold, 0.5)
    assert np.allclose(lif2.tau, 3e-3) and np.allclose(lif2.r, 1) and np.allclose(lif2.v_leak, -0.1)
    assert np.allclose(learned.tau, 2.7e-3) and np.allclose(integrate.r, 1e3)


@pytest.mark.parametrize("p", [Q, P, replace(Q, tau=3.3, surrogate=Rectangular(0.25)), replace(Q, v_reset=-0.5)])
def test_constants_come_back_as_they_were(tmp_path: Path, p: LIFParameters):
    model = nn.Sequential(LIF(p))
    x = torch.rand(4, 3, 2) * 3

    class First(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return model[0](x)[0]

    write_nir(exported(First(), x), (x,), tmp_path / "a.nir", dt_s=1e-3)
    (neurons,) = read_nir(tmp_path / "a.nir").layers
    assert neurons.gain == 1
    assert neurons.lif.parameters_ == replace(p, threshold=float(np.float32(p.threshold)))


class Clip(nn.Module):
    """Convolution in groups along one axis, a difference, scales, a norm of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.lif = nn.Conv1d(4, 8, 3, stride=2, padding=1, groups=2), LIF(Q)
        self.head, self.side, self.norm = nn.Linear(48, 3), nn.Linear(48, 3, bias=False), nn.BatchNorm1d(3)
        self.norm.running_mean.fill_(0.25)

    def forward(self, x: Tensor) -> Tensor:
        shape = x.shape[:2]
        y = self.lif(self.conv(x.flatten(0, 1)).unflatten(0, shape))[0].flatten(2)
        z = self.head(y) - 2 * self.side(y).div(8)
        return self.norm(z.flatten(0, 1)).unflatten(0, shape)


class Picture(nn.Module):
    """Spread taps, a sum over places."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.lif, self.head, self.out = nn.Conv2d(4, 4, 3, dilation=2), LIF(Q), nn.Linear(4, 3), LIF(P)

    def forward(self, x: Tensor) -> Tensor:
        y = self.lif(self.conv(x.flatten(0, 1)).unflatten(0, x.shape[:2]))[0]
        return self.out(self.head(y.sum((3, 4))))[0]


@pytest.mark.parametrize(("kind", "shape"), [(Clip, (5, 3, 4, 12)), (Picture, (5, 3, 4, 9, 7))])
def test_layers_along_one_axis_and_sums_have_a_form(tmp_path: Path, kind: type[nn.Module], shape: tuple[int, ...]):
    torch.manual_seed(0)
    x = torch.rand(shape) * 4
    program = exported(kind().eval(), x)
    write_nir(program, (x,), tmp_path / "a.nir", dt_s=0.5)
    nir.read(str(tmp_path / "a.nir"))
    result = round_trip(program, [(x,)], NirRunner(tmp_path / "a.nir"), "a.nir")
    assert min(result.fired.values()) > 0 and result.differing == {}


class Exact(nn.Module):
    """Numbers that are multiples of 1/64: sums are exact, and membranes do land on the threshold."""

    def __init__(self, p: LIFParameters) -> None:
        super().__init__()
        self.first, self.lif = nn.Linear(6, 16), LIF(p)
        self.second, self.integrate = nn.Linear(16, 4), integrate_and_fire(0.75)
        for w in self.parameters():
            w.data = (w.data * 16).round() / 16

    def forward(self, x: Tensor) -> Tensor:
        return self.integrate(self.second(self.lif(self.first(x))[0]))[0]


@pytest.mark.parametrize("decay_input", [True, False])
def test_the_equations_of_nir_stepped_by_dt_give_our_spikes(tmp_path: Path, decay_input: bool):
    """An interpreter of its own, in numpy: tau dv/dt = (v_leak - v) + r I, spike where v > v_threshold."""
    torch.manual_seed(1)
    p, dt = LIFParameters(tau=2.0, decay_input=decay_input, threshold=0.25), 2.0**-10
    model, x = Exact(p), (torch.rand(9, 5, 6) * 8).round() / 4
    program = exported(model, x)
    write_nir(program, (x,), tmp_path / "a.nir", dt_s=dt)
    nodes = nir.read(str(tmp_path / "a.nir")).nodes
    v = {name: np.zeros((5, *nodes[name].r.shape)) for name in ("lif", "integrate")}
    found: dict[str, list[np.ndarray]] = {"lif": [], "integrate": []}
    for i in x.numpy():
        for layer, name in (("first", "lif"), ("second", "integrate")):
            node = nodes[name]
            i = i @ nodes[layer].weight.T + nodes[layer].bias
            slope = (node.v_leak - v[name] + node.r * i) / node.tau if isinstance(node, nir.LIF) else node.r * i
            u = v[name] + dt * slope
            i = (u > node.v_threshold).astype(np.float64)
            v[name] = np.where(i > 0, node.v_reset, u)
            found[name].append(i)
    expected = run_program(program, (x,)).spikes
    for name, spikes in expected.items():
        assert 0 < spikes.mean() < 1
        assert np.array_equal(np.stack(found[name]), spikes.numpy())


class Refused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.soft, self.linear = LIF(LIFParameters(v_reset=None)), nn.Linear(4, 4)
        self.lif, self.attend = LIF(Q), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        a = torch.relu(self.soft(x)[0])
        b, _ = self.lif(self.linear(x))
        return a + self.attend(b.permute(1, 0, 2)).permute(1, 0, 2) + torch.softmax(x, -1)


def test_what_nir_cannot_say_is_refused_with_every_layer_and_remedy(tmp_path: Path):
    x = torch.rand(5, 3, 4)
    with pytest.raises(NirError) as caught:
        write_nir(exported(Refused(), x), (x,), tmp_path / "a.nir", dt_s=1e-3)
    told = str(caught.value)
    assert "soft: a soft reset" in told and "v_reset such as 0.0" in told
    assert "permute: it moves axes" in told and "softmax" in told and "onnx=true" in told
    with pytest.raises(NirError, match="nir_dt_s=0"):
        write_nir(exported(Refused(), x), (x,), tmp_path / "a.nir", dt_s=0)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_leaves_time_open_is_not_guessed_at(tmp_path: Path):
    one, ends = np.ones(3), {"input": nir.Input(np.array([3])), "output": nir.Output(np.array([3]))}
    lif = nir.LIF(tau=2 * one, r=one, v_leak=0 * one, v_threshold=one, v_reset=0 * one)
    edges = [("input", "lif"), ("lif", "output")]
    nir.write(str(tmp_path / "other.nir"), nir.NIRGraph(nodes={**ends, "lif": lif}, edges=edges))
    with pytest.raises(NirError, match=r"other\.nir, node lif leaves open dt, time_steps, reset, v_start, surrogate"):
        read_nir(tmp_path / "other.nir")
    nir.write(str(tmp_path / "loop.nir"), nir.NIRGraph(nodes={**ends, "lif": lif}, edges=[*edges, ("lif", "lif")]))
    with pytest.raises(NirError, match="loop"):
        read_nir(tmp_path / "loop.nir")
    (tmp_path / "broken.nir").write_bytes(b"nothing")
    with pytest.raises(NirError, match=r"broken\.nir: not a readable NIR file"):
        read_nir(tmp_path / "broken.nir")


def test_without_the_library_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setitem(sys.modules, "nir", None)
    with pytest.raises(ImportError, match=r"pip install 'spikeloom\[nir\]'"):
        read_nir(tmp_path / "a.nir")
