"""From training to listening: a causal model is trained on synthetic words and hears a recording made of them."""

import gc
import json
import re
import sys
import tracemalloc
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from spikeloom.pipelines.commands import evaluate, listen
from spikeloom.pipelines.config.evaluate import EvaluateConfig
from spikeloom.pipelines.config.listen import ListenConfig
from spikeloom.pipelines.config.register import register
from spikeloom.pipelines.config.train import TrainConfig, TrainerConfig
from spikeloom.pipelines.training import classification
from spikeloom.pipelines.training.optim import OptimizerConfig
from spikeloom.pipelines.training.run_dir import load_model
from spikeloom.pipelines.training.run_names import find_run
from spikeloom.speech.augmentation import AugmentationConfig
from spikeloom.speech.datasets.background import background
from spikeloom.speech.datasets.synthetic import SyntheticConfig
from spikeloom.speech.features.log_mel import LogMelConfig
from spikeloom.speech.models.recurrent import GRUConfig
from spikeloom.speech.models.spikescr import SpikeSCRConfig
from spikeloom.speech.streaming import SpotterConfig

WORDS = SyntheticConfig(n_words=2, n_speakers=5, takes=6, n_test_speakers=1, n_valid_speakers=1)


def trained(run: Path, *, causal: bool, epochs: int) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classification, "write_report", lambda *given: None)
        classification.train(
            TrainConfig(
                name="listener",
                run=str(run),
                data=WORDS,
                features=LogMelConfig(causal=causal),
                augmentation=AugmentationConfig(frequency_mask_bands=0, time_mask_fraction=0.0),
                model=SpikeSCRConfig(width=32, heads=2, dropout=0.0, causal=causal),
                optimizer=OptimizerConfig(lr=0.01),
                trainer=TrainerConfig(epochs=epochs, batch_size=9, threads=1),
            )
        )
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("runs") / "causal", causal=True, epochs=10)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], list[float]]:
    """A wav of eight words of the training set, their names, and the second at which each begins."""
    clips = WORDS.build().train
    chosen = range(0, len(clips), len(clips) // 8)
    parts, starts, position = [], [], 0
    for i in chosen:
        parts += [np.zeros(9600, np.float32), clips.waveforms[i]]
        starts.append((position + 9600) / 16_000)
        position += 9600 + len(clips.waveforms[i])
    path = tmp_path_factory.mktemp("sound") / "words.wav"
    soundfile.write(path, np.concatenate(parts), 16_000)
    return path, [clips.class_names[clips.labels[i]] for i in chosen], starts


def test_words_are_said_as_they_go_by(run, recording, tmp_path, capsys):
    wav, words, starts = recording
    listen.run(ListenConfig(run=str(run), wav=str(wav), out=str(tmp_path / "heard.json")))
    printed = capsys.readouterr().out
    heard = json.loads((tmp_path / "heard.json").read_text())
    detections = heard["detections"]
    first_of = [[d["keyword"] for d in detections if start < d["time_s"] < start + 1.1][:1] for start in starts]
    assert sum(first == [word] for first, word in zip(first_of, words, strict=True)) >= 6, (detections, words)
    for d in detections:
        assert f"{d['time_s']:8.2f} s  {d['keyword']:12s} {d['confidence']:.2f}" in printed
        assert heard["spotter"]["threshold"] <= d["confidence"] <= 1
    assert heard["seconds"] == pytest.approx(soundfile.info(wav).duration)
    latency = heard["latency_ms"]
    assert (latency["frame"], latency["settle"]) == (pytest.approx(10), pytest.approx(100))
    assert 0 < latency["compute_p50"] <= latency["compute_p95"] <= latency["compute_max"]
    assert heard["frames_awake"] < heard["frames"]
    assert heard["level_difference_db"]["largest_absolute"] >= heard["level_difference_db"]["mean_absolute"] > 0
    assert "real-time factor" in printed


def test_without_a_keyword_the_closest_and_the_remedy_are_printed(run, recording, tmp_path, capsys):
    listen.run(ListenConfig(run=str(run), wav=str(recording[0]), spotter=SpotterConfig(threshold=0.99)))
    assert re.search(r"threshold 0\.99; closest: \w+ at \d+\.\d\d s with 0\.\d\d \(spotter", capsys.readouterr().out)
    soundfile.write(tmp_path / "quiet.wav", np.zeros(16_000), 16_000)
    listen.run(ListenConfig(run=str(run), wav=str(tmp_path / "quiet.wav")))
    assert "nothing stood out of the background" in capsys.readouterr().out


def test_the_microphone_is_heard_like_a_file(run, recording, monkeypatch, capsys):
    wav, _, _ = recording
    samples = soundfile.read(wav, dtype="float32", always_2d=True)[0]

    class InputStream:
        def __init__(self, samplerate, channels, dtype, blocksize):
            assert (samplerate, channels, dtype) == (16_000, 1, "float32")
            self.position = 0

        def __enter__(self):
            return self

        def __exit__(self, *given):
            pass

        def read(self, n):
            self.position += n
            if self.position > 30_000:
                raise KeyboardInterrupt
            return samples[self.position - n : self.position], self.position == n

    device = ModuleType("sounddevice")
    device.InputStream, device.PortAudioError = InputStream, RuntimeError
    monkeypatch.setitem(sys.modules, "sounddevice", device)
    listen.run(ListenConfig(run=str(run)))  # until Ctrl-C
    live = [line for line in capsys.readouterr().out.splitlines() if " s  " in line]
    spotter_input = torch.from_numpy(samples[: 30_000 // 160 * 160, 0])
    model = load_model(run / "model")
    spotter = listen.KeywordSpotter(model.model, model.features, model.class_names)
    heard = listen.listen(spotter, iter(spotter_input.split(160)))
    assert live == [line for line in capsys.readouterr().out.splitlines() if " s  " in line]
    assert live
    assert "level_difference_db" not in heard

    def no_device(**given):
        raise RuntimeError("no default input")

    device.InputStream = no_device
    with pytest.raises(ValueError, match=r"no microphone at 16000 Hz \(no default input\).*add wav=FILE"):
        listen.run(ListenConfig(run=str(run)))


def test_what_cannot_listen_says_why(run, recording, tmp_path, monkeypatch):
    wav = str(recording[0])
    ahead = trained(tmp_path / "ahead", causal=False, epochs=1)
    with pytest.raises(ValueError, match=r"train with model\.causal=true features\.causal=true"):
        listen.run(ListenConfig(run=str(ahead), wav=wav))
    with pytest.raises(ValueError, match=r"nothing\.wav: no such file"):
        listen.run(ListenConfig(run=str(run), wav=str(tmp_path / "nothing.wav")))
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(ValueError, match=r"add wav=FILE, or pip install 'spikeloom\[stream\]'"):
        listen.run(ListenConfig(run=str(run)))


@pytest.mark.parametrize(
    ("name", "rate_hz"), [("spikescr_speech_commands_causal", 16_000), ("spikescr_fsdd_causal", 8000)]
)
def test_causal_experiments_change_what_looks_ahead_and_nothing_else(name, rate_hz):
    register()
    with initialize_config_module("spikeloom.conf", version_base="1.3"):
        causal, ahead = (
            OmegaConf.to_object(compose("train", overrides=[f"experiment={e}", "run=r"]))
            for e in (name, name.removesuffix("_causal"))
        )
    assert causal.features.sample_rate_hz == rate_hz
    assert causal.features.causal and causal.model.causal
    assert not (ahead.features.causal or ahead.model.causal)
    ahead.features.causal = ahead.model.causal = True
    ahead.name = causal.name
    assert causal == ahead


def test_evaluation_tells_what_an_inference_costs(run, tmp_path, capsys):
    evaluate.run(EvaluateConfig(run=str(run), out=str(tmp_path / "scores.json")))
    scores = json.loads((tmp_path / "scores.json").read_text())
    metrics, energy = scores["neurobench"], scores["energy"]
    assert set(metrics) == {
        "Footprint",
        "ParameterCount",
        "ConnectionSparsity",
        "ActivationSparsity",
        "SynapticOperations",
    }
    assert metrics["SynapticOperations"]["Effective_ACs"] < energy["ac"]  # attention has no weights
    assert energy["energy_pj"] == pytest.approx(0.9 * energy["ac"] + 4.6 * energy["mac"])
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("Footprint", "ActivationSparsity", "SynapticOperations", "J a clip"))


def test_a_recording_of_another_format_and_rate_is_heard_in_blocks(run, recording, tmp_path, capsys):
    wav, _, _ = recording
    samples, rate_hz = soundfile.read(wav)
    doubled = np.repeat(samples, 2)  # 32 kHz
    soundfile.write(tmp_path / "words.FLAC", np.stack([doubled, 0 * doubled], 1), 2 * rate_hz)
    listen.run(ListenConfig(run=str(run), wav=str(tmp_path / "words.FLAC"), out=str(tmp_path / "heard.json")))
    heard = json.loads((tmp_path / "heard.json").read_text())
    assert heard["seconds"] == pytest.approx(len(samples) / rate_hz, abs=0.01)
    assert heard["detections"]
    assert heard["level_difference_db"]["largest_absolute"] > 0
    printed = capsys.readouterr().out
    assert "1 of 2 channels silent: left out" in printed
    assert "resampled from 32,000 to 16,000 Hz" in printed


def test_blocks_become_chunks_and_words_are_cut_from_blocks():
    samples = np.arange(1000, dtype=np.float32)
    for size in (1, 7, 64, 1000):
        blocks = [samples[i : i + size] for i in range(0, 1000, size)]
        chunks = list(listen.of_length(iter(blocks), 64))
        assert [len(chunk) for chunk in chunks] == [64] * 15 + [40]
        assert torch.equal(torch.cat(chunks), torch.from_numpy(samples))
        words = list(listen.words_of(iter(blocks), [[0.01, 0.05], [0.05, 0.2], [0.9, 1.2]], 1000))
        assert [(int(w[0]), len(w)) for w in words] == [(10, 40), (50, 150), (900, 100)]


def test_percentiles_of_times_are_within_two_percent_and_take_the_memory_of_one():
    drawn = np.random.default_rng(0).lognormal(0, 1.5, 20_000)
    times = listen.Durations()
    for ms in drawn.tolist():
        times.add(ms)
    for percent in (5, 50, 95):
        assert times.percentile(percent) == pytest.approx(np.percentile(drawn, percent), rel=0.021)
    assert (times.n, times.largest_ms) == (20_000, drawn.max())
    assert times.total_ms == pytest.approx(drawn.sum())
    for ms in (0.0, 1e9):
        times.add(ms)
    assert times.counts.sum() == 20_002


@pytest.mark.slow
def test_hours_of_sound_take_the_memory_of_minutes(run):
    """Twelve minutes of speech and noise: what is allocated after two minutes stays until the end."""
    trained = load_model(run / "model")
    spotter = listen.KeywordSpotter(trained.model, trained.features, trained.class_names)
    held = []

    def watched(hours):
        for number, sound in enumerate(background(hours, 16_000)):
            if number % 12 == 11:
                gc.collect()
                held.append(tracemalloc.get_traced_memory()[0])
            yield sound

    tracemalloc.start()
    session = listen.listen(spotter, listen.of_length(watched(0.2), trained.features.hop))
    tracemalloc.stop()
    assert session["frames"] == pytest.approx(72_000, abs=2)
    assert session["frames_awake"] > 10_000
    assert len(held) == 6
    assert held[-1] - held[0] < 300 * len(session["words_s"]) + 200 * len(session["detections"]) + 100_000


def test_a_microphone_is_chosen_by_name_or_number(monkeypatch):
    asked = []

    def no_device(**given):
        asked.append(given["device"])
        raise ValueError("no input device matching")

    device = ModuleType("sounddevice")
    device.InputStream, device.PortAudioError = no_device, RuntimeError
    monkeypatch.setitem(sys.modules, "sounddevice", device)
    for name in ("USB", "2"):
        with pytest.raises(ValueError, match=rf"no microphone {name} at 16000 Hz .*add wav=FILE"):
            next(listen.microphone(16_000, 160, 1.0, name))
    assert asked == ["USB", 2]


def test_a_model_of_the_installation_finds_the_words_of_this_machine(recording, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SPIKELOOM_DATA", str(tmp_path))
    run = str(find_run("builtin:fsdd"))
    with pytest.raises(ValueError, match=rf"{tmp_path}/fsdd.*give the keyword clips with keywords=FOLDER"):
        listen.run(ListenConfig(run=run, without_keywords="synthetic", hours=0.01))
    listen.run(ListenConfig(run=run, wav=str(recording[0])))
    assert "real-time factor" in capsys.readouterr().out


def test_a_network_that_cannot_stream_says_so():
    model = GRUConfig(hidden=[4]).build(140, 2)
    with pytest.raises(ValueError, match=r"a GRU cannot stream; .*model\.causal=true"):
        listen.KeywordSpotter(model, LogMelConfig(causal=True), ("a", "b"))


def test_false_accepts_and_misses_are_measured_and_drawn(run, recording, tmp_path, capsys):
    page, out = tmp_path / "det.html", tmp_path / "det.json"
    listen.run(ListenConfig(run=str(run), without_keywords="synthetic", hours=0.002, out=str(out), page=str(page)))
    printed, found = capsys.readouterr().out, json.loads(out.read_text())
    assert found["keywords"] == len(WORDS.build().test)
    assert found["hours"] == pytest.approx(0.002)
    assert found["false_accepts"] == sorted(found["false_accepts"], reverse=True)
    assert found["misses"][-1] >= found["misses"][3]
    assert found["false_accepts_per_hour"][0] == pytest.approx(found["false_accepts"][0] / 0.002)
    assert "7.2 s without keywords" in printed
    assert "Detection-error tradeoff" in page.read_text()
    folder = tmp_path / "sounds"
    folder.mkdir()
    for name in ("a.wav", "b.wav"):
        soundfile.write(folder / name, np.zeros(48_000), 16_000)
    listen.run(ListenConfig(run=str(run), without_keywords=str(folder), out=str(out)))
    silent = json.loads(out.read_text())
    assert "less than one in all of this sound" in capsys.readouterr().out
    assert silent["hours"] == pytest.approx(6 / 3600)
    assert silent["misses"] == found["misses"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no sound file in this folder"):
        listen.run(ListenConfig(run=str(run), without_keywords=str(tmp_path / "empty")))
    with pytest.raises(ValueError, match="remove wav="):
        listen.run(ListenConfig(run=str(run), without_keywords="synthetic", wav="x.wav"))
