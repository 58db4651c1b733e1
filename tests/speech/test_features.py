"""Log-mel features: parity with the published front end, and each clip's features are its own business."""

import dataclasses
import warnings

import numpy as np
import pytest
import torch
import torchaudio

from spikeloom.speech.features.log_mel import LogMelConfig, hz_to_mel, mel_filterbank, mel_to_hz
from tests.golden import golden_files

PRESETS = {"gsc": LogMelConfig.gsc(), "gsc_8k": LogMelConfig.gsc_8k(), "gsc_paper": LogMelConfig.gsc_paper()}
pytestmark = pytest.mark.filterwarnings("ignore:.*mel bands are empty")


def clips(rate_hz: int, seconds: list[float]) -> tuple[torch.Tensor, torch.Tensor]:
    n_samples = torch.tensor([round(rate_hz * s) for s in seconds])
    waveforms = 0.1 * torch.randn(len(seconds), int(n_samples.max()), generator=torch.Generator().manual_seed(0))
    for row, n in zip(waveforms, n_samples, strict=True):
        row[n:] = 0
    return waveforms, n_samples


@pytest.mark.golden
def test_the_published_front_end_is_reproduced() -> None:
    for golden in golden_files("*frontend*"):
        for case in golden.json("cases"):
            paper = dataclasses.replace(
                LogMelConfig.gsc_paper(hop_ms=case["hop"] / 8),
                n_fft=case["n_fft"],
                win_length=case["n_fft"],
                n_mels=case["n_mels"],
            )
            waveform = golden.tensors[f"{case['key']}/waveform"]
            with pytest.warns(UserWarning, match=str(case["empty_mel"])):
                log_mel = paper.build()
            features, lengths = log_mel(waveform, torch.tensor([waveform.shape[1]]))
            want = golden.tensors[f"{case['key']}/mel_db"]
            assert features[0].shape == want.shape
            assert lengths.tolist() == [len(want)]
            assert float((features[0] - want).abs().max()) <= 5e-3


