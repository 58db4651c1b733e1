"""Sound without keywords, made by formula, as long as it is asked for: noise, hum, clicks, invented speech, silence.

Each block of ten seconds is a pure function of (seed, number of the block), so hours of it need the memory of one.
What this is not: a recording of rooms and talk. The invented speech is the synthesiser's of `datasets.synthetic`, with
random phones; how often a model takes real conversation for a keyword is measured on recordings alone.
"""

from collections.abc import Iterator

import numpy as np
from scipy.signal import lfilter, resample_poly

from spikeloom.speech.datasets.synthetic import SAMPLE_RATE_HZ, pseudo_word

BLOCK_S = 10
KINDS = ("speech", "noise", "speech in noise", "hum and clicks", "silence")  # of the blocks, in turn


def background(hours: float, rate_hz: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Blocks of float32 samples at `rate_hz`, `hours` of them in all.

    Raises ValueError unless hours are positive and finite.
    """
    if not 0 < hours < float("inf"):
        raise ValueError(f"hours={hours} must be > 0 and finite; use 1")
    left = round(hours * 3600 * rate_hz)
    for number in range(-(-left // (BLOCK_S * rate_hz))):
        samples = block(number, seed)
        if rate_hz != SAMPLE_RATE_HZ:
            samples = resample_poly(samples, rate_hz, SAMPLE_RATE_HZ).astype(np.float32)
        yield samples[:left]
        left -= len(samples)


def block(number: int, seed: int) -> np.ndarray:
    """Ten seconds of the kind whose turn it is, float32 at 16 kHz."""
    rng = np.random.default_rng((seed, number))
    kind, n = KINDS[number % len(KINDS)], BLOCK_S * SAMPLE_RATE_HZ
    samples = np.zeros(n)
    if "speech" in kind:
        samples += _speech(n, rng)
    if "noise" in kind:
        samples += 10 ** rng.uniform(-3, -1 if kind == "noise" else -2) * _coloured(n, rng)
    if kind == "hum and clicks":
        t = np.arange(n) / SAMPLE_RATE_HZ
        hum_hz = rng.choice((50, 60, 100, 120))
        samples += 10 ** rng.uniform(-3, -1.5) * sum(np.sin(2 * np.pi * hum_hz * k * t) / k for k in (1, 2, 3))
        for start in rng.integers(0, n - 400, rng.integers(1, 15)):
            decay = np.exp(-np.arange(400) / rng.uniform(10, 80))
            samples[start : start + 400] += rng.uniform(0.1, 0.8) * decay * rng.standard_normal(400)
    return samples.astype(np.float32)


def _coloured(n: int, rng: np.random.Generator) -> np.ndarray:
    """Noise of unit variance, from white to as steep as a first-order low-pass filter."""
    noise = lfilter([1.0], [1.0, -rng.uniform(0, 0.98)], rng.standard_normal(n))
    coloured: np.ndarray = noise / noise.std()
    return coloured


def _speech(n: int, rng: np.random.Generator) -> np.ndarray:
    """Invented words with pauses of 0.1 to 1 s between them."""
    samples, at = np.zeros(n), 0
    while True:
        at += round(rng.uniform(0.1, 1.0) * SAMPLE_RATE_HZ)
        word = pseudo_word(rng)
        if at + len(word) > n:
            return samples
        samples[at : at + len(word)] += word
        at += len(word)
