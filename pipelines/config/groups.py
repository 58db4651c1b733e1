"""The groups of a training's configuration: under which name a choice stands, and the dataclass that is its shape.

Classes are named, not imported: a verb imports the domains that its configuration chooses and no others. A new data
set, front end, model or pruning rule is one line here and one YAML file in `conf`.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

# group -> kind -> module below `spikeloom` and class. The kind of data is their `source`, of all others their `kind`.
GROUPS: dict[str, dict[str, str]] = {
    "data": {
        "fsdd": "speech.datasets.fsdd:DigitsConfig",
        "gsc": "speech.datasets.speech_commands:CommandsConfig",
        "shd": "speech.datasets.shd:SHDConfig",
        "spikes": "speech.datasets.shd:SpikeFileConfig",
        "ssc": "speech.datasets.shd:SSCConfig",
        "synthetic": "speech.datasets.synthetic:SyntheticConfig",
        "words": "speech.datasets.words:WordsConfig",
        "synthetic_zuco": "bci.synthetic.zuco:SyntheticZuCoConfig",
        "zuco": "bci.zuco.source:ZuCoConfig",
        "bids_reading": "bci.raw.bids_corpus:BIDSReadingConfig",
        "cifar": "vision.datasets.sources:CifarConfig",
        "cifar10dvs": "vision.datasets.event_sets:Cifar10DvsConfig",
        "digits": "vision.datasets.sources:ScannedDigitsConfig",
        "dvs128": "vision.datasets.event_sets:GestureConfig",
        "events": "vision.datasets.event_sets:EventFilesConfig",
        "images": "vision.datasets.sources:ImageFoldersConfig",
        "mnist": "vision.datasets.sources:MnistConfig",
        "nmnist": "vision.datasets.event_sets:NMnistConfig",
    },
    "features": {
        "log_mel": "speech.features.log_mel:LogMelConfig",
        "mfcc": "speech.features.mfcc:MFCCConfig",
        "event_bins": "speech.features.event_bins:EventBinsConfig",
        "pixels": "vision.transforms.frames:PixelsConfig",
        "event_frames": "vision.transforms.frames:EventFramesConfig",
        "trial": "bci.models.config:TrialConfig",
    },
    "augmentation": {
        "spectrogram": "speech.augmentation:AugmentationConfig",
        "waveform": "speech.waveform_augmentation:WaveformAugmentationConfig",
        "spikes": "speech.spike_augmentation:SpikeAugmentationConfig",
        "images": "vision.transforms.augmentation:ImageAugmentationConfig",
        "events": "vision.transforms.augmentation:EventAugmentationConfig",
        "as_recorded": "bci.models.config:AsRecordedConfig",
    },
    "model": {
        "spikescr": "speech.models.spikescr:SpikeSCRConfig",
        "spikcommander": "speech.models.spikcommander:SpikCommanderConfig",
        "temporal_conv": "speech.models.temporal_conv:TemporalConvConfig",
        "gated_recurrent": "speech.models.recurrent:GRUConfig",
        "lif_network": "speech.models.recurrent:LIFNetworkConfig",
        "spiking_transformer": "vision.models.config:SpikingTransformerConfig",
        "spiking_resnet": "vision.models.config:SpikingResNetConfig",
        "resnet": "vision.models.config:ResNetConfig",
        "conv_net": "vision.models.config:ConvNetConfig",
        "spiking_net": "vision.models.config:SpikingNetConfig",
        "stochastic": "accel.learning.stochastic.network:StochasticConfig",
        "cet_mae": "bci.models.config:CETMAERecipe",
        "e2t_ptr": "bci.models.config:E2TPTRRecipe",
    },
    "pruning": {
        "none": "accel.learning.pruning.pruner:NoPruningConfig",
        "lats": "accel.learning.pruning.lats:LATSConfig",
        "linear": "accel.learning.pruning.lats:LinearThresholdConfig",
        "sine": "accel.learning.pruning.lats:SineThresholdConfig",
        "str": "accel.learning.pruning.learned_threshold:LearnedThresholdConfig",
        "gmp": "accel.learning.pruning.layerwise:LayerwiseConfig",
        "dnw": "accel.learning.pruning.layerwise:DNWConfig",
        "rigl": "accel.learning.pruning.rigl:RigLConfig",
        "magnitude": "accel.learning.pruning.magnitude:MagnitudeConfig",
        "prune_at_init": "accel.learning.pruning.at_init:AtInitConfig",
    },
}  # fmt: skip
# What a configuration from before there were kinds means.
UNNAMED = {"features": "log_mel", "augmentation": "spectrogram", "model": "spikescr", "pruning": "none"}


def kind_key(group: str) -> str:
    """The key that tells the shapes of a group apart."""
    return "source" if group == "data" else "kind"


def shape(group: str, kind: str) -> Any:
    """The dataclass of a choice. Raises KeyError, with the kinds there are, for one that is not there."""
    if kind not in GROUPS[group]:
        raise KeyError(f"{group}.{kind_key(group)}={kind} is none of {', '.join(GROUPS[group])}")
    module, _, name = GROUPS[group][kind].partition(":")
    return getattr(import_module(f"spikeloom.{module}"), name)


def default(group: str, kind: str) -> Callable[[], Any]:
    """A factory of a choice with its default values, for a dataclass field."""
    return lambda: shape(group, kind)()


def kind_of(group: str, config: Any) -> str:
    """The kind under which the class of a configuration stands."""
    cls = type(config)
    path = f"{cls.__module__.removeprefix('spikeloom.')}:{cls.__name__}"
    return next(kind for kind, known in GROUPS[group].items() if known == path)


def package_of(config: Any) -> str:
    """The package that a configuration (or its class) lives in: bci, speech, vision or accel."""
    return (config if isinstance(config, type) else type(config)).__module__.split(".")[1]
