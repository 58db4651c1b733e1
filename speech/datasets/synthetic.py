"""Spoken keywords made by formula, so that everything runs without a download: ten words, twenty voices, ten takes.

A source-filter synthesiser after Klatt (JASA 67:971, 1980). A glottal pulse train passes three second-order resonators

    y[n] = a x[n] + b y[n-1] + c y[n-2],  c = -exp(-2 pi B / fs), b = 2 exp(-pi B / fs) cos(2 pi F / fs), a = 1 - b - c

in cascade, whose frequencies F glide linearly between the targets of the word's phones; friction and bursts are white
noise through one resonator. Vowel targets: men of Peterson and Barney (JASA 24:175, 1952). A voice is a pitch, a
vocal-tract factor on all formants and a speaking rate; every take varies them a little and adds noise.
What this is not: natural speech. Recognition figures on it say that the pipeline learns, not how well it hears people.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.linalg.blas import dtbsv
from scipy.signal import lfilter

from spikeloom.speech.datasets.utterances import SpeechSplits, Utterances, choose_speakers, split_by_speaker

SAMPLE_RATE_HZ = 16_000
BANDWIDTHS_HZ = (60.0, 90.0, 150.0)
SHORTEST_S, LONGEST_S = 0.4, 0.9


class Phone(NamedTuple):
    """One speech sound: formant targets, duration, voicing and friction amplitudes, friction band."""

    formants_hz: tuple[float, float, float]
    duration_ms: float
    voicing: float = 1.0
    friction: float = 0.0
    friction_hz: float = 4000.0
    friction_width_hz: float = 1500.0


I_BIT = Phone((390, 1990, 2550), 90)
E_BET = Phone((530, 1840, 2480), 150)
A_FATHER = Phone((730, 1090, 2440), 180)
AW_LAW = Phone((570, 840, 2410), 200)
U_BOOK = Phone((440, 1020, 2240), 110)
UH_BUT = Phone((640, 1190, 2390), 160)
Y = Phone((260, 2250, 3000), 70, voicing=0.6)
L = Phone((360, 1100, 2600), 80, voicing=0.6)
R = Phone((330, 1150, 1550), 80, voicing=0.6)
N = Phone((250, 1500, 2500), 110, voicing=0.35)
S = Phone((300, 1700, 2600), 130, voicing=0.0, friction=0.35, friction_hz=5800)
F = Phone((300, 1100, 2300), 120, voicing=0.0, friction=0.12, friction_hz=4500, friction_width_hz=5000)
CLOSURE_T = Phone((280, 1750, 2600), 60, voicing=0.0)
BURST_T = Phone((300, 1750, 2600), 30, voicing=0.0, friction=0.5, friction_hz=4200, friction_width_hz=2000)
CLOSURE_P = Phone((280, 900, 2300), 70, voicing=0.0)
BURST_P = Phone((300, 900, 2300), 25, voicing=0.0, friction=0.8, friction_hz=1200, friction_width_hz=1200)
CLOSURE_D = Phone((250, 1700, 2600), 40, voicing=0.15)
BURST_D = Phone((280, 1700, 2600), 15, voicing=0.4, friction=0.3, friction_hz=3800, friction_width_hz=2000)
CLOSURE_G = Phone((250, 1900, 2400), 45, voicing=0.15)
BURST_G = Phone((280, 1900, 2400), 25, voicing=0.4, friction=0.8, friction_hz=2000, friction_width_hz=800)

WORDS: tuple[tuple[str, tuple[Phone, ...]], ...] = (
    ("yes", (Y, E_BET, S)),
    ("no", (N, AW_LAW, U_BOOK)),
    ("up", (UH_BUT, CLOSURE_P, BURST_P)),
    ("down", (CLOSURE_D, BURST_D, A_FATHER, U_BOOK, N)),
    ("left", (L, E_BET, F, CLOSURE_T, BURST_T)),
    ("right", (R, A_FATHER, I_BIT, CLOSURE_T, BURST_T)),
    ("on", (A_FATHER, N)),
    ("off", (AW_LAW, F)),
    ("stop", (S, CLOSURE_T, BURST_T, A_FATHER, CLOSURE_P, BURST_P)),
    ("go", (CLOSURE_G, BURST_G, AW_LAW, U_BOOK)),
)


@dataclass
class SyntheticConfig:
    """Size and seed of the synthetic set. A smaller set is the beginning of a larger one: same voices, same takes.

    n_words counts from the start of `WORDS` (2 to 10); `split_seed` draws the n_test_speakers and n_valid_speakers.
    """

    source: str = "synthetic"
    n_words: int = 10  # classes, 2 to 10
    n_speakers: int = 20  # synthetic voices
    takes: int = 10  # clips of each word by each speaker
    n_test_speakers: int = 3  # speakers held out for test
    n_valid_speakers: int = 3  # speakers held out for validation
    seed: int = 0  # of voices and takes
    split_seed: int = 0  # of the speakers held out

    def load(self) -> Utterances:
        """All clips, unsplit; about five seconds for the default size on one core."""
        return synthesise_keywords(n_words=self.n_words, n_speakers=self.n_speakers, takes=self.takes, seed=self.seed)

    def build(self) -> SpeechSplits:
        """Train, validation and test with different speakers: 14, 3 and 3 by default."""
        utterances = self.load()
        held_out = choose_speakers(
            utterances.speaker_names(), self.n_test_speakers + self.n_valid_speakers, self.split_seed
        )
        test, valid = held_out[: self.n_test_speakers], held_out[self.n_test_speakers :]
        return split_by_speaker(utterances, test_speakers=test, valid_speakers=valid)


class Voice(NamedTuple):
    """What distinguishes a speaker: pitch, factor on all formants, speaking rate."""

    f0_hz: float
    tract: float
    rate: float


def draw_voice(seed: int, speaker: int) -> Voice:
    """The voice of speaker number `speaker`; the same for any number of speakers."""
    rng = np.random.default_rng((seed, 0, speaker))
    return Voice(f0_hz=rng.uniform(85, 255), tract=rng.uniform(0.85, 1.20), rate=rng.uniform(0.8, 1.2))


def synthesise_keywords(*, n_words: int, n_speakers: int, takes: int, seed: int) -> Utterances:
    """Every word by every speaker, `takes` times, ordered by word, speaker, take; 16 kHz, 0.4 to 0.9 s, float32.

    Raises `ValueError` for sizes outside 2..10 words or below one speaker or take.
    """
    if not 2 <= n_words <= len(WORDS):
        raise ValueError(f"n_words must be 2..{len(WORDS)}, got {n_words}; use fewer or more words")
    if n_speakers < 1 or takes < 1:
        raise ValueError(f"got n_speakers {n_speakers} and takes {takes}; use at least one of each")
    voices = [draw_voice(seed, speaker) for speaker in range(n_speakers)]
    said = [(speaker, take) for speaker in range(n_speakers) for take in range(takes)]
    waveforms = [
        _speak(phones, voices[speaker], np.random.default_rng((seed, 1 + word, speaker, take)))
        for word, (_, phones) in enumerate(WORDS[:n_words])
        for speaker, take in said
    ]
    words = tuple(word for word, _ in WORDS[:n_words])
    return Utterances(
        waveforms=waveforms,
        labels=np.repeat(np.arange(n_words, dtype=np.int64), len(said)),
        speakers=[f"voice{speaker:02d}" for _ in words for speaker, _ in said],
        names=[f"{word}_voice{speaker:02d}_{take}" for word in words for speaker, take in said],
        class_names=words,
        sample_rate_hz=SAMPLE_RATE_HZ,
    )


def pseudo_word(rng: np.random.Generator) -> np.ndarray:
    """Three to six random phones in a random voice, no word of `WORDS` but by chance: float32 `[samples]`, 16 kHz."""
    phones = sorted({phone for _, word in WORDS for phone in word})
    chosen = tuple(phones[i] for i in rng.integers(0, len(phones), rng.integers(3, 7)))
    return _speak(chosen, draw_voice(int(rng.integers(2**31)), 0), rng)


class _Take(NamedTuple):
    """One clip on its way to the resonators; tracks are `[samples]`, or `[3, samples]` for the formants."""

    formants_hz: np.ndarray
    friction_hz: np.ndarray
    friction_width_hz: np.ndarray
    glottis: np.ndarray
    friction: np.ndarray
    gain: float
    noise: np.ndarray  # unit variance, still to be scaled to the signal
    snr_db: float


def _speak(phones: tuple[Phone, ...], voice: Voice, rng: np.random.Generator) -> np.ndarray:
    """One take of one word, float32 `[samples]`."""
    take = _articulate(phones, voice, rng)
    voiced = take.glottis
    for formant_hz, width_hz in zip(take.formants_hz, BANDWIDTHS_HZ, strict=True):
        voiced = resonate(voiced, formant_hz, width_hz)
    # A resonator has gain 1 at 0 Hz; friction should have about gain 1 at its own frequency instead.
    at_peak = np.pi * take.friction_width_hz / SAMPLE_RATE_HZ
    speech = voiced + resonate(take.friction * at_peak, take.friction_hz, take.friction_width_hz)
    noisy = speech + take.noise * speech.std() * 10 ** (-take.snr_db / 20)
    return (take.gain * noisy / np.abs(noisy).max()).astype(np.float32)


def _articulate(phones: tuple[Phone, ...], voice: Voice, rng: np.random.Generator) -> _Take:
    """Turn phones into parameter tracks and excitation for one take of one voice."""
    edge_ms = rng.uniform(20, 60, size=2)  # quiet before and after the word
    phone_ms = np.array([phone.duration_ms for phone in phones])
    durations_s = np.concatenate([edge_ms[:1], phone_ms * rng.uniform(0.85, 1.15, len(phones)), edge_ms[1:]]) / 1000
    total_s = durations_s.sum() * 1.25 / voice.rate
    durations_s *= np.clip(total_s, SHORTEST_S, LONGEST_S) / durations_s.sum()
    n = round(float(durations_s.sum()) * SAMPLE_RATE_HZ)
    time_s = np.arange(n) / SAMPLE_RATE_HZ
    ends_s = np.cumsum(durations_s)
    middles_s = (ends_s - durations_s / 2)[1:-1]

    tract = voice.tract * rng.uniform(0.97, 1.03)
    targets_hz = np.array([phone.formants_hz for phone in phones]).T * tract * rng.uniform(0.97, 1.03, (3, len(phones)))
    formants_hz = np.stack([np.interp(time_s, middles_s, row) for row in targets_hz])
    friction_hz = np.array([phone.friction_hz for phone in phones]) * tract
    # Friction bands do not glide from one consonant to the next: each holds from its own start to its own end.
    phone_at = np.clip(np.searchsorted(ends_s, time_s, side="right") - 1, 0, len(phones) - 1)
    jitter = 1 + 0.01 * rng.standard_normal(n // 40 + 2)
    f0_hz = voice.f0_hz * rng.uniform(0.95, 1.05)
    return _Take(
        formants_hz=formants_hz,
        friction_hz=np.minimum(friction_hz[phone_at], 0.45 * SAMPLE_RATE_HZ),
        friction_width_hz=np.array([phone.friction_width_hz for phone in phones])[phone_at],
        glottis=_glottal_pulses(n, f0_hz, jitter) * _ramped([p.voicing for p in phones], ends_s, time_s),
        friction=rng.standard_normal(n) * _ramped([p.friction for p in phones], ends_s, time_s),
        gain=rng.uniform(0.3, 0.9),
        noise=rng.standard_normal(n),
        snr_db=rng.uniform(15, 30),
    )


def _ramped(levels: list[float], ends_s: np.ndarray, time_s: np.ndarray) -> np.ndarray:
    """Amplitude track: silent edges, one level a phone, linear ramps of 10 ms across each boundary."""
    steps = np.array([0.0, *levels, 0.0])
    boundaries_s = ends_s[:-1]
    knots_s = np.stack([boundaries_s - 0.005, boundaries_s + 0.005], axis=1).ravel()
    return np.interp(time_s, knots_s, np.repeat(steps, 2)[1:-1])


def _glottal_pulses(n: int, f0_hz: float, jitter: np.ndarray) -> np.ndarray:
    """Pulse train `[n]` falling from 1.1 f0 to 0.9 f0, every period off by its `jitter`, sloping -6 dB per octave.

    The slope is that of the glottal flow (-12) and of radiation from the lips (+6) together.
    """
    n_pulses = min(len(jitter), int(n / SAMPLE_RATE_HZ * f0_hz) + 1)
    period = SAMPLE_RATE_HZ / (f0_hz * np.linspace(1.1, 0.9, n_pulses)) * jitter[:n_pulses]
    at = np.cumsum(period)
    at = at[at < n - 1]
    whole = at.astype(int)
    pulses = np.zeros(n)
    np.add.at(pulses, whole, 1 - (at - whole))  # split over two samples: rounding would add jitter of its own
    np.add.at(pulses, whole + 1, at - whole)
    return lfilter([1.0], [1.0, -0.95], pulses - pulses.mean())


def resonate(signal: np.ndarray, centre_hz: np.ndarray, width_hz: np.ndarray | float) -> np.ndarray:
    """Second-order resonator whose centre may move: signal and centre_hz `[samples]`, gain 1 at 0 Hz."""
    radius = np.exp(-np.pi * width_hz / SAMPLE_RATE_HZ)
    c = np.broadcast_to(-(radius**2), centre_hz.shape)
    b = 2 * radius * np.cos(2 * np.pi * centre_hz / SAMPLE_RATE_HZ)
    # y[n] = (1 - b - c) x[n] + b[n] y[n-1] + c[n] y[n-2] is a triangular system with two bands below its diagonal.
    bands = np.zeros((3, len(signal)), order="F")
    bands[1, :-1], bands[2, :-2] = -b[1:], -c[2:]
    return dtbsv(2, bands, (1 - b - c) * signal, lower=1, diag=1)
