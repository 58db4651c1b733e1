"""The basilar membrane: how fast each of 700 places along the cochlea moves when sound arrives.

A linear shallow-water model (Sieroka, Dosch and Rupp, J. Acoust. Soc. Am. 120, 2006). At place x the partition has the
stiffness S, the resistance R and the mass m, and with the time factor exp(-i w t) its impedance is, but for a factor,

    xi(x) = S - m w^2 - i w R       S = K0 e^(-a x) - S0       R = R0 e^(-a x / 2)
    g(x)  = w sqrt(rho / (hs xi))   wave number, branch Im g >= 0
    G(x)  = (2/a) g(0) + integral_0^x g dx

    p(x)/p(0)   = sqrt(G/g) / sqrt(G(0)/g(0)) * H0(G) / H0(G(0))     pressure by WKB, H0 and H1 Hankel, first kind
    Z           = -i w rho / g(0) * H0(G(0)) / H1(G(0))              input impedance
    velocity(x) = (2 w / xi) * p(x)/p(0) * Z * X(w)                  0 at w = 0

Unit 0 lies at the base and answers to the highest frequency. What this module does not do: amplify actively, or run
faster than real time on a stream; a clip is filtered in overlapping segments (overlap-save), so memory does not grow
with its length.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np

N_UNITS = 700


@dataclass(frozen=True, kw_only=True)
class MembraneConstants:
    """Constants of the equations above in CGS units (cm, g, s)."""

    length_cm: float = 3.5
    stiffness: float = 1e9  # K0, at the base
    stiffness_offset: float = 3500.0  # S0
    taper_per_cm: float = 3.0  # a
    mass: float = 0.05  # m
    damping: float = 0.15  # R0 / sqrt(K0 m)
    density: float = 1.0  # rho
    scala_height_cm: float = 0.1  # hs


MEMBRANE = MembraneConstants()
BEFORE_S = 0.15  # the answer to a click has decayed by 60 dB at unit 699, by far more elsewhere
AFTER_S = 0.008  # cutting the spectrum at half the sample rate rings a little before a click, too
SEGMENT_S = 0.512


def places_cm(constants: MembraneConstants = MEMBRANE) -> np.ndarray:
    """float64 `[700]`: distance of each unit from the base."""
    return np.linspace(0.0, constants.length_cm, N_UNITS)


def resonance_hz(constants: MembraneConstants = MEMBRANE) -> np.ndarray:
    """float64 `[700]`: sqrt(S / m) / 2 pi, the frequency at which mass and stiffness of a unit cancel."""
    stiffness = constants.stiffness * np.exp(-constants.taper_per_cm * places_cm(constants))
    return np.sqrt((stiffness - constants.stiffness_offset) / constants.mass) / (2 * np.pi)


def transfer(frequency_hz: np.ndarray, constants: MembraneConstants = MEMBRANE) -> np.ndarray:
    """velocity / X for frequencies `[F]` in Hz, all > 0 -> complex128 `[700, F]`, time factor exp(-i w t)."""
    from scipy.special import hankel1e  # exp(-i z) H(z): H itself underflows where the wave has died away

    k = constants
    x = places_cm(k)[:, None]
    w = 2 * np.pi * np.asarray(frequency_hz, dtype=np.float64)
    taper = np.exp(-k.taper_per_cm * x / 2)
    resistance = k.damping * np.sqrt(k.stiffness * k.mass) * taper
    xi = (k.stiffness * taper**2 - k.stiffness_offset - k.mass * w**2) - 1j * (w * resistance)
    g = w * np.sqrt(k.density / k.scala_height_cm / xi)  # Im xi < 0, so the principal root has Im g > 0
    trapezoids = (g[1:] + g[:-1]) * (x[1:] - x[:-1]) / 2
    G = np.empty_like(g)
    G[0] = 2 / k.taper_per_cm * g[0]
    G[1:] = G[0] + np.cumsum(trapezoids, axis=0)
    pressure = np.sqrt(G / g) * hankel1e(0, G) * np.exp(1j * (G - G[0]))
    impedance = -1j * w * k.density / g[0] * hankel1e(0, G[0]) / hankel1e(1, G[0])
    return (2 * w / xi) * (pressure / (np.sqrt(G[0] / g[0]) * hankel1e(0, G[0]))) * impedance


@cache
def _filters(sample_rate_hz: int, n_fft: int) -> np.ndarray:
    """complex64 `[700, n_fft // 2 + 1]` for FFT libraries, whose time factor is exp(+i w t): hence the conjugate."""
    import torch

    filters = np.zeros((N_UNITS, n_fft // 2 + 1), dtype=np.complex64)

    def fill(first: int) -> None:  # blocks of frequencies that stay in the second-level cache
        bins = np.arange(first, min(first + 64, n_fft // 2 + 1))
        filters[:, bins] = transfer(bins * (sample_rate_hz / n_fft)).conj()

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(fill, range(1, n_fft // 2 + 1, 64)))
    filters.flags.writeable = False
    return filters


class BasilarMembrane:
    """Membrane velocities of clips at one sample rate; the filters are computed once a process and rate."""

    def __init__(self, sample_rate_hz: int) -> None:
        from scipy.fft import next_fast_len

        self.n_fft: int = next_fast_len(round(SEGMENT_S * sample_rate_hz), real=True)
        self.n_before = round(BEFORE_S * sample_rate_hz)
        self.n_hop = self.n_fft - self.n_before - round(AFTER_S * sample_rate_hz)
        self.filters = _filters(sample_rate_hz, self.n_fft)

    def spectra(self, waveform: np.ndarray) -> np.ndarray:
        """`[samples]` -> complex64 `[segments, n_fft // 2 + 1]` of the overlapping segments."""
        from scipy.fft import rfft

        n_segments = -(-len(waveform) // self.n_hop)
        padded = np.zeros((n_segments - 1) * self.n_hop + self.n_fft + self.n_before, dtype=np.float32)
        padded[self.n_before : self.n_before + len(waveform)] = waveform
        segments = np.lib.stride_tricks.sliding_window_view(padded, self.n_fft)[:: self.n_hop][:n_segments]
        return rfft(segments, axis=1)

    def velocities(self, spectra: np.ndarray, units: slice = slice(None)) -> Iterator[np.ndarray]:
        """For each segment in turn the velocity of `units`: float32 `[units, n_hop]`; together they make the clip."""
        from scipy.fft import irfft

        for spectrum in spectra:
            yield irfft(self.filters[units] * spectrum, n=self.n_fft)[:, self.n_before : self.n_before + self.n_hop]

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        """`[samples]` -> float32 `[700, samples]`."""
        return np.concatenate(list(self.velocities(self.spectra(waveform))), axis=1)[:, : len(waveform)]
