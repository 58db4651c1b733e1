"""Federated training at the edge, as numbers: who holds which samples, how weights are averaged, what a round costs.

    w = sum_k (n_k / n) w_k               over the workers k that answered, n_k samples each
    bytes = sum_k (down + up)             every worker that was asked receives the model, those that answer send one
    time  = max_k (steps_k * iteration + (down + up) / link)       workers work side by side
    energy = sum_k (steps_k * iteration energy + bytes_k * link price)

Worker and link are models: a chip of `accel.trainer.chip.chip` each, a link with a rate and a price. Training itself is
elsewhere. The published set-up of federated learning on this chip is not known; nothing here claims to repeat it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Weights = Mapping[str, np.ndarray]
SPLITS = ("iid", "dirichlet", "shards", "speakers")


def split_samples(
    kind: str, labels: np.ndarray, workers: int, seed: int, *, alpha: float = 0.5, groups: Sequence[str] = ()
) -> list[np.ndarray]:
    """Indices of each worker's samples: every sample once, drawn by `seed`.

    iid        equal shares of a shuffle
    dirichlet  of each class, shares drawn from Dirichlet(alpha): small alpha, few classes a worker
    shards     sorted by class and cut into two shards a worker
    speakers   whole speakers (`groups`), the largest first to the worker that has least

    Raises ValueError for an unknown kind, too few samples or speakers, or a split that leaves a worker with nothing.
    """
    if kind not in SPLITS:
        raise ValueError(f"split={kind} is unknown; use one of {', '.join(SPLITS)}")
    n = len(labels)
    if workers < 1 or n < 2 * workers:
        raise ValueError(f"got {workers} workers for {n} samples; use at least 1, and two samples for each")
    rng = np.random.default_rng([seed, 0xFED])
    parts: list[list[int]] = [[] for _ in range(workers)]
    if kind == "iid":
        parts = [list(part) for part in np.array_split(rng.permutation(n), workers)]
    elif kind == "shards":
        order = rng.permutation(n)
        shards = np.array_split(order[np.argsort(labels[order], kind="stable")], 2 * workers)
        for index, shard in enumerate(rng.permutation(2 * workers)):
            parts[index % workers] += list(shards[shard])
    elif kind == "dirichlet":
        if not alpha > 0:
            raise ValueError(f"alpha={alpha}; use a number above 0, for example 0.5")
        for label in np.unique(labels):
            mine = rng.permutation(np.flatnonzero(labels == label))
            cuts = np.round(np.cumsum(rng.dirichlet([alpha] * workers))[:-1] * len(mine)).astype(int)
            for part, chosen in zip(parts, np.split(mine, cuts), strict=True):
                part += list(chosen)
    else:
        _by_speaker(parts, groups, n)
    if not all(parts):
        empty = [k for k, part in enumerate(parts) if not part]
        raise ValueError(f"split={kind} leaves worker {empty[0]} without a sample; use a larger alpha or fewer workers")
    return [np.sort(np.array(part, dtype=np.int64)) for part in parts]


def _by_speaker(parts: list[list[int]], groups: Sequence[str], n: int) -> None:
    names = sorted(set(groups) - {""})
    if len(groups) != n or len(names) < len(parts):
        raise ValueError(f"split=speakers needs a speaker for each worker, got {len(names)} for {len(parts)}; use iid")
    of = {name: [i for i, group in enumerate(groups) if group == name] for name in names}
    for name in sorted(names, key=lambda name: (-len(of[name]), name)):
        min(parts, key=len).extend(of[name])


def average(answers: Sequence[Weights], samples: Sequence[int]) -> dict[str, np.ndarray]:
    """sum_k (n_k / n) w_k, summed in float64; integer arrays (counters) come from the worker with most samples.

    Raises ValueError without an answer, or when answers do not hold the same arrays.
    """
    if not answers or len(answers) != len(samples) or min(samples) < 1:
        got = f"got {len(answers)} answers of workers with {list(samples)} samples"
        raise ValueError(f"{got}; one with samples is needed")
    first, total = answers[0], sum(samples)
    for answer in answers:
        if {k: v.shape for k, v in answer.items()} != {k: v.shape for k, v in first.items()}:
            raise ValueError("workers answered with different arrays; let all train the same model")
    largest = answers[int(np.argmax(samples))]
    mean = {}
    for name, value in first.items():
        if np.issubdtype(value.dtype, np.floating):
            parts = (n / total * answer[name].astype(np.float64) for n, answer in zip(samples, answers, strict=True))
            mean[name] = sum(parts, np.zeros(value.shape)).astype(value.dtype)
        else:
            mean[name] = largest[name].copy()
    return mean


@dataclass(frozen=True, kw_only=True)
class Link:
    """What connects a worker with the server. Rate and price are assumed, both are in every report."""

    bits_per_s: float = 1e9
    pj_per_bit: float = 0.0

    def __post_init__(self) -> None:
        if not self.bits_per_s > 0 or not self.pj_per_bit >= 0:
            got = f"link of {self.bits_per_s} bit/s at {self.pj_per_bit} pJ/bit"
            raise ValueError(f"{got}; use a rate > 0 and a price >= 0")


@dataclass(frozen=True, kw_only=True)
class Iteration:
    """Cost of one training iteration on a worker's chip."""

    time_s: float
    energy_j: float


@dataclass(frozen=True, kw_only=True)
class WorkerRound:
    """What a worker did in a round. `answered` is false for one that died or was not waited for."""

    worker: int
    samples: int
    steps: int
    slowdown: float
    answered: bool
    why: str = ""


@dataclass(frozen=True, kw_only=True)
class RoundCost:
    """Bytes, time and energy of one round, computing and talking apart."""

    bytes: int
    time_s: float
    compute_j: float
    link_j: float

    @property
    def energy_j(self) -> float:
        return self.compute_j + self.link_j


def worker_time_s(work: WorkerRound, iteration: Iteration, link: Link, model_bytes: int) -> float:
    """From the moment a worker is asked until its answer is there."""
    return work.steps * iteration.time_s * work.slowdown + 2 * 8 * model_bytes / link.bits_per_s


def round_cost(
    work: Sequence[WorkerRound], iteration: Iteration, link: Link, model_bytes: int, deadline_s: float | None = None
) -> RoundCost:
    """Cost of a round. Work of a worker that was not waited for is spent all the same; one that died spent none. With a
    missing answer the server waits until the deadline, where there is one."""
    arrived = [w for w in work if w.answered]
    sent = model_bytes * (len(work) + len(arrived))
    times = [worker_time_s(w, iteration, link, model_bytes) for w in arrived]
    if len(arrived) < len(work) and deadline_s is not None:
        times.append(deadline_s)
    return RoundCost(
        bytes=sent, time_s=max(times, default=0.0),
        compute_j=sum(w.steps * iteration.energy_j for w in work), link_j=8 * sent * link.pj_per_bit * 1e-12,
    )  # fmt: skip
