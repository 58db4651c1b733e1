"""What the synthetic set promises: published gaze, a signal of the strength asked for, files that read back equal."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spikeloom.bci.synthetic.planted import SCALE, PlantedSignal
from spikeloom.bci.synthetic.zuco import SyntheticZuCoConfig
from spikeloom.bci.zuco.corpus import WORDS, write_sentences
from spikeloom.bci.zuco.reader import file_format, read_sentences
from spikeloom.bci.zuco.records import MEASURES, N_FEATURES, SAMPLE_MS, Sentence, is_reference
from spikeloom.bci.zuco.write_hdf5 import write_hdf5
from spikeloom.bci.zuco.write_matlab5 import write_matlab5
from tests.conftest import data_folder

PUBLISHED_MEDIANS = {"FFD": 107, "GD": 117, "TRT": 147, "GPT": 142}  # samples, 12 readers
SMALL = SyntheticZuCoConfig(n_subjects=1, n_sentences=8)


@pytest.fixture(scope="module")
def read() -> list[Sentence]:
    return list(SyntheticZuCoConfig(n_subjects=6, n_sentences=60).build())


def _durations(sentences: list[Sentence], measure: str) -> np.ndarray:
    return np.array([w.durations_ms[measure] for s in sentences for w in s.words if w.fixated]) / SAMPLE_MS


def test_sentences_are_different_and_of_few_words() -> None:
    sentences = write_sentences(600, seed=0)
    lengths = [len(sentence.split()) for sentence in sentences]
    assert len(set(sentences)) == 600 and len(set(WORDS)) == len(WORDS) <= 300
    assert min(lengths) == 8 and max(lengths) == 24
    assert write_sentences(50, seed=0) == sentences[:50]


def test_medians_of_gaze_lie_within_a_tenth_of_the_published(read: list[Sentence]) -> None:
    for measure, published in PUBLISHED_MEDIANS.items():
        assert np.median(_durations(read, measure)) == pytest.approx(published, rel=0.1), measure
    assert _durations(read, "FFD").min() >= 50


def test_every_subject_omits_and_refixates_as_people_do(read: list[Sentence]) -> None:
    for subject in {s.subject for s in read}:
        counts = np.array([w.n_fixations for s in read if s.subject == subject for w in s.words])
        fixated = counts[counts > 0]
        assert 0.21 <= np.mean(counts == 0) <= 0.53
        assert 1.3 <= fixated.mean() <= 2.0
        assert 0.48 <= np.mean(fixated == 1) <= 0.74


def test_first_fixations_resemble_a_real_reader(read: list[Sentence]) -> None:
    with (data_folder("zuco") / "sr_word_gaze.csv").open(encoding="utf-8-sig", newline="") as file:
        real = [float(row["FFD"]) for row in csv.DictReader(file) if row["FFD"] not in ("", "[]")]
    assert np.median(_durations(read, "FFD")) == pytest.approx(np.median(real), rel=0.15)


def test_strength_is_the_ratio_of_signal_to_noise_in_every_feature() -> None:
    rng = np.random.default_rng(0)
    planted = PlantedSignal(0.5, seed=0)
    signal = np.std([planted.signal(f"word{i}") for i in range(2000)], axis=0)[~is_reference] / SCALE
    noise = planted.noise(2000, rng).std(axis=0)[~is_reference] / SCALE
    np.testing.assert_allclose(signal, 0.5, rtol=0.15)
    np.testing.assert_allclose(noise, 1.0, rtol=0.1)


def test_strength_zero_keeps_gaze_and_noise_but_drops_the_words() -> None:
    with_signal = next(iter(SMALL.build()))
    without = next(iter(replace(SMALL, signal_strength=0.0).build()))
    assert [w.durations_ms for w in with_signal.words] == [w.durations_ms for w in without.words]
    planted = PlantedSignal(1.0, SMALL.seed)
    for a, b in zip(with_signal.words, without.words, strict=True):
        for measure in a.eeg:
            log_ratio = np.log(a.eeg[measure][~is_reference] / b.eeg[measure][~is_reference])
            np.testing.assert_allclose(log_ratio, planted.signal(a.content)[~is_reference], atol=1e-9)


def test_reference_is_zero_and_vectors_are_whole(read: list[Sentence]) -> None:
    for sentence in read[:20]:
        for word in sentence.words:
            assert all(v.shape == (N_FEATURES,) and not v[is_reference].any() for v in word.eeg.values())


def test_equal_seeds_give_equal_sentences_and_subjects_can_be_added() -> None:
    few, more = list(SMALL.build()), list(replace(SMALL, n_subjects=2).build())
    for a, b in zip(few, more, strict=False):
        assert np.array_equal(a.eeg, b.eeg) and a.content == b.content
    assert not np.array_equal(few[0].eeg, next(iter(replace(SMALL, seed=1).build())).eeg)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(("write", "stored"), [(write_matlab5, "matlab5"), (write_hdf5, "hdf5")])
@pytest.mark.parametrize("n_sentences", [1, 3])
def test_written_files_read_back_equal(
    tmp_path: Path, version: int, write: Callable[[Path, list[Sentence]], None], stored: str, n_sentences: int
) -> None:
    config = replace(SMALL, version=version, n_sentences=n_sentences, rejected=0.3, missing=0.3 * (n_sentences > 1))
    sentences = list(config.build().read(config.build().recordings[0]))
    path = tmp_path / f"results{sentences[0].subject}_SR.mat"
    write(path, sentences)
    assert file_format(path) == stored
    found = list(read_sentences(path))
    assert len(found) == len(sentences)
    for a, b in zip(sentences, found, strict=True):
        assert (a.recording, a.index, a.content, a.missing) == (b.recording, b.index, b.content, b.missing)
        if a.missing:
            continue
        np.testing.assert_allclose(b.eeg, a.eeg, rtol=1e-12)
        np.testing.assert_allclose(b.word_bounds_px, a.word_bounds_px)
        np.testing.assert_allclose(b.fixations.duration_ms, a.fixations.duration_ms)
        for v, w in zip(a.words, b.words, strict=True):
            assert (v.content, v.n_fixations, list(v.fixations)) == (w.content, w.n_fixations, list(w.fixations))
            assert set(v.eeg) == set(w.eeg) <= set(MEASURES) and v.durations_ms == w.durations_ms
            for measure in v.eeg:
                np.testing.assert_allclose(w.eeg[measure], v.eeg[measure], rtol=1e-12)


def test_text_file_takes_the_place_of_the_grammar(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("Maxime Bôcher wrote - twice.\n\nSolo\n", encoding="utf-8")
    assert [s.content for s in replace(SMALL, text=str(path)).build()] == ["Maxime Bôcher wrote - twice.", "Solo"]


@pytest.mark.parametrize(
    "wrong", [{"signal_strength": -1.0}, {"n_subjects": 0}, {"task": "XX"}, {"missing": 1.5}, {"text": "/no/such"}]
)
def test_wrong_configuration_is_refused_with_its_value(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=str(next(iter(wrong.values())))):
        replace(SMALL, **wrong).build()
