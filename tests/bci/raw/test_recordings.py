"""Recordings of other systems come onto the net with their potentials; what they lack is said."""

from pathlib import Path

import mne
import numpy as np
import pytest

from spikeloom.bci.raw.channels import read_renames
from spikeloom.bci.raw.clock import Clock
from spikeloom.bci.raw.eyelink import gaze_of, read_eyelink
from spikeloom.bci.raw.recordings import SUFFIXES, find_recordings, onto_net, read_recording, windows_of
from spikeloom.bci.zuco.records import CHANNELS
from spikeloom.pipelines.datasets.eeg import fixation_pieces
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
    raw = net_raw().pick(list(CHANNELS[::-1]))
    assert not raw._data[0].any()  # Cz, to which all others refer
    net = onto_net(raw)
    at = [raw.ch_names.index(name) for name in CHANNELS]
    filtered = raw.filter(0.5, None, verbose="error").get_data()
    np.testing.assert_allclose(net.eeg_uv, 1e6 * filtered[at], atol=1e-6)
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


def named(names: list[str], rate_hz: float = 500.0, seconds: float = 8.0, seed: int = 0) -> mne.io.RawArray:
    data = 1e-5 * np.random.default_rng(seed).standard_normal((len(names), round(rate_hz * seconds)))
    return mne.io.RawArray(data, mne.create_info(names, rate_hz, "eeg"), verbose="error")


def net_raw() -> mne.io.RawArray:
    """The whole net with places, potentials smooth over the scalp, referred to its last electrode."""
    net = mne.channels.make_standard_montage("GSN-HydroCel-129")
    raw = named(list(net.ch_names)).set_montage(net)
    at = np.array([c["loc"][:3] for c in raw.info["chs"]]) - [0, 0, 0.045]
    at /= np.linalg.norm(at, axis=1, keepdims=True)
    rng = np.random.default_rng(0)
    sources = rng.standard_normal((40, 3))
    sources /= np.linalg.norm(sources, axis=1, keepdims=True)
    field = np.exp(6 * (at @ sources.T - 1)) @ rng.standard_normal((40, raw.n_times)) * 1e-5
    raw._data[:] = field - field[-1]
    return raw


def test_a_recording_of_the_net_under_other_names_comes_back_as_it_was() -> None:
    raw = net_raw()
    same = raw.copy().rename_channels({name: f"X{i}" for i, name in enumerate(raw.ch_names)})
    found, expected = onto_net(same).eeg_uv, onto_net(raw).eeg_uv
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_any_reference_of_the_net_becomes_cz() -> None:
    raw = net_raw()
    expected = onto_net(raw).eeg_uv
    average = raw.copy().set_eeg_reference("average", projection=False, verbose="error")
    found = onto_net(average)
    assert "re-referenced from the average to Cz" in found.how
    np.testing.assert_allclose(found.eeg_uv, expected, atol=1e-6)
    without = onto_net(average.copy().drop_channels(["Cz"]))
    assert "re-referenced from the average to Cz" in without.how and not without.eeg_uv[-1].any()
    assert np.corrcoef(without.eeg_uv[:-1].ravel(), expected[:-1].ravel())[0, 1] > 0.98
    mastoid = raw.copy()
    mastoid._data -= mastoid._data[raw.ch_names.index("E100")].copy()
    np.testing.assert_allclose(onto_net(mastoid).eeg_uv, expected, atol=1e-6)


def test_bad_channels_are_interpolated_and_counted_on_every_path() -> None:
    raw = net_raw()
    expected = onto_net(raw).eeg_uv
    raw._data[1] += 1e-3 * np.random.default_rng(1).standard_normal(raw.n_times)
    raw.info["bads"] = ["E2"]
    found = onto_net(raw)
    assert "1 bad electrodes interpolated" in found.how
    assert np.corrcoef(found.eeg_uv[0], expected[0])[0, 1] > 0.99
    cap = named(mne.channels.make_standard_montage("biosemi64").ch_names).set_montage("biosemi64")
    cap.info["bads"] = [cap.ch_names[10]]
    assert "63 electrodes interpolated to 105 (1 marked bad" in onto_net(cap).how


