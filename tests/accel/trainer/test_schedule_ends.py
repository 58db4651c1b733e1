"""An outdated end of one task never stops the next one: whatever the network, chip and mapping, all laws hold."""

import dataclasses
from pathlib import Path
from random import Random

import pytest

from spikeloom.accel.trainer.chip.chip import Chip
from spikeloom.accel.trainer.chip.override import mesh_of
from spikeloom.accel.trainer.schedule.partition import Mapping
from spikeloom.accel.trainer.schedule.result import SimulationReport
from spikeloom.accel.trainer.schedule.simulator import simulate
from tests.accel.trainer.networks import NEUROMC, after, conv, workload
from tests.accel.trainer.random_workloads import random_workload

PRESETS = {path.stem: Chip.from_yaml(path) for path in sorted(NEUROMC.parent.glob("*.yaml"))}
SKIPPING = {"fp": ("input", "weight"), "bp": ("du", "weight"), "wg": ("input", "du")}
BANDWIDTHS = (1e7, 1e9, 1e13)  # starved of data, as usual, never


def random_chip(random: Random, preset: Chip) -> Chip:
    """The preset with 1 to 20 cores, often with zeros skipped, and another pace of its memories."""
    count = random.choice([1, 2, 3, 7, 12, 20])
    rows, columns = mesh_of(count)
    engines = {
        name: dataclasses.replace(getattr(preset, name), zero_skipping=operands) for name, operands in SKIPPING.items()
    }
    return dataclasses.replace(
        preset, cores=dataclasses.replace(preset.cores, count=count, mesh_rows=rows, mesh_columns=columns),
        mapping=dataclasses.replace(
            preset.mapping, membrane=random.choice(["store", "recompute"]), channel_quantum=random.choice([4, 16]),
        ),
        dram=dataclasses.replace(preset.dram, bandwidth_bytes_per_s=random.choice(BANDWIDTHS)),
        norm_memory=dataclasses.replace(preset.norm_memory, port_bits=random.choice([16, 256])),
        **(engines if random.random() < 0.7 else {}),
    )  # fmt: skip


def random_run(seed: int, preset: str) -> SimulationReport:
    random = Random(seed)
    network = random_workload(random)
    chip = random_chip(random, PRESETS[preset])
    placing = Mapping(
        replicas=random.randint(1, min(3, network.batch_size, chip.cores.count)),
        style=random.choice(["pipeline", "channels"]), micro_batches=random.choice([None, None, 1, 3]),
    )  # fmt: skip
    return simulate(network, chip, placing)  # checks its laws


@pytest.mark.parametrize("preset", PRESETS)
def test_no_task_ends_before_its_work_is_done(preset: str) -> None:
    """`simulate` checks that engines account for the makespan; here, that each task takes the cycles it needs."""
    for seed in range(12):
        report = random_run(seed, preset)
        for core, engine, layer, _, start, end, busy in report.timeline:
            assert busy <= (end - start) * (1 + 1e-9) + 1e-6, (seed, core, engine, layer)


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_the_laws_hold_for_very_many_networks(preset: str) -> None:
    for seed in range(12, 400):
        random_run(seed, preset)


@pytest.mark.parametrize("preset", PRESETS)
def test_wide_layers_of_little_work_keep_the_laws(preset: str) -> None:
    first = conv("a", 64, 128, 1, kernel=1, time_steps=4, batch_size=64, input_kind="real", input_bits=16)
    fired = after(first, "neuron")
    second = conv("b", 128, 10, 1, kernel=1, time_steps=4, batch_size=64)
    chip = Chip.from_yaml(Path(NEUROMC.parent / f"{preset}.yaml"))
    assert simulate(workload(first, fired, second, after(second, "neuron")), chip).cycles_per_iteration > 0
