"""Federated numbers: every sample once, an average that is exact, and a round that costs what its parts cost."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeloom.accel.trainer.federated.rounds import (
    SPLITS,
    Iteration,
    Link,
    WorkerRound,
    average,
    round_cost,
    split_samples,
)

LABELS = np.repeat(np.arange(10), 20)
SPEAKERS = [f"voice{i % 7}" for i in range(200)]


@settings(max_examples=25, deadline=None)
@given(kind=st.sampled_from(SPLITS), workers=st.integers(1, 6), seed=st.integers(0, 99))
def test_every_sample_is_with_one_worker_and_a_seed_gives_the_same_again(kind: str, workers: int, seed: int) -> None:
    parts = split_samples(kind, LABELS, workers, seed, alpha=5.0, groups=SPEAKERS)
    assert len(parts) == workers and sorted(np.concatenate(parts)) == list(range(200))
    again = split_samples(kind, LABELS, workers, seed, alpha=5.0, groups=SPEAKERS)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


def test_shards_and_small_alpha_leave_few_classes_and_speakers_stay_whole() -> None:
    classes = lambda parts: [len(set(LABELS[part])) for part in parts]  # noqa: E731
    assert min(classes(split_samples("iid", LABELS, 5, 0))) == 10
    assert max(classes(split_samples("shards", LABELS, 5, 0))) <= 4
    assert np.mean(classes(split_samples("dirichlet", LABELS, 3, 0, alpha=0.1))) < 9
    voices = [{SPEAKERS[i] for i in part} for part in split_samples("speakers", LABELS, 5, 0, groups=SPEAKERS)]
    assert sum(map(len, voices)) == 7


def test_the_average_is_weighted_by_samples_and_exact() -> None:
    answers = [
        {"w": np.array([1.0, 2.0], dtype=np.float32), "seen": np.array(3)},
        {"w": np.array([5.0, -2.0], dtype=np.float32), "seen": np.array(9)},
    ]
    mean = average(answers, [3, 1])
    assert mean["w"].tolist() == [2.0, 1.0] and mean["w"].dtype == np.float32 and mean["seen"] == 3
    rng = np.random.default_rng(0)
    many = [{"w": rng.standard_normal(1000).astype(np.float32)} for _ in range(5)]
    counts = [7, 11, 2, 30, 5]
    expected = np.average([a["w"].astype(np.longdouble) for a in many], axis=0, weights=counts)
    assert np.array_equal(average(many, counts)["w"], expected.astype(np.float32))
    assert np.array_equal(average(many[:1], [4])["w"], many[0]["w"])


def test_a_round_costs_what_its_workers_and_links_cost() -> None:
    iteration, link = Iteration(time_s=0.01, energy_j=0.002), Link(bits_per_s=1e6, pj_per_bit=100.0)
    work = [
        WorkerRound(worker=0, samples=10, steps=5, slowdown=1.0, answered=True),
        WorkerRound(worker=1, samples=10, steps=4, slowdown=3.0, answered=True),
        WorkerRound(worker=2, samples=10, steps=0, slowdown=1.0, answered=False, why="died"),
    ]
    cost = round_cost(work, iteration, link, model_bytes=1000)
    assert cost.bytes == 1000 * (3 + 2)
    assert cost.time_s == pytest.approx(4 * 0.01 * 3 + 16_000 / 1e6)
    assert cost.compute_j == pytest.approx(9 * 0.002) and cost.link_j == pytest.approx(40_000 * 100e-12)
    assert round_cost(work, iteration, link, 1000, deadline_s=0.5).time_s == 0.5


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: split_samples("magic", LABELS, 5, 0), "use one of iid"),
        (lambda: split_samples("iid", LABELS[:5], 5, 0), "two samples for each"),
        (lambda: split_samples("dirichlet", LABELS, 5, 0, alpha=0.0), "alpha=0.0"),
        (lambda: split_samples("dirichlet", LABELS, 40, 0, alpha=0.01), "without a sample"),
        (lambda: split_samples("speakers", LABELS, 9, 0, groups=SPEAKERS), "got 7 for 9"),
        (lambda: average([], []), "one with samples"),
        (lambda: average([{"a": np.ones(2)}, {"a": np.ones(3)}], [1, 1]), "different arrays"),
        (lambda: Link(bits_per_s=0), "rate > 0"),
    ],
)
def test_bad_requests_name_the_fix(call, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
