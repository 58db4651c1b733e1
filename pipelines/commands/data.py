"""`spikeloom data check`: is a data set whole? Files, checksums, every clip read once, counts by class and split.
`spikeloom data describe`: the same data as a page of figures.
The other verbs lie in pipelines/datasets: fetch and list in fetch.py, cochlea, leakage, devices; of EEG, check and
describe in zuco.py and eeg.py, the rest in zuco_files.py."""

import hashlib
import logging
import os
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from importlib import import_module, resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from spikeloom.accel.common import charts
from spikeloom.accel.common.changes import changes
from spikeloom.accel.common.parallel import blocks
from spikeloom.accel.common.report import Section, render
from spikeloom.accel.common.units import size_text
from spikeloom.pipelines.config.data import DataConfig
from spikeloom.pipelines.config.files import groups
from spikeloom.pipelines.config.groups import kind_of, package_of
from spikeloom.pipelines.config.mistakes import explain
from spikeloom.pipelines.datasets import fetch
from spikeloom.pipelines.training.runtime import set_up, worked_on
from spikeloom.speech import data_charts as data_figures
from spikeloom.speech.datasets import shd as heidelberg
from spikeloom.speech.datasets import speech_commands as commands
from spikeloom.speech.datasets.clips import Clips, LazySequence
from spikeloom.speech.datasets.spike_trains import SpikeTrains
from spikeloom.speech.datasets.utterances import SpeechSplits, Utterances
from spikeloom.speech.features.event_bins import EventBinsConfig
from spikeloom.speech.features.log_mel import LogMelConfig

log = logging.getLogger("spikeloom")
# module with check and describe: of names, which need no configuration of a training (`eeg` has none), and of kinds
EEG = {
    "zuco": "spikeloom.pipelines.datasets.zuco",
    "synthetic_zuco": "spikeloom.pipelines.datasets.zuco",
    "eeg": "spikeloom.pipelines.datasets.eeg",
}
EEG_KINDS = {"zuco": EEG["zuco"], "bids_reading": "spikeloom.pipelines.datasets.reading"}
CHECKSUMS = {**heidelberg.CHECKSUMS, **commands.CHECKSUMS}
MEASURED_CLIPS = 1000  # of a split, evenly spaced: enough for the distribution of their lengths


def run(config: DataConfig) -> None:
    set_up()
    of_zuco = ("synthesize", "split", "cache", "features", "bids", "epochs")
    if config.what == "check":
        check(config)
    elif config.what == "describe":
        describe(config)
    elif config.what == "fetch":
        fetch.run(config, folder_of)
    elif config.what == "list":
        fetch.print_list(folder_of)
    elif config.what == "cache" and config.dataset not in ("", *EEG):
        cache(config)
    elif config.what in ("cochlea", "leakage", "devices", *of_zuco):
        module = "zuco_files" if config.what in of_zuco else config.what
        import_module(f"spikeloom.pipelines.datasets.{module}").run(config)
    else:
        raise ValueError(
            f"data {config.what} is unknown; use check, describe, fetch, list, cochlea, leakage, devices, "
            f"{', '.join(of_zuco)}"
        )


def folder_of(dataset: str) -> Path:
    """Where a data set is read: the folder that conf/data names, else one of its name below the data folder."""
    from omegaconf import OmegaConf

    if dataset in groups()["data"]:  # read without the dataclass, whose domain takes seconds to import
        named: Any = OmegaConf.create(
            (resources.files("spikeloom.conf") / "data" / f"{dataset}.yaml").read_text("utf-8")
        )
        return Path(OmegaConf.create({"root": named._get_node("root")._value()}).root)
    return Path(os.environ.get("SPIKELOOM_DATA", "data")) / dataset


def source_of(config: DataConfig) -> Any:
    """The source's configuration under conf/data, for its own folder or another one, with the given settings."""
    return training_of(config).data


