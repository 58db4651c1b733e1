"""The test claims content at most as often as it should where there is none, and finds it where there is."""

import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from spikeloom.bci.evaluation.battery import (
    ALPHA,
    calibrate,
    confounds,
    level_p,
    planted_words,
    synthetic_pool,
    world_p,
)
from spikeloom.bci.evaluation.calibration import RIDGE, Experiment, fixated_places
from spikeloom.bci.evaluation.calibration import p_of as p_eeg
from spikeloom.bci.evaluation.confounds import drift_world
from spikeloom.bci.evaluation.levels import character_similarity, tabulated
from spikeloom.bci.evaluation.null_worlds import NULL_WORLDS, PLANTED_WORLD, NullWorld, Text, draw
from spikeloom.bci.evaluation.significance import Sentences, WordWeights, kernels, sentence_permutation
from spikeloom.bci.synthetic.planted import PlantedSignal
from spikeloom.bci.zuco.corpus import write_sentences
from spikeloom.bci.zuco.gaze import draw_reader
from spikeloom.bci.zuco.materials import read_materials
from spikeloom.bci.zuco.text import normalise
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
    for k, g in enumerate(sentences.strata):
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
    assert max(p_of(PLANTED_WORLD, seed) for seed in range(4)) < ALPHA
    found = planted_words(pool(), 4, fractions=(0.02,))
    assert found["evidence"] == [{"beats_noise_control": 4}]  # whatever the BLEU-1 of the constant sentence


def test_every_level_is_silent_about_null_decoders_with_a_control_or_without() -> None:
    texts = pool()
    compared = {"characters": tabulated(character_similarity, [text.text for text in texts])}
    rejected: dict[str, int] = {}
    for k, world in enumerate(NULL_WORLDS[:10]):
        for seed in (20_000 + k, 30_000 + k):
            eeg, noise = draw(world, texts, seed), draw(world, texts, seed, decoder=1)
            assert noise.train_texts == eeg.train_texts and noise.decodings.outputs != eeg.decodings.outputs
            found = level_p(eeg.decodings, noise.decodings, WordWeights(eeg.train_texts), compared, seed)
            assert set(found) == {"words", "characters", "retrieval"}
            for level, (own, beyond, headline) in found.items():
                assert headline == max(own, beyond)
                rejected[level] = rejected.get(level, 0) + (own < ALPHA) + (beyond < ALPHA)
    assert max(rejected.values()) <= 9  # of 40; binomial chance at .05: < .001


def test_a_table_of_similarities_gives_what_was_tabulated() -> None:
    texts = [text.text for text in synthetic_pool()[:20]]
    found = tabulated(character_similarity, texts)(texts[3:5], texts[7:10])
    np.testing.assert_allclose(found, character_similarity(texts[3:5], texts[7:10]), atol=1e-6)


def test_gaze_in_the_eeg_passes_noise_and_falls_to_the_gaze_alone() -> None:
    shares = list(confounds(None, 6)["gaze"].values())
    assert shares == sorted(shares, reverse=True) and shares[1] > 0 and shares[-1] == 0


def test_drift_passes_on_a_random_split_and_not_on_runs_with_margins() -> None:
    data_folder("zuco/zuco1_task_materials")
    root = Path(os.environ["SPIKELOOM_DATA"]) / "zuco"
    lists = {task: texts for task, texts in read_materials(root).items() if task in ("SR1", "NR1", "NR2")}
    for unit, wanted in (("key", 4), ("run", 0)):
        drawn = [drift_world(lists, unit, seed) for seed in range(4)]
        p = [sentence_permutation(w.decodings, WordWeights(w.train_texts), 199).p for w in drawn]
        assert abs(sum(value < ALPHA for value in p) - wanted) <= 1


def test_readers_who_agree_and_lengths_that_leak_fool_the_permutation_of_rows():
    world = NullWorld(rho=0.5, leak=1)
    assert np.mean([rows_permuted(world, seed) < 0.05 for seed in range(20)]) >= 0.2


