"""From sound to a costed chip: train, test, export and simulate a small keyword recogniser."""

import dataclasses
import logging
import os
from pathlib import Path

from accel.export import export
from accel.report import Section, Table
from accel.trainer.figures import sections
from accel.trainer.simulator import simulate
from accel.trainer.workload import Layer
from pipelines import simulate as simulate_verb
from pipelines import story
from pipelines.chapters.chapter import Chapter
from pipelines.domains.speech import unpadded_batches
from pipelines.export import write as write_export
from pipelines.optimisation import OptimizerConfig
from pipelines.runs import load_model
from pipelines.schema import DemoConfig, TrainConfig, TrainerConfig
from pipelines.train import train
from speech.augmentation import AugmentationConfig
from speech.batches import featurise
from speech.digits import DigitsConfig
from speech.features import LogMelConfig
from speech.synthetic import SyntheticConfig

log = logging.getLogger("spikeloom")


def tell(config: DemoConfig, folder: Path) -> Chapter:
    training = recipe(config, folder)
    log.info(
        "1/3  training a small SpikeSCR on %s", "spoken digits" if training.name == "fsdd" else "synthetic keywords"
    )
    result = train(training)

    log.info("2/3  exporting it, with densities measured on real clips")
    trained = load_model(folder / "model")
    splits = training.data.build()
    exported = export(
        trained.model, unpadded_batches(featurise(splits.valid, trained.features.build()), 4, 16), name="SpikeSCR",
        source={"densities": f"{training.name}, validation clips, no padding"},
    )  # fmt: skip
    write_export(exported, folder / "export")

    log.info("3/3  simulating one training step on %s", config.chip)
    report = simulate(exported.workload, simulate_verb.load_chip(config.chip))
    simulate_verb.write(report, folder / "sim")
    simulate_verb.print_table(report)

    test = featurise(splits.test, trained.features.build())
    return Chapter(
        title="From sound to a costed neuromorphic chip",
        lead=f"A spiking network with {result['parameters']:,} parameters learned {len(trained.class_names)} words "
        f"from {len(splits.train)} clips in {result['seconds']:.0f} seconds. It was tested on voices it never heard, "
        "exported, and one step of its training was simulated on a chip with engines for forward pass, error "
        "back-propagation and weight gradients.",
        sections=[
            *story.hearing(trained, splits.test, test),
            story.learning(folder, result["best_epoch"]),
            *story.recognising(trained, test),
            layers(exported.workload.layers),
            *sections(report),
            story.provenance(result),
        ],
        facts={
            f"unseen voices (chance {100 / len(trained.class_names):.0f} %)": f"{100 * result['test_accuracy']:.1f} %",
            **simulate_verb.headline(report),
        },
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
    """The exported layers that multiply: sizes, work and how empty their operands are."""
    rows = []
    for layer in map(dataclasses.asdict, seen):
        if layer["kind"].startswith("gemm"):
            zero = 100 * (1 - layer["density_input"]["mean"])
            size = f"{layer['in_channels']} → {layer['out_channels']}"
            rows.append(
                [layer["path"], size, f"{layer['macs_forward'] / 1e6:.2f}", layer["input_kind"], f"{zero:.1f} %"]
            )
    return Section(
        "What the chip is asked to do",
        "Every layer that multiplies, as exported. A binary input is 0 or 1, so the chip selects and adds instead of "
        "multiplying; zeros are inputs that carry nothing, measured on real clips.",
        table=Table(["layer", "channels", "million MACs forward", "input", "zeros in input"], rows),
    )
