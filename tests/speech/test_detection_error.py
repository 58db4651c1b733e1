"""False accepts are counted by the hour, misses by the clip, in memory that does not grow with the sound."""

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from spikeloom.speech.datasets.background import BLOCK_S, KINDS, background, block
from spikeloom.speech.datasets.utterances import Utterances
from spikeloom.speech.detection_error import DetectionError, detection_error
from spikeloom.speech.streaming import KeywordSpotter, SpotterConfig
from tests.speech.test_streaming import GSC, WORDS, Scripted, hear, noise

HZ = 16_000


def clips(*labels: int) -> Utterances:
    return Utterances(
        waveforms=[noise(0.6, seed=i).numpy() for i in range(len(labels))], labels=np.array(labels),
        speakers=[""] * len(labels), names=[f"clip{i}" for i in range(len(labels))], class_names=WORDS,
        sample_rate_hz=HZ,
    )  # fmt: skip


def sound(n_bursts: int, every_s: float = 5.0) -> Iterator[np.ndarray]:
    """Silence with a burst of noise every few seconds, a burst a block."""
    for i in range(n_bursts):
        samples = np.zeros(round(every_s * HZ), np.float32)
        samples[HZ : HZ + 9600] = noise(0.6, seed=i).numpy()
        yield samples


def test_errors_at_each_threshold_by_hand() -> None:
    """The model says "yes" to everything, so its score is 1 after the smoothing: each burst is a false accept, each
    "yes" is found, each "no" is missed, and a class that is never reported is not asked for."""
    spotter = KeywordSpotter(Scripted((1,)), GSC, WORDS, SpotterConfig(refractory_ms=900))
    found = detection_error(spotter, sound(4), clips(0, 1, 1, 2), thresholds=(0.2, 0.9), n_clips=3)
    assert (found.false_accepts, found.keywords) == ((4, 4), 3)
    assert found.hours == pytest.approx(20 / 3600)
    assert found.per_hour() == [pytest.approx(720)] * 2
    assert found.misses == (1, 1)


def test_detections_at_a_threshold_are_those_of_a_spotter_with_that_threshold() -> None:
    """A model that says "no" for 12 frames, then "yes": low thresholds detect early, high ones detect the rest."""
    script = (*(0 for _ in range(12)), *(1 for _ in range(30)), -1)
    waveform = torch.from_numpy(np.concatenate(list(sound(3))))
    thresholds = (0.1, 0.25, 0.5, 0.7, 0.95)
    model = Scripted(script)
    found = detection_error(KeywordSpotter(model, GSC, WORDS), sound(3), clips(1), thresholds)
    alone = [
        len(hear(KeywordSpotter(model, GSC, WORDS, SpotterConfig(threshold=t)), waveform, 16_000)[0])
        for t in thresholds
    ]
    assert list(found.false_accepts) == alone
    assert len(set(alone)) > 1


def test_the_least_miss_rate_within_the_allowed_false_accepts() -> None:
    found = DetectionError(
        thresholds=(0.2, 0.4, 0.6), false_accepts=(20, 2, 0), hours=2.0, misses=(1, 3, 9), keywords=10
    )
    assert found.at(1.0) == (0.4, 1.0, 0.3)
    assert found.at(0.5) == (0.6, 0.0, 0.9)
    assert found.at(100) == (0.2, 10.0, 0.1)
    assert DetectionError(
        thresholds=(0.2,), false_accepts=(4,), hours=1.0, misses=(0,), keywords=1
    ).at(1.0) is None  # fmt: skip


def test_sound_without_keywords_is_that_of_its_seed_at_any_length_and_rate() -> None:
    two_blocks = list(background(2 * BLOCK_S / 3600, HZ, seed=3))
    assert [len(b) for b in two_blocks] == [BLOCK_S * HZ] * 2
    assert np.array_equal(two_blocks[1], block(1, 3))
    assert not np.array_equal(block(1, 3), block(1, 4))
    assert sum(len(b) for b in background(25 / 3600, 8_000)) == 200_000
    assert not block(KINDS.index("silence"), 0).any()
    assert all(np.abs(block(i, 0)).max() < 2 for i in range(10))
    with pytest.raises(ValueError, match="hours=0"):
        next(background(0, HZ))


def test_memory_does_not_grow_with_the_sound() -> None:
    spotter = KeywordSpotter(Scripted((1,)), GSC, WORDS)

    def peak(n_bursts: int) -> int:
        tracemalloc.start()
        detection_error(spotter, sound(n_bursts, 3.0), clips(1), thresholds=(0.5,))
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        spotter.model.heard.clear()  # type: ignore[attr-defined]  # the script notes what it was given
        return used

    assert peak(20) < 1.5 * peak(5)


def test_what_cannot_be_measured_is_refused() -> None:
    spotter = KeywordSpotter(Scripted((1,)), GSC, WORDS)
    with pytest.raises(ValueError, match="sound without keywords is empty"):
        detection_error(spotter, [], clips(1))
    with pytest.raises(ValueError, match="no clip of a keyword"):
        detection_error(spotter, sound(1), clips(2, 2))
