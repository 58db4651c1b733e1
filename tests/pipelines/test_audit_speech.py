"""A run on spoken words is audited like one on pictures."""

import json
from pathlib import Path

import pytest
import torch

from pipelines import audit
from pipelines.runs import TrainedModel, save_config, save_model
from pipelines.schema import AuditConfig, TrainConfig
from speech.features import LogMelConfig
from speech.spikescr import SpikeSCRConfig
from speech.synthetic import SyntheticConfig

TINY = SyntheticConfig(n_words=3, n_speakers=6, takes=2, n_test_speakers=2, n_valid_speakers=2)


def test_a_run_on_words_is_audited(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    features, settings = LogMelConfig(), SpikeSCRConfig(width=16, heads=1)
    model = settings.build(features.n_mels, 3).eval()
    save_model(
        tmp_path / "model", TrainedModel(model=model, features=features, class_names=("a", "b", "c")), "untrained"
    )
    save_config(tmp_path, TrainConfig(name="words", run=str(tmp_path), data=TINY, features=features, model=settings))
    audit.run(AuditConfig(run=str(tmp_path), batches=1, batch_size=2))
    found = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert found["data"] == "2 validation clips"
    assert {layer["path"] for layer in found["layers"] if not layer["binary"]} == set(found["exceptions"])
    assert found["verdict"] in capsys.readouterr().out
    assert "What a clip costs" in (tmp_path / "audit" / "audit.html").read_text()
    silent = [layer["path"] for layer in found["layers"] if layer["rate"] == 0]
    assert silent == found["silent"] and found["verdict"] == ("void" if silent else "spike-driven")  # a network at rest
