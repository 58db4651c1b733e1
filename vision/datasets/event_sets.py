"""Data sets of event recordings: CIFAR10-DVS, DVS128 Gesture and N-MNIST, as their archives unpack.

What a data set adds to its files is here: the view (CIFAR10-DVS is turned and inverted), the labels, the published
split, and a validation set carved from training: of the same classes, or of other people where people move.
"""

import functools
import logging
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from spikeloom.accel.common.files import read_text
from spikeloom.vision.datasets.aedat2 import read_aedat2
from spikeloom.vision.datasets.aedat3 import Cut, overlapping, read_aedat3, read_cuts
from spikeloom.vision.datasets.events import DVS128, NMNIST, EventFileError, checked_sensor, on_sensor, same_sensor
from spikeloom.vision.datasets.images import CIFAR10_NAMES, DIGIT_NAMES
from spikeloom.vision.datasets.nmnist import read_nmnist
from spikeloom.vision.datasets.readers import EVENT_SUFFIXES, is_recording, read_events
from spikeloom.vision.datasets.samples import Lazy, Samples, VisionSplits, in_total, joined, stratified

log = logging.getLogger("spikeloom")
GESTURES = (
    "clap", "right-hand wave", "left-hand wave", "right-arm clockwise", "right-arm counter-clockwise",
    "left-arm clockwise", "left-arm counter-clockwise", "arm roll", "drums", "guitar", "other",
)  # fmt: skip
MIRRORED_GESTURES = (0, 2, 1, 6, 5, 4, 3, 7, 8, 9, 10)  # class -> class of its mirror image
VALID_USERS = (21, 22, 23)
TRAIN_SHARE, VALID_SHARE = 0.9, 0.09  # of CIFAR10-DVS: 9,000 published for training, 900 of them choose the epoch
N_MNIST_VALID = 5000
WHERE = {
    "cifar10dvs": "unpack the ten zips of CIFAR10-DVS (figshare 7712788…7712839) there: CLASS/NAME.aedat",
    "dvs128": "unpack DvsGesture.tar.gz there (manual download; md5 begins 8a5c71fb)",
    "nmnist": "unpack Train.zip and Test.zip of N-MNIST there: Train/0/NNNNN.bin …",
}  # fmt: skip


def existing(root: str, kind: str) -> Path:
    """The folder. Raises FileNotFoundError with where to get what belongs there."""
    if not Path(root).is_dir():
        raise FileNotFoundError(f"no folder {root}; {WHERE[kind]}, or give data.root=FOLDER")
    return Path(root)


def event_folders(root: Path, suffix: str, class_names: tuple[str, ...], where: str) -> tuple[list[Path], np.ndarray]:
    """Files `root/CLASS/*suffix` in the order of classes and names, and their labels. Raises for an empty class."""
    files, labels = list[Path](), list[int]()
    for label, name in enumerate(class_names):
        found = sorted((root / name).glob(f"*{suffix}")) if (root / name).is_dir() else []
        if not found:
            raise FileNotFoundError(f"no *{suffix} in {root / name}; {where}")
        files += found
        labels += [label] * len(found)
    return files, np.array(labels, dtype=np.int64)


# --- CIFAR10-DVS ----------------------------------------------------------------------------------------------------


def cifar10dvs_view(events: np.ndarray) -> np.ndarray:
    """x' = 127 - y, y' = 127 - x, p' = not p: upright, as the published loaders show it."""
    turned = events.copy()
    turned["x"], turned["y"], turned["p"] = 127 - events["y"], 127 - events["x"], ~events["p"]
    return turned


def _read_cifar10dvs(files: list[Path], index: int) -> np.ndarray:
    return cifar10dvs_view(same_sensor(files[index], read_aedat2(files[index]), DVS128))


@dataclass(kw_only=True)
class Cifar10DvsConfig:
    """CIFAR10-DVS in AEDAT 2.0. Of each class the first 90 % by file name train, as in the published repositories."""

    source: str = "cifar10dvs"
    root: str = "data/cifar10dvs"  # folder of the data set
    split_seed: int = 0  # of the validation samples

    def load(self) -> Samples:
        files, labels = event_folders(existing(self.root, "cifar10dvs"), ".aedat", CIFAR10_NAMES, WHERE["cifar10dvs"])
        return Samples(
            content=Lazy(len(files), partial(_read_cifar10dvs, files)), labels=labels,
            names=[f"{f.parent.name}/{f.name}" for f in files], class_names=CIFAR10_NAMES, sensor=DVS128,
        )  # fmt: skip

    def build(self) -> VisionSplits:
        everything = self.load()
        first = np.zeros(len(everything), dtype=bool)
        for label in range(10):
            of_class = np.flatnonzero(everything.labels == label)  # in the order of file names
            first[of_class[: round(TRAIN_SHARE * len(of_class))]] = True
        published = everything.select(np.flatnonzero(first))
        sizes = in_total(published.labels, round(VALID_SHARE * len(everything)), 10)
        train, valid = stratified(published.labels, sizes, self.split_seed)
        return VisionSplits(published.select(train), published.select(valid), everything.select(np.flatnonzero(~first)))


