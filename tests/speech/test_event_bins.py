"""Binning: every event is counted once, at any resolution, from whatever type the file stored."""

import math

import numpy as np
import pytest
import torch

from spikeloom.speech.datasets.spike_trains import Events
from spikeloom.speech.features.event_bins import EventBins, EventBinsConfig
from tests.conftest import data_folder


def literal(times_s: list[float], units: list[int], step_ms: float) -> np.ndarray:
    """The equations, event by event."""
    if not times_s:
        return np.zeros((1, 140))
    start = min(times_s)
    t_ms = [(t - start) * 1000 for t in times_s]
    n = max(1, math.ceil(max(t_ms) / step_ms))
    frames = np.zeros((n, 140))
    for t, unit in zip(t_ms, units, strict=True):
        frames[min(math.floor(t / step_ms), n - 1), unit // 5] += 1
    return frames


def bins(step_ms: float = 10.0) -> EventBins:
    return EventBinsConfig(step_ms=step_ms).build()


def events(n: int = 5000, seconds: float = 1.2, seed: int = 0) -> Events:
    rng = np.random.default_rng(seed)
    return Events(0.2 + rng.random(n) * seconds, rng.integers(0, 700, n))


@pytest.mark.parametrize("step_ms", [1, 2, 2.5, 4, 5, 10, 20, 25, 40, 50, 100])
def test_counts_are_those_of_the_equations(step_ms: float) -> None:
    clip = events()
    frames = bins(step_ms).frames(clip)
    times_s = clip.times_s.tolist()
    np.testing.assert_array_equal(frames.numpy(), literal(times_s, clip.units.tolist(), step_ms))
    assert int(frames.sum(dtype=torch.int64)) == len(times_s)
    assert len(frames) == math.ceil((max(times_s) - min(times_s)) * 1000 / step_ms)


def test_half_precision_times_are_counted_in_double_precision() -> None:
    times = np.array([0.25, 1.2, 1.2001, 1.3], dtype=np.float16)
    clip = Events(times.astype(np.float64), np.array([0, 5, 699, 3]))
    as_stored = Events(times, clip.units)
    for step_ms in (1.0, 10.0):
        frames = bins(step_ms).frames(as_stored)
        assert torch.equal(frames, bins(step_ms).frames(clip))
        assert int(frames.sum()) == 4
        assert len(frames) == math.ceil((float(times[-1]) - 0.25) * 1000 / step_ms)


def test_the_first_event_is_at_zero_and_the_last_bin_takes_the_remainder() -> None:
    frames = bins(10).frames(Events(np.array([0.5, 0.509, 0.5201, 0.52]), np.array([0, 4, 5, 699])))
    assert frames.shape == (3, 140)
    assert frames[0, 0] == 2  # units 0 to 4 are one channel
    assert frames[2, 1] == 1
    edge = bins(10).frames(Events(np.array([0.0, 0.0625, 0.125]), np.array([0, 0, 0])))  # exact in binary
    assert edge[:, 0].tolist() == literal([0.0, 0.0625, 0.125], [0, 0, 0], 10)[:, 0].tolist()
    whole = bins(125).frames(Events(np.array([0.0, 0.125]), np.array([0, 0])))
    assert whole[:, 0].tolist() == [2]  # the event at the end of the only bin stays in it


def test_clips_without_length_are_one_frame() -> None:
    empty = bins().frames(Events(np.array([]), np.array([], dtype=np.int64)))
    assert empty.shape == (1, 140)
    assert not empty.any()
    assert bins().frames(Events(np.array([0.7]), np.array([699])))[0, 139] == 1


@pytest.mark.parametrize(("n", "kind"), [(255, torch.uint8), (256, torch.int16), (40_000, torch.int32)])
def test_counts_are_stored_in_the_smallest_type_that_holds_them(n: int, kind: torch.dtype) -> None:
    frames = bins().frames(Events(np.zeros(n), np.zeros(n, dtype=np.int64)))
    assert frames.dtype == kind
    assert int(frames[0, 0]) == n


def test_settings_that_cannot_work_are_refused() -> None:
    for change, message in ({"step_ms": 0.0}, "step_ms"), ({"units_per_channel": 3}, "does not divide 700"):
        with pytest.raises(ValueError, match=message):
            EventBinsConfig(**change).build()
    assert EventBinsConfig(units_per_channel=7).n_channels == 100


def test_every_event_of_the_files_there_are_is_counted() -> None:
    from spikeloom.speech.datasets.spike_files import read_spike_file

    root = data_folder("shd")
    for path in sorted(root.glob("*.h5")):
        clips = read_spike_file(path)
        for i in range(0, len(clips), max(1, len(clips) // 50)):
            clip = clips.events[i]
            assert int(bins().frames(clip).sum(dtype=torch.int64)) == len(clip.times_s)
