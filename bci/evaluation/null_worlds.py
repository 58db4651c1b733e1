"""Decoders that know nothing of the text, to hold the tests of this room to their promise.

Reader a of sentence i is given the train sentence k with the largest

    U = u_ai . v_k / sqrt(8) + .5 a_k - beta |ln n_k - ln n_i| + tau [task_k = task_i]
    u_ai = sqrt(rho) e_i + sqrt(1 - rho) e_ai,   beta = 4 leak / (1 - leak), 1000 at leak 1

with e, v (8-d) and a_k standard normal: readers agree (rho), outputs have the length of what was read (leak) and its
task (tau), a few favourites recur (a_k), and none of it is content. A test that rejects here would reject for a decoder
that ignores the EEG. `planted` puts words of the reference into the outputs: what a test must find.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from spikeloom.bci.evaluation.decodings import Decodings
from spikeloom.bci.evaluation.tokens import key_of

N_SENTENCES = 104
MISSING = 0.05  # of rows
RARE = 0.05  # a content word occurs in fewer sentences than this share
DIMENSIONS = 8


class Text(NamedTuple):
    """A sentence that may be read or written, and its task."""

    text: str
    task: str


@dataclass(frozen=True, kw_only=True)
class NullWorld:
    """rho, leak, tau: as above. by_characters: n counts characters. n_outputs: train sentences a decoder ever writes
    (None: all). constant_subject: the first reader gets one sentence always. planted: chance of each content word of
    the reference to be put into the output; 0 is a null."""

    rho: float
    leak: float
    tau: float = 0.0
    by_characters: bool = False
    n_outputs: int | None = None
    constant_subject: bool = False
    n_subjects: int = 6
    planted: float = 0.0

    @property
    def beta(self) -> float:
        return 1000.0 if self.leak == 1 else 4 * self.leak / (1 - self.leak)


NULL_WORLDS = (
    *(NullWorld(rho=rho, leak=leak) for rho in (0.0, 0.5, 1.0) for leak in (0.0, 1.0)),
    NullWorld(rho=0.5, leak=0.8, tau=3.0),
    NullWorld(rho=0.5, leak=0.9, by_characters=True),
    NullWorld(rho=0.8, leak=0.8, n_outputs=2),
    NullWorld(rho=0.8, leak=0.8, n_outputs=5),
    NullWorld(rho=0.3, leak=0.8, constant_subject=True),
    NullWorld(rho=0.3, leak=1.0, n_subjects=30),
)
PLANTED_WORLD = NullWorld(rho=0.5, leak=0.5, tau=1.0, planted=0.02)


class World(NamedTuple):
    """One draw of a world: what its decoder wrote, and what it was trained on."""

    decodings: Decodings
    train_texts: list[str]


def draw(world: NullWorld, pool: Sequence[Text], seed: int, decoder: int = 0) -> World:
    """Read 104 sentences of `pool`, write the others. Raises ValueError for fewer than 208 distinct sentences.

    decoder: which of several that read and were trained on the same sentences; all but the first choose by numbers of
    their own.
    """
    pool = list({key_of(text.text): text for text in pool}.values())
    if len(pool) < 2 * N_SENTENCES:
        raise ValueError(f"got {len(pool)} distinct sentences; use {2 * N_SENTENCES} or more to read and to write")
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(pool))
    read, train = [pool[i] for i in order[:N_SENTENCES]], [pool[i] for i in order[N_SENTENCES:]]
    written = train if world.n_outputs is None else train[: world.n_outputs]
    rng = rng if decoder == 0 else np.random.default_rng((seed, decoder))

    n_a, n_i, n_k = world.n_subjects, len(read), len(written)
    e_i, e_ai = rng.standard_normal((n_i, DIMENSIONS)), rng.standard_normal((n_a, n_i, DIMENSIONS))
    v, favour = rng.standard_normal((n_k, DIMENSIONS)), rng.standard_normal(n_k)
    u = np.sqrt(world.rho) * e_i + np.sqrt(1 - world.rho) * e_ai
    ln_read, ln_written = (np.log([_size(t, world) for t in texts]) for texts in (read, written))
    same_task = np.array([i.task for i in read])[:, None] == np.array([k.task for k in written])
    shared = 0.5 * favour - world.beta * np.abs(ln_written - ln_read[:, None]) + world.tau * same_task
    choice = (u @ v.T / np.sqrt(DIMENSIONS) + shared).argmax(-1)  # [subjects, sentences]
    if world.constant_subject:
        choice[0] = choice[0, 0]

    present = np.argwhere(rng.random((n_a, n_i)) >= MISSING)
    outputs = [written[choice[a, i]].text for a, i in present]
    references = [read[i].text for _, i in present]
    if world.planted:
        outputs = _plant(outputs, references, [t.text for t in pool], world.planted, rng)
    decodings = Decodings(
        outputs=tuple(outputs),
        references=tuple(references),
        subjects=tuple(f"S{a}" for a, _ in present),
        tasks=tuple(read[i].task for _, i in present),
        seeds=(0,) * len(present),
    )
    return World(decodings, [t.text for t in train])


def _size(text: Text, world: NullWorld) -> int:
    return len(text.text) if world.by_characters else len(text.text.split())


def _plant(
    outputs: Sequence[str], references: Sequence[str], pool: Sequence[str], chance: float, rng: np.random.Generator
) -> list[str]:
    """`outputs` with content words of their references appended."""
    frequency = Counter(word for text in pool for word in set(key_of(text).split()))
    planted = []  # str
    for output, reference in zip(outputs, references, strict=True):
        rare = [w for w in key_of(reference).split() if frequency[w] < RARE * len(pool)]
        planted.append(" ".join([output, *(w for w in rare if rng.random() < chance)]))
    return planted
