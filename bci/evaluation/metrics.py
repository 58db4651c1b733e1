"""Text metrics of decoded sentences, counted by sacrebleu, rouge-score and jiwer.

Words are whitespace tokens with their case kept. BLEU is of the corpus, orders 1 to 4 with uniform weights, the
standard brevity penalty and no smoothing: an order without a match gives 0. Every figure is in percent.

    BLEU-k = BP exp(1/k sum_{n <= k} ln p_n),   BP = min(1, exp(1 - |references| / |outputs|))

Counts over byte-level BPE tokens inflate BLEU (9 becomes 28 and 40 on published output): they stand here as a labelled
diagnostic only.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from spikeloom.bci.evaluation.tokens import definition, spaced

ORDERS = (1, 2, 3, 4)
# Decoders run past the end of a teacher-forced sentence repeat these letters; published BPE scores cut them first.
TAIL = re.compile(r"[g,]{6,}$")


class Rouge(NamedTuple):
    """ROUGE-1 in percent: means over rows of precision, recall and F1."""

    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, kw_only=True)
class TextMetrics:
    """Figures of one decoder in percent; `rouge1` counts repeated words, `rouge1_set` every word once."""

    bleu_word: tuple[float, ...]  # orders 1 to 4
    rouge1: Rouge
    rouge1_set: Rouge
    wer: float  # edits / words of the references
    cer: float  # edits / characters of the references
    chrf: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            **asdict(self),
            "bleu_word": list(self.bleu_word),
            "rouge1": self.rouge1._asdict(),
            "rouge1_set": self.rouge1_set._asdict(),
        }


def _one_space(texts: Sequence[str]) -> list[str]:
    return [" ".join(text.split()) for text in texts]


def definitions(references: Sequence[str]) -> dict[str, str]:
    """What every figure counts: case, punctuation, tokens, stemming."""
    words = definition(references)
    return {
        "bleu_word": f"corpus BLEU-1..4 of sacrebleu; tokens: {words}; uniform weights, brevity penalty, no smoothing",
        "rouge1": f"ROUGE-1 of rouge-score, mean over rows of P, R, F; tokens: {words}; repeats count, no stemming",
        "rouge1_set": "the same, every word of a text once",
        "wer": f"word edits / words of the references, jiwer; tokens: {words}",
        "cer": "character edits / characters of the references, jiwer; runs of white space count as one, case and "
        "punctuation kept",
        "chrf": "chrF of sacrebleu, character 6-grams, beta 2, white space left out, case kept",
        "bleu_bpe": "BLEU-1..4 over tokens of a byte-level BPE, trailing g and , of teacher forcing cut: inflated",
        "p_permutation": "share of permutations of sentences within task and length that fit the outputs as well; "
        "words in lower case without punctuation, flat and idf weights",
    }


class Words:
    """rouge-score's tokenizer protocol: words as they stand, each once where `once` says so."""

    def __init__(self, once: bool = False) -> None:
        self.once = once

    def tokenize(self, text: str) -> list[str]:
        words = spaced(text).split()
        return list(dict.fromkeys(words)) if self.once else words


def measure(outputs: Sequence[str], references: Sequence[str]) -> TextMetrics:
    """All word-level metrics of `outputs` [n] against `references` [n]."""
    import jiwer
    from sacrebleu.metrics.chrf import CHRF

    said, true = ([" ".join(spaced(text).split()) for text in texts] for texts in (outputs, references))
    return TextMetrics(
        bleu_word=bleu(outputs, references),
        rouge1=rouge1(outputs, references),
        rouge1_set=rouge1(outputs, references, once=True),
        wer=100 * float(jiwer.wer(true, said)),
        cer=100 * float(jiwer.cer(_one_space(references), _one_space(outputs))),
        chrf=CHRF().corpus_score(said, [true]).score,
    )


def bleu(outputs: Sequence[str], references: Sequence[str]) -> tuple[float, ...]:
    """Corpus BLEU-1..4 over whitespace tokens, in percent."""
    from sacrebleu.metrics.bleu import BLEU

    counted = BLEU(tokenize="none", smooth_method="none", force=True).corpus_score(
        [spaced(text) for text in outputs], [[spaced(text) for text in references]]
    )
    return tuple(
        BLEU.compute_bleu(counted.counts[:k], counted.totals[:k], counted.sys_len, counted.ref_len, max_ngram_order=k)
        .score
        for k in ORDERS
    )  # fmt: skip


def rouge1(outputs: Sequence[str], references: Sequence[str], *, once: bool = False) -> Rouge:
    """Mean ROUGE-1 over rows, counting a repeated word as often as it occurs, or `once`."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rouge1"], tokenizer=Words(once))
    rows = [scorer.score(true, said)["rouge1"] for said, true in zip(outputs, references, strict=True)]
    return Rouge(*(100 * sum(column) / len(rows) for column in zip(*rows, strict=True)))


def bleu_bpe(outputs: Sequence[str], references: Sequence[str], tokenizer: Path) -> tuple[float, ...]:
    """Diagnostic: BLEU-1..4 in percent over the tokens of a byte-level BPE, after cutting `TAIL` from the outputs.

    tokenizer: a `tokenizer.json`, or the folder that holds one. Raises ValueError when it cannot be read.
    """
    from spikeloom.bci.data.tokenizer import read_bpe

    path = tokenizer / "tokenizer.json" if tokenizer.is_dir() else tokenizer
    bpe = read_bpe(path, "give tokenizer=FOLDER with a tokenizer.json")

    def ids(texts: Sequence[str]) -> list[str]:
        return [" ".join(map(str, e.ids)) for e in bpe.encode_batch(list(texts), add_special_tokens=False)]

    return bleu(ids([TAIL.sub("", text) for text in outputs]), ids(references))
