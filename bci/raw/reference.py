"""Is an electrode of zeros the reference, or dead? The field interpolated from the others tells.

At the electrode all others refer to, the field is zero, so zeros fit it as measured values fit it elsewhere; a dead
electrode hides a field that is not. With spherical splines (Perrin et al., Electroenceph. clin. Neurophysiol. 72, 1989)
through all N electrodes, B = (G + lambda I)^-1 under coefficients that sum to 0,

    z_k = sd(sum_j B_kj x_j) / sqrt(B_kk)      left-out error at k, in units of what its place lets expect
    error of zeros at c = z_c / median of z_k over the others, and lambda the one with the least of them

Where it is at most `ZEROS_FIT`, zeros are no worse than an interpolation. Left open, as NaN: noise so large that any
zeros would fit, unknown places, too few electrodes. An electrode that is left open is interpolated, which costs little;
a dead one taken for the reference would stand as a measured zero. How often either happens is counted in a slow
test, tests/bci/raw/test_places.py.
"""

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from spikeloom.bci.raw.montage import head_positions
from spikeloom.bci.raw.places import CENTRE_M, placed

if TYPE_CHECKING:
    import mne

ZEROS_FIT = 1.5  # error below which zeros are a reference
TELLING = ZEROS_FIT  # error of zeros in a field about its average, below which any electrode's zeros would fit
AVERAGED = 0.05  # deviation of the mean of all, to the median of theirs, below which it is the reference
LEAST_ELECTRODES = 8
SMOOTHING = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # lambda / g(1)
PIECE_S, PIECES = 2.0, 20  # spread over the recording, without their linear trends
ORDER = 50  # of the Legendre series


def error_of_zeros(eeg: "mne.io.BaseRaw", channel: str, without: frozenset[str] = frozenset()) -> float:
    """How far `channel`, which holds zeros, lies from the field of the others, in their own errors: about 1 for the
    reference, 2 and more for a dead electrode, infinite where the others refer to their average, NaN where it is open.

    without: channels to leave out, such as other flat ones.
    """
    places = {name: at for name, at in {**head_positions(), **placed(eeg)}.items() if name in eeg.ch_names}
    others = [name for name in places if name != channel and name not in without and name not in eeg.info["bads"]]
    if channel not in places or len(others) < LEAST_ELECTRODES:
        return float("nan")
    x = _pieces(eeg._data[[eeg.ch_names.index(name) for name in others]], eeg.info["sfreq"])
    spread = x.std(axis=1)
    typical = float(np.median(spread))
    if float(x.mean(axis=0).std()) < AVERAGED * typical:
        return float("inf")
    sound = spread < 5 * typical  # a loud electrode would decide alone
    x, others = x[sound], [name for name, kept in zip(others, sound, strict=True) if kept]
    if len(others) < LEAST_ELECTRODES:
        return float("nan")
    g = _spline(np.array([places[name] for name in (*others, channel)]))
    covariance = x @ x.T / x.shape[1]
    smoothing = min(SMOOTHING, key=lambda s: float(np.median(_errors(g[:-1, :-1], s, covariance)[0])))
    usual = float(np.median(_errors(g[:-1, :-1], smoothing, covariance)[1]))
    b = _inverse(g, smoothing)
    weights = b[-1, :-1] / np.sqrt(b[-1, -1])
    centred = np.eye(len(others)) - 1 / len(others)
    about_average = np.sqrt(weights @ (centred @ covariance @ centred) @ weights) / usual
    return float(np.sqrt(weights @ covariance @ weights) / usual) if about_average >= TELLING else float("nan")


def _pieces(data: np.ndarray, rate_hz: float) -> np.ndarray:
    """Some seconds of `[n, T]`, evenly spread, each without its linear trend: `[n, samples]`."""
    from scipy.signal import detrend

    length = min(data.shape[1], max(2, round(PIECE_S * rate_hz)))
    pieces = data[:, : data.shape[1] // length * length].reshape(len(data), -1, length)
    chosen = np.unique(np.linspace(0, pieces.shape[1] - 1, PIECES).astype(int))
    return np.asarray(detrend(pieces[:, chosen], axis=2).reshape(len(data), -1))


def _spline(at: np.ndarray) -> np.ndarray:
    """g(cos of the angle) of the spline of order 4 between places `[n, 3]` on a head: `[n, n]`."""
    direction = (at - CENTRE_M) / np.linalg.norm(at - CENTRE_M, axis=1, keepdims=True)
    return np.polynomial.legendre.legval(np.clip(direction @ direction.T, -1.0, 1.0), _series())


@cache
def _series() -> np.ndarray:
    n = np.arange(1, ORDER + 1, dtype=float)
    return np.concatenate(([0.0], (2 * n + 1) / (n * (n + 1)) ** 4 / (4 * np.pi)))


def _inverse(g: np.ndarray, smoothing: float) -> np.ndarray:
    """B `[n, n]`."""
    n = len(g)
    bordered = np.ones((n + 1, n + 1))
    bordered[:n, :n] = g + smoothing * g[0, 0] * np.eye(n)
    bordered[n, n] = 0.0
    return np.asarray(np.linalg.inv(bordered)[:n, :n])


def _errors(g: np.ndarray, smoothing: float, covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Left-out error of every electrode `[n]` in volts, and z."""
    b = _inverse(g, smoothing)
    z = np.sqrt(np.maximum(((b @ covariance) * b).sum(axis=1), 0.0) / np.diag(b))
    return z / np.sqrt(np.diag(b)), z
