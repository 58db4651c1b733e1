"""The typed shape of every verb's configuration. YAML in `conf` gives the values; a key not named here is refused."""

from dataclasses import dataclass, field
from functools import cache
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, OmegaConf

from accel.learning.at_init import AtInitConfig
from accel.learning.lats import LATSConfig, LinearThresholdConfig
from accel.learning.magnitude import MagnitudeConfig
from accel.learning.pruning import NoPruningConfig
from accel.learning.stochastic_network import StochasticConfig
from accel.trainer.search import MappingConfig
from accel.trainer.variant import ChipConfig
from bci.evaluation.controls import ControlsConfig
from bci.evaluation.protocol import CONSTANT_SENTENCE, ProtocolConfig
from bci.recipes import AsRecordedConfig, CETMAERecipe, E2TPTRRecipe, ReadingConfig
from bci.streaming import ReplayConfig
from bci.zuco.source import ZuCoConfig
from bci.zuco.splits import SplitConfig
from bci.zuco.synthetic import SyntheticZuCoConfig
from pipelines.benchmarks.config import BenchConfig
from pipelines.domains import room_of
from pipelines.optimisation import OptimizerConfig
from speech.augmentation import AugmentationConfig
from speech.cochlea.cochlea import CochleaConfig
from speech.commands import CommandsConfig
from speech.curriculum import DistillationConfig
from speech.digits import DigitsConfig
from speech.event_bins import EventBinsConfig
from speech.features import LogMelConfig
from speech.frames import CACHE_MB
from speech.heidelberg import SHDConfig, SpikeFileConfig, SSCConfig
from speech.spike_augmentation import SpikeAugmentationConfig
from speech.spikescr import SpikeSCRConfig
from speech.streaming import SpotterConfig
from speech.synthetic import SyntheticConfig
from vision.augmentation import EventAugmentationConfig, ImageAugmentationConfig
from vision.event_sets import Cifar10DvsConfig, EventFilesConfig, GestureConfig, NMnistConfig
from vision.frames import EventFramesConfig, PixelsConfig
from vision.models import ResNetConfig, SpikingNetConfig, SpikingTransformerConfig
from vision.sources import CifarConfig, ImageFoldersConfig, MnistConfig, ScannedDigitsConfig

# `data.source` of a configuration -> its shape.
SOURCES: dict[str, Any] = {
    "fsdd": DigitsConfig, "gsc": CommandsConfig, "shd": SHDConfig, "spikes": SpikeFileConfig, "ssc": SSCConfig,
    "synthetic": SyntheticConfig, "synthetic_zuco": SyntheticZuCoConfig, "zuco": ZuCoConfig,
    "cifar": CifarConfig, "cifar10dvs": Cifar10DvsConfig, "digits": ScannedDigitsConfig, "dvs128": GestureConfig,
    "events": EventFilesConfig, "images": ImageFoldersConfig, "mnist": MnistConfig, "nmnist": NMnistConfig,
}  # fmt: skip
# `kind` of features, augmentation and model -> its shape.
FEATURES: dict[str, Any] = {
    "log_mel": LogMelConfig, "event_bins": EventBinsConfig, "pixels": PixelsConfig, "event_frames": EventFramesConfig,
    "reading": ReadingConfig,
}  # fmt: skip
AUGMENTATIONS: dict[str, Any] = {
    "spectrogram": AugmentationConfig, "spikes": SpikeAugmentationConfig, "images": ImageAugmentationConfig,
    "events": EventAugmentationConfig, "as_recorded": AsRecordedConfig,
}  # fmt: skip
MODELS: dict[str, Any] = {
    "spikescr": SpikeSCRConfig, "spiking_transformer": SpikingTransformerConfig, "resnet": ResNetConfig,
    "spiking_net": SpikingNetConfig,
    "stochastic": StochasticConfig,
    "cet_mae": CETMAERecipe, "e2t_ptr": E2TPTRRecipe,
}  # fmt: skip

