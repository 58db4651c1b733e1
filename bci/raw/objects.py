"""A record as MNE objects: `Raw` with the net's montage and what was read as annotations, `Epochs` around fixations.

Annotations: `sentence/INDEX` while it is on the screen, `fixation/INDEX/WORD` while the eyes rest on its word (both
counted from 0). MNE counts in volts, this project in microvolts.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from spikeloom.bci.raw.montage import montage
from spikeloom.bci.raw.record import Record
from spikeloom.bci.raw.sentences import words_looked_at
from spikeloom.bci.zuco.records import CHANNELS, SAMPLING_HZ

if TYPE_CHECKING:
    import mne

UNITS = ("word", "sentence")
GAZE_CHANNELS = {"xpos_left": "eyegaze", "ypos_left": "eyegaze", "pupil_left": "pupil"}


class FixationOnWord(NamedTuple):
    """first, samples: in the record; sentence: row of the result file; word: place in it."""

    first: int
    samples: int
    sentence: int
    word: int
    content: str


def fixations_on_words(record: Record) -> list[FixationOnWord]:
    """Every fixation that counts, in order of time."""
    found = []
    for shown, (places, words) in zip(record.shown, words_looked_at(record), strict=True):
        tokens = shown.content.split()
        for place, word in zip(places.tolist(), words.tolist(), strict=True):
            first, samples = int(record.gaze.first[place]), int(record.gaze.samples[place])
            found.append(FixationOnWord(first, samples, shown.index, word, tokens[word]))
    return found


def onsets(record: Record, unit: str) -> list[tuple[int, int, int, int, str]]:
    """(first sample, samples, sentence, word, text) of every fixation on a word, or of every sentence with word -1."""
    if unit == "word":
        return [(f.first, f.samples, f.sentence, f.word, f.content) for f in fixations_on_words(record)]
    return [(shown.on, shown.off - shown.on, shown.index, -1, shown.content) for shown in record.shown]


def raw_of(record: Record, *, gaze: bool = False) -> "mne.io.RawArray":
    """105 channels of EEG in the order of the features, montage set; gaze: x, y (px) and pupil after them."""
    import mne

    data, names, kinds = record.eeg_uv * 1e-6, list(CHANNELS), ["eeg"] * len(CHANNELS)
    if gaze:
        if record.gaze.trace is None:
            raise ValueError(f"{record.run} has fixations but no gaze trace; leave gaze out")
        data = np.concatenate((data, record.gaze.trace[:, 1:].T))
        names, kinds = names + list(GAZE_CHANNELS), kinds + list(GAZE_CHANNELS.values())
    info = mne.create_info(names, SAMPLING_HZ, kinds)
    info.set_montage(montage(), on_missing="ignore")
    raw = mne.io.RawArray(data, info, verbose="error")
    onset, duration, name = [], [], []
    for shown in record.shown:
        onset.append(shown.on / SAMPLING_HZ)
        duration.append((shown.off - shown.on) / SAMPLING_HZ)
        name.append(f"sentence/{shown.index}")
    for fixation in fixations_on_words(record):
        onset.append(fixation.first / SAMPLING_HZ)
        duration.append(fixation.samples / SAMPLING_HZ)
        name.append(f"fixation/{fixation.sentence}/{fixation.word}")
    raw.set_annotations(mne.Annotations(onset, duration, name))
    return raw


def epochs_of(record: Record, before_s: float = 0.1, after_s: float = 0.5, unit: str = "word") -> "mne.Epochs":
    """One epoch a fixation on a word, named `fixation/INDEX/WORD`, or a sentence, `sentence/INDEX`.

    Args:
        record: a block with gaze.
        before_s, after_s: seconds around the first sample of the fixation; around a sentence's, `after_s` counts from
            the end of the longest one, and shorter ones run on into what was shown next (`duration_s` tells).
        unit: word or sentence.

    Returns epochs whose `metadata` has subject, task, run, sentence, word (-1 of a sentence), content and duration_s;
    those the record cuts off are left out. Raises ValueError when nothing was looked at or shown.
    """
    import mne

    if unit not in UNITS:
        raise ValueError(f"unit={unit} is none of {', '.join(UNITS)}; use word or sentence")
    rows = onsets(record, unit)
    if not rows:
        missing = "fixation on a word" if unit == "word" else "sentence"
        raise ValueError(f"{record.run} holds no {missing}; use a record with gaze and sentences")
    names = [f"fixation/{s}/{w}" if w >= 0 else f"sentence/{s}" for _, _, s, w, _ in rows]
    codes = {name: code for code, name in enumerate(dict.fromkeys(names), 1)}
    events = np.array([(row[0], 0, codes[name]) for row, name in zip(rows, names, strict=True)])
    if unit == "sentence":
        after_s += max(row[1] for row in rows) / SAMPLING_HZ
    last = round((record.n_samples - 1 - events[:, 0].max()) / SAMPLING_HZ * 1000) / 1000
    metadata: dict[str, list[object]] = {
        "subject": [record.recording.subject] * len(rows), "task": [record.recording.task] * len(rows),
        "run": [record.run] * len(rows), "sentence": [row[2] for row in rows], "word": [row[3] for row in rows],
        "content": [row[4] for row in rows], "duration_s": [row[1] / SAMPLING_HZ for row in rows],
    }  # fmt: skip
    epochs = mne.Epochs(
        raw_of(record), events, codes, tmin=-before_s, tmax=after_s, baseline=None, preload=True, verbose="error",
        metadata=_table(metadata), reject_by_annotation=False, event_repeated="error",
    )  # fmt: skip
    if not len(epochs):
        raise ValueError(
            f"{record.run} ends {last:g} s after the last event, sooner than {after_s:g} s; use a shorter after_s"
        )
    return epochs


def _table(columns: dict[str, list[object]]) -> object:
    """A pandas table where pandas is installed; MNE keeps metadata in nothing else."""
    try:
        import pandas as pd
    except ImportError:
        return None
    return pd.DataFrame(columns)