def training_of(config: DataConfig) -> Any:
    """The configuration of a training on that source, with the given settings."""
    from hydra import compose, initialize_config_module
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    choices = groups()["data"]
    if config.dataset not in choices:
        known = ", ".join(dict.fromkeys([*choices, *EEG]))
        raise ValueError(f"dataset={config.dataset} is unknown; use one of {known}")
    inside = GlobalHydra.instance().is_initialized()  # the command line is; a call from Python is not
    chosen = [f"data={config.dataset}", *config.settings]
    with nullcontext() if inside else initialize_config_module("spikeloom.conf", version_base="1.3"):
        try:
            composed = compose("train", chosen)
            training = SimpleNamespace(
                data=OmegaConf.to_object(composed.data), features=OmegaConf.to_object(composed.features)
            )
        except (HydraException, OmegaConfBaseException) as error:
            raise ValueError(explain(error, "train", chosen)) from error
    if config.root is not None:
        if not hasattr(training.data, "root"):
            raise ValueError(f"{config.dataset} is made in memory and has no folder; leave root out")
        training.data = replace(training.data, root=config.root)
    return training


def cache(config: DataConfig) -> None:
    """Make the frames of recordings of events, or the sentences of a reading corpus; what was made before stays."""
    training = training_of(config)
    if kind_of("data", training.data) == "bids_reading":
        import_module(EEG_KINDS["bids_reading"]).cache(config, training.data)
        return
    if package_of(training.data) != "vision" or Path(config.out).suffix:
        raise ValueError(
            "data cache keeps frames of event recordings, or rows of zuco or bids_reading, in a folder, got "
            f"dataset={config.dataset} out={config.out}; use for example dataset=cifar10dvs features=frames out=FOLDER"
        )
    from spikeloom.pipelines.datasets import vision as vision_data

    features = replace(training.features, cache=config.out) if hasattr(training.features, "cache") else None
    vision_data.cache(config.dataset, training.data, features, config.processes)


def source_unless_eeg(config: DataConfig, what: str) -> Any:
    """The source of a data set of speech or vision; None where it is EEG, whose module has then done `what`."""
    if config.dataset in EEG:
        getattr(import_module(EEG[config.dataset]), what)(config)
        return None
    source = source_of(config)
    if package_of(source) == "bci":
        getattr(import_module(EEG_KINDS[kind_of("data", source)]), what)(config, source)
        return None
    return source


def check(config: DataConfig) -> None:
    """Print what is there. Exits with 1 after one line for each problem."""
    source = source_unless_eeg(config, "check")
    if source is None:
        return
    if package_of(source) == "vision":
        from spikeloom.pipelines.datasets import vision as vision_data

        vision_data.check(config.dataset, source, config.processes)
        return
    root = Path(source.root) if hasattr(source, "root") else None
    print(f"{config.dataset} in {root}" if root else f"{config.dataset}, made in memory")
    problems = [*file_problems(root)] if root else []
    try:
        splits = source.build()
    except (ValueError, OSError) as error:
        problems.append(str(error))
    else:
        print_counts(splits)
        problems += clip_problems(splits, config.processes)
        for line in changes.summary():
            print(f"  {line}")
    for problem in dict.fromkeys(" ".join(text.split()) for text in problems):  # a bad wav may have stopped build() too
        print(f"problem: {problem}")
    if problems:
        sys.exit(1)
    print("no problem found")


def file_problems(root: Path) -> Iterator[str]:
    """Print archives and HDF5 files in `root` with size and checksum; yield those that are not as published."""
    for file in sorted(root.iterdir()) if root.is_dir() else [root] if root.is_file() else []:
        expected = CHECKSUMS.get(file.name)
        if expected is None and file.suffix != ".h5":
            continue
        verdict = "no published checksum" if expected is None else checksum(file, expected)
        print(f"  {file.name}  {size_text(file.stat().st_size)}  {verdict}")
        if "differs" in verdict:
            yield f"{file}: {verdict}; download it again"


