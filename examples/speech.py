"""Train, test, export and simulate a small keyword model."""

import dataclasses
import logging
import os
from pathlib import Path

from spikeloom.accel.common.report import Section, Table
from spikeloom.accel.export.program import export
from spikeloom.accel.trainer.report.simulation import sections
from spikeloom.accel.trainer.schedule.simulator import simulate
from spikeloom.accel.trainer.workload import Layer
from spikeloom.examples.chapter import Chapter
from spikeloom.pipelines.commands import simulate as simulate_verb
from spikeloom.pipelines.commands.export import write as write_export
from spikeloom.pipelines.config.demo import DemoConfig
from spikeloom.pipelines.config.train import TrainConfig, TrainerConfig
from spikeloom.pipelines.domains.speech import unpadded_batches
from spikeloom.pipelines.reports import training as story
from spikeloom.pipelines.training.classification import train
from spikeloom.pipelines.training.optim import OptimizerConfig
from spikeloom.pipelines.training.run_dir import load_model
from spikeloom.speech.augmentation import AugmentationConfig
from spikeloom.speech.batches import featurise
from spikeloom.speech.datasets.fsdd import DigitsConfig
from spikeloom.speech.datasets.synthetic import SyntheticConfig
from spikeloom.speech.features.log_mel import LogMelConfig

log = logging.getLogger("spikeloom.demo")


def tell(config: DemoConfig, folder: Path) -> Chapter:
    training = recipe(config, folder)
    log.info(
        "  1/3  training a small SpikeSCR on %s", "spoken digits" if training.name == "fsdd" else "synthetic keywords"
    )
    result = train(training, page=False)

    log.info("  2/3  exporting it, with densities measured on real clips")
    trained = load_model(folder / "model")
    splits = training.data.build()
    exported = export(
        trained.model, unpadded_batches(featurise(splits.valid, trained.features.build()), 4, 16), name="SpikeSCR",
        source={"densities": f"{training.name}, validation clips, no padding"}, axes="TB...",
    )  # fmt: skip
    write_export(exported, folder / "export")

    log.info("  3/3  simulating one training step on %s", config.chip)
    report = simulate(exported.workload, simulate_verb.load_chip(config.chip))
    simulate_verb.write(report, folder / "sim")

    test = featurise(splits.test, trained.features.build())
    facts = {
        f"words of new speakers recognised (guessing: {100 / len(trained.class_names):.0f} %)": (
            f"{100 * result['test_accuracy']:.1f} %"
        ),
        **simulate_verb.headline(report),
    }
    return Chapter(
        title="Keyword recognition, from sound to chip cost",
        lead=f"A spiking network with {result['parameters']:,} parameters was trained on {len(splits.train)} clips of "
        f"{len(trained.class_names)} words in {result['seconds']:.0f} seconds, tested on unseen speakers and exported. "
        "One training step was simulated on a chip with engines for forward pass, back-propagation and weight "
        "gradients.",
        sections=[
            *story.hearing(trained, splits.test, test),
            story.learning(folder, result["best_epoch"]),
            *story.recognising(trained, test),
            layers(exported.workload.layers),
            *sections(report),
            story.provenance(result),
        ],
        answer=f"{100 * result['test_accuracy']:.0f} of 100 words by speakers outside the training set are "
        f"recognised; guessing gives {100 / len(trained.class_names):.0f}. A training step on {config.chip} costs "
        f"{facts['energy of one training step']}.",
        facts=facts,
    )


def recipe(config: DemoConfig, folder: Path) -> TrainConfig:
    """Spoken digits where $SPIKELOOM_DATA has them, synthetic keywords otherwise."""
    digits = Path(os.environ.get("SPIKELOOM_DATA", "data")) / "fsdd"
    found = digits.is_dir()
    return TrainConfig(
        name="fsdd" if found else "synthetic",
        run=str(folder),
        seed=config.seed,
        overwrite=True,
        data=DigitsConfig(root=str(digits), split_seed=config.seed) if found else SyntheticConfig(),
        features=LogMelConfig.gsc_8k() if found else LogMelConfig.gsc(),
        augmentation=AugmentationConfig(frequency_mask_bands=20, vocal_tract=0.15, time_stretch=0.2),
        optimizer=OptimizerConfig(lr=0.012) if found else OptimizerConfig(),
        trainer=TrainerConfig(epochs=config.epochs),
    )


def layers(seen: tuple[Layer, ...]) -> Section:
    """The exported layers that multiply: sizes, MACs and sparsity of their inputs."""
    rows = []
    for layer in map(dataclasses.asdict, seen):
        if layer["kind"].startswith("gemm"):
            zero = 100 * (1 - layer["density_input"]["mean"])
            size = f"{layer['in_channels']} → {layer['out_channels']}"
            rows.append([layer["path"], size, layer["macs_forward"], layer["input_kind"], f"{zero:.1f} %"])
    return Section(
        "Workload of the chip",
        "Every layer that multiplies, as exported. With binary inputs (0 or 1) the chip selects and adds instead of "
        "multiplying. The fraction of zeros was measured on validation clips.",
        table=Table(["layer", "channels", "MACs forward", "input", "zeros in input"], rows),
    )
