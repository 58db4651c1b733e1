"""Augmentation of log-mel features, for training only: masks, and optionally another voice, tempo, level, microphone.

Every number is a pure function of (seed, epoch, sample id, draw), so a clip is augmented alike in any batch, any
worker and any resumed run. Masks follow SpecAugment (Park et al., arXiv 1904.08779), one of each kind a sample. The
vocal-tract warp multiplies the frequencies of a clip by one factor a (Jaitly and Hinton, ICML workshop 2013), which on
the mel axis is a curve, read exactly:

    out[t, n] = in[t / stretch, band(f_n / a)]     f_n: centre of band n in Hz,  band(f): where f lies on the mel axis

A linear stretch of the mel axis and a shift by a real number of bands can follow; all of it is one linear reading
along the bands. Reading along time is linear too. Another microphone or room colours the whole clip by one curve over
the bands, a slope and a few smooth waves (u runs from 0 to 2 over the bands):

    c(u) = tilt U(-1, 1) (u - 1) + sum over k = 1..4 of U(-e, e) / sqrt(k) cos(pi k u + pi U(-1, 1))
    out  = clip(in + c - (peak of the clip afterwards) + 1, 0, 1)
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from spikeloom.speech.features.log_mel import LogMelConfig, hz_to_mel, mel_to_hz
from spikeloom.speech.features.mfcc import MFCCConfig

_N_WAVES = 4  # of the equaliser
_COLOUR = slice(10, 11 + 2 * _N_WAVES)  # draws of the tilt and the waves
_SHIFT = _COLOUR.stop + 2  # draw of the shift
N_DRAWS = _SHIFT + 1  # of one sample
# What is defined on mel bands and their level alone; masks and stretches of time are for coefficients, too.
NEEDS_BANDS = (
    "frequency_mask_bands", "vocal_tract", "mel_stretch", "mel_shift_bands", "level", "noise_floor", "tilt",
    "equaliser", "silence_ms", "shift_ms",
)  # fmt: skip


@dataclass
class AugmentationConfig:
    """Strengths; 0 switches a part off. The masks are on by default, everything else is off.

    frequency_mask_bands: a mask covers 0 to this many bands. time_mask_fraction: 0 to this share of the valid steps.
    vocal_tract: frequencies are multiplied by U(1 - w, 1 + w). mel_stretch: the mel axis is scaled about its low end by
    U(1 - w, 1 + w). mel_shift_bands: it moves by U(-s, s) bands. time_stretch: the duration is multiplied by
    U(1 - r, 1 + r), which changes the lengths. level: U(-g, g) is added, in units of the features. noise_floor: cells
    are raised to at least the floor of silence + U(0, h), in units of the features. tilt: gain at the edges of the
    bands, equaliser: strength e of the waves, in units of the features; both need level scaling. silence_ms: 0 to
    this much silence before the clip, and as much again behind it, in whole steps; the lengths grow. shift_ms: the clip
    moves by up to this much, earlier or later, in whole steps; what leaves it is lost, what is freed is silence.
    """

    kind: str = "spectrogram"
    frequency_mask_bands: int = 10
    time_mask_fraction: float = 0.25
    vocal_tract: float = 0.0
    mel_stretch: float = 0.0
    mel_shift_bands: float = 0.0
    time_stretch: float = 0.0
    level: float = 0.0
    noise_floor: float = 0.0
    tilt: float = 0.0
    equaliser: float = 0.0
    silence_ms: float = 0.0
    shift_ms: float = 0.0  # largest move of a clip in time, in either direction; its length stays

    def build(self, features: Any, seed: int) -> "Augmentation":
        """Raises ValueError for features that are not of audio, and for strengths that make no sense with them."""
        self.check_features(features)
        return Augmentation(self, features, seed=seed)

    def check_features(self, features: Any) -> None:
        """Raise ValueError, with the remedy, for features that these changes are not defined for."""
        if isinstance(features, MFCCConfig):
            self.check_cepstral(features)
        elif not isinstance(features, LogMelConfig):
            raise ValueError(
                f"a {self.kind} augmentation got features of the kind {features.kind}; "
                "use augmentation=shd or ssc (augmentation.probability=0 for none)"
            )

    def check_cepstral(self, features: MFCCConfig) -> None:
        """Coefficients are no bands, have no level of silence, and only normalised ones have 0 as their mean."""
        for name in NEEDS_BANDS:
            if value := getattr(self, name):
                raise ValueError(
                    f"augmentation.{name}={value} changes mel bands or levels, and features={features.kind} are "
                    f"coefficients; use augmentation.{name}=0, or augmentation=none or waveform"
                )
        if self.time_mask_fraction and not features.normalise:
            raise ValueError(
                f"augmentation.time_mask_fraction={self.time_mask_fraction:g} needs coefficients of mean 0 "
                "(got features.normalise=false); use features.normalise=true or augmentation.time_mask_fraction=0"
            )


class Augmentation:
    """Augments batches of the features that `features` makes; stateless, so calls come in any order."""

    def __init__(self, config: AugmentationConfig, features: LogMelConfig | MFCCConfig, *, seed: int) -> None:
        for name in ("vocal_tract", "mel_stretch", "time_stretch", "time_mask_fraction"):
            value = getattr(config, name)
            if not 0 <= value < 1:
                raise ValueError(f"{name} must be in [0, 1), got {value}; use for example 0.2, or 0 for off")
        for name in (
            "frequency_mask_bands",
            "mel_shift_bands",
            "level",
            "noise_floor",
            "tilt",
            "equaliser",
            "silence_ms",
            "shift_ms",
        ):
            if getattr(config, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(config, name)}; use 0 for off")
        if config.frequency_mask_bands > features.n_mels:
            raise ValueError(
                f"frequency_mask_bands {config.frequency_mask_bands} exceeds {features.n_mels} bands; use less"
            )
        if (config.tilt or config.equaliser) and not (isinstance(features, LogMelConfig) and features.level_scaling):
            raise ValueError(
                f"tilt {config.tilt} and equaliser {config.equaliser} move the peak that level scaling puts at 1; "
                "use features.level_scaling=true, or 0 for both"
            )
        self.config = config
        self.seed = seed
        self.fill = features.floor
        self.silence_steps = int(config.silence_ms / features.hop_ms)
        self.shift_steps = int(config.shift_ms / features.hop_ms)
        self.low_mel = float(hz_to_mel(features.f_min_hz))
        # Triangles stand at equal distances; n_mels of them have their first and last foot at f_min and f_max.
        self.mel_per_band = (float(hz_to_mel(features.f_max_hz)) - self.low_mel) / (features.n_mels + 1)

    def __call__(
        self, features: torch.Tensor, lengths: torch.Tensor, sample_ids: torch.Tensor, epoch: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`[B, T, N]`, int64 `[B]`, int64 `[B]` -> new features `[B, T', N]` and lengths; the inputs stay untouched.

        T' is T, or the longest stretched length. Steps past a length are 0.
        """
        config = self.config
        draw = torch.from_numpy(keyed_uniform(self.seed, epoch, sample_ids.numpy(), N_DRAWS)).to(torch.float32)
        if config.vocal_tract or config.mel_stretch or config.mel_shift_bands:
            features = lerp_gather(features, self._bands(draw[:, 0:3], features.shape[2]), dim=2)
        if config.time_stretch:
            features, lengths = stretch_time(features, lengths, 1 + config.time_stretch * (2 * draw[:, 3] - 1))
        if config.silence_ms:
            silence = torch.floor(draw[:, _COLOUR.stop : _SHIFT] * (self.silence_steps + 1)).long()
            features, lengths = surround(features, lengths, silence, self.fill)
        if self.shift_steps:
            move = torch.floor(draw[:, _SHIFT] * (2 * self.shift_steps + 1)).long() - self.shift_steps
            features = shift(features, lengths, move, self.fill)
        if config.tilt or config.equaliser:
            curve = self._colour(2 * draw[:, _COLOUR] - 1, features.shape[2])
            features = add_curve(features, lengths, curve)
        if config.level or config.noise_floor:
            level = config.level * (2 * draw[:, 4] - 1)
            quietest = self.fill + config.noise_floor * draw[:, 5]
            features = torch.maximum(features + level[:, None, None], quietest[:, None, None])
        n_bands = features.shape[2]
        width = torch.floor(draw[:, 6] * (config.frequency_mask_bands + 1))
        bands = Span(torch.floor(draw[:, 7] * (n_bands - width + 1)), width)
        width = torch.floor(draw[:, 8] * (torch.floor(config.time_mask_fraction * lengths) + 1))
        steps = Span(torch.floor(draw[:, 9] * (lengths - width + 1)), width)
        return mask(features, lengths, steps, bands, self.fill), lengths

    def _bands(self, draw: torch.Tensor, n_bands: int) -> torch.Tensor:
        """Where each output band reads: `[B, 3]` draws -> positions `[B, N]`; beyond an edge it reads the edge."""
        spread = 2 * draw - 1
        tract = 1 + self.config.vocal_tract * spread[:, 0:1]
        stretch = 1 + self.config.mel_stretch * spread[:, 1:2]
        shift = self.config.mel_shift_bands * spread[:, 2:3]
        # From output to input, so each change is undone: the shift, the stretch, then the factor on frequencies.
        position = (torch.arange(n_bands) - shift) / stretch
        centre_hz = mel_to_hz(self.low_mel + (position + 1) * self.mel_per_band).clamp(min=0)
        position = (hz_to_mel(centre_hz / tract) - self.low_mel) / self.mel_per_band - 1
        return position.clamp(0, n_bands - 1)

    def _colour(self, spread: torch.Tensor, n_bands: int) -> torch.Tensor:
        """What a microphone adds to each band: draws in [-1, 1) `[B, 1 + 2 waves]` -> `[B, N]`."""
        u = torch.linspace(0, 2, n_bands)
        curve = self.config.tilt * spread[:, 0:1] * (u - 1)
        for k in range(1, _N_WAVES + 1):
            strength, phase = spread[:, 2 * k - 1, None], spread[:, 2 * k, None]
            curve = curve + self.config.equaliser * strength / k**0.5 * torch.cos(torch.pi * (k * u + phase))
        return curve


