"""What `spikeloom bench pruning` trains: a small SpikeSCR on spoken digits, a small Spikingformer on written ones."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from spikeloom.accel.common.statistics import accuracy
from spikeloom.pipelines.config.train import TrainConfig
from spikeloom.pipelines.domains import speech, vision
from spikeloom.pipelines.training.module import ClassificationModule
from spikeloom.pipelines.training.optim import OptimizerConfig
from spikeloom.speech.datamodule import SpeechDataModule
from spikeloom.speech.datasets.fsdd import DigitsConfig
from spikeloom.speech.features.log_mel import LogMelConfig
from spikeloom.speech.models.prediction import predict as predict_speech
from spikeloom.speech.models.spikescr import SpikeSCR, SpikeSCRConfig
from spikeloom.vision.datamodule import VisionDataModule
from spikeloom.vision.datasets.samples import VisionSplits, in_total, stratified
from spikeloom.vision.datasets.sources import MnistConfig
from spikeloom.vision.models.config import SpikingTransformerConfig
from spikeloom.vision.transforms.frames import PixelsConfig

HELD_OUT = "theo"
PICTURES = 6000  # of MNIST's 55,000 to learn from
BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Data, set up, and the network for them.

    build() -> a task with fresh weights; test(model) -> accuracy on the `n_test` test samples; example_batches() ->
    batches [T, B, ...] of validation samples to export with. tested: what the accuracy is of.
    """

    name: str
    network: str
    tested: str
    epochs: int
    data: Any
    n_test: int
    build: Callable[[], ClassificationModule]
    test: Callable[[nn.Module], float]
    example_batches: Callable[[], list[Tensor]]


def config_of(data: Any, sizes: Any, optimizer: OptimizerConfig) -> TrainConfig:
    """The configuration of a training on these data."""
    return TrainConfig(
        name="pruning", run="", data=data.source, features=data.features, model=sizes, optimizer=optimizer
    )


def spoken_digits(folder: Path) -> Problem:
    """FSDD in `folder`/fsdd, one voice held out: SpikeSCR, 28,224 weights, steps of 50 ms."""
    data = SpeechDataModule(
        DigitsConfig(root=str(folder / "fsdd"), test_speaker=HELD_OUT, valid_fraction=0.1),
        LogMelConfig.gsc_8k(hop_ms=50.0), batch_size=BATCH,
    )  # fmt: skip
    data.setup()
    sizes = SpikeSCRConfig(width=32, heads=2)

    def build() -> ClassificationModule:
        model = sizes.build(data.n_inputs, data.n_classes)
        return ClassificationModule(config_of(data, sizes, OptimizerConfig(lr=0.012)), data.spec, model)

    return Problem(
        name="spoken_digits", network="SpikeSCR", tested="an unseen speaker", epochs=12, data=data,
        n_test=len(data.test_set), build=build,
        test=lambda model: accuracy(predict_speech(cast(SpikeSCR, model), data.test_set), data.test_set.labels),
        example_batches=lambda: speech.unpadded_batches(data.valid_set, 2, 16),
    )  # fmt: skip


@dataclass(kw_only=True)
class FewMnistConfig(MnistConfig):
    """MNIST with `n` of its training pictures, as many of each class as there are in proportion."""

    n: int = PICTURES

    def build(self) -> VisionSplits:
        splits = super().build()
        labels = splits.train.labels
        _, drawn = stratified(labels, in_total(labels, self.n, 10), self.split_seed)
        return splits._replace(train=splits.train.select(drawn))


def written_digits(folder: Path) -> Problem:
    """MNIST in `folder`/mnist, 6,000 pictures of 16 x 16 to learn from: Spikingformer, 41,926 weights, two steps."""
    pixels = PixelsConfig(channels=1, size=16, interpolation="bilinear", mean=[0.1307], std=[0.3081])
    data = VisionDataModule(FewMnistConfig(root=str(folder / "mnist")), pixels, batch_size=BATCH)
    data.setup()
    sizes = SpikingTransformerConfig(name="spikingformer_digits", widths=[32], heads=4, T=2)

    def build() -> ClassificationModule:
        model = sizes.build(data.n_inputs, data.n_classes)
        optimizer = OptimizerConfig(lr=0.01, weight_decay=0.01, warmup_epochs=2.4, warmup_from=0.0004)
        return ClassificationModule(config_of(data, sizes, optimizer), data.spec, model)

    return Problem(
        name="written_digits", network="Spikingformer", tested="MNIST's test pictures", epochs=8, data=data,
        n_test=len(data.test_set), build=build,
        test=lambda model: accuracy(vision.predict(model, data.test_set), data.test_set.labels),
        example_batches=lambda: vision.spread_batches(data.valid_set, sizes.T, 2, 16),
    )  # fmt: skip


PROBLEMS: dict[str, Callable[[Path], Problem]] = {"spoken_digits": spoken_digits, "written_digits": written_digits}


def problem(name: str, folder: Path) -> Problem:
    """One of `PROBLEMS`, its data read from `folder`. Raises ValueError for another name."""
    if name not in PROBLEMS:
        raise ValueError(f"pruning.task={name} is unknown; use {' or '.join(PROBLEMS)}")
    return PROBLEMS[name](folder)
