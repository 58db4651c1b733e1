"""Recordings as people have them give the samples that were recorded, and what was done to them is counted."""

import io
import logging
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from spikeloom.accel.common.changes import Changes
from spikeloom.speech.datasets import audio
from spikeloom.speech.datasets.audio import AudioError, n_samples, read_audio, stream_audio
from spikeloom.speech.datasets.folders import find_audio
from spikeloom.speech.features.log_mel import LogMelConfig
from spikeloom.speech.features.waveform_window import window_start

HZ = 16_000


@pytest.fixture(autouse=True)
def counted(monkeypatch: pytest.MonkeyPatch) -> Changes:
    changes = Changes()
    monkeypatch.setattr(audio, "changes", changes)
    return changes


def word(n: int = HZ) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * 440 * np.arange(n) / HZ)


def wav_bytes(samples: np.ndarray, **options: object) -> bytes:
    stored = io.BytesIO()
    soundfile.write(stored, samples, HZ, format=str(options.pop("format", "WAV")), **options)  # type: ignore[arg-type]
    return stored.getvalue()


PLAIN = wav_bytes(word())
DATA = PLAIN.index(b"data")


def with_size(size: int) -> bytes:
    return PLAIN[: DATA + 4] + struct.pack("<I", size) + PLAIN[DATA + 8 :]


def chunk(name: bytes, content: bytes, pad: bool) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (pad and len(content) % 2)


def rf64(size: int) -> bytes:
    sizes = b"ds64" + struct.pack("<IQQQI", 28, len(PLAIN), size, HZ, 0)
    return b"RF64\xff\xff\xff\xffWAVE" + sizes + PLAIN[12 : DATA + 4] + b"\xff\xff\xff\xff" + PLAIN[DATA + 8 :]


def replaced(content: bytes, at: int, by: bytes) -> bytes:
    return content[:at] + by + content[at + len(by) :]


FLAC = wav_bytes(word(), format="FLAC")
AU = wav_bytes(word(), format="AU", subtype="PCM_16")
AIFF = wav_bytes(word(), format="AIFF", subtype="PCM_16")
W64 = wav_bytes(word(), format="W64", subtype="PCM_16")