def test_what_is_no_number_does_not_spread() -> None:
    cap = named(mne.channels.make_standard_montage("biosemi64").ch_names).set_montage("biosemi64")
    cap._data[3, 100:200] = np.nan
    cap._data[5] = 0.0
    cap._data[:, 1000:1100] = np.nan
    cap._data[0, 900] = np.inf
    cap._data[0] += 0.0
    found = onto_net(cap)
    assert np.isfinite(found.eeg_uv).all()
    assert "2 channels with NaN or infinity" in found.how and "1 gaps" in found.how
    assert found.bad.tolist() == [[1000, 1100]]
    assert found.in_bad_span(np.array([[0, 500], [1050, 1060], [1100, 1200]])).tolist() == [False, True, False]
    with pytest.raises(ValueError, match="every EEG channel is flat"):
        onto_net(sine_of_zeros())


def sine_of_zeros() -> mne.io.RawArray:
    raw = named(mne.channels.make_standard_montage("biosemi32").ch_names).set_montage("biosemi32")
    raw._data[:] = 0.0
    return raw


def test_spans_marked_bad_are_measured_nowhere() -> None:
    cap = named(mne.channels.make_standard_montage("biosemi32").ch_names).set_montage("biosemi32")
    cap.set_annotations(mne.Annotations([1.0, 4.0, 6.0], [0.5, 0.0, 0.2], ["BAD_muscle", "boundary", "7"]))
    found = onto_net(cap)
    assert found.bad.tolist() == [[500, 750], [2000, 2001]] and "2 spans marked bad" in found.how
    amplitudes = found.amplitudes(np.array([[0, 400], [400, 600], [1900, 2100], [2100, 2300]]), np.inf)
    assert np.isnan(amplitudes).all(1).tolist() == [False, True, True, False]


def test_onsets_of_a_cropped_recording_count_from_its_first_sample(tmp_path: Path) -> None:
    cap = named(mne.channels.make_standard_montage("biosemi32").ch_names, seconds=40.0).set_montage("biosemi32")
    cap.set_annotations(mne.Annotations([20.0, 25.0, 30.0], [0] * 3, list("123")))
    cap.crop(10, 39).save(tmp_path / "crop_raw.fif", verbose="error")
    found = onto_net(read_recording(tmp_path / "crop_raw.fif"))
    assert found.events == ((10.0, "1"), (15.0, "2"), (20.0, "3"))
    lines = ["SAMPLES GAZE LEFT RATE 500.00"]  # each trigger, and a fixation 200 ms after it
    for number, ms in enumerate((1_020_000, 1_025_000, 1_030_000), 1):
        lines += [f"INPUT {ms} {number}", f"{ms + 200} 4.0 3.0 1.0 ...", f"EFIX L {ms + 200} {ms + 498} 300 4.0 3.0 1"]
    (tmp_path / "x.asc").write_text("\n".join(lines) + "\n")
    pieces = fixation_pieces(found, read_eyelink(tmp_path / "x.asc"), "crop_raw.fif")
    assert (pieces[:, 0] / 500).tolist() == [10.2, 15.2, 20.2]


def test_trigger_channels_are_events() -> None:
    cap = named(mne.channels.make_standard_montage("biosemi32").ch_names).set_montage("biosemi32")
    stim = np.zeros((1, cap.n_times))
    stim[0, 500:510], stim[0, 1500:1510] = 10, 11
    cap.add_channels(
        [mne.io.RawArray(stim, mne.create_info(["STI 014"], 500.0, "stim"), verbose="error")], force_update_info=True
    )
    found = onto_net(cap)
    assert found.events == ((1.0, "10"), (3.0, "11")) and "2 events of the trigger channel STI 014" in found.how