# --- DVS128 Gesture -------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=2)
def _whole_recording(path: Path) -> np.ndarray:
    return same_sensor(path, read_aedat3(path), DVS128)


def cut_recording(path: Path, cut: Cut) -> np.ndarray:
    """The events of a labelled stretch, start <= t < end. Raises EventFileError when there are none."""
    events = _whole_recording(path)
    found = events[(events["t"] >= cut.start_us) & (events["t"] < cut.end_us)]
    if not len(found):
        raise EventFileError(path, 0, f"no event from {cut.start_us} to {cut.end_us}; its labels are of another file")
    return found


def _read_cut(cuts: list[tuple[Path, Cut]], index: int) -> np.ndarray:
    return cut_recording(*cuts[index])


@dataclass(kw_only=True)
class GestureConfig:
    """DVS128 Gesture in AEDAT 3.1, cut by its tables: users 1-20 train, 21-23 choose the epoch, 24-29 are tested.

    A mirrored clip shows another gesture, so whatever mirrors a clip must take its label along (`Samples.mirrored`).
    """

    source: str = "dvs128"
    root: str = "data/dvs128"  # folder of the data set

    def load(self) -> Samples:
        return joined([self._listed("trials_to_train.txt"), self._listed("trials_to_test.txt")])

    def build(self) -> VisionSplits:
        published, test = self._listed("trials_to_train.txt"), self._listed("trials_to_test.txt")
        chosen = np.array([group in {f"user{user:02d}" for user in VALID_USERS} for group in published.groups or ()])
        if not chosen.any() or chosen.all():
            raise ValueError(
                f"{self.root}: trials_to_train.txt names no recording of users {VALID_USERS[0]}-{VALID_USERS[-1]}, who "
                "choose the epoch, or of nobody else; fetch the whole archive"
            )
        train, valid = np.flatnonzero(~chosen), np.flatnonzero(chosen)
        return VisionSplits(published.select(train), published.select(valid), test)

    def _listed(self, list_name: str) -> Samples:
        root = existing(self.root, "dvs128")
        if not (root / list_name).is_file():
            raise FileNotFoundError(f"no {list_name} in {root}; {WHERE['dvs128']}")
        cuts: list[tuple[Path, Cut]] = []
        for trial in read_text(root / list_name, WHERE["dvs128"]).split():
            if not re.fullmatch(r"[\w.-]{1,200}", trial):
                raise ValueError(f"{root / list_name} names {trial!r}, no file beside it; fetch the archive again")
            labels = root / f"{Path(trial).stem}_labels.csv"
            if not (root / trial).is_file():
                raise FileNotFoundError(f"no {trial} in {root}, which {list_name} names; {WHERE['dvs128']}")
            of_file = read_cuts(labels, len(GESTURES))
            if n := overlapping(of_file):
                log.warning("%s: %d labelled stretches overlap the one before; both are kept", labels, n)
            cuts += [(root / trial, cut) for cut in of_file]
        if not cuts:
            raise ValueError(f"{root / list_name} names no recording; fetch the archive again")
        return Samples(
            content=Lazy(len(cuts), partial(_read_cut, cuts)),
            labels=np.array([cut.label for _, cut in cuts], dtype=np.int64),
            names=[f"{path.stem}/{cut.start_us}" for path, cut in cuts], class_names=GESTURES, sensor=DVS128,
            mirrored=MIRRORED_GESTURES, groups=[path.stem.partition("_")[0] for path, _ in cuts],
        )  # fmt: skip


# --- N-MNIST --------------------------------------------------------------------------------------------------------


def _read_nmnist(files: list[Path], index: int) -> np.ndarray:
    return read_nmnist(files[index]).events


