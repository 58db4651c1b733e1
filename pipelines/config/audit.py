"""Keys of `spikeloom audit`."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from spikeloom.pipelines.config.evaluate import OtherFolder


@dataclass
class AuditConfig:
    run: str = MISSING  # run directory of a trained model
    batches: int = 2  # batches of real samples
    batch_size: int = 16  # samples in each of these batches
    count_encoder_once: bool = False  # the first convolution of a picture: once, or as published T times
    data: OtherFolder = field(default_factory=OtherFolder)  # root: a folder to read instead of the run's own data
    out: str | None = None  # folder; default RUN/audit

    def refuse_still_pictures(self, reason: str = "the inputs of the steps differ") -> None:
        """Raise ValueError where `count_encoder_once` is asked of a model to which it does not apply."""
        if self.count_encoder_once:
            raise ValueError(
                f"count_encoder_once=true is for pictures shown in several steps; {reason}, so leave it false"
            )
