"""A training on MFCC features with augmented waveforms: trains, is evaluated, answers, and is not streamed."""

import json
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

import spikeloom
from spikeloom.pipelines.commands import evaluate, listen, train
from spikeloom.pipelines.config.evaluate import EvaluateConfig
from spikeloom.pipelines.config.listen import ListenConfig
from spikeloom.pipelines.config.register import register
from spikeloom.pipelines.config.train import TrainConfig
from spikeloom.speech.datasets.synthetic import synthesise_keywords
from spikeloom.speech.features.mfcc import MFCCConfig
from spikeloom.speech.waveform_augmentation import WaveformAugmentationConfig

SMALL = (
    "data.n_words=2", "data.n_speakers=3", "data.n_test_speakers=1", "data.n_valid_speakers=1", "data.takes=1",
    "model.width=16", "model.heads=1", "model.mlp_ratio=1", "trainer.epochs=1", "trainer.threads=1",
)  # fmt: skip


def composed(*overrides: str) -> TrainConfig:
    register()
    with initialize_config_module("spikeloom.conf", version_base="1.3"):
        config = OmegaConf.to_object(compose("train", overrides=["name=mfcc", *overrides]))
    assert isinstance(config, TrainConfig)
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mfcc") / "run"
    train.run(composed("features=mfcc", "features.n_mfcc=13", "augmentation=waveform", f"run={folder}", *SMALL))
    return folder


def test_the_presets_are_the_dataclasses_with_their_values() -> None:
    assert composed("features=mfcc", "augmentation=waveform").features == MFCCConfig()
    preset = composed("features=mfcc_8k", "augmentation=waveform")
    assert preset.features == MFCCConfig(input_rate_hz=8000, f_max_hz=4000.0)
    assert preset.augmentation == WaveformAugmentationConfig(
        trim_db=40.0, stretch_waveform=0.1, pitch_semitones=2.0, probability=0.5
    )


def test_a_run_is_evaluated_as_it_was_tested_and_answers(run: Path) -> None:
    result = json.loads((run / "result.json").read_text())
    evaluate.run(EvaluateConfig(run=str(run), out=str(run / "again.json")))
    assert json.loads((run / "again.json").read_text())["accuracy"] == result["test_accuracy"]
    recognise = spikeloom.pipeline(run)
    assert recognise.trained.features == MFCCConfig(n_mfcc=13)
    word = synthesise_keywords(n_words=2, n_speakers=1, takes=1, seed=0).waveforms[0]
    found = recognise(word, sample_rate_hz=16_000)
    assert found.label in recognise.trained.class_names and np.isclose(sum(found.probabilities.values()), 1)
    assert "13 mel-frequency cepstral coefficients" in (run / "report.html").read_text("utf-8")


def test_a_run_on_coefficients_is_not_streamed(run: Path) -> None:
    with pytest.raises(ValueError, match=r"features that do not stream \(got mfcc\); give a run with features=gsc"):
        listen.run(ListenConfig(run=str(run), wav="unused.wav"))


def test_the_masks_of_mel_bands_are_refused_before_a_training_starts(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"augmentation\.frequency_mask_bands=10 .*use .*augmentation=none or waveform"
    ):
        train.run(composed("features=mfcc", f"run={tmp_path}/run", *SMALL))
    assert not (tmp_path / "run" / "model").exists()
