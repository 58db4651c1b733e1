"""Waveform augmentation: librosa's changes, keyed by sample; the word stays, and nothing changed is kept."""

import dataclasses
import functools
import re
from typing import Any

import librosa
import numpy as np
import pytest
import torch

from spikeloom.accel.common.batches import BatchIndex
from spikeloom.speech.augmentation import N_DRAWS, keyed_uniform
from spikeloom.speech.datamodule import SpeechDataModule
from spikeloom.speech.datasets.synthetic import SyntheticConfig
from spikeloom.speech.datasets.utterances import SpeechSplits
from spikeloom.speech.features.event_bins import EventBinsConfig
from spikeloom.speech.features.log_mel import LogMelConfig
from spikeloom.speech.features.mfcc import MFCCConfig
from spikeloom.speech.waveform_augmentation import WaveformAugmentationConfig

RATE_HZ = 16_000
ALL = WaveformAugmentationConfig(trim_db=40.0, stretch_waveform=0.2, pitch_semitones=3.0, probability=0.7)


@functools.cache
def splits() -> SpeechSplits:
    return SyntheticConfig(n_words=2, n_speakers=3, takes=2, n_test_speakers=1, n_valid_speakers=1).build()


class Source:
    def build(self) -> SpeechSplits:
        return splits()


def speech_data(augmentation: WaveformAugmentationConfig | None, features: Any = None, **more: Any) -> SpeechDataModule:
    data = SpeechDataModule(
        Source(), features or MFCCConfig(n_mfcc=13), augmentation, **{"batch_size": 3, "seed": 4} | more
    )
    data.setup("fit")
    return data


def tone(seconds: float, hz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE_HZ)) / RATE_HZ)).astype(np.float32)


def changed(waveform: np.ndarray, sample_id: int = 0, **strengths: float) -> np.ndarray:
    return WaveformAugmentationConfig(**strengths).build(LogMelConfig(), 1).recording(waveform, sample_id, 0)  # type: ignore[arg-type]


def pitch_hz(waveform: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)), 1 << 18))
    return float(spectrum.argmax() * RATE_HZ / (1 << 18))


def test_trimming_cuts_the_silence_at_both_ends_and_keeps_the_word() -> None:
    word = tone(0.4)
    silence = np.zeros(5000, np.float32)
    found = changed(np.concatenate((silence, word, silence)), trim_db=40.0)
    assert len(word) <= len(found) <= len(word) + 2 * 1024  # to the frame
    start = int(np.flatnonzero(found)[0])
    np.testing.assert_array_equal(found[start : start + len(word) - 1], word[1:])  # the first sample of a sine is 0


def test_silence_inside_a_word_and_digital_silence_are_not_cut() -> None:
    word = np.concatenate((tone(0.1), np.zeros(4000, np.float32), tone(0.1)))
    np.testing.assert_array_equal(changed(word, trim_db=40.0), word)
    silent = np.zeros(4000, np.float32)
    np.testing.assert_array_equal(changed(silent, trim_db=40.0), silent)


def test_a_stretch_changes_the_duration_and_keeps_the_pitch() -> None:
    lengths = set()
    for sample_id in range(6):
        found = changed(tone(0.5), sample_id, stretch_waveform=0.2)
        assert 0.8 * 8000 - 1 <= len(found) <= 1.2 * 8000 + 1
        assert pitch_hz(found) == pytest.approx(440, rel=0.01)
        lengths.add(len(found))
    assert len(lengths) == 6


def test_a_pitch_shift_changes_the_pitch_and_keeps_the_duration() -> None:
    moved = set()
    for sample_id in range(6):
        found = changed(tone(0.5), sample_id, pitch_semitones=3.0)
        assert len(found) == 8000 and found.dtype == np.float32
        semitones = 12 * np.log2(pitch_hz(found) / 440)
        assert abs(semitones) <= 3.1
        moved.add(round(float(semitones), 2))
    assert len(moved) == 6 and max(moved) - min(moved) > 0.5


def test_the_changes_are_calls_of_librosa_with_the_drawn_numbers() -> None:
    waveform = splits().train.waveforms[0]
    draw = keyed_uniform(1, 5, np.array([9]), N_DRAWS + 5)[0, N_DRAWS:]
    want = librosa.effects.trim(waveform, top_db=40.0, frame_length=1024, hop_length=256)[0]
    want = librosa.effects.time_stretch(want, rate=1 / (1 + 0.2 * (2 * draw[3] - 1)), n_fft=1024)
    want = librosa.effects.pitch_shift(want, sr=RATE_HZ, n_steps=3.0 * (2 * draw[4] - 1), n_fft=1024)
    augment = dataclasses.replace(ALL, probability=1.0).build(LogMelConfig(), 1)
    before = waveform.copy()
    np.testing.assert_array_equal(augment.recording(waveform, 9, 5), want)
    np.testing.assert_array_equal(waveform, before)


