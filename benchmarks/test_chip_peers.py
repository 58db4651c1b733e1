"""MACs and parameters of networks of snnTorch and SpikingJelly from the command line, as counted by hand:
`pytest benchmarks/test_chip_peers.py`.

Neither library is needed otherwise: install them without dependencies (`pip install --no-deps snntorch spikingjelly
loguru`) in an environment that also has spikeloom.
"""

from pathlib import Path

import pytest

from spikeloom.accel.trainer.workload import Workload
from spikeloom.pipelines.cli import main

STRANGERS = Path(__file__).parent / "strangers.py"
T, B = 4, 2
NETWORKS = {  # name -> library, input, MACs of a sample and step, parameters, neurons
    "snntorch_mlp": ("snntorch", f"{T}x{B}x784:spikes0.2", 784 * 1000 + 1000 * 10, 785 * 1000 + 1001 * 10, 1010),
    "spikingjelly_cnn": (
        "spikingjelly", f"{T}x{B}x1x28x28",
        28**2 * 32 * 9 + 14**2 * 32 * 32 * 9 + 1568 * 512 + 512 * 10,
        32 * 9 + 64 + 32 * 32 * 9 + 64 + 1568 * 512 + 512 * 10,
        28**2 * 32 + 14**2 * 32 + 512 + 10,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_the_command_line_counts_what_a_person_counts(name: str, tmp_path: Path) -> None:
    library, shape, macs, parameters, neurons = NETWORKS[name]
    pytest.importorskip(library, reason=f"{library} is not installed: pip install --no-deps {library} loguru")
    axes = "TBN" if name == "snntorch_mlp" else "TBCHW"
    main(["export", f"model={STRANGERS}:{name}", f"input={shape}", f"axes={axes}", f"out={tmp_path}"])
    workload = Workload.from_json(tmp_path / "workload.json")
    assert (workload.time_steps, workload.batch_size) == (T, B)
    assert sum(layer.macs_forward for layer in workload.layers) == T * B * macs
    assert sum(layer.parameters for layer in workload.layers) == parameters
    assert workload.source["balance"].startswith(f"{parameters:,} of {parameters:,} parameters owned")
    assert sum(x.elements for x in workload.layers if x.kind == "neuron") == T * B * neurons
    main(["simulate", f"workload={tmp_path / 'workload.json'}", "gpu=null", "what_if=false", "uncertainty=false"])
