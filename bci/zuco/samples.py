"""Sentences as a model reads them: one z-scored vector per fixated word, then the sentence vector, and the text.

    x_w = (GD_w - mean(GD_w)) / (std(GD_w) + 1e-6)      over the 840 values of a token, std unbiased
    sample = [x_1, ..., x_n, x_sentence]                 L = n + 1 tokens, reading order, no [CLS]

Unfixated words are not represented, so the number of tokens is not the number of words. A sentence that cannot give a
whole sample is dropped for one reason (`drop_reason`); the quality table counts them.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from spikeloom.bci.zuco.records import N_FEATURES, Recording, Sentence, Word, is_reference
from spikeloom.bci.zuco.text import corrected, normalise

MEASURE = "GD"  # the duration whose EEG represents a word
EPSILON = 1e-6

# Why a sentence gives no sample; the first that holds is the reason.
DROP_REASONS = (
    "missing", "no_text", "text_mismatch", "gaze", "sentence_length", "sentence_nan", "no_fixation", "word_length",
    "word_nan", "not_finite", "flat", "scale", "level",
)  # fmt: skip
PLAUSIBLE_UV = (0.02, 300.0)  # median band amplitude of a token; ZuCo's lie between 1 and 10
# A row whose amplitude is this far from the median of its recording is dropped, where both limits are passed.
LEVEL_FACTOR, LEVEL_MADS = 5.0, 8.0  # times; robust deviations of the logarithm
LEVEL_ROWS = 8  # least rows of a recording to compare with
LEAST_SHARED = 0.5  # of the words of a row, that its text must hold
LONGEST_MS = 600_000.0  # of the fixations on one word


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """One trial: the EEG of one subject over one sentence.

    eeg: float32 `[L, 840]`, z-scored tokens. words: the text of the word tokens; with `has_sentence_token` the last of
    the L tokens is the sentence. text: the whole sentence, also its unfixated words, misprints corrected; key: the
    text of the file `normalise`d, by which splits are made. n_truncated_words: fixated words cut off.
    """

    recording: Recording
    index: int
    eeg: np.ndarray
    words: tuple[str, ...]
    text: str
    key: str
    has_sentence_token: bool
    n_truncated_words: int = 0


class Batch(NamedTuple):
    """Samples side by side, time first. eeg: float32 `[L, B, 840]`, zero where padded; mask: bool `[L, B]`, True where
    valid; lengths: int64 `[B]`, valid tokens; has_sentence_token: bool `[B]`, the last valid token is the sentence;
    texts, keys, subjects: one string a sample."""

    eeg: Tensor
    mask: Tensor
    lengths: Tensor
    has_sentence_token: Tensor
    texts: tuple[str, ...]
    keys: tuple[str, ...]
    subjects: tuple[str, ...]


def standardise(vectors: np.ndarray) -> np.ndarray:
    """z-score of every row of `[..., n]` over its own values, unbiased std; a constant row becomes zeros."""
    centred = vectors - vectors.mean(axis=-1, keepdims=True)
    # A row is constant when its values are equal: rounding in the mean must not leave anything of it.
    centred[np.ptp(vectors, axis=-1) == 0] = 0
    standardised: np.ndarray = centred / (vectors.std(axis=-1, ddof=1, keepdims=True) + EPSILON)
    return standardised


def drop_reason(sentence: Sentence) -> str | None:
    """Why `sentence` gives no sample, the first of DROP_REASONS that holds, or None when it does. `level`, which takes
    the other rows of a recording, is not looked at here."""
    if sentence.missing:
        return "missing"
    if not normalise(sentence.content):
        return "no_text"
    if not words_fit(sentence):
        return "text_mismatch"
    if not all(gaze_fits(word) for word in sentence.words):
        return "gaze"
    if sentence.eeg is None or len(sentence.eeg) != N_FEATURES:
        return "sentence_length"
    if np.isnan(sentence.eeg).any():
        return "sentence_nan"
    vectors = [word.eeg.get(MEASURE) for word in fixated(sentence)]
    if not vectors:
        return "no_fixation"
    if any(vector is None or len(vector) != N_FEATURES for vector in vectors):
        return "word_length"
    tokens = np.stack([sentence.eeg, *(vector for vector in vectors if vector is not None)])
    if np.isnan(tokens).any():
        return "word_nan"
    if not np.isfinite(tokens).all():
        return "not_finite"
    levels = np.median(np.abs(tokens[:, ~is_reference]), axis=1)
    if not levels.all() or not np.ptp(tokens[:, ~is_reference], axis=1).all():
        return "flat"
    low, high = PLAUSIBLE_UV
    return None if ((levels >= low) & (levels <= high)).all() and (tokens >= 0).all() else "scale"


def level(sentence: Sentence) -> float:
    """Logarithm of the median band amplitude of a row that gives a sample, in uV: the median over its tokens."""
    tokens = [sentence.eeg, *(word.eeg[MEASURE] for word in fixated(sentence))]
    return float(np.log(np.median([np.median(np.abs(t[~is_reference])) for t in tokens if t is not None])))


def unlike_the_rest(levels: Sequence[float]) -> np.ndarray:
    """Which rows of one recording have another `level` than its other rows, such as ten times the amplitude: bool [n].

    A z-score hides a scaled row from a model; it is dropped because whatever scaled it is not known to have spared its
    pattern.
    """
    values = np.asarray(levels, dtype=float)
    if len(values) < LEVEL_ROWS:
        return np.zeros(len(values), dtype=bool)
    distance = np.abs(values - np.median(values))
    deviation = 1.4826 * np.median(distance)  # of a normal distribution, from the median absolute one
    return np.asarray(distance > max(np.log(LEVEL_FACTOR), LEVEL_MADS * deviation))


def words_fit(sentence: Sentence) -> bool:
    """Whether the words of a row are those of its text: at least half of them, each as often as it stands there."""
    words = Counter(normalise(" ".join(word.content for word in sentence.words)).split())
    if not words:
        return True  # punctuation alone says nothing
    shared = words & Counter(normalise(sentence.content).split())
    return shared.total() >= LEAST_SHARED * words.total()


def gaze_fits(word: Word) -> bool:
    """Whether the fixations of a word are those of a reader: whole counts and places, and durations above 0 where it
    was looked at, none where it was not. SFD is only defined for a single fixation."""
    if word.n_fixations < 0 or (word.fixations < 1).any():
        return False
    ms = np.array([ms for name, ms in word.durations_ms.items() if name != "SFD" or word.n_fixations == 1])
    if not word.fixated:
        return not np.nan_to_num(ms, posinf=1.0, neginf=1.0).any()  # files may fill in NaN or 0
    return bool(((ms > 0) & (ms <= LONGEST_MS)).all())


def fixated(sentence: Sentence) -> list[Word]:
    return [word for word in sentence.words if word.fixated]


@dataclass
class SamplesConfig:
    """max_length: most tokens of a sample, the sentence token among them. sentence_token: whether it is appended."""

    max_length: int = 58
    sentence_token: bool = True

    def build(self) -> "Samples":
        return Samples(self)


class Samples:
    """Makes samples of sentences. Raises ValueError when no word fits into `max_length`."""

    def __init__(self, config: SamplesConfig) -> None:
        self.max_length = config.max_length
        self.max_words = config.max_length - config.sentence_token
        self.sentence_token = config.sentence_token
        if self.max_words < 1:
            raise ValueError(f"max_length must leave room for a word, got {config.max_length}; use 58")

    def of(self, sentences: Iterable[Sentence]) -> Iterator[Sample]:
        """The samples of those sentences that give one, in their order."""
        return (self.sample(sentence) for sentence in sentences if drop_reason(sentence) is None)

    def sample(self, sentence: Sentence) -> Sample:
        """Raises ValueError naming the row and the reason when the sentence gives none."""
        reason = drop_reason(sentence)
        if reason is not None or sentence.eeg is None:
            raise ValueError(
                f"sentence {sentence.index} of {sentence.subject} {sentence.task} gives no sample: {reason}; "
                "skip it where drop_reason is not None"
            )
        words = fixated(sentence)
        kept = words[: self.max_words]
        tokens = [word.eeg[MEASURE] for word in kept] + [sentence.eeg] * self.sentence_token
        return Sample(
            recording=sentence.recording,
            index=sentence.index,
            eeg=standardise(np.stack(tokens)).astype(np.float32),
            words=tuple(word.content for word in kept),
            text=corrected(sentence.content),
            key=normalise(sentence.content),
            has_sentence_token=self.sentence_token,
            n_truncated_words=len(words) - len(kept),
        )


def collate(samples: Sequence[Sample], length: int | None = None) -> Batch:
    """A batch padded with zeros to the longest sample, or to `length` tokens.

    Raises ValueError without samples, and when one is longer than `length`.
    """
    if not samples:
        raise ValueError("got no samples to collate; use at least one")
    lengths = torch.tensor([len(sample.eeg) for sample in samples])
    longest = int(lengths.max())
    if length is not None and longest > length:
        raise ValueError(f"a sample has {longest} tokens, got length {length}; use at least {longest}")
    eeg = torch.zeros(length or longest, len(samples), N_FEATURES)
    for b, sample in enumerate(samples):
        eeg[: len(sample.eeg), b] = torch.from_numpy(sample.eeg)
    return Batch(
        eeg=eeg,
        mask=torch.arange(len(eeg))[:, None] < lengths,
        lengths=lengths,
        has_sentence_token=torch.tensor([sample.has_sentence_token for sample in samples]),
        texts=tuple(sample.text for sample in samples),
        keys=tuple(sample.key for sample in samples),
        subjects=tuple(sample.recording.subject for sample in samples),
    )