class Span(NamedTuple):
    """One stretch of steps or channels a sample: first index and width, both `[B]`."""

    start: torch.Tensor
    width: torch.Tensor

    def covers(self, n: int) -> torch.Tensor:
        """bool `[B, n]`."""
        index = torch.arange(n)
        return (index >= self.start[:, None]) & (index < (self.start + self.width)[:, None])


def mask(features: torch.Tensor, lengths: torch.Tensor, steps: Span, channels: Span, fill: float) -> torch.Tensor:
    """`[B, T, N]` with `fill` in the masked steps and channels, and 0 past each length."""
    n_steps, n_channels = features.shape[1:]
    past = (torch.arange(n_steps) >= lengths[:, None])[:, :, None]
    covered = channels.covers(n_channels)[:, None, :] | (steps.covers(n_steps)[:, :, None] | past)
    masked = features.masked_fill(covered, fill)
    return masked if fill == 0 else masked.masked_fill(past, 0.0)


def add_curve(features: torch.Tensor, lengths: torch.Tensor, curve: torch.Tensor) -> torch.Tensor:
    """Add `curve [B, N]` to the valid steps of level-scaled `[B, T, N]`, bring the peak back to 1, clip to [0, 1].

    Digital silence stays 0: it has no peak.
    """
    past = (torch.arange(features.shape[1]) >= lengths[:, None])[:, :, None]
    coloured = features + curve[:, None, :]
    peak = coloured.masked_fill(past, -torch.inf).amax(dim=(1, 2), keepdim=True)
    silent = features.amax(dim=(1, 2), keepdim=True) == 0
    return (coloured - peak + 1).clamp(0, 1).masked_fill(past | silent, 0.0)


