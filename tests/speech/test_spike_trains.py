"""Labelled clips of either kind: selecting reads nothing, and gives the clips a plain list would give."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile

from spikeloom.speech.datasets.audio import AudioError
from spikeloom.speech.datasets.clips import LazySequence, Selection, concatenate
from spikeloom.speech.datasets.spike_trains import Events, SpikeTrains
from spikeloom.speech.datasets.utterances import (
    AudioFiles,
    Utterances,
    hold_out_one_speaker,
    split_by_speaker,
    split_off_clips,
)
from tests.timing import least_s


class Counted(LazySequence[Events]):
    """Clip i is one event of unit i; counts how often it is read."""

    def __init__(self, n: int) -> None:
        self.n, self.reads = n, 0

    def __len__(self) -> int:
        return self.n

    def read(self, index: int) -> Events:
        self.reads += 1
        return Events(np.array([0.1]), np.array([index]))


def trains(events, speakers: int = 4) -> SpikeTrains:
    n = len(events)
    return SpikeTrains(
        events=events, labels=np.arange(n) % 3, speakers=[f"s{i % speakers}" for i in range(n)],
        names=[f"clip{i}" for i in range(n)], class_names=("a", "b", "c"), n_units=n,
    )  # fmt: skip


def unit_of(events: Events) -> int:
    return int(events.units[0])


def test_selecting_lazily_gives_what_selecting_from_a_list_gives() -> None:
    lazy, eager = trains(Counted(24)), trains([Events(np.array([0.1]), np.array([i])) for i in range(24)])
    for change in (
        lambda clips: clips.select([5, 2, 23]),
        lambda clips: clips.of_speakers(["s1", "s3"]),
        lambda clips: clips.of_speakers(["s1", "s3"]).select([4, 0]),
        lambda clips: split_by_speaker(clips, test_speakers=["s0"], valid_speakers=["s2"]).train,
        lambda clips: hold_out_one_speaker(clips, test_speaker="", valid_speaker="", valid_fraction=0, seed=3).test,
        lambda clips: split_off_clips(clips, "s3", 0.25, 1).valid,
    ):
        one, other = change(lazy), change(eager)
        assert [unit_of(e) for e in one.events] == [unit_of(e) for e in other.events]
        assert (one.names, one.speakers) == (other.names, other.speakers)
        assert one.labels.tolist() == other.labels.tolist()
        assert one.names == [f"clip{unit_of(e)}" for e in one.events]


def test_opening_selecting_and_splitting_75466_clips_reads_none_and_takes_time_in_proportion() -> None:
    events = Counted(75_466)
    clips = trains(events, speakers=100)
    few = trains(Counted(7_546), speakers=100)
    short_s, long_s = least_s(
        lambda: split_by_speaker(few, test_speakers=["s0"], valid_speakers=["s1"]),
        lambda: split_by_speaker(clips, test_speakers=["s0"], valid_speakers=["s1"]), runs=3,
    )  # fmt: skip
    assert long_s < 40 * short_s  # ten times the clips; a quadratic search would take 100 times as long
    splits = split_by_speaker(clips, test_speakers=["s0"], valid_speakers=["s1"])
    again = splits.train.select(range(1000))
    assert events.reads == 0
    assert [len(split) for split in splits] == [73_956, 755, 755]
    assert unit_of(again.events[-1]) == 1021
    assert events.reads == 1


def test_a_selection_of_a_selection_is_one_selection() -> None:
    events = Counted(10)
    twice = trains(events).select([9, 7, 5, 3]).select([2, 0]).events
    assert isinstance(twice, Selection) and twice.source is events
    assert twice.indices.tolist() == [5, 9]
    assert [unit_of(e) for e in twice[1:]] == [9]
    with pytest.raises(IndexError):
        twice[2]


def test_concatenated_clips_keep_their_order_and_each_reads_from_its_own_source() -> None:
    first, second = Counted(4), Counted(3)
    both = concatenate([trains(first), trains(second).select([2, 1])])
    assert [unit_of(e) for e in both.events] == [0, 1, 2, 3, 2, 1]
    assert both.names == ["clip0", "clip1", "clip2", "clip3", "clip2", "clip1"]
    assert (first.reads, second.reads) == (4, 2)
    with pytest.raises(ValueError, match="classes"):
        concatenate([trains(first), SpikeTrains(**{**vars(trains(second)), "class_names": ("a", "b", "d")})])


def test_spike_trains_refuse_what_cannot_be_trained_on() -> None:
    good = vars(trains([Events(np.zeros(1), np.zeros(1, int))] * 3))
    for change, message in [
        ({"labels": np.array([0, 1, 3])}, r"labels span 0\.\.3"),
        ({"names": ["x"]}, "events, labels, speakers, names differ in length"),
        ({"class_names": ("a",)}, "two or more"),
        ({"events": [], "labels": np.zeros(0, int), "speakers": [], "names": []}, "no utterances"),
    ]:
        with pytest.raises(ValueError, match=message):
            SpikeTrains(**{**good, **change})


def test_a_clip_without_a_speaker_adds_no_name() -> None:
    clips = SpikeTrains(**{**vars(trains(Counted(3))), "speakers": ["ann", "", "bob"]})
    assert clips.speaker_names() == ["ann", "bob"]


def wavs(folder: Path, seconds: tuple[float, ...] = (0.5, 0.25), rate_hz: int = 16_000) -> Utterances:
    paths = []
    for i, length in enumerate(seconds):
        paths.append(str(folder / f"{i}.wav"))
        soundfile.write(paths[-1], 0.1 * np.ones(round(length * rate_hz)), rate_hz)
    return Utterances(
        waveforms=AudioFiles(paths, 16_000), labels=np.arange(len(paths)) % 2, speakers=["s"] * len(paths), names=paths,
        class_names=("a", "b"), sample_rate_hz=16_000,
    )  # fmt: skip


def test_wav_files_are_read_when_indexed_and_measured_by_their_headers(tmp_path, monkeypatch) -> None:
    clips = wavs(tmp_path)
    monkeypatch.setattr(AudioFiles, "read", lambda *_: pytest.fail("a clip was read"))
    assert clips.n_samples.tolist() == [8000, 4000]
    assert clips.select([1]).n_samples.tolist() == [4000]
    monkeypatch.undo()
    assert [len(waveform) for waveform in clips.waveforms] == [8000, 4000]
    slow = wavs(tmp_path, (0.3001,), rate_hz=8000)
    assert slow.n_samples.tolist() == [len(slow.waveforms[0])]


def test_a_damaged_wav_is_named_when_it_is_read(tmp_path) -> None:
    clips = wavs(tmp_path)
    (tmp_path / "1.wav").write_bytes(b"RIFF")
    assert len(clips.waveforms[0]) == 8000
    for look in (lambda: clips.waveforms[1], lambda: clips.n_samples):
        with pytest.raises(AudioError, match=r"1\.wav"):
            look()


def test_lazy_clips_travel_to_another_process(tmp_path) -> None:
    clips = wavs(tmp_path).select([1, 0])
    again = pickle.loads(pickle.dumps(clips))
    assert np.array_equal(again.waveforms[0], clips.waveforms[0])
