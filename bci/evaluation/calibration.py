"""How often the whole pipeline claims content: never more than it should without a signal, and how soon with one.

One run is a new synthetic experiment: readers skip words by their length, each fixated word leaves log amplitudes that
hold `strength` of its content (`spikeloom.bci.synthetic.planted`), and a cheap decoder learns from training sentences

    features of a trial = mean over its tokens of log a [840], and their number
    bag of words ~ ridge regression of the features;   output = the train sentence of nearest centred bag (cosine)

The noise decoder is the same on noise drawn from the very distribution of the EEG without content, trials and their
lengths kept.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.special import expit

from spikeloom.bci.evaluation.decodings import Decodings
from spikeloom.bci.evaluation.significance import WordWeights, sentence_permutation
from spikeloom.bci.synthetic.planted import PlantedSignal
from spikeloom.bci.zuco.corpus import write_sentences
from spikeloom.bci.zuco.gaze import PER_LETTER, draw_reader
from spikeloom.bci.zuco.records import N_FEATURES

STRENGTHS = (0.0, 0.03125, 0.0625, 0.125, 0.25, 1.0)  # of the power curve
RIDGE = 0.1  # of the mean squared feature


class Run(NamedTuple):
    """One synthetic experiment: what both decoders wrote for unseen sentences, and the sentences they learnt from."""

    eeg: Decodings
    noise: Decodings
    train_texts: list[str]


def experiment(strength: float, seed: int, *, n_train: int = 320, n_test: int = 64, n_subjects: int = 6) -> Run:
    """One run with new sentences, readers, signal and noise. Equal arguments give equal runs."""
    texts = write_sentences(n_train + n_test, seed)
    rng = np.random.default_rng((seed, 1))
    texts = [texts[i] for i in rng.permutation(len(texts))]
    words = [text.split() for text in texts]
    letters = [np.array([len(word) for word in sentence]) for sentence in words]
    readers = [draw_reader(np.concatenate(letters), rng) for _ in range(n_subjects)]
    planted = PlantedSignal(strength, seed)

    rows = [(a, i) for a in range(n_subjects) for i in range(len(texts))]
    fixated = [fixated_places(letters[i], readers[a].intercept, rng) for a, i in rows]
    n_tokens = np.array([len(places) for places in fixated])
    content = np.array(
        [
            np.mean([planted.signal(words[i][w]) for w in places], 0)
            for (_, i), places in zip(rows, fixated, strict=True)
        ]
    )
    gains = np.array([planted.gain(a) for a in range(n_subjects)])[[a for a, _ in rows]]

    def decode(signal: np.ndarray) -> Decodings:
        # The mean of n independent tokens of noise has 1/n of its covariance: one draw a trial is enough.
        pooled = gains + signal + planted.noise(len(rows), rng) / np.sqrt(n_tokens)[:, None]
        written = nearest_sentences(np.column_stack([pooled, n_tokens]), np.array([i for _, i in rows]), words, n_train)
        test = [row for row, (_, i) in enumerate(rows) if i >= n_train]
        return Decodings(
            outputs=tuple(texts[k] for k in written),
            references=tuple(texts[rows[row][1]] for row in test),
            subjects=tuple(f"S{rows[row][0]}" for row in test),
            tasks=("reading",) * len(test),
            seeds=(0,) * len(test),
        )

    return Run(decode(content), decode(np.zeros((1, N_FEATURES))), texts[:n_train])


def p_of(run: Run, seed: int, n_permutations: int = 199) -> float:
    """p_eeg of one run."""
    return sentence_permutation(run.eeg, WordWeights(run.train_texts), n_permutations, seed).p


def power_curve(
    n_runs: int, strengths: Sequence[float] = STRENGTHS, first_seed: int = 500, null_runs: int | None = None
) -> dict[str, list[float]]:
    """Share of runs with p < .05 at each strength: `strengths`, `rejected` and `runs`, side by side. null_runs: of
    strength 0, where it should be more than `n_runs`."""
    runs = [null_runs or n_runs if strength == 0 else n_runs for strength in strengths]
    rejected = [
        float(np.mean([p_of(experiment(strength, first_seed + k), k) < 0.05 for k in range(n)]))
        for strength, n in zip(strengths, runs, strict=True)
    ]
    return {"strengths": list(strengths), "rejected": rejected, "runs": [float(n) for n in runs]}


def fixated_places(letters: np.ndarray, intercept: float, rng: np.random.Generator) -> np.ndarray:
    """Places of the words a reader looks at; the longest one where they would look at none."""
    places = np.flatnonzero(rng.random(len(letters)) < expit(intercept + PER_LETTER * letters))
    return places if len(places) else np.array([letters.argmax()])


def nearest_sentences(features: np.ndarray, sentence: np.ndarray, words: list[list[str]], n_train: int) -> np.ndarray:
    """Ridge regression of bags of words, read out as train sentences: int64 [test rows], in order of the rows.

    features: [rows, p]; sentence: int [rows], of which the first `n_train` are train sentences.
    """
    vocabulary = {word: k for k, word in enumerate(sorted({w for s in words[:n_train] for w in s}))}
    bags = np.zeros((n_train, len(vocabulary)))
    for i, text in enumerate(words[:n_train]):
        np.add.at(bags[i], [vocabulary[w] for w in text], 1)
    bags -= bags.mean(0)
    train = sentence < n_train
    x = (features - features[train].mean(0)) / (features[train].std(0) + 1e-6)
    gram = x[train].T @ x[train]
    gram[np.diag_indices_from(gram)] += RIDGE * train.sum()
    said = x[~train] @ cho_solve(cho_factor(gram), x[train].T @ bags[sentence[train]])
    bags /= np.linalg.norm(bags, axis=1, keepdims=True)
    return np.asarray((said @ bags.T).argmax(1))  # the norm of `said` does not change the order
