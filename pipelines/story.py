"""The pages people read: sections about a trained model, gathered for a report."""

import csv
from pathlib import Path
from typing import Any

import numpy as np

from accel.report import Section, Table
from pipelines.runs import TrainedModel
from pipelines.scores import accuracy, confusion_matrix
from speech import figures
from speech.datamodule import FeatureSet
from speech.training import predict, record_spikes, spike_rates
from speech.utterances import Utterances


def hearing(trained: TrainedModel, clips: Utterances, features: FeatureSet) -> list[Section]:
    """What goes in and what the neurons do with it, for one recognised clip of median length."""
    log_p = predict(trained.model, features)
    right = (log_p.argmax(1) == features.labels).nonzero().squeeze(1).tolist() or list(range(len(features)))
    chosen = sorted(right, key=lambda i: len(clips.waveforms[i]))[len(right) // 2]
    frames = features.features[chosen, : int(features.lengths[chosen])]
    word, hop_ms = clips.class_names[int(clips.labels[chosen])], trained.features.hop_ms
    spikes = record_spikes(trained.model, frames)
    return [
        figures.waveform_and_mel(
            clips.waveforms[chosen], clips.sample_rate_hz, frames.numpy(), hop_ms, word, clips.speakers[chosen]
        ),
        figures.spike_raster(spikes, hop_ms, word),
    ]


def learning(run: Path, best_epoch: int) -> Section:
    """The learning curve from metrics.csv; epochs count from 1."""
    with (run / "metrics.csv").open(encoding="utf-8") as f:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(f)]
    column = lambda name: [row[name] for row in rows]  # noqa: E731
    return figures.learning_curve(
        [int(row["epoch"]) for row in rows], column("train_loss"), column("valid_loss"), column("valid_accuracy"),
        best_epoch,
    )  # fmt: skip


def recognising(trained: TrainedModel, features: FeatureSet) -> list[Section]:
    """Which words are mixed up, and how busy the layers are."""
    log_p = predict(trained.model, features)
    matrix = confusion_matrix(log_p, features.labels, len(trained.class_names)).numpy()
    return [
        figures.confusion(matrix, trained.class_names, accuracy(log_p, features.labels)),
        figures.spike_rates(spike_rates(trained.model, features)),
    ]


def provenance(result: dict[str, Any]) -> Section:
    """What was trained on what, so that the page stands alone."""
    rows = [[key.replace("_", " "), _text(value)] for key, value in result.items()]
    return Section("What was run", "Everything needed to run this again.", table=Table(["setting", "value"], rows))


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple | np.ndarray) else str(value)
