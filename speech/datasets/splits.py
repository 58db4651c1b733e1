"""Which set a recording belongs to where nobody published a split: by the speaker, in the order of a hash.

The hash is that of Google Speech Commands (SHA-1 mod 2^27), taken of `SEED/NAME`, so that a split does not depend on
the order of files and hardly changes when a few speakers are added. With folds, the test speakers of the folds are
disjoint and together are all speakers.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

SETS = ("training", "validation", "testing")


@dataclass(frozen=True, kw_only=True)
class SpeakerSplit:
    """How speakers are divided.

    valid_fraction, test_fraction: of the speakers. folds > 0: `test_fraction` is 1 / folds instead, and `fold`, counted
    from 0, says which part of the speakers is tested; the part behind it validates.
    """

    valid_fraction: float = 0.15
    test_fraction: float = 0.15
    seed: int = 0
    folds: int = 0
    fold: int = 0

    def __post_init__(self) -> None:
        if min(self.valid_fraction, self.test_fraction) <= 0 or self.valid_fraction + self.test_fraction >= 1:
            raise ValueError(
                f"data.valid_fraction and data.test_fraction must be above 0 and sum to less than 1, got "
                f"{self.valid_fraction} and {self.test_fraction}; use 0.15 each"
            )
        if self.folds and (self.folds < 3 or not 0 <= self.fold < self.folds):
            raise ValueError(
                f"data.folds={self.folds} data.fold={self.fold}; use at least 3 folds, counted from 0, or folds=0"
            )

    def sets_of(self, owners: Sequence[tuple[bool, str]]) -> list[str]:
        """The set of every clip. owners: for each clip, whether somebody speaks, and the speaker's or file's name.

        Clips that nobody speaks (noise) are divided alike, by their file names.
        """
        set_of: dict[tuple[bool, str], str] = {}
        for spoken in (True, False):
            order = sorted(
                {name for speaks, name in owners if speaks == spoken},
                key=lambda name: hash_percentage(f"{self.seed}/{name}"),
            )
            for i, name in enumerate(order):
                set_of[spoken, name] = self._set_at(i, len(order))
        return [set_of[owner] for owner in owners]

    def _set_at(self, i: int, n: int) -> str:
        if self.folds:
            part = i % self.folds
            return SETS[2] if part == self.fold else SETS[1] if part == (self.fold + 1) % self.folds else SETS[0]
        n_test = round(self.test_fraction * n)
        n_held_out = n_test + round(self.valid_fraction * n)
        return SETS[2] if i < n_test else SETS[1] if i < n_held_out else SETS[0]


def hash_percentage(text: str) -> float:
    """The published hash of Speech Commands: SHA-1 of `text` mod 2^27, on a scale of 0 to 100."""
    return int(hashlib.sha1(text.encode()).hexdigest(), 16) % (1 << 27) * (100 / ((1 << 27) - 1))
