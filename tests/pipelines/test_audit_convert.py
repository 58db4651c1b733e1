"""Released weights become a run, and a run is audited: what the verbs write is what the models do."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipelines import audit, convert
from pipelines.runs import TrainedModel, load_config, load_model, save_config, save_model
from pipelines.schema import AuditConfig, ConvertConfig, TrainConfig
from tests.vision.small import small
from vision.augmentation import ImageAugmentationConfig
from vision.convert import to_released
from vision.frames import PixelsConfig
from vision.models import SpikingTransformerConfig
from vision.purity import designed_exceptions, permitted, warm
from vision.sources import ScannedDigitsConfig
from vision.variants import create_model


@pytest.fixture
def released(tmp_path: Path) -> Path:
    model, _ = small("spikingformer_cifar")
    state = {**to_released(model), "block.0.norm1.weight": torch.ones(32), "block.0.norm1.bias": torch.zeros(32)}
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors"


def test_a_released_checkpoint_becomes_a_run(released: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "converted"
    with pytest.raises(ValueError, match="matches no published variant"):
        convert.run(ConvertConfig(checkpoint=str(released), out=str(out)))
    with pytest.raises(ValueError, match="add heads=N"):
        convert.run(ConvertConfig(checkpoint=str(released), out=str(out), network="spikingformer"))
    assert not out.exists()
    convert.run(ConvertConfig(checkpoint=str(released), out=str(out), network="spikingformer", heads=1))
    assert "2 of layer norms that nothing uses dropped" in capsys.readouterr().out
    trained, (model, x) = load_model(out / "model"), small("spikingformer_cifar")
    assert torch.equal(trained.model(x), model(x))
    assert trained.class_names[0] == "airplane" and trained.features == PixelsConfig()
    assert load_config(out).data.source == "cifar"
    written = json.loads((out / "conversion.json").read_text())
    assert written["dropped"] == ["block.0.norm1.bias", "block.0.norm1.weight"] and written["heads"] == [1]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match="give a new folder"):
        convert.run(
            ConvertConfig(checkpoint=str(released), out=str(tmp_path / "other"), network="spikingformer", heads=1)
        )


@pytest.mark.parametrize(("name", "verdict"), [("ms_qkformer_digits", "spike"), ("qkformer_digits", "not spike")])
def test_a_run_is_audited(name: str, verdict: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create_model(name, widths=(16, 16, 16), heads=(4, 4, 1)).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.bias.uniform_(0.4, 1.0)
            elif isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight)
    warm(model, [torch.randn(8, 1, 16, 16)] * 2)
    features = PixelsConfig(channels=1, size=16, interpolation="nearest", mean=[0.3053], std=[0.3760])
    names = tuple("0123456789")
    save_model(tmp_path / "model", TrainedModel(model=model, features=features, class_names=names), "untrained")
    save_config(
        tmp_path,
        TrainConfig(
            name=name, run=str(tmp_path), data=ScannedDigitsConfig(), features=features,
            augmentation=ImageAugmentationConfig(), model=SpikingTransformerConfig(name=name),
        ),
    )  # fmt: skip
    audit.run(AuditConfig(run=str(tmp_path), batches=1, batch_size=4))
    found = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert found["samples"] == 4 and found["T"] == 4
    assert set(found["exceptions"]) <= designed_exceptions(model)  # an untrained model need not reach all of them
    assert (set(found["exceptions"]) <= permitted(model)) == (verdict == "spike")
    assert (found["verdict"] == "not spike-driven") == (verdict == "not spike")
    assert found["exact"]["energy_pj"] == pytest.approx(0.9 * found["exact"]["ac"] + 4.6 * found["exact"]["mac"])
    page = (tmp_path / "audit" / "audit.html").read_text()
    assert "Where the network fires" in page and "Layer by layer" in page
