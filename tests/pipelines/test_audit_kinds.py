"""`audit` accepts every kind of trained model: small spiking networks, ResNets, binary-stochastic ones, EEG models."""

import json
from pathlib import Path

import pytest
import torch
from torch import Generator

from spikeloom.accel.learning.stochastic.files import save_network
from spikeloom.accel.learning.stochastic.network import StochasticConfig
from spikeloom.bci.models.config import AsRecordedConfig, CETMAERecipe, E2TPTRRecipe, TrialConfig
from spikeloom.bci.models.e2t_ptr import build_e2t_ptr
from spikeloom.bci.synthetic.zuco import SyntheticZuCoConfig
from spikeloom.bci.zuco.splits import SplitConfig
from spikeloom.pipelines.commands import audit
from spikeloom.pipelines.config.audit import AuditConfig
from spikeloom.pipelines.config.train import TrainConfig
from spikeloom.pipelines.training.run_dir import TrainedModel, save_config, save_model
from spikeloom.vision.datasets.sources import ScannedDigitsConfig
from spikeloom.vision.models.config import ResNetConfig, SpikingNetConfig
from spikeloom.vision.transforms.augmentation import ImageAugmentationConfig
from spikeloom.vision.transforms.frames import PixelsConfig
from tests.bci.test_cet_mae import VOCABULARY, a_model

DIGITS = tuple("0123456789")
PIXELS = PixelsConfig(channels=1, size=8, interpolation="nearest", mean=[0.0], std=[1.0])


def audited(run: Path, config: TrainConfig) -> dict:
    save_config(run, config)
    audit.run(AuditConfig(run=str(run), batches=1, batch_size=3))
    page = (run / "audit/audit.html").read_text("utf-8")
    assert "Where the network fires" in page and "Where multiplications remain" in page
    found = json.loads((run / "audit/audit.json").read_text("utf-8"))
    assert found["samples"] == 3 and found["energy_pj"] == pytest.approx(0.9 * found["ac"] + 4.6 * found["mac"])
    assert "memory is left out" in found["left_out"]
    return found


@pytest.mark.parametrize(
    "settings", [SpikingNetConfig(), SpikingNetConfig(net="mlp"), ResNetConfig(widths=[4], blocks=[1])]
)
def test_a_vision_run_is_audited_whatever_it_trained(settings: object, tmp_path: Path) -> None:
    torch.manual_seed(0)
    size = {"size": 8} if isinstance(settings, SpikingNetConfig) else {}
    model = settings.build(1, 10, **size).eval()  # type: ignore[attr-defined]
    save_model(tmp_path / "model", TrainedModel(model=model, features=PIXELS, class_names=DIGITS), "untrained")
    found = audited(tmp_path, TrainConfig(
        name="digits", run=str(tmp_path), data=ScannedDigitsConfig(), features=PIXELS,
        augmentation=ImageAugmentationConfig(), model=settings,
    ))  # fmt: skip
    if isinstance(settings, ResNetConfig):
        assert found["ac"] == 0 and found["verdict"] == "not spike-driven" and found["steps"] == 1
    else:
        assert found["ac"] > 0 and found["membrane_updates"] > 0 and found["steps"] == settings.T
        assert found["exceptions"] <= found["permitted"]


def test_a_binary_stochastic_run_is_audited(tmp_path: Path) -> None:
    config = StochasticConfig(hidden=[6])
    network = config.build((1, 8, 8), 10)
    synapses = config.synapses(network, 4, Generator().manual_seed(0))
    (tmp_path / "model").mkdir()
    save_network(tmp_path / "model", config, (1, 8, 8), DIGITS, 4, synapses)
    found = audited(tmp_path, TrainConfig(
        name="bits", run=str(tmp_path), data=ScannedDigitsConfig(), features=PIXELS,
        augmentation=ImageAugmentationConfig(), model=config,
    ))  # fmt: skip
    assert found["mac"] == 0 and found["ac"] > 0 and found["inference"] == "one Bernoulli sample"


@pytest.mark.parametrize("decodes", [False, True])
def test_an_eeg_run_is_audited(decodes: bool, tmp_path: Path) -> None:
    recipe = CETMAERecipe()
    model = build_e2t_ptr(a_model().config, VOCABULARY) if decodes else a_model()
    features = TrialConfig(split=SplitConfig(unit="key"))
    save_model(tmp_path / "model", TrainedModel(model=model, features=features, class_names=()), "untrained")
    found = audited(tmp_path, TrainConfig(
        name="trials", run=str(tmp_path), data=SyntheticZuCoConfig(n_subjects=2, n_sentences=20), features=features,
        augmentation=AsRecordedConfig(), model=E2TPTRRecipe() if decodes else recipe,
    ))  # fmt: skip
    assert found["ac"] == 0 and found["mac"] > 0 and found["verdict"] == "not spike-driven"
    assert ("tokens_written" in found) == decodes
    with pytest.raises(ValueError, match="count_encoder_once=true is for pictures"):
        audit.run(AuditConfig(run=str(tmp_path), count_encoder_once=True))


def test_a_path_that_is_no_run_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no such run directory: .*typo is missing"):
        audit.run(AuditConfig(run=str(tmp_path / "typo")))
