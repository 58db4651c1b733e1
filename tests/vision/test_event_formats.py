"""Recordings of any camera: each format is read to the event, by a file written here byte by byte."""

import logging
import struct
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from spikeloom.vision.datasets.aedat2 import read_aedat2
from spikeloom.vision.datasets.event_sets import EventFilesConfig
from spikeloom.vision.datasets.events import EVENT, EventFileError, make_events, unwrapped
from spikeloom.vision.datasets.readers import read_events
from spikeloom.vision.transforms.frames import frames_by_number, frames_by_time
from tests.vision.event_files import (
    AEDAT2_HEADER,
    AEDAT3_HEADER,
    aedat2_words,
    aedat3_packet,
    aedat4_bytes,
    aedat4_packet,
    nmnist_bytes,
)
from tests.vision.test_events import columns

END2 = b"# End Of ASCII Header\r\n"


def chip_line(name: str) -> bytes:
    return AEDAT2_HEADER + b"# AEChip: eu.seebetter.ini.chips.davis." + name.encode() + b"\r\n" + END2


def davis_words(events: list[tuple[int, int, int, int]], flags: int = 0) -> bytes:
    return b"".join(struct.pack(">II", y << 22 | x << 12 | p << 11 | flags, t) for t, x, y, p in events)


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


# --- AEDAT 2 --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chip", "width", "height"),
    [("Davis346blue", 346, 260), ("DAVIS346B", 346, 260), ("DAVIS240C", 240, 180), ("DAVIS640", 640, 480)],
)
def test_aedat2_is_decoded_by_the_chip_of_its_header(tmp_path: Path, chip: str, width: int, height: int) -> None:
    events = [(5, 0, 0, 1), (9, width - 1, height - 1, 0), (11, 7, 140, 1)]
    path = written(tmp_path / "a.aedat", chip_line(chip) + davis_words(events))
    recording = read_events(path)
    assert recording.sensor == (height, width)
    assert columns(recording.events) == events
    outside = written(path, chip_line(chip) + davis_words([(1, width, 0, 1)]))
    if width < 1024:
        with pytest.raises(EventFileError, match=rf"a\.aedat, byte \d+: an event at \({width}, 0\) is outside"):
            read_events(outside)


def test_special_events_frames_and_motion_samples_are_dropped_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    events = [(5, 1, 2, 1), (9, 3, 4, 0)]
    davis = chip_line("DAVIS240C") + davis_words(events[:1]) + davis_words([(6, 9, 9, 1)], 1 << 10)
    davis += davis_words([(7, 900, 500, 1)], 1 << 31) * 2 + davis_words(events[1:])
    recording = read_events(written(tmp_path / "davis.aedat", davis))
    assert columns(recording.events) == events
    assert recording.notes["special events dropped"] == "1"
    assert recording.notes["frame and motion samples dropped"] == "2"
    assert "davis.aedat: 1 special event and 2 frame and motion samples dropped" in caplog.text
    dvs = AEDAT2_HEADER + aedat2_words(events[:1]) + struct.pack(">II", 0x8000, 6) * 3 + aedat2_words(events[1:])
    recording = read_events(written(tmp_path / "dvs.aedat", dvs))
    assert columns(recording.events) == events
    assert recording.notes["special events dropped"] == "3"
    assert "dvs.aedat: 3 special events dropped" in caplog.text


def test_an_unknown_chip_or_a_header_that_lost_its_chip_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.aedat", chip_line("CochleaAMS1c") + aedat2_words([(1, 2, 3, 1)]))
    with pytest.raises(EventFileError, match=r"a\.aedat, byte \d+: AEChip CochleaAMS1c has addresses"):
        read_events(path)
    path = written(tmp_path / "a.aedat", AEDAT2_HEADER + END2 + davis_words([(1, 2, 3, 1)]))
    with pytest.raises(EventFileError, match="is none of a DVS128"):
        read_events(path)


def test_an_event_that_begins_with_the_byte_of_a_comment_is_an_event(tmp_path: Path) -> None:
    """Without an end of the header a DAVIS event in row 140 looks like the beginning of a line."""
    header = AEDAT2_HEADER + b"# AEChip: x.DAVIS240C\r\n"
    events = [(5, 7, 140, 1), (10 << 8, 1, 1, 1)]
    assert davis_words(events)[:1] == b"#"
    assert columns(read_aedat2(written(tmp_path / "a.aedat", header + davis_words(events))).events) == events


# --- clocks and order -----------------------------------------------------------------------------------------------


