"""What a decoder must beat: inputs without the content of the EEG, and sentences without any input.

A control is trained again from the start and tested like the decoder itself, with several seeds; a decoder tested on
noise it never saw in training proves nothing. `CONTROLS` says which trainings that takes; the functions make the inputs
from sequences of float [L, features], one per trial, whose group is its (subject, task). They change no argument.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

Mask = Literal["real", "neutral"]
SEEDS = 5  # trainings of each control, at least


@dataclass(frozen=True, kw_only=True)
class Control:
    """`name`, what it is, and with which masks it is trained: the `real` lengths of the trials, or `neutral` ones
    drawn from other trials of the same subject and task. `encoder`: whether an EEG encoder is pre-trained for it."""

    name: str
    definition: str
    masks: tuple[Mask, ...]
    encoder: bool = True


CONTROLS = (
    Control(
        name="noise",
        definition="Gaussian tokens with the mean and covariance of each subject and task, from training trials only",
        masks=("real", "neutral"),
    ),
    Control(name="phase", definition="EEG with randomised phases, the same on all channels", masks=("real",)),
    Control(
        name="shuffled",
        definition="EEG of another trial of the same subject and task",
        masks=("real", "neutral"),
    ),
    Control(name="zero", definition="all zeros", masks=("real", "neutral")),
    Control(name="mask_only", definition="one constant token, as often as words were fixated", masks=("real",)),
    Control(
        name="random_init",
        definition="the EEG through an encoder that was never pre-trained; the text decoder fine-tuned",
        masks=("real",),
        encoder=False,
    ),
    Control(name="gaze_only", definition="durations of fixations, no EEG", masks=("real",)),
    Control(
        name="text_prior_only", definition="the text decoder without an input", masks=("neutral",), encoder=False
    ),
)  # fmt: skip


# What is content-free by construction, and so must be beaten for a claim; `phase` and `random_init` hold EEG.
WITHOUT_EEG = ("noise", "shuffled", "zero", "mask_only", "gaze_only", "text_prior_only")


@dataclass
class ControlsConfig:
    """Which controls are trained and tested beside a decoder: `names` (empty: all of CONTROLS), each with `seeds`
    seeds. pretrain: whether each also has a CET-MAE of its own, pre-trained on its inputs; otherwise it inherits the
    encoder that the decoder has. power_runs: simulated experiments at each strength of the power curve; 0: none."""

    names: list[str] = field(default_factory=list)  # which controls are trained; empty: all
    seeds: int = SEEDS  # trainings of each control
    pretrain: bool = False
    power_runs: int = 10

    def chosen(self) -> list[Control]:
        """The controls, noise always among them. Raises ValueError for a name that is none."""
        known = {control.name: control for control in CONTROLS}
        if unknown := sorted(set(self.names) - known.keys()):
            raise ValueError(f"controls.names={unknown} are unknown; use some of {', '.join(known)}")
        return [control for name, control in known.items() if not self.names or name in self.names or name == "noise"]


class Training(NamedTuple):
    """One training that a comparison needs."""

    control: str
    mask: Mask
    seed: int
    encoder: bool


def trainings(controls: Sequence[Control] = CONTROLS, n_seeds: int = SEEDS) -> list[Training]:
    """Every training of `controls`. Fewer than `SEEDS` seeds are too few for the spread of a control: whoever asks for
    them must say so beside the result. Raises ValueError for none."""
    if n_seeds < 1:
        raise ValueError(f"controls.seeds={n_seeds} trains nothing; use {SEEDS} or more")
    return [Training(c.name, mask, seed, c.encoder) for c in controls for mask in c.masks for seed in range(n_seeds)]


class MatchedNoise:
    """Gaussian tokens like those of each group: mean and Ledoit-Wolf covariance (J. Multivar. Anal. 88, 2004) of
    training tokens.

        S* = (1 - a) S + a mu I,   mu = tr S / p,   a = min(1, sum_k ||x_k x_k' - S||^2 / (n^2 ||S - mu I||^2))

    Raises ValueError for NaN tokens and for a group of fewer than two tokens.
    """

    def __init__(self, train: Sequence[np.ndarray], groups: Sequence[Hashable]) -> None:
        tokens: dict[Hashable, list[np.ndarray]] = {}
        for sequence, group in zip(train, groups, strict=True):
            tokens.setdefault(group, []).append(sequence)
        self._fitted = {group: self._fit(np.concatenate(parts), group) for group, parts in tokens.items()}

    @staticmethod
    def _fit(x: np.ndarray, group: Hashable) -> tuple[np.ndarray, np.ndarray]:
        if len(x) < 2 or not np.isfinite(x).all():
            raise ValueError(f"group {group} has {len(x)} tokens, of which some are NaN or too few; drop such trials")
        mean = x.mean(0, dtype=np.float64)
        values, vectors = np.linalg.eigh(shrunk_covariance(x - mean))
        return mean, vectors * np.sqrt(np.maximum(values, 0))  # a factor F with F F' = S*

    def draw(self, lengths: Sequence[int], groups: Sequence[Hashable], seed: int) -> list[np.ndarray]:
        """One float32 sequence [L, features] a trial. Raises ValueError for a group without training trials."""
        rng = np.random.default_rng(seed)
        drawn = []
        for length, group in zip(lengths, groups, strict=True):
            if group not in self._fitted:
                raise ValueError(f"no training trial of group {group}; use readers and tasks of the training split")
            mean, factor = self._fitted[group]
            drawn.append((mean + rng.standard_normal((length, len(mean))) @ factor.T).astype(np.float32))
        return drawn


def shrunk_covariance(centred: np.ndarray) -> np.ndarray:
    """Ledoit-Wolf covariance [p, p] of centred tokens [n, p]."""
    x = centred.astype(np.float64)
    n, p = x.shape
    s = x.T @ x / n
    mu = np.trace(s) / p
    # sum_k ||x_k x_k' - S||^2 = sum_k ||x_k||^4 - n ||S||^2
    scatter = ((x**2).sum(1) ** 2).sum() - n * (s**2).sum()
    distance = n**2 * ((s - mu * np.eye(p)) ** 2).sum()
    a = min(1.0, scatter / distance) if distance > 0 else 1.0
    return np.asarray((1 - a) * s + a * mu * np.eye(p))


def phase_randomised(x: np.ndarray, seed: int) -> np.ndarray:
    """x [time, channels] with a random phase added to each frequency, the same on all channels: every spectrum and
    cross-spectrum stays, every event in time goes. Constant and Nyquist parts stay as they are."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft(x, axis=0)
    turn = np.exp(2j * np.pi * rng.random((len(spectrum), 1)))
    turn[0] = 1
    if len(x) % 2 == 0:
        turn[-1] = 1
    return np.fft.irfft(spectrum * turn, n=len(x), axis=0).astype(x.dtype)


def permuted_within(groups: Sequence[Hashable], seed: int) -> np.ndarray:
    """int64 [n]: for each trial, another one of its group, each used once. `shuffled` EEG is
    [eeg[i] for i in permuted_within(…)]; neutral lengths are lengths[permuted_within(…)].

    A cyclic shift of a random order: no trial keeps its own. Raises ValueError for a group of one.
    """
    rng = np.random.default_rng(seed)
    places: dict[Hashable, list[int]] = {}
    for place, group in enumerate(groups):
        places.setdefault(group, []).append(place)
    partner = np.empty(len(groups), dtype=np.int64)
    for group, members in places.items():
        if len(members) < 2:
            raise ValueError(f"group {group} has one trial, which cannot swap; drop it from this control")
        order = rng.permutation(members)
        partner[order] = np.roll(order, 1)
    return partner


def resized(sequences: Sequence[np.ndarray], lengths: Sequence[int]) -> list[np.ndarray]:
    """Sequences cut to `lengths`, or repeated from their start to reach them: content kept, its own length hidden."""
    return [s[np.arange(length) % len(s)] for s, length in zip(sequences, lengths, strict=True)]


def zeros(lengths: Sequence[int], n_features: int) -> list[np.ndarray]:
    """All-zero float32 sequences."""
    return [np.zeros((length, n_features), np.float32) for length in lengths]


def constant_tokens(lengths: Sequence[int], n_features: int, seed: int = 0) -> list[np.ndarray]:
    """One random token, the same everywhere: what is left is the mask."""
    token = np.random.default_rng(seed).standard_normal(n_features).astype(np.float32)
    return [np.tile(token, (length, 1)) for length in lengths]


def most_frequent(train_texts: Sequence[str]) -> str:
    """The sentence read most often in training; the first by alphabet among equals."""
    if not train_texts:
        raise ValueError("got no train sentences; give those the decoder was trained on")
    return min(set(train_texts), key=lambda text: (-train_texts.count(text), text))


def unigram(train_texts: Sequence[str], n: int, seed: int = 0) -> list[str]:
    """`n` outputs whose length is that of a random train sentence and whose words are drawn by their frequency."""
    rng = np.random.default_rng(seed)
    words = np.array([word for text in train_texts for word in text.split()])
    lengths = rng.choice([len(text.split()) for text in train_texts], n)
    return [" ".join(rng.choice(words, length)) for length in lengths]
