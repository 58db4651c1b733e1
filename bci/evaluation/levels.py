"""Other levels than words, each as a similarity of texts for the same permutation test, and as figures people know.

    bleu_1       clipped matches / words of the output: BLEU-1 of one sentence without its brevity penalty
    word_edits   1 - edits / the longer of both, over words: what a word error rate counts
    characters   the same over characters: what a character error rate counts
    retrieval    rank of a sentence among all of its task, the output asking: idf overlap of words
    semantic     cosine of sentence vectors (`bci.evaluation.embeddings`)

The brevity penalty compares lengths, and lengths leak: with it, 68 % of null decoders whose outputs are as long as the
sentence read have p < .05. Retrieval shares ranks between ties, so an output that fits all sentences alike scores
exactly chance.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse

from spikeloom.bci.evaluation.embeddings import SentenceEncoder
from spikeloom.bci.evaluation.retrieval import retrieval_difference, retrieval_permutation, retrieve
from spikeloom.bci.evaluation.rows import Decodings
from spikeloom.bci.evaluation.significance import (
    PermutationTest,
    Sentences,
    Similarity,
    WordWeights,
    common_trials,
    distinct_kernels,
    level_difference,
    level_permutation,
    occurrences,
)
from spikeloom.bci.evaluation.tokens import spaced

DEFINITIONS = {
    "bleu_1": "clipped matches / words of the output, no brevity penalty; words between spaces (characters of scripts "
    "without), case and punctuation kept",
    "word_edits": "1 - Levenshtein edits / the longer text, over the same words",
    "characters": "1 - Levenshtein edits / the longer text; runs of white space as one, case and punctuation kept",
    "retrieval": "the output asks among all test sentences by idf overlap of words (lower case, no punctuation, no "
    "stemming), length taken out; top-k and mean reciprocal rank, ties shared; p within task and length",
    "semantic": "cosine of sentence vectors of the encoder named, texts as they stand",
}


def character_similarity(outputs: Sequence[str], sentences: Sequence[str]) -> np.ndarray:
    """[m, n] in [0, 1]: normalised Levenshtein similarity, runs of white space as one space, case kept."""
    from rapidfuzz.distance import Levenshtein
    from rapidfuzz.process import cdist

    plain = [[" ".join(text.split()) for text in texts] for texts in (outputs, sentences)]
    found: np.ndarray = cdist(*plain, scorer=Levenshtein.normalized_similarity, dtype=np.float64)
    return found


def word_edit_similarity(outputs: Sequence[str], sentences: Sequence[str]) -> np.ndarray:
    """[m, n] in [0, 1]: the same over words."""
    letters: dict[str, str] = {}  # word -> one character

    def coded(texts: Sequence[str]) -> list[str]:
        return ["".join(letters.setdefault(w, chr(0x10000 + len(letters))) for w in words) for words in split(texts)]

    return character_similarity(coded(outputs), coded(sentences))


def bleu_1_similarity(outputs: Sequence[str], sentences: Sequence[str]) -> np.ndarray:
    """[m, n] in [0, 1]: BLEU-1 of every output against every sentence, but for the brevity penalty; 0 for an empty
    output."""
    terms: dict[tuple[str, int], int] = {}  # (word, k): its k-th occurrence, so that clipped counts are inner products
    said, read = (occurrences(split(texts), terms) for texts in (outputs, sentences))
    o, j = (sparse.csr_array((np.ones(len(c)), c, starts), (len(starts) - 1, len(terms))) for c, starts in (said, read))
    return np.asarray((o @ j.T).toarray() / np.maximum(1, np.diff(said[1]))[:, None])


def split(texts: Sequence[str]) -> list[list[str]]:
    """The words of each text, as `bci.evaluation.metrics` counts them."""
    return [spaced(text).split() for text in texts]


def semantic_similarity(encoder: SentenceEncoder) -> Similarity:
    """Cosine [m, n] of the encoder's vectors; an empty text has the vector 0."""

    def similarity(outputs: Sequence[str], sentences: Sequence[str]) -> np.ndarray:
        return encoder.encode(outputs) @ encoder.encode(sentences).T

    return similarity