# `pruning.kind` -> its shape; for models of every room.
PRUNINGS = {
    "none": NoPruningConfig, "lats": LATSConfig, "linear": LinearThresholdConfig, "magnitude": MagnitudeConfig,
    "prune_at_init": AtInitConfig,
}  # fmt: skip


@dataclass
class TrainerConfig:
    """How long and on what: epochs, clips a batch, threads (0: all cores, or $OMP_NUM_THREADS), and the accelerator
    Lightning should use.

    num_workers: processes that make the batches (0: this one). cache_mb: memory for the features of clips; what does
    not fit is computed again every epoch. accumulate: batches whose gradients are added up for one step. ema_decay: the
    weights that are validated and kept are a moving average of those trained (0: they are those). precision: `amp` is
    float16 products on a GPU and float32 elsewhere; else a name of Lightning's.
    """

    epochs: int = 30
    batch_size: int = 32
    threads: int = 0
    accelerator: str = "cpu"
    num_workers: int = 0
    cache_mb: float = CACHE_MB
    accumulate: int = 1
    ema_decay: float = 0.0
    precision: str = "32-true"

    def check(self) -> None:
        """Raise ValueError for lengths and shares that no training has."""
        for name in ("epochs", "batch_size", "accumulate"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"trainer.{name}={value}; use at least 1")
        for name in ("threads", "num_workers"):
            if (value := getattr(self, name)) < 0:
                raise ValueError(f"trainer.{name}={value}; use 0 or more")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"trainer.ema_decay={self.ema_decay} is no decay; use 0 for none, or less than 1")


@dataclass
class TrainConfig:
    name: str = MISSING
    run: str = MISSING  # folder the run writes
    seed: int = 0
    resume: bool = False  # go on from checkpoints/last.ckpt
    overwrite: bool = False  # delete the folder first
    leave_one_speaker_out: bool = False  # one training a speaker, each tested on the speaker it never heard
    audit: bool = False  # keep the weights of every epoch, and say afterwards what choosing on test would have claimed
    pretrained: str | None = None  # run of `spikeloom pretrain` that a decoder of EEG inherits from
    data: Any = MISSING  # one of SOURCES
    features: Any = field(default_factory=LogMelConfig)  # one of FEATURES
    augmentation: Any = field(default_factory=AugmentationConfig)  # one of AUGMENTATIONS
    model: Any = field(default_factory=SpikeSCRConfig)  # one of MODELS
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    pruning: Any = field(default_factory=NoPruningConfig)  # one of PRUNINGS


def open_train_config() -> TrainConfig:
    """The shape of a training whose data, features, augmentation and model are still to be chosen."""
    return TrainConfig(data=MISSING, features=MISSING, augmentation=MISSING, model=MISSING, pruning=MISSING)


def check_kinds(config: TrainConfig) -> None:
    """Raise ValueError where a key that tells shapes apart was changed without the shape, or rooms are mixed."""
    for group, key, shapes in (
        ("data", "source", SOURCES), ("features", "kind", FEATURES), ("augmentation", "kind", AUGMENTATIONS),
        ("model", "kind", MODELS), ("pruning", "kind", PRUNINGS),
    ):  # fmt: skip
        node = getattr(config, group)
        true = next(name for name, shape in shapes.items() if shape is type(node))
        given = getattr(node, key, true)
        if given != true:
            raise ValueError(
                f"{group}.{key}={given} does not fit the other keys of {group}, which are those of {true}; "
                f"choose another {group}=NAME instead"
            )
        if (room := room_of(node)) not in (room_of(config.data), "accel"):
            raise ValueError(
                f"{group} {true} is for {room}, and {config.data.source} data are {room_of(config.data)}; "
                f"choose another {group}=NAME, or an experiment=NAME that chooses all of them"
            )
    for part in (config.optimizer, config.trainer, config.pruning):
        part.check()


