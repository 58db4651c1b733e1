"""Small runs with random weights, one of every domain and front end, written as a training leaves them."""

from pathlib import Path
from typing import Any

import torch

from spikeloom.accel.common.files import write_json
from spikeloom.accel.learning.stochastic.files import save_network
from spikeloom.accel.learning.stochastic.network import StochasticConfig
from spikeloom.bci.data.tokenizer import train_tokenizer
from spikeloom.bci.models.config import AsRecordedConfig, E2TPTRRecipe, TrialConfig
from spikeloom.bci.synthetic.zuco import SyntheticZuCoConfig
from spikeloom.pipelines.api.models import create_model
from spikeloom.pipelines.config.train import TrainConfig
from spikeloom.pipelines.training.run_dir import TrainedModel, save_config, save_model
from spikeloom.speech.augmentation import AugmentationConfig
from spikeloom.speech.datasets.shd import SpikeFileConfig
from spikeloom.speech.datasets.synthetic import SyntheticConfig
from spikeloom.speech.features.event_bins import EventBinsConfig
from spikeloom.speech.features.log_mel import LogMelConfig
from spikeloom.speech.models.spikescr import SpikeSCRConfig
from spikeloom.speech.spike_augmentation import SpikeAugmentationConfig
from spikeloom.vision.datasets.event_sets import NMnistConfig
from spikeloom.vision.datasets.sources import ScannedDigitsConfig
from spikeloom.vision.models.config import SpikingNetConfig, SpikingTransformerConfig
from spikeloom.vision.transforms.augmentation import EventAugmentationConfig, ImageAugmentationConfig
from spikeloom.vision.transforms.frames import EventFramesConfig, PixelsConfig

FEW_WORDS = SyntheticConfig(n_words=3, n_speakers=3, takes=1, n_test_speakers=1, n_valid_speakers=1)
DIGITS = tuple("0123456789")
WORDS = ("yes", "no", "up")
SENTENCES = ("the film is long", "a quiet house on the hill", "he reads the second book")


def write_run(folder: Path, network: Any, class_names: tuple[str, ...], **parts: Any) -> Path:
    """A run directory; `parts` are the data, features, augmentation and model of its configuration."""
    trained = TrainedModel(model=network, features=parts["features"], class_names=class_names)
    save_model(folder / "model", trained, "# a model of a test\n")
    save_config(folder, TrainConfig(name=folder.name, run=str(folder), **parts))
    write_json(folder / "result.json", {"name": folder.name})
    return folder


def digits(root: Path) -> Path:
    """A small spiking convolutional network on the scanned digits of scikit-learn, 16 x 16."""
    features = PixelsConfig(channels=1, size=16, mean=[0.3], std=[0.38])
    model = create_model("spiking_cnn", size=16, T=2)
    return write_run(
        root / "digits", model, DIGITS, data=ScannedDigitsConfig(), features=features,
        augmentation=ImageAugmentationConfig(), model=SpikingNetConfig(T=2),
    )  # fmt: skip


def events(root: Path) -> Path:
    """A spiking transformer on the event recordings of N-MNIST."""
    sizes = {"widths": [16], "depths": [1], "heads": 2}
    model = create_model("spiking_transformer", n_inputs=2, n_outputs=10, T=4, **sizes)
    return write_run(
        root / "events", model, DIGITS, data=NMnistConfig(), features=EventFramesConfig(n_frames=4),
        augmentation=EventAugmentationConfig(), model=SpikingTransformerConfig(T=4, **sizes),
    )  # fmt: skip


def words(root: Path) -> Path:
    """A causal SpikeSCR on synthetic keywords."""
    model = create_model("spikescr_1l_8_128", n_outputs=3, width=16, heads=1, causal=True)
    return write_run(
        root / "words", model, WORDS, data=FEW_WORDS, features=LogMelConfig(causal=True),
        augmentation=AugmentationConfig(), model=SpikeSCRConfig(width=16, heads=1, causal=True),
    )  # fmt: skip


def spikes(root: Path) -> Path:
    """A SpikeSCR on spike trains of 700 units."""
    model = create_model("spikescr", n_outputs=3, width=16, heads=1)
    return write_run(
        root / "spikes", model, WORDS, data=SpikeFileConfig(root="data/spikes"), features=EventBinsConfig(),
        augmentation=SpikeAugmentationConfig(), model=SpikeSCRConfig(width=16, heads=1),
    )  # fmt: skip


def decoder(root: Path) -> Path:
    """An E2T-PTR with its tokenizer."""
    tokenizer = train_tokenizer(SENTENCES, 300)
    model = create_model("e2t_ptr_greedy", sizes="cet_mae_planted", n_outputs=tokenizer.vocab_size)
    run = write_run(
        root / "decoder", model, (), data=SyntheticZuCoConfig(), features=TrialConfig(),
        augmentation=AsRecordedConfig(), model=E2TPTRRecipe(),
    )  # fmt: skip
    tokenizer.save(run / "model")
    return run


def stochastic(root: Path) -> Path:
    """A binary-stochastic network on the scanned digits."""
    config = StochasticConfig(hidden=[12])
    generator = torch.Generator().manual_seed(0)
    network = config.build((1, 16, 16), len(DIGITS))
    run = root / "stochastic"
    (run / "model").mkdir(parents=True)
    save_network(run / "model", config, (1, 16, 16), DIGITS, 8, config.synapses(network, 8, generator))
    features = PixelsConfig(channels=1, size=16, interpolation="nearest", mean=[0.0], std=[1.0])
    save_config(run, TrainConfig(
        name="stochastic", run=str(run), data=ScannedDigitsConfig(), features=features,
        augmentation=ImageAugmentationConfig(), model=config,
    ))  # fmt: skip
    return run


ALL = {"digits": digits, "events": events, "words": words, "spikes": spikes, "decoder": decoder}
