"""What a model is shown of a clip: the one interface of all front ends, and a cache of frames bounded in memory.

A front end turns one recording into frames `[T, n_channels]`, one clip at a time, so the frames of a clip do not depend
on the clips that are fetched with it. They are made when first asked for and kept while the budget lasts; after that
they are made again. Nothing is ever thrown out: a shuffled epoch visits every clip once, so any clip is as good as any
other to keep. Frames of recordings that an augmentation changed are of one epoch and are not kept.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch

from spikeloom.accel.common.batches import CacheBudget
from spikeloom.accel.common.changes import changes
from spikeloom.speech.datasets.clips import Clips


class FrontEnd(Protocol):
    """How recordings become frames of `n_channels` numbers, one frame each `step_ms`."""

    @property
    def n_channels(self) -> int: ...

    @property
    def step_ms(self) -> float: ...

    def recordings(self, clips: Clips[Any]) -> Sequence[Any]:
        """What `frames` takes, one for each clip. Raises ValueError, with the remedy, for clips of another kind."""

    def left_out(self, recording: Any) -> str:
        """What `frames` leaves out of a recording, in words; "" for nothing."""

    def frames(self, recording: Any) -> torch.Tensor:
        """`[T, n_channels]`, float32 or whole numbers in a smaller type."""


class FrontEndConfig(Protocol):
    """Settings of a front end; `kind` tells them apart in a file."""

    kind: str

    @property
    def n_channels(self) -> int: ...

    @property
    def step_ms(self) -> float: ...

    @property
    def floor(self) -> float: ...

    def at(self, step_ms: float) -> "FrontEndConfig": ...

    def build(self) -> FrontEnd: ...


# (features [B, T, N], lengths [B], sample ids [B], epoch) -> new features and lengths.
Augment = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, int], tuple[torch.Tensor, torch.Tensor]]

Change = Callable[[Any, int], Any]  # (recording, clip) -> another recording


@runtime_checkable
class RecordingAugment(Protocol):
    """An `Augment` that changes a recording, too, before the front end makes frames of it."""

    def recording(self, recording: Any, sample_id: int, epoch: int) -> Any:
        """The recording as it is in this epoch; a function of (seed, epoch, sample id) and the recording alone."""


class AugmentConfig(Protocol):
    """Settings of an augmentation; `kind` tells them apart in a file."""

    kind: str

    def build(self, features: Any, seed: int) -> Augment:
        """For the features of this front end. Raises ValueError, with the remedy, for features of another kind."""


class CachedFrames:
    """The frames of every clip of a set, made when first asked for. Raises ValueError for clips of another kind."""

    def __init__(self, clips: Clips[Any], front_end: FrontEnd, budget: CacheBudget) -> None:
        self.clips, self.front_end, self.budget = clips, front_end, budget
        self.recordings = front_end.recordings(clips)
        self._kept: dict[int, torch.Tensor] = {}  # clip -> [T, n_channels]

    def __len__(self) -> int:
        return len(self.clips)

    def __getstate__(self) -> dict[str, Any]:
        """Without what is kept: a worker that is started anew makes its own."""
        return {**self.__dict__, "_kept": {}}

    def through(self, front_end: FrontEnd) -> "CachedFrames":
        """The same clips through another front end, within the same budget."""
        return CachedFrames(self.clips, front_end, self.budget)

    def batch(self, clip_ids: Sequence[int], change: Change | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """float32 `[B, T, n_channels]`, T the longest clip and 0 past each length, and int64 lengths `[B]`.

        With `change` the frames are those of the changed recordings; none of them is kept.
        """
        found = [None if change else self._kept.get(i) for i in clip_ids]
        if any(frames is None for frames in found):
            with one_thread():
                found = [
                    self._make(i, change) if frames is None else frames
                    for i, frames in zip(clip_ids, found, strict=True)
                ]
        made = [frames for frames in found if frames is not None]
        lengths = torch.tensor([len(frames) for frames in made])
        features = torch.zeros(len(made), int(lengths.max()), self.front_end.n_channels)
        for row, frames in zip(features, made, strict=True):
            row[: len(frames)] = frames
        return features, lengths

    def _make(self, clip: int, change: Change | None) -> torch.Tensor:
        recording = self.recordings[clip]
        if kind := self.front_end.left_out(recording):
            changes.add(kind, self.clips.names[clip])
        try:
            frames = self.front_end.frames(change(recording, clip) if change else recording)
        except ValueError as error:
            raise ValueError(f"clip {self.clips.names[clip]}: {error}") from error
        if change is None and clip not in self._kept and self.budget.take(frames.nbytes):
            self._kept[clip] = frames
        return frames


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread: a product split over more of them may round differently, as loader workers would show."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
