"""Modules and data modules work in a `lightning.Trainer` of one's own, without the commands of this package."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch

from spikeloom.bci.data.datamodule import TrialDataModule
from spikeloom.bci.models.cet_mae import CETMAE
from spikeloom.bci.models.config import AsRecordedConfig, CETMAERecipe, E2TPTRRecipe
from spikeloom.pipelines.config.train import TrainConfig, TrainerConfig
from spikeloom.pipelines.domains import adapter_of
from spikeloom.pipelines.eeg.module import DecodingModule, PretrainingModule
from spikeloom.pipelines.training.distillation import DistillationModule, PairedDataModule
from spikeloom.pipelines.training.module import ClassificationModule
from spikeloom.speech.batches import featurise
from spikeloom.speech.datamodule import SpeechDataModule
from spikeloom.speech.datasets.synthetic import SyntheticConfig
from spikeloom.speech.distillation import DistillationConfig
from spikeloom.speech.features.log_mel import LogMelConfig
from spikeloom.speech.models.spikescr import SpikeSCRConfig
from spikeloom.vision.datamodule import VisionDataModule
from spikeloom.vision.datasets.sources import ScannedDigitsConfig
from spikeloom.vision.models.config import SpikingTransformerConfig
from spikeloom.vision.transforms.augmentation import ImageAugmentationConfig
from spikeloom.vision.transforms.frames import PixelsConfig
from tests.pipelines.test_trials import composed

WORDS = SyntheticConfig(n_words=3, n_speakers=3, takes=1, n_valid_speakers=1, n_test_speakers=1)
SPEECH = TrainConfig(
    name="words", run="", data=WORDS, features=LogMelConfig.gsc(hop_ms=40.0), model=SpikeSCRConfig(width=16, heads=1),
    trainer=TrainerConfig(epochs=1, batch_size=4),
)  # fmt: skip
DIGITS = TrainConfig(
    name="digits", run="", data=ScannedDigitsConfig(),
    features=PixelsConfig(channels=1, size=8, mean=[0.0], std=[1.0]), augmentation=ImageAugmentationConfig(),
    model=SpikingTransformerConfig(name="spikingformer_digits", widths=[16], heads=1, T=2),
)  # fmt: skip


def speech() -> tuple[Any, Any]:
    data = SpeechDataModule(SPEECH.data, SPEECH.features, batch_size=4)
    data.setup()
    return ClassificationModule(SPEECH, data.spec), data


def vision() -> tuple[Any, Any]:
    data = VisionDataModule(DIGITS.data, DIGITS.features, batch_size=256)
    data.setup()
    return ClassificationModule(DIGITS, data.spec), data


def distillation() -> tuple[Any, Any]:
    fine = replace(SPEECH, features=LogMelConfig.gsc(hop_ms=20.0))
    data = SpeechDataModule(SPEECH.data, SPEECH.features, batch_size=4)
    data.setup()
    teacher: Any = fine.model.build(data.n_inputs, data.n_classes)
    paired = PairedDataModule(data, teacher, featurise(data.splits.train, fine.features.build()))
    paired.setup()
    return DistillationModule(SPEECH, data.spec, distillation=DistillationConfig(kl_weight=0.3)), paired


def eeg() -> tuple[TrainConfig, TrialDataModule]:
    config = composed("pretrain", "run=unused")
    data = TrialDataModule(config.data, config.features, batch_size=8)
    data.setup()
    return config, data


def pretraining() -> tuple[Any, Any]:
    config, data = eeg()
    return PretrainingModule(config, data.spec), data


def decoding() -> tuple[Any, Any]:
    config, data = eeg()
    writes = replace(config, model=E2TPTRRecipe(), augmentation=AsRecordedConfig())
    return DecodingModule(writes, data.spec, sizes=config.model.sizes), data


@pytest.mark.parametrize("make", [speech, vision, distillation, pretraining, decoding])
def test_a_module_fits_tests_predicts_and_loads_in_a_trainer_of_ones_own(make: Any, tmp_path: Path) -> None:
    module, data = make()
    trainer = lightning.Trainer(
        max_epochs=1, limit_train_batches=2, limit_val_batches=1, limit_test_batches=1, limit_predict_batches=1,
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=tmp_path,
    )  # fmt: skip
    before = {name: value.clone() for name, value in module.state_dict().items()}
    trainer.fit(module, datamodule=data)
    assert any(not torch.equal(before[name], value) for name, value in module.state_dict().items()), "nothing learnt"
    (tested,) = trainer.test(module, datamodule=data, verbose=False)
    assert "test_loss" in tested and all(torch.isfinite(torch.tensor(value)) for value in tested.values())
    predicted = trainer.predict(module, datamodule=data)
    assert predicted is not None and len(predicted) == 1

    trainer.save_checkpoint(tmp_path / "kept.ckpt")
    again = type(module).load_from_checkpoint(tmp_path / "kept.ckpt", weights_only=True)
    assert again.config == module.config and again.spec == module.spec
    kept, loaded = module.state_dict(), again.state_dict()
    assert kept.keys() == loaded.keys() and all(torch.equal(kept[k], loaded[k]) for k in kept)


def test_forward_is_that_of_the_model() -> None:
    module, data = vision()
    batch = next(iter(data.val_dataloader()))
    module.eval()
    with torch.no_grad():
        assert torch.equal(module(batch.frames), module.model(batch.frames))
        assert torch.equal(module.predict_step(batch, 0), adapter_of(DIGITS).log_probabilities(module.model, batch))


def test_a_pretrained_encoder_of_ones_own_is_the_configured_model() -> None:
    config, data = eeg()
    assert isinstance(config.model, CETMAERecipe)
    assert isinstance(PretrainingModule(config, data.spec).model, CETMAE)
