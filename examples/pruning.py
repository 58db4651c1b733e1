"""Prune 90 % of the weights of a trained keyword model; accuracy, energy and cycles before and after."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from spikeloom.accel.common.files import read_json
from spikeloom.accel.common.report import Section, Table
from spikeloom.accel.export.program import export
from spikeloom.accel.learning.pruning.lats import LATSConfig
from spikeloom.accel.trainer.workload import Workload
from spikeloom.examples.chapter import Chapter
from spikeloom.examples.speech import recipe
from spikeloom.pipelines.config.demo import DemoConfig
from spikeloom.pipelines.config.train import TrainConfig
from spikeloom.pipelines.domains.speech import unpadded_batches
from spikeloom.pipelines.reports.pruned_cost import MEANING, StepCost, modes, step_cost
from spikeloom.pipelines.training.classification import from_labels, train
from spikeloom.pipelines.training.module import ClassificationModule
from spikeloom.pipelines.training.run_dir import load_config, load_model
from spikeloom.speech.batches import featurise

log = logging.getLogger("spikeloom.demo")
SPARSITY = 0.9


def tell(config: DemoConfig, folder: Path) -> Chapter:
    dense = trained_before(config, folder)
    log.info("  1/3  pruning to %.0f %% sparsity while training continues", 100 * SPARSITY)
    before = read_json(dense / "result.json", "run the demo again")
    training = replace(
        recipe(config, folder / "pruned"), pruning=LATSConfig(sparsity=SPARSITY, until=0.8),
    )  # fmt: skip
    training.trainer.epochs = max(2, config.epochs // 2)

    def go_on(settings: TrainConfig, data: Any) -> tuple[ClassificationModule, Any]:
        module, training_data = from_labels(settings, data)
        module.model.load_state_dict(load_model(dense / "model").model.state_dict())
        return module, training_data

    after = train(training, go_on, page=False)

    log.info("  2/3  exporting both, with densities measured on real clips")
    workloads = [workload(run, training) for run in (dense, folder / "pruned")]

    log.info("  3/3  simulating one training step of each")
    costs = [{mode: step_cost(made, mode) for mode in modes()} for made in workloads]
    saved, kept = 1 - costs[1]["skipping"].step_cycles / costs[0]["skipping"].step_cycles, after["pruning"]["sparsity"]
    accuracies = f"{100 * before['test_accuracy']:.1f} → {100 * after['test_accuracy']:.1f} %"
    uj = [cost["skipping"].step_uj for cost in costs]
    return Chapter(
        title="Pruning 90 % of the weights",
        lead=f"The keyword model was trained for another {training.trainer.epochs} epochs with a growing soft "
        f"threshold (LATS). {100 * kept:.1f} % of its weights became exactly 0. On a chip that skips zeros, a training "
        f"step then takes {100 * saved:.0f} % fewer cycles.",
        answer=f"With {100 * kept:.0f} % of the weights at zero, a training step on a chip that skips zeros costs "
        f"{uj[1]:.3g} in place of {uj[0]:.3g} µJ a clip (−{100 * (1 - uj[1] / uj[0]):.0f} %); accuracy {accuracies}.",
        sections=[before_and_after(before, after, costs), layers(after)],
        facts={
            "energy of a step, zeros skipped": f"{uj[0]:.3g} → {uj[1]:.3g} µJ a clip",
            "accuracy before → after": accuracies,
            "sparsity of the weights": f"{100 * kept:.1f} %",
            "cycles of a step, zeros skipped": f"{-100 * saved:+.0f} %".replace("-", "−"),
        },
    )


def trained_before(config: DemoConfig, folder: Path) -> Path:
    """The run of the speech chapter, if it is part of this demo; else the same training, done here."""
    speech = folder.parent / "speech"
    if "speech" in config.chapters and (speech / "result.json").exists():
        return speech
    log.info("  0/3  training the keyword model to prune")
    train(recipe(config, folder / "dense"), page=False)
    return folder / "dense"


def workload(run: Path, training: TrainConfig) -> Workload:
    trained = load_model(run / "model")
    clips = load_config(run).data.build().valid
    batches = unpadded_batches(featurise(clips, trained.features.build()), 2, 16)
    model: Any = trained.model
    source = {"densities": f"{training.name}, validation clips, no padding"}
    return export(model, batches, name="SpikeSCR", source=source, axes="TB...").workload


def before_and_after(before: Mapping[str, Any], after: Mapping[str, Any], costs: list[dict[str, StepCost]]) -> Section:
    rows: list[list[str]] = []
    for mode in modes():
        for name, result, cost in (("dense", before, costs[0][mode]), ("pruned", after, costs[1][mode])):
            rows.append([
                MEANING[mode], name, f"{100 * result['test_accuracy']:.1f} %",
                f"{cost.forward_uj:.3g}", f"{cost.step_uj:.3g}",
                f"{cost.forward_cycles:,.0f}", f"{cost.step_cycles:,.0f}", f"{cost.weights_kb:.3g}",
            ])  # fmt: skip
    return Section(
        "Before and after",
        "Accuracy on unseen speakers, and one simulated training step: energy in µJ a clip and busy cycles of the "
        "engines, for the forward pass and the whole step, and the weights that it reads from off-chip memory. Only a "
        "chip that gates, skips or does not store zeros benefits.",
        table=Table(
            [
                "the chip",
                "model",
                "accuracy",
                "µJ forward",
                "µJ step",
                "cycles forward",
                "cycles step",
                "kB of weights",
            ],
            rows,
        ),
    )


def layers(result: Mapping[str, Any]) -> Section:
    """Sparsity by layer."""
    rows = [
        [layer["path"], f"{layer['numel']:,}", f"{layer['zeros']:,}", f"{100 * layer['zeros'] / layer['numel']:.1f} %"]
        for layer in result["pruning"]["report"]["layers"]
    ]
    return Section(
        "Sparsity by layer",
        "Every convolution and linear map. One threshold applies to all, so layers with small weights lose more.",
        table=Table(["layer", "weights", "zeros", "sparsity"], rows),
    )
