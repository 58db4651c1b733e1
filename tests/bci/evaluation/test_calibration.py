"""The test claims content at most as often as it should where there is none, and finds it where there is."""

import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from bci.evaluation.battery import calibrate, synthetic_pool, world_p, world_rate
from bci.evaluation.calibration import experiment
from bci.evaluation.null_worlds import NULL_WORLDS, PLANTED_WORLD, NullWorld, Text, draw
from bci.evaluation.significance import Sentences, WordWeights, kernels, sentence_permutation
from bci.zuco.materials import read_materials
from bci.zuco.text import normalise
from tests.conftest import data_folder


@cache
def pool() -> list[Text]:
    """The sentences of three ZuCo tasks where they are, else synthetic ones of two tasks."""
    root = Path(os.environ.get("SPIKELOOM_DATA", "")) / "zuco"
    if (root / "zuco1_task_materials").is_dir():
        found = read_materials(root)
        return [Text(text, task) for task in ("SR1", "NR1", "NR2") for text in found[task]]
    return synthetic_pool()


def p_of(world: NullWorld, seed: int) -> float:
    return world_p(world, pool(), seed)


def rate(world: NullWorld, seeds: range) -> float:
    return world_rate(world, pool(), seeds)


def rows_permuted(world: NullWorld, seed: int) -> float:
    """p of the test that is not offered: mean BLEU-1 of rows, brevity penalty included, rows permuted in strata."""
    drawn = draw(world, pool(), seed)
    sentences, rng = Sentences.of(drawn.decodings), np.random.default_rng(seed)
    plain = type("Plain", (), {"without_length": lambda _, m: m, "keys": sentences.keys,
                               "__len__": lambda _: len(sentences)})()  # fmt: skip
    m = kernels(drawn.decodings.outputs, plain, WordWeights(drawn.train_texts))["flat"]
    read, said = (
        np.array([len(normalise(t).split()) for t in texts]) for texts in (sentences.keys, drawn.decodings.outputs)
    )
    ratio = read / said[:, None]
    m *= np.sqrt(ratio) * np.exp(np.minimum(0, 1 - ratio))  # matches / words of the output, times BP
    stratum = np.empty(len(sentences), int)
    for k, g in enumerate(sentences.strata()):
        stratum[g] = k
    own, scores = sentences.of_row, []
    for _ in range(199):
        q = own.copy()
        for k in np.unique(stratum):
            rows = np.flatnonzero(stratum[own] == k)
            q[rows] = own[rng.permutation(rows)]
        scores.append(m[np.arange(len(own)), q].mean())
    return (1 + sum(s >= m[np.arange(len(own)), own].mean() - 1e-12 for s in scores)) / 200


def test_few_null_worlds_of_each_kind_reject():
    found = [
        p_of(world, 10_000 + 100 * k + seed) < 0.05 for k, world in enumerate(NULL_WORLDS[:10]) for seed in range(4)
    ]
    assert sum(found) <= 8  # binomial chance at .05: < .001


def test_planted_words_are_found():
    data_folder("zuco/zuco1_task_materials")  # synthetic sentences have too few rare words to plant
    assert rate(PLANTED_WORLD, range(4)) == 1


def test_readers_who_agree_and_lengths_that_leak_fool_the_permutation_of_rows():
    world = NullWorld(rho=0.5, leak=1)
    assert np.mean([rows_permuted(world, seed) < 0.05 for seed in range(20)]) >= 0.2


def test_the_pipeline_is_silent_without_a_signal_and_speaks_with_one():
    found = {}
    for strength in (0.0, 1.0):
        runs = [experiment(strength, seed, n_train=160, n_test=48, n_subjects=4) for seed in range(3)]
        found[strength] = [sentence_permutation(r.eeg, WordWeights(r.train_texts), 199).p for r in runs]
    assert sum(p < 0.05 for p in found[0.0]) <= 1
    assert max(found[1.0]) < 0.05


@pytest.mark.slow
def test_false_positive_rates_and_power_are_those_of_a_calibrated_test(capsys):
    data_folder("zuco/zuco1_task_materials")
    with capsys.disabled():
        found = calibrate(pool(), say=print)
    assert found["pipeline"]["rejected"] <= 0.08
    assert found["pipeline"]["intervals_with_0"] >= 0.92
    power = dict(zip(found["power"]["strengths"], found["power"]["rejected"], strict=True))
    assert min(power[0.25], power[1.0]) >= 0.9
    assert 0.025 <= found["null_worlds_pooled"] <= 0.07
    assert found["null_worlds_largest"] <= 0.13
    assert found["planted_words_found"] >= 0.9


def test_a_small_calibration_tells_every_figure():
    said = []
    found = calibrate(synthetic_pool(), null_runs=1, power_runs=1, world_runs=1, say=said.append)
    assert found["power"]["strengths"][0] == 0 and len(found["null_worlds"]) == 12 and len(said) >= 14
