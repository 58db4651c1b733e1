"""Labelled recordings of single words, whatever form a recording has: the checks, the selections, and lazy reading.

`utterances.Utterances` holds waveforms, `spike_trains.SpikeTrains` holds events; both are `Clips`. A data
set too large for memory hands in a `LazySequence`, which reads one clip when it is indexed and keeps none.
"""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, Self, TypeVar, overload

import numpy as np

T = TypeVar("T")
C = TypeVar("C", bound="Clips[Any]")


class LazySequence(Sequence[T]):
    """A sequence whose items are read when indexed; a slice is again lazy. Subclasses say how item `index` is read."""

    @abstractmethod
    def read(self, index: int) -> T:
        """Item `index`, 0 <= index < len(self)."""

    def locate(self, index: int) -> "tuple[LazySequence[T], int]":
        """The sequence that reads item `index`, and the item's place in it; nothing is read."""
        return self, index

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> "Selection[T]": ...
    def __getitem__(self, index: int | slice) -> "T | Selection[T]":
        if isinstance(index, slice):
            return Selection(self, np.arange(len(self))[index])
        position = int(index) + len(self) if index < 0 else int(index)
        if not 0 <= position < len(self):
            raise IndexError(f"clip {index} of a sequence of {len(self)}")
        return self.read(position)


class Selection(LazySequence[T]):
    """The items of `source` at `indices`, int64 `[n]`, in that order. A selection of a selection is one selection."""

    source: LazySequence[T]
    indices: np.ndarray

    def __init__(self, source: LazySequence[T], indices: np.ndarray) -> None:
        if isinstance(source, Selection):
            indices = source.indices[indices]
            source = source.source
        self.source = source
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def locate(self, index: int) -> tuple[LazySequence[T], int]:
        return self.source.locate(int(self.indices[index]))

    def read(self, index: int) -> T:
        sequence, position = self.locate(index)
        return sequence.read(position)


class Chain(LazySequence[T]):
    """The items of several lazy sequences, one sequence after the other."""

    def __init__(self, parts: Sequence[Sequence[T]]) -> None:
        self.parts = [part for part in parts if isinstance(part, LazySequence)]
        if len(self.parts) != len(parts):
            raise TypeError("got a part that is no LazySequence; chain lists with +")
        self.ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self.ends[-1])

    def locate(self, index: int) -> tuple[LazySequence[T], int]:
        part = int(np.searchsorted(self.ends, index, side="right"))
        return self.parts[part].locate(index - (int(self.ends[part - 1]) if part else 0))

    def read(self, index: int) -> T:
        sequence, position = self.locate(index)
        return sequence.read(position)


@dataclass(frozen=True, kw_only=True)
class Clips(Generic[T]):
    """Labelled clips without their content, which a subclass adds under the field name `CONTENT`.

    labels: int64 `[n]`, indices into `class_names`; speakers: one name per clip, "" where nobody speaks (background
    noise); names: one per clip. Raises `ValueError` when empty, when the fields disagree in length, when a label is out
    of range, or when fewer than two classes are named.
    """

    CONTENT: ClassVar[str]

    labels: np.ndarray
    speakers: list[str]
    names: list[str]
    class_names: tuple[str, ...]

    def __post_init__(self) -> None:
        sizes = {len(self.content), len(self.labels), len(self.speakers), len(self.names)}
        if sizes == {0}:
            raise ValueError("got no utterances; use a source or a selection that holds at least one clip")
        if len(sizes) != 1:
            raise ValueError(
                f"{self.CONTENT}, labels, speakers, names differ in length: {sorted(sizes)}; give one per clip"
            )
        if len(self.class_names) < 2:
            raise ValueError(f"got the classes {self.class_names}; use a source of two or more")
        if self.labels.min() < 0 or self.labels.max() >= len(self.class_names):
            raise ValueError(
                f"labels span {self.labels.min()}..{self.labels.max()}; use 0..{len(self.class_names) - 1}, the classes"
            )

    @property
    def content(self) -> Sequence[T]:
        """The recordings themselves, one a clip."""
        found: Sequence[T] = getattr(self, self.CONTENT)
        return found

    def __len__(self) -> int:
        return len(self.content)

    def speaker_names(self) -> list[str]:
        """Distinct speakers, sorted."""
        return sorted(set(self.speakers) - {""})

    def select(self, indices: Iterable[int]) -> Self:
        """The clips at `indices`, in that order; class names and indices stay as they are. Reads no clip."""
        chosen = np.fromiter(indices, dtype=np.int64)
        content = self.content
        picked: Any = Selection(content, chosen) if isinstance(content, LazySequence) else [content[i] for i in chosen]
        return replace(
            self,
            labels=self.labels[chosen],
            speakers=[self.speakers[i] for i in chosen],
            names=[self.names[i] for i in chosen],
            **{self.CONTENT: picked},
        )

    def of_speakers(self, speakers: Iterable[str]) -> Self:
        """The clips of `speakers`, in source order. Raises `ValueError` naming the speakers that are absent."""
        wanted = set(speakers)
        absent = sorted(wanted - set(self.speakers))
        if absent:
            present = ", ".join(self.speaker_names())
            raise ValueError(f"no utterances of speaker {', '.join(absent)}; use one of {present}")
        return self.select(i for i, speaker in enumerate(self.speakers) if speaker in wanted)


def concatenate(parts: Sequence[C]) -> C:
    """Several lazily read sets of clips as one, in that order. Raises `ValueError` when they name different classes."""
    first = parts[0]
    for part in parts:
        if part.class_names != first.class_names:
            raise ValueError(
                f"got the classes {part.class_names} beside {first.class_names}; use clips of one data set"
            )
    content: dict[str, Any] = {first.CONTENT: Chain([part.content for part in parts])}
    return replace(
        first,
        labels=np.concatenate([part.labels for part in parts]),
        speakers=[speaker for part in parts for speaker in part.speakers],
        names=[name for part in parts for name in part.names],
        **content,
    )
