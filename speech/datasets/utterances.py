"""Spoken clips as waveforms: what every source of recordings returns, and the split by speaker.

Keyword recognisers look far better on voices they have heard; a split that puts one speaker on both sides measures the
wrong thing. So the splits made here are by speaker and prove that no speaker is on two sides; a published split that
shares speakers can be asked for them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Generic, NamedTuple, Protocol

import numpy as np

from spikeloom.speech.datasets.audio import n_samples, read_audio
from spikeloom.speech.datasets.clips import C, Clips, LazySequence


class AudioFiles(LazySequence[np.ndarray]):
    """Recordings as float32 `[samples]` at `sample_rate_hz`, read when indexed (errors: `audio.read_audio`)."""

    def __init__(self, paths: Sequence[str], sample_rate_hz: int) -> None:
        self.paths = list(paths)
        self.sample_rate_hz = sample_rate_hz

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> np.ndarray:
        return read_audio(self.paths[index], self.sample_rate_hz)

    def n_samples(self, index: int) -> int:
        """Samples of file `index` after resampling, from its header."""
        return n_samples(self.paths[index], self.sample_rate_hz)


@dataclass(frozen=True, kw_only=True)
class Utterances(Clips[np.ndarray]):
    """Labelled clips of one sample rate.

    waveforms: float32 `[samples]` each, lengths differ; a `LazySequence` reads and checks a clip when it is indexed, a
    list is checked here: `ValueError` names the clips that are empty or not finite. Other fields and errors: `Clips`.
    """

    CONTENT: ClassVar[str] = "waveforms"

    waveforms: Sequence[np.ndarray]
    sample_rate_hz: int

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.waveforms, LazySequence):
            return
        bad = [n for n, w in zip(self.names, self.waveforms, strict=True) if len(w) == 0 or not np.isfinite(w).all()]
        if bad:
            shown = ", ".join(bad[:5])
            raise ValueError(f"{len(bad)} clips are empty or hold NaN/infinity: {shown}; repair or remove them")

    @property
    def n_samples(self) -> np.ndarray:
        """int64 `[n]`: length of every clip in samples; of files on disk only the headers are read."""
        return np.fromiter((self._n_samples(i) for i in range(len(self))), dtype=np.int64)

    def _n_samples(self, index: int) -> int:
        if isinstance(self.waveforms, LazySequence):
            sequence, position = self.waveforms.locate(index)
            if isinstance(sequence, AudioFiles):
                return sequence.n_samples(position)
        return len(self.waveforms[index])


class SpeechSplits(NamedTuple, Generic[C]):
    """Three sets of clips, waveforms or spikes. They share no speaker unless a published split does."""

    train: C
    valid: C
    test: C

    def shared_speakers(self) -> list[str]:
        """Speakers of the test clips who are heard in training too."""
        return sorted(set(self.train.speaker_names()) & set(self.test.speaker_names()))


class SpeechSource(Protocol):
    """What a data module needs of a source's configuration."""

    def build(self) -> SpeechSplits: ...


def split_by_speaker(utterances: C, *, test_speakers: Sequence[str], valid_speakers: Sequence[str]) -> SpeechSplits[C]:
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


def hold_out_one_speaker(
    utterances: C, *, test_speaker: str, valid_speaker: str, valid_fraction: float, seed: int
) -> SpeechSplits[C]:
    """One speaker for test, one for validation, drawn by `seed` where the name is empty, and the rest for training.

    With valid_fraction > 0 no voice is spent on validation: see `split_off_clips`. Raises `ValueError` as
    `split_by_speaker`, and for fewer speakers than a split needs.
    """
    test, valid = test_speaker, valid_speaker
    speakers = utterances.speaker_names()
    if valid_fraction:
        test = test or choose_speakers(speakers, 1, seed)[0]
        return split_off_clips(utterances, test, valid_fraction, seed)
    if not test:
        test = choose_speakers([s for s in speakers if s != valid], 1, seed)[0]
    if not valid:
        others = [s for s in speakers if s != test]
        if not others:
            raise ValueError(f"got clips of one speaker ({test}); use at least three for a split by speaker")
        valid = choose_speakers(others, 1, seed)[0]
    return split_by_speaker(utterances, test_speakers=[test], valid_speakers=[valid])


def split_off_clips(utterances: C, test_speaker: str, valid_fraction: float, seed: int) -> SpeechSplits[C]:
    """Test: all clips of one speaker. Validation: a random share of the other speakers' clips. Training: the rest."""
    if not 0 < valid_fraction < 1:
        raise ValueError(f"valid_fraction must lie in (0, 1), got {valid_fraction}; use 0.1")
    test = utterances.of_speakers([test_speaker])
    others = [i for i, speaker in enumerate(utterances.speakers) if speaker != test_speaker]
    order = np.random.default_rng(seed).permutation(others)
    n_valid = round(valid_fraction * len(others))
    if not 0 < n_valid < len(others):
        raise ValueError(f"valid_fraction {valid_fraction} of {len(others)} clips leaves a set empty; use 0.1")
    valid, train = sorted(order[:n_valid]), sorted(order[n_valid:])
    return SpeechSplits(train=utterances.select(train), valid=utterances.select(valid), test=test)


def choose_speakers(speakers: Sequence[str], n: int, seed: int) -> list[str]:
    """`n` of `speakers`, drawn without replacement by `seed`; the order in which they are given does not matter."""
    if n > len(speakers):
        raise ValueError(f"got {len(speakers)} speakers to hold {n} out of; use a smaller number")
    order = np.random.default_rng(seed).permutation(len(speakers))
    pool = sorted(speakers)
    return [pool[i] for i in order[:n]]