def test_clocks_that_wrap_go_on(tmp_path: Path) -> None:
    late, early = 2**32 - 4, 3
    path = written(tmp_path / "a.aedat", AEDAT2_HEADER + aedat2_words([(late, 1, 1, 1), (early, 2, 2, 0)]))
    assert read_events(path).events["t"].tolist() == [late, 2**32 + early]
    path = written(tmp_path / "b.aedat", AEDAT2_HEADER + aedat2_words([(2**31 - 4, 1, 1, 1), (early, 2, 2, 0)]))
    assert read_events(path).events["t"].tolist() == [2**31 - 4, 2**31 + early]
    path = written(tmp_path / "c.bin", nmnist_bytes([(2**23 - 4, 1, 1, 1), (early, 2, 2, 0)]))
    assert read_events(path).events["t"].tolist() == [2**23 - 4, 2**23 + early]
    packets = aedat3_packet([(2**31 - 4, 1, 1, 1, 1)]) + aedat3_packet([(early, 1, 1, 1, 1)])
    path = written(tmp_path / "d.aedat", AEDAT3_HEADER + packets)
    assert read_events(path).events["t"].tolist() == [2**31 - 4, 2**31 + early]


def test_an_event_from_before_the_wrap_stays_before_it_and_a_silence_is_no_wrap() -> None:
    assert unwrapped(np.array([14, 1, 15, 2]), 4).tolist() == [14, 17, 15, 18]
    assert unwrapped(np.array([1, 14, 15, 0]), 4).tolist() == [1, 14, 15, 16]
    assert unwrapped(np.array([], dtype=np.uint32), 4).tolist() == []


def test_disordered_files_are_sorted_stably_and_framed_from_first_to_last_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rng = np.random.default_rng(0)
    t = np.sort(rng.integers(10, 10_000, 400))
    events = make_events(t, rng.integers(0, 128, 400), rng.integers(0, 128, 400), rng.integers(0, 2, 400))
    by_polarity = np.concatenate([events[events["p"]], events[~events["p"]]])
    path = written(tmp_path / "a.aedat", AEDAT2_HEADER + aedat2_words([tuple(map(int, e)) for e in by_polarity]))
    with caplog.at_level(logging.WARNING, logger="spikeloom"):
        found = read_events(path).events
    assert "a.aedat: time runs backwards once; events are sorted by time" in caplog.text
    assert (np.diff(found["t"]) >= 0).all()
    last = np.concatenate([events[1:], events[:1]])
    for disordered in (last, by_polarity):
        for frames in (frames_by_number, frames_by_time):
            whole = frames(events, 8, (128, 128)).sum((1, 2, 3))
            assert frames(disordered, 8, (128, 128)).sum((1, 2, 3)).tolist() == whole.tolist()
    tied = make_events(np.array([5, 5, 1]), np.array([1, 2, 3]), np.zeros(3), np.ones(3))
    path = written(tmp_path / "b.aedat", AEDAT2_HEADER + aedat2_words([tuple(map(int, e)) for e in tied]))
    assert read_events(path).events["x"].tolist() == [3, 1, 2]


def test_times_beyond_a_month_are_no_recording(tmp_path: Path) -> None:
    path = written(tmp_path / "a.aedat4", aedat4_bytes([aedat4_packet([(0, 1, 1, 1), (2**62, 1, 1, 1)])]))
    with pytest.raises(EventFileError, match=r"a\.aedat4, byte \d+: times span [\d,]+ days"):
        read_events(path)


# --- AEDAT 3 and 4 --------------------------------------------------------------------------------------------------


def test_aedat3_has_the_sensor_of_its_source(tmp_path: Path) -> None:
    header = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DAVIS240C\r\n#!END-HEADER\r\n"
    path = written(tmp_path / "a.aedat", header + aedat3_packet([(1, 239, 179, 1, 1)]))
    assert read_events(path).sensor == (180, 240)
    path = written(path, header.replace(b"DAVIS240C", b"eDVS4337") + aedat3_packet([(1, 2, 3, 1, 1)]))
    with pytest.raises(EventFileError, match="source eDVS4337 is a camera that is not known"):
        read_events(path)
    path = written(path, AEDAT3_HEADER + aedat3_packet([(1, 2, 3, 1, 1)], kind=0x8001))
    with pytest.raises(EventFileError, match=r"byte \d+: a compressed packet \(SerializedTS"):
        read_events(path)


@pytest.mark.parametrize("size", [(99_999_999_999, 128), (0, 128), (5000, 5000)])
def test_an_aedat4_sensor_that_no_camera_has_is_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    path = written(tmp_path / "a.aedat4", aedat4_bytes([aedat4_packet([(1, 2, 3, 1)])], sensors=(size,)))
    with pytest.raises(EventFileError, match=rf"a\.aedat4, byte 14: a sensor of {size[0]} x {size[1]} pixels is none"):
        read_events(path)


