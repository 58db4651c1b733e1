"""Keys of `spikeloom distill`."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from spikeloom.pipelines.config.train import TrainConfig
from spikeloom.speech.distillation import DistillationConfig


@dataclass
class DistillConfig(TrainConfig):
    """A training repeated from the finest to the coarsest time steps; trainer.epochs are those of one stage."""

    # time step of each stage, finest first
    resolutions_ms: list[float] = field(default_factory=lambda: [5.0, 10.0, 25.0])
    teacher_pick: str = "best_acc"  # epoch a stage hands over: best_acc (tie: lower loss) or best_loss, on validation
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    undistilled: bool = True  # train the coarsest stage once more, without a teacher, to compare with
    undistilled_epochs: int | None = None  # null: as many as all stages have together
    energy_clips: int = 256  # test clips on which operations are counted


def open_distill_config() -> DistillConfig:
    """The shape of a curriculum whose data, features, augmentation and model are still to be chosen."""
    return DistillConfig(data=MISSING, features=MISSING, augmentation=MISSING, model=MISSING)
