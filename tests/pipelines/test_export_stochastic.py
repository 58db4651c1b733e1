"""Binary-stochastic and memristor runs are exported with measured bits and counted pulses, and simulated."""

import json
from pathlib import Path

import pytest

from spikeloom.accel.trainer.workload import Workload
from spikeloom.pipelines.cli import main

TINY = ["experiment=bs_digits", "model.hidden=[12]", "model.repeats=[1]", "trainer.threads=1", "trainer.epochs=2"]


@pytest.fixture(scope="module", params=["real", "pcm"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bs") / request.param
    device = [] if request.param == "real" else ["model.weights=pcm", "model.rule.update=carry"]
    main(["train", *TINY, *device, f"run={folder}"])
    main(["export", f"run={folder}", "batches=2", "batch_size=16"])
    return folder


def test_its_workload_has_the_macs_weights_and_bits_of_the_network(run: Path) -> None:
    workload = Workload.from_json(run / "export/workload.json")
    first, neurons, last = workload.layers
    assert (first.macs_forward, last.macs_forward) == (16 * 256 * 12, 16 * 12 * 10)
    assert first.macs_backward == 0 and last.macs_backward == last.macs_forward == last.macs_weight_gradient
    biases = 0 if run.name == "pcm" else 12 + 10
    assert sum(layer.parameters for layer in workload.layers) == 256 * 12 + 12 * 10 + biases
    assert first.input_kind == last.input_kind == "binary"
    assert neurons.density_spike == last.density_input and 0 < neurons.density_spike.mean < 1
    assert 0 < neurons.density_mask.mean < 1 and neurons.neuron.half_width is not None
    assert 0 < first.density_du.mean <= 1 and 0 < neurons.density_du.mean <= 1


def test_it_is_priced_on_arrays_with_the_pulses_of_its_own_run(run: Path, tmp_path: Path) -> None:
    workload = run / "export/workload.json"
    quick = ["gpu=null", "what_if=false", "uncertainty=false"]
    for chip in ("memristor", "cacti28", "neuromc"):
        main(["simulate", f"workload={workload}", f"chip={chip}", f"out={tmp_path / chip}", *quick])
    counted = Workload.from_json(workload).source.get("pulses_per_weight")
    result = json.loads((run / "result.json").read_text("utf-8"))
    report = json.loads((tmp_path / "memristor/report.json").read_text("utf-8"))
    used = next(c for c in report["constants"] if c["path"] == "crossbar.pulses_per_weight")
    if run.name == "real":
        assert counted is None and used["value"] == 0.001
        return
    pulses = result["pulses_up"] + result["pulses_down"]
    rows = (run / "metrics.csv").read_text("utf-8").splitlines()
    steps = sum(int(float(row.split(",")[rows[0].split(",").index("steps")])) for row in rows[1:])
    assert float(counted) == pytest.approx(pulses / steps / result["synapses"], rel=1e-4)
    assert used["value"] == float(counted) and used["source"] == "counted in the run"
