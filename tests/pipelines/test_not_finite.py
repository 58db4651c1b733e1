"""`data check` finds NaN and infinity in the files of every source of data that can hold them; of the others it is said
why there can be none."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile

from spikeloom.pipelines.commands import data
from spikeloom.pipelines.config.data import DataConfig
from spikeloom.pipelines.config.groups import GROUPS
from spikeloom.pipelines.config.register import register
from tests.fuzz.eeg import noise
from tests.pipelines.small_data import write_commands, write_digits, write_spikes, write_word

register()
CANNOT = {  # source -> why its files hold no number that is not finite
    "synthetic": "made in memory", "synthetic_zuco": "made in memory", "digits": "comes with scikit-learn",
    "cifar": "bytes", "mnist": "bytes", "cifar10dvs": "AEDAT 2: integers", "dvs128": "AEDAT 3: integers",
    "nmnist": "integers of 40 bits",
}  # fmt: skip


def a_nan(path: Path) -> None:
    """A recording of sound as floats, one of them NaN."""
    samples, rate_hz = soundfile.read(path)
    samples[len(samples) // 2] = np.nan
    soundfile.write(path, samples, rate_hz, "FLOAT")


def fsdd(root: Path) -> str:
    write_digits(root)
    a_nan(root / "1_bob_1.wav")
    return "1_bob_1.wav: 1 samples are NaN"


def gsc(root: Path) -> str:
    write_commands(root)
    a_nan(root / "yes/c4d5e6f7_nohash_0.wav")
    return "yes/c4d5e6f7_nohash_0.wav: 1 samples are NaN"


def words(root: Path) -> str:
    for name in (f"{word}/{speaker}{k}.wav" for word in "ab" for speaker in "xyz" for k in range(2)):
        write_word(root / name, 300, seconds=0.02)
    a_nan(root / "b/y1.wav")
    return "b/y1.wav: 1 samples are NaN"


def spiked(root: Path, *names: str) -> str:
    import h5py

    for i, name in enumerate(names):
        write_spikes(root / name, 40, 4, 4, seed=i)
    with h5py.File(root / names[-1], "r+") as file:
        times = file["spikes/times"][5]
        times[2] = np.inf
        file["spikes/times"][5] = times
    return f"{names[-1]}: clip 5 holds times that are NaN or infinite"


def images(root: Path) -> str:
    from PIL import Image

    for name in ("train/a/1.tif", "train/a/2.tif", "train/b/1.tif", "train/b/2.tif", "test/a/1.tif", "test/b/1.tif"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4), 7, np.uint8)).save(root / name)
    pixels = np.ones((4, 4), np.float32)
    pixels[2, 1] = np.nan
    Image.fromarray(pixels).save(root / "train/b/2.tif")
    return "train/b/2.tif: float32 values nan..nan"


def events(root: Path) -> str:
    rows = np.zeros(150_000, dtype=[("t", "i8"), ("x", "u2"), ("y", "u2"), ("p", "f4")])
    rows["t"], rows["x"] = np.arange(len(rows)), np.arange(len(rows)) % 9
    for name in ("train/a/1.npy", "train/a/2.npy", "train/b/1.npy", "train/b/2.npy", "test/a/1.npy", "test/b/1.npy"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(root / name, rows[:200])
    rows["p"][-1] = np.nan
    np.save(root / "test/b/1.npy", rows)
    return "test/b/1.npy, byte 0: polarities such as nan"


def zuco(root: Path) -> str:
    from tests.bci.zuco import published

    rng = np.random.default_rng(0)
    rows = [published.sentence(rng, [published.word(rng, "A", 0), published.word(rng, "book", 1)]) for _ in range(2)]
    rows[1]["mean_t1"] = np.full(105, np.inf)
    root.mkdir()
    published.write_matlab5(root / "resultsZAB_SR.mat", rows)
    return "not finite 1"


def recording(path: Path) -> None:
    raw = noise()
    raw._data[3, 100] = np.nan
    path.parent.mkdir(parents=True, exist_ok=True)
    raw.save(path, verbose="error")


def eeg(root: Path) -> str:
    recording(root / "x_raw.fif")
    return "1 channels with NaN or infinity left out (C4)"


def few_electrodes(root: Path) -> str:
    import mne

    values = np.random.default_rng(0).standard_normal((2, 300))
    values[1, 7] = np.inf
    root.mkdir()
    raw = mne.io.RawArray(1e-5 * values, mne.create_info(["left", "right"], 100.0, "eeg"), verbose="error")
    raw.save(root / "y_raw.fif", verbose="error")
    return "1 channels with NaN or infinity; not onto the net"


def bids_reading(root: Path) -> str:
    folder = root / "sub-1/eeg"
    recording(folder / "sub-1_task-read_eeg.fif")
    table = (
        "onset\tduration\ttrial_type\tword_index\tcontent\n0.1\t2.5\tsentence\tn/a\ta house\n0.5\t0.3\tfixation\t1\tx\n"
    )
    (folder / "sub-1_task-read_events.tsv").write_text(table, "utf-8")
    return "1 channels with NaN or infinity left out (C4)"


SPOILT: dict[str, tuple[str, Callable[[Path], str]]] = {  # source -> data set of conf/data, and what spoils a set of it
    "fsdd": ("fsdd", fsdd), "gsc": ("gsc35", gsc), "words": ("words", words),
    "shd": ("shd", lambda root: spiked(root, "shd_train.h5", "shd_test.h5")),
    "ssc": ("ssc", lambda root: spiked(root, "ssc_train.h5", "ssc_valid.h5", "ssc_test.h5")),
    "spikes": ("spikes", lambda root: spiked(root, "a.h5")),
    "images": ("imagenet", images), "events": ("events", events), "zuco": ("zuco", zuco),
    "bids_reading": ("bids_reading", bids_reading),
}  # fmt: skip
ALONE = {"recording": ("eeg", eeg), "recording of few electrodes": ("eeg", few_electrodes)}  # no source of a training


def test_every_source_can_be_spoilt_or_says_why_not() -> None:
    assert set(GROUPS["data"]) == SPOILT.keys() | CANNOT.keys() and not SPOILT.keys() & CANNOT.keys()


@pytest.mark.parametrize("name", [*SPOILT, *ALONE])
def test_what_is_not_finite_is_found_and_named(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset, spoil = {**SPOILT, **ALONE}[name]
    wanted = spoil(tmp_path / "set")
    settings = ["data.sensor=[34,34]"] if name == "events" else []
    config = DataConfig(dataset=dataset, root=str(tmp_path / "set"), out=str(tmp_path / "o.html"), settings=settings)
    with suppress(SystemExit):
        data.check(config)
    said = capsys.readouterr().out
    assert wanted in said and "no problem found" not in said


@pytest.mark.parametrize("channels", [["left", "right"], ["C3", "C4", "Cz", "Pz", "Fz", "O1", "O2", "F3", "F4"]])
def test_a_recording_of_nothing_but_nan_is_a_problem_on_the_net_or_not(
    channels: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import mne

    empty = np.full((len(channels), 3000), np.nan)
    info = mne.create_info(channels, 500.0, "eeg")
    mne.io.RawArray(empty, info, verbose="error").save(tmp_path / "x_raw.fif", verbose="error")
    with pytest.raises(SystemExit) as ended:
        data.check(DataConfig(dataset="eeg", root=str(tmp_path)))
    assert ended.value.code == 1 and "problem: " in capsys.readouterr().out


def test_channels_of_nothing_but_nan_are_counted_and_the_others_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = noise()
    raw._data[3:5] = np.nan
    raw.save(tmp_path / "x_raw.fif", verbose="error")
    data.check(DataConfig(dataset="eeg", root=str(tmp_path)))
    assert "left out: 2 channels with NaN, infinity or one value throughout (x_raw.fif 2)" in capsys.readouterr().out


def test_a_set_of_some_tasks_is_checked_in_those_tasks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    zuco(tmp_path / "set")
    with pytest.raises(ValueError, match=r"no recording of tasks \['NR1', 'NR2'\]"):
        data.check(DataConfig(dataset="zuco_3_tasks", root=str(tmp_path / "set")))
    one = DataConfig(dataset="zuco_3_tasks", root=str(tmp_path / "set"), settings=["data.tasks=[SR1]"])
    data.check(one)
    assert "resultsZAB_SR.mat" in capsys.readouterr().out
