"""Retrieval knows its chance exactly; a control keeps what it is named after and loses the rest."""

import numpy as np
import pytest

from spikeloom.bci.evaluation.controls import (
    CONTROLS,
    MatchedNoise,
    most_frequent,
    permuted_within,
    phase_randomised,
    resized,
    shrunk_covariance,
    trainings,
    unigram,
)
from spikeloom.bci.evaluation.decodings import one_row_per_trial
from spikeloom.bci.evaluation.retrieval import retrieval_permutation, retrieve, same_length, same_length_rank
from spikeloom.bci.evaluation.significance import Sentences
from spikeloom.bci.zuco.corpus import write_sentences


@pytest.mark.parametrize("g", [2, 7, 104])
def test_a_constant_encoder_is_exactly_at_chance(g):
    own = np.arange(3 * g) % g
    found = retrieve(np.zeros((3 * g, g)), own)
    assert found.top == pytest.approx({k: min(1, k / g) for k in (1, 5, 10)}, abs=1e-9)
    assert found.mrr == pytest.approx(sum(1 / r for r in range(1, g + 1)) / g, abs=1e-9)
    assert found.mean_rank == pytest.approx((g + 1) / 2, abs=1e-9)
    assert (found.chance_top, found.chance_mrr, found.chance_mean_rank) == (
        pytest.approx(found.top), pytest.approx(found.mrr), pytest.approx(found.mean_rank),
    )  # fmt: skip
    assert same_length_rank(np.zeros((3 * g, g)), own, np.full(g, 9), fewest=1) == 0.5


def test_ranks_of_a_worked_example():
    scores = np.array([[3.0, 2.0, 2.0, 1.0]])
    assert retrieve(scores, np.array([0])).top[1] == 1
    assert retrieve(scores, np.array([1])).mean_rank == 2.5
    assert retrieve(scores, np.array([1])).mrr == pytest.approx((1 / 2 + 1 / 3) / 2)
    n_words = np.array([9, 8, 12, 9])
    assert same_length_rank(scores, np.array([3]), n_words) == 1
    assert retrieve(scores, np.array([3]), same_length(n_words, np.array([3]))).mean_rank == 3


def test_retrieval_of_the_own_sentence_is_significant_and_noise_is_not():
    texts = write_sentences(60, 0)
    rows = one_row_per_trial(texts * 2, texts * 2)
    sentences, rng = Sentences.of(rows), np.random.default_rng(0)
    noise = rng.standard_normal((120, 60))
    assert retrieval_permutation(noise, sentences, 199).p > 0.05
    noise[np.arange(120), sentences.of_row] += 1
    assert retrieval_permutation(noise, sentences, 199).p < 0.01


def test_noise_has_the_moments_of_each_group_and_shrinks_as_published():
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((6, 6))
    train = [rng.standard_normal((20, 6)) @ mixing + a for a in (0, 5) for _ in range(50)]
    groups = [("S", a) for a in (0, 5) for _ in range(50)]
    (drawn,) = MatchedNoise(train, groups).draw([20_000], [("S", 5)], seed=0)
    real = np.concatenate(train[50:])
    np.testing.assert_allclose(drawn.mean(0), real.mean(0), atol=0.1)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(real.T), rtol=0.1, atol=0.3)
    covariance = pytest.importorskip("sklearn.covariance", reason="scikit-learn is not installed")
    few = rng.standard_normal((9, 30)) * np.linspace(1, 3, 30)
    few -= few.mean(0)
    np.testing.assert_allclose(shrunk_covariance(few), covariance.ledoit_wolf(few, assume_centered=True)[0], rtol=1e-8)
    with pytest.raises(ValueError, match="no training trial"):
        MatchedNoise(train, groups).draw([3], [("X", 0)], seed=0)


@pytest.mark.parametrize("length", [50, 51])
def test_random_phases_keep_spectra_and_cross_spectra(length):
    x = np.random.default_rng(0).standard_normal((length, 4))
    y = phase_randomised(x, seed=1)
    a, b = np.fft.rfft(x, axis=0), np.fft.rfft(y, axis=0)
    np.testing.assert_allclose(a[:, :, None] * a[:, None].conj(), b[:, :, None] * b[:, None].conj(), atol=1e-9)
    assert abs(np.corrcoef(x[:, 0], y[:, 0])[0, 1]) < 0.6


def test_shuffling_stays_in_its_group_and_moves_everything():
    groups = ["a", "b"] * 20
    partner = permuted_within(groups, seed=0)
    assert sorted(partner) == list(range(40))
    assert all(groups[i] == groups[j] and i != j for i, j in enumerate(partner))
    with pytest.raises(ValueError, match="cannot swap"):
        permuted_within(["a", "b", "b"], seed=0)


def test_lengths_and_sentences_without_input():
    assert [r.ravel().tolist() for r in resized([np.array([[1], [2]])] * 2, [1, 5])] == [[1], [1, 2, 1, 2, 1]]
    assert most_frequent(["b", "a", "b", "a", "c"]) == "a"
    assert set(" ".join(unigram(["x y", "y y z"], 50)).split()) == {"x", "y", "z"}


def test_every_control_is_trained_five_times_with_each_mask():
    assert len(trainings()) == 5 * sum(len(control.masks) for control in CONTROLS)
    assert {c.name for c in CONTROLS if set(c.masks) == {"real", "neutral"}} == {"noise", "shuffled", "zero"}
    with pytest.raises(ValueError, match="seeds=0"):
        trainings(n_seeds=0)