def test_the_pipeline_is_silent_without_a_signal_and_speaks_with_one():
    silent, speaking = [], []
    for seed in range(3):
        drawn = Experiment(seed, n_train=160, n_test=48, n_subjects=4)
        silent.append(p_eeg(drawn.eeg(0.0), drawn.train_texts, seed))
        speaking.append(p_eeg(drawn.eeg(1.0), drawn.train_texts, seed))
    assert sum(p < ALPHA for p in silent) <= 1
    assert max(speaking) < ALPHA


def one_by_one(strength: float, seed: int, n_train: int, n_test: int, n_subjects: int) -> list[list[str]]:
    """What the decoders of EEG and of noise write, trial by trial and nothing shared: the oracle of `Experiment`."""
    texts, rng = write_sentences(n_train + n_test, seed), np.random.default_rng((seed, 1))
    texts = [texts[i] for i in rng.permutation(len(texts))]
    letters = [np.array([len(word) for word in text.split()]) for text in texts]
    readers = [draw_reader(np.concatenate(letters), rng) for _ in range(n_subjects)]
    planted = PlantedSignal(strength, seed)
    rows = [(a, i) for a in range(n_subjects) for i in range(len(texts))]
    read = [fixated_places(letters[i], readers[a].intercept, rng) for a, i in rows]
    content = [
        np.mean([planted.signal(texts[i].split()[w]) for w in at], 0) for (_, i), at in zip(rows, read, strict=True)
    ]
    vocabulary = sorted({word for text in texts[:n_train] for word in text.split()})
    bags = np.array([[text.split().count(word) for word in vocabulary] for text in texts[:n_train]], float)
    bags -= bags.mean(0)
    train = np.array([i < n_train for _, i in rows])
    written = []
    for signal in (content, np.zeros((1, 840))):
        gains = np.array([planted.gain(a) for a, _ in rows])
        noise = planted.noise(len(rows), rng) / np.sqrt([len(at) for at in read])[:, None]
        features = np.column_stack([gains + signal + noise, [len(at) for at in read]])
        x = (features - features[train].mean(0)) / (features[train].std(0) + 1e-6)
        gram = x[train].T @ x[train] + RIDGE * train.sum() * np.eye(x.shape[1])
        said = x[~train] @ np.linalg.solve(gram, x[train].T @ bags[[i for _, i in rows if i < n_train]])
        nearest = (said @ (bags / np.linalg.norm(bags, axis=1, keepdims=True)).T).argmax(1)
        written.append([texts[k] for k in nearest])
    return written


def test_experiments_that_share_their_draws_write_what_each_alone_writes():
    shared = Experiment(5, n_train=60, n_test=24, n_subjects=2)
    for strength in (0.0, 0.25, 1.0):
        eeg, noise = one_by_one(strength, 5, 60, 24, 2)
        assert list(shared.eeg(strength).outputs) == eeg
        assert list(shared.noise.outputs) == noise


@pytest.mark.slow
def test_false_positive_rates_and_power_are_those_of_a_calibrated_test(capsys):
    data_folder("zuco/zuco1_task_materials")
    with capsys.disabled():
        found = calibrate(pool(), confound_runs=0, say=print)
    assert found["pipeline"]["rejected"] <= 0.08
    assert found["pipeline"]["intervals_with_0"] >= 0.92
    words = found["power"]["levels"]["words"]["own"]
    power = dict(zip(found["power"]["strengths"], words, strict=True))
    assert min(power[0.25], power[1.0]) >= 0.9
    for tests in found["null_worlds"]["levels"].values():
        assert all(value["rejected"] <= 0.08 and value["largest"] <= 0.13 for value in tests.values())
    assert found["null_worlds"]["levels"]["words"]["own"]["rejected"] >= 0.025
    planted = dict(zip(found["planted_words"]["fractions"], found["planted_words"]["evidence"], strict=True))
    assert planted[0.02]["beats_noise_control"] >= 18  # of 20


@pytest.mark.slow
def test_a_small_calibration_tells_every_figure():
    said = []
    found = calibrate(synthetic_pool(), null_runs=1, power_runs=1, world_runs=1, confound_runs=1, say=said.append)
    assert len(found["null_worlds"]["worlds"]) == 12 and found["confounds"]["drift"] is None and len(said) >= 20
    levels = {"words", "bleu_1", "word_edits", "characters", "retrieval"}
    assert all(set(found[part]["levels"]) == levels for part in ("power", "null_worlds", "planted_words"))
