"""Every recipe is there with the values it was published with, and builds the model it names."""

import socket
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from spikeloom.pipelines.config.register import register
from spikeloom.pipelines.config.train import TrainConfig, check_kinds
from spikeloom.pipelines.training.classification import train
from spikeloom.pipelines.training.optim import OptimizerConfig, learning_rate_factor

FAMILIES = ("spikingformer", "qkformer", "ms_qkformer")
CIFAR = {
    "augmentation.rand_magnitude": 9, "augmentation.rand_layers": 1, "augmentation.rand_spread": 0.4,
    "augmentation.mixup": 0.5, "augmentation.mix_until_epoch": 200, "augmentation.cutmix": 0,
    "augmentation.erase": 0.25, "augmentation.erase_mode": "const", "augmentation.crop_scale": [1, 1],
    "optimizer.label_smoothing": 0.1, "optimizer.weight_decay": 0.06, "optimizer.warmup_epochs": 20,
    "optimizer.warmup_from": 1e-5, "optimizer.eta_min": 1e-5, "optimizer.decay_vectors": True,
    "trainer.batch_size": 64, "trainer.accumulate": 1, "trainer.precision": "amp", "model.T": 4, "features.size": 32,
}  # fmt: skip
QK_CIFAR = {**CIFAR, "optimizer.lr": 1e-3, "trainer.epochs": 410, "optimizer.cooldown_epochs": 10}
SF_CIFAR = {**CIFAR, "optimizer.lr": 5e-4, "trainer.epochs": 300, "optimizer.cooldown_epochs": 0}
IMAGENET = {
    "augmentation.flip": 0.5, "augmentation.rand_magnitude": 9, "augmentation.rand_spread": 0.5,
    "augmentation.rand_layers": 2, "augmentation.erase": 0.25, "optimizer.label_smoothing": 0.1,
    "optimizer.weight_decay": 0.05, "trainer.precision": "amp", "features.size": 224,
    "features.interpolation": "bicubic", "model.T": 4, "data.valid_per_class": 50,
}  # fmt: skip
QK_IMAGENET = {
    **IMAGENET, "optimizer.lr": 1.2e-3, "optimizer.decay_vectors": False, "trainer.epochs": 200,
    "optimizer.warmup_epochs": 5, "optimizer.eta_min": 1e-6, "optimizer.cooldown_epochs": 0,
    "augmentation.crop_scale": [0.08, 1], "augmentation.erase_mode": "pixel", "augmentation.mixup": 0,
    "augmentation.cutmix": 0, "features.crop_pct": 0.875, "trainer.ema_decay": 0,
}  # fmt: skip
SF_IMAGENET = {
    **IMAGENET, "optimizer.lr": 5e-4, "trainer.epochs": 310, "optimizer.cooldown_epochs": 10,
    "optimizer.warmup_epochs": 20, "optimizer.warmup_from": 1e-6, "optimizer.eta_min": 1e-5,
    "augmentation.crop_scale": [1, 1], "augmentation.erase_mode": "const", "augmentation.mixup": 0.8,
    "augmentation.cutmix": 1, "features.crop_pct": 1, "trainer.batch_size": 24, "trainer.accumulate": 8,
}  # fmt: skip
DVS = {
    "optimizer.weight_decay": 0.06, "trainer.batch_size": 16, "optimizer.warmup_epochs": 10,
    "optimizer.warmup_from": 1e-5, "optimizer.cooldown_epochs": 10, "augmentation.flip": 0.5,
    "augmentation.one_of": True, "augmentation.shear": 0.3, "augmentation.shift_pixels": 5,
    "augmentation.rotation_degrees": 30, "augmentation.cutout": [0.001, 0.11], "augmentation.mixup": 0.5,
    "augmentation.mix_prob": 0.5, "augmentation.mix_until_epoch": 75, "optimizer.label_smoothing": 0.1,
    "trainer.precision": "amp", "seed": 2021, "features.n_frames": 16, "features.by": "number",
}  # fmt: skip
C10DVS = {**DVS, "trainer.epochs": 106, "optimizer.eta_min": 1e-5}
GESTURE = {**DVS, "trainer.epochs": 202, "optimizer.lr": 1e-3}
PUBLISHED: dict[str, dict[str, Any]] = {
    "spikingformer_cifar10": {**SF_CIFAR, "model.name": "spikingformer_4_384", "data.classes": 10},
    "spikingformer_cifar100": {**SF_CIFAR, "model.name": "spikingformer_4_384", "data.classes": 100},
    "spikingformer_imagenet": {**SF_IMAGENET, "model.name": "spikingformer_8_512"},
    "spikingformer_cifar10dvs": {**C10DVS, "optimizer.lr": 1e-3, "model.name": "spikingformer_2_256_dvs"},
    "spikingformer_dvs128": {**GESTURE, "optimizer.eta_min": 1e-5, "model.name": "spikingformer_2_256_dvs"},
    **{f"{form}_cifar{n}": {**QK_CIFAR, "model.name": f"{form}_hst_4_384", "data.classes": n}
       for form in FAMILIES[1:] for n in (10, 100)},
    **{f"{form}_imagenet": {**QK_IMAGENET, "model.name": f"{form}_hst_10_384"} for form in FAMILIES[1:]},
    **{f"{form}_cifar10dvs": {**C10DVS, "optimizer.lr": 5e-3, "model.name": f"{form}_hst_2_256_cifar10dvs"}
       for form in FAMILIES[1:]},
    **{f"{form}_dvs128": {**GESTURE, "optimizer.eta_min": 2e-5, "model.name": f"{form}_hst_2_256_dvs128"}
       for form in FAMILIES[1:]},
    **{f"{form}_{data}": {"model.name": f"{form}_digits", "augmentation.flip": 0, "features.channels": 1}
       for form in FAMILIES for data in ("digits", "mnist")},
}  # fmt: skip
CLASSES = {"cifar10": 10, "cifar100": 100, "imagenet": 1000, "cifar10dvs": 10, "dvs128": 11, "digits": 10, "mnist": 10}


