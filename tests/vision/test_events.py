"""Recordings are read to the event, and whatever is wrong with a file is named by file, byte and reason."""

import contextlib
import logging
import sys
from pathlib import Path

import numpy as np
import pytest

from spikeloom.vision.datasets.aedat2 import read_aedat2
from spikeloom.vision.datasets.aedat3 import read_aedat3, read_cuts
from spikeloom.vision.datasets.event_sets import cifar10dvs_view, cut_recording
from spikeloom.vision.datasets.events import EventFileError, make_events
from spikeloom.vision.datasets.nmnist import read_nmnist
from spikeloom.vision.datasets.readers import read_events
from spikeloom.vision.transforms.frames import frames_by_number, frames_by_time
from tests.conftest import data_folder
from tests.vision.event_files import (
    AEDAT2_HEADER,
    AEDAT3_HEADER,
    SPECIAL,
    aedat2_words,
    aedat3_packet,
    aedat4_bytes,
    aedat4_packet,
    nmnist_bytes,
    random_events,
)


def dvs(name: str) -> Path:
    path = data_folder("dvs") / name
    if not path.exists():
        pytest.skip(f"no {name} in SPIKELOOM_DATA/dvs")
    return path


def columns(events: np.ndarray) -> list[tuple[int, ...]]:
    return [(int(e["t"]), int(e["x"]), int(e["y"]), int(e["p"])) for e in events]


def test_a_jaer_recording_has_its_known_events() -> None:
    path = dvs("dvs128_short.aedat")
    recording = read_events(path)
    events, t = recording.events, recording.events["t"]
    assert recording.notes["header"] == "3,383 bytes"
    assert (len(events), int(events["p"].sum()), int(t[0]), int(t[-1])) == (130_114, 55_123, 113_476_330, 119_657_829)
    assert (np.diff(t) >= 0).all()
    assert (events["x"].min(), events["x"].max(), events["y"].min(), events["y"].max()) == (0, 127, 0, 127)
    assert columns(events[:1]) == [(113_476_330, 57, 2, 1)]
    view = cifar10dvs_view(events)
    assert columns(view[:1]) == [(113_476_330, 125, 70, 0)]
    for n_frames, each, last in ((4, 32_528, 32_530), (10, 13_011, 13_015), (16, 8_132, 8_134)):
        sums = frames_by_number(view, n_frames, (128, 128)).sum((1, 2, 3))
        assert sums.tolist() == [each] * (n_frames - 1) + [last]
    frames = frames_by_number(view, 10, (128, 128))
    assert frames[0].sum((1, 2)).tolist() == [5_650, 7_361]
    assert frames.max() == 51
    by_time = frames_by_time(view, 10, (128, 128)).sum((1, 2, 3)).tolist()
    assert by_time == [910, 102, 157, 45938, 14801, 110, 53476, 11897, 91, 2632]
    assert int(t[-1] - t[0]) // 10 == 618_149


def test_an_n_mnist_recording_has_its_known_events() -> None:
    recording = read_events(dvs("sample_nmnist.bin"))
    events, t = recording.events, recording.events["t"]
    assert (len(events), int(events["p"].sum()), int(t[0]), int(t[-1])) == (4_325, 2_145, 654, 311_175)
    assert (events["x"].min(), events["x"].max(), events["y"].min(), events["y"].max()) == (0, 33, 0, 33)
    assert (np.diff(t) >= 0).all()
    assert columns(events[:1]) == [(654, 7, 15, 1)]


def test_an_aedat4_recording_has_its_known_events() -> None:
    pytest.importorskip("lz4")
    recording = read_events(dvs("sample.aedat4"))
    events, t = recording.events, recording.events["t"]
    assert recording.sensor == (240, 320)
    assert recording.notes["packets"] == "59"
    assert (len(events), int(events["p"].sum())) == (111_954, 55_023)
    assert (int(t[0]), int(t[-1])) == (1_605_537_493_718_345, 1_605_537_494_308_262)


