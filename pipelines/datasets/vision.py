"""`spikeloom data check` and `describe` for pictures and event recordings.

Every sample is read once. `dataset=events root=FILE` (or a folder of loose recordings) says what each recording holds,
without classes.
"""

import hashlib
import logging
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from spikeloom.accel.common import charts
from spikeloom.accel.common.parallel import blocks
from spikeloom.accel.common.report import Section, Table, render
from spikeloom.accel.common.units import size_text
from spikeloom.pipelines.training.runtime import watch, worked_on
from spikeloom.vision import charts as figures
from spikeloom.vision.datasets.event_sets import EventFilesConfig
from spikeloom.vision.datasets.events import Recording
from spikeloom.vision.datasets.frame_cache import FrameCache
from spikeloom.vision.datasets.images import MNIST_FILES
from spikeloom.vision.datasets.readers import is_recording, read_events
from spikeloom.vision.datasets.samples import Samples, VisionSplits
from spikeloom.vision.transforms.frames import EventFramesConfig, frames_by_number

log = logging.getLogger("spikeloom")
CHECKSUMS = {  # archive -> MD5 as published
    "cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530",
    "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
    "cifar-100-binary.tar.gz": "03b5dce01913d631647c71ecec9e9cb8",
    "cifar-100-python.tar.gz": "eb9058c3a382ffc7106e4002c42a8d85",
}
PUBLISHED = {  # data set -> samples of the whole set
    "cifar10": 60_000, "cifar100": 60_000, "mnist": 70_000, "cifar10dvs": 10_000, "dvs128": 1464, "nmnist": 70_000,
}  # fmt: skip
MEASURED = 200  # recordings of a split, evenly spaced, whose lengths are drawn
FRAMES = 8
FRAMED = 8  # recordings whose frames a process makes at a time


def check(dataset: str, source: Any, processes: int = 0) -> None:
    """Print what is there. Exits with 1 after one line for each problem."""
    if files := loose_recordings(source):
        tell_recordings(files)
        return
    root = Path(source.root) if hasattr(source, "root") else None
    print(f"{dataset} in {root}" if root else f"{dataset}, made in memory")
    problems = list(archive_problems(root)) if root else []
    try:
        splits = source.build()
    except (ValueError, OSError) as error:
        problems.append(str(error))
    else:
        print_counts(dataset, splits)
        problems += sample_problems(splits, processes)
    for problem in dict.fromkeys(" ".join(text.split()) for text in problems):
        print(f"problem: {problem}")
    if problems:
        sys.exit(1)
    print("no problem found")


def archive_problems(root: Path) -> Iterator[str]:
    """Print archives and idx files in `root`; yield archives that are not as published."""
    names = (*CHECKSUMS, *(f"{name}{end}" for of in MNIST_FILES.values() for name in of for end in ("", ".gz")))
    for file in sorted(root / name for name in names if (root / name).is_file()):
        verdict, published = "no published checksum", CHECKSUMS.get(file.name)
        if published:
            with file.open("rb") as f:
                found = hashlib.file_digest(f, "md5").hexdigest()
            verdict = "md5 as published" if found == published else f"md5 differs ({found}, published {published})"
        print(f"  {file.name}  {size_text(file.stat().st_size)}  {verdict}")
        if "differs" in verdict:
            yield f"{file}: {verdict}; download it again"


def sample_problems(splits: VisionSplits, processes: int) -> Iterator[str]:
    """Read every sample once; yield what cannot be read."""
    for name, samples in splits._asdict().items():
        read = partial(unreadable, samples)
        for _, problems in worked_on(read, blocks(len(samples)), f"reading {name} samples, in blocks", processes):
            yield from problems


def unreadable(samples: Samples, block: range) -> list[str]:
    """What is wrong with some of the samples."""
    problems = []
    for index in block:
        try:
            samples.content[index]
        except (ValueError, OSError) as error:
            problems.append(str(error))
    return problems


def cache(dataset: str, source: Any, features: Any, processes: int) -> None:
    """Make the frames of every recording that has none."""
    if not isinstance(features, EventFramesConfig):
        raise ValueError(
            f"data cache dataset={dataset} keeps frames of event recordings; pictures are read as they are stored"
        )
    for name, samples in source.build()._asdict().items():
        kept = FrameCache(features, samples)
        made = worked_on(
            kept.make, blocks(len(samples), FRAMED), f"making frames of {name} recordings, in blocks", processes
        )
        n_made = sum(n for _, n in made)
        print(f"  {name:8s} {len(samples):8,d} recordings, {n_made:,} made now -> {kept.folder}")


def print_counts(dataset: str, splits: VisionSplits) -> None:
    """Samples of every class and split."""
    class_names = splits.train.class_names
    counts = {name: samples.counts() for name, samples in splits._asdict().items()}
    width = max(8, *map(len, class_names))
    print(f"  {'class':{width}s} {'train':>8s} {'valid':>8s} {'test':>8s} {'all':>8s}")
    rows = [(name, [int(of[i]) for of in counts.values()]) for i, name in enumerate(class_names)]
    for label, numbers in (*rows, ("samples", [len(split) for split in splits])):
        print(f"  {label:{width}s} " + " ".join(f"{n:8,d}" for n in (*numbers, sum(numbers))))
    total, whole = sum(map(len, splits)), PUBLISHED.get(dataset)
    if whole and total != whole:
        print(f"  {total:,} of the {whole:,} samples of the whole data set: no score on these is one of {dataset}")
    for name, samples in splits._asdict().items():
        print(f"  split {name}  sha256 {samples.digest()}")


