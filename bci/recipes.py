"""What a training of this room is told: how readings become samples, and which model learns from them.

The dataclasses are the shapes of configuration files; `kind` tells them apart there.
"""

from dataclasses import dataclass, field

from bci.cet_mae import CETMAEConfig
from bci.datamodule import TextConfig
from bci.e2t_ptr import DecodingConfig
from bci.training import PretrainingConfig
from bci.zuco.samples import SamplesConfig
from bci.zuco.splits import SplitConfig


@dataclass
class ReadingConfig:
    """Samples, split and tokenizer. A decoder takes all of it from the run it is pre-trained by."""

    kind: str = "reading"
    samples: SamplesConfig = field(default_factory=SamplesConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    text: TextConfig = field(default_factory=TextConfig)


@dataclass
class AsRecordedConfig:
    """No augmentation: readings are learnt from as they were recorded."""

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
    decoding: DecodingConfig = field(default_factory=DecodingConfig)
