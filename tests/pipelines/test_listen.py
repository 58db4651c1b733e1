"""From training to listening: a causal model is trained on synthetic words and hears a recording made of them."""

import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
import torch
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from pipelines import evaluate, listen, train
from pipelines.optimisation import OptimizerConfig
from pipelines.runs import load_model
from pipelines.schema import EvaluateConfig, ListenConfig, TrainConfig, TrainerConfig, register
from speech.augmentation import AugmentationConfig
from speech.features import LogMelConfig
from speech.spikescr import SpikeSCRConfig
from speech.synthetic import SyntheticConfig

WORDS = SyntheticConfig(n_words=2, n_speakers=5, takes=6, n_test_speakers=1, n_valid_speakers=1)


def trained(run: Path, *, causal: bool, epochs: int) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "tell", lambda *given: None)
        train.train(
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
    assert heard["heard_s"] == pytest.approx(soundfile.info(wav).duration)
    latency = heard["latency_ms"]
    assert (latency["frame"], latency["settle"]) == (pytest.approx(10), pytest.approx(100))
    assert 0 < latency["compute_p50"] <= latency["compute_p95"] <= latency["compute_max"]
    assert heard["frames_awake"] < heard["frames"]
    assert heard["level_difference_db"]["largest_absolute"] >= heard["level_difference_db"]["mean_absolute"] > 0
    assert "real-time factor" in printed


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
    with initialize_config_module("conf", version_base="1.3"):
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
    assert all(name in printed for name in ("Footprint", "ActivationSparsity", "SynapticOperations", "mJ a clip"))
