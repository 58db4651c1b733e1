"""A training starts from trained weights, says what it did not take, and refuses those of another model."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from spikeloom.pipelines.api.models import create_model
from spikeloom.pipelines.training.classification import train
from spikeloom.pipelines.training.inherit import inherit
from spikeloom.pipelines.training.run_dir import load_model
from spikeloom.speech.datasets.synthetic import SyntheticConfig
from spikeloom.speech.models.spikescr import SpikeSCRConfig
from tests.pipelines.test_claim import config

SIZES = SpikeSCRConfig(width=16, heads=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "trained"
    train(config(run))
    return run


@pytest.mark.parametrize("place", ["", "model", "model/model.safetensors", "checkpoints/best.ckpt"])
def test_weights_come_from_a_run_a_model_folder_or_a_file(trained: Path, place: str) -> None:
    model = SIZES.build(140, 3)
    inherit(model, str(trained / place))
    kept = load_model(trained / "model").model.state_dict()
    assert all(torch.equal(kept[name], value) for name, value in model.state_dict().items())


def test_a_classifier_for_other_classes_starts_anew_and_is_named(
    trained: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = SIZES.build(140, 5)
    head = model.head.weight.clone()
    caplog.set_level("INFO")
    inherit(model, str(trained))
    assert torch.equal(model.head.weight, head)
    assert "head.weight start" in caplog.text
    kept = load_model(trained / "model").model.state_dict()
    assert all(torch.equal(kept[n], v) for n, v in model.state_dict().items() if not n.startswith("head."))


def test_pictures_of_another_size_and_other_classes_are_learned_from_the_same_weights(tmp_path: Path) -> None:
    sizes = {"T": 2, "widths": [16], "depths": [1], "heads": 2}
    small = create_model("spiking_transformer", n_inputs=3, n_outputs=10, **sizes)
    small.save_pretrained(tmp_path)
    large = create_model("spiking_transformer", n_inputs=3, n_outputs=5, **sizes)
    head = large.state_dict()["head.weight"].clone()
    inherit(large, str(tmp_path))
    kept = small.state_dict()
    for name, value in large.state_dict().items():  # no tensor belongs to places in the picture
        assert torch.equal(value, head if name == "head.weight" else kept[name]) or name == "head.bias"
    assert large(torch.rand(1, 1, 3, 48, 48)).shape[-1] == 5


def test_weights_of_another_model_are_refused_and_change_nothing(trained: Path, tmp_path: Path) -> None:
    model = SpikeSCRConfig(width=32, heads=1).build(140, 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"pretrained=.*has shape \[.*the model \["):
        inherit(model, str(trained))
    save_file({"stem.weight": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"pretrained=.*is missing"):
        inherit(model, str(tmp_path / "other.safetensors"))
    for place in ("nowhere", "."):
        with pytest.raises(ValueError, match="pretrained="):
            inherit(model, str(tmp_path / place))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_training_continues_from_them(trained: Path, tmp_path: Path) -> None:
    words = SyntheticConfig(n_words=4, n_speakers=3, takes=1, n_valid_speakers=1, n_test_speakers=1)
    result = train(replace(config(tmp_path / "run"), data=words, pretrained=str(trained)))
    assert result["parameters"] == sum(p.numel() for p in SIZES.build(140, 4).parameters())