def test_aedat4_without_its_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lz4", None)
    monkeypatch.setitem(sys.modules, "lz4.frame", None)
    with pytest.raises(ImportError, match=r"pip install 'spikeloom\[events\]'"):
        read_events(dvs("sample.aedat4"))


@pytest.mark.parametrize("keep", [100, 3000, 100_000])
def test_a_cut_aedat4_recording_is_named(tmp_path: Path, keep: int) -> None:
    cut = tmp_path / "cut.aedat4"
    cut.write_bytes(dvs("sample.aedat4").read_bytes()[:keep])
    with pytest.raises(EventFileError, match=r"cut\.aedat4, byte \d+: .*copy the file again"):
        read_events(cut)


EVENTS = [(5, 1, 2, 1), (9, 127, 127, 0)]


def test_aedat4_is_read_to_its_table_or_to_the_end_of_a_recording_that_was_not_closed(tmp_path: Path) -> None:
    path, packet = tmp_path / "made.aedat4", aedat4_packet(EVENTS)
    n = len(aedat4_bytes([packet, packet]))
    for content in (aedat4_bytes([packet, packet]), aedat4_bytes([packet, packet], table=n) + b"the table"):
        path.write_bytes(content)
        assert columns(read_events(path).events) == sorted(EVENTS * 2)
    whole = aedat4_bytes([packet, packet], table=n)
    for kept in (n - 1, n - 8 - len(packet)):  # within the last packet, and between packets
        path.write_bytes(whole[:kept])
        with pytest.raises(EventFileError, match=rf"made\.aedat4, byte {kept}: truncated: .* at byte {n}; copy"):
            read_events(path)
    path.write_bytes(aedat4_bytes([packet, packet], table=n - 1))
    with pytest.raises(EventFileError, match=rf"byte {n - 8 - len(packet)}: a packet of {len(packet)} bytes"):
        read_events(path)


def test_aedat4_of_two_cameras_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "stereo.aedat4"
    path.write_bytes(aedat4_bytes([aedat4_packet(EVENTS)], sensors=((128, 128), (64, 48))))
    with pytest.raises(EventFileError, match=r"several streams, 0 \(128 x 128\), 1 \(64 x 48\); export one"):
        read_events(path)


def test_a_damaged_aedat4_header_or_packet_is_named(tmp_path: Path) -> None:
    path, good = tmp_path / "bad.aedat4", aedat4_bytes([aedat4_packet(EVENTS)])
    for at in range(14, 54):  # the size of the header and the tables in it
        path.write_bytes(good[:at] + b"\xff" + good[at + 1 :])
        with contextlib.suppress(EventFileError):
            assert columns(read_events(path).events) == EVENTS
    path.write_bytes(good[:18] + b"\xff\xff\xff\x7f" + good[22:])
    with pytest.raises(EventFileError, match=r"byte 14: the header is damaged"):
        read_events(path)
    outside = aedat4_bytes([aedat4_packet(EVENTS), aedat4_packet([(9, 128, 0, 1)])])
    path.write_bytes(outside)
    with pytest.raises(EventFileError, match=rf"byte {len(good)}: an event at \(128, 0\) is outside"):
        read_events(path)


def test_a_damaged_zstandard_packet_is_named(tmp_path: Path) -> None:
    zstandard = pytest.importorskip("zstandard")
    path, packed = tmp_path / "packed.aedat4", zstandard.ZstdCompressor().compress(aedat4_packet(EVENTS * 20))
    path.write_bytes(aedat4_bytes([packed], compression=3))
    assert columns(read_events(path).events) == sorted(EVENTS * 20)
    for bad in (b"\x55" * 40, packed[:6] + b"\x55" * 20 + packed[26:], packed[:-5]):
        path.write_bytes(aedat4_bytes([bad], compression=3))
        with pytest.raises(EventFileError, match=r"packed\.aedat4, byte \d+: a packet that cannot be unpacked"):
            read_events(path)


