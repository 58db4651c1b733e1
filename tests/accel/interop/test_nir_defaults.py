"""NIR files of other tools leave the stepping of time open: what they lack is given, and only that."""

from pathlib import Path

import numpy as np
import pytest
import torch

nir = pytest.importorskip("nir", reason="needs pip install 'spikeloom[nir]'")

from spikeloom.accel.export.api import export_model  # noqa: E402
from spikeloom.accel.interop.nir import NirError  # noqa: E402
from spikeloom.accel.interop.nir_network import Defaults, read_nir  # noqa: E402


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two linear layers with LIF and IF neurons, without a word about time."""
    rng = np.random.default_rng(0)
    n = 12
    nodes = {
        "input": nir.Input(input_type={"input": np.array([8])}),
        "fc1": nir.Affine(weight=rng.normal(size=(n, 8)).astype(np.float32), bias=np.zeros(n, np.float32)),
        "lif": nir.LIF(tau=np.full(n, 0.004), r=np.ones(n), v_leak=np.zeros(n), v_threshold=np.full(n, 0.3)),
        "fc2": nir.Linear(weight=rng.normal(size=(5, n)).astype(np.float32)),
        "if": nir.IF(r=np.full(5, 1000.0), v_threshold=np.ones(5)),
        "output": nir.Output(output_type={"output": np.array([5])}),
    }
    names = list(nodes)
    path = tmp_path / "other.nir"
    nir.write(str(path), nir.NIRGraph(nodes=nodes, edges=list(zip(names, names[1:], strict=False))))
    return path


def test_what_a_file_leaves_open_is_asked_for_and_filled(file: Path) -> None:
    with pytest.raises(NirError, match=r"other\.nir, node lif leaves open dt, .*give dt_s="):
        read_nir(file)
    network = read_nir(file, Defaults(dt_s=1e-3, time_steps=6))
    x = network.example(3)
    assert tuple(x.shape) == (6, 3, 8)
    v, spikes = torch.zeros(3, 12), []
    for x_t in x:  # tau = 4 steps, r = 1: forward Euler, fires above the threshold
        v = v + (x_t @ network.layers[0].trained["weight"].T - v) / 4
        s = (v > 0.3).float()
        v = v * (1 - s)
        spikes.append(s)
    with torch.no_grad():
        found = network.run(x)[1]["lif"]
    assert found.sum() > 0 and torch.equal(found, torch.stack(spikes))


def test_its_training_step_is_costed_with_weights_that_are_trained(file: Path) -> None:
    network = read_nir(file, Defaults(dt_s=1e-3, time_steps=6, surrogate="Rectangular:0.5"))
    result = export_model(network, network.example(3), axes="TBN")
    assert result.balance.holds, str(result.balance)
    assert sum(layer.parameters for layer in result.workload.layers) == 12 * 8 + 12 + 60
    neurons = [layer.neuron for layer in result.workload.layers if layer.neuron]
    assert [neuron.half_width for neuron in neurons] == [0.5, 0.5]
    assert (result.workload.time_steps, result.workload.batch_size) == (6, 3)


@pytest.mark.parametrize("defaults", [{"dt_s": -1.0}, {"dt_s": float("nan")}, {"dt_s": 1e-3, "surrogate": "Other"}])
def test_defaults_that_cannot_be_are_refused(file: Path, defaults: dict[str, object]) -> None:
    with pytest.raises(NirError, match="use"):
        read_nir(file, Defaults(**defaults))  # type: ignore[arg-type]
