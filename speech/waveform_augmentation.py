"""Augmentation of training waveforms by librosa: silence trimmed at both ends, another pace, another pitch.

    trim      librosa.effects.trim(y, top_db): cuts what is more than top_db below the loudest frame, at both ends
    stretch   librosa.effects.time_stretch(y, rate=1 / d),  d ~ U(1 - r, 1 + r) is the factor on the duration
    pitch     librosa.effects.pitch_shift(y, n_steps=s),    s ~ U(-p, p) semitones

in this order, before the front end; the changes of the features (`AugmentationConfig`) follow, where they are on. Every
number is a pure function of (seed, epoch, sample id, draw), so a clip is changed alike in any batch and any worker. A
recording that has become longer than a clip is cut by the front end as any other one is.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from spikeloom.speech.augmentation import N_DRAWS, Augmentation, AugmentationConfig, keyed_uniform
from spikeloom.speech.features.log_mel import LogMelConfig
from spikeloom.speech.features.mfcc import MFCCConfig

FRAME_MS = 64.0  # of the phase vocoder and of the level that trimming compares
QUIETEST_TRIM_DB, LOUDEST_TRIM_DB = 120.0, 10.0  # beyond the first nothing is cut, within the second speech is


@dataclass
class WaveformAugmentationConfig(AugmentationConfig):
    """Strengths; 0 switches a part off. Everything is off by default, the masks of the spectrogram included."""

    kind: str = "waveform"
    frequency_mask_bands: int = 0  # a mask covers 0 to this many mel bands
    time_mask_fraction: float = 0.0  # a mask covers 0 to this fraction of the valid steps
    trim_db: float = 0.0  # cut both ends where they are this far below the loudest frame: 10 to 120, 0 for off
    stretch_waveform: float = 0.0  # multiply the duration by U(1 - r, 1 + r) at the same pitch: r in [0, 0.5]
    pitch_semitones: float = 0.0  # move the pitch by U(-p, p) semitones at the same duration: p in [0, 12]
    probability: float = 1.0  # of each of these three changes of the waveform, for each clip and epoch

    def build(self, features: Any, seed: int) -> "WaveformAugmentation":
        """Raises ValueError for features that are not of audio, and for strengths that make no sense with them."""
        self.check_features(features)
        return WaveformAugmentation(self, features, seed=seed)


class WaveformAugmentation(Augmentation):
    """Changes recordings, then batches of the features that `features` makes of them; stateless."""

    def __init__(
        self, config: WaveformAugmentationConfig, features: LogMelConfig | MFCCConfig, *, seed: int
    ) -> None:  # fmt: skip
        super().__init__(config, features, seed=seed)
        if config.trim_db and not LOUDEST_TRIM_DB <= config.trim_db <= QUIETEST_TRIM_DB:
            raise ValueError(
                f"augmentation.trim_db must be 0 (off) or {LOUDEST_TRIM_DB:g} to {QUIETEST_TRIM_DB:g} dB "
                f"(got {config.trim_db:g}); use 40"
            )
        for name, most, usual in (("stretch_waveform", 0.5, 0.1), ("pitch_semitones", 12, 2), ("probability", 1, 0.5)):
            if not 0 <= (value := getattr(config, name)) <= most:
                raise ValueError(f"augmentation.{name} must be in [0, {most:g}] (got {value:g}); use {usual:g}")
        self.changes = config
        self.rate_hz = features.input_rate_hz
        self.frame = 1 << (round(self.rate_hz * FRAME_MS / 1000) - 1).bit_length()  # samples, a power of two

    def recording(self, recording: np.ndarray, sample_id: int, epoch: int) -> np.ndarray:
        """Waveform float32 `[samples]` -> another one `[samples']`; the input stays untouched."""
        changes = self.changes
        # The draws behind those of the features, so that no change follows another one.
        draw = keyed_uniform(self.seed, epoch, np.array([sample_id]), N_DRAWS + 5)[0, N_DRAWS:]
        trims, stretches, shifts = draw[:3] < changes.probability
        if changes.trim_db and trims:
            recording = trim(recording, changes.trim_db, self.frame)
        if changes.stretch_waveform and stretches:
            recording = stretch(recording, 1 + changes.stretch_waveform * (2 * draw[3] - 1), self.frame)
        if changes.pitch_semitones and shifts:
            recording = shift_pitch(recording, self.rate_hz, changes.pitch_semitones * (2 * draw[4] - 1), self.frame)
        return recording


def trim(waveform: np.ndarray, top_db: float, frame: int) -> np.ndarray:
    """Without the ends more than `top_db` below the loudest frame of `frame` samples; digital silence as it is."""
    import librosa

    trimmed: np.ndarray = librosa.effects.trim(waveform, top_db=top_db, frame_length=frame, hop_length=frame // 4)[0]
    return trimmed if len(trimmed) else waveform


def stretch(waveform: np.ndarray, factor: float, frame: int) -> np.ndarray:
    """The duration times `factor` at the same pitch, by a phase vocoder with frames of `frame` samples."""
    import librosa

    with _short_clips_allowed():
        stretched: np.ndarray = librosa.effects.time_stretch(waveform, rate=1 / factor, n_fft=frame)
    return stretched


def shift_pitch(waveform: np.ndarray, rate_hz: int, semitones: float, frame: int) -> np.ndarray:
    """The pitch moved by `semitones` at the same duration: stretched by a phase vocoder, then resampled."""
    import librosa

    with _short_clips_allowed():
        shifted: np.ndarray = librosa.effects.pitch_shift(waveform, sr=rate_hz, n_steps=semitones, n_fft=frame)
    return shifted


def _short_clips_allowed() -> warnings.catch_warnings:
    """librosa warns of a clip shorter than a frame, which it pads with zeros."""
    return warnings.catch_warnings(action="ignore", category=UserWarning)
