"""A run on spoken words is audited like one on pictures."""

import json
from pathlib import Path

import pytest
import torch

from spikeloom.pipelines.commands import audit
from spikeloom.pipelines.config.audit import AuditConfig
from spikeloom.pipelines.config.train import TrainConfig
from spikeloom.pipelines.training.run_dir import TrainedModel, save_config, save_model
from spikeloom.speech.datasets.synthetic import SyntheticConfig
from spikeloom.speech.features.log_mel import LogMelConfig
from spikeloom.speech.models.spikescr import SpikeSCR, SpikeSCRConfig

TINY = SyntheticConfig(n_words=3, n_speakers=6, takes=2, n_test_speakers=2, n_valid_speakers=2)


def saved(run: Path, *, awake: bool) -> SpikeSCR:
    """A run nobody trained. At rest few of its neurons reach their threshold, awake all populations do."""
    torch.manual_seed(0)
    features, settings = LogMelConfig(), SpikeSCRConfig(width=16, heads=1, depth=2 if awake else 1)
    model = settings.build(features.n_mels, 3).eval()
    for norm in (m for m in model.modules() if awake and isinstance(m, torch.nn.BatchNorm1d)):
        torch.nn.init.uniform_(norm.bias, 0.4, 1.0)
    save_model(run / "model", TrainedModel(model=model, features=features, class_names=("a", "b", "c")), "untrained")
    save_config(run, TrainConfig(name="words", run=str(run), data=TINY, features=features, model=settings))
    return model


def test_a_run_on_words_is_audited(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(tmp_path, awake=True)
    audit.run(AuditConfig(run=str(tmp_path), batches=1, batch_size=2))
    assert capsys.readouterr().out.startswith(
        "Not spike-driven: beyond the first layer and the classifier, 7 of 20 layers "
    )
    found = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert (found["verdict"], found["samples"], found["data"]) == ("not spike-driven", 2, "2 validation clips")
    assert [layer["path"] for layer in found["layers"] if layer["kind"] == "layer" and not layer["binary"]] == found[
        "exceptions"
    ]
    assert found["energy_pj"] == pytest.approx(0.9 * found["ac"] + 4.6 * found["mac"])
    page = (tmp_path / "audit" / "audit.html").read_text()
    assert "Layer by layer" in page and "What a clip costs" in page
    with pytest.raises(ValueError, match="count_encoder_once=true is for pictures"):
        audit.run(AuditConfig(run=str(tmp_path), count_encoder_once=True))
    with pytest.raises(ValueError, match="got batches=0 of batch_size=16; use at least 1"):
        audit.run(AuditConfig(run=str(tmp_path), batches=0))
    with pytest.raises(ValueError, match=r"nowhere.* is missing"):
        audit.run(AuditConfig(run=str(tmp_path / "nowhere")))


def test_a_network_at_rest_is_inconclusive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(tmp_path, awake=False)
    audit.run(AuditConfig(run=str(tmp_path), batches=1, batch_size=2))
    found = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert found["verdict"] == "inconclusive" and "Inconclusive: " in capsys.readouterr().out
    assert (
        set(found["silent"]) <= {layer["path"] for layer in found["layers"] if layer["rate"] == 0} and found["silent"]
    )
