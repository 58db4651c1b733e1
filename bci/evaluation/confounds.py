"""Decoders that use what is real and is not the text: durations of fixations, and the time of a recording.

    gaze     words are looked at for longer or shorter than others of their length, and the EEG holds some of it:
             log ms = e_w + 0.35 noise,  log a = gain + 0.3 noise + leak * F (log ms);  no word is in the EEG
    drift    the EEG of a reader wanders from sentence to sentence, d_t = phi d_{t-1} + sqrt(1 - phi^2) noise; the
             decoder writes the train sentence whose EEG is most alike, one read shortly before or after

Permuted sentences and a noise control let both pass. A decoder of the gaze alone stops the first; only a split into
runs of sentences with margins stops the second. `bci.evaluation.battery` counts.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from spikeloom.bci.evaluation.calibration import bags_of, fixated_places, nearest_sentences
from spikeloom.bci.evaluation.decodings import Decodings
from spikeloom.bci.evaluation.null_worlds import World
from spikeloom.bci.synthetic.planted import SCALE, PlantedSignal, fields
from spikeloom.bci.zuco.corpus import write_sentences
from spikeloom.bci.zuco.gaze import LOG_SIGMA, draw_reader
from spikeloom.bci.zuco.records import N_FEATURES
from spikeloom.bci.zuco.splits import SplitConfig, rows_of_materials
from spikeloom.bci.zuco.text import normalise

N_GAZE = 5  # measures of a fixated word
WORD_SIGMA = 0.3  # of the log duration, between words
LEAK = 5.0  # deviations of the noise that a deviation of log ms moves the EEG: artefacts of the eyes prevail
PHI = 0.9  # of the drift, from one sentence to the next
DRIFT_DIMENSIONS, DRIFT_NOISE = 8, 0.5
N_READERS = 6


class GazeRun(NamedTuple):
    """What the decoder of the EEG wrote, and its controls without EEG by name; `noise` is the one with lengths of other
    trials."""

    eeg: Decodings
    controls: dict[str, Decodings]
    train_texts: list[str]


def gaze_world(seed: int, *, n_train: int = 320, n_test: int = 64, n_subjects: int = N_READERS) -> GazeRun:
    """One draw: new sentences, readers and durations. Equal arguments give equal runs."""
    texts = write_sentences(n_train + n_test, seed)
    rng = np.random.default_rng((seed, 2))
    texts = [texts[i] for i in rng.permutation(len(texts))]
    words = [text.split() for text in texts]
    letters = [np.array([len(word) for word in sentence]) for sentence in words]
    readers = [draw_reader(np.concatenate(letters), rng) for _ in range(n_subjects)]
    effect = {word: _effect(rng) for word in sorted({normalise(w) for sentence in words for w in sentence})}

    rows = [(a, i) for a in range(n_subjects) for i in range(len(texts))]
    subject, sentence = np.array(rows).T
    places = [fixated_places(letters[i], readers[a].intercept, rng) for a, i in rows]
    n_tokens = np.array([len(of) for of in places])
    gaze = np.array([
        np.mean([effect[normalise(words[i][w])] for w in of], 0) for (_, i), of in zip(rows, places, strict=True)
    ])  # fmt: skip
    gaze += LOG_SIGMA * rng.standard_normal(gaze.shape) / np.sqrt(n_tokens)[:, None]

    planted = PlantedSignal(0.0, seed)
    field = fields(N_GAZE, np.random.default_rng((seed, 3))).reshape(N_FEATURES, N_GAZE)
    gains = np.array([planted.gain(a) for a in range(n_subjects)])[subject]

    def noise(n: np.ndarray) -> np.ndarray:
        return gains + planted.noise(len(rows), rng) / np.sqrt(n)[:, None]

    def decode(features: np.ndarray, n: np.ndarray) -> Decodings:
        written = nearest_sentences(np.column_stack([features, n]), sentence, bags_of(words, n_train), n_train)
        test = np.flatnonzero(sentence >= n_train)
        return Decodings(
            outputs=tuple(texts[k] for k in written),
            references=tuple(texts[int(sentence[row])] for row in test),
            subjects=tuple(f"S{subject[row]}" for row in test),
            tasks=("reading",) * len(test),
            seeds=(0,) * len(test),
        )

    other = n_tokens.copy()  # lengths of other trials of the reader
    for a in range(n_subjects):
        other[subject == a] = rng.permutation(n_tokens[subject == a])
    leaked = noise(n_tokens) + SCALE * LEAK / LOG_SIGMA * gaze @ field.T
    return GazeRun(
        eeg=decode(leaked, n_tokens),
        controls={
            "noise": decode(noise(other), other),
            "noise, real lengths": decode(noise(n_tokens), n_tokens),
            "mask only": decode(np.zeros((len(rows), 1)), n_tokens),
            "gaze only": decode(gaze, n_tokens),
        },
        train_texts=texts[:n_train],
    )


def _effect(rng: np.random.Generator) -> np.ndarray:
    """Log durations of one word, [N_GAZE]: half of their variance is shared."""
    return np.asarray(WORD_SIGMA * np.sqrt(0.5) * (rng.standard_normal() + rng.standard_normal(N_GAZE)))


def drift_world(lists: Mapping[str, Sequence[str]], unit: str, seed: int, n_subjects: int = N_READERS) -> World:
    """One draw on the sentences of task lists in their reading order, split by `unit` (key: at random; run)."""
    split = SplitConfig(unit=unit, seed=seed).build(rows_of_materials(lists, dict.fromkeys(lists, 1)))
    rng = np.random.default_rng((seed, 4))
    columns: dict[str, list[str]] = {"outputs": [], "references": [], "subjects": [], "tasks": []}
    for task, texts in lists.items():
        fates = np.array([split.of(text) for text in texts])
        test, train = np.flatnonzero(fates == "test"), np.flatnonzero(fates == "train")
        if not len(test) or not len(train):
            continue
        for a in range(n_subjects):
            drift = _drift(len(texts), rng) + DRIFT_NOISE * rng.standard_normal((len(texts), DRIFT_DIMENSIONS))
            distance = ((drift[test][:, None] - drift[train]) ** 2).sum(2)
            columns["outputs"] += [texts[int(k)] for k in train[distance.argmin(1)]]
            columns["references"] += [texts[int(i)] for i in test]
            columns["subjects"] += [f"S{a}"] * len(test)
            columns["tasks"] += [task] * len(test)
    written = Decodings(
        outputs=tuple(columns["outputs"]), references=tuple(columns["references"]), seeds=(0,) * len(columns["tasks"]),
        subjects=tuple(columns["subjects"]), tasks=tuple(columns["tasks"]),
    )  # fmt: skip
    return World(written, [fate.text for fate in split.keys.values() if fate.split == "train"])


def _drift(n: int, rng: np.random.Generator) -> np.ndarray:
    """[n, DRIFT_DIMENSIONS], of unit variance at every place."""
    steps = rng.standard_normal((n, DRIFT_DIMENSIONS))
    for t in range(1, n):
        steps[t] = PHI * steps[t - 1] + np.sqrt(1 - PHI**2) * steps[t]
    return steps
