"""Does what a decoder writes depend on which sentence was read? A permutation test whose unit is the sentence.

Null: given reader, task and the length of the reference (words, characters), the output is independent of the text.
Readers of one sentence agree without any EEG content, so rows are never permuted: one permutation of the sentences
serves all readers and seeds. For outputs o, sentences i, j (n unique ones), word counts c and weights w:

    M[o,j]  = sum_t w_t min(c_o, c_j) / sqrt(sum_t w_t c_o  sum_t w_t c_j)      kernels: w = 1 (flat), w = idf
    M      <- M (I - X pinv(X)),  X per task: 1, ln n_w, (ln n_w)^2, ln(n_c / n_w)     what length alone predicts
    W[i,j]  = mean of M[o,j] over the rows of sentence i
    D       = W centred by rows and columns within strata of task and length
    T(q)    = max over kernels of  sum_i D[i,q(i)] / sqrt(sum_i D[i,q(i)]^2)     q: a permutation within strata
    p       = (1 + #{T(q) >= T(id)}) / (1 + n_permutations)

A difference of raw scores between EEG and noise is no test of content: it rejects in up to .99 of null runs. This test
alone cannot see teacher forcing, which hands the decoder the reference; `difference_permutation`, the same statistic on
W of the EEG minus W of the noise decoder, can. The headline is the larger of the two p.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from itertools import groupby
from typing import Any

import numpy as np
from scipy import sparse

from spikeloom.bci.evaluation.decodings import Decodings
from spikeloom.bci.evaluation.tokens import key_of, n_words

Similarity = Callable[[Sequence[str], Sequence[str]], np.ndarray]  # outputs [m], sentences [n] -> [m, n], higher fits
KERNELS = ("flat", "idf")
SMALLEST_STRATUM = 5  # sentences
ROUNDING = 1e-9  # differences below it are those of floating point


@dataclass(frozen=True, kw_only=True)
class Sentences:
    """The n unique test sentences, sorted by normalised text (`keys`), with one text each as shown and the task each
    belongs to: the first by name where it was read in several. `of_row`: int64 [rows], the sentence of each row."""

    keys: tuple[str, ...]
    texts: tuple[str, ...]
    tasks: tuple[str, ...]
    of_row: np.ndarray

    @classmethod
    @lru_cache(maxsize=8)  # every level of one decoder asks for the same
    def of(cls, decodings: Decodings) -> "Sentences":
        """The sentences that the rows of `decodings` read. Raises ValueError for fewer than two."""
        row_keys = [key_of(text) for text in decodings.references]
        rows = sorted(zip(row_keys, decodings.tasks, decodings.references, strict=True))
        first = {key: next(group) for key, group in groupby(rows, key=lambda row: row[0])}
        if len(first) < 2:
            raise ValueError(f"got {len(first)} distinct reference; use at least two, to tell them apart")
        place = {key: i for i, key in enumerate(first)}
        return cls(
            keys=tuple(first),
            texts=tuple(text for _, _, text in first.values()),
            tasks=tuple(task for _, task, _ in first.values()),
            of_row=np.array([place[key] for key in row_keys]),
        )

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def n_words(self) -> np.ndarray:
        """int64 [n], as `bci.evaluation.tokens` counts them."""
        return np.array([n_words(text) for text in self.texts])

    @property
    def n_chars(self) -> np.ndarray:
        """int64 [n]."""
        return np.array([len(text) for text in self.texts])

    @cached_property
    def strata(self) -> list[np.ndarray]:
        """Indices of the sentences of each stratum: within a task, neighbours in length merged until there are
        `SMALLEST_STRATUM`; a shorter tail joins the last stratum."""
        tasks, n_words = np.array(self.tasks), self.n_words
        found: list[np.ndarray] = []
        for task in sorted(set(self.tasks)):
            in_task: list[np.ndarray] = []
            pending = np.zeros(0, np.int64)
            for length in np.unique(n_words[tasks == task]):
                pending = np.append(pending, np.flatnonzero((tasks == task) & (n_words == length)))
                if len(pending) >= SMALLEST_STRATUM:
                    in_task.append(pending)
                    pending = np.zeros(0, np.int64)
            if len(pending) and in_task:
                in_task[-1] = np.append(in_task[-1], pending)
            elif len(pending):
                in_task.append(pending)
            found += in_task
        return found

    def length_space(self) -> np.ndarray:
        """X, float64 [n, 4 tasks]: constant, ln n_w, (ln n_w)^2, ln(n_c / n_w), the last three centred in the task."""
        ln_words, ln_chars = np.log(self.n_words), np.log(self.n_chars / self.n_words)
        columns = []  # float64 [n]
        for task in sorted(set(self.tasks)):
            inside = np.array(self.tasks) == task
            columns.append(inside.astype(float))
            columns += [np.where(inside, x - x[inside].mean(), 0.0) for x in (ln_words, ln_words**2, ln_chars)]
        return np.stack(columns, axis=1)

    def without_length(self, scores: np.ndarray) -> np.ndarray:
        """`scores` [rows, n] over the sentences, without what a smooth function of length predicts in each task."""
        x = self.length_space()
        return np.asarray(scores - (scores @ x) @ np.linalg.pinv(x, rcond=1e-8))

    def averaging(self, column_of_row: np.ndarray, n_columns: int) -> sparse.csr_array:
        """[n, n_columns]: times scores of the columns, the mean over the rows of each sentence, where row r has the
        scores of column `column_of_row[r]`."""
        per_row = 1 / np.bincount(self.of_row, minlength=len(self))[self.of_row]
        return sparse.csr_array((per_row, (self.of_row, column_of_row)), shape=(len(self), n_columns))


class WordWeights:
    """idf of the train sentences: w_t = max(0, ln((N + 1) / (df_t + 1))), over their N distinct normalised texts."""

    def __init__(self, train_texts: Sequence[str]) -> None:
        keys = {key_of(text) for text in train_texts}
        if not keys:
            raise ValueError("got no train sentences to weigh words by; give those the decoder was trained on")
        self.n = len(keys)
        self.frequency = Counter(word for key in keys for word in set(key.split()))

    def __call__(self, words: Sequence[str]) -> np.ndarray:
        """float64 [len(words)]."""
        df = np.array([self.frequency[word] for word in words], dtype=float)
        return np.maximum(0.0, np.log((self.n + 1) / (df + 1)))


def kernels(outputs: Sequence[str], sentences: Sentences, weights: WordWeights) -> dict[str, np.ndarray]:
    """M [len(outputs), n] for each of KERNELS, residualised for length. `outputs` may be distinct texts or rows."""
    terms: dict[
        tuple[str, int], int
    ] = {}  # (word, k) stands for the k-th occurrence: min of counts is an inner product
    said, read = (occurrences([key.split() for key in keys], terms) for keys in (map(key_of, outputs), sentences.keys))
    idf = weights([word for word, _ in terms])
    found = {}
    for name, weight in (("flat", np.ones(len(terms))), ("idf", idf)):
        shape = (len(outputs), len(terms)), (len(sentences), len(terms))
        o, j = (sparse.csr_array((weight[c], c, starts), s) for (c, starts), s in zip((said, read), shape, strict=True))
        present = sparse.csr_array((np.ones(len(read[0])), *read), shape[1])
        norms = np.sqrt(np.outer(o.sum(1), j.sum(1)))
        overlap = (o @ present.T).toarray()
        found[name] = sentences.without_length(np.divide(overlap, norms, out=np.zeros_like(overlap), where=norms > 0))
    return found


def occurrences(texts: Sequence[Sequence[str]], terms: dict[tuple[str, int], int]) -> tuple[np.ndarray, np.ndarray]:
    """Column numbers and row starts of a compressed matrix of (word, k) in words of `texts`; new terms are added to
    `terms`."""
    columns, starts = [], [0]  # int
    for words in texts:
        seen: Counter[str] = Counter()
        for word in words:
            columns.append(terms.setdefault((word, seen[word]), len(terms)))
            seen[word] += 1
        starts.append(len(columns))
    return np.array(columns, np.int64), np.array(starts, np.int64)


def centred(w: np.ndarray, strata: Sequence[np.ndarray]) -> np.ndarray:
    """D [n, n]: `w` without the means of its rows and columns within each stratum; 0 outside and where only rounding
    is left."""
    d = np.zeros_like(w)
    for g in strata:
        block = w[np.ix_(g, g)]
        d[np.ix_(g, g)] = block - block.mean(1, keepdims=True) - block.mean(0) + block.mean()
    return np.where(np.abs(d) < ROUNDING, 0.0, d)


def studentised(d: np.ndarray, q: np.ndarray) -> np.ndarray:
    """T_k [P] of `d` [n, n] for the permutations `q` [P, n]; 0 where nothing varies."""
    values = d[np.arange(d.shape[0]), q]
    spread = np.sqrt((values**2).sum(1))
    return np.divide(values.sum(1), spread, out=np.zeros(len(q)), where=spread > 0)


@dataclass(frozen=True, kw_only=True)
class PermutationTest:
    """p and the statistic it ranks: T, the largest of `by_kernel`."""

    p: float
    statistic: float
    by_kernel: dict[str, float]
    n_sentences: int
    n_strata: int
    n_permutations: int

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def permutation_test(
    w: dict[str, np.ndarray], strata: Sequence[np.ndarray], n_permutations: int = 999, seed: int = 0
) -> PermutationTest:
    """Steps from W [n, n] of one or several kernels to p. Raises ValueError for fewer than 19 permutations, with which
    p < .05 could never be reached."""
    if n_permutations < 19:
        raise ValueError(f"n_permutations={n_permutations} cannot reach p <= .05; use 999")
    n = len(next(iter(w.values())))
    rng = np.random.default_rng(seed)
    q = np.tile(np.arange(n), (1 + n_permutations, 1))  # the first is the identity
    for g in strata:
        q[1:, g] = rng.permuted(np.tile(g, (n_permutations, 1)), axis=1)
    t = {name: studentised(centred(scores, strata), q) for name, scores in w.items()}
    largest = np.max(list(t.values()), axis=0)
    return PermutationTest(
        p=float((1 + (largest[1:] >= largest[0] - ROUNDING).sum()) / (1 + n_permutations)),
        statistic=float(largest[0]),
        by_kernel={name: float(values[0]) for name, values in t.items()},
        n_sentences=n,
        n_strata=len(strata),
        n_permutations=n_permutations,
    )


def sentence_permutation(
    decodings: Decodings, weights: WordWeights, n_permutations: int = 999, seed: int = 0
) -> PermutationTest:
    """p_eeg: whether the outputs name their own sentences better than others of the same task and length."""
    sentences = Sentences.of(decodings)
    return permutation_test(mean_kernels(decodings, weights), sentences.strata, n_permutations, seed)


@lru_cache(maxsize=8)
def distinct_kernels(decodings: Decodings, weights: WordWeights) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Which distinct output each row wrote, int64 [rows], and M [distinct outputs, n] of each kernel."""
    distinct = {text: i for i, text in enumerate(dict.fromkeys(decodings.outputs))}
    of_row = np.array([distinct[text] for text in decodings.outputs])
    return of_row, kernels(list(distinct), Sentences.of(decodings), weights)


