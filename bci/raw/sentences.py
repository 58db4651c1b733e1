"""From a continuous record to sentences with the features of every word: what the published result files hold.

Fixations between sentence on and off count when they last 100 ms and lie on a word; the list of those is what all
measures (FFD, TRT, GD, GPT, SFD) index. The EEG of a measure is the mean over its fixations, those with artefacts left
out; all of them rejected gives NaN. The recipe of the measures is `spikeloom.bci.raw.fixations`, of the amplitudes
`spikeloom.bci.raw.features`.
"""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from spikeloom.bci.raw.features import piece_amplitudes
from spikeloom.bci.raw.fixations import OFF_WORD, SHORTEST_MS, measure_fixations, words_fixated
from spikeloom.bci.raw.record import Record, Shown
from spikeloom.bci.zuco.records import SAMPLE_MS, Fixations, Sentence, Word

SHORTEST = round(SHORTEST_MS / SAMPLE_MS)  # samples


@dataclass(frozen=True, kw_only=True, eq=False)
class _Look:
    """The fixations of one sentence: all of them, and places of those on words; words `[n]` of the latter."""

    every: np.ndarray
    on_words: np.ndarray
    words: np.ndarray


def sentences_of(record: Record, *, raw: bool = False) -> Iterator[Sentence]:
    """The sentences of a record in the order shown; raw: with the EEG and gaze traces that lie under them."""
    looks = [_look(record, shown) for shown in record.shown]
    pieces = []  # [first, end] of every sentence, then of its fixations on words
    for shown, look in zip(record.shown, looks, strict=True):
        first = record.gaze.first[look.on_words]
        ends = first + record.gaze.samples[look.on_words]
        pieces += [(shown.on, shown.off), *zip(first.tolist(), ends.tolist(), strict=True)]
    amplitudes = piece_amplitudes(record.eeg_uv, np.array(pieces, dtype=np.int64))
    at = 0
    for shown, look in zip(record.shown, looks, strict=True):
        n = len(look.on_words)
        yield _sentence(record, shown, look, amplitudes[at], amplitudes[at + 1 : at + 1 + n], raw)
        at += 1 + n


def words_looked_at(record: Record) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of every sentence shown: places of the fixations on its words in `record.gaze`, and the words, int64 `[n]`."""
    return [(look.on_words, look.words) for look in (_look(record, shown) for shown in record.shown)]


def _look(record: Record, shown: Shown) -> _Look:
    gaze = record.gaze
    every = np.flatnonzero((gaze.first >= shown.on) & (gaze.first + gaze.samples <= shown.off))
    long_enough = every[gaze.samples[every] >= SHORTEST]
    words = words_fixated(gaze.x_px[long_enough], gaze.y_px[long_enough], shown.word_bounds_px)
    return _Look(every=every, on_words=long_enough[words != OFF_WORD], words=words[words != OFF_WORD])


def _sentence(
    record: Record, shown: Shown, look: _Look, whole: np.ndarray, of_fixations: np.ndarray, raw: bool
) -> Sentence:
    tokens = shown.content.split()
    if len(tokens) != len(shown.word_bounds_px):
        raise ValueError(
            f"sentence {shown.index} of {record.run} has {len(tokens)} words and {len(shown.word_bounds_px)} word "
            "bounds; use those of the same result file"
        )
    gaze = record.gaze
    words = tuple(_word(record, look, token, place, of_fixations, raw) for place, token in enumerate(tokens))
    kept = not np.isnan(whole).any()
    return Sentence(
        recording=record.recording,
        index=shown.index,
        content=shown.content,
        words=words,
        eeg=whole,
        omission_rate=float(np.mean([not word.fixated for word in words])),
        word_bounds_px=shown.word_bounds_px,
        fixations=Fixations(
            x_px=gaze.x_px[look.every],
            y_px=gaze.y_px[look.every],
            duration_ms=gaze.samples[look.every] * SAMPLE_MS,
            pupil=gaze.pupil[look.every],
        ),
        raw_eeg=record.eeg_uv[:, shown.on : shown.off].T.copy() if raw and kept else None,
    )


def _word(record: Record, look: _Look, token: str, place: int, of_fixations: np.ndarray, raw: bool) -> Word:
    measures = measure_fixations(look.words, place)
    if not measures:
        return Word(content=token)
    gaze, own = record.gaze, measures["TRT"]
    samples, pupil = gaze.samples[look.on_words], gaze.pupil[look.on_words]
    lost = np.isnan(of_fixations[own]).any(axis=1)
    spans = [slice(int(f), int(f + n)) for f, n in zip(gaze.first[look.on_words[own]], samples[own], strict=True)]
    traces = [None if bad else record.eeg_uv[:, span].T.copy() for span, bad in zip(spans, lost, strict=True)]
    return Word(
        content=token,
        fixations=own + 1,
        n_fixations=len(own),
        pupil=float(pupil[own].mean()),
        durations_ms={m: float(samples[f].sum() * SAMPLE_MS) for m, f in measures.items()},
        pupils={m: float(pupil[f].mean()) for m, f in measures.items()},
        eeg={m: _mean(of_fixations[f]) for m, f in measures.items()},
        n_rejected=int(lost.sum()),
        raw_eeg=tuple(traces) if raw else None,
        raw_gaze=None if not raw or gaze.trace is None else tuple(
            None if bad else gaze.trace[span].copy() for span, bad in zip(spans, lost, strict=True)
        ),
    )  # fmt: skip


def _mean(vectors: np.ndarray) -> np.ndarray:
    """Mean over the rows without NaN; NaN where there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of nothing is NaN, as it should be
        mean: np.ndarray = np.nanmean(vectors, axis=0)
    return mean