@dataclass
class DistillConfig(TrainConfig):
    """A training repeated from the finest to the coarsest time steps; trainer.epochs are those of one stage."""

    resolutions_ms: list[float] = field(default_factory=lambda: [5.0, 10.0, 25.0])
    teacher_pick: str = "best_acc"  # epoch a stage hands over: best_acc (tie: lower loss) or best_loss, on validation
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    undistilled: bool = True  # train the coarsest stage once more, without a teacher, to compare with
    undistilled_epochs: int | None = None  # null: as many as all stages have together
    energy_clips: int = 256  # test clips on which operations are counted


@dataclass
class OtherFolder:
    root: str | None = None


@dataclass
class EvaluateConfig:
    run: str = MISSING
    split: str = "test"  # train, valid, test or all
    data: OtherFolder = field(default_factory=OtherFolder)  # root: a folder to score instead of the run's own data
    out: str | None = None  # JSON file; default RUN/evaluation.json
    controls: ControlsConfig = field(default_factory=ControlsConfig)  # of a decoder of EEG: what is trained beside it
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)  # of a decoder of EEG: its tests


@dataclass
class ScoreConfig:
    predictions: str = MISSING  # text file with lines `Predicted: …` and `True: …`
    out: str | None = None  # JSON file
    noise: str | None = None  # the same of a noise control
    train: str | None = None  # sentences the decoder learnt from, one a line; null: the references weigh the words
    constant: str = CONSTANT_SENTENCE  # what a decoder that reads nothing could say
    tokenizer: str = MISSING  # folder with a byte-level BPE; without it bleu_bpe is null
    materials: str = MISSING  # folder of ZuCo's task materials, to tell film reviews from other text
    n_permutations: int = 999
    seed: int = 0


@dataclass
class ListenConfig:
    run: str = MISSING
    wav: str | None = None  # sound file; null: the microphone
    seconds: float = 0.0  # how long to hear the microphone; 0: until Ctrl-C
    out: str | None = None  # JSON file
    spotter: SpotterConfig = field(default_factory=SpotterConfig)
    eeg: str | None = None  # EEG recording to replay to a run of an EEG-to-text model; seconds: of it, 0: all
    cap: str | None = None  # montage of MNE, such as biosemi32, where the recording does not name its electrodes
    reject_uv: float | None = None  # rejects pieces beyond; null: 90 on the net of ZuCo, none on other caps
    piece_s: float = 0.25  # of EEG that stand for a fixation where the eyes were not tracked
    replay: ReplayConfig = field(default_factory=lambda: ReplayConfig(window_s=4.0, step_s=1.0))


@dataclass
class AuditConfig:
    run: str = MISSING
    batches: int = 2  # real batches that are watched
    batch_size: int = 16
    count_encoder_once: bool = False  # the first convolution of a picture: once, or as published T times
    data: OtherFolder = field(default_factory=OtherFolder)  # root: a folder to read instead of the run's own data
    out: str | None = None  # folder; default RUN/audit


@dataclass
class ConvertConfig:
    checkpoint: str = MISSING  # released weights: .safetensors, .pth, .tar
    out: str = MISSING  # folder of the run that is written
    network: str | None = None  # also model=…: one of vision.variants, or a family with heads; null: found by the sizes
    heads: int | None = None
    tau: float | None = None
    T: int | None = None
    classes: str | None = None  # text file with a class a line, in the order of the classifier; null: known, or numbers


@dataclass
class ExportConfig:
    run: str = MISSING
    batches: int = 4  # real batches on which densities are measured
    batch_size: int = 16
    strict: bool = True  # an operator without a price is an error, not an entry in unsupported_ops.json
    data: OtherFolder = field(default_factory=OtherFolder)  # root: a folder to read instead of the run's own data
    gradients: bool = True  # run a backward pass on the same batches, for the densities of gradients
    nir: bool = False  # model.nir as well: feed-forward networks (pip install 'spikeloom[nir]')
    nir_dt_s: float = 1e-3  # seconds that a time step stands for in model.nir
    onnx: bool = False  # model.onnx as well, for onnxruntime (pip install 'spikeloom[onnx]')


