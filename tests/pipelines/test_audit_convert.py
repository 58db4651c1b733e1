"""Released weights become a run, and a run is audited: what the verbs write is what the models do."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from spikeloom.pipelines.commands import audit, convert, evaluate
from spikeloom.pipelines.config.audit import AuditConfig
from spikeloom.pipelines.config.convert import ConvertConfig
from spikeloom.pipelines.config.evaluate import EvaluateConfig, OtherFolder
from spikeloom.pipelines.config.train import TrainConfig
from spikeloom.pipelines.training.run_dir import TrainedModel, load_config, load_model, save_config, save_model
from spikeloom.vision.convert import to_released
from spikeloom.vision.datasets.sources import ScannedDigitsConfig
from spikeloom.vision.energy import designed_exceptions, permitted
from spikeloom.vision.models.config import SpikingTransformerConfig
from spikeloom.vision.models.variants import create_model
from spikeloom.vision.transforms.augmentation import ImageAugmentationConfig
from spikeloom.vision.transforms.frames import PixelsConfig
from tests.vision.small import small, warm


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


def converted(folder: Path, name: str, n_classes: int, classes: Path | None = None) -> None:
    """The released form of a small model with other classes, converted to `folder`/run."""
    state = to_released(small(name)[0])
    state |= {key: state[key][:1].expand(n_classes, *state[key].shape[1:]) for key in ("head.weight", "head.bias")}
    save_file({k: v.contiguous() for k, v in state.items()}, folder / "weights.safetensors")
    asked = ConvertConfig(checkpoint=str(folder / "weights.safetensors"), out=str(folder / "run"))
    convert.run(replace(asked, network="spikingformer", heads=1, classes=classes and str(classes)))


def pictures(root: Path, names: tuple[str, ...]) -> OtherFolder:
    for name in names:
        (root / name).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(root / name / "0.png")
    return OtherFolder(root=str(root))


def test_numbered_classes_are_those_of_a_data_set_of_as_many(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    converted(tmp_path, "spikingformer_cifar", 3)
    asked = EvaluateConfig(
        run=str(tmp_path / "run"), split="all", data=pictures(tmp_path / "three", ("n1", "n2", "n3"))
    )
    evaluate.run(asked)
    assert "numbered; they are taken as the samples' in their order: n1, n2, n3" in capsys.readouterr().err
    assert json.loads((tmp_path / "run/evaluation.json").read_text())["class_names"] == ["n1", "n2", "n3"]
    asked.data = pictures(tmp_path / "many", tuple(f"n{i:02d}" for i in range(40)))
    with pytest.raises(ValueError, match=r"3 classes .* are n00, n01, n02, … \(40 in all\); .*classes=FILE"):
        evaluate.run(asked)
    (tmp_path / "names.txt").write_text("n1\nn2\nn3\n")
    converted(tmp_path, "spikingformer_cifar", 3, classes=tmp_path / "names.txt")
    assert not (tmp_path / "run/evaluation.json").exists()  # it was of the model before
    with pytest.raises(ValueError, match=r"knows n1, n2, n3, not n00, n01, n02, … \(40 in all\); .*classes=FILE"):
        evaluate.run(asked)


@pytest.mark.parametrize(
    ("n_classes", "first", "root"), [(10, "airplane", "cifar10dvs"), (11, "clap", "dvs128"), (7, "class 0", "events")]
)
def test_event_models_have_the_names_and_the_folder_of_their_data(
    n_classes: int, first: str, root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPIKELOOM_DATA", "/elsewhere")
    converted(tmp_path, "spikingformer_dvs", n_classes)
    names = load_model(tmp_path / "run/model").class_names
    assert names[0] == first and len(names) == n_classes
    assert load_config(tmp_path / "run").data.root == f"/elsewhere/{root}"


def test_files_of_class_names_that_do_not_fit_are_named(tmp_path: Path) -> None:
    (tmp_path / "twice.txt").write_text("cat\ndog\ncat\n")
    with pytest.raises(ValueError, match=r"twice\.txt names cat more than once"):
        converted(tmp_path, "spikingformer_cifar", 3, classes=tmp_path / "twice.txt")
    with pytest.raises(ValueError, match=r"classes=.*none\.txt is no file"):
        converted(tmp_path, "spikingformer_cifar", 3, classes=tmp_path / "none.txt")
    assert not (tmp_path / "run").exists()


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
    assert found["energy_pj"] == pytest.approx(0.9 * found["ac"] + 4.6 * found["mac"])
    with pytest.raises(ValueError, match="trained on digits data, which has no folder"):
        audit.run(AuditConfig(run=str(tmp_path), data=OtherFolder(root="elsewhere")))
    page = (tmp_path / "audit" / "audit.html").read_text()
    assert "Where the network fires" in page and "Layer by layer" in page
    with pytest.raises(ValueError, match=r"holds audit, config\.yaml, model, which would be deleted"):
        audit.run(AuditConfig(run=str(tmp_path), out=str(tmp_path)))
    assert (tmp_path / "config.yaml").exists()
