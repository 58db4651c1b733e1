"""`spikeloom train`: data -> model -> task -> trainer, then the test set once, at the best validation epoch."""

import logging
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar

from accel.files import read_json, write_json
from accel.report import render
from pipelines import story
from pipelines.process import on_terminal, set_up
from pipelines.runs import TrainedModel, save_config, save_model
from pipelines.schema import TrainConfig
from pipelines.scores import accuracy, mean_and_sd
from pipelines.tasks import AtomicCheckpointIO, ClassificationTask, History, Reseed
from speech.datamodule import SpeechDataModule
from speech.training import predict, speech_log_probabilities

log = logging.getLogger("spikeloom")


def run(config: TrainConfig) -> None:
    if config.leave_one_speaker_out:
        train_each_speaker_out(config)
    else:
        train(config)


def train(config: TrainConfig) -> dict[str, Any]:
    """Train one model into `config.run` and return its result.json. A finished run is not trained again."""
    run = Path(config.run)
    if finished := claim_folder(run, config):
        return finished
    started = time.perf_counter()
    set_up(config.trainer.threads)
    lightning.seed_everything(config.seed, verbose=False)

    data = SpeechDataModule(
        config.data, config.features, config.augmentation, batch_size=config.trainer.batch_size, seed=config.seed
    )
    data.setup()
    model = config.model.build(data.n_inputs, data.n_classes)
    task = ClassificationTask(model, data.n_classes, config.optimizer, speech_log_probabilities)
    save_config(run, config)

    # Both after History has its row of the epoch: a resumed run must not lose it. `save_last` would follow `best` only.
    keep: dict[str, Any] = {
        "dirpath": run / "checkpoints",
        "enable_version_counter": False,
        "save_on_train_epoch_end": True,
    }
    best = ModelCheckpoint(filename="best", monitor="valid_accuracy", mode="max", **keep)
    latest = ModelCheckpoint(filename="last", **keep)
    history = History(run / "metrics.csv", say=not on_terminal())
    trainer = lightning.Trainer(
        accelerator=config.trainer.accelerator,
        devices=1,
        max_epochs=config.trainer.epochs,
        callbacks=[best, latest, history, Reseed(config.seed), *([RichProgressBar()] if on_terminal() else [])],
        plugins=[AtomicCheckpointIO()],
        logger=False,
        enable_model_summary=False,
        enable_progress_bar=on_terminal(),
        num_sanity_val_steps=0,
    )
    last = run / "checkpoints" / "last.ckpt"
    check_checkpoint(last if config.resume else None)
    trainer.fit(task, data, ckpt_path=last if config.resume and last.exists() else None, weights_only=True)

    chosen = torch.load(best.best_model_path, weights_only=True, map_location="cpu")
    task.load_state_dict(chosen["state_dict"])
    test = data.test_set  # first touched here, with the best epoch on disk
    log_p = predict(model.cpu(), test)
    result = {
        "name": config.name,
        "seed": config.seed,
        "test_speakers": data.splits.test.speaker_names(),
        "valid_speakers": data.splits.valid.speaker_names(),
        "train_speakers": data.splits.train.speaker_names(),
        "parameters": sum(p.numel() for p in model.parameters()),
        "best_epoch": chosen["epoch"] + 1,
        "valid_accuracy": float(best.best_model_score or 0.0),
        "test_accuracy": accuracy(log_p, test.labels),
        "test_clips": len(test),
        "seconds": round(time.perf_counter() - started, 1),
    }
    trained = TrainedModel(model=model.eval(), features=config.features, class_names=data.class_names)
    save_model(run / "model", trained, model_card(result, data))
    tell(run, trained, data, result)
    write_json(run / "result.json", result)
    log.info(
        "test accuracy %.1f %% on %d clips of %s, at the best validation epoch (%d) -> %s",
        100 * result["test_accuracy"], len(test), ", ".join(result["test_speakers"]), result["best_epoch"], run,
    )  # fmt: skip
    return result


