"""Which of the test sentences fits the EEG best? Ranks in a gallery of unique sentences, with chance known exactly.

Ties share the block of ranks they fill: a constant encoder scores exactly chance, and sorting decides nothing. For a
gallery of G chance is top-k = k/G, MRR = H_G / G, mean rank = (G + 1) / 2.

Raw top-k is above chance without any content, because the number of words read gives the length of the sentence away;
`same_length_rank` compares only sentences of that length, and `retrieval_permutation` tests.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

from spikeloom.bci.evaluation.significance import PermutationTest, Sentences, permutation_test

TOP = (1, 5, 10)


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """Means over queries: share found among the best k, mean reciprocal rank, mean rank (1 is best); and their chance.
    `gallery` is the mean number of candidates, `n_queries` how many queries were evaluated."""

    top: dict[int, float]
    mrr: float
    mean_rank: float
    chance_top: dict[int, float]
    chance_mrr: float
    chance_mean_rank: float
    gallery: float
    n_queries: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def retrieve(scores: np.ndarray, own: np.ndarray, candidates: np.ndarray | None = None) -> Retrieval:
    """Ranks of the own sentence of each query among its candidates.

    scores: [queries, G], higher fits better; own: int [queries], its column; candidates: bool [queries, G], the gallery
    of each query (None: all), always with the own one. Queries without another candidate are left out. Raises
    ValueError for NaN scores, for an own sentence that is no candidate, and when no query is left.
    """
    scores, own = np.asarray(scores, dtype=float), np.asarray(own)
    if np.isnan(scores).any():
        raise ValueError(f"{np.isnan(scores).sum()} scores are NaN; a similarity of every pair is needed")
    candidates = np.ones(scores.shape, dtype=bool) if candidates is None else candidates
    rows = np.arange(len(own))
    if not candidates[rows, own].all():
        raise ValueError("an own sentence is not among the candidates of its query; add it")
    evaluated = candidates.sum(1) > 1
    if not evaluated.any():
        raise ValueError("no query has a second candidate; use a gallery of at least two sentences")
    scores, own, candidates = scores[evaluated], own[evaluated], candidates[evaluated]
    mine = scores[np.arange(len(own)), own][:, None]
    above = ((scores > mine) & candidates).sum(1)
    tied = ((scores == mine) & candidates).sum(1)  # the own one included
    size = candidates.sum(1)
    harmonic = np.concatenate([[0.0], np.cumsum(1 / np.arange(1, scores.shape[1] + 1))])
    return Retrieval(
        top={k: float(np.clip((k - above) / tied, 0, 1).mean()) for k in TOP},
        mrr=float(((harmonic[above + tied] - harmonic[above]) / tied).mean()),
        mean_rank=float((above + (tied + 1) / 2).mean()),
        chance_top={k: float(np.minimum(k / size, 1).mean()) for k in TOP},
        chance_mrr=float((harmonic[size] / size).mean()),
        chance_mean_rank=float(((size + 1) / 2).mean()),
        gallery=float(size.mean()),
        n_queries=len(own),
    )


def same_length(n_words: np.ndarray, own: np.ndarray, *, within: int = 1) -> np.ndarray:
    """bool [queries, G]: sentences of a gallery, `n_words` [G], as long as the own one, +- `within` words."""
    return np.asarray(np.abs(n_words[None] - n_words[own][:, None]) <= within)


def same_length_rank(scores: np.ndarray, own: np.ndarray, n_words: np.ndarray, *, fewest: int = 2) -> float:
    """Mean share of the other sentences of the same length (+- 1 word) that score above the own one, ties half.

    Chance is .5, lower is better. Queries with less than `fewest` others are left out; raises ValueError when none is
    left.
    """
    others = same_length(n_words, own)
    others[np.arange(len(own)), own] = False
    evaluated = others.sum(1) >= fewest
    if not evaluated.any():
        raise ValueError(f"no query has {fewest} other sentences of its length; use a larger gallery")
    mine = scores[np.arange(len(own)), own][:, None]
    above = ((scores > mine) + 0.5 * (scores == mine)) * others
    return float((above.sum(1)[evaluated] / others.sum(1)[evaluated]).mean())


def retrieval_permutation(
    scores: np.ndarray, sentences: Sentences, n_permutations: int = 999, seed: int = 0
) -> PermutationTest:
    """The sentence permutation with one kernel: M[r,j] = rank of sentence j for row r within their task / its size.

    scores: [rows, n], higher fits better; the rows are those of `sentences.of_row`, the columns in its order. The best
    of a gallery ranks last, so its M is 1; ties share their mean rank. Raises ValueError for another shape.
    """
    return permutation_test({"rank": mean_ranks(scores, sentences)}, sentences.strata, n_permutations, seed)


def retrieval_difference(
    eeg: tuple[np.ndarray, Sentences], noise: tuple[np.ndarray, Sentences], n_permutations: int = 999, seed: int = 0
) -> PermutationTest:
    """The same of EEG minus a control, each as (scores, sentences) of the trials both have."""
    w = mean_ranks(*eeg) - mean_ranks(*noise)
    return permutation_test({"rank": w}, eeg[1].strata, n_permutations, seed)


def mean_ranks(scores: np.ndarray, sentences: Sentences) -> np.ndarray:
    """W [n, n] of the kernel above, without what length predicts."""
    if scores.shape != (len(sentences.of_row), len(sentences)):
        raise ValueError(
            f"scores have shape {scores.shape}; use (rows, sentences) = ({len(sentences.of_row)}, {len(sentences)})"
        )
    m = np.zeros(scores.shape)  # a sentence of another task never competes: strata lie within tasks
    gallery = np.array(sentences.tasks)
    for task in set(sentences.tasks):
        columns = np.flatnonzero(gallery == task)
        m[:, columns] = rankdata(scores[:, columns], axis=1) / len(columns)
    rows = np.arange(len(scores))
    return np.asarray(sentences.averaging(rows, len(rows)) @ sentences.without_length(m))
