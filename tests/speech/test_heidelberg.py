"""Spikes from HDF5: as published, read one clip at a time, and every damaged file is one clear error."""

import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from spikeloom.speech.datasets.shd import CHECKSUMS, SHDConfig, SpikeFileConfig, SSCConfig
from spikeloom.speech.datasets.spike_files import read_spike_file
from spikeloom.speech.datasets.spike_trains import SpikeTrains

SHD_TRAINING = (0, 1, 2, 3, 6, 7, 8, 9, 10, 11)
REMOVED: Any = object()


def write(path: Path, speakers=(0, 1, 2), per_speaker: int = 4, dtype=np.float16, **fields: Any) -> Path:
    """A file in the published layout: clip i holds i events at 0.1, 0.2, … s on units 0, 1, …; `fields` replace others.

    A name in `fields` is written with __ for the slash; REMOVED leaves the field out.
    """
    n = len(speakers) * per_speaker
    content = {
        "spikes/times": [np.arange(1, i + 1) / 10 for i in range(n)],
        "spikes/units": [np.arange(i) for i in range(n)],
        "labels": np.arange(n) % 2,
        "extra/speaker": np.repeat(speakers, per_speaker),
        "extra/keys": np.array([b"zero", b"one"]),
        **{name.replace("__", "/"): value for name, value in fields.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in content.items():
            if values is not REMOVED and name.startswith("spikes/") and isinstance(values, list):
                kind = h5py.vlen_dtype(dtype if name.endswith("times") else np.uint16)
                rows = file.create_dataset(name, (len(values),), dtype=kind)
                for i, row in enumerate(values):
                    rows[i] = row
            elif values is not REMOVED:
                file[name] = values
    return path


def write_shd(root: Path) -> str:
    write(root / "shd_train.h5", SHD_TRAINING)
    write(root / "shd_test.h5", (4, 5, 0, 6), per_speaker=2)
    return str(root)


def write_ssc(root: Path) -> str:
    for split, speakers in (("train", (1, 2)), ("valid", (3,)), ("test", (4,))):
        write(root / f"ssc_{split}.h5", speakers)
    return str(root)


def test_times_are_float64_before_anything_scales_them(tmp_path) -> None:
    spoken_s = np.array([0.3, 0.9, 1.1999, 1.2])
    clips = read_spike_file(
        write(tmp_path / "a.h5", spikes__times=[spoken_s] * 12, spikes__units=[[5, 6, 7, 699]] * 12)
    )
    times_s, units = clips.events[3]
    assert (times_s.dtype, units.dtype) == (np.float64, np.int64)
    assert np.array_equal(times_s, spoken_s.astype(np.float16).astype(np.float64))
    assert np.isfinite(times_s * 1e6).all()  # a float16 of microseconds is infinite
    assert np.abs(times_s * 1000 - spoken_s * 1000).max() < 0.5  # the step of float16 at 1.2 s is 0.98 ms
    assert units.tolist() == [5, 6, 7, 699]


def test_fields_become_labels_speakers_and_names(tmp_path) -> None:
    clips = read_spike_file(write(tmp_path / "a.h5"))
    assert (clips.class_names, clips.n_units) == (("zero", "one"), 700)
    assert clips.labels.tolist() == [0, 1] * 6
    assert clips.speaker_names() == ["0", "1", "2"]
    assert clips.names[:2] == ["a/0", "a/1"]
    assert [len(events.times_s) for events in clips.events] == list(range(12))
    named = {"extra__speaker_names": ["ann", "bob", "eve"], "extra__names": [f"take{i}" for i in range(12)]}
    clips = read_spike_file(write(tmp_path / "b.h5", dtype=np.float32, **named))
    assert clips.speaker_names() == ["ann", "bob", "eve"]
    assert clips.names[7] == "take7"


def test_opening_a_large_file_reads_no_spikes(tmp_path, monkeypatch) -> None:
    n = 75_466
    path = tmp_path / "large.h5"
    with h5py.File(path, "w") as file:
        for name, kind in (("times", np.float16), ("units", np.int64)):
            file.create_dataset(f"spikes/{name}", (n,), dtype=h5py.vlen_dtype(kind))
        file["labels"], file["extra/speaker"] = np.arange(n) % 35, np.arange(n) % 100
        file["extra/keys"] = np.array([f"w{i}".encode() for i in range(35)])
    read = []
    index = h5py.Dataset.__getitem__
    monkeypatch.setattr(h5py.Dataset, "__getitem__", lambda self, at: read.append(self.name) or index(self, at))
    clips = read_spike_file(path)
    assert len(clips) == n
    assert sorted(set(read)) == ["/extra/keys", "/extra/speaker", "/labels"]
    assert len(clips.events[10].times_s) == 0
    assert read.count("/spikes/times") == 1


def events_of_each(clips: SpikeTrains) -> list[int]:
    return [len(events.times_s) for events in clips.events]


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_worker_opens_the_file_for_itself(tmp_path, start) -> None:
    clips = read_spike_file(write(tmp_path / "a.h5")).select(range(11, -1, -1))
    expected = events_of_each(clips)  # the handle is open in this process
    with multiprocessing.get_context(start).Pool(2) as pool:
        assert pool.map(events_of_each, [clips] * 4) == [expected] * 4
    assert events_of_each(clips) == expected


def test_a_pickled_file_is_its_path(tmp_path) -> None:
    clips = read_spike_file(write(tmp_path / "a.h5"))
    before = len(pickle.dumps(clips.events))
    assert len(clips.events[5].units) == 5
    assert len(pickle.dumps(clips.events)) == before < 1000
    assert len(pickle.loads(pickle.dumps(clips)).events[5].units) == 5


def test_shd_validation_is_of_speakers_training_never_hears(tmp_path) -> None:
    root = write_shd(tmp_path)
    chosen = set()
    for seed in range(5):
        splits = SHDConfig(root=root, split_seed=seed).build()
        assert not set(splits.train.speakers) & set(splits.valid.speakers)
        assert len(splits.valid.speaker_names()) == 2
        assert len(splits.train) + len(splits.valid) == 4 * len(SHD_TRAINING)
        chosen.add(tuple(splits.valid.speaker_names()))
    assert len(chosen) > 1
    named = SHDConfig(root=root, valid_speaker_names=["0", "11"]).build()
    assert named.valid.speaker_names() == ["0", "11"]


def test_shd_says_which_test_speakers_are_heard_in_training(tmp_path) -> None:
    splits = SHDConfig(root=write_shd(tmp_path), valid_speaker_names=["6"]).build()
    assert splits.shared_speakers() == ["0"]  # 6 is only in validation; 4 and 5 are in no other file
    assert splits.test.speaker_names() == ["0", "4", "5", "6"]


def test_ssc_is_split_as_published(tmp_path) -> None:
    splits = SSCConfig(root=write_ssc(tmp_path)).build()
    assert [split.speaker_names() for split in splits] == [["1", "2"], ["3"], ["4"]]
    assert splits.shared_speakers() == []


def test_load_gives_all_clips_of_a_folder_or_of_one_file(tmp_path) -> None:
    root = write_shd(tmp_path)
    everything = SHDConfig(root=root).load()
    assert len(everything) == 48
    assert (everything.names[0], everything.names[-1]) == ("shd_train/0", "shd_test/7")
    assert [len(everything.events[i].units) for i in (39, 40, 47)] == [39, 0, 7]
    assert len(SHDConfig(root=f"{root}/shd_test.h5").load()) == 8
    assert len(SSCConfig(root=write_ssc(tmp_path / "ssc")).load()) == 16
    with pytest.raises(ValueError, match="one file without a split"):
        SHDConfig(root=f"{root}/shd_test.h5").build()


def test_one_file_is_split_by_speaker(tmp_path) -> None:
    write(tmp_path / "a.h5", speakers=(0, 1, 2, 3))
    for seed in range(4):
        splits = SpikeFileConfig(root=str(tmp_path), split_seed=seed).build()
        assert [len(split.speaker_names()) for split in splits] == [2, 1, 1]
        assert len(set().union(*(split.speaker_names() for split in splits))) == 4
    splits = SpikeFileConfig(root=str(tmp_path / "a.h5"), test_speaker="2", valid_fraction=0.25).build()
    assert (splits.test.speaker_names(), len(splits.valid)) == (["2"], 3)
    write(tmp_path / "b.h5")
    with pytest.raises(ValueError, match=r"holds 2 \.h5 files"):
        SpikeFileConfig(root=str(tmp_path)).load()


@pytest.mark.parametrize("config", [SHDConfig, SSCConfig])
def test_a_missing_file_says_where_it_comes_from_and_where_it_goes(tmp_path, config) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        config(root=str(tmp_path)).build()
    name = f"{config.source}_train.h5"
    for needed in (str(tmp_path / name), "zenkelab.org/datasets", CHECKSUMS[f"{name}.zip"], "data.root"):
        assert needed in str(caught.value)


def test_a_packed_file_is_to_be_unzipped(tmp_path) -> None:
    (tmp_path / "shd_train.h5.gz").write_bytes(b"\x1f\x8b")
    for look in (SHDConfig(root=str(tmp_path)).build, SpikeFileConfig(root=str(tmp_path / "shd_train.h5.gz")).load):
        with pytest.raises((FileNotFoundError, ValueError), match="unzip it"):
            look()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"labels": REMOVED}, "no field labels"),
        ({"extra__keys": REMOVED}, "no field extra/keys"),
        ({"spikes__times": np.zeros(12)}, "one ragged row per clip"),
        ({"labels": np.zeros(5, int)}, "differ in length .*labels 5"),
        ({"labels": np.full(12, 2)}, r"labels span 2\.\.2; use 0\.\.1"),
        ({"labels": np.array([b"one"] * 12)}, "labels or speakers cannot be read"),
        ({"extra__speaker_names": ["ann"]}, r"spans 0\.\.2 for 1"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused_when_opened(tmp_path, fields, message) -> None:
    path = write(tmp_path / "a.h5", **fields)
    with pytest.raises(ValueError, match=message) as caught:
        read_spike_file(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"spikes__units": [np.full(i, 700) for i in range(12)]}, r"clip 3 has units 700\.\.700; use 0\.\.699"),
        ({"spikes__times": [np.full(i, np.nan) for i in range(12)]}, "clip 3 holds times that are NaN"),
        ({"spikes__times": [np.full(i, np.inf) for i in range(12)]}, "clip 3 holds times that are NaN or infinite"),
        ({"spikes__units": [np.arange(2)] * 12}, "clip 3 has 3 times and 2 units"),
    ],
)
def test_a_clip_that_cannot_be_used_is_named_when_it_is_read(tmp_path, fields, message) -> None:
    path = write(tmp_path / "a.h5", **fields)
    with pytest.raises(ValueError, match=message) as caught:
        read_spike_file(path).events[3]
    assert str(path) in str(caught.value)


def test_a_truncated_or_foreign_file_is_one_clear_error(tmp_path) -> None:
    path = write(tmp_path / "a.h5")
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"not HDF5 at all", b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.h5: not a whole HDF5 file .*copy or download it again"):
            read_spike_file(path)


def test_damage_inside_the_spikes_is_named_when_it_is_read(tmp_path) -> None:
    path = write(tmp_path / "a.h5")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"GCOL", b"XXXX"))  # the heaps that hold ragged rows
    clips = read_spike_file(path)
    with pytest.raises(ValueError, match=r"a\.h5: clip 3 cannot be read .*copy or download it again"):
        clips.events[3]
