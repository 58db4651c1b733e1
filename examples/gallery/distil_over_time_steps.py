"""A keyword model with coarse time steps, distilled from one with fine steps (KDCL).

Smallest settings: two resolutions and one epoch each, so the accuracies mean little; the table is that of a full run.
"""

from spikeloom.pipelines.config.distill import DistillConfig
from spikeloom.pipelines.config.train import TrainerConfig
from spikeloom.pipelines.training.distillation import distil
from spikeloom.speech.augmentation import AugmentationConfig
from spikeloom.speech.datasets.synthetic import SyntheticConfig
from spikeloom.speech.features.log_mel import LogMelConfig
from spikeloom.speech.models.spikescr import SpikeSCRConfig

distil(DistillConfig(
    name="few_words", run="curriculum", overwrite=True,
    data=SyntheticConfig(n_words=3, n_speakers=6, takes=2, n_test_speakers=1, n_valid_speakers=1),
    features=LogMelConfig(), augmentation=AugmentationConfig(), model=SpikeSCRConfig(width=32, heads=2),
    trainer=TrainerConfig(epochs=1, batch_size=8), resolutions_ms=[20.0, 40.0], undistilled=True, energy_clips=8,
))  # fmt: skip