def test_caps_whose_names_collide_are_decided_by_places_or_refused() -> None:
    plugs = mne.channels.make_standard_montage("biosemi128")
    for written in (plugs.ch_names, [f"1-{name}" for name in plugs.ch_names]):
        with pytest.raises(ValueError, match=r"plugs of a cap \(128 of them\).*cap=biosemi128"):
            onto_net(named(list(written)), "x")
    placed = onto_net(named(list(plugs.ch_names)).set_montage(plugs), "x")
    by_cap = onto_net(named(list(plugs.ch_names)), "x", cap="biosemi128")
    assert "128 electrodes interpolated" in placed.how
    np.testing.assert_allclose(placed.eeg_uv, by_cap.eeg_uv, atol=1e-6)
    net = mne.channels.make_standard_montage("GSN-HydroCel-256")
    with pytest.raises(ValueError, match=r"a net of 256.*cap=GSN-HydroCel-256"):
        onto_net(named(list(net.ch_names)), "x")
    assert "256 electrodes interpolated" in onto_net(named(list(net.ch_names)).set_montage(net), "x").how


def test_clinical_names_are_electrodes_and_differences_are_refused() -> None:
    names = ["EEG Fp1-LE", "EEG Fp2-RE", "EEG F3-LE", "EEG F4-RE", "EEG C3-LE", "EEG C4-RE", "EEG O1-LE", "EEG O2-RE"]
    found = onto_net(named(names), "x")
    assert "reference LE, RE cut from the names" in found.how and "different references" in found.how
    pairs = ["Fpz-Cz", "Pz-Oz", "Fp1-F7", "F7-T7", "T7-P7", "P7-O1", "Fp2-F8", "F8-T8"]
    with pytest.raises(ValueError, match=r"8 channels are differences of two electrodes.*rename=FILE"):
        onto_net(named(pairs), "x")
    table = {pair: pair.split("-")[0] for pair in pairs}
    assert "8 channels renamed by the table" in onto_net(named(pairs), "x", rename=table).how
    with pytest.raises(ValueError, match="has no channel nobody of the rename table"):
        onto_net(named(pairs), "x", rename={"nobody": "Fpz"})


def test_rename_tables_are_read_or_named_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("EEG Fpz-Cz\tFpz\nEEG Pz-Oz\tPz\n")
    (tmp_path / "a.json").write_text('{"EEG Fpz-Cz": "Fpz", "EEG Pz-Oz": "Pz"}')
    assert read_renames(tmp_path / "a.tsv") == read_renames(tmp_path / "a.json") == {
        "EEG Fpz-Cz": "Fpz", "EEG Pz-Oz": "Pz",
    }  # fmt: skip
    (tmp_path / "b.tsv").write_text("a\tFpz\nb\n")
    with pytest.raises(ValueError, match=r"b\.tsv, line 2"):
        read_renames(tmp_path / "b.tsv")


def edf(path: Path, units: list[str], prefilter: list[str] | None = None, half_uv: float = 1000.0) -> Path:
    """32 channels at 256 Hz, 10 s, standard deviation 20 units."""
    names, n, rate, seconds = mne.channels.make_standard_montage("biosemi32").ch_names, 32, 256, 10
    filters = prefilter or [""] * n

    def column(values: list[str], width: int) -> bytes:
        return b"".join(value.encode("latin-1")[:width].ljust(width) for value in values)

    head = column(["0"], 8) + column(["X X X X"], 80) + column(["Startdate X X X X"], 80) + b"01.01.2000.00.00"
    head += column([str(256 * (n + 1))], 8) + column([""], 44) + column([str(seconds)], 8) + column(["1"], 8)
    head += column([str(n)], 4) + column(names, 16) + column([""] * n, 80) + column(units, 8)
    head += column([f"-{half_uv:g}"] * n, 8) + column([f"{half_uv:g}"] * n, 8) + column(["-32768"] * n, 8)
    head += column(["32767"] * n, 8) + column(filters, 80) + column([str(rate)] * n, 8) + column([""] * n, 32)
    data = np.rint(np.random.default_rng(0).standard_normal((n, rate * seconds)) * 20 / half_uv * 32767).astype("<i2")
    path.write_bytes(head + b"".join(data[:, s * rate : (s + 1) * rate].tobytes() for s in range(seconds)))
    return path