def test_off_by_default_and_never_with_probability_0() -> None:
    waveform = splits().train.waveforms[0]
    assert changed(waveform) is waveform
    assert changed(waveform, trim_db=40.0, stretch_waveform=0.2, pitch_semitones=3.0, probability=0.0) is waveform


@pytest.mark.parametrize("features", [MFCCConfig(n_mfcc=13), LogMelConfig()])
def test_a_sample_is_changed_alike_in_any_batch_and_worker_and_anew_in_each_epoch(features: Any) -> None:
    data, whole = speech_data(ALL, features), speech_data(ALL, features, batch_size=4).train_set
    ids = torch.arange(len(whole))
    first = whole[BatchIndex(0, ids)]
    elsewhere = speech_data(ALL, features, num_workers=2).train_dataloader()
    for loader in (data.train_dataloader(), elsewhere):
        loader.sampler.set_epoch(0)  # type: ignore[union-attr]
        for batch in loader:
            for row, sample in enumerate(batch.sample_ids.tolist()):
                n = int(batch.lengths[row])
                assert n == int(first.lengths[sample])
                assert torch.equal(batch.features[row, :n], first.features[sample, :n])
    later = whole[BatchIndex(1, ids)]
    assert not torch.equal(first.lengths, later.lengths)
    other = speech_data(ALL, features, seed=5).train_set[BatchIndex(0, ids)]
    assert not torch.equal(first.lengths, other.lengths)


def test_only_training_clips_are_changed_and_no_changed_frames_are_kept() -> None:
    data, plain = speech_data(ALL), speech_data(None)
    train, ids = data.train_set, torch.arange(len(data.train_set))
    changed_batch = train[BatchIndex(0, ids)]
    assert not train.frames._kept
    untouched = train.with_augmentation(None)[BatchIndex(0, ids)]
    assert torch.equal(untouched.features, plain.train_set[BatchIndex(0, ids)].features)
    assert len(train.frames._kept) == len(ids)
    again = train[BatchIndex(0, ids)]  # with the unchanged frames at hand
    assert torch.equal(again.features, changed_batch.features)
    for split in ("valid_set", "test_set"):
        ours, theirs = getattr(data, split), getattr(plain, split)
        assert torch.equal(
            ours[BatchIndex(0, torch.arange(2))].features, theirs[BatchIndex(0, torch.arange(2))].features
        )


def test_masks_of_the_spectrogram_can_follow() -> None:
    strengths = dataclasses.replace(ALL, frequency_mask_bands=20)
    ids = torch.arange(4)
    masked = speech_data(strengths, LogMelConfig()).train_set[BatchIndex(0, ids)]
    plain = speech_data(ALL, LogMelConfig()).train_set[BatchIndex(0, ids)]
    assert torch.equal(masked.lengths, plain.lengths)
    assert not torch.equal(masked.features, plain.features)
    assert torch.equal(masked.features[masked.features != 0], plain.features[masked.features != 0])


@pytest.mark.parametrize(
    ("strengths", "message"),
    [
        ({"trim_db": 3.0}, "augmentation.trim_db must be 0 (off) or 10 to 120 dB (got 3); use 40"),
        ({"trim_db": -40.0}, "augmentation.trim_db"),
        ({"trim_db": float("nan")}, "augmentation.trim_db"),
        ({"stretch_waveform": 0.9}, "augmentation.stretch_waveform must be in [0, 0.5] (got 0.9)"),
        ({"pitch_semitones": -1.0}, "augmentation.pitch_semitones must be in [0, 12] (got -1)"),
        ({"probability": 1.5}, "augmentation.probability must be in [0, 1] (got 1.5)"),
    ],
)
def test_strengths_that_make_no_sense_are_refused_by_name(strengths: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        WaveformAugmentationConfig(**strengths).build(LogMelConfig(), 0)


def test_spikes_have_no_waveform() -> None:
    with pytest.raises(ValueError, match="a waveform augmentation got features of the kind event_bins"):
        ALL.build(EventBinsConfig(), 0)
