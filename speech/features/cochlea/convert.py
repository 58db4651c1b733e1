"""Recordings to one HDF5 file of spikes in the layout of the Heidelberg data sets, which `datasets.spike_files` reads.

    spikes/times   n ragged rows of seconds        labels         n class indices
    spikes/units   n ragged rows of units          extra/speaker  n speaker numbers
    extra/keys     class names                     extra/speaker_names, extra/names   of speakers and clips

The root carries what made the file: seed, fs, constants (JSON) and version. Equal recordings, seed and constants give
equal bytes, whatever the batch size, the threads, and the other clips beside one: its random numbers follow its name.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from spikeloom.accel.common.files import sweep_leftovers, whole
from spikeloom.speech.datasets.audio import resample
from spikeloom.speech.datasets.folders import has_audio, word_folders
from spikeloom.speech.datasets.fsdd import DigitsConfig
from spikeloom.speech.datasets.speech_commands import CLASSES, NOISE, SILENCE, UNKNOWN, CommandsConfig
from spikeloom.speech.datasets.utterances import Utterances
from spikeloom.speech.datasets.words import WordsConfig
from spikeloom.speech.features.cochlea.bushy_cell import BUSHY
from spikeloom.speech.features.cochlea.cochlea import CochleaConfig
from spikeloom.speech.features.cochlea.hair_cell import MEDDIS
from spikeloom.speech.features.cochlea.membrane import MEMBRANE

TIME_DTYPES = ("float32", "float16")


def read_recordings(folder: str | Path) -> Utterances:
    """The clips of a folder of recordings, unsplit: DIGIT_SPEAKER_INDEX files, or a folder for each word.

    Raises `FileNotFoundError` where there is no recording in either form, and the errors of
    `spikeloom.speech.datasets.fsdd`, `.speech_commands`, `.words` and `.audio`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; give in=FOLDER with recordings")
    inside = {f.name for f in word_folders(folder) if has_audio(f)}
    if has_audio(folder) or inside == {"recordings"}:
        return DigitsConfig(root=str(folder)).load()
    if inside and not inside - {*CLASSES[35], UNKNOWN, SILENCE, NOISE}:
        return CommandsConfig(root=str(folder), classes=12 if {UNKNOWN, SILENCE} & inside else 35).load()
    return WordsConfig(root=str(folder)).load()


def clip_id(name: str) -> int:
    """A number in 0..2^64 - 1 for the name of a clip."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")


def convert(
    utterances: Utterances,
    config: CochleaConfig,
    path: str | Path,
    *,
    time_dtype: str = "float32",
    batch_size: int = 16,
    watch: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> int:
    """Write the spikes of all clips, resampled to `config.sample_rate_hz`, and return how many there are.

    time_dtype: float32, or float16 as published (1 ms steps beyond one second). One batch of clips is in memory at a
    time; `watch` is handed the numbers of the batches and may show how far they are. The file appears whole or not at
    all. Raises `ValueError` for another dtype and a batch size below 1, and what the clips raise when they are read.
    """
    import h5py

    if time_dtype not in TIME_DTYPES:
        raise ValueError(f"time_dtype={time_dtype} is not possible; use {' or '.join(TIME_DTYPES)}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}; use 16")
    cochlea = config.build()
    n_clips, n_events = len(utterances), 0
    sweep_leftovers(Path(path).parent, Path(path).name)
    with whole(Path(path)) as partial, h5py.File(partial, "w") as file:
        file.attrs.update(_provenance(config))
        _write_labels(file, utterances)
        times = file.create_dataset("spikes/times", (n_clips,), h5py.vlen_dtype(np.dtype(time_dtype)))
        units = file.create_dataset("spikes/units", (n_clips,), h5py.vlen_dtype(np.dtype(np.uint16)))
        for batch in watch(range(-(-n_clips // batch_size))):
            clips = range(batch * batch_size, min((batch + 1) * batch_size, n_clips))
            sounds = [
                resample(utterances.waveforms[i], utterances.sample_rate_hz, config.sample_rate_hz) for i in clips
            ]
            for i, events in zip(clips, cochlea(sounds, [clip_id(utterances.names[i]) for i in clips]), strict=True):
                times[i], units[i] = events.times_s.astype(time_dtype), events.units.astype(np.uint16)
                n_events += len(events.units)
    return n_events


def _write_labels(file: Any, utterances: Utterances) -> None:
    """The fields that are known before a clip is heard."""
    import h5py

    text = h5py.string_dtype()
    speakers = sorted(set(utterances.speakers))  # "" where nobody speaks is one of them
    number = {speaker: i for i, speaker in enumerate(speakers)}
    file["labels"] = utterances.labels.astype(np.uint16)
    file["extra/speaker"] = np.array([number[speaker] for speaker in utterances.speakers], dtype=np.uint16)
    file["extra/keys"] = np.array([name.encode() for name in utterances.class_names])
    file.create_dataset("extra/speaker_names", data=speakers, dtype=text)
    file.create_dataset("extra/names", data=utterances.names, dtype=text)


def _provenance(config: CochleaConfig) -> dict[str, Any]:
    constants = {
        "sound": {"rms": config.rms, "ramp_fraction": config.ramp_fraction, "drive_gain": config.drive_gain},
        "membrane": dataclasses.asdict(MEMBRANE),
        "hair_cell": dataclasses.asdict(MEDDIS),
        "bushy_cell": dataclasses.asdict(BUSHY),
    }
    return {
        "seed": np.uint64(config.seed),
        "fs": config.sample_rate_hz,
        "constants": json.dumps(constants),
        "version": version("spikeloom"),
    }
