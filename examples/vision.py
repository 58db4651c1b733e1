"""Train a small MS-QKFormer on scanned digits; audit, export and simulate it."""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from spikeloom.accel.common import charts
from spikeloom.accel.common.report import Section, Table
from spikeloom.accel.common.units import energy_text
from spikeloom.accel.export.program import export
from spikeloom.accel.trainer.schedule.simulator import simulate
from spikeloom.examples.chapter import Chapter
from spikeloom.pipelines.commands import simulate as simulate_verb
from spikeloom.pipelines.commands.export import write as write_export
from spikeloom.pipelines.config.demo import DemoConfig
from spikeloom.pipelines.config.train import TrainConfig, TrainerConfig
from spikeloom.pipelines.domains import vision
from spikeloom.pipelines.reports import training as story
from spikeloom.pipelines.training.classification import train
from spikeloom.pipelines.training.optim import OptimizerConfig
from spikeloom.pipelines.training.run_dir import load_model
from spikeloom.vision.datamodule import FrameSet
from spikeloom.vision.datasets.sources import ScannedDigitsConfig
from spikeloom.vision.models.config import SpikingTransformerConfig
from spikeloom.vision.models.prediction import predict, spike_rates
from spikeloom.vision.transforms.augmentation import ImageAugmentationConfig
from spikeloom.vision.transforms.frames import PixelsConfig

log = logging.getLogger("spikeloom.demo")
EPOCHS = 7


def tell(config: DemoConfig, folder: Path) -> Chapter:
    training = recipe(config, folder)
    log.info("  1/4  training a small MS-QKFormer on scanned digits")
    result = train(training, page=False)
    trained = load_model(folder / "model")
    splits = training.data.build()
    test = FrameSet(splits.test, trained.features)

    log.info("  2/4  auditing it: layers with inputs other than spikes, and the energy of an inference")
    energy = vision.measure(trained, splits.test, test)["energy"]

    log.info("  3/4  exporting it, with densities measured on validation pictures")
    batches, what = vision.example_batches(trained, training, 2, 16)
    exported = export(trained.model, batches, name="MS-QKFormer", source={"densities": what}, axes="TB...")
    write_export(exported, folder / "export")

    log.info("  4/4  simulating one training step on %s", config.chip)
    report = simulate(exported.workload, simulate_verb.load_chip(config.chip))
    simulate_verb.write(report, folder / "sim")

    log_p = predict(trained.model, test)
    return Chapter(
        title="Scanned digits with a spiking transformer",
        lead=f"A spiking vision transformer with {result['parameters']:,} parameters was trained on "
        f"{result['train_samples']:,} scanned digits in {result['seconds']:.0f} seconds and tested once on "
        f"{result['test_samples']} others. Every layer was audited for inputs other than spikes, and one training step "
        "was simulated on a chip.",
        answer=f"{100 * result['test_accuracy']:.0f} of 100 digits are recognised; guessing gives 10. "
        "{} of {} layers receive spikes only; the others multiply.".format(*spike_driven(energy)),
        sections=[
            vision.pictures(trained, test, log_p),
            story.learning(folder, result["best_epoch"], "samples"),
            charts.confusion(vision.confusion(log_p, splits.test), trained.class_names),
            charts.spike_rates(spike_rates(trained.model, test)),
            audit(energy),
            story.provenance({key: value for key, value in result.items() if key != "split_sha256"}),
        ],
        facts={
            "test accuracy (chance 10 %)": f"{100 * result['test_accuracy']:.1f} %",
            "layers with spikes only as input": "{} of {}".format(*spike_driven(energy)),
            "energy of one picture": energy_text(energy["energy_pj"]),
            **simulate_verb.headline(report),
        },
    )


def spike_driven(energy: dict[str, Any]) -> tuple[int, int]:
    """Layers that receive spikes alone, and all layers."""
    layers = [layer for layer in energy["layers"] if layer["kind"] == "layer"]
    return sum(bool(layer["binary"]) for layer in layers), len(layers)


def audit(energy: dict[str, Any]) -> Section:
    """Additions and multiplications of an inference, and the layers that multiply."""
    dense, (binary, layers) = energy["dense_macs"], spike_driven(energy)
    rows = [
        ["additions driven by spikes", f"{energy['ac']:,.0f}", energy_text(energy["ac"] * energy["ac_pj"])],
        ["multiplications", f"{energy['mac']:,.0f}", energy_text(energy["mac"] * energy["mac_pj"])],
        ["if all were multiplications", f"{dense:,.0f}", energy_text(dense * energy["mac_pj"])],
    ]
    rates = [layer["rate"] for layer in energy["layers"] if layer["kind"] == "layer" and layer["binary"]]
    busy, exceptions = f"{100 * np.mean(rates):.0f} %", ", ".join(energy["exceptions"])
    return Section(
        "Operations and energy of one picture",
        f"A layer with binary inputs only adds, and only where an input is 1: {busy} of its inputs on average. This "
        f"holds for {binary} of {layers} layers. The others ({exceptions}) receive "
        "the picture or averages, and multiply. "
        f"Counted over {energy['samples']} test pictures and {energy['steps']:.0f} time steps, with "
        f"{energy['ac_pj']} pJ for an addition and {energy['mac_pj']} pJ for a multiplication.",
        table=Table(["operation", "number", "energy"], rows),
    )


def recipe(config: DemoConfig, folder: Path) -> TrainConfig:
    """The embedded digits: no files, no network."""
    return TrainConfig(
        name="digits",
        run=str(folder),
        seed=config.seed,
        overwrite=True,
        data=ScannedDigitsConfig(),
        features=PixelsConfig(channels=1, size=16, interpolation="nearest", mean=[0.3053], std=[0.3760]),
        augmentation=ImageAugmentationConfig(),
        model=SpikingTransformerConfig(name="ms_qkformer_digits", T=2),
        optimizer=OptimizerConfig(lr=3e-3, weight_decay=0.01, warmup_epochs=1, label_smoothing=0.1),
        trainer=TrainerConfig(epochs=EPOCHS, batch_size=32),
    )
