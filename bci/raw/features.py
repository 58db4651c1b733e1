"""Band amplitudes of pieces of a continuous EEG, by the recipe of ZuCo: filter the record, cut, Hilbert, mean.

    per band   zero-phase FIR (Hamming), transition df = max(2 Hz, a quarter of the lower edge),
               order the even number from 3.3 / (df / rate) upwards, -6 dB at the edges -/+ df/2
    per piece  mean over its samples of |x + i H(x)|, H on the cut piece alone: edge effects are part of the recipe
    rejected   every value NaN where |EEG| > 90 uV on any channel inside the piece

Amplitude, not power, in the unit of the record. Needs `filter_samples` samples at least, and looks half of them ahead.
What this module does not do: choose pieces (`spikeloom.bci.raw.sentences`) or read files.
"""

import math

import numpy as np

from spikeloom.bci.zuco.records import BAND_EDGES_HZ, BANDS, SAMPLING_HZ

REJECT_UV = 90.0
HAMMING_WIDTH = 3.3  # normalised transition width of a Hamming window, times its length


def transition_hz(band: str) -> float:
    """df of a band."""
    return max(2.0, 0.25 * BAND_EDGES_HZ[band][0])


def filter_order(band: str, rate_hz: float = SAMPLING_HZ) -> int:
    """Even order of the band's filter; it has one coefficient more."""
    return 2 * math.ceil(HAMMING_WIDTH * rate_hz / transition_hz(band) / 2)


def filter_samples(rate_hz: float = SAMPLING_HZ) -> int:
    """Samples a record must have: the longest filter."""
    return max(filter_order(band, rate_hz) for band in BANDS) + 1


def band_passed(eeg: np.ndarray, band: str, rate_hz: float = SAMPLING_HZ) -> np.ndarray:
    """One band of `[C, T]`, same shape. Raises ValueError when the record is shorter than the filter."""
    import mne

    low, high = BAND_EDGES_HZ[band]
    needed = filter_order(band, rate_hz) + 1
    if eeg.ndim != 2 or eeg.shape[1] < needed:
        raise ValueError(
            f"a record of shape {eeg.shape} cannot be filtered to {low:g}-{high:g} Hz at {rate_hz:g} Hz; use "
            f"[channels, samples] with {needed} samples or more"
        )
    if high + transition_hz(band) / 2 >= rate_hz / 2:
        raise ValueError(f"{rate_hz:g} Hz is too slow for the band {low:g}-{high:g} Hz; use a record of 125 Hz or more")
    filtered: np.ndarray = mne.filter.filter_data(
        np.asarray(eeg, dtype=np.float64), rate_hz, low, high, filter_length=needed, method="fir", phase="zero",
        l_trans_bandwidth=transition_hz(band), h_trans_bandwidth=transition_hz(band), fir_window="hamming",
        fir_design="firwin", verbose="error",
    )  # fmt: skip
    return filtered


def mean_amplitude(piece: np.ndarray) -> np.ndarray:
    """Mean of |analytic signal| over time of a cut piece `[C, L]`: `[C]`. The FFT is as long as the piece."""
    from scipy.signal import hilbert

    amplitude: np.ndarray = np.abs(hilbert(piece, axis=-1)).mean(axis=-1)
    return amplitude


def rejected(eeg: np.ndarray, pieces: np.ndarray, reject_uv: float = REJECT_UV) -> np.ndarray:
    """Which pieces `[n, 2]` (first sample, end) of `[C, T]` in uV hold an artefact: bool `[n]`."""
    loudest = np.abs(eeg).max(axis=0)
    return np.array([bool((loudest[first:end] > reject_uv).any()) for first, end in pieces], dtype=bool)


def piece_amplitudes(
    eeg: np.ndarray, pieces: np.ndarray, rate_hz: float = SAMPLING_HZ, reject_uv: float = REJECT_UV
) -> np.ndarray:
    """Amplitudes `[n, 8 C]`, band-major, of pieces `[n, 2]` (first sample, end) of a continuous record `[C, T]` in uV.

    reject_uv: as published; infinity keeps every piece, for recordings nobody cleaned. Memory is that of two records.
    Raises ValueError for a piece that is empty or beyond the record.
    """
    pieces = np.asarray(pieces, dtype=np.int64).reshape(-1, 2)
    if len(pieces) and (pieces.min() < 0 or pieces.max() > eeg.shape[1] or (pieces[:, 0] >= pieces[:, 1]).any()):
        raise ValueError(f"pieces must lie in the record of {eeg.shape[1]} samples, first before end; got {pieces}")
    found = np.empty((len(pieces), len(BANDS), len(eeg)))
    for b, band in enumerate(BANDS):
        filtered = band_passed(eeg, band, rate_hz)
        for n, (first, end) in enumerate(pieces):
            found[n, b] = mean_amplitude(filtered[:, first:end])
    found[rejected(eeg, pieces, reject_uv)] = np.nan
    return found.reshape(len(pieces), -1)
