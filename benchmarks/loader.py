"""Speed of loading relative to training: batches of an SHD-sized event file, and training steps on them."""

import tempfile
from pathlib import Path

import h5py
import numpy as np
import torch

from spikeloom.accel.common.batches import batch_loader
from spikeloom.benchmarks.measure import clock, now_s
from spikeloom.speech.batches import FeatureSet, SpeechBatch, featurise
from spikeloom.speech.datasets.spike_files import read_spike_file
from spikeloom.speech.features.event_bins import EventBinsConfig
from spikeloom.speech.models.prediction import speech_log_probabilities
from spikeloom.speech.models.spikescr import SpikeSCRConfig
from spikeloom.speech.spike_augmentation import SpikeAugmentationConfig

N_CLIPS, EVENTS_A_CLIP, N_CLASSES = 8156, 8000, 20  # as the training file of SHD
BATCH_SIZES = (32, 256)


def print_loader(repeats: int) -> None:
    """One line a batch size. Cold: read from the file and binned; warm: kept frames, augmented."""
    print(f"{N_CLIPS:,} clips of {EVENTS_A_CLIP:,} events, 1L-8-128, {torch.get_num_threads()} threads, {clock()}")
    print(f"{'B':>4s} {'T':>5s} {'step/s':>8s} {'cold/s':>8s} {'warm/s':>8s} {'cold ratio':>11s} {'warm ratio':>11s} "
          f"{'cache MB':>9s}")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shd_train.h5"
        write_events(path)
        config = EventBinsConfig()
        augmentation = SpikeAugmentationConfig().build(config, seed=0)
        for batch_size in BATCH_SIZES:
            features = featurise(read_spike_file(path), config.build(), augmentation)
            free_bytes = features.budget.free_bytes
            cold, batch = batches_per_s(features, batch_size)
            warm, _ = batches_per_s(features, batch_size)
            steps = steps_per_s(batch, max(3, repeats // 4))
            print(
                f"{batch_size:4d} {batch.features.shape[1]:5d} {steps:8.2f} {cold:8.1f} {warm:8.1f} "
                f"{cold / steps:11.1f} {warm / steps:11.1f} {(free_bytes - features.budget.free_bytes) / 1e6:9.0f}"
            )


def write_events(path: Path) -> None:
    """Random events in the published layout, half-precision seconds."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        spikes = file.create_group("spikes")
        times = spikes.create_dataset("times", (N_CLIPS,), dtype=h5py.vlen_dtype(np.float16))
        units = spikes.create_dataset("units", (N_CLIPS,), dtype=h5py.vlen_dtype(np.uint16))
        for i in range(N_CLIPS):
            times[i] = np.sort(rng.random(EVENTS_A_CLIP) * rng.uniform(0.7, 1.2)).astype(np.float16)
            units[i] = rng.integers(0, 700, EVENTS_A_CLIP, dtype=np.uint16)
        file["labels"] = rng.integers(0, N_CLASSES, N_CLIPS)
        file["extra/speaker"] = rng.integers(0, 12, N_CLIPS)
        file["extra/keys"] = np.array([str(i).encode() for i in range(N_CLASSES)])


def batches_per_s(features: FeatureSet, batch_size: int) -> tuple[float, SpeechBatch]:
    """Rate over one epoch, and its last full batch."""
    batches = batch_loader(features, batch_size=batch_size, seed=0, shuffle=True)
    start = now_s()
    for batch in batches:
        if len(batch.labels) == batch_size:
            full = batch
    return len(batches) / (now_s() - start), full


def steps_per_s(batch: SpeechBatch, repeats: int) -> float:
    """Training steps a second on `batch`, after one that is not counted."""
    model = SpikeSCRConfig().build(batch.features.shape[2], N_CLASSES)
    optimizer = torch.optim.AdamW(model.parameters())
    for i in range(repeats + 1):
        if i == 1:
            start = now_s()
        optimizer.zero_grad()
        torch.nn.functional.nll_loss(speech_log_probabilities(model, batch), batch.labels).backward()
        optimizer.step()
    return repeats / (now_s() - start)