@pytest.mark.parametrize("unit", ["uv", "UV", "microV", "µV", "mV", "V", "nV"])
def test_units_are_read_whatever_their_spelling(unit: str, tmp_path: Path) -> None:
    expected = onto_net(read_recording(edf(tmp_path / "ok.edf", ["uV"] * 32))).eeg_uv
    raw = read_recording(edf(tmp_path / "x.edf", [unit] * 32, half_uv=1000.0))
    if unit not in ("V", "mV", "nV"):
        np.testing.assert_allclose(onto_net(raw).eeg_uv, expected, atol=1e-6)
    else:  # such numbers are no EEG in that unit
        with pytest.raises(ValueError, match=r"standard deviation of .* µV, not that of EEG.*give unit=uV"):
            onto_net(raw, "x")


@pytest.mark.parametrize("unit", ["", ".V", "counts", "MV"])
def test_unknown_units_are_refused_or_given(unit: str, tmp_path: Path) -> None:
    raw = read_recording(edf(tmp_path / "x.edf", [unit] * 32))
    with pytest.raises(ValueError, match=r"the unit of 32 channels is .*give unit=uV"):
        onto_net(raw, "x")
    expected = onto_net(read_recording(edf(tmp_path / "ok.edf", ["uV"] * 32))).eeg_uv
    np.testing.assert_allclose(onto_net(raw, "x", unit="uV").eeg_uv, expected, atol=1e-6)
    with pytest.raises(ValueError, match="unit=pounds is no unit"):
        onto_net(raw, "x", unit="pounds")


def test_the_lowest_high_pass_of_the_channels_counts(tmp_path: Path) -> None:
    mixed = read_recording(edf(tmp_path / "a.edf", ["uV"] * 32, ["HP:1.0Hz LP:100Hz"] + ["HP:0.01Hz LP:100Hz"] * 31))
    all_high = read_recording(edf(tmp_path / "b.edf", ["uV"] * 32, ["HP:1.0Hz LP:100Hz"] * 32))
    assert "high-passed" in onto_net(mixed).how and "high-passed" not in onto_net(all_high).how


def eyelink_block(kind: str, eyes: str, rate: int, start: int, n: int, cells: str) -> list[str]:
    step = 1000 // rate
    return [f"SAMPLES {kind} {eyes} RATE {rate}.00", *(f"{start + step * i} {cells} ..." for i in range(n))]


def test_every_block_of_an_eye_tracker_has_its_eye_and_rate(tmp_path: Path) -> None:
    path = tmp_path / "a.asc"
    both = eyelink_block("GAZE", "LEFT RIGHT", 1000, 1000, 300, "100.0 110.0 1000.0 700.0 510.0 2000.0")
    right = eyelink_block("GAZE", "RIGHT", 500, 5000, 150, "700.0 510.0 2000.0")
    path.write_text(
        "\n".join([*both, "EFIX R 1000 1299 300 700 510 2000", *right, "EFIX R 5000 5298 300 700 510 2000"])
    )
    found = read_eyelink(path)
    assert found.eye == "R" and set(found.samples[:, 1]) == {700.0} and len(found.samples) == 450
    assert "the rate changes" in found.notes[0]
    left = read_eyelink(path, "L")
    assert set(left.samples[:, 1]) == {100.0} and len(left.samples) == 300
    assert "1 of 2 blocks hold L, 150 samples of the other eye left out" in left.notes[0]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["SAMPLES HREF LEFT RATE 1000.00", "1 -2000.0 1500.0 900.0 ..."], "line 1.*HREF holds angles"),
        (["SAMPLES GAZE LEFT RATE 500.00", "1 1.0 2.0 3.0", "EFIX L 1 2 3 4 Infinity 6"], "line 3.*Infinity"),
        (["SAMPLES GAZE LEFT RATE 500.00", "1e999 1.0 2.0 3.0"], "line 2"),
        (["SAMPLES GAZE LEFT RATE 500.00", "1 1.0 2.0 3.0 1.0 2.0 3.0 ....."], "line 2.*8 columns"),
        (["SAMPLES GAZE LEFT RATE 500.00", "9 1.0 2.0 3.0", "1 1.0 2.0 3.0"], "line 3.*before the sample above"),
        (["SAMPLES GAZE LEFT RATE 0", "9 1.0 2.0 3.0"], "line 1.*a rate of 0"),
    ],
)
def test_gaze_that_is_no_gaze_is_refused_with_its_line(lines: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "a.asc").write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=rf"a\.asc, {message}"):
        read_eyelink(tmp_path / "a.asc")
