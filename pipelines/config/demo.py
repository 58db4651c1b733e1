"""Keys of `spikeloom demo`."""

from dataclasses import dataclass, field


@dataclass
class DemoConfig:
    run: str = "runs/demo"  # run directory
    # which to run, in this order: speech, brain, pruning, vision
    chapters: list[str] = field(default_factory=lambda: ["speech", "brain", "pruning"])
    epochs: int = 10  # of the speech chapter
    seed: int = 0  # of data and weights in every chapter
    chip: str = "neuromc"  # preset that prices the trained models
    logs: bool = False  # print the log of every training, too
