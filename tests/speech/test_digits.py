"""Digits: speakers come from file names, splits never share one, and a wrong folder says what to do."""

import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile

from spikeloom.speech.datasets.fsdd import DigitsConfig, read_digits
from spikeloom.speech.datasets.utterances import Utterances, choose_speakers, split_by_speaker
from tests.conftest import data_folder


def write_digits(folder: Path, speakers: tuple[str, ...] = ("ann", "bob", "c_d"), digits: str = "037") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for digit in digits:
        for speaker in speakers:
            soundfile.write(folder / f"{digit}_{speaker}_0.wav", 0.1 * rng.standard_normal(900), 8000)


def test_names_give_labels_and_speakers(tmp_path: Path) -> None:
    write_digits(tmp_path)
    utterances = read_digits(tmp_path)
    assert utterances.class_names == ("0", "3", "7")
    assert utterances.speaker_names() == ["ann", "bob", "c_d"]
    assert utterances.names[:4] == ["0_ann_0", "0_bob_0", "0_c_d_0", "3_ann_0"]
    assert utterances.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_root_may_hold_a_recordings_folder(tmp_path: Path) -> None:
    write_digits(tmp_path / "recordings")
    assert read_digits(tmp_path).names == read_digits(tmp_path / "recordings").names


def test_the_default_split_shares_no_speaker_and_follows_the_seed(tmp_path: Path) -> None:
    write_digits(tmp_path, speakers=("a", "b", "c", "d", "e", "f"))
    splits = DigitsConfig(root=str(tmp_path), split_seed=1).build()
    train, valid, test = (set(split.speakers) for split in splits)
    assert (len(train), len(valid), len(test)) == (4, 1, 1)
    assert train.isdisjoint(valid | test)
    assert valid.isdisjoint(test)
    again = DigitsConfig(root=str(tmp_path), split_seed=1).build()
    assert [split.names for split in again] == [split.names for split in splits]
    chosen = {
        tuple(DigitsConfig(root=str(tmp_path), split_seed=seed).build().test.speaker_names()) for seed in range(8)
    }
    assert len(chosen) > 1


def test_named_speakers_are_held_out(tmp_path: Path) -> None:
    write_digits(tmp_path)
    splits = DigitsConfig(root=str(tmp_path), test_speaker="bob", valid_speaker="c_d").build()
    assert [split.speaker_names() for split in splits] == [["ann"], ["c_d"], ["bob"]]
    for seed in range(6):
        splits = DigitsConfig(root=str(tmp_path), valid_speaker="bob", split_seed=seed).build()
        assert splits.test.speaker_names() != ["bob"]


def test_an_absent_speaker_is_answered_with_those_present(tmp_path: Path) -> None:
    write_digits(tmp_path)
    with pytest.raises(ValueError, match=r"speaker zoe; use one of ann, bob, c_d"):
        DigitsConfig(root=str(tmp_path), test_speaker="zoe").build()


def test_one_speaker_on_two_sides_or_none_to_train_on_is_an_error(tmp_path: Path) -> None:
    write_digits(tmp_path)
    with pytest.raises(ValueError, match="ann is in test and validation"):
        DigitsConfig(root=str(tmp_path), test_speaker="ann", valid_speaker="ann").build()
    with pytest.raises(ValueError, match="no speaker left for training"):
        split_by_speaker(read_digits(tmp_path), test_speakers=["ann", "bob"], valid_speakers=["c_d"])


def test_missing_and_empty_folders_say_where_to_get_the_data(tmp_path: Path) -> None:
    for folder in (tmp_path / "nothing", tmp_path):
        with pytest.raises(FileNotFoundError) as caught:
            read_digits(folder)
        for needed in (str(folder), "github.com/Jakobovski/free-spoken-digit-dataset", "SPIKELOOM_DATA", "data.root"):
            assert needed in str(caught.value)


def test_a_folder_with_one_digit_is_refused(tmp_path: Path) -> None:
    write_digits(tmp_path, digits="4")
    with pytest.raises(ValueError, match="only the digit 4"):
        read_digits(tmp_path)


def test_strange_names_are_counted_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_digits(tmp_path)
    soundfile.write(tmp_path / "seven.wav", np.zeros(10), 8000)
    with caplog.at_level(logging.WARNING):
        assert len(read_digits(tmp_path)) == 9
    assert "1 of 10 recordings" in caplog.text
    assert "seven.wav" in caplog.text


def test_utterances_refuse_what_cannot_be_trained_on() -> None:
    good = {
        "waveforms": [np.ones(3, np.float32)] * 2,
        "labels": np.array([0, 1]),
        "speakers": ["a", "b"],
        "names": ["x", "y"],
        "class_names": ("no", "yes"),
        "sample_rate_hz": 8000,
    }
    Utterances(**good)
    for change, message in [
        ({"waveforms": [np.ones(3), np.array([0.0, np.nan])]}, "1 clips .*: y"),
        ({"labels": np.array([0, 2])}, r"labels span 0\.\.2"),
        ({"class_names": ("no",)}, "two or more"),
        ({"speakers": ["a"]}, "differ in length"),
        ({"waveforms": [], "labels": np.zeros(0, int), "speakers": [], "names": []}, "no utterances"),
    ]:
        with pytest.raises(ValueError, match=message):
            Utterances(**{**good, **change})


def test_drawing_speakers_ignores_the_order_they_come_in() -> None:
    assert choose_speakers(["b", "a", "c"], 2, 5) == choose_speakers(["c", "b", "a"], 2, 5)
    with pytest.raises(ValueError, match="2 speakers to hold 3 out of"):
        choose_speakers(["a", "b"], 3, 0)


def test_the_recordings_of_the_free_spoken_digit_dataset() -> None:
    utterances = DigitsConfig(root=str(data_folder("fsdd"))).load()
    assert utterances.class_names == tuple("0123456789")
    assert len(utterances) == 500 * len(utterances.speaker_names())
    assert np.bincount(utterances.labels).tolist() == [len(utterances) // 10] * 10
    assert max(np.abs(waveform).max() for waveform in utterances.waveforms) <= 1
