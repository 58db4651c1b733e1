"""`spikeloom train`: data -> model -> task -> trainer, then the test set once, at the best validation epoch."""

import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, RichProgressBar
from torch import Tensor, nn
from torch.utils.data import DataLoader

from accel.files import read_json, write_json
from accel.learning.stochastic_network import StochasticConfig
from accel.report import render
from pipelines.domains import Classifier, DataModule, OwnWay, domain_of
from pipelines.process import on_terminal, set_up
from pipelines.pruning import Pruning, outcome
from pipelines.pruning_story import pruning_sections
from pipelines.runs import TrainedModel, decisive, load_config, save_config, save_model
from pipelines.schema import TrainConfig, TrainerConfig, check_kinds
from pipelines.scores import accuracy
from pipelines.seeds import print_seed_table
from pipelines.tasks import AtomicCheckpointIO, BestEpoch, ClassificationTask, EveryEpoch, History, Reseed

log = logging.getLogger("spikeloom")

# What a model learns from: the task, and the batches its training step takes.
Lesson = Callable[[TrainConfig, Any, Any], tuple[ClassificationTask, DataLoader[Any]]]


def run(config: TrainConfig) -> None:
    domain = domain_of(config.data)
    if isinstance(config.model, StochasticConfig):
        from pipelines import stochastic

        check_kinds(config)
        if config.pruning.kind != "none":
            raise ValueError(f"pruning={config.pruning.kind} needs gradients, which this model lacks; use pruning=none")
        if not claim_folder(Path(config.run), config):
            stochastic.train(config)
        stochastic.print_table(Path(config.run).parent.parent, config.name)
    elif config.leave_one_speaker_out:
        train_each_speaker_out(config)
    elif isinstance(domain, OwnWay):
        domain.train(config)
    else:
        train(config)
        print_seed_table(Path(config.run), "result.json")


def from_labels(config: TrainConfig, data: DataModule, model: nn.Module) -> tuple[ClassificationTask, DataLoader[Any]]:
    """The lesson of a model without a teacher."""
    return domain_of(config.data).task(config, data, model), data.train_dataloader()


def train(config: TrainConfig, lesson: Lesson = from_labels, pick: str = "best_acc") -> dict[str, Any]:
    """Train one model into `config.run` and return its result.json. A finished run is not trained again.

    `pick` chooses the epoch that is kept (`BestEpoch`).
    """
    check_kinds(config)
    domain: Classifier = domain_of(config.data)
    if isinstance(domain, OwnWay):
        raise ValueError(f"{config.data.source} data have no classes; use `spikeloom train` or `spikeloom pretrain`")
    if config.pretrained is not None:
        raise ValueError(f"pretrained={config.pretrained} is for decoders of EEG; leave it out for {config.name}")
    data = domain.data_module(config)  # before the folder is claimed: it refuses what its keys cannot mean
    run = Path(config.run)
    if finished := claim_folder(run, config):
        return finished
    started = time.perf_counter()
    set_up(config.trainer.threads)
    lightning.seed_everything(config.seed, verbose=False)
    torch.backends.cudnn.deterministic = True  # of a GPU: a seed should mean the same twice

    data.setup()
    model = domain.build_model(config, data)
    task, lessons = lesson(config, data, model)

    # Both after History has its row of the epoch: a resumed run must not lose it. `save_last` would follow `best` only.
    pruner = config.pruning.build(task.model)
    pruning = None if pruner is None else Pruning(pruner, run / "pruning.csv")
    best = BestEpoch(run / "checkpoints", pick, (lambda: True) if pruning is None else (lambda: pruning.reached))
    latest = ModelCheckpoint(
        dirpath=run / "checkpoints", filename="last", enable_version_counter=False, save_on_train_epoch_end=True
    )
    history = History(run / "metrics.csv", say=not on_terminal())
    trainer = lightning.Trainer(
        accelerator=config.trainer.accelerator,
        devices=1,
        max_epochs=config.trainer.epochs,
        accumulate_grad_batches=config.trainer.accumulate,
        precision=precision_of(config.trainer),
        callbacks=[
            best,
            latest,
            *([pruning] if pruning else []),
            history,
            Reseed(config.seed, config.trainer.accumulate),
            *([EMAWeightAveraging(decay=config.trainer.ema_decay)] if config.trainer.ema_decay else []),
            *([EveryEpoch(run / "epochs")] if config.audit else []),
            *([RichProgressBar()] if on_terminal() else []),
        ],
        plugins=[AtomicCheckpointIO()],
        logger=False,
        enable_model_summary=False,
        enable_progress_bar=on_terminal(),
        num_sanity_val_steps=0,
    )
    last = run / "checkpoints" / "last.ckpt"
    check_checkpoint(last if config.resume else None)
    go_on = last if config.resume and last.exists() else None
    with begun(run, config):
        trainer.fit(task, lessons, data.val_dataloader(), ckpt_path=go_on, weights_only=True)

    test = data.test_set  # first read here, with the best epoch on disk
    model.cpu()
    told: dict[str, Any] = {}
    if config.audit:
        told |= audit(run, task, test, domain)
    if pruning is not None:
        told["last_epoch"] = last_epoch(task, test, domain, history, pruning)
    chosen = torch.load(best.best_model_path, weights_only=True, map_location="cpu")
    task.load_state_dict(chosen["state_dict"])
    if pruning is not None:
        told["pruning"] = outcome(pruning)
        pruning.pruner.bake()
    log_p = domain.predict(model, test)
    result = {
        "name": config.name,
        "seed": config.seed,
        **domain.origins(data),
        "parameters": sum(p.numel() for p in model.parameters()),
        "best_epoch": chosen["epoch"] + 1,
        "valid_accuracy": best.valid_accuracy,
        "test_accuracy": accuracy(log_p, test.labels),
        f"test_{domain.SAMPLES}": len(test),
        "seconds": round(time.perf_counter() - started, 1),
    }
    result |= told
    trained = TrainedModel(model=model.eval(), features=config.features, class_names=data.class_names)
    save_model(run / "model", trained, domain.model_card(result, data))
    tell(run, trained, data, result, log_p)
    write_json(run / "result.json", result)
    log.info(
        "test accuracy %.1f %% on %d %s of %s, at the best validation epoch (%d) -> %s",
        100 * result["test_accuracy"], len(test), domain.SAMPLES, domain.tested_on(result), result["best_epoch"], run,
    )  # fmt: skip
    if config.audit:
        log.info(
            "%.1f %% is the best of %d epochs on the test %s: optimistic (selected on test), for comparison only",
            100 * result["test_max_optimistic"], result["audited_epochs"], domain.SAMPLES,
        )  # fmt: skip
    return result


