"""What a training of this room is told: how trials become samples, and which model learns from them.

The dataclasses are the shapes of configuration files; `kind` tells them apart there.
"""

from dataclasses import dataclass, field

from spikeloom.bci.data.datamodule import TextConfig
from spikeloom.bci.models.cet_mae import CETMAEConfig
from spikeloom.bci.models.e2t_ptr import DecodingConfig
from spikeloom.bci.models.pretraining import PretrainingConfig
from spikeloom.bci.zuco.samples import SamplesConfig
from spikeloom.bci.zuco.splits import SplitConfig


@dataclass
class TrialConfig:
    """Samples, split and tokenizer. A decoder takes all of it from the run it is pre-trained by."""

    kind: str = "trial"
    samples: SamplesConfig = field(default_factory=SamplesConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    text: TextConfig = field(default_factory=TextConfig)


@dataclass
class AsRecordedConfig:
    """No augmentation: trials are learnt from as they were recorded."""

    kind: str = "as_recorded"


@dataclass
class CETMAERecipe:
    """CET-MAE: its sizes, and what its pre-training masks and minimises."""

    kind: str = "cet_mae"
    sizes: CETMAEConfig = field(default_factory=CETMAEConfig)
    pretraining: PretrainingConfig = field(default_factory=PretrainingConfig)


@dataclass
class E2TPTRRecipe:
    """E2T-PTR: how it writes. Its sizes are those of the CET-MAE it inherits from."""

    kind: str = "e2t_ptr"
    stream: str = "eeg"  # of the multi-stream layer that the EEG passes: eeg, or joint as an ablation
    decoder: str = "bart"  # what writes: bart, or as an ablation t5 or gpt2 of the same sizes, randomly initialised
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
