"""Training and evaluation of a classifier of speech or vision: data -> module -> fit, then the test set once.

What differs between the domains is in `pipelines.domains`; a curriculum brings a module and data of its own.
"""

import logging
import time
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import lightning

from spikeloom.accel.common.files import contents, write_json
from spikeloom.accel.common.report import render, results_come_first
from spikeloom.accel.common.statistics import accuracy
from spikeloom.accel.common.units import counted
from spikeloom.pipelines.config.train import TrainConfig, check_kinds
from spikeloom.pipelines.domains import adapter_of
from spikeloom.pipelines.reports.pruning import pruning_sections
from spikeloom.pipelines.training.checkpoints import read_checkpoint
from spikeloom.pipelines.training.claim import claim, redraw_missing
from spikeloom.pipelines.training.fit import RETRAIN, FitResult, fit
from spikeloom.pipelines.training.inherit import inherit
from spikeloom.pipelines.training.launch import is_first
from spikeloom.pipelines.training.module import ClassificationModule
from spikeloom.pipelines.training.run_dir import UNFINISHED, TrainedModel, finished, load_model, save_model
from spikeloom.pipelines.training.runtime import set_up

log = logging.getLogger("spikeloom")

# What a model learns from: the module, and the data whose training batches it takes.
TrainingSetup = Callable[[TrainConfig, Any], tuple[ClassificationModule, lightning.LightningDataModule]]


def from_labels(config: TrainConfig, data: Any) -> tuple[ClassificationModule, Any]:
    """The setup of a model that learns from labels alone, from random weights or those of `config.pretrained`."""
    module = ClassificationModule(config, data.spec)
    if config.pretrained is not None:
        inherit(module.model, config.pretrained)
    return module, data


def train(
    config: TrainConfig, setup: TrainingSetup = from_labels, pick: str = "best_acc", *, page: bool = True
) -> dict[str, Any]:
    """Train one classifier into `config.run`. A finished run is not trained again.

    Args:
        config: of the training.
        setup: makes module and training data, from the data module of the configuration, which is set up.
        pick: the metric that chooses the epoch, best_acc or best_loss.
        page: whether report.html is drawn; `spikeloom report` draws it later.

    Returns:
        The content of result.json.
    """
    check_kinds(config)
    adapter = adapter_of(config)
    data = adapter.data_module(config)  # before the folder is claimed: it refuses what its keys cannot mean
    set_up(config.trainer.threads)
    data.setup()
    run, started = Path(config.run), time.perf_counter()
    with claim(config) as finished:
        if finished is not None:
            redraw_missing(run, partial(report, config))
            return finished
        lightning.seed_everything(config.seed, verbose=False)
        module, training_data = setup(config, data)
        announce(config, data, module, adapter)
        fitted = fit(module, training_data, config, run, seed=config.seed, pick=pick, resume=config.resume)
        return finish(config, module, data, fitted, started, page) if is_first() and fitted.best is not None else {}


def announce(config: TrainConfig, data: Any, module: Any, adapter: Any) -> None:
    """What is about to happen, in one line."""
    parameters = sum(p.numel() for p in module.model.parameters())
    log.info(
        "%s: %s training and %s validation %s, %s with %s parameters, %s of batches of %d, seed %d -> %s",
        config.name, f"{len(data.train_set):,}", f"{len(data.valid_set):,}", adapter.SAMPLES,
        type(module.model).__name__, f"{parameters:,}", counted(config.trainer.epochs, "epoch"),
        config.trainer.batch_size, config.seed,
        config.run,
    )  # fmt: skip


