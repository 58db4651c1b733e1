"""What the rows of a decoder give away about how they were made: teacher forcing, one text for all, doubled rows.

    teacher forced   as many words as were read (r > .9), and letters past the end, or words where the true ones stand
    degenerate       one text for every row, or for nine of ten
    doubled          rows of the same reader, task, sentence and seed

None is a test; each is a reason to look at how the file was written. Neighbours in time on both sides of a split are
found where the order of presentation is known.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from spikeloom.bci.evaluation.metrics import TAIL
from spikeloom.bci.evaluation.rows import UNKNOWN, Decodings
from spikeloom.bci.evaluation.tokens import key_of, spaced

LENGTHS_AGREE, TAILS, ALIGNED = 0.9, 0.2, 0.02
MOSTLY = 0.9
NEIGHBOURS = 5  # sentences before and after, in which slow drifts of the EEG are shared
RANDOM_SPLIT = (
    "neighbouring sentences are not excluded: slow drifts of the EEG alone give p < .05 in 98 % of null runs on a "
    "random split; use runs of sentences with margins (features.split.unit=run)"
)


@dataclass(frozen=True, kw_only=True)
class Forcing:
    """length_correlation: Pearson's r of words written and read, the tail cut; None where either never varies. tails:
    share of outputs that end in repeated letters. aligned: share of true words in their places, less that of other
    sentences."""

    length_correlation: float | None
    tails: float
    aligned: float

    @property
    def likely(self) -> bool:
        """Whether the outputs look teacher-forced."""
        r = self.length_correlation
        return r is not None and r > LENGTHS_AGREE and (self.tails > TAILS or self.aligned > ALIGNED)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "likely": self.likely}

    def in_words(self) -> str:
        r = "none" if self.length_correlation is None else f"{self.length_correlation:.2f}"
        return f"length correlation {r}, {100 * self.tails:.0f} % end in repeated letters"


def forcing(decodings: Decodings) -> Forcing:
    """Measure the marks of teacher forcing."""
    said = [spaced(TAIL.sub("", text)).split() for text in decodings.outputs]
    read = [spaced(text).split() for text in decodings.references]
    n_said, n_read = [len(w) for w in said], [len(w) for w in read]
    varies = len(set(n_said)) > 1 < len(set(n_read))
    other = np.random.default_rng(0).permutation(len(said))
    return Forcing(
        length_correlation=float(np.corrcoef(n_said, n_read)[0, 1]) if varies else None,
        tails=float(np.mean([bool(TAIL.search(text)) for text in decodings.outputs])),
        aligned=_in_place(said, read) - _in_place([said[k] for k in other], read),
    )


def _in_place(said: Sequence[Sequence[str]], read: Sequence[Sequence[str]]) -> float:
    shares = [sum(a == b for a, b in zip(x, y, strict=False)) / max(1, len(y)) for x, y in zip(said, read, strict=True)]
    return float(np.mean(shares))


def degenerate(decodings: Decodings) -> str | None:
    """In words, where nine of ten rows or more have one and the same text; None otherwise."""
    (text, n), *_ = Counter(decodings.outputs).most_common(1)
    shown = f"{text[:50]!r}"
    if n == len(decodings):
        return f"one text for all {n:,} rows ({shown})"
    return f"one text for {n:,} of {len(decodings):,} rows ({shown})" if n >= MOSTLY * len(decodings) else None


def counts(decodings: Decodings) -> dict[str, int]:
    """rows, sentences, readers and seeds (0: not known), and doubled rows."""
    known = not any(name.startswith(f"{UNKNOWN} ") for name in decodings.subjects)
    rows = zip(
        decodings.subjects, decodings.tasks, map(key_of, decodings.references), decodings.seeds, strict=True
    )  # fmt: skip
    doubled = len(decodings) - len(set(rows))
    return {
        "rows": len(decodings), "sentences": len({key_of(text) for text in decodings.references}),
        "readers": len(set(decodings.subjects)) if known else 0, "seeds": len(set(decodings.seeds)), "doubled": doubled,
    }  # fmt: skip


def remarks(decodings: Decodings, what: str) -> list[str]:
    """Everything above that a person should know, in sentences."""
    found = []
    if (same := degenerate(decodings)) is not None:
        found.append(f"{what} wrote {same}")
    if (marks := forcing(decodings)).likely:
        found.append(f"{what} looks teacher-forced ({marks.in_words()}): it was handed the answer")
    if doubled := counts(decodings)["doubled"]:
        found.append(f"{doubled:,} rows of {what} are there twice (one reader, task, sentence and seed)")
    return found


def near_train(
    test_keys: Collection[str], train_keys: Collection[str], orders: Mapping[str, Sequence[str]]
) -> tuple[int, int]:
    """(test sentences shown within NEIGHBOURS of a train sentence, test sentences whose place is known).

    orders: normalised sentences of each task in the order of presentation.
    """
    test, train = set(test_keys), set(train_keys)
    near, known = set[str](), set[str]()
    for order in orders.values():
        learnt = np.array([key in train and key not in test for key in order])
        for place, key in enumerate(order):
            if key in test:
                known.add(key)
                if learnt[max(0, place - NEIGHBOURS) : place + NEIGHBOURS + 1].any():
                    near.add(key)
    return len(near), len(known)