def mean_kernels(decodings: Decodings, weights: WordWeights) -> dict[str, np.ndarray]:
    """W [n, n] of each kernel; every distinct output is compared once."""
    of_row, found = distinct_kernels(decodings, weights)
    mean = Sentences.of(decodings).averaging(of_row, len(found["idf"]))
    return {name: mean @ m for name, m in found.items()}


def level_permutation(
    decodings: Decodings, similarity: Similarity, n_permutations: int = 999, seed: int = 0
) -> PermutationTest:
    """The same test with another similarity of texts in place of word overlap, such as characters or meaning."""
    sentences = Sentences.of(decodings)
    return permutation_test(
        {"similarity": mean_similarity(decodings, sentences, similarity)}, sentences.strata, n_permutations, seed
    )


def level_difference(
    eeg: Decodings, noise: Decodings, similarity: Similarity, n_permutations: int = 999, seed: int = 0
) -> PermutationTest:
    """The same of EEG minus a control, on common trials."""
    eeg, noise = common_trials(eeg, noise)
    sentences = Sentences.of(eeg)
    own = mean_similarity(eeg, sentences, similarity)
    other = mean_similarity(noise, Sentences.of(noise), similarity)
    return permutation_test({"similarity": own - other}, sentences.strata, n_permutations, seed)


