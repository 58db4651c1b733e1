"""The published filters, amplitudes of known signals, and nothing of a piece with an artefact."""

import numpy as np
import pytest

from spikeloom.bci.raw.clock import fit_clock, same_triggers
from spikeloom.bci.raw.features import filter_order, filter_samples, piece_amplitudes, transition_hz
from spikeloom.bci.raw.record import runs_of
from spikeloom.bci.zuco.records import BANDS, BLOCKS


def test_filters_have_the_published_transitions_and_orders() -> None:
    assert [filter_order(band) for band in BANDS] == [826, 826, 778, 630, 490, 358, 218, 164]
    assert [transition_hz(band) for band in BANDS] == [2, 2, 2.125, 2.625, 3.375, 4.625, 7.625, 10.125]
    assert filter_samples() == 827


@pytest.mark.parametrize(("hz", "band"), [(5, 0), (7.2, 1), (9.2, 2), (11.8, 3), (15.5, 4), (24, 5), (35, 6), (45, 7)])
def test_a_sine_of_ten_microvolts_has_an_amplitude_of_ten_in_its_band(hz: float, band: int) -> None:
    time = np.arange(5000) / 500
    eeg = np.stack((10 * np.sin(2 * np.pi * hz * time), np.zeros(5000)))
    found = piece_amplitudes(eeg, np.array([[2000, 3000]])).reshape(8, 2)
    assert found[band, 0] == pytest.approx(10, rel=0.05)
    others = [b for b in range(8) if abs(b - band) > 1]
    assert (found[others, 0] < 0.5).all() and not found[:, 1].any()


def test_a_piece_with_an_artefact_is_rejected_and_its_neighbour_is_not() -> None:
    eeg = np.random.default_rng(0).normal(size=(3, 2000))
    eeg[1, 1005] = -91.0
    found = piece_amplitudes(eeg, np.array([[900, 1000], [1000, 1100]]))
    assert np.isnan(found[1]).all() and np.isfinite(found[0]).all()


@pytest.mark.parametrize("piece", [[-1, 50], [1950, 2001], [100, 100]])
def test_pieces_beyond_the_record_are_refused(piece: list[int]) -> None:
    with pytest.raises(ValueError, match="must lie in the record of 2000 samples"):
        piece_amplitudes(np.zeros((2, 2000)), np.array([piece]))


def test_a_record_shorter_than_the_filter_is_refused() -> None:
    with pytest.raises(ValueError, match=r"4-6 Hz at 500 Hz; use.*827 samples"):
        piece_amplitudes(np.zeros((2, 800)), np.array([[0, 100]]))


def test_the_clock_of_most_events_is_not_moved_by_a_late_one() -> None:
    tracker = 4e6 + np.sort(np.random.default_rng(0).uniform(0, 6e5, 40))
    eeg = (tracker - 4e6) / 2 * (1 + 3e-6) + 17
    late = eeg.copy()
    late[7] += 400
    assert np.abs(fit_clock(tracker, late)(tracker) - eeg).max() < 0.05
    with pytest.raises(ValueError, match="at least two"):
        fit_clock(tracker[:1], eeg[:1])
    with pytest.raises(ValueError, match="trigger 1 is 11 in the EEG and 12"):
        same_triggers("run", [10, 11], [10, 12])
    with pytest.raises(ValueError, match="2 triggers in the EEG, 1"):
        same_triggers("run", [10, 11], [10])


def test_runs_are_named_and_sized_as_published() -> None:
    assert [name for name, _ in runs_of(1, "SR", 400)] == ["SNR1", "SNR2", "SNR3", "SNR4", "SNR5", "SR6", "SR7", "SR8"]
    for (version, task), sizes in BLOCKS.items():
        assert [len(rows) for _, rows in runs_of(version, task, sum(sizes))] == list(sizes)
    assert [(name, len(rows)) for name, rows in runs_of(1, "NR", 60)] == [("NR1", 50), ("NR2", 10)]
