"""Keys of `spikeloom evaluate`."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from spikeloom.bci.evaluation.baselines import BaselinesConfig
from spikeloom.bci.evaluation.controls import ControlsConfig
from spikeloom.bci.evaluation.protocol import ProtocolConfig


@dataclass
class OtherFolder:
    root: str | None = None  # folder to read; null: that of the run's own data


@dataclass
class EvaluateConfig:
    run: str = MISSING  # run directory of a trained model
    split: str = "test"  # train, valid, test or all
    data: OtherFolder = field(default_factory=OtherFolder)  # root: a folder to score instead of the run's own data
    out: str | None = None  # JSON file; default RUN/evaluation.json
    controls: ControlsConfig = field(default_factory=ControlsConfig)  # of a decoder of EEG: what is trained beside it
    baselines: BaselinesConfig = field(
        default_factory=BaselinesConfig
    )  # of a decoder of EEG: simpler ones, trained too
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)  # of a decoder of EEG: its tests
