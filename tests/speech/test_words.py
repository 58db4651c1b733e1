"""A folder of words is read however it is laid out, and no speaker is on two sides unless a list says so."""

import logging
import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile

from spikeloom.speech.datasets.utterances import SpeechSplits
from spikeloom.speech.datasets.words import WordsConfig
from tests.conftest import data_folder

SPEAKER = r"(?P<speaker>[^_/]+)_\d+$"


def say(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.ones(400), 16_000)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two words, ten speakers, two clips each, in three formats."""
    for i in range(10):
        for word in ("ja", "nein"):
            for n, ending in enumerate(("flac", "WAV")):
                say(tmp_path / word / f"v{i}_{n}.{ending}")
    return tmp_path


def speakers(splits: SpeechSplits) -> list[set[str]]:
    return [set(clips.speakers) for clips in splits]


def test_words_are_folders_and_speakers_come_from_a_pattern(folder: Path) -> None:
    clips = WordsConfig(root=str(folder), pattern=SPEAKER).load()
    assert len(clips) == 40
    assert clips.class_names == ("ja", "nein")
    assert clips.speaker_names() == [f"v{i}" for i in range(10)]
    assert clips.names[0] == "ja/v0_0"
    assert clips.waveforms[0].shape == (400,)


def test_without_lists_no_speaker_is_on_two_sides_and_the_split_follows_its_seed(folder: Path) -> None:
    splits = [WordsConfig(root=str(folder), pattern=SPEAKER, split_seed=seed).build() for seed in (0, 0, 1)]
    train, valid, test = speakers(splits[0])
    assert (len(train), len(valid), len(test)) == (6, 2, 2)
    assert not train & valid
    assert not (train | valid) & test
    assert [c.names for c in splits[0]] == [c.names for c in splits[1]]
    assert speakers(splits[2]) != speakers(splits[0])


def test_the_test_speakers_of_folds_are_disjoint_and_together_all(folder: Path) -> None:
    tested = [
        set(WordsConfig(root=str(folder), pattern=SPEAKER, folds=5, fold=k).build().test.speakers) for k in range(5)
    ]
    assert sum(map(len, tested)) == len(set().union(*tested)) == 10
    with pytest.raises(ValueError, match=r"folds=5 data\.fold=5"):
        WordsConfig(root=str(folder), pattern=SPEAKER, folds=5, fold=5).build()


def test_unknown_speakers_are_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        WordsConfig(root=str(folder)).build()
    assert "the speaker of 40 of 40 recordings is unknown" in caplog.text
    assert "data.pattern" in caplog.text


def test_lists_in_the_folder_are_the_split_whatever_ending_they_name(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, numbers in {"train": range(4), "val": range(4, 6), "test": range(6, 8)}.items():
        rows = "".join(f"dataset/{w}/v{i}_{n}.wav,{w}\n" for i in numbers for w in ("ja", "nein") for n in (0, 1))
        (folder / f"{name}.csv").write_text("file,class\n" + rows)
    with (folder / "test.csv").open("a") as file:
        file.write("dataset/ja/gone_0.wav,ja\n")
    with caplog.at_level(logging.WARNING):
        splits = WordsConfig(root=str(folder), pattern=SPEAKER).build()
    assert [len(clips) for clips in splits] == [16, 8, 8]
    assert speakers(splits)[2] == {"v6", "v7"}
    assert "1 of 33 listed recordings are not in" in caplog.text
    assert "8 recordings are in no list and left out" in caplog.text


def test_plain_lists_leave_the_rest_to_training(folder: Path) -> None:
    (folder / "validation_list.txt").write_text("ja/v1_0.wav\nnein/v1_0.wav\n")
    (folder / "testing_list.txt").write_text("ja/v2_0.flac\nnein/v2_1.WAV\n")
    assert [len(clips) for clips in WordsConfig(root=str(folder)).build()] == [36, 2, 2]


def test_one_table_may_hold_set_word_and_speaker(tmp_path: Path) -> None:
    rows = ["client_id\tpath\tsentence\tsplit"]
    for i, where in enumerate(("train", "train", "dev", "test")):
        for word in ("hü", "hott"):
            say(tmp_path / "clips" / f"{word}{i}.flac")
            rows.append(f"id{i}\t{word}{i}.mp3\t{word}\t{where}")
    (tmp_path / "all.tsv").write_text("\n".join(rows), encoding="utf-8")
    splits = WordsConfig(root=str(tmp_path), lists={"training": "all.tsv"}).build()
    assert speakers(splits) == [{"id0", "id1"}, {"id2"}, {"id3"}]
    assert splits.train.class_names == ("hott", "hü")


def test_set_folders_are_the_split(tmp_path: Path) -> None:
    for name, n in (("train", 3), ("valid", 2), ("test", 1)):
        for i in range(n):
            for word in ("a", "b"):
                say(tmp_path / name / word / f"{i}.wav")
    splits = WordsConfig(root=str(tmp_path)).build()
    assert [len(clips) for clips in splits] == [6, 4, 2]
    assert splits.train.class_names == ("a", "b")


def test_names_may_hold_the_word(tmp_path: Path) -> None:
    for i in range(3):
        for digit in "03":
            say(tmp_path / f"{digit}_s{i}_0.wav")
    clips = WordsConfig(root=str(tmp_path), pattern=r"^(?P<word>\d)_(?P<speaker>s\d)_").load()
    assert clips.class_names == ("0", "3")
    assert clips.speaker_names() == ["s0", "s1", "s2"]


def test_training_on_everything_is_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        splits = WordsConfig(root=str(folder), pattern=SPEAKER, train_on="all").build()
    assert len(splits.train) == 40
    assert set(splits.test.names) < set(splits.train.names)
    assert "no estimate" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pattern": "("}, "is no regular expression"),
        ({"pattern": r"\d+"}, r"has neither group; write \(\?P<speaker>"),
        ({"classes": ["ja", "oui"]}, "no recording of oui"),
        ({"classes": ["ja"]}, "only the word ja"),
        ({"train_on": "test"}, "train_on=test is unknown"),
        ({"lists": {"training": "none.csv"}}, r"no list .*none\.csv"),
        ({"lists": {"trainig": "none.csv"}}, "lists names trainig"),
        ({"valid_fraction": 0.9}, "sum to less than 1"),
    ],
)
def test_what_cannot_be_read_is_named_with_the_remedy(folder: Path, options: dict, message: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        WordsConfig(**{"root": str(folder), "pattern": SPEAKER, **options}).build()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"test\.csv: the list is empty"),
        (b"file,class\nja/v0_0.wav\n", r"test\.csv: line 2 has 1 of 2 columns"),
        (b"name,class\nx,ja\n", r"test\.csv: no column of paths among name, class"),
        (b"file,set\nja/v0_0.wav,later\n", r"test\.csv: line 2 names the set 'later'"),
        (b"\xff\xfe\x00", r"test\.csv is not UTF-8"),
        (b"\xe9t\xe9.wav", r"test\.csv is not UTF-8"),
        (b"file\nja/strange.wav\n", r"test\.csv: none of the 1 listed recordings"),
    ],
)
def test_a_damaged_list_is_named(folder: Path, content: bytes, message: str) -> None:
    (folder / "test.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        WordsConfig(root=str(folder), pattern=SPEAKER).build()


def test_one_recording_in_two_lists_is_refused(folder: Path) -> None:
    for name in ("train", "test"):
        (folder / f"{name}.csv").write_text("file\nja/v0_0.wav\n")
    with pytest.raises(ValueError, match="is in training and in testing"):
        WordsConfig(root=str(folder), pattern=SPEAKER).build()


def test_the_published_split_of_arabic_speech_commands() -> None:
    root = data_folder("arabic_speech_commands")
    splits = WordsConfig(root=str(root), pattern=r"(?P<speaker>\d+)_NO_\d+$").build()
    assert [(len(clips), len(clips.speaker_names())) for clips in splits] == [(7200, 18), (2400, 6), (2400, 6)]
    assert splits.shared_speakers() == []
    assert len(splits.train.class_names) == 40
    assert len(splits.test.waveforms[0]) == 16_000


@pytest.mark.parametrize(
    "rows",
    [
        ("# made by hand", '"{word}/{name}.wav"'),
        ('"{word}/{name}.wav","{word}"',),
        ("C:\\data\\{word}\\{name}.wav",),
        ("/home/ann/clips/{word}/{name}.wav",),
        ("wav_filename;wav_filesize;transcript", "{word}/{name}.wav;3200;{word}"),
        (",path,label", "0,{word}/{name}.wav,{word}"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_list_is_read_as_spreadsheets_and_other_machines_write_it(
    tmp_path: Path, rows: tuple[str, ...], encoding: str
) -> None:
    words = ("f\u00fcr", "wider")
    for word in words:
        for i in range(6):
            say(tmp_path / unicodedata.normalize("NFD", word) / f"s{i}.flac")
    for name, speakers in (("train", range(4)), ("val", [4]), ("test", [5])):
        lines = [rows[-1].format(word=w, name=f"s{i}") for w in words for i in speakers]
        (tmp_path / f"{name}.csv").write_text("\r\n".join([*rows[:-1], *lines]), encoding)
    splits = WordsConfig(root=str(tmp_path)).build()
    assert [len(clips) for clips in splits] == [8, 2, 2]
    assert splits.train.class_names == words


def test_voices_on_both_sides_of_a_given_split_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, speakers in (("train", "abc"), ("valid", "d"), ("test", "ae")):
        for word in ("yes", "no"):
            for speaker in speakers:
                say(tmp_path / name / word / f"{speaker}_{name}.wav")
    WordsConfig(root=str(tmp_path), pattern=r"(?P<speaker>[a-z])_").build()
    assert "1 of 2 test speakers are in the training set too" in caplog.text
    assert "validation speakers" not in caplog.text


def test_names_that_no_report_can_hold_are_left_out_aloud(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for word in ("yes", "Yes", "no"):
        for name in "abc":
            say(tmp_path / word / f"{name}.wav")
    os.rename(tmp_path / "no" / "a.wav", os.fsencode(tmp_path / "no") + b"/f\xfcr.wav")
    clips = WordsConfig(root=str(tmp_path)).load()
    assert len(clips) == 8
    assert "1 of 9 files not read: 1 names that are not UTF-8 (rename" in caplog.text
    assert "differ in case or spaces only: 'Yes', 'yes'" in caplog.text
