"""A stranger's folder of words: trained on, scored, counted and exported by the verbs, with any network."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from spikeloom.pipelines.commands import evaluate, export, train
from spikeloom.pipelines.config.evaluate import EvaluateConfig, OtherFolder
from spikeloom.pipelines.config.export import ExportConfig
from spikeloom.pipelines.config.register import register
from spikeloom.pipelines.config.train import TrainConfig
from spikeloom.pipelines.training import classification

WORDS = {"oui": 440.0, "nein": 1200.0, "はい": 3000.0}
TINY = {
    "cnn": ["model.channels=[16,16]", "model.strides=[2,2]", "model.dilations=[1,1]"],
    "spiking_tcn": ["model.channels=[16,16]", "model.strides=[1,2]", "model.dilations=[1,1]"],
    "gru": ["model.hidden=[16]"],
    "recurrent_lif": ["model.hidden=[16]"],
    "spikcommander_1l_8_128": ["model.width=32", "model.heads=2"],
}

FAST = ("spiking_tcn", "gru")  # one network of each kind; the others take as long again


def write_words(folder: Path, speakers: range, rate_hz: int = 22_050) -> None:
    """A tone a word in FLAC, two takes a speaker; every third one 1.5 s long, beginning late, in stereo."""
    rng = np.random.default_rng(0)
    for word, hz in WORDS.items():
        (folder / word).mkdir(parents=True, exist_ok=True)
        for speaker in speakers:
            for take in range(2):
                late = speaker % 3 == 0
                at = np.arange(round((1.5 if late else 0.6) * rate_hz)) / rate_hz
                sound = 0.3 * np.sin(2 * np.pi * hz * (1 + 0.02 * speaker / 10) * at) * (at > (1.0 if late else 0.1))
                sound += 0.001 * rng.standard_normal(len(at))
                stereo = np.stack([sound, 0 * sound], 1) if late else sound
                soundfile.write(folder / word / f"s{speaker}_{take}.flac", stereo, rate_hz)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("words")
    write_words(root, range(10))
    return root


def composed(*overrides: str) -> TrainConfig:
    register()
    with initialize_config_module("spikeloom.conf", version_base="1.3"):
        config = OmegaConf.to_object(compose("train", ["name=words", *overrides]))
    assert isinstance(config, TrainConfig)
    return config


@pytest.mark.parametrize(
    "model", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in TINY]
)
def test_a_folder_of_flac_files_in_three_languages_trains_and_is_scored(
    folder: Path, tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(classification, "write_report", lambda *given: None)
    run = tmp_path / "run"
    train.run(
        composed(
            "data=words", f"data.root={folder}", "data.pattern='(?P<speaker>s\\d+)_\\d$'", f"run={run}",
            f"model={model}", "features.hop_ms=25",
            "trainer.epochs=2", "trainer.threads=1", "trainer.batch_size=12", "optimizer.lr=0.01",
            *TINY[model],
        )
    )  # fmt: skip
    result = json.loads((run / "result.json").read_text("utf-8"))
    assert set(result["test_speakers"]).isdisjoint(result["train_speakers"])
    capsys.readouterr()
    write_words(tmp_path / "others", range(20, 23), rate_hz=44_100)
    evaluate.run(EvaluateConfig(run=str(run), split="all", data=OtherFolder(root=str(tmp_path / "others"))))
    scores = json.loads((run / "evaluation.json").read_text("utf-8"))
    assert scores["clips"] == 18
    assert scores["class_names"] == sorted(WORDS)
    assert scores["energy"]["energy_pj"] > 0
    printed = capsys.readouterr().out
    for change in ("resampled from 44,100 to 16,000 Hz", "1 of 2 channels silent", "longer than 1 s: the loudest part"):
        assert change in printed
    export.run(ExportConfig(run=str(run), batches=1, batch_size=4, strict=False))
    assert json.loads((run / "export" / "workload.json").read_text("utf-8"))["layers"]
