"""A record as MNE objects: `Raw` with the net's montage and what was read as annotations, `Epochs` around fixations.

Annotations: `sentence/INDEX` while it is on the screen, `fixation/INDEX/WORD` while the eyes rest on its word (both
counted from 0). MNE counts in volts, this project in microvolts.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bci.raw.montage import montage
from bci.raw.record import Record
from bci.raw.sentences import words_looked_at
from bci.zuco.records import CHANNELS, SAMPLING_HZ

if TYPE_CHECKING:
    import mne

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


def epochs_of(record: Record, before_s: float = 0.1, after_s: float = 0.5) -> "mne.Epochs":
    """One epoch a fixation on a word, named `fixation/INDEX/WORD`; those the record cuts off are left out.

    Epochs overlap where fixations follow each other sooner. Raises ValueError when nothing was looked at.
    """
    import mne

    fixations = fixations_on_words(record)
    if not fixations:
        raise ValueError(f"{record.run} holds no fixation on a word; use a record with gaze")
    names = [f"fixation/{f.sentence}/{f.word}" for f in fixations]
    codes = {name: code for code, name in enumerate(dict.fromkeys(names), 1)}
    events = np.array([(f.first, 0, codes[name]) for f, name in zip(fixations, names, strict=True)])
    return mne.Epochs(
        raw_of(record), events, codes, tmin=-before_s, tmax=after_s, baseline=None, preload=True, verbose="error"
    )