@dataclass(kw_only=True)
class NMnistConfig:
    """N-MNIST .bin files in Train/0…9 and Test/0…9; 5,000 of the training set (less of a smaller one) choose."""

    source: str = "nmnist"
    root: str = "data/nmnist"  # folder of the data set
    split_seed: int = 0  # of the validation samples

    def load(self) -> Samples:
        return joined([self._split("Train"), self._split("Test")])

    def build(self) -> VisionSplits:
        published = self._split("Train")
        sizes = in_total(published.labels, min(N_MNIST_VALID, len(published) // 5), 10)
        train, valid = stratified(published.labels, sizes, self.split_seed)
        return VisionSplits(published.select(train), published.select(valid), self._split("Test"))

    def _split(self, name: str) -> Samples:
        root = existing(self.root, "nmnist")
        files, labels = event_folders(root / name, ".bin", DIGIT_NAMES, WHERE["nmnist"])
        return Samples(
            content=Lazy(len(files), partial(_read_nmnist, files)), labels=labels,
            names=[f"{name}/{f.parent.name}/{f.name}" for f in files], class_names=DIGIT_NAMES, sensor=NMNIST,
        )  # fmt: skip


# --- files of one's own ---------------------------------------------------------------------------------------------


def _read_on_sensor(files: list[Path], sensor: tuple[int, int], index: int) -> np.ndarray:
    found, path = read_events(files[index]), files[index]
    if found.sensor_known and found.sensor != sensor:
        raise EventFileError(path, 0, f"sensor {found.sensor}, others {sensor}; keep one sensor a set")
    on_sensor(path, found.events, sensor, 0, 0)
    return found.events


@dataclass(kw_only=True)
class EventFilesConfig:
    """Recordings in any of the formats as train/CLASS and test/CLASS; one sensor for all of them.

    sensor: [height, width] for files that do not name theirs (tables, some .raw and .dat).
    """

    source: str = "events"
    root: str = "data/events"  # folder with train/CLASS and test/CLASS
    valid_share: float = 0.1  # fraction of the training recordings used for validation
    split_seed: int = 0  # of the validation samples
    sensor: list[int] | None = None  # [height, width] where the files do not name it

    def load(self) -> Samples:
        root = Path(self.root)
        if not root.is_dir():
            raise FileNotFoundError(
                f"no folder {root}; give data.root=FOLDER with a folder of recordings for each class"
            )
        splits = [root / name for name in ("train", "test") if (root / name).is_dir()] or [root]
        names = tuple(sorted({f.parent.name for split in splits for f in event_files(split)}))
        return joined([self._folder(split, names) for split in splits])

    def build(self) -> VisionSplits:
        root = Path(self.root)
        if not (root / "train").is_dir() or not (root / "test").is_dir():
            raise FileNotFoundError(f"no train and test in {root}; lay recordings out as train/CLASS and test/CLASS")
        names = tuple(sorted({f.parent.name for f in event_files(root / "train")}))
        published = self._folder(root / "train", names)
        sizes = np.maximum(1, np.round(self.valid_share * published.counts())).astype(np.int64)
        train, valid = stratified(published.labels, sizes, self.split_seed)
        return VisionSplits(published.select(train), published.select(valid), self._folder(root / "test", names))

    def _folder(self, folder: Path, names: tuple[str, ...]) -> Samples:
        files = event_files(folder)
        if not files:
            raise ValueError(f"{folder} holds no recordings ({', '.join(EVENT_SUFFIXES)}); lay them out as CLASS/NAME")
        if unknown := [f.parent for f in files if f.parent.name not in names]:
            raise ValueError(f"{unknown[0]} is none of the classes {', '.join(names)}; remove it")
        sensor = self._sensor(files[0])
        return Samples(
            content=Lazy(len(files), partial(_read_on_sensor, files, sensor)),
            labels=np.array([names.index(f.parent.name) for f in files], dtype=np.int64),
            names=[f"{f.parent.name}/{f.name}" for f in files], class_names=names, sensor=sensor,
        )  # fmt: skip

    def _sensor(self, first: Path) -> tuple[int, int]:
        found = read_events(first)
        if self.sensor is None and not found.sensor_known:
            raise EventFileError(first, 0, "the file does not name its sensor; give data.sensor=[HEIGHT,WIDTH]")
        if self.sensor is None:
            return found.sensor
        if len(self.sensor) != 2:
            raise ValueError(f"data.sensor={self.sensor} is no size; give data.sensor=[HEIGHT,WIDTH]")
        return checked_sensor(first, 0, *self.sensor)


def event_files(folder: Path) -> list[Path]:
    """Recordings in the class folders of `folder`, in the order of classes and names."""
    return sorted(f for f in folder.glob("*/*") if is_recording(f))
