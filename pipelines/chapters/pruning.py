"""Nine tenths of a trained recogniser's weights go while it learns on; accuracy, energy and cycles before and after."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn
from torch.utils.data import DataLoader

from accel.export import export
from accel.files import read_json
from accel.learning.lats import LATSConfig
from accel.report import Section, Table
from accel.trainer.workload import Workload
from pipelines.chapters.chapter import Chapter
from pipelines.chapters.speech import recipe
from pipelines.domains.speech import unpadded_batches
from pipelines.pruned_cost import MEANING, StepCost, modes, step_cost
from pipelines.runs import load_config, load_model
from pipelines.schema import DemoConfig, TrainConfig
from pipelines.tasks import ClassificationTask
from pipelines.train import from_labels, train
from speech.batches import featurise

log = logging.getLogger("spikeloom")
SPARSITY = 0.9


def tell(config: DemoConfig, folder: Path) -> Chapter:
    dense = trained_before(config, folder)
    log.info("1/3  pruning it to %.0f %% while it learns on", 100 * SPARSITY)
    before = read_json(dense / "result.json", "run the demo again")
    training = replace(
        recipe(config, folder / "pruned"), pruning=LATSConfig(sparsity=SPARSITY, until=0.8),
    )  # fmt: skip
    training.trainer.epochs = max(2, config.epochs // 2)

    def go_on(settings: TrainConfig, data: Any, model: nn.Module) -> tuple[ClassificationTask, DataLoader[Any]]:
        model.load_state_dict(load_model(dense / "model").model.state_dict())
        return from_labels(settings, data, model)

    after = train(training, go_on)

    log.info("2/3  exporting both, with densities measured on real clips")
    workloads = [workload(run, training) for run in (dense, folder / "pruned")]

    log.info("3/3  simulating one training step of each")
    costs = [{mode: step_cost(made, mode) for mode in modes()} for made in workloads]
    saved, kept = 1 - costs[1]["skipping"].step_cycles / costs[0]["skipping"].step_cycles, after["pruning"]["sparsity"]
    uj = [cost["skipping"].step_uj for cost in costs]
    return Chapter(
        title="Nine tenths of the weights are not needed",
        lead=f"The recogniser of spoken words learned on for {training.trainer.epochs} epochs while a threshold grew "
        f"with the learning rate. {100 * kept:.1f} % of its weights became exactly 0. On a chip that passes over zeros "
        f"a training step then takes {100 * saved:.0f} % fewer cycles.",
        sections=[before_and_after(before, after, costs), layers(after)],
        facts={
            "accuracy before → after": f"{100 * before['test_accuracy']:.1f} → {100 * after['test_accuracy']:.1f} %",
            "zeros among the weights": f"{100 * kept:.1f} %",
            "energy of a step, zeros skipped": f"{uj[0]:.3g} → {uj[1]:.3g} µJ a clip",
            "cycles of a step, zeros skipped": f"{-100 * saved:+.0f} %".replace("-", "−"),
        },
    )


def trained_before(config: DemoConfig, folder: Path) -> Path:
    """The run of the speech chapter, if this demo has just told it; else the same training, made here."""
    told = folder.parent / "speech"
    if "speech" in config.chapters and (told / "result.json").exists():
        return told
    log.info("0/3  training the recogniser that is to be pruned")
    train(recipe(config, folder / "dense"))
    return folder / "dense"


def workload(run: Path, training: TrainConfig) -> Workload:
    trained = load_model(run / "model")
    clips = load_config(run).data.build().valid
    batches = unpadded_batches(featurise(clips, trained.features.build()), 2, 16)
    model: Any = trained.model
    source = {"densities": f"{training.name}, validation clips, no padding"}
    return export(model, batches, name="SpikeSCR", source=source).workload


def before_and_after(before: Mapping[str, Any], after: Mapping[str, Any], costs: list[dict[str, StepCost]]) -> Section:
    rows: list[list[str]] = []
    for mode in modes():
        for name, result, cost in (("dense", before, costs[0][mode]), ("pruned", after, costs[1][mode])):
            rows.append([
                MEANING[mode], name, f"{100 * result['test_accuracy']:.1f} %",
                f"{cost.forward_uj:.3g}", f"{cost.step_uj:.3g}",
                f"{cost.forward_cycles:,.0f}", f"{cost.step_cycles:,.0f}",
            ])  # fmt: skip
    return Section(
        "Before and after",
        "Accuracy on voices that were never heard, and one simulated training step: energy in µJ a clip and cycles "
        "that the engines work, of the forward pass and of the whole step. Only a chip that knows about zeros gains.",
        table=Table(["the chip", "model", "accuracy", "µJ forward", "µJ step", "cycles forward", "cycles step"], rows),
    )


def layers(result: Mapping[str, Any]) -> Section:
    """Where the zeros are."""
    rows = [
        [layer["path"], f"{layer['numel']:,}", f"{layer['zeros']:,}", f"{100 * layer['zeros'] / layer['numel']:.1f} %"]
        for layer in result["pruning"]["report"]["layers"]
    ]
    return Section(
        "Where the zeros are",
        "Every convolution and linear map. One threshold serves all of them, so layers with small weights lose more.",
        table=Table(["layer", "weights", "zeros", "share"], rows),
    )
