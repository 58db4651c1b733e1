"""Speech Commands: the published rule, the two folder forms, twelve classes made of thirty-five, nothing read early."""

import hashlib
import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile

from spikeloom.speech.datasets.audio import AudioError
from spikeloom.speech.datasets.noise import cut_noise
from spikeloom.speech.datasets.speech_commands import (
    CLASSES,
    OTHER_WORDS,
    TEN_WORDS,
    CommandsConfig,
    find_recordings,
    hash_percentage,
    which_set,
)
from spikeloom.speech.datasets.utterances import AudioFiles, Utterances
from tests.conftest import data_folder

PEOPLE = ("022cd682", "0a7c2a8d", "0cb74144", "11aa22bb", "5d6e7f80", "9c0ffee0")  # of all three sets by the hash


def touch(path: Path, seconds: float = 0.1, value: float = 0.1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.full(round(16_000 * seconds), value), 16_000)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive's layout: every word by every person, noise, no list files."""
    root = tmp_path_factory.mktemp("archive")
    for word in CLASSES[35]:
        for person in PEOPLE:
            touch(root / word / f"{person}_nohash_0.wav")
    rng = np.random.default_rng(0)
    for name, seconds in (("pink_noise", 40), ("tap", 25)):
        touch(root / "_background_noise_" / f"{name}.wav")
        soundfile.write(root / "_background_noise_" / f"{name}.wav", 0.1 * rng.random(16_000 * seconds), 16_000)
    return root


@pytest.fixture
def twelve(tmp_path: Path) -> Path:
    """The 12-class form: forty people, number files for silence, the word in front of the speaker for unknown."""
    for k in range(40):
        person = hashlib.md5(str(k).encode()).hexdigest()[:8]
        touch(tmp_path / "yes" / f"{person}_nohash_0.wav")
        touch(tmp_path / "go" / f"{person}_nohash_1.wav")
        touch(tmp_path / "_unknown_" / f"{OTHER_WORDS[k % 25]}_{person}_nohash_2.wav.wav")
        touch(tmp_path / "_silence_" / f"{1000 + k}.wav")
    return tmp_path


def test_the_published_hash_rule() -> None:
    for speaker, percentage, found in (
        ("022cd682", 12.0836, "testing"), ("0cb74144", 19.3065, "testing"),
        ("0a7c2a8d", 56.8364, "training"), ("bb05582b", 18.1327, "testing"),
    ):  # fmt: skip
        assert hash_percentage(speaker) == pytest.approx(percentage, abs=1e-4)
        for name in (
            f"{speaker}_nohash_0.wav", f"yes/{speaker}_nohash_13.wav", f"_unknown_/bed_{speaker}_nohash_1.wav.wav",
        ):  # fmt: skip
            assert which_set(name) == found


def test_the_clips_of_the_published_test_set_hash_to_it() -> None:
    recordings = find_recordings(data_folder("speech_commands"), 12)
    spoken = [recording for recording in recordings if recording.speaker]
    assert {which_set(recording.path.name) for recording in spoken} == {"testing"}
    assert {which_set(f"{r.path.parent.name}/{r.path.name}") for r in spoken} == {"testing"}
    assert {r.word for r in spoken if r.path.parent.name == "_unknown_"} <= set(OTHER_WORDS)
    assert all(len(recording.speaker) == 8 for recording in spoken)


def test_real_clips_are_split_by_speaker_and_every_class_is_in_every_set() -> None:
    root = str(data_folder("speech_commands"))
    everything = CommandsConfig(root=root, classes=12).load()
    splits = CommandsConfig(root=root, classes=12, split="speakers").build()
    names = [set(split.names) for split in splits]
    assert sum(map(len, names)) == len(set().union(*names)) == len(everything)
    people = [set(split.speaker_names()) for split in splits]
    assert not (people[0] & people[1] or people[0] & people[2] or people[1] & people[2])
    assert [len(p) for p in people[1:]] == [round(0.15 * len(everything.speaker_names()))] * 2
    assert all(len(np.unique(split.labels)) == len(np.unique(everything.labels)) for split in splits)
    clip = splits.test.waveforms[0]
    assert clip.dtype == np.float32 and 0 < len(clip) <= 16_000