def precision_of(config: TrainerConfig) -> Any:
    """`amp` as what it means on the accelerator that Lightning will take."""
    if config.precision != "amp":
        return config.precision
    return "16-mixed" if config.accelerator != "cpu" and torch.cuda.is_available() else "32-true"


def last_epoch(
    task: ClassificationTask, test: Any, domain: Classifier, history: History, pruning: Pruning
) -> dict[str, Any]:
    """Accuracy and sparsity at the end of training, where `task` still is."""
    return {
        "epoch": history.rows[-1]["epoch"],
        "valid_accuracy": history.rows[-1]["valid_accuracy"],
        "test_accuracy": accuracy(domain.predict(task.model, test), test.labels),
        "sparsity": pruning.rows[-1]["sparsity_of_pruned_layers"],
    }


def audit(run: Path, task: ClassificationTask, test: Any, domain: Classifier) -> dict[str, Any]:
    """What choosing the epoch on the test set would have claimed. It is only told: nothing chooses by it.

    Leaves the weights of `task` as they were.
    """
    scores, kept = [], deepcopy(task.state_dict())
    for path in (run / "epochs").glob("*.ckpt"):
        task.load_state_dict(torch.load(path, weights_only=True, map_location="cpu")["state_dict"])
        scores.append(accuracy(domain.predict(task.model, test), test.labels))
    task.load_state_dict(kept)
    return {"test_max_optimistic": max(scores), "audited_epochs": len(scores)}


def tell(run: Path, trained: TrainedModel, data: DataModule, result: dict[str, Any], log_p: Tensor) -> None:
    """report.html of a training run."""
    domain = domain_of(trained.features)
    title, lead, sections = domain.page(run, trained, data, result, log_p)
    render(
        title, lead, [*sections, *pruning_sections(run, result)], run / "report.html",
        {
            "test accuracy": f"{100 * result['test_accuracy']:.1f} %",
            f"test {domain.SAMPLES}": str(result[f"test_{domain.SAMPLES}"]),
            "validation accuracy": f"{100 * result['valid_accuracy']:.1f} %",
            "training time": f"{result['seconds']:.0f} s",
        },
    )  # fmt: skip


def claim_folder(run: Path, config: TrainConfig) -> dict[str, Any] | None:
    """Make sure the run's folder is free or ours, or return the result of one that is finished and to be resumed."""
    if config.overwrite and run.exists():
        if not (run / "config.yaml").exists() and any(run.iterdir()):
            raise ValueError(f"run={run} is not a folder of ours (no config.yaml); overwrite=true would delete it")
        shutil.rmtree(run)
    if run.exists() and any(run.iterdir()):
        if not config.resume:
            raise ValueError(f"run={run} already exists; add resume=true to go on, overwrite=true to start anew")
        if (run / "result.json").exists():
            before, now = decisive(load_config(run)), decisive(config)
            if others := [f"{name}={before.get(name)}" for name in now if before.get(name) != now[name]]:
                raise ValueError(
                    f"run={run} is finished with {', '.join(others)}; give another run=FOLDER, or overwrite=true to "
                    "train it anew"
                )
            log.info("%s is finished; nothing to resume", run)
            return dict(read_json(run / "result.json", "add overwrite=true to train it anew"))
    return None


@contextmanager
def begun(run: Path, config: TrainConfig) -> Iterator[None]:
    """Write config.yaml first; a training that fails before it leaves anything else leaves no folder in the way."""
    save_config(run, config)
    try:
        yield
    except Exception:
        if [path.name for path in run.iterdir()] == ["config.yaml"]:
            shutil.rmtree(run)
        raise


def check_checkpoint(path: Path | None) -> None:
    """Raise ValueError when a checkpoint to resume from cannot be read."""
    if path is not None and path.exists():
        try:
            torch.load(path, weights_only=True, map_location="cpu")
        except Exception as error:
            raise ValueError(
                f"{path} is damaged ({str(error).splitlines()[0]}); delete it, or add overwrite=true"
            ) from error


def train_each_speaker_out(config: TrainConfig) -> None:
    """One training per speaker, tested on the speaker it never heard; prints every seed found beside this one."""
    if not hasattr(config.data, "test_speaker"):
        raise ValueError(
            f"leave_one_speaker_out is not defined for {config.data.source} data, whose split is given; use data=fsdd "
            "or spikes, or leave_one_speaker_out=false"
        )
    speakers = config.data.load().speaker_names()
    results = [
        train(replace(config, run=f"{config.run}/{speaker}", data=replace(config.data, test_speaker=speaker)))
        for speaker in speakers
    ]
    write_json(Path(config.run) / "speakers.json", {"seed": config.seed, "results": results})
    print_seed_table(Path(config.run), "speakers.json")