def test_a_header_may_end_without_saying_so(tmp_path: Path) -> None:
    events = [(5, 1, 2, 1), (9, 127, 127, 0)]
    for name, end in (("said", b"#End Of ASCII Header\r\n"), ("unsaid", b"")):
        path = tmp_path / f"{name}.aedat"
        path.write_bytes(AEDAT2_HEADER + end + aedat2_words(events))
        assert columns(read_aedat2(path).events) == events


def test_n_mnist_clock_overflows_move_later_events(tmp_path: Path) -> None:
    path = tmp_path / "0.bin"
    path.write_bytes(nmnist_bytes([(10, 1, 2, 1), (0, 0, 240, 0), (5, 3, 4, 0), (0, 0, 240, 0), (7, 33, 33, 1)]))
    recording = read_nmnist(path)
    assert columns(recording.events) == [(10, 1, 2, 1), (8197, 3, 4, 0), (16391, 33, 33, 1)]
    assert recording.notes["clock overflows"] == "2"


def test_aedat3_bytes_are_as_specified(tmp_path: Path) -> None:
    packet = aedat3_packet([(1000, 5, 9, 1, 1)])
    assert packet[28:] == bytes.fromhex("27 00 0A 00 E8 03 00 00")
    path = tmp_path / "one.aedat"
    path.write_bytes(AEDAT3_HEADER + packet)
    assert columns(read_events(path).events) == [(1000, 5, 9, 1)]