def mean_similarity(decodings: Decodings, sentences: Sentences, similarity: Similarity) -> np.ndarray:
    """W [n, n] of a similarity, residualised for length like the kernels of words."""
    distinct = {text: i for i, text in enumerate(dict.fromkeys(decodings.outputs))}
    mean = sentences.averaging(np.array([distinct[text] for text in decodings.outputs]), len(distinct))
    return np.asarray(mean @ sentences.without_length(similarity(list(distinct), list(sentences.texts))))


def difference_permutation(
    eeg: Decodings, noise: Decodings, weights: WordWeights, n_permutations: int = 999, seed: int = 0
) -> PermutationTest:
    """p_diff: the same test on W of `eeg` minus W of `noise`, which is the mean over its seeds, on common trials."""
    eeg, noise = common_trials(eeg, noise)
    sentences = Sentences.of(eeg)
    own, other = mean_kernels(eeg, weights), mean_kernels(noise, weights)
    return permutation_test({k: own[k] - other[k] for k in KERNELS}, sentences.strata, n_permutations, seed)


def trials(decodings: Decodings) -> list[tuple[str, str, str]]:
    """(subject, task, key of the sentence) of each row; rows of several seeds share theirs."""
    return [
        (s, t, key_of(r)) for s, t, r in zip(decodings.subjects, decodings.tasks, decodings.references, strict=True)
    ]


@lru_cache(maxsize=8)
def common_trials(eeg: Decodings, noise: Decodings) -> tuple[Decodings, Decodings]:
    """The rows of both whose trial every seed of both has, so that a mean over rows is a mean over seeds.

    Raises ValueError when there are none.
    """
    parts: dict[tuple[int, int], set[tuple[str, str, str]]] = {}  # (decoder, seed) -> trials
    for decoder, both in enumerate((eeg, noise)):
        for seed, trial in zip(both.seeds, trials(both), strict=True):
            parts.setdefault((decoder, seed), set()).add(trial)
    shared = set.intersection(*parts.values())
    if not shared:
        raise ValueError(
            "EEG and noise decoder share no trial (subject, task, sentence); score both on the same test rows"
        )
    kept_eeg, kept_noise = (
        both.select(row for row, trial in enumerate(trials(both)) if trial in shared) for both in (eeg, noise)
    )
    return kept_eeg, kept_noise
