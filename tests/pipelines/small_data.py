"""Tiny data sets in the published layouts, written for tests."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from spikeloom.speech.datasets.speech_commands import CLASSES

SPEAKERS = ("3f2a11aa", "9b0c77d2", "c4d5e6f7", "0a1b2c3d")  # as Speech Commands writes them


def write_spikes(path: Path, n_clips: int, n_classes: int, n_speakers: int, seed: int = 0) -> None:
    """One HDF5 file as the Heidelberg data sets have it; a class is a band of units that spikes more."""
    import h5py

    rng = np.random.default_rng(seed)
    labels = np.arange(n_clips) % n_classes
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        times = file.create_dataset("spikes/times", (n_clips,), dtype=h5py.vlen_dtype(np.float16))
        units = file.create_dataset("spikes/units", (n_clips,), dtype=h5py.vlen_dtype(np.uint16))
        for i, label in enumerate(labels):
            n = int(rng.integers(200, 300))
            times[i] = np.sort(rng.random(n) * rng.uniform(0.2, 0.3)).astype(np.float16)
            centre = 700 * (label + 0.5) / n_classes
            units[i] = np.clip(rng.normal(centre, 60, n), 0, 699).astype(np.uint16)
        file["labels"] = labels
        file["extra/speaker"] = np.arange(n_clips) // n_classes % n_speakers
        file["extra/keys"] = np.array([f"word{i}".encode() for i in range(n_classes)])


def write_word(path: Path, pitch_hz: float, rate_hz: int = 16_000, seconds: float = 0.25, seed: int = 0) -> None:
    """A tone in noise."""
    time_s = np.arange(round(rate_hz * seconds)) / rate_hz
    noise = 0.01 * np.random.default_rng(seed).standard_normal(len(time_s))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * pitch_hz * time_s) + noise, rate_hz)


def write_commands(root: Path, takes: int = 1) -> None:
    """The archive: 35 word folders, list files that give each of four speakers to one set, background noise."""
    names = {s: [f"{w}/{s}_nohash_{k}.wav" for w in CLASSES[35] for k in range(takes)] for s in SPEAKERS}
    for name in (name for of in names.values() for name in of):
        write_word(root / name, 200 + 100 * CLASSES[35].index(name.split("/")[0]), seed=len(name))
    write_word(root / "_background_noise_" / "hum.wav", 50, seconds=30)
    for file, speaker in (("validation_list.txt", SPEAKERS[0]), ("testing_list.txt", SPEAKERS[1])):
        (root / file).write_text("\n".join(names[speaker]) + "\n", encoding="utf-8")


def write_twelve_classes(root: Path, words: Sequence[str] = CLASSES[12], n_speakers: int = 12) -> None:
    """The published 12-class test set: class folders, the word in front of the speaker in `_unknown_`."""
    for i, word in enumerate(words):
        for k in range(n_speakers):
            speaker = f"{k * 7919 + 0x1000:08x}_nohash_0.wav"
            name = {"_unknown_": f"bed_{speaker}.wav", "_silence_": f"{k}.wav"}.get(word, speaker)
            write_word(root / word / name, 200 + 100 * i, seed=k)


def write_digits(root: Path, speakers: Sequence[str] = ("ann", "bob", "eve"), takes: int = 2) -> None:
    """Spoken digits: 8 kHz wavs named DIGIT_SPEAKER_INDEX.wav."""
    for digit in range(3):
        for speaker in speakers:
            for k in range(takes):
                write_word(root / f"{digit}_{speaker}_{k}.wav", 200 + 150 * digit, 8000, seed=k)


def write_speech(root: Path) -> None:
    """SHD, SSC, spikes, Speech Commands in both layouts and spoken digits, where $SPIKELOOM_DATA=root has them."""
    write_spikes(root / "shd" / "shd_train.h5", 80, 20, 4)
    write_spikes(root / "shd" / "shd_test.h5", 20, 20, 4, seed=1)
    for i, split in enumerate(("train", "valid", "test")):
        write_spikes(root / "ssc" / f"ssc_{split}.h5", 70, 35, 2, seed=i)
    write_spikes(root / "fsdd_spikes.h5", 40, 4, 2)
    write_commands(root / "gsc")
    write_twelve_classes(root / "speech_commands")
    write_digits(root / "fsdd")
