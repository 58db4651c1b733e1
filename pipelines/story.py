"""The pages people read: sections about a trained model, gathered for a report."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from accel.report import Section, Table, learning_curve
from pipelines.runs import TrainedModel
from pipelines.scores import accuracy, confusion_matrix
from speech import figures
from speech.batches import Draw, FeatureSet
from speech.spike_trains import SpikeTrains
from speech.training import predict, record_spikes, spike_rates
from speech.utterances import Utterances

CANDIDATES = 100  # recognised clips among which one of median length is shown


def hearing(trained: TrainedModel, clips: Utterances | SpikeTrains, features: FeatureSet) -> list[Section]:
    """What goes in and what the neurons do with it, for one recognised clip of median length."""
    log_p = predict(trained.model, features)
    right = (log_p.argmax(1) == features.labels).nonzero().squeeze(1)
    candidates = (right if len(right) else torch.arange(len(features)))[:CANDIDATES]
    _, lengths, _, _ = features[Draw(0, candidates)]
    chosen = int(candidates[lengths.argsort(stable=True)[len(lengths) // 2]])
    frames = features[Draw(0, torch.tensor([chosen]))].features[0]
    word, speaker, step_ms = (
        clips.class_names[int(clips.labels[chosen])],
        clips.speakers[chosen],
        trained.features.step_ms,
    )
    if isinstance(clips, SpikeTrains):
        times_s, units = clips.events[chosen]
        heard = figures.events_and_frames(times_s, units, frames.numpy(), step_ms, word, speaker)
    else:
        heard = figures.waveform_and_mel(
            clips.waveforms[chosen], clips.sample_rate_hz, frames.numpy(), step_ms, word, speaker
        )
    return [heard, figures.spike_raster(record_spikes(trained.model, frames), step_ms, word)]


def learning(run: Path, best_epoch: int, things: str = "words") -> Section:
    """The learning curve from metrics.csv; epochs count from 1."""
    return learning_curve(history(run), best_epoch, things)


def history(run: Path) -> list[dict[str, float]]:
    """The rows of metrics.csv, one an epoch."""
    with (run / "metrics.csv").open(encoding="utf-8") as f:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(f)]


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
    rows = [[key.replace("_", " "), _text(value)] for key, value in result.items() if not isinstance(value, dict)]
    return Section("What was run", "Everything needed to run this again.", table=Table(["setting", "value"], rows))


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return people(value) if isinstance(value, list) else str(value)


def people(names: Sequence[str]) -> str:
    """Speakers as a sentence can hold them: their names, or how many when they are many."""
    return ", ".join(names) if len(names) <= 12 else f"{len(names)} speakers"