def test_thirty_five_classes_are_the_words_split_by_the_rule(archive) -> None:
    splits = CommandsConfig(root=str(archive)).build()
    assert splits.train.class_names == CLASSES[35] and len(CLASSES[35]) == 35
    for split, name in zip(splits, ("training", "validation", "testing"), strict=True):
        assert {which_set(f"{person}_nohash_0.wav") for person in split.speaker_names()} == {name}
        assert np.bincount(split.labels).tolist() == [len(split.speaker_names())] * 35
    assert sum(map(len, splits)) == 35 * len(PEOPLE)


def test_list_files_decide_where_they_are(archive, tmp_path, caplog) -> None:
    for folder in archive.iterdir():
        (tmp_path / folder.name).symlink_to(folder)
    (tmp_path / "validation_list.txt").write_text("yes/022cd682_nohash_0.wav\ngo/022cd682_nohash_0.wav\n")
    with pytest.raises(FileNotFoundError, match=r"testing_list\.txt beside validation_list\.txt"):
        CommandsConfig(root=str(tmp_path)).build()
    (tmp_path / "testing_list.txt").write_text("no/0a7c2a8d_nohash_0.wav\nno/gone_nohash_0.wav\n")
    with caplog.at_level(logging.WARNING):
        splits = CommandsConfig(root=str(tmp_path)).build()
    assert "1 of 4 clips named in the list files" in caplog.text
    assert splits.valid.names == ["go/022cd682_nohash_0", "yes/022cd682_nohash_0"]
    assert splits.test.names == ["no/0a7c2a8d_nohash_0"]
    assert len(splits.train) == 35 * len(PEOPLE) - 3


def test_twelve_classes_hold_as_many_unknown_and_silent_clips_as_of_a_word(archive) -> None:
    splits = CommandsConfig(root=str(archive), classes=12).build()
    for split in splits:
        share = len(split.speaker_names())
        assert split.class_names == (*TEN_WORDS, "_unknown_", "_silence_")
        assert np.bincount(split.labels, minlength=12).tolist() == [share] * 12
    assert len(CommandsConfig(root=str(archive), classes=12).load()) == 35 * len(PEOPLE)


def test_the_draw_of_unknown_words_and_noise_follows_the_seed(archive) -> None:
    def names(seed: int) -> list[list[str]]:
        return [split.names for split in CommandsConfig(root=str(archive), classes=12, split_seed=seed).build()]

    assert names(1) == names(1)
    assert names(1) != names(2)


def test_noise_of_different_sets_shares_no_sample(archive) -> None:
    def samples(stretch: tuple[float, float]) -> set[tuple[int, int]]:
        cuts = cut_noise(archive / "_background_noise_", 50, 16_000, stretch, np.random.default_rng(0)).cuts
        return {(recording, at) for recording, start in cuts for at in range(start, start + 16_000)}

    train, valid, test = (samples(stretch) for stretch in ((0, 0.8), (0.8, 0.9), (0.9, 1)))
    assert not (train & valid or train & test or valid & test)


def test_a_cut_of_noise_is_the_second_its_name_says(archive) -> None:
    cuts = cut_noise(archive / "_background_noise_", 5, 16_000, (0, 0.8), np.random.default_rng(0))
    again = pickle.loads(pickle.dumps(cuts))
    for i, name in enumerate(cuts.names()):
        stem, start = name.rsplit("_", 1)
        whole, _ = soundfile.read(archive / "_background_noise_" / f"{stem}.wav", dtype="float32")
        assert np.array_equal(cuts[i], whole[int(start) : int(start) + 16_000])
        assert np.array_equal(again[i], cuts[i])


def test_without_noise_there_is_no_silence(archive, tmp_path) -> None:
    for folder in archive.iterdir():
        if folder.name != "_background_noise_":
            (tmp_path / folder.name).symlink_to(folder)
    with pytest.raises(FileNotFoundError, match="_background_noise_"):
        CommandsConfig(root=str(tmp_path), classes=12).build()
    touch(tmp_path / "_background_noise_" / "short.wav", 2)
    with pytest.raises(ValueError, match="no recording has a second between 80% and 90%"):
        CommandsConfig(root=str(tmp_path), classes=12).build()


def test_the_published_test_folder_is_the_test_split_whole(archive, twelve) -> None:
    splits = CommandsConfig(root=str(archive), classes=12, test_root=str(twelve)).build()
    assert np.bincount(splits.test.labels, minlength=12).tolist() == [40, 0, 0, 0, 0, 0, 0, 0, 0, 40, 40, 40]
    assert len(splits.train) == 12 * len(splits.train.speaker_names())
    with pytest.raises(ValueError, match=r"use data\.classes=12"):
        CommandsConfig(root=str(archive), test_root=str(twelve)).build()


