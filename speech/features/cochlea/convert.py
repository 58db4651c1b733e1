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
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from spikeloom.accel.common.files import brief, require_regular, sweep_leftovers, whole
from spikeloom.accel.common.parallel import each
from spikeloom.speech.datasets.audio import resample
from spikeloom.speech.datasets.clips import LazySequence
from spikeloom.speech.datasets.folders import has_audio, word_folders
from spikeloom.speech.datasets.fsdd import DigitsConfig
from spikeloom.speech.datasets.speech_commands import CLASSES, NOISE, SILENCE, UNKNOWN, CommandsConfig
from spikeloom.speech.datasets.utterances import AudioFiles, Utterances
from spikeloom.speech.datasets.words import WordsConfig
from spikeloom.speech.features.cochlea.bushy_cell import BUSHY
from spikeloom.speech.features.cochlea.cochlea import Cochlea, CochleaConfig
from spikeloom.speech.features.cochlea.hair_cell import MEDDIS
from spikeloom.speech.features.cochlea.membrane import MEMBRANE

TIME_DTYPES = ("float32", "float16")
AGAIN = "delete its folder, and what is in it is converted again"


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
    processes: int = 1,
    watch: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> int:
    """Write the spikes of all clips, resampled to `config.sample_rate_hz`, and return how many there are.

    Batches are kept beside the file, in `.NAME.parts`, until it is complete: a conversion that was killed goes on where
    it ended, whatever changed in the meantime is converted anew. The file appears whole or not at all.

    Args:
        utterances: the clips.
        config: of the cochlea.
        path: the HDF5 file.
        time_dtype: float32, or float16 as published (1 ms steps beyond one second).
        batch_size: clips a batch. One is in memory at a time, in each process.
        processes: that convert at the same time; the bytes of the file do not depend on it.
        watch: is handed the numbers of the batches and may show how far they are.

    Returns: the number of spikes.

    Raises:
        ValueError: for another dtype, a batch size or processes below 1, and what the clips raise when they are read.
    """
    import h5py

    if time_dtype not in TIME_DTYPES:
        raise ValueError(f"time_dtype={time_dtype} is not possible; use {' or '.join(TIME_DTYPES)}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}; use 16")
    path = Path(path)
    parts = path.with_name(f".{path.name}.parts")
    sweep_leftovers(path.parent, path.name)
    sweep_leftovers(parts)
    n_clips = len(utterances)
    batches = range(-(-n_clips // batch_size))
    work = partial(_convert_batch, utterances, config.build(), time_dtype, batch_size, parts)
    # The work first: it ends before the batch that shows it as done is asked for.
    files = [file for file, _ in zip(each(work, batches, processes), watch(batches), strict=True)]
    n_events, first = 0, 0
    with whole(path) as partial_file, h5py.File(partial_file, "w") as file:
        file.attrs.update(_provenance(config))
        _write_labels(file, utterances)
        times = file.create_dataset("spikes/times", (n_clips,), h5py.vlen_dtype(np.dtype(time_dtype)))
        units = file.create_dataset("spikes/units", (n_clips,), h5py.vlen_dtype(np.dtype(np.uint16)))
        for part in files:
            for clip, (of_clip, on_units) in enumerate(_read_part(parts / part), first):
                times[clip], units[clip] = of_clip, on_units
                n_events += len(on_units)
            first += batch_size
    shutil.rmtree(parts)
    return n_events


def _convert_batch(
    utterances: Utterances, cochlea: Cochlea, time_dtype: str, batch_size: int, parts: Path, batch: int
) -> str:
    """The name of the file in `parts` with the spikes of a batch, made where it is not there."""
    clips = range(batch * batch_size, min((batch + 1) * batch_size, len(utterances)))
    settings = (dataclasses.asdict(cochlea.config), time_dtype, version("spikeloom"))
    names = [utterances.names[i] for i in clips]
    identity = repr((settings, names, [_state(utterances, i) for i in clips]))
    path = parts / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.safetensors"
    if not path.is_file():
        from safetensors.numpy import save_file

        rate_hz = cochlea.config.sample_rate_hz
        sounds = [resample(utterances.waveforms[i], utterances.sample_rate_hz, rate_hz) for i in clips]
        found = cochlea(sounds, [clip_id(name) for name in names])
        spikes = {
            "times": np.concatenate([events.times_s.astype(time_dtype) for events in found]),
            "units": np.concatenate([events.units.astype(np.uint16) for events in found]),
            "ends": np.cumsum([len(events.units) for events in found]),
        }
        with whole(path) as partial_file:
            save_file(spikes, partial_file)
    return path.name


def _state(utterances: Utterances, clip: int) -> tuple[Any, ...]:
    """What changes when the recording does: place, size and time of a file, else a digest of the samples."""
    recordings = utterances.waveforms
    if isinstance(recordings, LazySequence):
        files, place = recordings.locate(clip)
        if isinstance(files, AudioFiles):
            stat = Path(files.paths[place]).stat()
            return files.paths[place], stat.st_size, stat.st_mtime_ns
    return (hashlib.sha256(np.ascontiguousarray(recordings[clip]).tobytes()).hexdigest(),)


def _read_part(path: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Times and units of every clip of a batch. Raises `ValueError` for a damaged file."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    require_regular(path, AGAIN)
    try:
        held = load_file(path)
        times, units, ends = held["times"], held["units"], held["ends"]
        if ends.ndim != 1 or not times.shape == units.shape == (ends[-1],) or (np.diff(ends, prepend=0) < 0).any():
            raise ValueError(f"{times.shape} times, {units.shape} units")
    except (SafetensorError, ValueError, KeyError, IndexError, TypeError, OSError) as error:
        raise ValueError(f"{path} is damaged ({brief(error)}); {AGAIN}") from error
    return zip(np.split(times, ends[:-1]), np.split(units, ends[:-1]), strict=True)


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
