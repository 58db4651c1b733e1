"""Spoken clips in memory: what every source of recordings returns, and the split by speaker.

Keyword recognisers look far better on voices they have heard; a split that puts one speaker on both sides measures the
wrong thing. So the only split offered here is by speaker, and it proves that no speaker is on two sides.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Utterances:
    """Labelled clips of one sample rate.

    waveforms: float32 `[samples]` each, lengths differ; labels: int64 `[n]`, indices into `class_names`;
    speakers and names: one string per clip. Raises `ValueError` when empty, when the fields disagree in length, when a
    label is out of range, when fewer than two classes are named, or when a waveform is empty or not finite (named).
    """

    waveforms: list[np.ndarray]
    labels: np.ndarray
    speakers: list[str]
    names: list[str]
    class_names: tuple[str, ...]
    sample_rate_hz: int

    def __post_init__(self) -> None:
        sizes = {len(self.waveforms), len(self.labels), len(self.speakers), len(self.names)}
        if sizes == {0}:
            raise ValueError("got no utterances; use a source or a selection that holds at least one clip")
        if len(sizes) != 1:
            raise ValueError(f"waveforms, labels, speakers, names differ in length: {sorted(sizes)}; give one per clip")
        if len(self.class_names) < 2:
            raise ValueError(f"got the classes {self.class_names}; use a source of two or more")
        if self.labels.min() < 0 or self.labels.max() >= len(self.class_names):
            raise ValueError(
                f"labels span {self.labels.min()}..{self.labels.max()}; use 0..{len(self.class_names) - 1}, the classes"
            )
        bad = [n for n, w in zip(self.names, self.waveforms, strict=True) if len(w) == 0 or not np.isfinite(w).all()]
        if bad:
            shown = ", ".join(bad[:5])
            raise ValueError(f"{len(bad)} clips are empty or hold NaN/infinity: {shown}; repair or remove them")

    def __len__(self) -> int:
        return len(self.waveforms)

    @property
    def n_samples(self) -> np.ndarray:
        """int64 `[n]`: length of every clip in samples."""
        return np.array([len(waveform) for waveform in self.waveforms], dtype=np.int64)

    def speaker_names(self) -> list[str]:
        """Distinct speakers, sorted."""
        return sorted(set(self.speakers))

    def select(self, indices: Iterable[int]) -> "Utterances":
        """The clips at `indices`, in that order; class names and indices stay as they are."""
        chosen = [int(index) for index in indices]
        return Utterances(
            waveforms=[self.waveforms[i] for i in chosen],
            labels=self.labels[chosen],
            speakers=[self.speakers[i] for i in chosen],
            names=[self.names[i] for i in chosen],
            class_names=self.class_names,
            sample_rate_hz=self.sample_rate_hz,
        )

    def of_speakers(self, speakers: Iterable[str]) -> "Utterances":
        """The clips of `speakers`, in source order. Raises `ValueError` naming the speakers that are absent."""
        wanted = set(speakers)
        absent = sorted(wanted - set(self.speakers))
        if absent:
            present = ", ".join(self.speaker_names())
            raise ValueError(f"no utterances of speaker {', '.join(absent)}; use one of {present}")
        return self.select(i for i, speaker in enumerate(self.speakers) if speaker in wanted)


class SpeechSplits(NamedTuple):
    """Three sets of clips that share no speaker."""

    train: Utterances
    valid: Utterances
    test: Utterances


class SpeechSource(Protocol):
    """What a data module needs of a source's configuration."""

    def build(self) -> SpeechSplits: ...


def split_by_speaker(
    utterances: Utterances, *, test_speakers: Sequence[str], valid_speakers: Sequence[str]
) -> SpeechSplits:
    """Split by speaker: the named ones for test and validation, all others for training.

    Raises `ValueError` when a named speaker is absent, named on both sides, or when none is left for training.
    """
    both = sorted(set(test_speakers) & set(valid_speakers))
    if both:
        raise ValueError(f"speaker {', '.join(both)} is in test and validation; use different speakers")
    test = utterances.of_speakers(test_speakers)
    valid = utterances.of_speakers(valid_speakers)
    rest = sorted(set(utterances.speakers) - set(test_speakers) - set(valid_speakers))
    if not rest:
        raise ValueError(f"no speaker left for training out of {utterances.speaker_names()}; hold out fewer speakers")
    return SpeechSplits(train=utterances.of_speakers(rest), valid=valid, test=test)


def choose_speakers(speakers: Sequence[str], n: int, seed: int) -> list[str]:
    """`n` of `speakers`, drawn without replacement by `seed`; the order in which they are given does not matter."""
    if n > len(speakers):
        raise ValueError(f"got {len(speakers)} speakers to hold {n} out of; use a smaller number")
    order = np.random.default_rng(seed).permutation(len(speakers))
    pool = sorted(speakers)
    return [pool[i] for i in order[:n]]
