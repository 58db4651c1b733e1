"""What `spikeloom export` makes of a binary-stochastic run: a workload with measured bits and counted pulses."""

import math
from pathlib import Path

from torch import Generator

from spikeloom.accel.common.files import read_csv
from spikeloom.accel.learning.stochastic.files import load_network
from spikeloom.accel.learning.stochastic.workload import PULSES, stochastic_workload
from spikeloom.accel.trainer.workload import Workload
from spikeloom.pipelines.config.train import TrainConfig
from spikeloom.pipelines.training.stochastic import pictures


def export_stochastic(folder: Path, config: TrainConfig, n_batches: int, batch_size: int) -> Workload:
    """The training step of the run in `folder`, measured on validation pictures.

    Raises:
        ValueError: for a damaged run, or fewer pictures than a batch.
    """
    network, synapses, _ = load_network(folder / "model")
    pixels, labels = pictures(config.data.build().valid, config)
    size = min(batch_size, len(labels))
    if n_batches < 1 or size < 1:
        raise ValueError(f"got batches={n_batches} of batch_size={batch_size}; use at least 1 of 1")
    batches = list(zip(pixels.split(size), labels.split(size), strict=True))[: min(n_batches, len(labels) // size)]
    source = {"densities": f"{len(batches)} batches of validation pictures, one presentation each"}
    if (pulses := counted_pulses(folder, network.parameters)) is not None:
        source[PULSES] = f"{pulses:.6g}"
    return stochastic_workload(
        network, synapses, batches, name=config.name, generator=Generator().manual_seed(config.seed), source=source
    )


def counted_pulses(folder: Path, synapses: int) -> float | None:
    """Mean pulses a weight and update over the whole training, from its metrics; None where weights take numbers."""
    path = folder / "metrics.csv"
    if not path.is_file():
        return None
    rows = read_csv(path, "train again with overwrite=true")
    try:
        counted = [[float(row[name]) for name in ("pulses_up", "pulses_down", "steps")] for row in rows]
        if not all(0 <= number < math.inf for row in counted for number in row):
            raise ValueError("a count is negative or not finite")
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path}: no table of pulses and steps ({error}); train again with overwrite=true") from error
    pulses, steps = sum(up + down for up, down, _ in counted), sum(n for *_, n in counted)
    return pulses / steps / synapses if steps and pulses else None
