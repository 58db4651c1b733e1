"""Spikes whose times are in another unit are refused, and a file cannot make us read elsewhere or allocate at will."""

import os
import struct
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from spikeloom.speech.datasets.shd import SpikeFileConfig
from spikeloom.speech.datasets.spike_files import check_spans, read_spike_file

N = 6


def write(path: Path, scale: float = 1.0, dtype: str = "f4") -> Path:
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        times = file.create_dataset("spikes/times", (N,), h5py.vlen_dtype(np.dtype(dtype)))
        units = file.create_dataset("spikes/units", (N,), h5py.vlen_dtype(np.dtype("u2")))
        for i in range(N):
            times[i] = np.sort(rng.uniform(0.01, 0.7, 200) * scale).astype(dtype)
            units[i] = rng.integers(0, 700, 200)
        file["labels"] = np.arange(N) % 2
        file["extra/speaker"] = np.arange(N) // 2
        file["extra/keys"] = np.array([b"yes", b"no"])
    return path


@pytest.mark.parametrize(
    ("scale", "dtype"), [(1e3, "f4"), (1e6, "i8"), (1e9, "i8"), (50, "i8"), (1e-6, "f8"), (0, "f4")]
)
def test_times_in_another_unit_are_refused_by_training_with_the_unit_named(
    tmp_path: Path, scale: float, dtype: str
) -> None:
    path = write(tmp_path / "a.h5", scale, dtype)
    with pytest.raises(ValueError, match=r"a\.h5: clip 0 .*seconds expected"):
        SpikeFileConfig(root=str(path)).build()
    with pytest.raises(ValueError, match="seconds expected"):
        read_spike_file(path).events[3]


def test_one_stray_spike_is_found_before_a_training(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        file["spikes/times"][4] = np.append(file["spikes/times"][4][:-1], np.float32(900))
    with pytest.raises(ValueError, match=r"clip 4 spans 899\.\d+ s .*stray spike"):
        check_spans(read_spike_file(path))


def external_link(file: Any, folder: Path) -> None:
    write(folder / "other.h5")
    del file["labels"]
    file["labels"] = h5py.ExternalLink("other.h5", "labels")


def external_group(file: Any, folder: Path) -> None:
    write(folder / "other.h5")
    del file["extra"]
    file["extra"] = h5py.ExternalLink("other.h5", "extra")


def soft_loop(file: Any, folder: Path) -> None:
    del file["labels"]
    file["labels"] = h5py.SoftLink("/labels")


def raw_storage(file: Any, folder: Path) -> None:
    (folder / "raw").write_bytes(bytes(8 * N))
    del file["labels"]
    file.create_dataset("labels", (N,), "i8", external=[(os.fsencode(folder / "raw"), 0, 8 * N)])


def virtual(file: Any, folder: Path) -> None:
    write(folder / "other.h5")
    layout = h5py.VirtualLayout((N,), "i8")
    layout[:] = h5py.VirtualSource(folder / "other.h5", "labels", (N,))
    del file["labels"]
    file.create_virtual_dataset("labels", layout)


def scalar(file: Any, folder: Path) -> None:
    del file["labels"]
    file["labels"] = 3


def endless(file: Any, folder: Path) -> None:
    del file["labels"]
    file.create_dataset("labels", (2**40,), "i8", chunks=(1024,))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (external_link, "labels is a link to another place"),
        (external_group, "is a link to another place"),
        (soft_loop, "labels is a link to another place"),
        (raw_storage, "labels lies in other files"),
        (virtual, "labels lies in other files"),
        (scalar, r"labels has the shape \(\)"),
        (endless, "labels claims 1,099,511,627,776 entries"),
    ],
)
def test_nothing_is_read_from_elsewhere_or_beyond_what_a_file_can_hold(
    tmp_path: Path, change: Any, message: str
) -> None:
    path = write(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        change(file, tmp_path)
    with pytest.raises(ValueError, match=rf"a\.h5: {message}|a\.h5: extra/.* {message}") as caught:
        read_spike_file(path)
    assert "\n" not in str(caught.value)


def test_a_row_that_claims_more_than_the_file_is_not_allocated(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5")
    with h5py.File(path) as file:
        offset = file["spikes/times"].id.get_offset()
    content = bytearray(path.read_bytes())
    content[offset : offset + 4] = struct.pack("<I", 0x0FFFFFFF)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.h5: /spikes/times claims a row of 1,073,741,820 bytes"):
        read_spike_file(path)


def test_flipped_bytes_give_one_line_or_the_spikes(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.h5").read_bytes()
    rng = np.random.default_rng(1)
    path = tmp_path / "b.h5"
    messages = list[str]()
    for _ in range(60):
        content = bytearray(whole)
        for place in rng.integers(0, len(content), 4):
            content[place] = rng.integers(256)
        path.write_bytes(content)
        try:
            clips = read_spike_file(path)
            for i in range(len(clips)):
                clips.events[i]
        except ValueError as error:
            messages.append(str(error))
    assert messages
    assert all("b.h5" in message and "\n" not in message for message in messages)
