"""`spikeloom distill`: a curriculum from fine to coarse time steps, each stage distilled from the one before (KDCL)."""

from spikeloom.pipelines.config.distill import DistillConfig
from spikeloom.pipelines.training.distillation import distil


def run(config: DistillConfig) -> None:
    distil(config)