def test_aedat3_round_trip_with_overflow_foreign_packets_and_invalid_events(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    early, late = random_events(rng, 50), random_events(rng, 30)
    path = tmp_path / "user01_led.aedat"
    path.write_bytes(
        AEDAT3_HEADER
        + aedat3_packet([(*e, 1) for e in early])
        + aedat3_packet([(1, 0, 0, 0, 1)], kind=SPECIAL)
        + aedat3_packet([(0, 127, 127, 1, 0), *[(*e, 1) for e in late]], overflow=1)
    )
    recording = read_events(path)
    assert columns(recording.events) == early + [(t + 2**31, x, y, p) for t, x, y, p in late]
    assert recording.notes == {"invalid events dropped": "1", "packets of other types": "1"}


def test_gestures_are_cut_from_start_to_before_end(tmp_path: Path) -> None:
    path = tmp_path / "user09_led.aedat"
    path.write_bytes(AEDAT3_HEADER + aedat3_packet([(t, 1, 1, 1, 1) for t in (99, 100, 150, 199, 200)]))
    (tmp_path / "labels.csv").write_text("class,startTime_usec,endTime_usec\n3,100,200\n11,200,300\n")
    cuts = read_cuts(tmp_path / "labels.csv")
    assert cuts == [(2, 100, 200), (10, 200, 300)]
    assert cut_recording(path, cuts[0])["t"].tolist() == [100, 150, 199]
    assert cut_recording(path, cuts[1])["t"].tolist() == [200]
    with pytest.raises(EventFileError, match="no event from 500 to 600"):
        cut_recording(path, cuts[0]._replace(start_us=500, end_us=600))
    for text, reason in (
        ("class,start,end\n", "no labelled stretch"), ("12,1,2\n", "class 12 of 1..11"),
        ("1,2\n", "is not class,start,end"), ("1,9,9\n", "from 9 to 9"),
    ):  # fmt: skip
        (tmp_path / "labels.csv").write_text(text)
        with pytest.raises(EventFileError, match=reason):
            read_cuts(tmp_path / "labels.csv")


GOOD2, GOOD3 = aedat2_words([(1, 2, 3, 1)]), aedat3_packet([(1, 2, 3, 1, 1)])
DAMAGED = {  # file name -> content, byte, reason
    "empty2.aedat": (AEDAT2_HEADER, len(AEDAT2_HEADER), "no event"),
    "short2.aedat": (AEDAT2_HEADER + GOOD2 * 2 + b"abc", len(AEDAT2_HEADER) + 16, "not whole events of 8"),
    "endless2.aedat": (b"#!AER-DAT2.0", 0, "the header does not end"),
    "headerless3.aedat": (b"#!AER-DAT3.1\r\n" + GOOD3, 0, "does not end with #!END-HEADER"),
    "empty3.aedat": (AEDAT3_HEADER, len(AEDAT3_HEADER), "no event"),
    "cut_header3.aedat": (AEDAT3_HEADER + GOOD3 + GOOD3[:20], len(AEDAT3_HEADER) + 36, "20 bytes where a packet"),
    "cut_packet3.aedat": (AEDAT3_HEADER + GOOD3 + GOOD3[:-3], len(AEDAT3_HEADER) + 36, "a packet of 8 bytes, and 5"),
    "outside3.aedat": (
        AEDAT3_HEADER + aedat3_packet([(1, 2, 3, 1, 1), (2, 128, 0, 1, 1)]), len(AEDAT3_HEADER) + 36,
        "(128, 0) is outside the sensor of 128 x 128",
    ),
    "short.bin": (nmnist_bytes([(1, 2, 3, 1)]) + b"ab", 5, "not whole events of 5"),
    "outside.bin": (nmnist_bytes([(1, 2, 3, 1), (1, 34, 3, 1)]), 5, "(34, 3) is outside the sensor of 34 x 34"),
    "outside_later.bin": (
        nmnist_bytes([(1, 2, 3, 1), (0, 0, 240, 0), (0, 0, 240, 0), (1, 34, 3, 1)]), 15, "(34, 3) is outside",
    ),
    "nothing.bin": (b"", 0, "no event"),
    "strange.aedat": (b"RIFF....WAVE", 0, "none of AEDAT 2.0"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_named_with_its_byte_and_reason(name: str, tmp_path: Path) -> None:
    content, byte, reason = DAMAGED[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(EventFileError) as caught:
        read_events(path)
    assert f"{path}, byte {byte}: " in str(caught.value)
    assert reason in str(caught.value)


def test_time_that_runs_backwards_is_said_and_sorted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "back.aedat"
    path.write_bytes(AEDAT3_HEADER + aedat3_packet([(t, 1, 1, 1, 1) for t in (5, 3, 8, 1)]))
    with caplog.at_level(logging.WARNING, logger="spikeloom"):
        assert read_aedat3(path).events["t"].tolist() == [1, 3, 5, 8]
    assert "time runs backwards 2 times; events are sorted by time" in caplog.text


def test_frames_by_number_give_the_rest_to_the_last_or_drop_it() -> None:
    events = make_events(*(np.arange(11) for _ in range(3)), np.arange(11) % 2)
    assert frames_by_number(events, 4, (16, 16)).sum((1, 2, 3)).tolist() == [2, 2, 2, 5]
    assert frames_by_number(events, 4, (16, 16), drop=True).sum((1, 2, 3)).tolist() == [2, 2, 2, 2]
    frames = frames_by_number(events, 11, (16, 16))
    assert all(frames[i, i % 2, i, i] == 1 for i in range(11))
    with pytest.raises(ValueError, match="11 events cannot fill 12 frames; use fewer frames"):
        frames_by_number(events, 12, (16, 16))


def test_a_stretch_without_events_is_an_empty_frame() -> None:
    t = np.array([0, 1, 2, 1000])
    frames = frames_by_time(make_events(t, t * 0, t * 0, t > 0), 4, (2, 3))
    assert frames.sum((1, 2, 3)).tolist() == [3, 0, 0, 1]
    same = frames_by_time(make_events(t * 0, t * 0, t * 0, t > 0), 3, (2, 3))
    assert same.sum((1, 2, 3)).tolist() == [0, 0, 4]


def test_frames_by_time_of_disordered_events_hold_each_event_once() -> None:
    rng = np.random.default_rng(2)
    t = np.concatenate([[0], rng.integers(0, 1000, 500), [1000]])
    events = make_events(t, rng.integers(0, 4, 502), rng.integers(0, 4, 502), rng.integers(0, 2, 502))
    frames = frames_by_time(events, 5, (4, 4))
    assert frames.sum() == 502
    assert frames[1].sum() == ((t >= 200) & (t < 400)).sum()
