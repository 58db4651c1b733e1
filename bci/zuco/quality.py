"""The quality table of ZuCo files: one row per subject and task, every edge case counted, every dropped row explained.

    n_kept + n_dropped = n_rows,   n_dropped = the sum over drop_reason_*

Rejected for artefacts (NaN) and not fixated (absent) are counted apart.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from spikeloom.accel.common.files import write_csv
from spikeloom.bci.zuco.records import Recording, Sentence
from spikeloom.bci.zuco.samples import DROP_REASONS, Samples, drop_reason, fixated, level, unlike_the_rest
from spikeloom.bci.zuco.text import corrected, is_punctuation

# n_rows: sentences of the file, of which n_missing_sentence have no words and n_sentence_nan a rejected sentence EEG.
# n_words, n_unfixated: words of the rows that are not missing; omission_rate: their ratio. n_nan_fixation: fixations
# whose EEG was rejected. n_single_word, n_non_ascii: rows; n_punct_token: words without letter or digit.
# n_long_vector: band vectors beyond 105 values. n_truncated_words, n_truncated_bpe: kept rows longer than a sample.
COUNTS = (
    "n_rows", "n_missing_sentence", "n_sentence_nan", "n_words", "n_unfixated", "n_fixations", "n_nan_fixation",
    "n_single_word", "n_non_ascii", "n_punct_token", "n_long_vector", "n_truncated_words", "n_truncated_bpe",
    "n_dropped", *(f"drop_reason_{reason}" for reason in DROP_REASONS), "n_kept",
)  # fmt: skip


def quality_table(
    sentences: Iterable[Sentence], samples: Samples, count_tokens: Callable[[str], int] | None = None
) -> list[dict[str, str | int | float | None]]:
    """One row per subject, version and task, in the order in which they come; the keys are as in COUNTS.

    samples: how long a sample may be. count_tokens: the length of a text in BPE tokens, specials included; without it
    n_truncated_bpe is None, not 0. omission_rate is None where there are no words. Reads `sentences` once.
    """
    counts: dict[Recording, Counter[str]] = {}
    kept: dict[Recording, list[tuple[float, dict[str, int]]]] = {}  # level and counts of rows that give a sample
    for sentence in sentences:
        found = _count(sentence, samples, count_tokens)
        counts.setdefault(sentence.recording, Counter()).update(found)
        if found["n_kept"]:
            kept.setdefault(sentence.recording, []).append((level(sentence), found))
    for recording, rows in kept.items():
        for outlying, (_, found) in zip(unlike_the_rest([value for value, _ in rows]), rows, strict=True):
            if outlying:
                truncated = {name: found[name] for name in ("n_truncated_words", "n_truncated_bpe")}
                counts[recording].subtract({"n_kept": 1, **truncated})
                counts[recording].update({"n_dropped": 1, "drop_reason_level": 1})
    table = []  # dict
    for recording, n in counts.items():
        row: dict[str, str | int | float | None] = {**recording._asdict(), **{name: n[name] for name in COUNTS}}
        row["omission_rate"] = n["n_unfixated"] / n["n_words"] if n["n_words"] else None
        if count_tokens is None:
            row["n_truncated_bpe"] = None
        table.append(row)
    return table


def write_quality(path: Path, table: Sequence[dict[str, str | int | float | None]]) -> None:
    """The table as CSV; an empty cell is a figure that was not measured."""
    write_csv(path, table)


def _count(sentence: Sentence, samples: Samples, count_tokens: Callable[[str], int] | None) -> dict[str, int]:
    reason = drop_reason(sentence)
    kept = reason is None
    text = corrected(sentence.content)
    return {
        "n_rows": 1,
        "n_missing_sentence": sentence.missing,
        "n_sentence_nan": not sentence.missing and sentence.eeg is not None and bool(np.isnan(sentence.eeg).any()),
        "n_words": len(sentence.words),
        "n_unfixated": len(sentence.words) - len(fixated(sentence)),
        "n_fixations": sum(word.n_fixations for word in sentence.words),
        "n_nan_fixation": sum(word.n_rejected for word in sentence.words),
        "n_single_word": len(sentence.words) == 1,
        "n_non_ascii": not sentence.content.isascii(),
        "n_punct_token": sum(is_punctuation(word.content) for word in sentence.words),
        "n_long_vector": sentence.n_long_vectors,
        "n_truncated_words": kept and len(fixated(sentence)) > samples.max_words,
        "n_truncated_bpe": kept and count_tokens is not None and count_tokens(text) > samples.max_length,
        "n_dropped": not kept,
        **{f"drop_reason_{name}": reason == name for name in DROP_REASONS},
        "n_kept": kept,
    }
