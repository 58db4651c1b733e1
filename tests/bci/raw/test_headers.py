"""A header that contradicts itself or its file is one error naming both, before a reader in C sees it."""

import struct
from pathlib import Path

import mne
import numpy as np
import pytest
from scipy.io import savemat

from spikeloom.bci.raw.headers import check_header
from spikeloom.bci.raw.matlab_files import read_variable
from spikeloom.bci.raw.recordings import onto_net, read_recording

NAMES = ["Fp1", "Fp2", "C3", "C4", "Cz", "O1", "O2", "Pz", "Fz"]


def patched(path: Path, at: int, data: bytes) -> Path:
    content = bytearray(path.read_bytes())
    content[at : at + len(data)] = data
    path.write_bytes(content)
    return path


@pytest.fixture
def fif(tmp_path: Path) -> Path:
    raw = mne.io.RawArray(
        1e-5 * np.random.default_rng(0).standard_normal((9, 500)), mne.create_info(NAMES, 250.0, "eeg"), verbose="error"
    )
    raw.save(tmp_path / "x_raw.fif", verbose="error")
    return tmp_path / "x_raw.fif"


def tags(path: Path) -> list[tuple[int, int, int]]:
    """(byte, kind, bytes) of every tag."""
    content, at, found = path.read_bytes(), 0, []
    while at + 16 <= len(content):
        kind, _, n_bytes, following = struct.unpack(">iiii", content[at : at + 16])
        found.append((at, kind, n_bytes))
        if following == -1:
            break
        at = following or at + 16 + n_bytes
    return found


def test_fif_tags_lead_forward_and_stay_inside(fif: Path) -> None:
    check_header(fif)
    at = tags(fif)[6][0]
    patched(fif, at + 12, struct.pack(">i", tags(fif)[3][0]))
    with pytest.raises(ValueError, match=r"x_raw\.fif: the tag at byte \d+ leads back to itself"):
        read_recording(fif)


@pytest.mark.parametrize("n_bytes", [-5, 2**31 - 1])
def test_fif_tags_longer_than_the_file_are_named(fif: Path, n_bytes: int) -> None:
    at = next(at for at, kind, _ in tags(fif) if kind == 300)
    patched(fif, at + 8, struct.pack(">i", n_bytes))
    with pytest.raises(ValueError, match=rf"x_raw\.fif is cut short: the tag 300 at byte {at}"):
        read_recording(fif)


def test_a_channel_of_an_unknown_kind_is_one_error_naming_the_file(fif: Path) -> None:
    at = next(at for at, kind, _ in tags(fif) if kind == 203)
    patched(fif, at + 16 + 8, struct.pack(">i", 64))
    with pytest.raises(ValueError, match=r"x_raw\.fif cannot be read .*Unknown channel type"):
        onto_net(read_recording(fif), str(fif))


def test_matlab_lengths_that_contradict_each_other_are_named(tmp_path: Path) -> None:
    path = tmp_path / "v.mat"
    savemat(path, {"v": {"a": np.eye(3), "b": "text", "c": np.array(["u", "v"], dtype=object)}})
    whole = path.read_bytes()
    assert read_variable(path, "v")[0]["b"] == "text"
    rng = np.random.default_rng(0)
    refused = []  # str
    for _ in range(300):  # any bytes: a value or one error with the file's name
        content = bytearray(whole)
        for at in rng.integers(128, len(whole), 3):
            content[at] = rng.integers(256)
        path.write_bytes(content)
        try:
            read_variable(path, "v")
        except ValueError as error:
            refused.append(str(error))
    assert len(refused) > 100 and all(str(path) in message and len(message) < 500 for message in refused)


def test_a_set_file_is_walked_before_scipy_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "x.set"
    savemat(path, {"data": np.zeros((9, 50), np.float32), "srate": 250.0, "chanlocs": np.array([1.0, 2.0, 3.0])},
            appendmat=False)  # fmt: skip
    at = path.read_bytes().rindex(struct.pack("<II", 5, 8)) + 8  # the dimensions of the last variable
    patched(path, at, struct.pack("<i", -2025276023))
    with pytest.raises(ValueError, match=r"x\.set is damaged near byte \d+ \(dimensions of \[-2025276023"):
        read_recording(path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Ch2=C4,,inf,µV", "the resolution of 'C4' is inf"),
        ("Ch2=C4,,-1e999,µV", "the resolution of 'C4' is -inf"),
        ("Ch2=C4,,zero,µV", "the resolution of 'C4' is 'zero'"),
        ("Ch3=C4,,0.1,µV", "2 channels are announced, 2 are described"),
    ],
)
def test_brainvision_channels_scale_or_are_named(line: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "x.eeg").write_bytes(b"\0" * 800)
    (tmp_path / "x.vhdr").write_text(
        "Brain Vision Data Exchange Header File Version 1.0\n[Common Infos]\nDataFile=x.eeg\nNumberOfChannels=2\n"
        f"SamplingInterval=2000\n[Binary Infos]\nBinaryFormat=INT_16\n[Channel Infos]\nCh1=C3,,0.1,µV\n{line}\n",
        encoding="utf-8",
    )
    with pytest.raises(ValueError, match=rf"x\.vhdr: {message}"):
        read_recording(tmp_path / "x.vhdr")


