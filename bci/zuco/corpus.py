"""Sentences for synthetic recordings, written by a small grammar of our own: 8 to 24 words, few types, many sentences.

    sentence := clause (conjunction clause)*    clause := subject verb object place* adverb?

A sentence is drawn for a length first, so all lengths are equally frequent. Every word type occurs in many sentences:
what a model learns of a word in training can be tested in sentences it never saw.
What this is not: English as people write it.
"""

import numpy as np

SHORTEST, LONGEST = 8, 24  # words

_VOCABULARY = """
the a this every one
quiet small bright old wooden careful green distant heavy gentle famous hungry narrow silver tired young curious
  broken warm modest
teacher river garden painter letter bridge captain window doctor village horse mountain library farmer lantern
  sailor market child song museum baker forest journal queen tower merchant station neighbour poet harbour dog
  castle student road machine visitor kitchen map winter island carpenter basket mirror valley pilot ship clock
  bell
found painted remembered crossed opened described followed repaired watched carried sold admired visited left
  measured praised discovered needed
near behind under beside with across from beyond inside for
slowly yesterday again together carefully once today finally often quickly secretly there
and but while because before after although when so
"""
DETERMINERS, ADJECTIVES, NOUNS, VERBS, PREPOSITIONS, ADVERBS, CONJUNCTIONS = (
    line.split() for line in _VOCABULARY.strip().replace("\n  ", " ").split("\n")
)
WORDS = tuple(DETERMINERS + ADJECTIVES + NOUNS + VERBS + PREPOSITIONS + ADVERBS + CONJUNCTIONS)


def write_sentences(n_sentences: int, seed: int) -> list[str]:
    """`n_sentences` different sentences; a smaller set is the beginning of a larger one.

    The first letter is a capital and the last word carries the full stop, as in ZuCo.
    """
    if n_sentences < 1:
        raise ValueError(f"n_sentences is {n_sentences}; use at least one")
    rng = np.random.default_rng((seed, 0))
    sentences: dict[str, None] = {}
    while len(sentences) < n_sentences:
        words = _sentence(int(rng.integers(SHORTEST, LONGEST + 1)), rng)
        text = " ".join(words)
        sentences[text[0].upper() + text[1:] + "."] = None
    return list(sentences)


def _sentence(length: int, rng: np.random.Generator) -> list[str]:
    """A sentence of exactly `length` words: clauses are joined until one fits."""
    while True:
        words = _clause(rng)
        while len(words) < length:
            words += [_any(CONJUNCTIONS, rng), *_clause(rng)]
        if len(words) == length:
            return words


def _clause(rng: np.random.Generator) -> list[str]:
    words = [*_noun_phrase(rng), _any(VERBS, rng), *_noun_phrase(rng)]
    for _ in range(rng.integers(0, 3)):
        words += [_any(PREPOSITIONS, rng), *_noun_phrase(rng)]
    return words + ([_any(ADVERBS, rng)] if rng.random() < 0.4 else [])


def _noun_phrase(rng: np.random.Generator) -> list[str]:
    adjective = [_any(ADJECTIVES, rng)] if rng.random() < 0.5 else []
    return [_any(DETERMINERS, rng), *adjective, _any(NOUNS, rng)]


def _any(words: list[str], rng: np.random.Generator) -> str:
    return words[rng.integers(len(words))]