def retrieval_scores(decodings: Decodings, weights: WordWeights) -> tuple[np.ndarray, Sentences]:
    """How well each row's output fits each sentence [rows, n], by the idf overlap of words."""
    of_row, found = distinct_kernels(decodings, weights)
    # Residuals of equal overlaps differ by rounding only; ties are ties.
    return np.round(found["idf"], 9)[of_row], Sentences.of(decodings)


def similarities(encoder: SentenceEncoder | None = None) -> dict[str, Similarity]:
    """Of the levels that compare texts directly; without an encoder the semantic level is left out."""
    found: dict[str, Similarity] = {
        "bleu_1": bleu_1_similarity, "word_edits": word_edit_similarity, "characters": character_similarity,
    }  # fmt: skip
    return found if encoder is None else {**found, "semantic": semantic_similarity(encoder)}


def tabulated(similarity: Similarity, texts: Sequence[str]) -> Similarity:
    """The same similarity between texts of a set, computed once for all. Raises KeyError for a text outside it."""
    place = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    table = similarity(list(place), list(place)).astype(np.float32)

    def looked_up(outputs: Sequence[str], sentences: Sequence[str]) -> np.ndarray:
        rows, columns = ([place[text] for text in given] for given in (outputs, sentences))
        return table[np.ix_(rows, columns)].astype(np.float64)

    return looked_up


def level_tests(
    decodings: Decodings,
    weights: WordWeights,
    *,
    encoder: SentenceEncoder | None = None,
    noise: Decodings | None = None,
    n_permutations: int = 999,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Every level: its figures, p of the permutation and, with a control, p of the difference. Values for JSON.

    encoder: without one the semantic level is left out.
    """
    found: dict[str, dict[str, Any]] = {}
    for level, similarity in similarities(encoder).items():
        own = level_permutation(decodings, similarity, n_permutations, seed)
        difference = None if noise is None else level_difference(decodings, noise, similarity, n_permutations, seed)
        found[level] = {**_figures(decodings, similarity), **_tests(own, difference)}
    if encoder is not None:
        found["semantic"]["encoder"] = encoder.name
    scores, sentences = retrieval_scores(decodings, weights)
    ranks = retrieve(scores, sentences.of_row)
    own = retrieval_permutation(scores, sentences, n_permutations, seed)
    difference = None if noise is None else retrieval_beyond(decodings, noise, weights, n_permutations, seed)
    found["retrieval"] = {**ranks.as_dict(), **_tests(own, difference)}
    return found


def retrieval_beyond(
    eeg: Decodings, noise: Decodings, weights: WordWeights, n_permutations: int = 999, seed: int = 0
) -> PermutationTest:
    """Retrieval of EEG minus that of a control, on common trials."""
    eeg, noise = common_trials(eeg, noise)
    return retrieval_difference(retrieval_scores(eeg, weights), retrieval_scores(noise, weights), n_permutations, seed)


def _figures(decodings: Decodings, similarity: Similarity) -> dict[str, float]:
    """Mean similarity of outputs with their own sentence, and with all of them: what chance gives."""
    sentences = Sentences.of(decodings)
    distinct = {text: i for i, text in enumerate(dict.fromkeys(decodings.outputs))}
    m = similarity(list(distinct), list(sentences.texts))[[distinct[text] for text in decodings.outputs]]
    return {
        "own": float(m[np.arange(len(m)), sentences.of_row].mean()),
        "chance": float(m.mean()),
    }


def _tests(own: PermutationTest, difference: PermutationTest | None = None) -> dict[str, Any]:
    return {
        "p": own.p, "test": own.as_dict(),
        "p_difference": None if difference is None else difference.p,
    }  # fmt: skip