def finish(
    config: TrainConfig, module: Any, data: Any, fitted: FitResult, started: float, page: bool = True
) -> dict[str, Any]:
    """Score the test set at the epoch that was chosen, and write model, result.json and, if asked for, report.html."""
    adapter, run, model = adapter_of(config), Path(config.run), module.model
    test = data.test_set  # first read here, with the best epoch on disk
    module.cpu()
    beside: dict[str, Any] = {}
    if config.report_test_selected:
        beside |= selected_on_test(run, module, test, adapter)
    if fitted.pruning is not None:
        beside["last_epoch"] = last_epoch(module, test, adapter, fitted)
    kept = fitted.keep_best(module)
    log_p = adapter.predict(model, test)
    result = {
        "name": config.name,
        "seed": config.seed,
        **adapter.origins(data),
        "parameters": sum(p.numel() for p in model.parameters()),
        "best_epoch": kept["best_epoch"],
        "valid_accuracy": kept["valid"]["valid_accuracy"],
        "test_accuracy": accuracy(log_p, test.labels),
        f"test_{adapter.SAMPLES}": len(test),
        "seconds": round(time.perf_counter() - started, 1),
        **beside,
        **({"pruning": kept["pruning"]} if "pruning" in kept else {}),
    }
    trained = TrainedModel(model=model.eval(), features=config.features, class_names=data.class_names)
    save_model(run / "model", trained, adapter.model_card(result, data))
    write_json(run / "result.json", result)
    if page:
        with results_come_first(run / "report.html"):
            write_report(run, trained, data, result, log_p, adapter)
    log.info(
        "test accuracy %.1f %% on %d %s of %s, at the best validation epoch (%d) -> %s",
        100 * result["test_accuracy"], len(test), adapter.SAMPLES, adapter.tested_on(result), result["best_epoch"], run,
    )  # fmt: skip
    if config.report_test_selected:
        log.info(
            "test-selected accuracy %.1f %%: the best of %d epochs on the test %s (not a valid estimate)",
            100 * result["test_max_optimistic"], result["audited_epochs"], adapter.SAMPLES,
        )  # fmt: skip
    return result


def last_epoch(module: Any, test: Any, adapter: Any, fitted: FitResult) -> dict[str, Any]:
    """Accuracy and sparsity at the end of training, whose weights `module` still has."""
    assert fitted.pruning is not None
    return {
        "epoch": fitted.history[-1]["epoch"],
        "valid_accuracy": fitted.history[-1]["valid_accuracy"],
        "test_accuracy": accuracy(adapter.predict(module.model, test), test.labels),
        "sparsity": fitted.pruning.rows[-1]["sparsity_of_pruned_layers"],
    }


def selected_on_test(run: Path, module: Any, test: Any, adapter: Any) -> dict[str, Any]:
    """The accuracy that choosing the epoch on the test set would report. Nothing is chosen by it.

    Leaves the weights of `module` as they were.
    """
    scores, kept = [], deepcopy(module.state_dict())
    for path in sorted((run / "epochs").glob("*.ckpt")):
        module.load_state_dict(read_checkpoint(path, RETRAIN)["state_dict"])
        scores.append(accuracy(adapter.predict(module.model, test), test.labels))
    module.load_state_dict(kept)
    return {"test_max_optimistic": max(scores), "audited_epochs": len(scores)}


def report(config: TrainConfig) -> None:
    """Draw report.html of a finished run again: its model predicts the test set once more, nothing is trained."""
    adapter, run = adapter_of(config), Path(config.run)
    numbers = ("test_accuracy", "valid_accuracy", "seconds", "best_epoch", f"test_{adapter.SAMPLES}")
    result = finished(run, numbers)
    trained, data = load_model(run / "model"), adapter.data_module(config)
    data.setup()
    log_p = adapter.predict(trained.model, data.test_set)
    with contents(run / "result.json", UNFINISHED):
        write_report(run, trained, data, result, log_p, adapter)


def write_report(run: Path, trained: TrainedModel, data: Any, result: dict[str, Any], log_p: Any, adapter: Any) -> None:
    """report.html of a training run."""
    title, lead, sections = adapter.page(run, trained, data, result, log_p)
    render(
        title, lead, [*sections, *pruning_sections(run, result)], run / "report.html",
        {
            "test accuracy": f"{100 * result['test_accuracy']:.1f} %",
            f"test {adapter.SAMPLES}": str(result[f"test_{adapter.SAMPLES}"]),
            "validation accuracy": f"{100 * result['valid_accuracy']:.1f} %",
            "training time": f"{result['seconds']:.0f} s",
        },
    )  # fmt: skip
