"""The nesting of `sentenceData` in a ZuCo file, apart from how MATLAB stores it: structs, cells, texts, arrays.

`bci.zuco.write_matlab5` and `bci.zuco.write_hdf5` store the same layout as a version 1 and a version 2 file. Not
written, as no record holds them: the one-second windows (`*_sec`) and the saccade statistics. The order of the `*_diff`
columns is our own; the published one is unknown.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spikeloom.bci.zuco.records import (  # fmt: skip
    BANDS,
    CHANNELS,
    LEFT_RIGHT_PAIRS,
    MEASURES,
    N_CHANNELS,
    SAMPLE_MS,
    Sentence,
    Word,
)

VARIABLE = "sentenceData"
EMPTY = np.zeros((0, 0))
NAN = np.full((1, 1), np.nan)
_LEFT, _RIGHT = np.array([[CHANNELS.index(left), CHANNELS.index(right)] for left, right in LEFT_RIGHT_PAIRS]).T

Value = Any  # np.ndarray [rows, columns] | str | Struct | Cell


@dataclass(frozen=True)
class Struct:
    """A 1xN struct array: `elements[n][field]`; every element has the same fields, in one order."""

    elements: Sequence[dict[str, Value]]


@dataclass(frozen=True)
class Cell:
    """A 1xk cell array."""

    values: Sequence[Value]


def sentence_data(sentences: Sequence[Sentence]) -> Struct:
    """The variable of a file. Raises ValueError when there is no sentence or they come from several recordings."""
    recordings = {sentence.recording for sentence in sentences}
    if len(recordings) != 1:
        raise ValueError(f"got sentences of {len(recordings)} recordings; write one recording to a file")
    return Struct([_sentence(sentence) for sentence in sentences])


def _sentence(sentence: Sentence) -> dict[str, Value]:
    gaze = sentence.fixations
    fixations = {
        "x": gaze.x_px, "y": gaze.y_px, "duration": gaze.duration_ms / SAMPLE_MS, "pupilsize": gaze.pupil,
    } if gaze else {}  # fmt: skip
    eeg = np.full(len(BANDS) * N_CHANNELS, np.nan) if sentence.eeg is None else sentence.eeg
    return {
        "content": sentence.content,
        "rawData": NAN if sentence.raw_eeg is None else sentence.raw_eeg.T,
        **_bands("mean", eeg),
        "word": NAN if sentence.missing else Struct(_words(sentence.words)),
        "omissionRate": _scalar(sentence.omission_rate),
        "allFixations": Struct([{name: _row(value) for name, value in fixations.items()}]) if fixations else EMPTY,
        "wordbounds": EMPTY if sentence.word_bounds_px is None else sentence.word_bounds_px,
        **_bands("answer_mean", sentence.answer_eeg),
    }


def _words(words: Sequence[Word]) -> list[dict[str, Value]]:
    """The words of a sentence; what none of them has is no field, what one has is `[]` for the others."""
    found = [_word(word) for word in words]
    present = {name for word in found for name in word}
    return [{name: word.get(name, EMPTY) for name in _WORD_FIELDS if name in present} for word in found]


def _word(word: Word) -> dict[str, Value]:
    fields: dict[str, Value] = {"content": word.content}
    if not word.fixated:
        return fields
    fields |= {
        "fixPositions": _row(word.fixations),
        "nFixations": _scalar(word.n_fixations),
        "meanPupilSize": _scalar(word.pupil),
    }
    if word.raw_eeg is not None:
        fields["rawEEG"] = Cell([NAN if segment is None else segment.T for segment in word.raw_eeg])
    if word.raw_gaze is not None:
        fields["rawET"] = Cell([EMPTY if segment is None else segment.T for segment in word.raw_gaze])
    for measure, duration_ms in word.durations_ms.items():
        fields[measure] = _scalar(duration_ms / SAMPLE_MS)
        fields[f"{measure}_pupilsize"] = _scalar(word.pupils[measure])
        fields |= _bands(measure, word.eeg[measure])
    return fields


def _band_fields(prefix: str) -> list[str]:
    return [f"{prefix}_{band}{kind}" for kind in ("", "_diff") for band in BANDS]


_WORD_FIELDS = (
    "content", "fixPositions", "nFixations", "meanPupilSize", "rawEEG", "rawET",
    *(name for m in MEASURES for name in (m, f"{m}_pupilsize", *_band_fields(m))),
)  # fmt: skip


def _bands(prefix: str, eeg: np.ndarray | None) -> dict[str, Value]:
    """PREFIX_t1 .. PREFIX_g2 (1x105) and their differences between hemispheres (1x48), from `[840]`."""
    if eeg is None:
        return dict.fromkeys(_band_fields(prefix), EMPTY)
    bands = eeg.reshape(len(BANDS), 1, N_CHANNELS)
    return dict(zip(_band_fields(prefix), [*bands, *(bands[..., _LEFT] - bands[..., _RIGHT])], strict=True))


def _scalar(value: float) -> np.ndarray:
    return np.full((1, 1), float(value))


def _row(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, dtype=np.float64).reshape(1, -1)