def checksum(file: Path, expected: str) -> str:
    """Whether `file` has the published checksum, ALGORITHM:DIGEST."""
    algorithm, digest = expected.split(":")
    with file.open("rb") as f:
        found = hashlib.file_digest(f, algorithm).hexdigest()
    return f"{algorithm} as published" if found == digest else f"{algorithm} differs ({found}, published {digest})"


def clip_problems(splits: SpeechSplits[Any], processes: int = 0) -> Iterator[str]:
    """Read every clip that lies on disk once; yield what cannot be read, print which sound is in two sets."""
    where: dict[bytes, list[tuple[str, str]]] = defaultdict(list)
    for name, clips in splits._asdict().items():
        if isinstance(clips.content, LazySequence):
            read = partial(read_clips, clips.content)
            for block, found in worked_on(read, blocks(len(clips)), f"reading {name} clips, in blocks", processes):
                for index, (problem, digest) in zip(block, found, strict=True):
                    if problem:
                        yield problem
                    elif digest:
                        where[digest].append((name, clips.names[index]))
    repeated = [found for found in where.values() if len({of for of, _ in found}) > 1]
    if repeated:
        shown = "; ".join(" and ".join(f"{name} ({of})" for of, name in found[:2]) for found in repeated[:3])
        print(f"  {len(repeated):,} recordings are in two sets under two names, sample by sample: {shown}")


def read_clips(content: LazySequence[Any], block: range) -> list[tuple[str, bytes]]:
    """What is wrong with each of those clips, and the digest of a waveform."""
    found = []
    for index in block:
        try:
            clip = content[index]
        except ValueError as error:
            found.append((str(error), b""))
        else:
            found.append(("", hashlib.sha1(clip.tobytes()).digest() if isinstance(clip, np.ndarray) else b""))
    return found


def print_counts(splits: SpeechSplits[Any]) -> None:
    """Clips of every class and split, and who speaks in them."""
    counts = class_counts(splits)
    class_names = splits.train.class_names
    width = max(8, *map(len, class_names))
    rows = [(name, *(int(of[i]) for of in counts.values())) for i, name in enumerate(class_names)]
    speakers = ("speakers", *(len(clips.speaker_names()) for clips in splits))
    print(f"  {'class':{width}s} {'train':>8s} {'valid':>8s} {'test':>8s} {'all':>8s}")
    for label, *numbers in (*rows, ("clips", *map(len, splits)), speakers):
        total = len(set().union(*(c.speaker_names() for c in splits))) if label == "speakers" else sum(numbers)
        print(f"  {label:{width}s} " + " ".join(f"{n:8,d}" for n in (*numbers, total)))
    if shared := splits.shared_speakers():
        print(f"  speakers in training and test, as published: {', '.join(shared)}")


def class_counts(splits: SpeechSplits[Any]) -> dict[str, np.ndarray]:
    """int64 `[C]` for each split."""
    return {
        name: np.bincount(clips.labels, minlength=len(clips.class_names)) for name, clips in splits._asdict().items()
    }


def describe(config: DataConfig) -> None:
    """Write the page."""
    source = source_unless_eeg(config, "describe")
    if source is None:
        return
    if package_of(source) == "vision":
        from spikeloom.pipelines.datasets import vision as vision_data

        vision_data.describe(config.dataset, source, Path(config.out))
        return
    log.info("data describe: %s in %s -> %s", config.dataset, getattr(source, "root", "memory"), config.out)
    splits = source.build()
    train: Clips[Any] = splits.train
    speakers = set().union(*(clips.speaker_names() for clips in splits))
    unheard = set(splits.test.speaker_names()) - set(train.speaker_names())
    page = render(
        f"The data set {config.dataset}",
        f"{sum(map(len, splits)):,} recordings of {len(train.class_names)} words: {len(train):,} to learn from, "
        f"{len(splits.valid):,} to choose when to stop, {len(splits.test):,} to be tested on.",
        [
            charts.class_counts(class_counts(splits), train.class_names, "clips"),
            lengths(splits),
            *examples(splits),
        ],
        Path(config.out),
        {
            "clips": f"{sum(map(len, splits)):,}",
            "words": str(len(train.class_names)),
            "voices": f"{len(speakers):,}",
            "test voices not in the training set": f"{len(unheard):,} of {len(splits.test.speaker_names()):,}",
        },
    )
    log.info("%s -> %s", config.dataset, page)


