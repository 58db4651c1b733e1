"""An outdated end of one task never stops the next one: a small network on every preset keeps all laws."""

from pathlib import Path

import pytest

from accel.trainer.chip import Chip
from accel.trainer.simulator import simulate
from tests.accel.trainer.networks import NEUROMC, after, conv, workload


@pytest.mark.parametrize("preset", sorted(p.stem for p in NEUROMC.parent.glob("*.yaml")))
def test_wide_layers_of_little_work_keep_the_laws(preset: str) -> None:
    first = conv("a", 64, 128, 1, kernel=1, time_steps=4, batch_size=64, input_kind="real", input_bits=16)
    fired = after(first, "neuron")
    second = conv("b", 128, 10, 1, kernel=1, time_steps=4, batch_size=64)
    chip = Chip.from_yaml(Path(NEUROMC.parent / f"{preset}.yaml"))
    assert simulate(workload(first, fired, second, after(second, "neuron")), chip).cycles_per_iteration > 0