@pytest.mark.parametrize(("preset", "weakest_peak"), [("gsc", 0.481), ("gsc_8k", 0.269)])
def test_our_presets_have_no_empty_band(preset: str, weakest_peak: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        log_mel = PRESETS[preset].build()
    assert float(log_mel.mel.amax(0).min()) == pytest.approx(weakest_peak, abs=1e-3)


def test_the_paper_preset_warns_with_the_number_of_empty_bands() -> None:
    with pytest.warns(UserWarning, match="53 of 140 mel bands are empty"):
        LogMelConfig.gsc_paper().build()


@pytest.mark.parametrize("preset", PRESETS)
def test_a_clip_depends_on_neither_neighbours_nor_padding(preset: str) -> None:
    config = dataclasses.replace(PRESETS[preset], window="start")
    log_mel = config.build()
    waveforms, n_samples = clips(config.input_rate_hz, [0.31, 1.0, 0.77, 1.4])
    together, lengths = log_mel(waveforms, n_samples)
    garbage = torch.where(torch.arange(waveforms.shape[1]) < n_samples[:, None], waveforms, 99.0)
    torch.testing.assert_close(log_mel(garbage, n_samples)[0], together)
    for i, n in enumerate(n_samples.tolist()):
        alone, length = log_mel(waveforms[i : i + 1, :n], n_samples[i : i + 1])
        torch.testing.assert_close(alone[0], together[i], atol=2e-4, rtol=0)
        assert int(length) == int(lengths[i])
        assert torch.equal(log_mel.frames(waveforms[i, :n].numpy()), alone[0, : int(length)])


@pytest.mark.parametrize("hop_ms", [1.0, 2.5, 4.0, 5.0, 10.0, 25.0])
def test_the_hop_sets_steps_and_valid_lengths(hop_ms: float) -> None:
    log_mel = LogMelConfig.gsc_8k(hop_ms).build()
    hop = round(8 * hop_ms)
    assert log_mel.config.hop == hop
    waveforms, n_samples = clips(8000, [0.3141, 1.0, 1.2])
    features, lengths = log_mel(waveforms, n_samples)
    assert features.shape == (3, 1 + 8000 // hop, 140)
    assert lengths.tolist() == [1 + int(n_samples[0]) // hop, 1 + 8000 // hop, 1 + 8000 // hop]
    assert not features[0, int(lengths[0]) :].any()
    assert features[0, : int(lengths[0])].any()


def test_level_scaling_spans_sixty_decibels_below_the_peak() -> None:
    waveforms, n_samples = clips(8000, [0.5])
    waveforms[0, :2000] *= 1e-4  # 80 dB down: below the range
    scaled, lengths = LogMelConfig.gsc_8k().build()(waveforms, n_samples)
    level_db, _ = dataclasses.replace(LogMelConfig.gsc_8k(), level_scaling=False).build()(waveforms, n_samples)
    level_db = level_db[0, : int(lengths)]
    torch.testing.assert_close(scaled[0, : int(lengths)], ((level_db - level_db.max() + 60) / 60).clamp(0, 1))
    assert float(scaled.max()) == 1
    assert not scaled[0, :10].any()


def test_level_scaling_ignores_the_recording_level() -> None:
    log_mel = LogMelConfig.gsc().build()
    waveforms, n_samples = clips(16_000, [0.6, 1.0])
    quiet, _ = log_mel(0.1 * waveforms, n_samples)
    torch.testing.assert_close(quiet, log_mel(waveforms, n_samples)[0], atol=1e-4, rtol=0)


def test_silence_is_zero() -> None:
    features, lengths = LogMelConfig.gsc_8k().build()(torch.zeros(1, 4000), torch.tensor([4000]))
    assert not features.any()
    assert lengths.tolist() == [51]


def test_a_tone_peaks_in_its_band() -> None:
    config = LogMelConfig.gsc()
    tone = torch.sin(2 * torch.pi * 1000 * torch.arange(16_000) / 16_000)[None]
    features, _ = config.build()(tone, torch.tensor([16_000]))
    low, high = hz_to_mel(config.f_min_hz), hz_to_mel(config.f_max_hz)
    band = (hz_to_mel(1000.0) - low) / (high - low) * (config.n_mels + 1) - 1
    assert abs(int(features[0, 50].argmax()) - float(band)) <= 1
    assert float(hz_to_mel(1000.0)) == pytest.approx(1000, abs=0.05)
    assert float(mel_to_hz(hz_to_mel(3210.0))) == pytest.approx(3210, rel=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"hop_ms": 0.01}, "hop_ms"), ({"input_rate_hz": 44_100}, "44100 Hz"), ({"win_length": 2048}, "win_length")],
)
def test_settings_that_cannot_work_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(LogMelConfig(), **change).build()  # type: ignore[arg-type]


@pytest.mark.parametrize(("rate_hz", "n_fft", "n_mels", "f_min_hz"), [(16000, 1024, 140, 50.0), (8000, 200, 40, 0.0)])
def test_mel_filters_are_triangles_of_height_one_between_edges_even_in_mel(
    rate_hz: int, n_fft: int, n_mels: int, f_min_hz: float
) -> None:
    config = LogMelConfig(sample_rate_hz=rate_hz, n_fft=n_fft, n_mels=n_mels, f_min_hz=f_min_hz, f_max_hz=rate_hz / 2)
    low, high = hz_to_mel(torch.tensor([f_min_hz, rate_hz / 2], dtype=torch.float64)).tolist()
    edges_hz = mel_to_hz(torch.linspace(low, high, n_mels + 2, dtype=torch.float64)).numpy()
    bins_hz = np.fft.rfftfreq(n_fft, 1 / rate_hz)
    left, centre, right = edges_hz[:-2, None], edges_hz[1:-1, None], edges_hz[2:, None]
    expected = np.minimum((bins_hz - left) / (centre - left), (right - bins_hz) / (right - centre)).clip(min=0)
    np.testing.assert_allclose(mel_filterbank(config).numpy().T, expected, atol=1.5e-5)


def test_halving_the_rate_is_the_published_windowed_sinc() -> None:
    x = torch.randn(2, 1001, generator=torch.Generator().manual_seed(0))
    u = (0.99 * torch.arange(-13, 15, dtype=torch.float64) / 2).clamp(-6, 6)
    kernel = (0.495 * torch.sinc(u) * torch.cos(torch.pi * u / 12).square()).float()
    padded = torch.nn.functional.pad(x, (13, 15))
    expected = torch.nn.functional.conv1d(padded[:, None], kernel[None, None], stride=2)[:, 0, :501]
    torch.testing.assert_close(torchaudio.functional.resample(x, 16_000, 8000), expected, atol=1e-6, rtol=0)
