"""MFCC features: librosa's own numbers, clip by clip; what does not fit them is refused by name."""

import dataclasses
import re
import warnings
from typing import Any

import librosa
import numpy as np
import pytest
import torch

from spikeloom.speech.augmentation import AugmentationConfig
from spikeloom.speech.batches import featurise
from spikeloom.speech.datasets.spike_trains import Events, SpikeTrains
from spikeloom.speech.datasets.synthetic import synthesise_keywords
from spikeloom.speech.features.mfcc import MFCCConfig

PRESETS = {
    "mfcc": MFCCConfig(),
    "mfcc_8k": MFCCConfig(input_rate_hz=8000, f_max_hz=4000.0),
    "others": MFCCConfig(n_mfcc=13, n_mels=26, win_ms=25.0, hop_ms=12.5, f_min_hz=60.0, f_max_hz=7000.0),
}


def noise(n: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("seconds", [0.37, 1.0])
def test_the_coefficients_are_those_of_librosa(preset: str, seconds: float) -> None:
    config = dataclasses.replace(PRESETS[preset], normalise=False)
    rate_hz = config.input_rate_hz
    samples = noise(round(rate_hz * seconds))
    win, hop = round(rate_hz * config.win_ms / 1000), round(rate_hz * config.hop_ms / 1000)
    want = librosa.feature.mfcc(
        y=samples, sr=rate_hz, n_mfcc=config.n_mfcc, n_mels=config.n_mels, n_fft=2 ** int(np.ceil(np.log2(win))),
        win_length=win, hop_length=hop, fmin=config.f_min_hz, fmax=config.f_max_hz,
    )  # fmt: skip
    found = config.build().frames(samples)
    assert found.dtype == torch.float32 and found.shape == (1 + len(samples) // hop, config.n_channels)
    np.testing.assert_array_equal(found.numpy(), want.T)


def test_a_normalised_clip_has_mean_0_and_standard_deviation_1_in_every_coefficient() -> None:
    plain = dataclasses.replace(MFCCConfig(), normalise=False).build().frames(noise(9000))
    found = MFCCConfig().build().frames(noise(9000))
    torch.testing.assert_close(found.mean(0), torch.zeros(20), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.std(0, correction=0), torch.ones(20), atol=1e-5, rtol=0)
    want = (plain - plain.mean(0)) / plain.std(0, correction=0)
    torch.testing.assert_close(found, want, atol=1e-4, rtol=0)


def test_silence_is_zero_and_a_clip_shorter_than_a_window_is_read() -> None:
    front_end = MFCCConfig().build()
    assert not front_end.frames(np.zeros(4000, np.float32)).any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # librosa warns of a transform longer than the clip
        assert front_end.frames(noise(200)).shape == (2, 20)


def test_of_a_longer_recording_the_window_is_used_and_it_is_said() -> None:
    front_end = MFCCConfig(window="start").build()
    samples = noise(20_000)
    assert torch.equal(front_end.frames(samples), front_end.frames(samples[:16_000]))
    assert front_end.left_out(samples) == "longer than 1 s: the beginning is used"
    assert front_end.left_out(samples[:16_000]) == ""


def test_another_time_resolution_keeps_everything_else() -> None:
    config = MFCCConfig(n_mfcc=13)
    coarse = config.at(50.0)
    assert (coarse.step_ms, coarse.n_channels, coarse.kind) == (50.0, 13, "mfcc")
    assert coarse.build().frames(noise(16_000)).shape == (21, 13)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"n_mfcc": 41}, "n_mfcc must be 1 to features.n_mels=40 (got 41)"),
        ({"n_mfcc": 0}, "n_mfcc must be 1"),
        ({"f_max_hz": 9000.0}, "f_max_hz=9000 must rise within 0 to 8000 Hz"),
        ({"f_min_hz": 8000.0}, "f_min_hz=8000"),
        ({"f_min_hz": float("nan")}, "f_min_hz=nan"),
        ({"hop_ms": 0.01}, "hop_ms=0.01 is less than a sample"),
        ({"win_ms": 0.0}, "win_ms=0 is less than two samples"),
        ({"clip_s": 0.0}, "clip_s must be > 0 (got 0)"),
        ({"window": "end"}, "features.window=end is unknown"),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_name(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        MFCCConfig(**changed).build()


def test_empty_mel_bands_are_counted() -> None:
    with pytest.warns(UserWarning, match=r"\d+ of 128 mel bands are empty"):
        MFCCConfig(n_mels=128, win_ms=10.0).build()


def test_spikes_and_another_sample_rate_are_refused() -> None:
    front_end = MFCCConfig().build()
    events = [Events(np.array([0.1]), np.array([1])) for _ in range(2)]
    spikes = SpikeTrains(
        events=events, labels=np.arange(2), speakers=["a", "b"], names=["c", "d"], class_names=("x", "y")
    )
    with pytest.raises(ValueError, match=r"spike trains.*use features=events"):
        front_end.recordings(spikes)
    clips = synthesise_keywords(n_words=2, n_speakers=1, takes=1, seed=0)
    with pytest.raises(ValueError, match=r"16000 Hz for a front end of 8000 Hz; .*mfcc for 16 kHz"):
        featurise(clips, PRESETS["mfcc_8k"].build())


@pytest.mark.parametrize(
    "name", ["frequency_mask_bands", "vocal_tract", "mel_stretch", "mel_shift_bands", "level", "noise_floor", "tilt",
             "equaliser", "silence_ms", "shift_ms"],
)  # fmt: skip
def test_changes_of_mel_bands_are_refused_by_name(name: str) -> None:
    none = AugmentationConfig(frequency_mask_bands=0, time_mask_fraction=0.0)
    none.build(MFCCConfig(), seed=0)
    changed = dataclasses.replace(none, **{name: 1 if name == "frequency_mask_bands" else 0.5})
    with pytest.raises(ValueError, match=rf"augmentation\.{name}=.*features=mfcc are coefficients"):
        changed.build(MFCCConfig(), seed=0)


def test_masks_of_time_fill_in_the_mean_of_normalised_coefficients_alone() -> None:
    config = AugmentationConfig(frequency_mask_bands=0, time_mask_fraction=0.5)
    features = MFCCConfig().build().frames(noise(16_000))[None].expand(32, -1, -1)
    lengths = torch.full((32,), features.shape[1])
    masked, _ = config.build(MFCCConfig(), seed=0)(features, lengths, torch.arange(32), 0)
    assert (masked == 0).all(2).any()
    assert torch.equal(masked[masked != 0], features[masked != 0])
    with pytest.raises(ValueError, match=r"time_mask_fraction=0\.5 needs coefficients of mean 0"):
        config.build(MFCCConfig(normalise=False), seed=0)
