"""Mel-frequency cepstral coefficients: the features `librosa.feature.mfcc` makes of a clip, with librosa's defaults.

    P[t, f] = |STFT|^2                                   periodic Hann, centred, zeros beyond both ends
    L[t, m] = 10 log10 max(sum_f P[t, f] M[m, f], 1e-10)    Slaney mel, at least 80 dB below the clip's peak
    c[t, k] = orthonormal DCT-II of L[t, :], the first n_mfcc coefficients
    x[t, k] = (c[t, k] - mean_t c[t, k]) / sd_t c[t, k]     with `normalise`; 0 where a coefficient is constant

The frames look half a window ahead, and the normalisation sees the whole clip: features for whole clips, not for
streaming. Davis and Mermelstein, IEEE Trans. ASSP 28 (1980).
"""

import warnings
from dataclasses import dataclass, replace

import numpy as np
import torch

from spikeloom.speech.features.waveform_window import WaveformWindow


@dataclass
class MFCCConfig:
    """Settings of `MFCC`; the defaults are for 16 kHz."""

    kind: str = "mfcc"
    input_rate_hz: int = 16_000  # sample rate of the waveforms
    clip_s: float = 1.0  # longest clip; of a longer one `window` is used
    n_mfcc: int = 20  # coefficients kept, the lowest first
    n_mels: int = 40  # mel bands the coefficients are made of
    win_ms: float = 32.0  # analysis window
    hop_ms: float = 10.0  # time step
    f_min_hz: float = 20.0  # lower edge of the lowest band
    f_max_hz: float = 8000.0  # upper edge of the highest band, at most half the sample rate
    normalise: bool = True  # every coefficient of a clip to mean 0 and standard deviation 1
    window: str = "loudest"  # part of a longer recording that is used: loudest, start or center

    @property
    def win(self) -> int:
        """Window in samples."""
        return round(self.input_rate_hz * self.win_ms / 1000)

    @property
    def hop(self) -> int:
        """Hop in samples."""
        return round(self.input_rate_hz * self.hop_ms / 1000)

    @property
    def n_fft(self) -> int:
        """Points of the Fourier transform: the smallest power of two that holds a window."""
        return 1 << (self.win - 1).bit_length()

    @property
    def n_channels(self) -> int:
        return self.n_mfcc

    @property
    def step_ms(self) -> float:
        return self.hop_ms

    @property
    def floor(self) -> float:
        """What masking fills in: the mean of a normalised coefficient. Silence has no single value in a cepstrum."""
        return 0.0

    def at(self, step_ms: float) -> "MFCCConfig":
        """The same front end at another time resolution."""
        return replace(self, hop_ms=step_ms)

    def build(self) -> "MFCC":
        return MFCC(self)


class MFCC(WaveformWindow):
    """One waveform -> its coefficients `[T, n_mfcc]`, T = 1 + floor(n / hop) (equations above).

    Raises ValueError for settings that do not fit each other; warns with the number of empty mel bands.
    """

    presets = "mfcc_8k for 8 kHz, mfcc for 16 kHz"

    def __init__(self, config: MFCCConfig) -> None:
        nyquist_hz = config.input_rate_hz / 2
        if config.hop < 1:
            raise ValueError(
                f"features.hop_ms={config.hop_ms:g} is less than a sample at {config.input_rate_hz} Hz; use 10"
            )
        if config.win < 2:
            raise ValueError(
                f"features.win_ms={config.win_ms:g} is less than two samples at {config.input_rate_hz} Hz; use 32"
            )
        if not 1 <= config.n_mfcc <= config.n_mels:
            raise ValueError(
                f"features.n_mfcc must be 1 to features.n_mels={config.n_mels} (got {config.n_mfcc}); use fewer "
                "coefficients or more bands"
            )
        if not 0 <= config.f_min_hz < config.f_max_hz <= nyquist_hz:
            raise ValueError(
                f"features.f_min_hz={config.f_min_hz:g} and f_max_hz={config.f_max_hz:g} must rise within 0 to "
                f"{nyquist_hz:g} Hz, half the sample rate; use for example 20 and {nyquist_hz:g}"
            )
        if not config.clip_s > 0:
            raise ValueError(f"features.clip_s must be > 0 (got {config.clip_s:g}); use 1")
        super().__init__(config)
        self.n_channels, self.step_ms = config.n_channels, config.step_ms
        if empty := self._empty_bands():
            warnings.warn(
                f"{empty} of {config.n_mels} mel bands are empty (n_fft {config.n_fft}, {config.input_rate_hz} Hz); "
                "lower features.n_mels or lengthen features.win_ms",
                stacklevel=2,
            )

    def _empty_bands(self) -> int:
        import librosa

        config = self.config
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # librosa's does not say how many
            bank = librosa.filters.mel(
                sr=config.input_rate_hz, n_fft=config.n_fft, n_mels=config.n_mels, fmin=config.f_min_hz,
                fmax=config.f_max_hz,
            )  # fmt: skip
        return int((bank.max(1) == 0).sum())

    def frames(self, recording: np.ndarray) -> torch.Tensor:
        """One waveform float32 `[samples]` -> float32 `[T, n_mfcc]`; of a longer one, the window's."""
        import librosa

        config = self.config
        samples = self.clip(recording)
        n_steps = 1 + len(samples) // config.hop
        # librosa pads a frame with zeros at both ends: zeros behind a clip shorter than a frame change nothing in it.
        samples = np.pad(samples, (0, max(0, config.n_fft - len(samples))))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Empty filters")  # counted once, in the constructor
            coefficients = librosa.feature.mfcc(
                y=samples, sr=config.input_rate_hz, n_mfcc=config.n_mfcc, n_mels=config.n_mels, n_fft=config.n_fft,
                win_length=config.win, hop_length=config.hop, fmin=config.f_min_hz, fmax=config.f_max_hz,
            )  # fmt: skip
        frames = np.ascontiguousarray(coefficients[:, :n_steps].T, dtype=np.float32)
        return torch.from_numpy(normalise(frames) if config.normalise else frames)


def normalise(frames: np.ndarray) -> np.ndarray:
    """Every channel of `[T, N]` to mean 0 and standard deviation 1; 0 where it varies by less than float32 resolves."""
    exact = frames.astype(np.float64)
    mean, sd = exact.mean(0), exact.std(0)
    constant = sd <= 1e-6 * np.maximum(1.0, np.abs(mean))
    scaled: np.ndarray = np.where(constant, 0.0, (exact - mean) / np.where(constant, 1.0, sd)).astype(np.float32)
    return scaled