@pytest.mark.parametrize("library", ["lz4", "zstandard"])
def test_a_packet_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path: Path, library: str) -> None:
    module = pytest.importorskip("lz4.frame" if library == "lz4" else library)
    zeros = bytes(2**24)
    packed = module.compress(zeros) if library == "lz4" else module.ZstdCompressor().compress(zeros)
    path = written(tmp_path / "a.aedat4", aedat4_bytes([packed], compression=1 if library == "lz4" else 3))
    with pytest.raises(EventFileError, match=r"a\.aedat4, byte \d+: a packet .* unpacks to more than 100 times"):
        read_events(path)


# --- Prophesee ------------------------------------------------------------------------------------------------------

EVENTS = [(70, 3, 4, 1), (71, 600, 400, 0), (4099, 5, 6, 1)]
RAW = b"% camera_integrator_name Prophesee\n% evt %s\n% geometry 640x480\n% end\n"


def evt2_words(events: list[tuple[int, int, int, int]]) -> bytes:
    words = []
    for t, x, y, p in events:
        words += [8 << 28 | t >> 6 & 0xFFFFFFF, p << 28 | (t & 63) << 22 | x << 11 | y]
    return np.array(words, dtype="<u4").tobytes()


def evt3_words(events: list[tuple[int, int, int, int]]) -> bytes:
    words = []
    for t, x, y, p in events:
        words += [8 << 12 | t >> 12 & 0xFFF, 6 << 12 | t & 0xFFF, y, 2 << 12 | p << 11 | x]
    return np.array(words, dtype="<u2").tobytes()


def test_dat_files_are_read_in_every_version(tmp_path: Path) -> None:
    rows = [(t, p << 28 | y << 14 | x) for t, x, y, p in EVENTS]
    header = b"% Data file containing CD events.\n% Version 2\n% Height 480\n% Width 640\n"
    content = header + b"\x0c\x08" + np.array(rows, dtype="<u4").tobytes()
    recording = read_events(written(tmp_path / "a.dat", content))
    assert (columns(recording.events), recording.sensor, recording.sensor_known) == (EVENTS, (480, 640), True)
    old = [(5, 300, 200, 1), (6, 0, 0, 0)]
    rows = [(t, p << 17 | y << 9 | x) for t, x, y, p in old]
    content = b"% Data file containing Events.\n\x00\x08" + np.array(rows, dtype="<u4").tobytes()
    recording = read_events(written(tmp_path / "b.dat", content))
    assert (columns(recording.events), recording.sensor, recording.sensor_known) == (old, (240, 304), False)
    for bad, reason in (
        (content[:-3], "not whole events of 8"), (b"RIFF", "no header of lines"),
        (content.replace(b"\x00\x08", b"\x0e\x08", 1), "kind 0e08 is no event"),
    ):  # fmt: skip
        with pytest.raises(EventFileError, match=rf"b\.dat, byte \d+: .*{reason}"):
            read_events(written(tmp_path / "b.dat", bad))


def test_evt2_files_are_read_and_their_clock_goes_on(tmp_path: Path) -> None:
    trigger = struct.pack("<I", 10 << 28)
    early = struct.pack("<I", 1 << 28 | 5 << 11 | 5)
    content = RAW.replace(b"%s", b"2.0") + early + evt2_words(EVENTS[:2]) + trigger + evt2_words(EVENTS[2:])
    recording = read_events(written(tmp_path / "a.raw", content))
    assert (columns(recording.events), recording.sensor) == (EVENTS, (480, 640))
    assert recording.notes == {"triggers": "1", "events before the first time dropped": "1"}
    wrapping = [(2**34 - 1, 1, 1, 1), (2, 1, 1, 1)]
    recording = read_events(written(tmp_path / "a.raw", RAW.replace(b"%s", b"2.0") + evt2_words(wrapping)))
    assert recording.events["t"].tolist() == [2**34 - 1, 2**34 + 2]


def test_evt3_files_are_read_with_their_vectors_and_their_clock_goes_on(tmp_path: Path) -> None:
    header = b"% format EVT3;height=480;width=640\n% end\n"
    recording = read_events(written(tmp_path / "a.raw", header + evt3_words(EVENTS)))
    assert (columns(recording.events), recording.sensor) == (EVENTS, (480, 640))
    # time 1 << 12 | 5, row 9, base x 100 ON; a vector of 12 (bits 0 and 11), one of 8 (bit 7), base 7 OFF, one of 8 (0)
    words = [0x8001, 0x6005, 0x0009, 0x3864, 0x4801, 0x5080, 0x3007, 0x5001, 0xA000]
    recording = read_events(written(tmp_path / "a.raw", header + np.array(words, dtype="<u2").tobytes()))
    t = 1 << 12 | 5
    assert columns(recording.events) == [(t, 100, 9, 1), (t, 111, 9, 1), (t, 119, 9, 1), (t, 7, 9, 0)]
    assert recording.notes["triggers"] == "1"
    wrapping = [(2**24 - 1, 1, 1, 1), (2, 1, 1, 1)]
    recording = read_events(written(tmp_path / "a.raw", header + evt3_words(wrapping)))
    assert recording.events["t"].tolist() == [2**24 - 1, 2**24 + 2]
    early = np.array([0x2864, 0x5001], dtype="<u2").tobytes()
    recording = read_events(written(tmp_path / "a.raw", header + early + evt3_words(EVENTS)))
    assert (columns(recording.events), recording.notes["events before the first time dropped"]) == (EVENTS, "2")


