"""Wavs to an HDF5 file of spikes: the published layout, equal bytes for equal input, and nothing half-written."""

import dataclasses
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import soundfile

from spikeloom.pipelines.cli import main
from spikeloom.speech.datasets.shd import SpikeFileConfig
from spikeloom.speech.datasets.utterances import Utterances
from spikeloom.speech.features.cochlea.cochlea import CochleaConfig
from spikeloom.speech.features.cochlea.convert import clip_id, convert, read_recordings


def recordings(n: int = 20, seconds: float = 0.06) -> Utterances:
    rng = np.random.default_rng(0)
    return Utterances(
        waveforms=[rng.standard_normal(round(seconds * 8000) + i).astype(np.float32) / 9 for i in range(n)],
        labels=np.arange(n) % 3,
        speakers=[("ann", "", "böb")[i % 3] for i in range(n)],
        names=[f"clip_{i}" for i in range(n)],
        class_names=("yes", "no", "maybe"),
        sample_rate_hz=8000,
    )


def write_digits(folder: Path) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("0_ann_0", "1_ann_0", "0_bob_0", "1_bob_0", "0_eve_0", "1_eve_0"):
        soundfile.write(folder / f"{name}.wav", 0.1 * rng.standard_normal(600), 8000)


def test_the_file_has_the_published_layout_and_loads(tmp_path: Path) -> None:
    given = recordings()
    n_events = convert(given, CochleaConfig(seed=5), tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        assert h5py.check_vlen_dtype(file["spikes/times"].dtype) == np.float32
        assert h5py.check_vlen_dtype(file["spikes/units"].dtype).kind == "u"
        assert file["labels"].dtype.kind == file["extra/speaker"].dtype.kind == "u"
        assert file["extra/keys"][:].tolist() == [b"yes", b"no", b"maybe"]
        assert (int(file.attrs["seed"]), int(file.attrs["fs"])) == (5, 16000)
        constants = json.loads(file.attrs["constants"])
        assert (constants["membrane"]["stiffness"], constants["hair_cell"]["g"]) == (1e9, 2000)
        assert (constants["bushy_cell"]["n_afferents"], constants["sound"]["drive_gain"]) == (40, 30)
        assert file.attrs["version"]
    read = SpikeFileConfig(root=str(tmp_path / "a.h5")).load()
    assert (read.names, read.speakers, read.class_names) == (given.names, given.speakers, given.class_names)
    assert read.labels.tolist() == given.labels.tolist()
    assert sum(len(events.units) for events in read.events) == n_events > 0
    for events in read.events:
        assert (np.diff(events.times_s) >= 0).all()
        assert events.times_s.max() < 0.07


def test_equal_bytes_for_any_batch_size_and_other_spikes_for_another_seed(tmp_path: Path) -> None:
    for name, seed, batch_size in (("one", 0, 1), ("sixteen", 0, 16), ("other", 1, 16)):
        convert(recordings(), CochleaConfig(seed=seed), tmp_path / name, batch_size=batch_size)
    one, sixteen, other = ((tmp_path / name).read_bytes() for name in ("one", "sixteen", "other"))
    assert one == sixteen
    read = [SpikeFileConfig(root=str(tmp_path / name)).load().events for name in ("one", "other")]
    assert not all(np.array_equal(a.units, b.units) for a, b in zip(*read, strict=True))
    assert one != other


def test_a_clip_does_not_depend_on_the_others(tmp_path: Path) -> None:
    convert(recordings(), CochleaConfig(), tmp_path / "all.h5")
    convert(recordings().select([7, 4]), CochleaConfig(), tmp_path / "two.h5")
    every, two = (SpikeFileConfig(root=str(tmp_path / name)).load().events for name in ("all.h5", "two.h5"))
    assert len(every[7].units) > 0
    for a, b in ((every[7], two[0]), (every[4], two[1])):
        assert np.array_equal(a.times_s, b.times_s)
        assert np.array_equal(a.units, b.units)
    assert clip_id("clip_7") != clip_id("clip_4")


def test_float16_keeps_every_event(tmp_path: Path) -> None:
    counts = [
        convert(recordings(3), CochleaConfig(), tmp_path / dtype, time_dtype=dtype) for dtype in ("float32", "float16")
    ]
    assert counts[0] == counts[1]
    exact, rounded = (SpikeFileConfig(root=str(tmp_path / dtype)).load().events for dtype in ("float32", "float16"))
    for a, b in zip(exact, rounded, strict=True):
        assert np.abs(a.times_s - b.times_s).max() < 1e-4


def test_a_clip_that_fails_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_text("an earlier file")
    waveforms = [*recordings(2).waveforms, np.zeros((2, 2), dtype=np.float32)]
    broken = dataclasses.replace(recordings(3), waveforms=waveforms)
    with pytest.raises(ValueError, match="must be finite samples"):
        convert(broken, CochleaConfig(), tmp_path / "a.h5")
    assert [f.name for f in tmp_path.iterdir()] == ["a.h5"]
    assert (tmp_path / "a.h5").read_text() == "an earlier file"
    for values, message in (({"time_dtype": "int8"}, "time_dtype=int8"), ({"batch_size": 0}, "got 0; use 16")):
        with pytest.raises(ValueError, match=message):
            convert(recordings(3), CochleaConfig(), tmp_path / "b.h5", **values)


def test_folders_of_both_forms_are_read(tmp_path: Path) -> None:
    write_digits(tmp_path / "recordings")
    assert read_recordings(tmp_path).names == read_recordings(tmp_path / "recordings").names
    assert read_recordings(tmp_path).speaker_names() == ["ann", "bob", "eve"]
    for word in ("yes", "_silence_"):
        (tmp_path / "commands" / word).mkdir(parents=True)
        shutil.copy(tmp_path / "recordings/0_ann_0.wav", tmp_path / "commands" / word / "0a_nohash_0.wav")
    commands = read_recordings(tmp_path / "commands")
    assert commands.names == ["_silence_/0a_nohash_0", "yes/0a_nohash_0"]
    assert len(commands.class_names) == 12
    shutil.rmtree(tmp_path / "commands" / "_silence_")
    assert len(read_recordings(tmp_path / "commands").class_names) == 35
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no recording in"):
        read_recordings(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="give in=FOLDER"):
        read_recordings(tmp_path / "nowhere")


def test_the_command_converts_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_digits(tmp_path / "wavs")
    monkeypatch.chdir(tmp_path)
    main(["data", "cochlea", "in=wavs", "out=spikes.h5", "cochlea.seed=2"])
    splits = SpikeFileConfig(root="spikes.h5", test_speaker="eve", valid_speaker="bob").build()
    assert [clips.speaker_names() for clips in splits] == [["ann"], ["bob"], ["eve"]]
    assert min(len(events.units) for clips in splits for events in clips.events) > 0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["out=a.h5"], "add in=FOLDER"),
        (["in=.", "out=a.html"], "use out=FILE.h5"),
        (["in=wavs", "out=a.h5", "cochlea.sample_rate_hz=8000"], "at least 16000"),
    ],
)
def test_mistakes_cost_one_line(
    overrides: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_digits(tmp_path / "wavs")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["data", "cochlea", *overrides])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "a.h5").exists()