@dataclass
class SimulateConfig:
    what: str = "step"  # step: cost a training step; conformance: compare the model with published figures
    workload: str | None = None  # workload.json of an export; a step needs this or a network
    network: str | None = None  # s_resnet18, s_vgg16 or spikingformer_8_768: from published shapes, nothing measured
    time_steps: int = 4  # of such a network
    batch_size: int = 16
    chip: ChipConfig = field(default_factory=ChipConfig)  # chip=NAME or chip=FILE.yaml; chip.KEY changes a number
    mapping: MappingConfig = field(default_factory=MappingConfig)
    out: str | None = None  # folder; default: sim/ beside the workload's folder, runs/simulate/NETWORK
    uncertainty: bool = True  # interval and tornado of the energy, and the share of each constant
    what_if: bool = True  # the same step on every preset
    oracle: str | None = None  # conformance: folder of layer energies in CSV; default: oracle/ of the data folder
    gpu: str | None = "a100_40gb"  # what to stand beside: a preset or a YAML file; null: nothing
    counters: str | None = None  # CSV of Nsight Compute with the DRAM counters of this workload on that GPU


@dataclass
class EnginesConfig:
    task: str = "digits"  # digits (embedded), mnist, fsdd or synthetic
    network: str = ""  # also model=…: cnn (default) or mlp for pictures, spikescr for clips
    root: str | None = None  # folder of the data; default: below $SPIKELOOM_DATA
    epochs: int = 8
    batch_size: int = 32
    lr: float = 2e-3
    anneal: bool = False  # let the learning rate fall to zero along half a cosine
    weight_decay: float = 0.0
    seed: int = 0
    limit: int = 0  # training samples, drawn by the seed; 0: all
    precision: str = "fp16"  # of operands and products: fp16, or fp32 to compare
    accumulate: str = "fp32"  # of partial sums: fp32 or fp16
    window: float | None = 0.5  # half-width of a window surrogate for all neurons, one bit; null: the network's own
    loss_scale: float = 1024.0  # power of two that keeps small gradients above the smallest FP16 number
    chip: str = "neuromc"  # prices every epoch
    threads: int = 1
    out: str | None = None  # folder; default: runs/engines/TASK_MODEL/seedSEED, in a sweep out/TASK_MODEL_seedSEED


@dataclass
class FederateConfig:
    task: str = "digits"  # digits (embedded), mnist, fsdd or synthetic
    network: str = ""  # also model=…: cnn (default) or mlp for pictures, spikescr for clips
    root: str | None = None  # folder of the data; default: below $SPIKELOOM_DATA
    workers: int = 5
    rounds: int = 10
    local_epochs: int = 1  # of a worker, in a round
    batch_size: int = 32  # 0: all samples of the worker at once
    local_optimizer: str = "adam"  # also optimizer=…: adam or sgd; its moments stay with the worker
    lr: float = 2e-3
    split: str = "iid"  # iid, dirichlet, shards (two a worker) or speakers
    alpha: float = 0.5  # of dirichlet: small, few classes a worker
    strategy: str = "fedavg"  # fedavg or fedprox
    mu: float = 0.01  # of fedprox: pull to the server's weights
    engine: str = "plain"  # plain, or flower (pip install 'spikeloom[federated]')
    dies: dict[int, int] = field(default_factory=dict)  # worker -> round from which it does not answer, as {3:2}
    slow: dict[int, float] = field(default_factory=dict)  # worker -> how many times slower, as {1:4.0}
    deadline_s: float | None = None  # the server does not wait longer; null: for everyone
    compare_iid: bool = True  # train an uneven split once more as iid
    chip: str = "fl5"  # of every worker
    link_bits_per_s: float = 1e9  # assumed
    link_pj_per_bit: float = 0.0  # price of a bit on the link; no figure is published
    seed: int = 0
    limit: int = 0  # training samples, drawn by the seed; 0: all
    threads: int = 1
    out: str | None = None  # folder; default: runs/federate/TASK_MODEL_SPLIT/seedSEED


@dataclass
class DemoConfig:
    run: str = "runs/demo"
    chapters: list[str] = field(default_factory=lambda: ["speech", "pruning", "brain", "vision"])
    epochs: int = 16  # of the speech chapter
    seed: int = 0
    chip: str = "neuromc"