def test_other_raw_formats_are_refused(tmp_path: Path) -> None:
    for header in (b"% evt 2.1\n% end\n", b"% end\n", b""):
        with pytest.raises(EventFileError, match=r"a\.raw, byte 0: format .* is none of EVT 2\.0 and EVT 3\.0"):
            read_events(written(tmp_path / "a.raw", header + bytes(16)))


# --- tables ---------------------------------------------------------------------------------------------------------

TABLE = make_events(*np.array(EVENTS).T)


def write_tables(folder: Path) -> list[Path]:
    t, x, y, p = (TABLE[name] for name in "txyp")
    np.save(folder / "structured.npy", TABLE)
    np.save(folder / "txyp.npy", np.stack([t, x, y, p], 1))
    np.save(folder / "xytp.npy", np.stack([x, y, t, np.where(p, 1, -1)], 1).astype(float))
    np.savez(folder / "fields.npz", t=t, x=x, y=y, p=p)
    np.savez_compressed(folder / "one.npz", events=TABLE)
    with h5py.File(folder / "dsec.h5", "w") as file:
        for name, column in (("t", t - 50), ("x", x), ("y", y), ("p", p)):
            file[f"events/{name}"] = column
        file["events/ms_to_idx"] = np.arange(9)
        file["t_offset"] = 50
    with h5py.File(folder / "compound.hdf5", "w") as file:
        file["CD/events"] = TABLE
        file.attrs["geometry"] = "640x480"
    with h5py.File(folder / "seconds.h5", "w") as file:
        for name, column in (("ts", t / 1e6), ("xs", x), ("ys", y), ("ps", p)):
            file[f"events/{name}"] = column
        file.attrs["sensor_resolution"] = (480, 640)
    return sorted(folder.iterdir())


def test_tables_of_every_layout_hold_the_same_events(tmp_path: Path) -> None:
    paths = write_tables(tmp_path)
    assert len(paths) == 8
    for path in paths:
        recording = read_events(path)
        assert columns(recording.events) == EVENTS, path.name
        assert recording.sensor == (480, 640)
        assert recording.sensor_known == (path.name in ("compound.hdf5", "seconds.h5"))


def test_a_table_that_cannot_be_read_is_named_in_one_line(tmp_path: Path) -> None:
    good = tmp_path / "good.npy"
    np.save(good, TABLE)
    raw = good.read_bytes()
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "no_time.npy", TABLE[["x", "y", "p"]])
    np.save(tmp_path / "negative.npy", np.array([[1, -5, 2, 1]]))
    np.save(tmp_path / "nan.npy", np.array([[np.nan, 5, 2, 1]]))
    np.save(tmp_path / "empty.npy", TABLE[:0])
    np.save(tmp_path / "flat.npy", np.arange(9))
    written(tmp_path / "promises.npy", raw.replace(b"(3,)", b"(3000000000000,)"))
    written(tmp_path / "cut.npy", raw[:-5])
    written(tmp_path / "noise.h5", b"\x89HDF\r\n\x1a\n" + bytes(64))
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("t.npy", raw + bytes(2**27))
    with zipfile.ZipFile(tmp_path / "lies.npz", "w") as archive:
        archive.writestr("t.npy", raw.replace(b"(3,)", b"(3000000000000,)"))
    good.unlink()
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == 11
    for path in paths:
        with pytest.raises(EventFileError) as caught:
            read_events(path)
        assert path.name in str(caught.value)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 600


def test_a_set_of_tables_needs_to_be_told_its_sensor(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in ("left", "right"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(3):
                np.save(tmp_path / split / name / f"{i}.npy", TABLE[: i + 1])
    with pytest.raises(EventFileError, match=r"does not name its sensor; give data\.sensor=\[HEIGHT,WIDTH\]"):
        EventFilesConfig(root=str(tmp_path)).build()
    splits = EventFilesConfig(root=str(tmp_path), sensor=[480, 640]).build()
    assert splits.test.sensor == (480, 640)
    assert [len(splits.test.content[i]) for i in range(6)] == [1, 2, 3, 1, 2, 3]
    assert splits.test.content[0].dtype == EVENT
