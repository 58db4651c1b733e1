"""From a scanned digit to spikes that cost energy: train a small MS-QKFormer, audit, export and cost it."""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from accel.export import export
from accel.report import Section, Table
from accel.trainer.simulator import simulate
from pipelines import simulate as simulate_verb
from pipelines import story
from pipelines.chapters.chapter import Chapter
from pipelines.domains import vision
from pipelines.export import write as write_export
from pipelines.optimisation import OptimizerConfig
from pipelines.runs import load_model
from pipelines.schema import DemoConfig, TrainConfig, TrainerConfig
from pipelines.train import train
from vision import figures
from vision.augmentation import ImageAugmentationConfig
from vision.datamodule import FrameSet
from vision.frames import PixelsConfig
from vision.models import SpikingTransformerConfig
from vision.sources import ScannedDigitsConfig
from vision.training import predict, spike_rates

log = logging.getLogger("spikeloom")
EPOCHS = 7


def tell(config: DemoConfig, folder: Path) -> Chapter:
    training = recipe(config, folder)
    log.info("1/4  training a small MS-QKFormer on scanned digits")
    result = train(training)
    trained = load_model(folder / "model")
    splits = training.data.build()
    test = FrameSet(splits.test, trained.features)

    log.info("2/4  auditing it: which layers are given anything but spikes, and what an inference costs")
    energy = vision.measure(trained, splits.test, test)["energy"]

    log.info("3/4  exporting it, with densities measured on validation pictures")
    batches, what = vision.example_batches(trained, training, 2, 16)
    exported = export(trained.model, batches, name="MS-QKFormer", source={"densities": what})
    write_export(exported, folder / "export")

    log.info("4/4  simulating one training step on %s", config.chip)
    report = simulate(exported.workload, simulate_verb.load_chip(config.chip))
    simulate_verb.write(report, folder / "sim")

    log_p = predict(trained.model, test)
    return Chapter(
        title="From a scanned digit to spikes that cost energy",
        lead=f"A spiking vision transformer with {result['parameters']:,} parameters learned ten digits from "
        f"{result['train_samples']:,} scans in {result['seconds']:.0f} seconds. It was tested once on "
        f"{result['test_samples']} others; then every layer was asked whether it really works on spikes alone, and one "
        "step of its training was simulated on a chip.",
        sections=[
            vision.pictures(trained, test, log_p),
            story.learning(folder, result["best_epoch"], "samples"),
            figures.confusion(vision.confusion(log_p, splits.test), trained.class_names),
            figures.spike_rates(spike_rates(trained.model, test)),
            audit(energy),
            story.provenance({key: value for key, value in result.items() if key != "split_sha256"}),
        ],
        facts={
            "test accuracy (chance 10 %)": f"{100 * result['test_accuracy']:.1f} %",
            "layers on spikes alone": f"{energy['binary_layers']} of {energy['layers_total']}",
            "energy of one picture": f"{energy['energy_pj'] * 1e-6:.2f} µJ",
            **simulate_verb.headline(report),
        },
    )


def audit(energy: dict[str, Any]) -> Section:
    """What an inference adds and multiplies, and which layers multiply."""
    dense = energy["dense_macs"] + energy["dense_attention_macs"]
    rows = [
        ["additions driven by spikes", f"{energy['ac']:,.0f}", f"{energy['ac'] * energy['ac_pj'] * 1e-6:.3f} µJ"],
        ["multiplications", f"{energy['mac']:,.0f}", f"{energy['mac'] * energy['mac_pj'] * 1e-6:.3f} µJ"],
        ["were everything multiplied", f"{dense:,.0f}", f"{dense * energy['mac_pj'] * 1e-6:.3f} µJ"],
    ]
    rates = [layer["rate"] for layer in energy["layers"] if layer["kind"] == "layer" and layer["binary"]]
    busy, exceptions = f"{100 * np.mean(rates):.0f} %", ", ".join(energy["exceptions"])
    return Section(
        "What one picture costs",
        f"A layer whose inputs are all 0 or 1 only adds, and only where there is a 1: on average {busy} of its "
        f"inputs. {energy['binary_layers']} of {energy['layers_total']} layers are such. The others ({exceptions}) "
        "are given the picture itself, or averages, and multiply. "
        f"Counted over {energy['samples']} test pictures and {energy['T']} time steps, with {energy['ac_pj']} pJ for "
        f"an addition and {energy['mac_pj']} pJ for a multiplication.",
        table=Table(["operation", "how many", "energy"], rows),
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
