"""The fast ear against the literal one: the same statistics, and the time and memory it was written for."""

import math

import numpy as np
import pytest

from spikeloom.accel.spiking.kernels import loader
from spikeloom.benchmarks.cochlea import convert_clips, convert_literally, literal_events, seconds_of_speech
from spikeloom.benchmarks.measure import apart
from spikeloom.speech.features.cochlea.cochlea import CochleaConfig
from spikeloom.speech.features.cochlea.nerve import Key, nerve, silent_state


def test_events_agree_with_the_literal_version() -> None:
    """24 literal units hear the same vowel, and 700 of ours, so that the mean is known well."""
    cochlea = CochleaConfig().build()
    heard = cochlea.membrane(cochlea.prepare(seconds_of_speech(1)[0]))
    row = heard[np.square(heard).sum(axis=1).argmax(), 5000:7000]
    found, _ = nerve(np.tile(row, (700, 1)), silent_state(700, 16000), Key(0, 0), 16000)
    literal = [literal_events(row, np.random.default_rng(unit)) for unit in range(24)]
    ours = [found[found[:, 1] == unit, 0] for unit in range(700)]
    for statistic in (len, np.mean, np.std):  # how many events, when, how spread
        a, b = (np.array([statistic(events) for events in of]) for of in (ours, literal))
        error = math.sqrt(a.var() / len(a) + b.var() / len(b))
        assert abs(a.mean() - b.mean()) < 4 * error + 1e-9
    assert np.mean([len(events) for events in ours]) > 5


@pytest.mark.slow
@pytest.mark.skipif(loader.compiler() is None, reason="no C++ compiler for the compiled backend")
def test_conversion_is_fifty_times_faster_than_the_literal_version_in_less_than_a_gigabyte() -> None:
    one_ms, one_mb = apart(convert_clips, 1, 1, 5)
    many_ms, many_mb = apart(convert_clips, 1, 32, 3)
    assert many_ms < 2 * one_ms  # of a second of sound: clips do not slow each other down
    assert max(one_mb, many_mb) < 1024
    literal_ms, _ = apart(convert_literally)
    assert literal_ms > 50 * one_ms