def tell(run: Path, trained: TrainedModel, data: SpeechDataModule, result: dict[str, Any]) -> None:
    """report.html of a training run."""
    render(
        f"{result['name']}: SpikeSCR with {result['parameters']:,} parameters",
        f"Trained on {', '.join(result['train_speakers'])}; the epoch was chosen on "
        f"{', '.join(result['valid_speakers'])}; "
        f"tested once on {', '.join(result['test_speakers'])}, whom it had never heard.",
        [
            *story.hearing(trained, data.test_utterances, data.test_set),
            story.learning(run, result["best_epoch"]),
            *story.recognising(trained, data.test_set),
            story.provenance(result),
        ],
        run / "report.html",
        {
            "test accuracy": f"{100 * result['test_accuracy']:.1f} %",
            "test clips": str(result["test_clips"]),
            "validation accuracy": f"{100 * result['valid_accuracy']:.1f} %",
            "training time": f"{result['seconds']:.0f} s",
        },
    )


def claim_folder(run: Path, config: TrainConfig) -> dict[str, Any] | None:
    """Make the run's folder ours, or return the result of a run that is already finished and should be resumed."""
    if config.overwrite and run.exists():
        if not (run / "config.yaml").exists() and any(run.iterdir()):
            raise ValueError(f"run={run} is not a folder of ours (no config.yaml); overwrite=true would delete it")
        shutil.rmtree(run)
    if run.exists() and any(run.iterdir()):
        if not config.resume:
            raise ValueError(f"run={run} already exists; add resume=true to go on, overwrite=true to start anew")
        if (run / "result.json").exists():
            log.info("%s is finished; nothing to resume", run)
            return dict(read_json(run / "result.json", "add overwrite=true to train it anew"))
    run.mkdir(parents=True, exist_ok=True)
    return None


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
    speakers = config.data.load().speaker_names()
    results = [
        train(replace(config, run=f"{config.run}/{speaker}", data=replace(config.data, test_speaker=speaker)))
        for speaker in speakers
    ]
    write_json(Path(config.run) / "speakers.json", {"seed": config.seed, "results": results})
    print_speaker_table(Path(config.run).parent)


def print_speaker_table(folder: Path) -> None:
    """Accuracy of every held-out speaker, over all seeds finished in `folder`."""
    runs = [read_json(path, "train this seed again") for path in sorted(folder.glob("*/speakers.json"))]
    seeds = sorted(run["seed"] for run in runs)
    by_speaker: dict[str, list[float]] = {}  # speaker -> accuracy in percent, one a seed
    for run in runs:
        for result in run["results"]:
            by_speaker.setdefault(result["test_speakers"][0], []).append(100 * result["test_accuracy"])
    print(f"\naccuracy on a speaker never heard in training, seeds {', '.join(map(str, seeds))}")
    for speaker, values in by_speaker.items():
        mean, sd = mean_and_sd(values)
        print(f"  {speaker:12s} {mean:5.1f} ± {sd:4.1f} %   ({', '.join(f'{v:.1f}' for v in values)})")
    means = [float(np.mean([100 * r["test_accuracy"] for r in run["results"]])) for run in runs]
    mean, sd = mean_and_sd(means)
    print(f"  {'mean':12s} {mean:5.1f} ± {sd:4.1f} %   (mean over speakers; sd over {len(runs)} seeds)")


def model_card(result: dict[str, Any], data: SpeechDataModule) -> str:
    """README.md of a model folder: what it is, what it was trained on, how well it does, where it stops."""
    heard = set(result["valid_speakers"]) & set(result["train_speakers"])
    shared = (
        "The test speakers were never heard in training; the validation clips are of voices that also train."
        if heard
        else "Training, validation and test share no speaker."
    )
    return f"""---
library_name: spikeloom
tags: [spiking, keyword-spotting]
---
# SpikeSCR, {result["parameters"]:,} parameters

Recognises {data.n_classes} words ({", ".join(data.class_names)}) in clips of one second.

| | accuracy and origin |
|---|---|
| data | {result["name"]}, {len(data.splits.train)} training clips of {len(result["train_speakers"])} speakers |
| validation | {100 * result["valid_accuracy"]:.1f} % ({", ".join(result["valid_speakers"])}) |
| test | {100 * result["test_accuracy"]:.1f} % ({", ".join(result["test_speakers"])}, {result["test_clips"]} clips) |
| seed | {result["seed"]}, one run |

{shared} The test clips were scored once, at the best validation epoch.
Load with `speech.spikescr.SpikeSCR.from_pretrained(FOLDER)`; `preprocessor_config.json` holds the front end.
Limits: one seed, the recording conditions of its data, single words in clips of at most one second.
"""
