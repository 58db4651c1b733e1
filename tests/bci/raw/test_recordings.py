"""Recordings of other systems come onto the net with their potentials; what they lack is said."""

from pathlib import Path

import mne
import numpy as np
import pytest

from bci.raw.clock import Clock
from bci.raw.eyelink import gaze_of, read_eyelink
from bci.raw.recordings import SUFFIXES, find_recordings, onto_net, read_recording, windows_of
from bci.zuco.records import CHANNELS
from tests.conftest import data_folder


def sine(names: list[str], rate_hz: float = 250.0, seconds: float = 4.0) -> mne.io.RawArray:
    time = np.arange(round(seconds * rate_hz)) / rate_hz
    data = 1e-5 * np.sin(2 * np.pi * 10 * time) * np.linspace(0.5, 1, len(names))[:, None]
    return mne.io.RawArray(data, mne.create_info(names, rate_hz, "eeg"), verbose="error")


def test_every_real_recording_is_read_and_brought_onto_the_net() -> None:
    for path in find_recordings(data_folder("eeg")):
        if path.suffix == ".asc":
            continue
        raw = read_recording(path)
        raw.crop(0, min(10.0, raw.times[-1]))
        cap = None
        if all(name.startswith("EEG 0") for name in raw.ch_names):  # a recording without names of electrodes
            with pytest.raises(ValueError, match="0 electrodes with a known place"):
                onto_net(raw, path.name)
            cap = "biosemi32"
        net = onto_net(raw, path.name, cap)
        assert net.eeg_uv.shape == (105, round(len(raw.times) * 500 / raw.info["sfreq"])), path.name
        assert np.isfinite(net.eeg_uv).all() and not net.eeg_uv[-1].any() and net.eeg_uv[:-1].any(axis=1).all()
        assert f"{len(net.measured)} electrodes interpolated to 105" in net.how


def test_electrodes_of_the_net_are_kept_whatever_their_order() -> None:
    raw = sine(list(CHANNELS[::-1]), 500.0)
    net = onto_net(raw)
    at = [raw.ch_names.index(name) for name in CHANNELS]
    inner = slice(900, 1100)
    np.testing.assert_allclose(net.eeg_uv[:, inner], 1e6 * raw.get_data()[at][:, inner], atol=0.2)
    assert "as recorded" in net.how


def test_an_electrode_near_another_of_the_net_keeps_its_potential() -> None:
    raw = sine([name for name in mne.channels.make_standard_montage("standard_1020").ch_names
                if name not in ("T3", "T4", "T5", "T6", "M1", "M2", "A1", "A2")][:60])  # fmt: skip
    net = onto_net(raw)
    at = {name: place for place, name in enumerate(CHANNELS)}
    oz = np.abs(net.eeg_uv[at["E75"]]).max() / np.abs(net.eeg_uv[at["E11"]] - net.eeg_uv[at["E75"]]).max()
    assert net.eeg_uv.shape == (105, 2000) and np.isfinite(oz) and "resampled from 250 Hz" in net.how


@pytest.mark.parametrize("suffix", [".edf", ".vhdr", ".fif", ".set"])
def test_every_format_gives_the_same_numbers(suffix: str, tmp_path: Path) -> None:
    raw = sine(["Fp1", "Fp2", "C3", "C4", "Cz", "O1", "O2", "Pz", "Fz"], 500.0)
    for package in {".edf": ["edfio"], ".vhdr": ["pybv"], ".set": ["eeglabio"]}.get(suffix, []):
        pytest.importorskip(package)
    path = tmp_path / f"x_raw{suffix}"
    if suffix == ".fif":
        raw.save(path, verbose="error")
    else:
        mne.export.export_raw(path, raw, verbose="error")
    found, expected = onto_net(read_recording(path)), onto_net(raw)
    np.testing.assert_allclose(found.eeg_uv, expected.eeg_uv, atol=0.05)


def test_what_cannot_be_read_is_one_error_naming_it(tmp_path: Path) -> None:
    (tmp_path / "a.edf").write_bytes(b"not an edf file")
    with pytest.raises(ValueError, match=r"a\.edf cannot be read"):
        read_recording(tmp_path / "a.edf")
    with pytest.raises(ValueError, match=r"b\.xyz has the suffix \.xyz"):
        read_recording(tmp_path / "b.xyz")
    with pytest.raises(ValueError, match=r"c\.edf is missing"):
        read_recording(tmp_path / "c.edf")
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="holds no recording"):
        find_recordings(tmp_path / "none")
    with pytest.raises(ValueError, match="cap=biosemi16 has 16 electrodes"):
        onto_net(sine(["a", "b"]), "x", "biosemi16")
    assert ".set" in SUFFIXES


def test_windows_slide_and_stay_inside() -> None:
    assert windows_of(1200, 1.0, 0.5).tolist() == [[0, 500], [250, 750], [500, 1000]]
    assert windows_of(400, 1.0, 0.5).shape == (0, 2)


def test_every_eyelink_file_gives_the_fixations_that_mne_counts() -> None:
    files = [path for path in find_recordings(data_folder("eeg")) if path.suffix == ".asc"]
    for path in files:
        eyes = [read_eyelink(path, eye) for eye in "LR" if _holds(path, eye)]
        counted = mne.io.read_raw_eyelink(path, verbose="error").annotations.description.tolist().count("fixation")
        assert sum(len(eye.fixations) for eye in eyes) == counted
        best = read_eyelink(path)
        assert len(best.fixations) == max(len(eye.fixations) for eye in eyes)
        assert (best.fixations[:, 1] > best.fixations[:, 0]).all() and (np.diff(best.samples[:, 0]) > 0).all()
        start_ms, rate = best.samples[0, 0], best.rate_hz / 1000
        gaze = gaze_of(Clock(start_ms, 0.0, rate, 0.0), 10**6, best.fixations, best.samples)
        inside = best.fixations[:, 0] >= start_ms
        np.testing.assert_allclose(gaze.samples, (np.diff(best.fixations[inside, :2])[:, 0] * rate).round() + 1)


def _holds(path: Path, eye: str) -> bool:
    return f"EFIX {eye}" in path.read_text(encoding="utf-8", errors="replace")


def test_a_line_that_is_not_eyelink_s_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.asc"
    path.write_text("SAMPLES\tGAZE\tLEFT\tRATE\t 500.00\n100 1.0 2.0 3.0\nEFIX L 100 nonsense\n")
    with pytest.raises(ValueError, match=r"a\.asc, line 3: 'EFIX L 100 nonsense' is not as EyeLink writes it"):
        read_eyelink(path)
    path.write_text("** empty\n")
    with pytest.raises(ValueError, match="no gaze sample"):
        read_eyelink(path)


def test_uncleaned_recordings_of_other_caps_reject_nothing_unless_asked() -> None:
    other, own = (
        onto_net(sine(["Fp1", "Fp2", "C3", "C4", "Cz", "O1", "O2", "Pz"])),
        onto_net(sine(list(CHANNELS), 500.0)),
    )
    assert (
        own.reject_uv(None)[0] == 90
        and other.reject_uv(None)[0] == np.inf
        and "no piece is rejected" in (other.reject_uv(None)[1])
    )
    assert other.reject_uv(120.0)[0] == 120
    with pytest.raises(ValueError, match=r"reject_uv=0\.0"):
        own.reject_uv(0.0)
