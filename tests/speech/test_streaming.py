"""Listening without an end: frames that know no future, a level that the past has set, words found one by one."""

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from spikeloom.speech.datasets.audio import read_audio
from spikeloom.speech.features.causal_mel import follow_peak
from spikeloom.speech.features.log_mel import LogMelConfig
from spikeloom.speech.models.spikescr import SpikeSCR, SpikeSCRConfig
from spikeloom.speech.streaming import (
    CausalLogMel,
    Detection,
    KeywordSpotter,
    SpotterConfig,
    SpotterState,
    level_difference_db,
    power_db,
)
from tests.conftest import data_folder
from tests.speech.test_spikescr import _one_thread, build, frames, streamed  # noqa: F401, the fixture acts here, too

GSC = dataclasses.replace(LogMelConfig.gsc(), causal=True)
GSC_8K = dataclasses.replace(LogMelConfig.gsc_8k(), causal=True)
WORDS = ("no", "yes", "_unknown_")


def noise(seconds: float, rate_hz: int = 16_000, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(round(seconds * rate_hz), generator=torch.Generator().manual_seed(seed))


class Scripted(SpikeSCR):
    """Answers with the classes of a script, one a frame, from its beginning at every start; notes what it was given."""

    def __init__(self, script: tuple[int, ...] = (0,), n_classes: int = 3) -> None:
        super().__init__(n_inputs=140, n_classes=n_classes, width=16, heads=1, causal=True)
        self.script = script
        self.heard: list[list[Tensor]] = []  # frames of every start

    def stream(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        if state is None:
            self.heard.append([])
        self.heard[-1] += list(x[:, 0])
        so_far = 0 if state is None else state
        answers = torch.tensor([self.script[min(so_far + t, len(self.script) - 1)] for t in range(len(x))])
        logits = 50 * torch.nn.functional.one_hot(answers.clamp(min=0), self.n_classes) * (answers >= 0)[:, None]
        return logits[:, None].float(), so_far + len(x)


def hear(spotter: KeywordSpotter, waveform: Tensor, chunk: int) -> tuple[list[Detection], SpotterState]:
    state, found = spotter.init_state(), []
    for samples in waveform.split(chunk):
        detections, state = spotter.step(samples, state)
        found += detections
    return found, state


@pytest.mark.parametrize(
    ("n_frames", "chunk", "window"),
    [
        (100, 1, None),
        (1000, 7, None),
        (1000, 1000, None),
        (100, 1, 16),
        pytest.param(1000, 7, 16, marks=pytest.mark.slow),
    ],
)
def test_a_thousand_frames_streamed_are_those_at_once(n_frames, chunk, window):
    model, x = build(causal=True, attn_window=window), frames(n_frames, 1)
    with torch.no_grad():
        offline = model(x)
    assert (streamed(model, x, chunk) - offline).abs().max() <= 1e-9


@pytest.mark.parametrize("chunk", [111, 160, 16_000])
@pytest.mark.parametrize(
    "config", [GSC, GSC_8K, GSC.at(25.0), GSC.at(50.0)], ids=["16k", "8k", "25 ms", "hop > window"]
)
def test_features_streamed_are_those_the_model_was_trained_on(config, chunk):
    waveform = noise(1.0, config.input_rate_hz) * torch.linspace(0, 1, config.input_rate_hz).cos()
    waveform[3000:5000] = 0
    front_end = CausalLogMel(config)
    state, parts = front_end.init_state(), []
    for samples in waveform.split(chunk):
        features, state = front_end.step(samples, state)
        parts.append(features)
    offline, lengths = config.build()(waveform[None], torch.tensor([len(waveform)]))
    assert int(lengths) == len(torch.cat(parts)) == config.input_rate_hz // config.hop
    assert (torch.cat(parts) - offline[0]).abs().max() <= 1e-6


def test_a_frame_covers_its_window_up_to_now_and_nothing_later():
    front_end = CausalLogMel(GSC)
    for at in (0, 700, 8000):
        click = torch.zeros(16_000)
        click[at] = 1.0
        level_db, _ = front_end.level(click, front_end.init_state())
        touched = (power_db(level_db) > -70).nonzero().flatten().tolist()
        covering = [t for t in range(100) if (t + 1) * 160 - 512 < at < (t + 1) * 160]  # Hann is 0 at its first sample
        assert touched == covering


def test_short_clips_have_a_step_and_padding_none():
    features, lengths = GSC.build()(
        torch.cat((noise(0.5), 9 * noise(0.5)))[None].expand(2, -1), torch.tensor([8000, 90])
    )
    assert lengths.tolist() == [50, 1]
    assert not features[0, 50:].any()
    alone, _ = GSC.build()(noise(0.5)[None], torch.tensor([8000]))
    assert torch.equal(alone[0, :50], features[0, :50])


def test_the_peak_rises_at_once_and_falls_slowly():
    level_db = torch.tensor([[-50.0, -60], [-20, -30], [-90, -25], [-90, -80], [-10, -90]])
    peaks, last = follow_peak(level_db, None, fall_db=2.0, lowest_db=-40.0)
    assert peaks.tolist() == [-40, -20, -22, -24, -10]
    assert float(last) == -10
    rest, last = follow_peak(torch.full((40, 2), -100.0), last, fall_db=2.0, lowest_db=-40.0)
    assert rest[:3].tolist() == [-12, -14, -16]
    assert float(last) == -40
    assert GSC.peak_fall_db == 60 * 0.01 / 10
    assert GSC.at(25.0).peak_fall_db == pytest.approx(60 * 0.025 / 10)


def test_silence_stays_silence_however_long_after_a_sound():
    config = dataclasses.replace(GSC, peak_release_s=1.0)
    front_end = CausalLogMel(config)
    _, state = front_end.step(noise(0.3), front_end.init_state())
    features, _ = front_end.step(torch.zeros(3 * 16_000), state)
    assert not features[4:].any()


def test_the_level_difference_is_what_the_features_differ_by():
    waveform = torch.cat((0.01 * noise(0.4), noise(0.6, seed=1)))  # 20 dB louder from 0.4 s on
    difference = level_difference_db(GSC, waveform)
    raw, _ = dataclasses.replace(GSC, level_scaling=False).build()(waveform[None], torch.tensor([16_000]))
    offline = ((raw[0] - raw.max()) / 60 + 1).clamp(0, 1)
    causal = GSC.build()(waveform[None], torch.tensor([16_000]))[0][0]
    inside = (offline > 0) & (causal < 1)
    torch.testing.assert_close((offline - causal)[inside], (difference[:, None] / 60).expand(-1, 140)[inside])
    assert difference[:38].mean() == pytest.approx(-40, abs=3)  # peaks of noise vary by a few dB
    assert int((difference == 0).sum()) == 1  # the loudest frame


def test_smoothing_settling_and_refractory_by_hand():
    """Windows of 4, settling 2, deaf 5 frames; the gate opens at frame 3 and hands on the 3 frames it waited for.

    Always "yes": score 0.75 at frame 3, 1 at frame 4, unbeaten at frames 5 and 6: heard. Deaf at 7 .. 11. Then the
    score climbs anew, 1/4 at frame 12, 1 at frame 15, and is settled at 17.
    """
    config = SpotterConfig(threshold=0.6, smoothing_ms=40, settle_ms=20, refractory_ms=50, preroll_ms=0)
    spotter = KeywordSpotter(Scripted((1,)), GSC, WORDS, config)
    found, _ = hear(spotter, noise(0.2), 160)
    assert [(d.keyword, round(d.time_s, 6), d.confidence) for d in found] == [("yes", 0.06, 1.0), ("yes", 0.17, 1.0)]
    # Of 4 frames 2 say "no" first: the score of "yes" has to stand above it, and 0.5 is below the threshold.
    spotter = KeywordSpotter(Scripted((0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1) * 2), GSC, WORDS, config)
    assert hear(spotter, noise(0.2), 160)[0] == []


def test_a_class_that_is_no_keyword_is_not_reported_and_deafens_nobody():
    config = SpotterConfig(threshold=0.6, smoothing_ms=40, settle_ms=20, refractory_ms=500, preroll_ms=0)
    spotter = KeywordSpotter(Scripted((2,) * 12 + (0,)), GSC, WORDS, config)
    (found,), _ = hear(spotter, noise(0.3), 160)
    assert found.keyword == "no"
    assert found.time_s == pytest.approx(0.18)  # 12 frames unknown, 4 until its score is 1, 2 to settle


def test_the_last_word_needs_no_silence_behind_it():
    spotter = KeywordSpotter(Scripted((1,)), GSC, WORDS, SpotterConfig(settle_ms=200))
    found, state = hear(spotter, noise(0.35), 160)
    assert found == []
    assert [d.keyword for d in spotter.finish(state)] == ["yes"]
    assert spotter.finish(spotter.init_state()) == []


def test_the_model_starts_anew_at_every_onset():
    """A steady hum becomes the background; what stands out is heard as a clip that begins there, level and all."""
    hum, model = 0.001 * noise(4.0, seed=2), Scripted((-1,))
    waveform = torch.cat((hum[:32_000], noise(0.4), hum[32_000:40_000], 0.3 * noise(0.4, seed=1), hum[40_000:]))
    spotter = KeywordSpotter(model, GSC, WORDS)
    state, starts = spotter.init_state(), []
    for samples in waveform.split(160):
        asleep = state.word is None
        _, state = spotter.step(samples, state)
        if asleep and state.word is not None:
            starts.append(state.frames - state.word.steps)
    level_db, _ = spotter.front_end.level(waveform, spotter.front_end.init_state())
    assert starts[-2:] == [pytest.approx(200 - 5, abs=3), pytest.approx(290 - 5, abs=3)]
    for start, word in zip(starts[-2:], model.heard[-2:], strict=True):
        assert len(word) == pytest.approx(5 + 40 + 25, abs=6)  # before the word, the word, the quiet that ends it
        expected, _ = spotter.front_end.log_mel.scale_so_far(level_db[start : start + len(word)], None)
        torch.testing.assert_close(torch.stack(word), expected, rtol=0, atol=1e-6)


def test_a_sound_without_end_is_cut_like_a_clip_until_it_is_the_background():
    model = Scripted((-1,))
    hear(KeywordSpotter(model, GSC, WORDS), noise(3.0), 160)
    assert [len(word) for word in model.heard] == [100, 50 + 25]  # 1.5 s until it is background, 0.25 s of quiet


def test_chunks_do_not_change_what_is_heard():
    torch.manual_seed(0)
    model = SpikeSCRConfig(width=16, heads=1, causal=True).build(140, 3)
    waveform = torch.cat([part for i in range(4) for part in (noise(0.5, seed=i), torch.zeros(6000))])
    spotter = KeywordSpotter(model, GSC, ("a", "b", "c"), SpotterConfig(threshold=0.2))
    expected, _ = hear(spotter, waveform, 160)
    assert len(expected) >= 4
    for chunk in (63, 5000, 10**6):
        found, state = hear(spotter, waveform, chunk)
        assert [(d.keyword, d.time_s) for d in found] == [(d.keyword, d.time_s) for d in expected]
        assert [d.confidence for d in found] == pytest.approx([d.confidence for d in expected], abs=1e-4)
        assert len(state.front_end.samples) < 512 + 160
        assert len(state.power_db) == 150
        assert len(state.recent) <= 8
        assert len(state.decision.posteriors) <= 40


@pytest.mark.parametrize(("folder", "config"), [("fsdd/recordings", GSC_8K), ("speech_commands", GSC)])
def test_recorded_words_one_after_another_are_found_one_by_one(folder, config):
    """The model is told which word sounds now or did last; onsets, scores and times are the spotter's own."""
    paths = [p for p in sorted(data_folder(folder).rglob("*.wav")) if "_silence_" not in str(p)]
    chosen = paths[:: max(1, len(paths) // 12)][:12]
    names = tuple(p.stem for p in chosen)
    model = Scripted(n_classes=len(names))
    spotter = KeywordSpotter(model, config, names, SpotterConfig(refractory_ms=800))
    state, found, position, ends_s = spotter.init_state(), [], 0, []
    gap = torch.zeros(round(1.2 * config.input_rate_hz))  # deafness ends before the next word
    for i, path in enumerate(chosen):
        clip = torch.from_numpy(read_audio(path, config.input_rate_hz))[: config.input_rate_hz]
        found_in_gap, state = spotter.step(gap, state)
        model.script = (i,)
        found_in_clip, state = spotter.step(clip, state)
        found += found_in_gap + found_in_clip
        position += len(gap) + len(clip)
        ends_s.append(position / config.input_rate_hz)
    found += spotter.finish(state)
    assert [d.keyword for d in found] == list(names)
    for detection, end_s in zip(found, ends_s, strict=True):
        assert end_s - 1 < detection.time_s <= end_s + 0.4
        assert detection.confidence >= 0.4


def test_whatever_looks_ahead_is_refused_with_both_keys():
    ahead = SpikeSCRConfig(width=16, heads=1).build(140, 3)
    for model, features in ((ahead, GSC), (Scripted(), LogMelConfig.gsc()), (ahead, LogMelConfig.gsc())):
        with pytest.raises(ValueError, match=r"train with model\.causal=true features\.causal=true"):
            KeywordSpotter(model, features, WORDS)
    with pytest.raises(ValueError, match=r"train with features\.causal=true"):
        CausalLogMel(LogMelConfig.gsc())


@pytest.mark.filterwarnings("ignore:.*mel bands are empty")
def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match="no resampler that streams"):
        dataclasses.replace(LogMelConfig.gsc_paper(), causal=True).build()
    with pytest.raises(ValueError, match="peak_release_s must be at least 1 s"):
        dataclasses.replace(GSC, peak_release_s=0.5).build()
    for name, value in {"threshold": 1.0, "smoothing_ms": 0, "refractory_ms": -1, "background_s": 0}.items():
        with pytest.raises(ValueError, match=name):
            SpotterConfig(**{name: value})