@pytest.mark.parametrize(
    ("at", "text", "message"),
    [
        (252, "9999", "9999 signals need a header"),
        (244, "nan     ", "the record duration is nan"),
        (236, "1000    ", "cut short: 1000 records in the header"),
        (256 + 16 + 80 + 8, "1000    1000    ", r"the range 1000 to 1000"),
    ],
)
def test_edf_headers_fit_their_file(at: int, text: str, message: str, tmp_path: Path) -> None:
    n, rate = 1, 100
    head = "0".ljust(8) + "X".ljust(80) * 2 + "01.01.2000.00.00" + str(256 * (n + 1)).ljust(8) + "".ljust(44)
    head += "2".ljust(8) + "1".ljust(8) + str(n).ljust(4) + "C3".ljust(16) + "".ljust(80) + "uV".ljust(8)
    head += "-1000".ljust(8) + "1000".ljust(8) + "-32768".ljust(8) + "32767".ljust(8) + "".ljust(80)
    head += str(rate).ljust(8) + "".ljust(32)
    path = tmp_path / "x.edf"
    path.write_bytes(head.encode() + np.zeros(2 * rate, "<i2").tobytes())
    check_header(path)
    with pytest.raises(ValueError, match=rf"x\.edf.*{message}"):
        read_recording(patched(path, at, text.encode()))


def brainvision(folder: Path, data: str = "x.eeg", markers: str = "x.vmrk") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / "x.vhdr"
    path.write_text(
        f"Brain Vision Data Exchange Header File Version 1.0\n[Common Infos]\nDataFile={data}\nMarkerFile={markers}\n"
        "DataFormat=BINARY\nDataOrientation=MULTIPLEXED\nNumberOfChannels=2\nSamplingInterval=2000\n[Binary Infos]\n"
        "BinaryFormat=INT_16\n[Channel Infos]\nCh1=C3,,0.1,µV\nCh2=C4,,0.1,µV\n",
        encoding="utf-8",
    )
    (folder / "x.eeg").write_bytes(b"\0" * 800)
    return path


@pytest.mark.parametrize("key", ["DataFile", "MarkerFile"])
@pytest.mark.parametrize("name", ["../{}", "/tmp/{}", "sub/{}", "..\\{}", ".."])
def test_a_brainvision_header_names_files_beside_it(key: str, name: str, tmp_path: Path) -> None:
    end = "x.eeg" if key == "DataFile" else "x.vmrk"
    path = brainvision(tmp_path / "one", **{"data" if key == "DataFile" else "markers": name.format(end)})
    (tmp_path / end).write_bytes(b"\0" * 800)
    with pytest.raises(ValueError, match=rf"x\.vhdr: its {key} is .*beside each other"):
        read_recording(path)


def test_events_of_a_brainvision_recording_are_not_lost_in_silence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = brainvision(tmp_path / "one", markers="gone.vmrk")
    with pytest.raises(ValueError, match=r"gone\.vmrk is missing, the events of .*x\.vhdr"):
        read_recording(path)
    marks = "Brain Vision Data Exchange Marker File, Version 1.0\n[Marker Infos]\nMk1=Stimulus,S  1,11,1,0\n"
    path.with_suffix(".vmrk").write_text(marks, encoding="utf-8")  # under the recording's new name, as MNE finds it
    assert list(read_recording(path).annotations.description) == ["Stimulus/S  1"]
    assert "x.vhdr: MarkerFile 'gone.vmrk' not found; using 'x.vmrk'" in caplog.text


def test_data_of_an_eeglab_or_split_fif_recording_lie_beside_it(tmp_path: Path) -> None:
    (folder := tmp_path / "one").mkdir()
    (tmp_path / "other.fdt").write_bytes(np.zeros(2 * 300, "<f4").tobytes())
    labels = np.array([("C3",), ("C4",)], dtype=[("labels", object)])
    fields = {"setname": "x", "nbchan": 2.0, "trials": 1.0, "pnts": 300.0, "srate": 500.0, "xmin": 0.0, "xmax": 0.6}
    empty = {name: np.empty((0, 0)) for name in ("event", "epoch", "icawinv", "icasphere", "icaweights", "icachansind")}
    eeg = {**fields, **empty, "data": "../other.fdt", "chanlocs": labels, "ref": "common"}
    savemat(folder / "x.set", {"EEG": eeg}, appendmat=False)
    with pytest.raises(ValueError, match=r"x\.set: its data lie in .*other\.fdt; .*beside each other"):
        read_recording(folder / "x.set")

    info = mne.create_info(["C3", "C4"], 500.0, "eeg")
    raw = mne.io.RawArray(np.zeros((2, 600_000)), info, verbose="error")
    raw.save(folder / "a_raw.fif", split_size="2MB", verbose="error")
    files = sorted(folder.glob("a_raw*.fif"))
    assert len(read_recording(folder / "a_raw.fif").filenames) == len(files) > 1
    whole, name = (folder / "a_raw.fif").read_bytes(), b"a_raw-1.fif"
    assert whole.count(name) == 1
    for other, message in (
        (b"../_raw.fif", r"a_raw\.fif: its next file is '\.\./_raw\.fif'"),
        (b"././a_raw.f", "without a folder"),
        (b"b_raw-1.fif", r"b_raw-1\.fif is missing, in which .*a_raw\.fif goes on"),
    ):
        (folder / "a_raw.fif").write_bytes(whole.replace(name, other))
        with pytest.raises(ValueError, match=message):
            read_recording(folder / "a_raw.fif")
    (folder / "a_raw-1.fif").write_bytes(whole)  # which goes on in itself
    (folder / "a_raw.fif").write_bytes(whole)
    with pytest.raises(ValueError, match=r"a_raw-1\.fif: its next file, a_raw-1\.fif, leads back"):
        read_recording(folder / "a_raw.fif")
