"""Keys of `spikeloom report`."""

from dataclasses import dataclass

from omegaconf import MISSING


@dataclass
class ReportConfig:
    run: str = MISSING  # run directory of a training, or of a curriculum
