"""How varied the outputs of a decoder are: a decoder that ignores its input writes few texts, or train texts."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from spikeloom.bci.evaluation.decodings import UNKNOWN, Decodings
from spikeloom.bci.evaluation.metrics import bleu
from spikeloom.bci.evaluation.tokens import key_of, spaced


@dataclass(frozen=True, kw_only=True)
class Diversity:
    """distinct_1, distinct_2: unique / all n-grams of whitespace words over all outputs. distinct_outputs: unique
    texts; unique_share: of all rows. verbatim_train_rate: share of rows whose normalised output is a train sentence,
    None where no train sentences are known. length_correlation: Pearson's r of words written and words read, None
    where either never varies. equal_subject_share: largest share of subjects with one and the same BLEU-1, None for
    fewer than two subjects; above a half it is a sign that the EEG is ignored."""

    distinct_1: float
    distinct_2: float
    distinct_outputs: int
    unique_share: float
    verbatim_train_rate: float | None
    length_correlation: float | None
    equal_subject_share: float | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    def warnings(self) -> list[str]:
        """What a reader of the figures should know before believing them, in plain words."""
        if self.equal_subject_share is not None and self.equal_subject_share > 0.5:
            return [
                f"{100 * self.equal_subject_share:.0f} % of the subjects have one and the same BLEU-1: the EEG seems "
                "ignored"
            ]
        return []


def diversity(decodings: Decodings, train_texts: Sequence[str] = ()) -> Diversity:
    """Count what `Diversity` names."""
    words = [spaced(text).split() for text in decodings.outputs]
    said, read = [len(w) for w in words], [len(spaced(text).split()) for text in decodings.references]
    train = {key_of(text) for text in train_texts}
    unique = len(set(decodings.outputs))
    return Diversity(
        distinct_1=distinct(words, 1),
        distinct_2=distinct(words, 2),
        distinct_outputs=unique,
        unique_share=unique / len(decodings),
        verbatim_train_rate=(
            sum(key_of(text) in train for text in decodings.outputs) / len(decodings) if train else None
        ),
        length_correlation=float(np.corrcoef(said, read)[0, 1]) if len(set(said)) > 1 < len(set(read)) else None,
        equal_subject_share=equal_subjects(decodings),
    )


def distinct(words: Sequence[Sequence[str]], n: int) -> float:
    """Unique / all n-grams of `words`, one list a row; 0 when no row has n words."""
    grams = [tuple(row[i : i + n]) for row in words for i in range(len(row) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0


def equal_subjects(decodings: Decodings) -> float | None:
    """Largest share of subjects whose BLEU-1 agree to four digits; None for fewer than two known subjects."""
    rows: dict[str, list[int]] = {}
    for row, subject in enumerate(decodings.subjects):
        rows.setdefault(subject, []).append(row)
    if len(rows) < 2 or any(name.startswith(f"{UNKNOWN} ") for name in rows):
        return None
    parts = [decodings.select(of) for of in rows.values()]
    scores = [round(bleu(part.outputs, part.references)[0], 4) for part in parts]
    return max(scores.count(score) for score in scores) / len(scores)
