"""How often the whole pipeline claims content: never more than it should without a signal, and how soon with one.

One run is a new synthetic experiment: readers skip words by their length, each fixated word leaves log amplitudes that
hold `strength` of its content (`spikeloom.bci.synthetic.planted`), and a cheap decoder learns from training sentences

    features of a trial = mean over its tokens of log a [840], and their number
    bag of words ~ ridge regression of the features;   output = the train sentence of nearest centred bag (cosine)

The noise decoder is the same on noise drawn from the very distribution of the EEG without content, trials and their
lengths kept.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.special import expit

from spikeloom.bci.evaluation.decodings import Decodings
from spikeloom.bci.evaluation.significance import WordWeights, sentence_permutation
from spikeloom.bci.synthetic.planted import PlantedSignal
from spikeloom.bci.zuco.corpus import write_sentences
from spikeloom.bci.zuco.gaze import PER_LETTER, draw_reader

STRENGTHS = (0.0, 0.03125, 0.0625, 0.125, 0.25, 1.0)  # of the power curve
RIDGE = 0.1  # of the mean squared feature


class Run(NamedTuple):
    """One synthetic experiment: what both decoders wrote for unseen sentences, and the sentences they learnt from."""

    eeg: Decodings
    noise: Decodings
    train_texts: list[str]


class Experiment:
    """Experiments of one seed, which share sentences, readers, fixations and noise at every strength.

    Args:
        seed: of everything drawn; equal arguments give equal runs.
        n_train, n_test: sentences to learn from, and to decode.
        n_subjects: readers of every sentence.
    """

    def __init__(self, seed: int, *, n_train: int = 320, n_test: int = 64, n_subjects: int = 6) -> None:
        texts = write_sentences(n_train + n_test, seed)
        self._rng = rng = np.random.default_rng((seed, 1))
        self.seed, self.n_train = seed, n_train
        self.texts = texts = [texts[i] for i in rng.permutation(len(texts))]
        self.words = [text.split() for text in texts]
        letters = [np.array([len(word) for word in sentence]) for sentence in self.words]
        readers = [draw_reader(np.concatenate(letters), rng) for _ in range(n_subjects)]
        self._rows = [(a, i) for a in range(n_subjects) for i in range(len(texts))]
        self._fixated = [fixated_places(letters[i], readers[a].intercept, rng) for a, i in self._rows]
        self._n_tokens = np.array([len(places) for places in self._fixated])
        gains = np.array([PlantedSignal(0.0, seed).gain(a) for a in range(n_subjects)])
        self._gains = gains[[a for a, _ in self._rows]]
        self._bags = bags_of(self.words, n_train)
        self._eeg_noise = self._pooled_noise()

    def _pooled_noise(self) -> np.ndarray:
        """Mean noise of each trial, [rows, 840]: that of n independent tokens has 1/n of their covariance."""
        noise = PlantedSignal(0.0, self.seed).noise(len(self._rows), self._rng)
        return noise / np.sqrt(self._n_tokens)[:, None]

    def _content(self, strength: float) -> np.ndarray:
        """Mean signal of the fixated words of each trial, [rows, 840]."""
        planted = PlantedSignal(strength, self.seed)
        place = {word: k for k, word in enumerate(dict.fromkeys(word for text in self.words for word in text))}
        table = np.array([planted.signal(word) for word in place])
        of_sentence = [np.array([place[word] for word in text]) for text in self.words]
        return np.array(
            [table[of_sentence[i][at]].mean(0) for (_, i), at in zip(self._rows, self._fixated, strict=True)]
        )

    def _decode(self, pooled: np.ndarray) -> Decodings:
        features, sentence = np.column_stack([pooled, self._n_tokens]), np.array([i for _, i in self._rows])
        written = nearest_sentences(features, sentence, self._bags, self.n_train)
        test = [(a, i) for a, i in self._rows if i >= self.n_train]
        return Decodings(
            outputs=tuple(self.texts[k] for k in written),
            references=tuple(self.texts[i] for _, i in test),
            subjects=tuple(f"S{a}" for a, _ in test),
            tasks=("reading",) * len(test),
            seeds=(0,) * len(test),
        )

    def eeg(self, strength: float) -> Decodings:
        """What the decoder writes for unseen sentences, from EEG of that strength."""
        return self._decode(self._gains + self._content(strength) + self._eeg_noise)

    @cached_property
    def noise(self) -> Decodings:
        """What the same decoder writes, trained on noise."""
        return self._decode(self._gains + self._pooled_noise())

    @property
    def train_texts(self) -> list[str]:
        """The sentences learnt from."""
        return self.texts[: self.n_train]

    def run(self, strength: float) -> Run:
        """Both decoders."""
        return Run(self.eeg(strength), self.noise, self.train_texts)


def p_of(eeg: Decodings, train_texts: Sequence[str], seed: int, n_permutations: int = 199) -> float:
    """p_eeg of one run."""
    return sentence_permutation(eeg, WordWeights(train_texts), n_permutations, seed).p


def power_curve(
    n_runs: int, strengths: Sequence[float] = STRENGTHS, first_seed: int = 500, null_runs: int | None = None
) -> dict[str, list[float]]:
    """Share of runs with p < .05 at each strength: `strengths`, `rejected` and `runs`, side by side. null_runs: of
    strength 0, where it should be more than `n_runs`."""
    runs = [null_runs or n_runs if strength == 0 else n_runs for strength in strengths]
    below: list[list[bool]] = [[] for _ in strengths]
    for k in range(max(runs)):
        drawn = Experiment(first_seed + k)
        for strength, n, found in zip(strengths, runs, below, strict=True):
            if k < n:
                found.append(p_of(drawn.eeg(strength), drawn.train_texts, k) < 0.05)
    rejected = [float(np.mean(found)) for found in below]
    return {"strengths": list(strengths), "rejected": rejected, "runs": [float(n) for n in runs]}


def fixated_places(letters: np.ndarray, intercept: float, rng: np.random.Generator) -> np.ndarray:
    """Places of the words a reader looks at; the longest one where they would look at none."""
    places = np.flatnonzero(rng.random(len(letters)) < expit(intercept + PER_LETTER * letters))
    return places if len(places) else np.array([letters.argmax()])


def bags_of(words: list[list[str]], n_train: int) -> np.ndarray:
    """Words of each train sentence, less their mean: [n_train, words that occur]."""
    vocabulary = {word: k for k, word in enumerate(sorted({w for s in words[:n_train] for w in s}))}
    bags = np.zeros((n_train, len(vocabulary)))
    for i, text in enumerate(words[:n_train]):
        np.add.at(bags[i], [vocabulary[w] for w in text], 1)
    return bags - bags.mean(0)


def nearest_sentences(features: np.ndarray, sentence: np.ndarray, bags: np.ndarray, n_train: int) -> np.ndarray:
    """Ridge regression of bags of words, read out as train sentences: int64 [test rows], in order of the rows.

    features: [rows, p]; sentence: int [rows], of which the first `n_train` are train sentences; bags: of `bags_of`.
    """
    train = sentence < n_train
    learnt = features[train]
    mean, spread = learnt.mean(0), learnt.std(0) + 1e-6
    x, unseen = (learnt - mean) / spread, (features[~train] - mean) / spread
    gram = x.T @ x
    gram[np.diag_indices_from(gram)] += RIDGE * train.sum()
    said = unseen @ cho_solve(cho_factor(gram), x.T @ bags[sentence[train]])
    # The norm of `said` does not change the order.
    return np.asarray((said @ (bags / np.linalg.norm(bags, axis=1, keepdims=True)).T).argmax(1))
