"""Log-mel features: waveforms in, `[B, T, n_mels]` and valid lengths out.

    P[t, f] = |STFT|^2 (periodic Hann, centred, reflected at both ends)
    L[t, m] = 10 log10 max(sum_f P[t, f] M[f, m], 1e-10)            HTK mel, triangles of height 1
    x[t, m] = clip((L[t, m] - peak) / 60 + 1, 0, 1)                 peak = max of L over the clip's valid frames

The last line (level scaling) makes 0 mean silence and removes the recording level; it is a switch. Every clip is first
cropped (to its loudest second by default) or zero-padded to one second, so its features depend neither on its
neighbours in the batch nor on padding behind it. The centred frames look half a window ahead: these are features for
whole clips, not for streaming. With `causal` a frame ends now and the peak is a running one, both as in
`features.causal_mel`: features for streaming, too.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from spikeloom.speech.features.causal_mel import follow_peak, frames_so_far, history, scale_to_peak
from spikeloom.speech.features.waveform_window import WaveformWindow

POWER_FLOOR = 1e-10
FLOOR_DB = -100.0  # 10 log10 POWER_FLOOR


@dataclass
class LogMelConfig:
    """Settings of `LogMel`; the defaults are the preset `gsc`.

    input_rate_hz is the rate of the waveforms, sample_rate_hz the rate at which they are analysed (equal or half).
    hop_ms sets the time resolution. level_range_db is the span below the clip's peak that level scaling keeps.
    whole_clip_valid counts the zero padding of short clips as speech, as published GSC results do. causal frames end
    at the present and the peak of level scaling is a running one, which falls by level_range_db in peak_release_s.
    window: the clip_s seconds of a longer recording that are used, the loudest (most energy), the first (start) or the
    middle ones (center).
    """

    kind: str = "log_mel"
    input_rate_hz: int = 16_000  # sample rate of the waveforms
    sample_rate_hz: int = 16_000  # rate at which they are analysed: equal, or half
    clip_s: float = 1.0  # length of a clip; shorter ones are padded
    win_length: int = 512  # samples of an analysis window
    n_fft: int = 1024  # points of the Fourier transform
    hop_ms: float = 10.0  # time step
    n_mels: int = 140  # mel bands
    f_min_hz: float = 50.0  # lower edge of the lowest band
    f_max_hz: float = 8000.0  # upper edge of the highest band
    level_scaling: bool = True  # scale every clip by its own peak
    level_range_db: float = 60.0  # span below the peak that level scaling keeps
    whole_clip_valid: bool = False  # count the padding of short clips as speech, as published GSC results do
    causal: bool = False  # frames that end at the present, and a running peak
    peak_release_s: float = 10.0  # time in which the running peak falls by level_range_db
    window: str = "loudest"  # part of a longer recording that is used: loudest, start or center

    @classmethod
    def gsc(cls, hop_ms: float = 10.0) -> "LogMelConfig":
        """16 kHz audio with no empty mel band."""
        return cls(hop_ms=hop_ms)

    @classmethod
    def gsc_8k(cls, hop_ms: float = 10.0) -> "LogMelConfig":
        """8 kHz audio (for instance FSDD) with no empty mel band."""
        return cls(input_rate_hz=8000, sample_rate_hz=8000, win_length=256, n_fft=512, f_max_hz=4000.0, hop_ms=hop_ms)

    @classmethod
    def gsc_paper(cls, hop_ms: float = 10.0) -> "LogMelConfig":
        """The front end of SpikeSCR (arXiv 2412.12858): 53 of its 140 bands lie above Nyquist and are constant."""
        return cls(
            sample_rate_hz=8000,
            win_length=256,
            n_fft=256,
            f_max_hz=14_000.0,
            hop_ms=hop_ms,
            level_scaling=False,
            whole_clip_valid=True,
            window="start",
        )

    @property
    def hop(self) -> int:
        """Hop in samples of the analysed rate."""
        return round(self.sample_rate_hz * self.hop_ms / 1000)

    @property
    def floor(self) -> float:
        """Feature value of silence: what masking fills in."""
        return 0.0 if self.level_scaling else FLOOR_DB

    @property
    def peak_fall_db(self) -> float:
        """What the running peak loses in a step, in dB."""
        return self.level_range_db * self.hop_ms / (1000 * self.peak_release_s)

    @property
    def lowest_peak_db(self) -> float:
        """The running peak of silence, in dB: digital silence is then just below the range."""
        return FLOOR_DB + self.level_range_db

    @property
    def n_channels(self) -> int:
        return self.n_mels

    @property
    def step_ms(self) -> float:
        return self.hop_ms

    def at(self, step_ms: float) -> "LogMelConfig":
        """The same front end at another time resolution."""
        return replace(self, hop_ms=step_ms)

    def build(self) -> "LogMel":
        return LogMel(self)


class LogMel(nn.Module, WaveformWindow):
    """Waveforms `[B, samples]` with `n_samples [B]` -> features `[B, T, n_mels]` and `lengths [B]` (equations above).

    T = 1 + floor(clip / hop) for every clip; lengths = 1 + floor(min(n_samples, clip) / hop). Causal: without the 1 +,
    but at least one step. Steps past a clip's length are 0. Samples past `n_samples` are ignored, whatever they hold.
    Warns with the number of empty mel bands.
    """

    presets = "gsc_8k for 8 kHz, gsc for 16 kHz"
    window: torch.Tensor
    mel: torch.Tensor

    def __init__(self, config: LogMelConfig) -> None:
        nn.Module.__init__(self)
        WaveformWindow.__init__(self, config)
        if config.hop < 1:
            raise ValueError(
                f"hop_ms {config.hop_ms} is less than a sample at {config.sample_rate_hz} Hz; use a longer hop"
            )
        if config.input_rate_hz not in (config.sample_rate_hz, 2 * config.sample_rate_hz):
            raise ValueError(
                f"got waveforms of {config.input_rate_hz} Hz for an analysis at {config.sample_rate_hz} Hz; "
                "use equal rates or a ratio of 2"
            )
        if not config.win_length <= config.n_fft:
            raise ValueError(f"win_length {config.win_length} exceeds n_fft {config.n_fft}; use a longer FFT")
        if config.causal and config.input_rate_hz != config.sample_rate_hz:
            raise ValueError("features.causal=true has no resampler that streams; use the preset gsc or gsc_8k")
        if not config.peak_release_s >= 1:
            raise ValueError(f"peak_release_s must be at least 1 s, longer than a word; got {config.peak_release_s}")
        self.n_channels, self.step_ms = config.n_channels, config.step_ms
        bank = mel_filterbank(config)
        empty = int((bank.amax(0) == 0).sum())
        if empty:
            warnings.warn(
                f"{empty} of {config.n_mels} mel bands are empty (f_max {config.f_max_hz:g} Hz, n_fft {config.n_fft}, "
                f"{config.sample_rate_hz} Hz): constant inputs; lower f_max_hz to Nyquist or raise n_fft",
                stacklevel=2,
            )
        self.register_buffer("mel", bank, persistent=False)
        self.register_buffer("window", torch.hann_window(config.win_length), persistent=False)

    @torch.no_grad()
    def frames(self, recording: np.ndarray) -> torch.Tensor:
        """One waveform float32 `[samples]` -> its valid steps, float32 `[T, n_mels]`; of a longer one, the window's."""
        features, lengths = self(*pad_waveforms([self.clip(recording)]))
        return features[0, : int(lengths)].clone()  # a view would keep the padding alive

    def forward(self, waveforms: torch.Tensor, n_samples: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """`[B, samples]` and int64 `[B]` -> float32 `[B, T, n_mels]` and int64 `[B]`."""
        config = self.config
        n_samples = n_samples.clamp(max=self.clip_samples)
        waveforms = nn.functional.pad(waveforms, (0, self.clip_samples - waveforms.shape[1]))  # crops when negative
        inside = torch.arange(self.clip_samples, device=waveforms.device) < n_samples[:, None]
        waveforms = torch.where(inside, waveforms, 0.0)
        if config.input_rate_hz != config.sample_rate_hz:
            from torchaudio.functional import resample

            # Windowed sinc, low-pass width 6, roll-off 0.99, Hann: 28 taps, zeros beyond both ends.
            waveforms = resample(waveforms, config.input_rate_hz, config.sample_rate_hz)
            n_samples = (n_samples + 1) // 2
        if config.causal:
            past = history(config.win_length, config.hop)
            level_db = self.level_so_far(nn.functional.pad(waveforms, (past, 0)))
            lengths = (n_samples // config.hop).clamp(min=1)
        else:
            spectrum = torch.stft(
                waveforms, config.n_fft, config.hop, config.win_length, self.window, pad_mode="reflect",
                return_complex=True,
            )  # fmt: skip
            level_db = self._level(spectrum.mT)
            lengths = 1 + n_samples // config.hop
        n_steps = level_db.shape[1]
        lengths = torch.full_like(n_samples, n_steps) if config.whole_clip_valid else lengths
        valid = torch.arange(n_steps, device=lengths.device) < lengths[:, None]
        if config.causal:
            features = self.scale_so_far(level_db.transpose(0, 1), None)[0].transpose(0, 1)
        else:
            features = scale_level(level_db, valid, config.level_range_db) if config.level_scaling else level_db
        return torch.where(valid[..., None], features, 0.0), lengths

    def level_so_far(self, samples: torch.Tensor) -> torch.Tensor:
        """Causal frames: `history` samples and those after them `[..., n]` -> level in dB `[..., T, n_mels]`."""
        config = self.config
        frames = frames_so_far(samples, config.win_length, config.hop)
        if frames.numel() == 0:  # an FFT of nothing is an error
            return frames.new_empty(*frames.shape[:-1], config.n_mels)
        return self._level(torch.fft.rfft(frames * self.window, config.n_fft))

    def scale_so_far(
        self, level_db: torch.Tensor, peak_db: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Level `[T, ..., n_mels]` and the running peak before it -> (features, last peak); both as they are without
        level scaling."""
        config = self.config
        if not config.level_scaling:
            return level_db, peak_db
        peaks_db, last = follow_peak(level_db, peak_db, fall_db=config.peak_fall_db, lowest_db=config.lowest_peak_db)
        return scale_to_peak(level_db, peaks_db, config.level_range_db), last

    def _level(self, spectrum: torch.Tensor) -> torch.Tensor:
        """Spectrum `[..., T, n_fft / 2 + 1]` -> level in dB `[..., T, n_mels]`."""
        power = spectrum.real.square() + spectrum.imag.square()
        return 10 * torch.log10((power @ self.mel).clamp(min=POWER_FLOOR))


def scale_level(level_db: torch.Tensor, valid: torch.Tensor, range_db: float) -> torch.Tensor:
    """Map `range_db` below each clip's peak to [0, 1]: `[B, T, N]` in dB and bool `[B, T]` -> `[B, T, N]`.

    Only valid steps count for the peak. A clip that is digital silence has no peak to stand out from: all 0.
    """
    peak_db = level_db.masked_fill(~valid[..., None], FLOOR_DB).amax(dim=(1, 2), keepdim=True)
    scaled = ((level_db - peak_db) / range_db + 1).clamp(0, 1)
    return torch.where(peak_db > FLOOR_DB, scaled, 0.0)


def mel_filterbank(config: LogMelConfig) -> torch.Tensor:
    """HTK mel triangles of height 1, float32 `[n_fft / 2 + 1, n_mels]`; bands that no FFT bin falls into are all 0.

    Edges are evenly spaced in mel. The values are those of `librosa.filters.mel(htk=True, norm=None)` to 1.5e-5;
    importing that compiles for half a minute on a new machine.
    """
    from torchaudio.functional import melscale_fbanks

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # empty bands are counted by the front end
        bank: torch.Tensor = melscale_fbanks(
            config.n_fft // 2 + 1, config.f_min_hz, config.f_max_hz, config.n_mels, config.sample_rate_hz,
            norm=None, mel_scale="htk",
        )  # fmt: skip
    return bank


def pad_waveforms(waveforms: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack clips of different lengths: float32 `[B, longest]`, zeros behind, and int64 `[B]` lengths in samples."""
    n_samples = torch.tensor([len(waveform) for waveform in waveforms])
    stacked = torch.zeros(len(waveforms), int(n_samples.max()))
    for row, waveform in zip(stacked, waveforms, strict=True):
        row[: len(waveform)] = torch.from_numpy(waveform)
    return stacked, n_samples


def hz_to_mel(frequency_hz: torch.Tensor | float) -> torch.Tensor:
    """HTK mel: 2595 log10(1 + f / 700)."""
    return 2595 * torch.log10(1 + torch.as_tensor(frequency_hz) / 700)


def mel_to_hz(mel: torch.Tensor | float) -> torch.Tensor:
    """Inverse of `hz_to_mel`."""
    return 700 * (10 ** (torch.as_tensor(mel) / 2595) - 1)