@dataclass
class DataConfig:
    what: str = "check"  # check, describe, cochlea or leakage; of zuco also synthesize, split, cache, features, bids
    dataset: str = ""  # check, describe: one of conf/data, zuco or eeg (recordings of any kind)
    root: str | None = None  # where it lies; default: the folder conf/data names; cochlea: any folder of wavs (or in=)
    out: str = "data.html"  # the page of describe, the FILE.h5 of cochlea
    cochlea: CochleaConfig = field(default_factory=CochleaConfig)
    time_dtype: str = "float32"  # of the spikes cochlea writes; float16 as in the published files
    batch_size: int = 16  # clips that cochlea hands on at a time
    tasks: list[str] = field(default_factory=lambda: ["SR1"])  # synthesize: SR1, NR1, TSR1, NR2, TSR2
    subjects: int = 3  # synthesize: readers a version
    sentences: int = 40  # synthesize: of each task
    strength: float = 1.0  # synthesize: of the planted signal, 0 for none
    missing: float = 0.02  # synthesize: share of the sentences without any data
    rejected: float = 0.002  # synthesize: share of the fixations with artefacts
    raw: bool = False  # synthesize: continuous EEG and gaze as well, features computed from them
    format: str = "published"  # synthesize: matlab5 for version 1 and hdf5 for 2; or one of these for both
    text: str | None = None  # synthesize: a file with a sentence a line; null: ZuCo's task materials where they lie
    materials: str | None = None  # synthesize: folder of the task materials; null: zuco below the data folder
    seed: int = 0  # synthesize
    split: SplitConfig = field(default_factory=SplitConfig)  # split: unit run or key, seed, shares, margin
    asc: str | None = None  # features of dataset=eeg: EyeLink file beside root=RECORDING, fixations instead of windows
    cap: str | None = None  # dataset=eeg: montage of MNE, such as biosemi32, where a recording does not name electrodes
    reject_uv: float | None = None  # dataset=eeg: rejects pieces beyond; null: 90 on ZuCo's net, none on others
    limit: int = 0  # features, bids of zuco: recordings to work on, the first ones; 0: all


def pruned_folder(pruning: Any) -> str:
    """`lats-sparsity0.9/` and the like, so that runs pruned alike lie together; nothing without pruning."""
    if pruning.kind == "none":
        return ""
    targets = [f"-{t}{pruning.get(t)}" for t in ("sparsity", "threshold", "l1") if pruning.get(t) is not None]
    return f"{pruning.kind}{''.join(targets)}/"


@cache
def register() -> None:
    """Make the shapes known to Hydra under the names the YAML files build on."""
    OmegaConf.register_new_resolver("pruned", pruned_folder, replace=True)
    store = ConfigStore.instance()
    for name, node in {
        "train": open_train_config(), "pretrain": open_train_config(),
        "distill": DistillConfig(data=MISSING, features=MISSING, augmentation=MISSING, model=MISSING),
        "evaluate": EvaluateConfig, "export": ExportConfig,
        "simulate": SimulateConfig, "demo": DemoConfig, "bench": BenchConfig, "data": DataConfig,
        "engines": EnginesConfig, "federate": FederateConfig,
        "listen": ListenConfig, "score": ScoreConfig,
        "audit": AuditConfig, "convert": ConvertConfig,
    }.items():  # fmt: skip
        store.store(name=f"{name}_schema", node=node)
    for group, name, node in (
        *(("data", f"{name}_schema", source) for name, source in SOURCES.items()),
        *(("features", name, front_end) for name, front_end in FEATURES.items()),
        *(("augmentation", name, augmentation) for name, augmentation in AUGMENTATIONS.items()),
        *(("model", name, model) for name, model in MODELS.items()),
        *(("pruning", f"{name}_schema", pruning) for name, pruning in PRUNINGS.items()),
        ("optimizer", "adamw_cosine", OptimizerConfig),
        ("trainer", "lightning", TrainerConfig),
    ):
        store.store(group=group, name=name, node=node)
