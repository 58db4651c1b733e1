"""Pre-training with a sentence encoder as text target, from the command's configuration to retrieval."""

import dataclasses
import json
from pathlib import Path

import pytest

from spikeloom.pipelines.commands.pretrain import run as pretrain
from spikeloom.pipelines.eeg import report as pages
from spikeloom.pipelines.eeg.train import encode, read
from spikeloom.pipelines.training.run_dir import load_config, load_model
from tests.bci.test_text_target import bert_folder
from tests.pipelines.test_trials import composed


def test_a_pretraining_towards_a_sentence_encoder_is_measured_by_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "summary_of", lambda config: None)
    monkeypatch.setattr(pages, "tell_pretraining", lambda *given: None)
    folder, run = bert_folder(tmp_path / "encoder"), tmp_path / "run"
    config = composed("pretrain", f"run={run}", f"model.sizes.text_target={folder}", "trainer.epochs=1")
    assert (
        encode(config, config.features.text.build(["a b"]), read(config, ("train", "valid"))["valid"]).target
        is not None
    )
    pretrain(dataclasses.replace(config))
    result = json.loads((run / "result.json").read_text())
    assert 0 <= result["retrieval"]["gallery"]["top"]["1"] <= 1
    assert load_config(run).model.sizes.text_target == str(folder)
    assert load_model(run / "model").model.target.in_features == 16
