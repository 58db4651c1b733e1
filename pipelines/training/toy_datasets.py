"""Small labelled problems that fit in memory, for verbs that train many times: digits, mnist, fsdd, synthetic.

Every sample has the same number of time steps, so nothing is padded or masked: pictures are shown in each step, clips
are cut to the median length and end in silence where they are shorter. Test samples are drawn at random, by a seed:
random split, speakers shared (of digits, writers). Accuracy on them says whether two trainings agree, not how well a
model recognises new speakers. With `unseen`, they are all clips of one speaker, drawn by the seed, of whom nothing is
trained on. Only MNIST has a published split. `split` has the words for reports; `groups` says who spoke. Trials of EEG
are in `toy_trials`.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikeloom.accel.common.batches import BatchIndex
from spikeloom.accel.spiking.functional import LIFParameters
from spikeloom.accel.spiking.surrogate import Rectangular
from spikeloom.speech.batches import featurise
from spikeloom.speech.datasets.fsdd import DigitsConfig
from spikeloom.speech.datasets.synthetic import SyntheticConfig
from spikeloom.speech.features.log_mel import LogMelConfig
from spikeloom.speech.models.spikescr import SpikeSCRConfig, log_mean_probability
from spikeloom.vision.datasets.images import read_mnist
from spikeloom.vision.models.config import SpikingResNetConfig, SpikingTransformerConfig
from spikeloom.vision.models.small_nets import small_net

TASKS = ("digits", "mnist", "fsdd", "synthetic")
# How the test samples were chosen, for every line that prints an accuracy on them.
SPLITS = {
    "digits": "random split, writers shared", "mnist": "published split",
    "fsdd": "random split, speakers shared", "synthetic": "random split, speakers shared",
}  # fmt: skip
Inputs = Tensor | tuple[Tensor, ...]
# Small forms of the published networks: variant and what makes it small.
TRANSFORMERS: dict[str, tuple[str, dict[str, Any]]] = {
    "spikingformer": ("spikingformer_4_384", {"widths": [32], "depths": [1], "heads": 1}),
    "cml": ("spikingformer_cml_4_384", {"widths": [32], "depths": [1], "heads": 1}),
    "qkformer": ("qkformer_hst_4_384", {"widths": [16, 16, 32], "depths": [1, 1, 1], "heads": 2}),
    "ms_qkformer": ("ms_qkformer_hst_4_384", {"widths": [16, 16, 32], "depths": [1, 1, 1], "heads": 2}),
}
RESNETS: dict[str, dict[str, Any]] = {
    name: {"name": name, "widths": [16, 16, 32, 32], "stem": "small"} for name in ("sew_resnet18", "spiking_resnet18")
}
SPIKESCRS = {
    "spikescr": SpikeSCRConfig(width=32, heads=2, dropout=0.0), "spikescr_1l_8_128": SpikeSCRConfig(dropout=0.0),
    "spikescr_2l_16_256": SpikeSCRConfig(width=256, heads=16, depth=2, mlp_ratio=4, dropout=0.0),
}  # fmt: skip
PICTURE_MODELS = ("cnn", "mlp", *TRANSFORMERS, *RESNETS)
SMALLEST_SIDE = 16  # of pictures that a transformer or a ResNet takes: smaller ones have their pixels repeated
TEST_SHARE = 0.2
PICTURE_STEPS = 4


@dataclass(frozen=True, kw_only=True)
class Examples:
    """x [n, ...] without time (pictures) or [n, T, F] (clips), labels int64 [n], who each is of ("" for nobody)."""

    x: Tensor
    labels: Tensor
    groups: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: Sequence[int] | Tensor) -> "Examples":
        chosen = torch.as_tensor(indices, dtype=torch.long)
        return Examples(x=self.x[chosen], labels=self.labels[chosen], groups=tuple(self.groups[i] for i in chosen))


@dataclass(frozen=True, kw_only=True)
class SmallTask:
    """A problem and the network for it."""

    name: str
    model_name: str
    train: Examples
    test: Examples
    n_classes: int
    time_steps: int
    split: str  # how the test samples were chosen
    axes: str = "TB..."  # of what the network takes

    def encode(self, x: Tensor) -> Inputs:
        """Samples [B, ...] as the network takes them: [T, B, ...]."""
        if self.model_name in SPIKESCRS:
            return x.transpose(0, 1).contiguous()
        if self.model_name not in ("cnn", "mlp") and x.shape[-1] < SMALLEST_SIDE:
            x = F.interpolate(x, scale_factor=-(-SMALLEST_SIDE // x.shape[-1]), mode="nearest")
        return x.unsqueeze(0).expand(self.time_steps, *[-1] * x.dim()).contiguous()

    def build(self, seed: int, window: float | None = None) -> nn.Module:
        """The network with weights drawn by `seed`; `window` gives all its neurons a window surrogate."""
        torch.manual_seed(seed)
        name = self.model_name
        if name in SPIKESCRS:
            model: nn.Module = SPIKESCRS[name].build(self.train.x.shape[2], self.n_classes)
        elif name in TRANSFORMERS:
            variant, sizes = TRANSFORMERS[name]
            built = SpikingTransformerConfig(name=variant, T=self.time_steps, channels_last=False, **sizes)
            model = built.build(self.train.x.shape[1], self.n_classes)
        elif name in RESNETS:
            spiking = SpikingResNetConfig(T=self.time_steps, channels_last=False, **RESNETS[name])
            model = spiking.build(self.train.x.shape[1], self.n_classes)
        else:
            model = small_net(name, self.train.x.shape[2], self.n_classes)  # type: ignore[arg-type]
        for module in model.modules():
            neurons: Any = getattr(module, "parameters_", None)
            if window is not None and isinstance(neurons, LIFParameters):
                module.parameters_ = replace(neurons, surrogate=Rectangular(window))  # type: ignore[assignment]
        return model

    def log_probabilities(self, out: Tensor) -> Tensor:
        """[T, B, classes] -> [B, classes]: softmax of each step, averaged (speech), or of the mean over steps, which
        some networks have taken already."""
        if self.model_name in SPIKESCRS:
            return log_mean_probability(out)
        return F.log_softmax(out if out.dim() == 2 else out.mean(0), 1)

    def run(self, model: nn.Module, x: Inputs) -> Tensor:
        """What the network makes of encoded samples."""
        out: Tensor = model(*x) if isinstance(x, tuple) else model(x)
        return out

    def loss(self, out: Tensor, labels: Tensor) -> Tensor:
        return F.nll_loss(self.log_probabilities(out), labels)

    @torch.no_grad()
    def accuracy(self, model: nn.Module, examples: Examples, batch_size: int = 250) -> float:
        """Correct / total in evaluation mode."""
        was_training, right = model.training, 0
        model.eval()
        for ids in torch.arange(len(examples)).split(batch_size):
            log_p = self.log_probabilities(self.run(model, self.encode(examples.x[ids])))
            right += int((log_p.argmax(1) == examples.labels[ids]).sum())
        model.train(was_training)
        return right / len(examples)


def small_task(
    name: str, model: str = "", root: str | None = None, seed: int = 0, limit: int = 0, unseen: bool = False
) -> SmallTask:
    """One of `TASKS`. `model`: one of `SPIKESCRS` for clips, of `PICTURE_MODELS` for pictures. `limit` > 0 keeps that
    many training samples, drawn by the seed. `unseen`: the test clips are those of one speaker.

    Raises ValueError for a name or model that is not there, FileNotFoundError where data are missing.
    """
    if name not in TASKS:
        raise ValueError(f"task={name} is unknown; use one of {', '.join(TASKS)}")
    pictures = name in ("digits", "mnist")
    model = model or ("cnn" if pictures else "spikescr")
    fitting = PICTURE_MODELS if pictures else tuple(SPIKESCRS)
    if model not in fitting:
        raise ValueError(f"model={model} does not fit task={name}; use one of {', '.join(fitting)}")
    folder = Path(root) if root else Path(os.environ.get("SPIKELOOM_DATA", "data")) / name
    if unseen and pictures:
        raise ValueError(f"task={name} names no speakers; use unseen=false, or task=fsdd")
    train, test, n_classes, steps = _pictures(name, folder, seed) if pictures else _clips(name, folder, seed, unseen)
    if limit:
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
        train = train.select(order[:limit])
    return SmallTask(
        name=name, model_name=model, train=train, test=test, n_classes=n_classes, time_steps=steps,
        split=f"speaker {test.groups[0]}, not in the training set" if unseen else SPLITS[name],
    )  # fmt: skip


def _pictures(name: str, folder: Path, seed: int) -> tuple[Examples, Examples, int, int]:
    def examples(pixels: np.ndarray, labels: np.ndarray, white: float) -> Examples:
        x = torch.from_numpy(pixels.astype(np.float32) / white)[:, None]
        return Examples(x=x, labels=torch.from_numpy(labels.astype(np.int64)), groups=("",) * len(labels))

    if name == "mnist":
        sets = (read_mnist(folder, split) for split in ("train", "test"))
        train, test = (examples(np.asarray(found.content), found.labels, 255.0) for found in sets)
        return train, test, 10, PICTURE_STEPS
    from sklearn.datasets import load_digits

    found = load_digits()
    everything = examples(found.images, found.target, 16.0)
    order = torch.randperm(len(everything), generator=torch.Generator().manual_seed(seed))
    n_test = round(TEST_SHARE * len(everything))
    return everything.select(order[n_test:]), everything.select(order[:n_test]), 10, PICTURE_STEPS


def _clips(name: str, folder: Path, seed: int, unseen: bool) -> tuple[Examples, Examples, int, int]:
    source = DigitsConfig(root=str(folder)) if name == "fsdd" else SyntheticConfig()
    clips: Any = source.load()
    features = featurise(clips, (LogMelConfig.gsc_8k() if name == "fsdd" else LogMelConfig.gsc()).build())
    batch = features[BatchIndex(0, torch.arange(len(clips)))]
    steps = int(batch.lengths.median())
    everything = Examples(x=batch.features[:, :steps].contiguous(), labels=batch.labels, groups=tuple(clips.speakers))
    order = torch.randperm(len(clips), generator=torch.Generator().manual_seed(seed))
    n_test = round(TEST_SHARE * len(clips))
    if unseen:
        names = sorted(set(everything.groups))
        theirs = torch.tensor([group == names[seed % len(names)] for group in everything.groups])[order]
        order, n_test = torch.cat((order[theirs], order[~theirs])), int(theirs.sum())
    return everything.select(order[n_test:]), everything.select(order[:n_test]), len(clips.class_names), steps
