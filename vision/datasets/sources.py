"""Sources of pictures: where each lies, and how it is split into training, validation and test.

A validation set is always carved from the published training set and the published test set is left alone; only the
embedded digits have no published split. `source` tells the settings apart in a file.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import ClassVar

import numpy as np

from spikeloom.vision.datasets.images import (
    SUFFIXES,
    cifar_folder,
    class_folders,
    has_mnist,
    read_cifar,
    read_class_folders,
    read_digits,
    read_mnist,
)
from spikeloom.vision.datasets.samples import Samples, VisionSplits, by_share, in_total, joined, stratified
from spikeloom.vision.datasets.tar_shards import read_shards, shards_in

log = logging.getLogger("spikeloom")
DIGITS_VALID, DIGITS_TEST = 180, 360  # of 1,797
MNIST_VALID = 5000
CIFAR_VALID_SHARE = 0.1  # 5,000 of 50,000
WHERE = {
    "mnist": "fetch the four idx files of MNIST into it",
    "cifar": "unpack cifar-10-binary.tar.gz or cifar-10-python.tar.gz (CIFAR-100 alike) of www.cs.toronto.edu/~kriz "
    "there, or lay pictures out as train/CLASS/*.png and test/CLASS/*.png",
    "imagenet": "lay it out as train/WNID/*.JPEG and val/WNID/*.JPEG, or as tar files train/*.tar and val/*.tar",
}  # fmt: skip


@dataclass(kw_only=True)
class ScannedDigitsConfig:
    """The 1,797 scanned digits of scikit-learn, in memory: 1,257 train, 180 choose the epoch, 360 are tested."""

    source: str = "digits"
    split_seed: int = 0  # of the split

    def load(self) -> Samples:
        return read_digits()

    def build(self) -> VisionSplits:
        everything = self.load()
        rest, test = stratified(everything.labels, in_total(everything.labels, DIGITS_TEST, 10), self.split_seed)
        left = everything.select(rest)
        train, valid = stratified(left.labels, in_total(left.labels, DIGITS_VALID, 10), self.split_seed + 1)
        return VisionSplits(left.select(train), left.select(valid), everything.select(test))


@dataclass(kw_only=True)
class MnistConfig:
    """MNIST idx files, plain or gzip: 5,000 of the 60,000 for training (a fifth of a smaller set) choose the epoch."""

    source: str = "mnist"
    root: str = "data/mnist"  # folder of the idx files
    split_seed: int = 0  # of the validation samples

    def load(self) -> Samples:
        return joined(mnist_train_and_test(existing(self.root, "mnist")))

    def build(self) -> VisionSplits:
        published, test = mnist_train_and_test(existing(self.root, "mnist"))
        sizes = in_total(published.labels, min(MNIST_VALID, len(published) // 5), 10)
        train, valid = stratified(published.labels, sizes, self.split_seed)
        return VisionSplits(published.select(train), published.select(valid), test)


@dataclass(kw_only=True)
class CifarConfig:
    """CIFAR-10 or CIFAR-100 in either published version, or as train/CLASS and test/CLASS folders of pictures.

    A tenth of each training class chooses the epoch: 45,000 and 5,000 of the whole set.
    """

    source: str = "cifar"
    root: str = "data/cifar10"  # folder of the data set
    classes: int = 10  # 10 or 100
    split_seed: int = 0  # of the validation samples

    def load(self) -> Samples:
        train, test = self._published()
        return joined([train, test])

    def build(self) -> VisionSplits:
        published, test = self._published()
        sizes = by_share(published.labels, CIFAR_VALID_SHARE, self.classes)
        train, valid = stratified(published.labels, sizes, self.split_seed)
        return VisionSplits(published.select(train), published.select(valid), test)

    def _published(self) -> tuple[Samples, Samples]:
        if self.classes not in (10, 100):
            raise ValueError(f"data.classes={self.classes}; CIFAR has 10 or 100")
        root = existing(self.root, "cifar")
        if folder := cifar_folder(root, self.classes):
            return read_cifar(folder, self.classes, "train"), read_cifar(folder, self.classes, "test")
        train, test = train_and_test(root, ("test",), WHERE["cifar"])
        if len(train.class_names) != self.classes:
            raise ValueError(
                f"{root} holds {len(train.class_names)} classes, data.classes is {self.classes}; set it so"
            )
        return train, test


@dataclass(kw_only=True)
class ImageFoldersConfig:
    """Pictures as train/CLASS and test/CLASS (or val/CLASS, as ImageNet has it: the published val is the test set),
    or in tar files, train/*.tar and test/*.tar (`vision.datasets.tar_shards`).

    valid_per_class: how many of each training class choose the epoch; fewer where that would be more than half.
    """

    source: str = "images"
    root: str = "data/imagenet"  # folder with train/CLASS and test/CLASS or val/CLASS
    valid_per_class: int = 50
    split_seed: int = 0  # of the validation samples
    TESTS: ClassVar[tuple[str, ...]] = ("test", "val")

    def load(self) -> Samples:
        return load_pictures(Path(self.root))

    def build(self) -> VisionSplits:
        published, test = train_and_test(existing(self.root, "imagenet"), self.TESTS, WHERE["imagenet"])
        if self.valid_per_class < 1:
            raise ValueError(f"data.valid_per_class must be at least 1, got {self.valid_per_class}; use 50")
        sizes = np.minimum(self.valid_per_class, published.counts() // 2)
        train, valid = stratified(published.labels, sizes, self.split_seed)
        return VisionSplits(published.select(train), published.select(valid), test)


def existing(root: str, kind: str) -> Path:
    """The folder. Raises FileNotFoundError with where to get what belongs there."""
    if not Path(root).is_dir():
        raise FileNotFoundError(f"no folder {root}; {WHERE[kind]}, or give data.root=FOLDER")
    return Path(root)


def mnist_train_and_test(root: Path) -> tuple[Samples, Samples]:
    """Both splits of MNIST. Raises ValueError where their pictures have different sizes."""
    train, test = read_mnist(root, "train"), read_mnist(root, "test")
    of_train, of_test = (split.content[0].shape for split in (train, test))
    if of_train != of_test:
        raise ValueError(f"{root}: pictures of {of_train} to train on, of {of_test} to test; fetch all files again")
    return train, test


def train_and_test(root: Path, tests: tuple[str, ...], where: str) -> tuple[Samples, Samples]:
    """root/train and the first of root/`tests`, with the classes of train."""
    test = next((root / name for name in tests if (root / name).is_dir()), None)
    if not (root / "train").is_dir() or test is None:
        raise FileNotFoundError(f"no train and {' or '.join(tests)} in {root}; {where}")
    say_unused(root, [root / "train", test])
    train = pictures_in(root / "train")
    return train, pictures_in(test, train.class_names)


def pictures_in(folder: Path, class_names: Sequence[str] | None = None) -> Samples:
    """The pictures in a folder of tar files, or of class folders. Raises ValueError where both are there."""
    shards = shards_in(folder)
    if shards and class_folders(folder):
        raise ValueError(f"{folder} holds tar files ({shards[0].name}) and folders of pictures; keep one of the two")
    return read_shards(folder, class_names) if shards else read_class_folders(folder, class_names)


def say_unused(root: Path, used: Sequence[Path]) -> None:
    """Warn of folders beside the `used` ones that hold pictures, in folders of classes or not."""
    beside = [f for f in sorted(root.iterdir()) if f.is_dir() and f not in used and not f.name.startswith(".")]
    unused = [f.name for f in beside if any(p.suffix.lower() in SUFFIXES for p in chain(f.glob("*"), f.glob("*/*")))]
    if unused:
        shown, names = ", ".join(unused[:5]), " and ".join(f.name for f in used)
        log.warning("%s: the pictures in %d folders beside %s are left out: %s", root, len(unused), names, shown)


def load_pictures(root: Path) -> Samples:
    """All pictures at `root`, whatever the layout: class folders, split/class folders, CIFAR or MNIST files.

    Raises FileNotFoundError for a missing folder, ValueError for one that holds none of these.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"no folder {root}; give data.root=FOLDER of pictures")
    if has_mnist(root):
        return joined(mnist_train_and_test(root))
    for n_classes in (10, 100):
        if folder := cifar_folder(root, n_classes):
            return joined([read_cifar(folder, n_classes, split) for split in ("train", "test")])
    splits = [root / name for name in ("train", "valid", "val", "test") if (root / name).is_dir()]
    nested = [split for split in splits if class_folders(split) or shards_in(split)]
    if not nested:
        return pictures_in(root)
    say_unused(root, nested)
    if shards := [split for split in nested if shards_in(split)]:
        names = pictures_in(shards[0]).class_names
    else:
        names = tuple(sorted({folder.name for split in nested for folder in class_folders(split)}))
    return joined([pictures_in(split, names) for split in nested])
