"""Binary-stochastic networks, as the verbs see them: they learn by pulses, whatever data they learn from."""

from pathlib import Path
from typing import Any

import torch

from spikeloom.accel.analysis.energy import Operations
from spikeloom.accel.common.batches import BatchIndex, evenly_spread
from spikeloom.accel.trainer.workload import Workload
from spikeloom.pipelines.config.audit import AuditConfig
from spikeloom.pipelines.config.train import TrainConfig
from spikeloom.pipelines.training.run_dir import TrainedModel
from spikeloom.pipelines.training.stochastic import evaluate as evaluate
from spikeloom.pipelines.training.stochastic import print_energy, print_variants
from spikeloom.pipelines.training.stochastic import train as train


def report(config: TrainConfig) -> None:
    """Raises ValueError: the counts of pulses and the device states by epoch are not kept."""
    raise ValueError(
        f"{config.run}: the page of a binary-stochastic network shows what only its training counted; train again with "
        "overwrite=true to draw it anew"
    )


def print_table(config: TrainConfig) -> None:
    """Every finished variant of this name, mean and sd over its seeds."""
    print_variants(Path(config.run).parent.parent, config.name)


def print_summary(found: dict[str, Any]) -> None:
    """The energy of an inference by system."""
    print_energy(found["energy_pj"])


def load_trained(folder: Path, trained_with: TrainConfig) -> TrainedModel:
    """The network as a classifier; its folder has the classes in config.json, its run the front end."""
    from spikeloom.accel.learning.stochastic.classifier import StochasticClassifier
    from spikeloom.accel.learning.stochastic.files import load_network

    network, synapses, class_names = load_network(folder)
    model = StochasticClassifier(network, synapses).eval()
    return TrainedModel(model=model, features=trained_with.features, class_names=class_names)


def export_workload(folder: Path, trained_with: TrainConfig, n_batches: int, batch_size: int) -> Workload:
    """The training step with measured bits and counted pulses."""
    from spikeloom.pipelines.export.stochastic import export_stochastic

    return export_stochastic(folder, trained_with, n_batches, batch_size)


def audit(trained_with: TrainConfig, config: AuditConfig) -> tuple[Operations, str]:
    """One Bernoulli sample of every signal, over test pictures."""
    from spikeloom.accel.learning.stochastic.files import load_network
    from spikeloom.accel.learning.stochastic.operations import count_operations
    from spikeloom.vision.datamodule import FrameSet

    config.refuse_still_pictures("a binary-stochastic network has no steps")
    network, synapses, _ = load_network(Path(config.run) / "model")
    samples = FrameSet(trained_with.data.build().test, trained_with.features)
    pixels = samples[BatchIndex(0, evenly_spread(len(samples), config.batches * config.batch_size))].frames
    generator = torch.Generator().manual_seed(trained_with.seed)
    found = count_operations(network, synapses, pixels, "s", generator)
    return found, f"{found.samples} test samples, one Bernoulli sample of every signal"
