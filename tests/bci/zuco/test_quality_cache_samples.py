"""Every edge case is counted once, a cache gives back the same records, samples are what the model is promised."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from spikeloom.bci.zuco.cache import cached_sentences
from spikeloom.bci.zuco.quality import quality_table, write_quality
from spikeloom.bci.zuco.reader import read_sentences
from spikeloom.bci.zuco.records import BLOCKS, CHANNELS, LEFT_RIGHT_PAIRS, MIDLINE, SUBJECTS, is_reference
from spikeloom.bci.zuco.samples import DROP_REASONS, SamplesConfig, collate, drop_reason, standardise
from spikeloom.bci.zuco.text import corrected, normalise
from tests.bci.zuco.published import edge_cases, sentence, word, write_hdf5, write_matlab5
from tests.bci.zuco.test_reader import same
from tests.conftest import data_folder
from tests.timing import least_s

SAMPLES = SamplesConfig().build()


@pytest.mark.parametrize("write", [write_matlab5, write_hdf5])
def test_every_edge_case_is_counted_once(write, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (row,) = quality_table(read_sentences(write(tmp_path / "resultsZAB_SR.mat", edge_cases())), SAMPLES)
    expected = {
        "n_rows": 8, "n_missing_sentence": 1, "n_sentence_nan": 1, "n_words": 14, "n_unfixated": 2, "n_fixations": 18,
        "n_nan_fixation": 2, "n_single_word": 2, "n_non_ascii": 1, "n_punct_token": 1, "n_long_vector": 1,
        "n_truncated_words": 0, "n_dropped": 3, "drop_reason_missing": 1, "drop_reason_sentence_nan": 1,
        "drop_reason_word_nan": 1, "drop_reason_word_length": 0, "drop_reason_no_fixation": 0, "n_kept": 5,
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected
    assert row["omission_rate"] == 2 / 14 and row["n_truncated_bpe"] is None
    write_quality(tmp_path / "quality.csv", [row])
    with (tmp_path / "quality.csv").open(encoding="utf-8") as f:
        (line,) = csv.DictReader(f)
    assert line["n_kept"] == "5" and line["n_truncated_bpe"] == ""


@pytest.mark.parametrize("seed", range(3))
def test_kept_and_dropped_are_all_rows_and_every_drop_has_a_reason(seed: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(seed)
    rows = [row for i in range(3) for row in edge_cases(seed + i) if rng.random() < 0.7] + edge_cases()[:1]
    (row,) = quality_table(read_sentences(write_matlab5(tmp_path / "resultsZAB_SR.mat", rows)), SAMPLES)
    assert row["n_kept"] + row["n_dropped"] == row["n_rows"] == len(rows)  # type: ignore[operator]
    assert sum(row[f"drop_reason_{reason}"] for reason in DROP_REASONS) == row["n_dropped"]  # type: ignore[misc]


@pytest.mark.parametrize("write", [write_matlab5, write_hdf5])
def test_cache_gives_back_the_same_records_and_follows_the_file(write, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    file = write(tmp_path / "resultsZAB_SR.mat", edge_cases())
    cached = cached_sentences(file, tmp_path / "cache")
    read = list(read_sentences(file))
    assert len(cached) == len(read) and all(same(a, b) for a, b in zip(cached, read, strict=True))
    assert same(cached[-1], read[-1]) and len(cached[2:5]) == 3
    write(file, edge_cases(seed=1))
    again = cached_sentences(file, tmp_path / "cache")
    assert same(again[0], next(iter(read_sentences(file)))) and not same(again[0], read[0])
    (kept,) = (tmp_path / "cache").iterdir()
    kept.unlink()
    assert same(cached_sentences(file, tmp_path / "cache")[0], again[0])


def test_damaged_cache_is_one_error_that_says_delete(tmp_path: Path) -> None:
    file = write_matlab5(tmp_path / "resultsZAB_SR.mat", edge_cases())
    cached_sentences(file, tmp_path / "cache")
    (kept,) = (tmp_path / "cache").iterdir()
    kept.write_bytes(kept.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"damaged.*delete it"):
        cached_sentences(file, tmp_path / "cache")


@pytest.mark.slow
def test_reopening_is_ten_times_faster_than_parsing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    file = write_matlab5(tmp_path / "resultsZAB_SR.mat", [sentence(rng, [word(rng, "w", 1)] * 20)] * 12)
    cached_sentences(file, tmp_path / "cache")

    parsing_s, reopening_s = least_s(
        lambda: list(read_sentences(file)), lambda: list(cached_sentences(file, tmp_path / "cache")), runs=3
    )
    assert reopening_s < parsing_s / 10
    assert len(list(cached_sentences(file, tmp_path / "cache"))) == 12


def test_sample_is_fixated_words_then_sentence_standardised(tmp_path: Path) -> None:
    found = next(iter(read_sentences(write_matlab5(tmp_path / "resultsZAB_SR.mat", edge_cases()))))
    sample = SAMPLES.sample(found)
    assert sample.words == ("quiet", "river.") and sample.eeg.shape == (3, 840) and sample.eeg.dtype == np.float32
    for token, vector in zip(sample.eeg, [found.words[1].eeg["GD"], found.words[2].eeg["GD"], found.eeg], strict=True):
        np.testing.assert_allclose(token, (vector - vector.mean()) / (vector.std(ddof=1) + 1e-6), rtol=1e-6, atol=1e-6)
    assert SamplesConfig(sentence_token=False).build().sample(found).eeg.shape == (2, 840)
    short = SamplesConfig(max_length=2).build().sample(found)
    assert short.words == ("quiet",) and short.n_truncated_words == 1
    np.testing.assert_array_equal(short.eeg[-1], sample.eeg[-1])


def test_formats_give_equal_samples(tmp_path: Path) -> None:
    v5, v73 = tmp_path / "resultsZAB_SR.mat", tmp_path / "resultsYAC_NR.mat"
    write_matlab5(v5, edge_cases())
    write_hdf5(v73, edge_cases())
    for a, b in zip(SAMPLES.of(read_sentences(v5)), SAMPLES.of(read_sentences(v73)), strict=True):
        assert np.array_equal(a.eeg, b.eeg) and a.text == b.text and a.words == b.words


@pytest.mark.parametrize("value", [0.0, 0.1, 7.3, 1e9])
def test_constant_vector_becomes_zeros(value: float) -> None:
    assert (standardise(np.full((2, 840), value)) == 0).all()


def test_batch_is_time_first_padded_with_zeros(tmp_path: Path) -> None:
    read = list(read_sentences(write_matlab5(tmp_path / "resultsZAB_SR.mat", edge_cases())))
    samples = list(SAMPLES.of(read))
    batch = collate(samples, length=58)
    assert batch.eeg.shape == (58, len(samples), 840) and batch.mask.dtype == torch.bool
    assert batch.mask.sum(0).tolist() == batch.lengths.tolist() == [len(s.words) + 1 for s in samples]
    assert (batch.eeg[~batch.mask] == 0).all() and torch.equal(batch.eeg[:3, 0], torch.from_numpy(samples[0].eeg))
    assert len(collate(samples).eeg) == batch.lengths.max()
    with pytest.raises(ValueError, match="use at least 3"):
        collate(samples, length=2)
    with pytest.raises(ValueError, match="gives no sample: missing"):
        SAMPLES.sample(read[1])
    assert [drop_reason(s) for s in read] == [None, "missing", "sentence_nan", "word_nan", None, None, None, None]


def test_text_keys_and_misprints() -> None:
    assert normalise("  It's a -- GOOD film. ") == "it s a good film" and normalise("Bôcher") == "b cher"
    assert corrected("an emp11111ty film.1") == "an empty film." and corrected("`s (40 km?)") == "`s (40 km?)"


def test_channels_pairs_and_midline_are_those_of_the_montage() -> None:
    montage = np.load(data_folder("zuco") / "zuco_montage.npz")
    assert tuple(montage["labels"].tolist()) == CHANNELS
    assert np.flatnonzero(is_reference).tolist() == [104, 209, 314, 419, 524, 629, 734, 839]
    at = dict(zip(CHANNELS, montage["coords"], strict=True))
    for left, right in LEFT_RIGHT_PAIRS:
        np.testing.assert_allclose(at[left] * [1, -1, 1], at[right], atol=1e-9)
        assert at[left][1] > 0
    assert max(abs(at[name][1]) for name in MIDLINE) < 1e-9
    assert sorted([*MIDLINE, *sum(LEFT_RIGHT_PAIRS, ())]) == sorted(CHANNELS)


def test_published_rows_fit_the_tables_of_subjects_and_blocks() -> None:
    for file in sorted((data_folder("zuco") / "cetmae_metadata").glob("*_metadata.csv")):
        with file.open(encoding="utf-8", newline="") as f:
            rows = list(csv.DictReader(f))
        assert rows
        for row in rows:
            prefix = row.get("pickle_file") or {"SR": "v1-task1-SR-", "NR": "v2-task2-NR-"}[file.name.split("_")[0]]
            version = 2 if "2.0" in prefix or prefix.startswith("v2") else 1
            task = next(task for task in ("TSR", "SR", "NR") if f"-{task}-" in prefix)
            assert row["subject_id"] in SUBJECTS[version], (file.name, row)
            assert int(row["sentence_index"]) < sum(BLOCKS[version, task]), (file.name, row)


def test_batches_have_the_shapes_of_the_published_pickles(tmp_path: Path) -> None:
    schema = json.loads((data_folder("zuco") / "cetmae_metadata" / "pickle_schema_report.json").read_text("utf-8"))
    sample = SAMPLES.sample(next(iter(read_sentences(write_matlab5(tmp_path / "resultsZAB_SR.mat", edge_cases())))))
    batch = collate([sample], length=58)
    for split in schema["splits"].values():
        for described in split["sampled_files"]:
            described = described["fields"]
            assert described["input_embeddings"]["shape"] == list(batch.eeg[:, 0].shape)
            assert described["input_attn_mask"]["shape"] == list(batch.mask[:, 0].shape)
