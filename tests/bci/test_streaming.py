"""A replayed recording arrives whole, in windows, at its own pace; player and stream close whatever happens."""

import threading

import numpy as np
import pytest

from spikeloom.bci.streaming.replay import ReplayConfig, Window, replay
from tests.conftest import data_folder

mne = pytest.importorskip("mne")
pytest.importorskip("mne_lsl", reason="mne-lsl is not installed: pip install 'spikeloom[stream]'", exc_type=ImportError)


def recording(seconds: float, rate_hz: float = 100.0) -> "mne.io.RawArray":
    data = np.random.default_rng(0).standard_normal((3, round(seconds * rate_hz)))
    return mne.io.RawArray(data, mne.create_info(["E2", "E3", "Cz"], rate_hz, "eeg"), verbose="error")


def test_every_sample_arrives_unchanged_in_overlapping_windows() -> None:
    raw, got = recording(2.03), []
    found = replay(raw, got.append, ReplayConfig(window_s=0.5, step_s=0.2, lead_s=1.5))
    assert found.n_samples == len(raw.times) == 203
    assert [window.start for window in got] == list(range(0, 203 - 50 + 1, 20))
    assert all(np.array_equal(window.data, raw.get_data()[:, window.start : window.start + 50]) for window in got)
    assert found.n_windows == len(got) == len(found.latency_ms)
    assert found.seconds > 1.5  # at its own pace, not as fast as possible
    assert (found.latency_ms > 0).all()
    assert np.median(found.latency_ms) < 1000 * found.seconds / 4  # windows arrive during the replay, not at its end
    assert "413 samples of context" in found.summary()


def test_windows_may_stand_apart() -> None:
    raw, got = recording(1.0), []
    replay(raw, got.append, ReplayConfig(window_s=0.1, step_s=0.4, lead_s=1.5))
    assert [window.start for window in got] == [0, 40, 80]
    assert np.array_equal(got[2].data, raw.get_data()[:, 80:90])


def test_an_error_of_the_callable_reaches_the_caller_and_closes_everything() -> None:
    before = threading.active_count()

    def fail(window: Window) -> None:
        raise RuntimeError(f"window {window.start}")

    with pytest.raises(RuntimeError, match="window 0"):
        replay(recording(30.0), fail, ReplayConfig(window_s=0.2, step_s=0.2, lead_s=1.5))
    assert threading.active_count() == before


def test_joining_late_is_an_error_not_a_short_recording() -> None:
    with pytest.raises(OSError, match="larger lead_s"):
        replay(recording(3.0), lambda window: None, ReplayConfig(lead_s=0.01))


@pytest.mark.parametrize(("key", "value"), [("window_s", 0.0), ("step_s", -1.0), ("chunk_size", 0)])
def test_impossible_values_are_refused(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=key):
        ReplayConfig(**{key: value})


@pytest.mark.slow
def test_ten_seconds_of_every_real_recording_arrive_whole() -> None:
    for path in sorted(data_folder("eeg").rglob("*.edf")):
        raw = mne.io.read_raw_edf(path, preload=True, verbose="error").crop(0, 10.5)
        assert replay(raw, lambda window: None).n_samples == len(raw.times), path.name