def test_the_twelve_class_form_is_read_and_has_no_published_training_set(twelve) -> None:
    clips = CommandsConfig(root=str(twelve), classes=12).load()
    assert clips.speakers.count("") == 40 and len(clips.speaker_names()) == 40
    assert np.bincount(clips.labels)[[0, 9, 10, 11]].tolist() == [40] * 4
    with pytest.raises(ValueError, match=r"empty .*use data\.split=speakers"):
        CommandsConfig(root=str(_only_test_people(twelve)), classes=12).build()
    with pytest.raises(ValueError, match=r"use data\.classes=12"):
        CommandsConfig(root=str(twelve)).load()


def _only_test_people(root: Path) -> Path:
    for file in root.glob("*/*_nohash_*"):
        if which_set(file.name) != "testing":
            file.unlink()
    return root


def test_split_by_speaker_follows_the_seed_and_keeps_its_shares(twelve) -> None:
    chosen = set()
    for seed in range(4):
        splits = CommandsConfig(root=str(twelve), classes=12, split="speakers", split_seed=seed).build()
        assert [len(split.speaker_names()) for split in splits] == [28, 6, 6]
        assert [split.speakers.count("") for split in splits] == [28, 6, 6]
        assert splits.shared_speakers() == []
        chosen.add(tuple(splits.test.speaker_names()))
    assert len(chosen) == 4
    for bad in ({"valid_fraction": 0.0}, {"valid_fraction": 0.5, "test_fraction": 0.5}):
        with pytest.raises(ValueError, match=r"use 0\.15 each"):
            CommandsConfig(root=str(twelve), classes=12, split="speakers", **bad).build()


def test_a_folder_with_some_of_the_classes_is_scored_as_it_is(twelve) -> None:
    for name in ("yes", "_silence_"):
        for file in (twelve / name).iterdir():
            file.unlink()
        (twelve / name).rmdir()
    clips = CommandsConfig(root=str(twelve), classes=12).load()
    assert clips.class_names == CLASSES[12]
    assert np.unique(clips.labels).tolist() == [9, 10]


def test_building_reads_no_clip(archive, monkeypatch) -> None:
    monkeypatch.setattr(AudioFiles, "read", lambda *_: pytest.fail("a clip was read"))
    splits = CommandsConfig(root=str(archive), classes=12).build()
    assert isinstance(splits.train, Utterances)
    CommandsConfig(root=str(archive)).load().of_speakers([PEOPLE[0]])


def test_a_damaged_clip_is_named_when_it_is_read(twelve) -> None:
    bad = min((twelve / "yes").iterdir())
    bad.write_bytes(bad.read_bytes()[:100])
    clips = CommandsConfig(root=str(twelve), classes=12).load()
    with pytest.raises(AudioError, match=bad.name):
        clips.waveforms[clips.names.index(f"yes/{bad.stem}")]


def test_wrong_folders_and_values_say_what_to_do(tmp_path, archive) -> None:
    for folder in (tmp_path / "nothing", tmp_path):
        with pytest.raises(FileNotFoundError) as caught:
            CommandsConfig(root=str(folder)).load()
        for needed in (str(folder), "speech_commands_v0.02.tar.gz", "af14739e", "data.root"):
            assert needed in str(caught.value)
    with pytest.raises(ValueError, match="use 35 or 12"):
        CommandsConfig(root=str(archive), classes=10).load()
    with pytest.raises(ValueError, match="use published or speakers"):
        CommandsConfig(root=str(archive), split="random").build()
    touch(tmp_path / "0_ann_0.wav")  # the layout of spoken digits: wavs without class folders
    with pytest.raises(FileNotFoundError, match="no folder of a word"):
        CommandsConfig(root=str(tmp_path)).load()
    touch(tmp_path / "recordings" / "0_ann_0.wav")
    with pytest.raises(ValueError, match="recordings is no class of Speech Commands"):
        CommandsConfig(root=str(tmp_path)).load()


def test_own_recordings_are_read_and_their_names_mentioned(tmp_path, caplog) -> None:
    touch(tmp_path / "yes" / "me_0.wav")
    touch(tmp_path / "no" / "me_1.wav")
    with caplog.at_level(logging.WARNING):
        assert len(CommandsConfig(root=str(tmp_path)).load()) == 2
    assert "2 of 2 recordings are not named" in caplog.text
