"""Sentences as one tidy table of words, as columns: `pandas.DataFrame(word_columns(...))` makes a data frame of them.

Words of missing sentences do not exist; unfixated words do, with NaN durations and None for EEG. A rejected vector
is a vector of NaN, so the two stay apart.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from spikeloom.accel.common.files import write_csv
from spikeloom.bci.zuco.records import MEASURES, Sentence

VALUES = (
    "subject", "version", "task", "sentence", "word", "content", "n_fixations", "n_rejected", "pupil",
    *(f"{measure}_ms" for measure in MEASURES), *(f"{measure}_pupil" for measure in MEASURES),
)  # fmt: skip
ARRAYS = (*(f"{measure}_eeg" for measure in MEASURES), "raw_eeg", "raw_gaze")


def word_columns(sentences: Iterable[Sentence]) -> dict[str, np.ndarray]:
    """One row a word, in reading order; the columns are VALUES and ARRAYS.

    subject, version, task, sentence (row of the file), word (place in the sentence) name the row. pupil, *_ms, *_pupil
    are float64. *_eeg holds float64 `[840]` or None; raw_eeg and raw_gaze hold tuples of one `[L, 105]` or `[L, 4]`
    per fixation, None where they were not read or are not in the file.
    """
    rows = []  # tuple
    for sentence in sentences:
        for place, word in enumerate(sentence.words):
            rows.append((
                *sentence.recording, sentence.index, place, word.content, word.n_fixations, word.n_rejected, word.pupil,
                *(word.durations_ms.get(measure, np.nan) for measure in MEASURES),
                *(word.pupils.get(measure, np.nan) for measure in MEASURES),
                *(word.eeg.get(measure) for measure in MEASURES), word.raw_eeg, word.raw_gaze,
            ))  # fmt: skip
    columns = {name: np.array([row[i] for row in rows]) for i, name in enumerate(VALUES)}
    for i, name in enumerate(ARRAYS, start=len(VALUES)):
        columns[name] = np.empty(len(rows), dtype=object)
        for place, row in enumerate(rows):
            columns[name][place] = row[i]
    return columns


def write_words(path: Path, sentences: Iterable[Sentence]) -> None:
    """The words and their gaze as CSV, without the arrays. Raises ValueError when there is no word."""
    columns = word_columns(sentences)
    rows = list(zip(*(columns[name].tolist() for name in VALUES), strict=True))
    if not rows:
        raise ValueError(f"got no words to write to {path}; use sentences that are not missing")
    write_csv(path, [dict(zip(VALUES, row, strict=True)) for row in rows])