# --- recordings without classes -------------------------------------------------------------------------------------


def loose_recordings(source: Any) -> list[Path]:
    """The recordings at `source.root` where that is a file or a folder of them; none where there are classes."""
    if not isinstance(source, EventFilesConfig):
        return []
    root = Path(source.root)
    return [root] if root.is_file() else sorted(f for f in root.glob("*") if is_recording(f) and f.is_file())


def tell_recordings(files: list[Path]) -> None:
    """Print what each recording holds. Exits with 1 after one line for each that cannot be read."""
    problems = []
    for file in files:
        try:
            recording = read_events(file)
        except (ValueError, OSError) as error:
            problems.append(" ".join(str(error).split()))
            continue
        print(file)
        for name, value in facts(recording).items():
            print(f"  {name:28s} {value}")
    for problem in problems:
        print(f"problem: {problem}")
    if problems:
        sys.exit(1)
    print("no problem found")


def facts(recording: Recording) -> dict[str, str]:
    """What a recording holds, in figures."""
    events, (height, width) = recording.events, recording.sensor
    t, first, on = events["t"], events[0], int(events["p"].sum())
    return {
        "format": recording.format,
        "sensor": f"{width} x {height}" + ("" if recording.sensor_known else ", not named in the file but assumed"),
        "events": f"{len(events):,}",
        "brighter (ON)": f"{on:,}", "darker (OFF)": f"{len(events) - on:,}",
        "time": f"{t[0]}..{t[-1]} µs ({(t.max() - t.min()) / 1e6:.3f} s)",
        "x": f"{events['x'].min()}..{events['x'].max()}", "y": f"{events['y'].min()}..{events['y'].max()}",
        "first event": f"x {first['x']}, y {first['y']}, {'ON' if first['p'] else 'OFF'}, {first['t']} µs",
        **recording.notes,
    }  # fmt: skip


# --- describe -------------------------------------------------------------------------------------------------------


def describe(dataset: str, source: Any, out: Path) -> None:
    """Write the page."""
    if files := loose_recordings(source):
        sections = [part for file in files for part in of_recording(file)]
        page = render(
            f"{len(files)} recordings of event cameras" if len(files) > 1 else f"The recording {files[0].name}",
            "What each file holds, and what a network would be shown of it.", sections, out,
        )  # fmt: skip
        log.info("%s -> %s", dataset, page)
        return
    splits: VisionSplits = source.build()
    train = splits.train
    total = sum(map(len, splits))
    page = render(
        f"The data set {dataset}",
        f"{total:,} samples of {len(train.class_names)} classes: {len(train):,} to learn from, {len(splits.valid):,} "
        f"to choose when to stop, {len(splits.test):,} to be tested on.",
        [
            charts.class_counts({n: s.counts() for n, s in splits._asdict().items()}, train.class_names),
            *(events_of(splits) if train.sensor else [pictures_of(train)]),
        ],
        out,
        {"samples": f"{total:,}", "classes": str(len(train.class_names)), "size": size_of(train)},
    )
    log.info("%s -> %s", dataset, page)


def size_of(samples: Samples) -> str:
    """Pixels of the sensor, or of the first picture."""
    height, width = samples.sensor or samples.content[0].shape[:2]
    return f"{width} x {height}"


def one_of_each(samples: Samples) -> list[int]:
    """The middle sample of every class, of at most `figures.GALLERY` classes."""
    present = np.unique(samples.labels)[: figures.GALLERY]
    return [int(of[len(of) // 2]) for of in (np.flatnonzero(samples.labels == label) for label in present)]


def pictures_of(samples: Samples) -> Section:
    chosen = one_of_each(samples)
    pictures = [np.asarray(samples.content[i]) / samples.full_scale for i in chosen]
    return figures.gallery(pictures, [samples.class_names[samples.labels[i]] for i in chosen])


def events_of(splits: VisionSplits) -> Iterator[Section]:
    """Lengths of recordings, and one of each class as frames."""
    seconds, numbers = {}, {}
    for name, samples in splits._asdict().items():
        some = np.unique(np.linspace(0, len(samples) - 1, MEASURED).astype(np.int64))
        events = [samples.content[int(i)] for i in watch(some, f"measuring {name} recordings")]
        seconds[name] = np.array([np.ptp(e["t"]) / 1e6 for e in events])
        numbers[name] = np.array([len(e) for e in events])
    yield figures.recordings(seconds, numbers)
    train = splits.train
    for i in one_of_each(train):
        assert train.sensor is not None
        events = train.content[i]
        frames = frames_by_number(events, min(FRAMES, len(events)), train.sensor)
        yield figures.event_frames(frames, train.class_names[train.labels[i]])


def of_recording(file: Path) -> Iterator[Section]:
    recording = read_events(file)
    table = Table(("figure", "value"), list(facts(recording).items()))
    yield Section(f"{file.name} in figures", "As the file says it; nothing is turned or left out.", table=table)
    frames = frames_by_number(recording.events, min(FRAMES, len(recording.events)), recording.sensor)
    yield figures.event_frames(frames, file.name)