@cache
def composed(*overrides: str) -> TrainConfig:
    register()
    with initialize_config_module("spikeloom.conf", version_base="1.3"):
        config = OmegaConf.to_object(compose("train", overrides=list(overrides)))
    assert isinstance(config, TrainConfig)
    return config


def test_there_is_a_recipe_for_every_family_and_data_set() -> None:
    assert set(PUBLISHED) == {f"{family}_{data}" for family in FAMILIES for data in CLASSES}


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_a_recipe_has_its_published_values(name: str) -> None:
    config = composed(f"experiment={name}")
    check_kinds(config)
    assert config.name == name
    wrong = {}
    for key, expected in PUBLISHED[name].items():
        value: Any = config
        for part in key.split("."):
            value = getattr(value, part)
        if value != expected:
            wrong[key] = (value, expected)
    assert wrong == {}
    if name.endswith("imagenet"):
        assert config.trainer.batch_size * config.trainer.accumulate == (192 if name.startswith("spiking") else 512)


@pytest.mark.parametrize("name", [n for n in sorted(PUBLISHED) if not n.endswith(("imagenet", "mnist"))])
def test_a_recipe_builds_the_model_it_names(name: str) -> None:
    config = composed(f"experiment={name}")
    model = config.model.build(config.features.n_channels, CLASSES[name.rpartition("_")[2]])
    expected = {
        "spikingformer_cifar10": 9_320_122, "spikingformer_cifar100": 9_354_772, "spikingformer_digits": 163_522,
        "spikingformer_cifar10dvs": 2_566_666, "spikingformer_dvs128": 2_566_923, "qkformer_cifar10": 6_706_234,
        "qkformer_cifar100": 6_740_884, "qkformer_cifar10dvs": 1_504_138, "qkformer_dvs128": 1_999_371,
    }  # fmt: skip
    found = sum(p.numel() for p in model.parameters())
    assert found == expected.get(name.removeprefix("ms_"), found)


def test_the_rate_warms_up_from_where_it_should_and_cools_down() -> None:
    config = OptimizerConfig(lr=1e-3, warmup_epochs=20, warmup_from=1e-5, eta_min=1e-5, cooldown_epochs=10)
    rates = [config.lr * learning_rate_factor(i, 10, 410, config) for i in range(4100)]
    assert rates[0] == pytest.approx(1e-5 + (1e-3 - 1e-5) / 200)
    assert rates[199] == pytest.approx(1e-3)
    assert rates[200 + 1900] == pytest.approx((1e-3 + 1e-5) / 2)
    assert rates[4000:] == [pytest.approx(1e-5)] * 100
    assert rates[3990] > 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_digits_reach_nine_of_ten_within_twelve_epochs_without_a_network(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*given: object) -> None:
        raise AssertionError("training opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refused)
    config: TrainConfig = composed(f"experiment={family}_digits", f"run={tmp_path}/run")
    assert config.trainer.epochs <= 12
    result = train(config)
    assert result["valid_accuracy"] >= 0.9
    assert result["test_evaluations"] == 1
