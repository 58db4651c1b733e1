"""The signal planted in synthetic EEG, and the noise around it: amplitudes in which the words read are written.

The log amplitude of the 840 features of one token (a word as one reader saw it) is

    log a = mu_band + gain_subject + 0.3 (noise + s M z_w)

z_w ~ N(0, I_16) is fixed for a word type, M `[840, 16]` is fixed, smooth over the scalp, each row of unit length, so s
is the ratio of signal to noise (standard deviations) in every feature. noise = 0.9 (30 smooth components a band) + 0.44
(independent a feature). Cz is the reference: 0.
"""

import zlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from spikeloom.bci.raw.montage import unit_positions
from spikeloom.bci.zuco.records import BANDS, N_CHANNELS, N_FEATURES, is_reference
from spikeloom.bci.zuco.text import normalise

MEAN_UV = (6.0, 4.0, 4.5, 5.0, 4.0, 4.5, 3.0, 2.5)  # by band; mu is its logarithm
GAIN_SIGMA = 0.15
SCALE = 0.3  # log amplitude
SMOOTH, WHITE = 0.9, 0.44
SENTENCE_NOISE = 0.5  # of a token's
N_WORD_DIMENSIONS, N_COMPONENTS = 16, 30
FIELD_WIDTH = 0.4  # of the Gaussian kernel, radii of the head
_FIELDS, _WORD, _GAIN = 1, 2, 3  # streams of random numbers


@dataclass(frozen=True)
class PlantedSignal:
    """strength: s of the equation, 0 for EEG without content. Equal seeds give equal words, fields and gains."""

    strength: float
    seed: int

    def __post_init__(self) -> None:
        if not (np.isfinite(self.strength) and self.strength >= 0):
            raise ValueError(f"signal_strength is {self.strength}; use 0 (no signal) or more")

    def gain(self, subject: int) -> np.ndarray:
        """mu_band + gain_subject, `[840]`, of subject number `subject`."""
        gain = GAIN_SIGMA * np.random.default_rng((self.seed, _GAIN, subject)).standard_normal(N_FEATURES)
        return np.repeat(np.log(MEAN_UV), N_CHANNELS) + gain

    def signal(self, word: str) -> np.ndarray:
        """0.3 s M z_w, `[840]`; words are told apart by `normalise`."""
        return _content(normalise(word), self.seed) * (SCALE * self.strength)

    def noise(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """0.3 noise of `n` tokens, `[n, 840]`."""
        components = rng.standard_normal((n, len(BANDS), 1, N_COMPONENTS))
        by_band = components[:, :, 0].swapaxes(0, 1) @ noise_mixing(self.seed)  # [8, n, 105]
        smooth = by_band.swapaxes(0, 1).reshape(n, N_FEATURES)
        return SCALE * (SMOOTH * smooth + WHITE * rng.standard_normal((n, N_FEATURES)))


def amplitudes(log_uv: np.ndarray) -> np.ndarray:
    """exp of `[..., 840]` in uV, with the reference at 0."""
    return np.where(is_reference, 0.0, np.exp(log_uv))


@lru_cache(maxsize=8)
def noise_mixing(seed: int) -> np.ndarray:
    """Spatially smooth components of every band, `[8, 30, 105]`: unit variance at every channel, 0 at Cz."""
    return fields(N_COMPONENTS, np.random.default_rng((seed, _FIELDS, 1))).transpose(0, 2, 1)


@lru_cache(maxsize=8)
def _mixing(seed: int) -> np.ndarray:
    """M, `[840, 16]`."""
    return fields(N_WORD_DIMENSIONS, np.random.default_rng((seed, _FIELDS, 0))).reshape(N_FEATURES, N_WORD_DIMENSIONS)


@lru_cache(maxsize=4096)
def _content(word: str, seed: int) -> np.ndarray:
    rng = np.random.default_rng((seed, _WORD, zlib.crc32(word.encode())))
    return _mixing(seed) @ rng.standard_normal(N_WORD_DIMENSIONS)


def fields(n: int, rng: np.random.Generator) -> np.ndarray:
    """Gaussian random fields over the scalp, `[8, 105, n]`; rows have unit length, that of Cz is 0."""
    at = unit_positions()
    distance = np.linalg.norm(at[:, None] - at[None], axis=-1)
    fields = np.exp(-(distance**2) / (2 * FIELD_WIDTH**2)) @ rng.standard_normal((len(BANDS), N_CHANNELS, n))
    fields /= np.linalg.norm(fields, axis=-1, keepdims=True)
    return fields * ~is_reference.reshape(len(BANDS), N_CHANNELS, 1)
