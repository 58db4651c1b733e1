"""Labelled pictures or event recordings, whatever file they come from: the checks, the selections and the splits.

A picture is uint8 `[H, W]` or `[H, W, 3]`, a recording an array of events (`events.EVENT`). What lies in files
is read when it is indexed and not kept. Splits made here are stratified and depend on a seed alone.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np


class Lazy(Sequence[Any]):
    """A sequence whose items `read(index)` makes when they are asked for; picklable where `read` is."""

    def __init__(self, n: int, read: Callable[[int], Any]) -> None:
        self.n, self.read = n, read

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < self.n:
            raise IndexError(f"item {index} of {self.n}")
        return self.read(int(index))


class Chosen(Sequence[Any]):
    """The items of `source` at `indices`, int64 `[n]`, in that order."""

    source: Sequence[Any]
    indices: np.ndarray

    def __init__(self, source: Sequence[Any], indices: np.ndarray) -> None:
        if isinstance(source, Chosen):
            indices = source.indices[indices]
            source = source.source
        self.source, self.indices = source, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Any) -> Any:
        return self.source[int(self.indices[index])]


@dataclass(frozen=True, kw_only=True)
class Samples:
    """content: one picture or recording each; labels int64 `[n]` into class_names; names: file or number of each.

    full_scale: value of white in a picture. sensor: (height, width) of event recordings. mirrored: class -> class of
    the mirror image, where it is another one. groups: who each sample was recorded with, where that decides its split.
    """

    content: Sequence[Any]
    labels: np.ndarray
    names: Sequence[str]
    class_names: tuple[str, ...]
    full_scale: float = 255.0
    sensor: tuple[int, int] | None = None
    mirrored: tuple[int, ...] | None = None
    groups: Sequence[str] | None = None

    def __post_init__(self) -> None:
        n = len(self.content)
        if not n:
            raise ValueError("a data set without a single sample; give a folder that holds some")
        if self.labels.shape != (n,) or len(self.names) != n:
            raise ValueError(f"{n} samples, but {len(self.labels)} labels and {len(self.names)} names; give one each")
        if self.labels.min() < 0 or self.labels.max() >= len(self.class_names):
            low, high = self.labels.min(), self.labels.max()
            raise ValueError(f"labels {low}..{high} of {len(self.class_names)} classes; count them from 0")

    def __len__(self) -> int:
        return len(self.content)

    def select(self, indices: np.ndarray) -> "Samples":
        """The samples at `indices`, in that order; nothing is read."""
        return replace(
            self, content=Chosen(self.content, indices), labels=self.labels[indices],
            names=[self.names[i] for i in indices],
            groups=None if self.groups is None else [self.groups[i] for i in indices],
        )  # fmt: skip

    def counts(self) -> np.ndarray:
        """Samples of each class, int64 `[C]`."""
        return np.bincount(self.labels, minlength=len(self.class_names))

    def digest(self) -> str:
        """SHA-256 over the names and labels in their order: the same for the same samples, read from any folder."""
        rows = (f"{name}\t{label}" for name, label in zip(self.names, self.labels, strict=True))
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()


class VisionSplits(NamedTuple):
    """Three sets that share no sample."""

    train: Samples
    valid: Samples
    test: Samples


def joined(parts: Sequence[Samples]) -> Samples:
    """The samples of all parts, which share their classes."""
    starts = np.cumsum([0, *map(len, parts)])
    groups = [part.groups for part in parts]
    return replace(
        parts[0], content=Lazy(int(starts[-1]), partial(_of_part, parts, starts)),
        labels=np.concatenate([part.labels for part in parts]),
        names=[name for part in parts for name in part.names],
        groups=None if None in groups else [g for of in groups if of is not None for g in of],
    )  # fmt: skip


def _of_part(parts: Sequence[Samples], starts: np.ndarray, index: int) -> Any:
    part = int(np.searchsorted(starts, index, side="right")) - 1
    return parts[part].content[index - int(starts[part])]


def stratified(labels: np.ndarray, sizes: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of all samples but `sizes` [C] of each class, and of those; drawn by `seed`, each in ascending order.

    Raises ValueError where a class has too few samples to leave one on both sides.
    """
    generator = np.random.default_rng([seed, 0x5EED])
    kept, drawn = [], []
    for label, size in enumerate(sizes):
        of_class = np.flatnonzero(labels == label)
        if len(of_class) and not 0 < size < len(of_class):
            raise ValueError(
                f"class {label} has {len(of_class)} samples, of which {size} cannot be set apart; "
                "use more samples, or another share for validation"
            )
        shuffled = generator.permutation(of_class)
        drawn.append(shuffled[:size])
        kept.append(shuffled[size:])
    return np.sort(np.concatenate(kept)), np.sort(np.concatenate(drawn))


def by_share(labels: np.ndarray, share: float, n_classes: int) -> np.ndarray:
    """How many of each class a `share` is, at least one, int64 `[C]`."""
    counts = np.bincount(labels, minlength=n_classes)
    return np.where(counts > 0, np.maximum(1, np.round(share * counts)), 0).astype(np.int64)


def in_total(labels: np.ndarray, total: int, n_classes: int) -> np.ndarray:
    """How many of each class make `total`, as near to their proportions as whole numbers can be, int64 `[C]`.

    The classes with the largest remainders get one more, the first of equals first. A class that is there gets at least
    one, which in a tiny set may make more than `total`.
    """
    counts = np.bincount(labels, minlength=n_classes)
    exact = counts * total / counts.sum()
    sizes = np.floor(exact).astype(np.int64)
    most = np.argsort(-(exact - sizes), kind="stable")[: total - int(sizes.sum())]
    sizes[most] += 1
    return np.maximum(sizes, counts > 0)
