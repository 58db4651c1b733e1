"""How much more an output shares with its own sentence than chance gives it: the effect size beside the p-value.

For row r with output o_r of sentence i in stratum g (M, W with the idf kernel of `bci.evaluation.significance`):

    excess(r) = M[o_r,i] - mean_{j in g} M[o_r,j] - mean_{i' in g} W[i',i] + mean_g W          0 under the null

The interval of EEG minus noise resamples sentences and subjects together, their weights multiplied; sentences alone
give intervals that are too short.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from spikeloom.bci.evaluation.decodings import Decodings
from spikeloom.bci.evaluation.significance import (
    ROUNDING,
    Sentences,
    WordWeights,
    common_trials,
    distinct_kernels,
    mean_kernels,
)


@dataclass(frozen=True, kw_only=True)
class Excess:
    """Mean excess of EEG minus noise with its percentile interval, each decoder's own mean, and the mean difference of
    each subject. In units of the overlap kernel, where 1 is a text met with itself."""

    difference: float
    low: float
    high: float
    level: float
    eeg: float
    noise: float
    by_subject: dict[str, float]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def row_excess(decodings: Decodings, weights: WordWeights) -> np.ndarray:
    """float64 [rows], as in the equation above; differences of rounding only are 0."""
    sentences = Sentences.of(decodings)
    own = sentences.of_row
    output, found = distinct_kernels(decodings, weights)
    m, w = found["idf"], mean_kernels(decodings, weights)["idf"]
    row_means, column_means = np.empty_like(m), np.empty(len(sentences))  # over the stratum of a column
    for g in sentences.strata:
        row_means[:, g] = m[:, g].mean(1, keepdims=True)
        block = w[np.ix_(g, g)]
        column_means[g] = block.mean(0) - block.mean()
    excess = m[output, own] - row_means[output, own] - column_means[own]
    return np.where(np.abs(excess) < ROUNDING, 0.0, excess)


def excess(
    eeg: Decodings, noise: Decodings, weights: WordWeights, *, n_draws: int = 2000, level: float = 0.95, seed: int = 0
) -> Excess:
    """EEG minus noise on the trials both have, seeds averaged within a trial. Raises ValueError for a level outside
    (0, 1)."""
    if not 0 < level < 1:
        raise ValueError(f"level={level} must be in (0, 1), for example 0.95")
    eeg, noise = common_trials(eeg, noise)
    subjects = sorted(set(eeg.subjects))
    sums, counts = _cells(eeg, weights, subjects)
    noise_sums, noise_counts = _cells(noise, weights, subjects)
    read = counts > 0
    difference = np.zeros_like(sums)  # [subjects, n], 0 where nothing was read
    difference[read] = sums[read] / counts[read] - noise_sums[read] / noise_counts[read]
    draws = two_way_bootstrap(difference, read, n_draws, seed)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Excess(
        difference=float(difference.sum() / read.sum()),
        low=float(low),
        high=float(high),
        level=level,
        eeg=float((sums[read] / counts[read]).mean()),
        noise=float((noise_sums[read] / noise_counts[read]).mean()),
        by_subject={name: float(difference[a].sum() / read[a].sum()) for a, name in enumerate(subjects)},
    )


def own_excess(
    decodings: Decodings, weights: WordWeights, *, n_draws: int = 2000, level: float = 0.95, seed: int = 0
) -> tuple[float, float, float]:
    """Mean excess of one decoder, seeds averaged within a trial, and its interval: (mean, low, high)."""
    subjects = sorted(set(decodings.subjects))
    sums, counts = _cells(decodings, weights, subjects)
    read = counts > 0
    values = np.divide(sums, counts, out=np.zeros_like(sums), where=read)
    draws = two_way_bootstrap(values, read, n_draws, seed)
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    mean = float(values.sum() / read.sum())
    return mean, min(float(low), mean), max(float(high), mean)


def _cells(decodings: Decodings, weights: WordWeights, subjects: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Sum of excess and number of rows, both [subjects, n]."""
    sentences = Sentences.of(decodings)
    sums, counts = np.zeros((len(subjects), len(sentences))), np.zeros((len(subjects), len(sentences)))
    where = np.array([subjects.index(name) for name in decodings.subjects]), sentences.of_row
    np.add.at(sums, where, row_excess(decodings, weights))
    np.add.at(counts, where, 1)
    return sums, counts


def two_way_bootstrap(values: np.ndarray, present: np.ndarray, n_draws: int, seed: int) -> np.ndarray:
    """Means of `values` [subjects, sentences] where `present`, under resampled subjects and sentences: [<= n_draws].

    A draw that meets no present cell has no mean and is left out.
    """
    rng = np.random.default_rng(seed)
    n_subjects, n = values.shape
    subjects = rng.multinomial(n_subjects, np.full(n_subjects, 1 / n_subjects), n_draws)
    sentences = rng.multinomial(n, np.full(n, 1 / n), n_draws)
    total = ((subjects @ np.where(present, values, 0.0)) * sentences).sum(1)
    weight = ((subjects @ present.astype(float)) * sentences).sum(1)
    return np.asarray(total[weight > 0] / weight[weight > 0])