@pytest.mark.parametrize(
    "content",
    [
        *(with_size(size) for size in (0, 0x7FFFFFFF, 0x7FFFF000, 0x80000000, 0xFFFFFFFF, 0xFFFFFFDB)),
        with_size(3200),
        with_size(3201),
        PLAIN[:DATA] + chunk(b"LIST", b"INFO note", pad=True) + PLAIN[DATA:],
        PLAIN[:DATA] + chunk(b"LIST", b"INFO note", pad=False) + PLAIN[DATA:],
        PLAIN[:DATA] + chunk(b"LIST", b"INFO note", pad=False) + with_size(0xFFFFFFFF)[DATA:],
        PLAIN + chunk(b"LIST", b"INFO note", pad=False),
        PLAIN[:12] + chunk(b"JUNK", b"\0" * 28, pad=True) + PLAIN[12:],
        rf64(2 * HZ),
        rf64(2**63),
        rf64(2 * HZ).replace(b"RF64", b"BW64"),
        replaced(rf64(100), rf64(0).index(b"data") + 4, struct.pack("<I", 2 * HZ)),
        wav_bytes(word(), endian="BIG"),
        FLAC,
        replaced(FLAC, 21, bytes([FLAC[21] & 0xF0, 0, 0, 0, 0])),
        AU,
        replaced(AU, 8, b"\xff" * 4),
        AIFF,
        replaced(AIFF, AIFF.index(b"SSND") + 4, b"\xff" * 4),
        W64,
        wav_bytes(word(), format="CAF", subtype="PCM_16"),
    ],
    ids=[
        "size 0", "size 7FFFFFFF", "size of sox", "size 80000000", "size FFFFFFFF", "size less a header", "fewer",
        "fewer, odd", "padded LIST", "unpadded LIST", "unpadded LIST, placeholder", "LIST behind", "JUNK", "RF64",
        "RF64 placeholder", "BW64", "RF64 of 32 bits", "RIFX", "FLAC", "FLAC of unwritten length", "AU",
        "AU of unwritten length", "AIFF", "AIFF placeholder", "W64", "CAF",
    ],
)  # fmt: skip
def test_every_form_of_a_recording_gives_its_samples(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    samples = read_audio(path, HZ)
    np.testing.assert_allclose(samples[:HZ], word(), atol=1e-4)
    assert len(samples) == n_samples(path, HZ) == HZ
    np.testing.assert_array_equal(np.concatenate(list(stream_audio(path, HZ))), samples)


@pytest.mark.parametrize("missing", [1_000, 16_000])
@pytest.mark.parametrize(
    "content", [PLAIN, rf64(2 * HZ), wav_bytes(word(), endian="BIG")], ids=["RIFF", "RF64", "RIFX"]
)
def test_samples_that_are_missing_are_an_error(tmp_path: Path, content: bytes, missing: int) -> None:
    (tmp_path / "a.wav").write_bytes(content[:-missing])
    with pytest.raises(AudioError, match=r"a\.wav: truncated, the header promises 32000 bytes .*; copy"):
        read_audio(tmp_path / "a.wav", HZ)


@pytest.mark.parametrize("content", [AU, AIFF, W64], ids=["AU", "AIFF", "W64"])
def test_other_formats_cut_short_are_an_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.snd").write_bytes(content[: len(content) // 2])
    with pytest.raises(AudioError, match=r"a\.snd: truncated, .*; copy"):
        read_audio(tmp_path / "a.snd", HZ)


@pytest.mark.parametrize(
    ("content", "remedy"),
    [
        (replaced(PLAIN, 34, b"\x08\0"), r"8 bits a sample .* 2 bytes a frame .*; correct"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS .*; download"),
        (b"\n<!DOCTYPE html><html>404</html>", "web page.*; download"),
    ],
)
def test_what_is_no_sound_is_named(tmp_path: Path, content: bytes, remedy: str) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(AudioError, match=remedy):
        read_audio(tmp_path / "a.wav", HZ)


@pytest.mark.parametrize("subtype", ["ALAW", "ULAW", "PCM_U8", "PCM_24", "MS_ADPCM", "IMA_ADPCM", "GSM610"])
def test_codecs_of_telephones_are_read_to_the_end(tmp_path: Path, counted: Changes, subtype: str) -> None:
    (tmp_path / "a.wav").write_bytes(wav_bytes(word(), subtype=subtype))
    samples = read_audio(tmp_path / "a.wav", HZ)
    assert np.corrcoef(samples[:HZ], word())[0, 1] > 0.99
    np.testing.assert_array_equal(np.concatenate(list(stream_audio(tmp_path / "a.wav", HZ))), samples)
    assert counted.summary() == []


def test_an_mp3_cut_short_is_counted(tmp_path: Path, counted: Changes) -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(4 * HZ)
    whole = wav_bytes(noise, format="MP3", subtype="MPEG_LAYER_III")
    (tmp_path / "a.mp3").write_bytes(whole[: len(whole) // 2])
    read_audio(tmp_path / "a.mp3", HZ)
    assert "shorter than its header" in counted.summary()[0]


@pytest.mark.parametrize(
    ("samples", "subtype", "peak", "kind"),
    [
        (word() * 32_768, "FLOAT", 0.3, "16-bit integers: divided by 32,768"),
        (word() * 2**31, "DOUBLE", 0.3, "32-bit integers: divided by 2,147,483,648"),
        (word() * 2**-16, "PCM_32", 0.3, "hold 16-bit values"),
        (word() * 6, "FLOAT", 1.8, "louder than full scale: kept"),
        (np.stack([word(), 0 * word()], 1), "PCM_16", 0.3, "1 of 2 channels silent: left out"),
        (np.stack([word(), -word()], 1), "PCM_16", 0.3, "2 channels that cancel each other: the loudest alone"),
        (np.stack([word(), word(), -word(), -word()], 1), "PCM_16", 0.3, "4 channels that cancel"),
        (np.stack([0.9 * word(), -word(), 0 * word()], 1), "FLOAT", 0.3, "3 channels that cancel"),
        (np.stack([word(), word()], 1), "PCM_16", 0.3, "2 channels averaged"),
        (np.stack([word() + 0.25, 0.25 - word()], 1), "PCM_16", 0.55, "2 channels that cancel"),  # beside an offset
        (0 * word(), "PCM_16", 0.0, "digital silence"),
        (0 * word() + 0.25, "PCM_16", 0.25, "digital silence"),
        (word(2) + 0.3, "PCM_16", 0.351, "shorter than 10 ms"),
    ],
)
def test_levels_and_channels_are_corrected_and_counted(
    tmp_path: Path, counted: Changes, samples: np.ndarray, subtype: str, peak: float, kind: str
) -> None:
    soundfile.write(tmp_path / "a.wav", samples, HZ, subtype=subtype)
    read = read_audio(tmp_path / "a.wav", HZ)
    assert float(np.abs(read).max()) == pytest.approx(peak, abs=2e-3)
    assert len(counted.summary()) == 1
    assert kind in counted.summary()[0]
    assert counted.summary()[0].startswith("1 recording: ")
    read_audio(tmp_path / "a.wav", HZ)
    assert counted.summary()[0].startswith("1 recording: ")  # counted once, however often it is read
    np.testing.assert_array_equal(np.concatenate(list(stream_audio(tmp_path / "a.wav", HZ))), read)


def test_independent_channels_are_averaged() -> None:
    for n in (2, 4, 8):
        weights, kind = audio.mixing(np.full(n, 1.0), 1 / n)
        assert weights.tolist() == [1 / n] * n
        assert kind == f"{n} channels averaged"


@pytest.mark.parametrize("rate_hz", [1, 999, 384_001, 2_000_000_000])
def test_rates_that_no_recorder_has_are_refused(tmp_path: Path, rate_hz: int) -> None:
    header = bytearray(PLAIN)
    header[24:28] = struct.pack("<I", rate_hz)
    (tmp_path / "a.wav").write_bytes(header)
    with pytest.raises(
        AudioError, match=rf"a\.wav: sample rate of {rate_hz:,} Hz .*; use recordings of 1,000 to 384,000"
    ):
        read_audio(tmp_path / "a.wav", HZ)


@pytest.mark.parametrize("rate_hz", [11_025, 22_050, 44_100, 47_999, 383_999])
def test_any_other_rate_is_resampled_in_one_call_and_in_blocks(tmp_path: Path, rate_hz: int) -> None:
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(rate_hz) / rate_hz)
    soundfile.write(tmp_path / "a.wav", tone, rate_hz, subtype="FLOAT")
    inside = slice(1000, -1000)
    whole = read_audio(tmp_path / "a.wav", HZ)
    assert len(whole) == HZ
    np.testing.assert_allclose(whole[inside], word()[inside], atol=2e-3)
    streamed = np.concatenate(list(stream_audio(tmp_path / "a.wav", HZ)))
    np.testing.assert_allclose(streamed[: len(whole)][inside], word()[inside], atol=2e-3)


def test_a_header_of_many_hours_is_not_allocated(tmp_path: Path) -> None:
    flac = bytearray(wav_bytes(np.zeros(HZ), format="FLAC"))
    flac[21] |= 0x0F  # the upper bits of the number of samples in STREAMINFO
    flac[22:26] = b"\xff\xff\xff\xff"
    (tmp_path / "a.flac").write_bytes(flac)
    with pytest.raises(AudioError, match=r"a\.flac: .* too long for a clip"):
        read_audio(tmp_path / "a.flac", HZ)


def test_files_are_found_whatever_their_ending_and_the_others_are_counted_in_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.wav", "b.WAV", "c.Flac", "d.ogg", "e.MP3", "._a.wav", ".hidden.wav", "f.m4a", "g.jpeg", "list.csv"):
        (tmp_path / name).write_bytes(PLAIN)
    with caplog.at_level(logging.WARNING):
        assert [file.name for file in find_audio(tmp_path)] == ["a.wav", "b.WAV", "c.Flac", "d.ogg", "e.MP3"]
    assert len(caplog.messages) == 1
    for part in (
        "4 of 9 files not read",
        "2 hidden (._a.wav, .hidden.wav)",
        "convert them",
        "f.m4a",
        "1 no recordings",
    ):
        assert part in caplog.messages[0]


def test_the_window_of_a_longer_clip_is_chosen_and_counted() -> None:
    late = np.concatenate([np.zeros(HZ), word(), np.zeros(HZ // 2)]).astype(np.float32)
    assert [window_start(late, HZ, w) for w in ("loudest", "start", "center")] == [HZ, 0, (len(late) - HZ) // 2]
    assert window_start(np.zeros(3 * HZ, np.float32), HZ, "loudest") == 0
    front_end = LogMelConfig().build()
    alone = front_end.frames(word().astype(np.float32))
    np.testing.assert_array_equal(front_end.frames(late).numpy(), alone.numpy())
    assert front_end.left_out(late) == "longer than 1 s: the loudest part is used"
    assert front_end.left_out(late[:HZ]) == ""
    with pytest.raises(ValueError, match=r"features\.window=end is unknown; use one of loudest, start, center"):
        LogMelConfig(window="end").build()
