"""Small labelled problems that fit in memory, for verbs that train many times: digits, mnist, fsdd, synthetic.

Every sample has the same number of time steps, so nothing is padded or masked: pictures are shown in each step, clips
are cut to the median length and end in silence where they are shorter. Test samples are drawn at random, by a seed
(MNIST has its own): they are not of unheard voices. `groups` says who spoke.
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

from accel.spiking.neuron import LIF
from accel.spiking.surrogate import Rectangular
from speech.batches import Draw, featurise
from speech.digits import DigitsConfig
from speech.features import LogMelConfig
from speech.spikescr import SpikeSCRConfig, log_mean_probability
from speech.synthetic import SyntheticConfig
from vision.images import read_mnist
from vision.small_nets import small_net

TASKS = ("digits", "mnist", "fsdd", "synthetic")
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

    def encode(self, x: Tensor) -> Tensor:
        """Samples [B, ...] as the network takes them: [T, B, ...]."""
        if self.model_name == "spikescr":
            return x.transpose(0, 1).contiguous()
        return x.unsqueeze(0).expand(self.time_steps, *[-1] * x.dim()).contiguous()

    def build(self, seed: int, window: float | None = None) -> nn.Module:
        """The network with weights drawn by `seed`; `window` gives all its neurons a window surrogate."""
        torch.manual_seed(seed)
        if self.model_name == "spikescr":
            sizes = SpikeSCRConfig(width=32, heads=2, dropout=0.0)
            model: nn.Module = sizes.build(self.train.x.shape[2], self.n_classes)
        else:
            model = small_net(self.model_name, self.train.x.shape[2], self.n_classes)  # type: ignore[arg-type]
        for module in model.modules():
            if window is not None and isinstance(module, LIF):
                module.parameters_ = replace(module.parameters_, surrogate=Rectangular(window))
        return model

    def log_probabilities(self, out: Tensor) -> Tensor:
        """[T, B, classes] -> [B, classes]: softmax of each step, averaged (speech), or of the mean over steps."""
        return log_mean_probability(out) if self.model_name == "spikescr" else F.log_softmax(out.mean(0), 1)

    def loss(self, out: Tensor, labels: Tensor) -> Tensor:
        return F.nll_loss(self.log_probabilities(out), labels)

    @torch.no_grad()
    def accuracy(self, model: nn.Module, examples: Examples, batch_size: int = 250) -> float:
        """Correct / total in evaluation mode."""
        was_training, right = model.training, 0
        model.eval()
        for ids in torch.arange(len(examples)).split(batch_size):
            log_p = self.log_probabilities(model(self.encode(examples.x[ids])))
            right += int((log_p.argmax(1) == examples.labels[ids]).sum())
        model.train(was_training)
        return right / len(examples)


def small_task(name: str, model: str = "", root: str | None = None, seed: int = 0, limit: int = 0) -> SmallTask:
    """One of `TASKS`. `model`: spikescr for clips, cnn (default) or mlp for pictures. `limit` > 0 keeps that many
    training samples, drawn by the seed.

    Raises ValueError for a name or model that is not there, FileNotFoundError where data are missing.
    """
    if name not in TASKS:
        raise ValueError(f"task={name} is unknown; use one of {', '.join(TASKS)}")
    pictures = name in ("digits", "mnist")
    model = model or ("cnn" if pictures else "spikescr")
    if (model == "spikescr") == pictures:
        raise ValueError(f"model={model} does not fit task={name}; use {'cnn or mlp' if pictures else 'spikescr'}")
    folder = Path(root) if root else Path(os.environ.get("SPIKELOOM_DATA", "data")) / name
    train, test, n_classes, steps = _pictures(name, folder, seed) if pictures else _clips(name, folder, seed)
    if limit:
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
        train = train.select(order[:limit])
    return SmallTask(
        name=name, model_name=model, train=train, test=test, n_classes=n_classes, time_steps=steps
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


def _clips(name: str, folder: Path, seed: int) -> tuple[Examples, Examples, int, int]:
    source = DigitsConfig(root=str(folder)) if name == "fsdd" else SyntheticConfig()
    clips: Any = source.load()
    features = featurise(clips, (LogMelConfig.gsc_8k() if name == "fsdd" else LogMelConfig.gsc()).build())
    batch = features[Draw(0, torch.arange(len(clips)))]
    steps = int(batch.lengths.median())
    everything = Examples(x=batch.features[:, :steps].contiguous(), labels=batch.labels, groups=tuple(clips.speakers))
    order = torch.randperm(len(clips), generator=torch.Generator().manual_seed(seed))
    n_test = round(TEST_SHARE * len(clips))
    return everything.select(order[n_test:]), everything.select(order[:n_test]), len(clips.class_names), steps