def lengths(splits: SpeechSplits[Any]) -> Section:
    """Lengths of at most `MEASURED_CLIPS` clips of each split."""
    seconds = {}
    for name, clips in splits._asdict().items():
        some = clips.select(np.unique(np.linspace(0, len(clips) - 1, MEASURED_CLIPS).astype(np.int64)))
        if isinstance(some, Utterances):
            seconds[name] = some.n_samples / some.sample_rate_hz
        else:
            seconds[name] = np.array([np.ptp(e.times_s) if len(e.times_s) else 0.0 for e in some.events])
    measured = (
        "The length of a recording."
        if isinstance(splits.train, Utterances)
        else "The time from the first spike of a clip to its last."
    )
    if any(len(clips) > MEASURED_CLIPS for clips in splits):
        measured += f" Of each split, at most {MEASURED_CLIPS:,} were measured."
    return data_figures.durations(seconds, measured)


def examples(splits: SpeechSplits[Any]) -> Iterator[Section]:
    """One clip of every class: as spikes if it is a recording of spikes, and as the frames a network gets."""
    chosen: dict[str, tuple[Clips[Any], int]] = {}  # class name -> (clips of a split, index)
    for clips in reversed(splits):
        for label in np.unique(clips.labels):
            of_class = np.flatnonzero(clips.labels == label)
            chosen[clips.class_names[label]] = (clips, int(of_class[len(of_class) // 2]))
    ordered = {name: chosen[name] for name in splits.train.class_names if name in chosen}
    train: Utterances | SpikeTrains = splits.train
    if isinstance(train, SpikeTrains):
        yield data_figures.rasters({name: clips.content[i] for name, (clips, i) in ordered.items()}, train.n_units)
        binned = EventBinsConfig(n_units=train.n_units)
        pictures = {name: frames[:, ::-1] for name, frames in frames_of(binned, ordered).items()}
        caption = (
            f"The same clips, counted: every {binned.step_ms:g} milliseconds, how many spikes arrived in each of "
            f"{binned.n_channels} groups of {binned.units_per_channel} neighbouring channels, high frequencies on top. "
            "Dark is none, bright is many; every picture has its own scale."
        )
        yield data_figures.spectrograms(pictures, binned.step_ms, caption)
        return
    heard = LogMelConfig.gsc_8k() if train.sample_rate_hz == 8000 else LogMelConfig.gsc()
    pictures = frames_of(heard, ordered)
    caption = (
        f"How loud each of {heard.n_channels} frequency bands is, every {heard.step_ms:g} milliseconds: low bands at "
        "the bottom, dark for quiet and bright for loud, each clip on its own scale from its loudest moment downwards. "
        "Vowels are stacks of horizontal stripes, hissing sounds are bright at the top, stops are gaps."
    )
    yield data_figures.spectrograms(pictures, heard.step_ms, caption, (heard.f_min_hz, heard.f_max_hz))


def frames_of(
    front_end: EventBinsConfig | LogMelConfig, chosen: dict[str, tuple[Clips[Any], int]]
) -> dict[str, np.ndarray]:
    """`[T, N]` of each chosen clip."""
    built: Any = front_end.build()
    return {name: np.asarray(built.frames(built.recordings(clips)[index])) for name, (clips, index) in chosen.items()}
