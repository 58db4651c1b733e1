"""Wav files are read as promised, and a broken one is an error that says what to do."""

import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile

from spikeloom.accel.common.changes import Changes
from spikeloom.speech.datasets import audio
from spikeloom.speech.datasets.audio import AudioError, read_audio


def tone(rate_hz: int, frequency_hz: float = 440.0, seconds: float = 0.5) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * frequency_hz * np.arange(round(rate_hz * seconds)) / rate_hz)


def test_samples_come_back_as_written(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(8000), 8000, subtype="PCM_16")
    read = read_audio(tmp_path / "a.wav", 8000)
    assert read.dtype == np.float32
    assert read.shape == (4000,)
    np.testing.assert_allclose(read, tone(8000), atol=1 / 32768)


def test_stereo_is_averaged_and_another_rate_resampled_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audio, "changes", Changes())
    both = np.stack([tone(44_100), 0.5 * tone(44_100)], axis=1)
    for name in ("a.wav", "b.wav"):
        soundfile.write(tmp_path / name, both, 44_100, subtype="FLOAT")
    with caplog.at_level(logging.WARNING):
        read = read_audio(tmp_path / "a.wav", 8000)
        read_audio(tmp_path / "b.wav", 8000)
    np.testing.assert_allclose(read[200:-200], 0.75 * tone(8000)[200:-200], atol=2e-3)
    assert ["2 channels averaged" in m or "44,100 to 8,000 Hz" in m for m in caplog.messages] == [True, True]
    assert all("a.wav" in message for message in caplog.messages)
    assert [line.split(" (")[0] for line in audio.changes.summary()] == [
        "2 recordings: 2 channels averaged", "2 recordings: resampled from 44,100 to 8,000 Hz",
    ]  # fmt: skip


def test_a_plain_file_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    soundfile.write(tmp_path / "a.wav", tone(8000), 8000)
    read_audio(tmp_path / "a.wav", 8000)
    assert not caplog.messages


def truncated(path: Path) -> None:
    soundfile.write(path, tone(8000), 8000)
    path.write_bytes(path.read_bytes()[:-1000])


def cut_in_the_header(path: Path) -> None:
    soundfile.write(path, tone(8000), 8000)
    path.write_bytes(path.read_bytes()[:30])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def without_samples(path: Path) -> None:
    soundfile.write(path, np.zeros(0), 8000)


def with_nan(path: Path) -> None:
    samples = tone(8000)
    samples[17] = np.nan
    soundfile.write(path, samples, 8000, subtype="FLOAT")


def text(path: Path) -> None:
    path.write_text("this is no sound, however long it may be " * 10)


def absent(path: Path) -> None:
    path.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (truncated, "truncated, the header promises 8000 bytes of samples and 7000 are there"),
        (cut_in_the_header, "promises 16 bytes and 10 are there"),
        (empty, "0 bytes"),
        (without_samples, "holds no samples"),
        (with_nan, "1 samples are NaN or infinite"),
        (text, "not a readable recording"),
        (absent, "no such file"),
    ],
)
def test_a_broken_file_is_named_with_problem_and_remedy(tmp_path: Path, damage: object, problem: str) -> None:
    path = tmp_path / "7_ann_3.wav"
    assert callable(damage)
    damage(path)
    with pytest.raises(AudioError, match=r"7_ann_3\.wav") as caught:
        read_audio(path, 8000)
    message = str(caught.value)
    assert problem in message
    assert ";" in message  # the remedy follows
    assert "\n" not in message


def test_a_chunk_before_the_samples_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(8000), 8000)
    whole = path.read_bytes()
    note = b"LIST" + (5).to_bytes(4, "little") + b"hello\0"  # odd size, padded to even
    path.write_bytes(whole[:36] + note + whole[36:])
    assert len(read_audio(path, 8000)) == 4000
