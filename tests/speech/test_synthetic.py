"""Synthetic keywords: seeded, of the promised size and sound, split by speaker."""

import numpy as np
import pytest
from scipy.signal import freqz, lfilter

from spikeloom.speech.datasets.synthetic import (
    SAMPLE_RATE_HZ,
    WORDS,
    SyntheticConfig,
    Voice,
    draw_voice,
    resonate,
    synthesise_keywords,
)


def small(seed: int = 0, **sizes: int) -> SyntheticConfig:
    return SyntheticConfig(**{"n_words": 3, "n_speakers": 4, "takes": 2, "seed": seed} | sizes)  # type: ignore[arg-type]


def test_one_seed_gives_one_set_and_another_seed_another() -> None:
    first, again, other = small().load(), small().load(), small(seed=1).load()
    assert all(np.array_equal(a, b) for a, b in zip(first.waveforms, again.waveforms, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(first.waveforms, other.waveforms, strict=True))


def test_a_smaller_set_is_part_of_a_larger_one() -> None:
    few = small().load()
    more = small(n_words=4, n_speakers=5, takes=3).load()
    larger = dict(zip(more.names, more.waveforms, strict=True))
    for name, waveform in zip(few.names, few.waveforms, strict=True):
        np.testing.assert_allclose(waveform, larger[name], atol=1e-6)


def test_every_word_lasts_between_the_promised_limits() -> None:
    utterances = synthesise_keywords(n_words=len(WORDS), n_speakers=3, takes=1, seed=3)
    assert utterances.labels.tolist() == [word for word in range(10) for _ in range(3)]
    assert utterances.class_names == tuple(word for word, _ in WORDS)
    seconds = utterances.n_samples / SAMPLE_RATE_HZ
    assert seconds.min() >= 0.4 - 1e-4
    assert seconds.max() <= 0.9 + 1e-4
    peaks = [np.abs(waveform).max() for waveform in utterances.waveforms]
    assert 0.29 < min(peaks) <= max(peaks) < 0.91
    assert all(waveform.dtype == np.float32 for waveform in utterances.waveforms)


def test_the_default_split_has_fourteen_three_and_three_voices() -> None:
    config = SyntheticConfig(n_words=2, takes=1)
    splits = config.build()
    train, valid, test = (set(split.speakers) for split in splits)
    assert (len(train), len(valid), len(test)) == (14, 3, 3)
    assert train.isdisjoint(valid | test)
    assert valid.isdisjoint(test)


def test_voices_span_pitch_tract_and_rate() -> None:
    voices = [draw_voice(0, speaker) for speaker in range(200)]
    for field, low, high in (("f0_hz", 85, 255), ("tract", 0.85, 1.20), ("rate", 0.8, 1.2)):
        values = [getattr(voice, field) for voice in voices]
        span = high - low
        assert low <= min(values) < low + 0.05 * span
        assert high - 0.05 * span < max(values) <= high
    assert isinstance(voices[0], Voice)


def test_the_pitch_heard_is_the_pitch_of_the_voice() -> None:
    utterances = synthesise_keywords(n_words=2, n_speakers=6, takes=1, seed=0)
    for speaker in range(6):
        clip = utterances.waveforms[6 + speaker]  # "no" is voiced throughout
        middle = clip[len(clip) // 2 - 1200 : len(clip) // 2 + 1200].astype(float)
        similarity = np.correlate(middle, middle, "full")[len(middle) - 1 :]
        shortest = round(SAMPLE_RATE_HZ / 300)
        period = shortest + int(similarity[shortest : round(SAMPLE_RATE_HZ / 75)].argmax())
        assert SAMPLE_RATE_HZ / period == pytest.approx(draw_voice(0, speaker).f0_hz, rel=0.17)


def test_a_resonator_at_rest_is_the_ordinary_filter() -> None:
    signal = np.random.default_rng(0).standard_normal(300)
    radius = np.exp(-np.pi * 90 / SAMPLE_RATE_HZ)
    for hz in (500.0, 1500.0):
        out = resonate(signal, np.full(300, hz), 90.0)
        denominator = [1, -2 * radius * np.cos(2 * np.pi * hz / SAMPLE_RATE_HZ), radius**2]
        np.testing.assert_allclose(out, lfilter([sum(denominator)], denominator, signal), atol=1e-9)
        frequency_hz, response = freqz([sum(denominator)], denominator, 8000, fs=SAMPLE_RATE_HZ)
        assert frequency_hz[np.abs(response).argmax()] == pytest.approx(hz, abs=5)


def test_a_moving_resonator_follows_its_recurrence() -> None:
    rng = np.random.default_rng(1)
    signal, centre_hz, width_hz = rng.standard_normal(80), rng.uniform(300, 3000, 80), rng.uniform(60, 900, 80)
    radius = np.exp(-np.pi * width_hz / SAMPLE_RATE_HZ)
    b, c = 2 * radius * np.cos(2 * np.pi * centre_hz / SAMPLE_RATE_HZ), -(radius**2)
    previous = before = 0.0
    for n, now in enumerate(resonate(signal, centre_hz, width_hz)):
        assert now == pytest.approx((1 - b[n] - c[n]) * signal[n] + b[n] * previous + c[n] * before, abs=1e-9)
        previous, before = now, previous


@pytest.mark.parametrize("sizes", [{"n_words": 1}, {"n_words": 11}, {"n_speakers": 0}, {"takes": 0}])
def test_sizes_that_make_no_set_are_refused(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="got"):
        small(**sizes).load()
