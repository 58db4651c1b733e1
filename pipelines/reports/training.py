"""The pages people read: sections about a trained model, gathered for a report."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spikeloom.accel.common import charts
from spikeloom.accel.common.batches import BatchIndex
from spikeloom.accel.common.charts import learning_curve
from spikeloom.accel.common.report import Section, Table
from spikeloom.accel.common.statistics import confusion_matrix
from spikeloom.pipelines.training.run_dir import TrainedModel, history
from spikeloom.speech import charts as figures
from spikeloom.speech.batches import FeatureSet
from spikeloom.speech.datasets.spike_trains import SpikeTrains
from spikeloom.speech.datasets.utterances import Utterances
from spikeloom.speech.models.prediction import predict, record_spikes, spike_rates

CANDIDATES = 100  # recognised clips among which one of median length is shown


def hearing(trained: TrainedModel, clips: Utterances | SpikeTrains, features: FeatureSet) -> list[Section]:
    """What goes in and what the neurons do with it, for one recognised clip of median length."""
    log_p = predict(trained.model, features)
    right = (log_p.argmax(1) == features.labels).nonzero().squeeze(1)
    candidates = (right if len(right) else torch.arange(len(features)))[:CANDIDATES]
    _, lengths, _, _ = features[BatchIndex(0, candidates)]
    chosen = int(candidates[lengths.argsort(stable=True)[len(lengths) // 2]])
    frames = features[BatchIndex(0, torch.tensor([chosen]))].features[0]
    word, speaker, step_ms = (
        clips.class_names[int(clips.labels[chosen])],
        clips.speakers[chosen],
        trained.features.step_ms,
    )
    if isinstance(clips, SpikeTrains):
        times_s, units = clips.events[chosen]
        heard = figures.events_and_frames(times_s, units, frames.numpy(), step_ms, word, speaker)
    elif trained.features.kind == "mfcc":
        heard = figures.waveform_and_coefficients(
            clips.waveforms[chosen], clips.sample_rate_hz, frames.numpy(), step_ms, word, speaker
        )
    else:
        heard = figures.waveform_and_mel(
            clips.waveforms[chosen], clips.sample_rate_hz, frames.numpy(), step_ms, word, speaker,
            (trained.features.f_min_hz, trained.features.f_max_hz),
        )  # fmt: skip
    spikes = {name: _at_steps(fired, len(frames)) for name, fired in record_spikes(trained.model, frames).items()}
    return [heard, *([figures.spike_raster(spikes, step_ms, word)] if spikes else [])]


def _at_steps(fired: np.ndarray, steps: int) -> np.ndarray:
    """Spikes [T', channels] of a layer with fewer steps than its input, each shown for as long as it stands."""
    return fired[np.arange(steps) * len(fired) // steps]


def learning(run: Path, best_epoch: int, things: str = "words") -> Section:
    """The learning curve from metrics.csv; epochs count from 1."""
    return learning_curve(history(run), best_epoch, things)


def recognising(trained: TrainedModel, features: FeatureSet) -> list[Section]:
    """Which words are confused, and the firing rates of the layers."""
    log_p = predict(trained.model, features)
    matrix = confusion_matrix(log_p, features.labels, len(trained.class_names)).numpy()
    rates = spike_rates(trained.model, features)
    return [
        charts.confusion(matrix, trained.class_names, "clips"),
        *([charts.spike_rates(rates)] if rates else []),
    ]


def provenance(result: dict[str, Any]) -> Section:
    """What was trained on what, so that the page stands alone."""
    rows = [
        [key.replace("_", " ").replace("valid ", "validation "), _text(key, value)]
        for key, value in result.items()
        if not isinstance(value, dict)
    ]
    return Section("What was run", "Everything needed to run this again.", table=Table(["setting", "value"], rows))


def _text(key: str, value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if type(value) is int and key != "seed":
        return f"{value:,}"
    return people(value) if isinstance(value, list) else str(value)


def people(names: Sequence[str]) -> str:
    """Speakers as a sentence can hold them: their names, or how many when they are many."""
    return ", ".join(names) if len(names) <= 12 else f"{len(names)} speakers"