def stretch_time(
    features: torch.Tensor, lengths: torch.Tensor, factor: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Multiply durations: `[B, T, N]`, `[B]`, factors `[B]` -> `[B, T', N]` and round(lengths * factor), at least 1.

    The first and the last valid step stay the first and the last.
    """
    stretched = torch.round(lengths * factor).long().clamp(min=1)
    pace = (lengths - 1) / (stretched - 1).clamp(min=1)
    steps = torch.arange(int(stretched.max())) * pace[:, None]
    return lerp_gather(features, torch.minimum(steps, (lengths - 1)[:, None]), dim=1), stretched


def surround(
    features: torch.Tensor, lengths: torch.Tensor, silence: torch.Tensor, fill: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Put `silence [B, 2]` steps of `fill` before and behind each clip: `[B, T, N]`, `[B]` -> `[B, T', N]`, `[B]`."""
    longer = lengths + silence.sum(1)
    source = torch.arange(int(longer.max())) - silence[:, 0:1]
    inside = (source >= 0) & (source < lengths[:, None])
    moved = features[torch.arange(len(features))[:, None], source.clamp(0, features.shape[1] - 1)]
    return torch.where(inside[:, :, None], moved, fill), longer


def shift(features: torch.Tensor, lengths: torch.Tensor, move: torch.Tensor, fill: float) -> torch.Tensor:
    """Move each clip later by `move [B]` steps (earlier where negative) within its length, `fill` where it was:
    `[B, T, N]` -> `[B, T, N]`."""
    source = torch.arange(features.shape[1]) - move[:, None]
    inside = (source >= 0) & (source < lengths[:, None])
    moved = features[torch.arange(len(features))[:, None], source.clamp(0, features.shape[1] - 1)]
    return torch.where(inside[:, :, None], moved, fill)


def lerp_gather(values: torch.Tensor, positions: torch.Tensor, dim: int) -> torch.Tensor:
    """Read `[B, T, N]` at real `positions [B, M]` along `dim` (1 or 2), linearly between neighbours."""
    below = positions.floor().long()
    weight = positions - below
    above = (below + 1).clamp(max=values.shape[dim] - 1)
    sample = torch.arange(len(values))[:, None]
    if dim == 1:  # whole rows
        return torch.lerp(values[sample, below], values[sample, above], weight[:, :, None])
    shape = (len(values), values.shape[1], positions.shape[1])
    low = values.gather(2, below[:, None, :].expand(shape))
    high = values.gather(2, above[:, None, :].expand(shape))
    return torch.lerp(low, high, weight[:, None, :])


def keyed_uniform(seed: int, epoch: int, sample_ids: np.ndarray, n_draws: int) -> np.ndarray:
    """float64 `[len(sample_ids), n_draws]` in [0, 1): each number depends only on (seed, epoch, sample id, draw).

    A counter-based generator: the SplitMix64 mixer (Steele et al., OOPSLA 2014) applied to the key, one part at a time.
    """
    key = np.zeros((), np.uint64)
    for part in (np.uint64(seed % 2**64), np.uint64(epoch), sample_ids.astype(np.uint64)[:, None], np.arange(n_draws)):
        key = _mix(key ^ np.asarray(part, dtype=np.uint64))
    return (key >> np.uint64(11)) * 2.0**-53


def _mix(z: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is the point
        z = z + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
