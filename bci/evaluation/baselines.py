"""Simple decoders trained on the same trials as a model and tested by the same tests: what does the model add?

    ridge              mean of a trial's tokens -> bag of words by ridge regression -> nearest train sentence
    word_retrieval     every word's token -> its word by ridge regression; the words looked at, one after the other
    ctc                letters from tokens (`bci.models.baselines.CharacterCTC`)
    transformer_bart   the decoder of 2021 (`bci.models.baselines.TransformerBART`)

The last two keep the weights of the lowest validation loss. All of them run freely.
"""

import copy
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.linalg import cho_factor, cho_solve
from torch import Tensor, nn

from spikeloom.accel.common.batches import BatchIndex
from spikeloom.bci.data.datamodule import EncodedTrials
from spikeloom.bci.data.tokenizer import TextTokenizer
from spikeloom.bci.data.trials import TrialSet
from spikeloom.bci.evaluation.calibration import RIDGE, bags_of, nearest_sentences
from spikeloom.bci.models.baselines import CharacterCTC, TransformerBART
from spikeloom.bci.models.cet_mae import CETMAEConfig
from spikeloom.bci.models.pretraining import OptimisationConfig, PretrainingBatch

BASELINES = ("ridge", "word_retrieval", "ctc", "transformer_bart")
LEAST_SEEN = 5  # train tokens of a word that can be retrieved
CHECKS = 10  # validations of a training
Loss = Callable[[PretrainingBatch, Sequence[str]], Tensor]  # of a batch and its texts


@dataclass
class BaselinesConfig:
    """Which simple decoders are trained beside a model. steps, lr, batch_size: of ctc and transformer_bart."""

    names: list[str] = field(default_factory=lambda: ["ridge", "word_retrieval"])  # of BASELINES; empty: none
    steps: int = 1000  # gradient steps
    lr: float = 1e-3  # learning rate after the warm-up
    batch_size: int = 32

    def check(self) -> None:
        """Raise ValueError for a name that is none, or no step."""
        if unknown := sorted(set(self.names) - set(BASELINES)):
            raise ValueError(f"baselines.names={unknown} are unknown; use some of {', '.join(BASELINES)}")
        if self.steps < 2 * CHECKS or self.batch_size < 1 or not self.lr > 0:
            raise ValueError(
                f"baselines.steps={self.steps}, batch_size={self.batch_size}, lr={self.lr} train nothing; use at least "
                f"{2 * CHECKS} steps of 1 trial and lr > 0"
            )


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """What a simple decoder wrote for the test trials, in their order, and what it cost: seconds of processor time."""

    outputs: tuple[str, ...]
    seconds: float
    parameters: int


def run_baseline(
    name: str, train: TrialSet, valid: TrialSet, test: TrialSet, *, tokenizer: TextTokenizer, sizes: CETMAEConfig,
    config: BaselinesConfig, seed: int, max_length: int = 58,
) -> Baseline:  # fmt: skip
    """Train one of BASELINES and let it write the test trials.

    Args:
        train, valid, test: trials of one split.
        tokenizer, sizes, max_length: of the model it is compared with.
        config: steps and rate.
        seed: of weights and batches.
    """
    started = time.process_time()
    parameters = 0
    if name == "ridge":
        outputs = ridge_sentences(train, test)
    elif name == "word_retrieval":
        outputs = retrieved_words(train, test)
    elif name in BASELINES:
        outputs, parameters = _trained(name, train, valid, test, tokenizer, sizes, config, seed, max_length)
    else:
        raise ValueError(f"baseline {name} is unknown; use one of {', '.join(BASELINES)}")
    return Baseline(outputs=tuple(outputs), seconds=time.process_time() - started, parameters=parameters)


def ridge_sentences(train: TrialSet, test: TrialSet) -> list[str]:
    """The train sentence whose bag of words is nearest to that regressed from the mean token."""
    texts = list(dict.fromkeys(train.texts))
    of = {text: k for k, text in enumerate(texts)}
    rows = [*(of[text] for text in train.texts), *([len(texts)] * len(test))]
    features = np.array([np.append(eeg.mean(0), len(eeg)) for eeg in (*train.eeg, *test.eeg)], dtype=np.float64)
    written = nearest_sentences(
        features, np.array(rows), bags_of([text.split() for text in texts], len(texts)), len(texts)
    )
    return [texts[k] for k in written]


def retrieved_words(train: TrialSet, test: TrialSet) -> list[str]:
    """The likeliest word of every token with a word under it, by ridge regression on the words seen often enough."""
    words = [word for of_trial in train.words for word in of_trial]
    counts = Counter(words)
    vocabulary = sorted(word for word, n in counts.items() if n >= LEAST_SEEN) or sorted(counts)
    place = {word: k for k, word in enumerate(vocabulary)}
    x = np.concatenate([eeg[: len(of)] for eeg, of in zip(train.eeg, train.words, strict=True)]).astype(np.float64)
    known = np.array([word in place for word in words])
    y = np.zeros((len(words), len(vocabulary)))
    y[np.flatnonzero(known), [place[word] for word in words if word in place]] = 1.0
    x, y = x[known], y[known]
    mean, spread, prior = x.mean(0), x.std(0) + 1e-6, y.mean(0)
    x = (x - mean) / spread
    gram = x.T @ x
    gram[np.diag_indices_from(gram)] += RIDGE * len(x)
    weights = cho_solve(cho_factor(gram), x.T @ ((y - prior) / np.sqrt(prior)))  # rare words weigh as much as frequent
    return [
        " ".join(vocabulary[k] for k in (((eeg[: len(of)] - mean) / spread) @ weights).argmax(1))
        for eeg, of in zip(test.eeg, test.words, strict=True)
    ]


def _trained(
    name: str, train: TrialSet, valid: TrialSet, test: TrialSet, tokenizer: TextTokenizer, sizes: CETMAEConfig,
    config: BaselinesConfig, seed: int, max_length: int,
) -> tuple[list[str], int]:  # fmt: skip
    config.check()
    torch.manual_seed(seed)
    model: TransformerBART | CharacterCTC
    model = CharacterCTC(sizes) if name == "ctc" else TransformerBART(sizes, tokenizer.vocab_size)
    encoded = {
        key: EncodedTrials(trials, tokenizer, max_length) for key, trials in (("train", train), ("valid", valid))
    }

    def loss(batch: PretrainingBatch, texts: Sequence[str]) -> Tensor:
        if isinstance(model, CharacterCTC):
            return model.loss(batch.eeg, batch.mask, texts)
        return model.loss(batch.eeg, batch.mask, batch.ids)

    fit(model, encoded["train"], encoded["valid"], loss, config, seed)
    model.eval()
    outputs: list[str] = []
    for batch in EncodedTrials(test, tokenizer, max_length).batches():
        if isinstance(model, CharacterCTC):
            outputs += model.decode(batch.eeg, batch.mask)
        else:
            outputs += tokenizer.decode(model.generate(batch.eeg, batch.mask, max_length))
    return outputs, sum(p.numel() for p in model.parameters())


def fit(
    model: nn.Module, train: EncodedTrials, valid: EncodedTrials, loss: Loss, config: BaselinesConfig, seed: int
) -> None:
    """`config.steps` steps; the model ends with the weights of the lowest of CHECKS validation losses."""
    warmup = max(1, min(60, config.steps // 10))
    optimisation = OptimisationConfig(lr=config.lr, warmup_steps=warmup).build(model, config.steps)
    generator = torch.Generator().manual_seed(seed)
    lowest, kept = float("inf"), copy.deepcopy(model.state_dict())
    size = min(config.batch_size, len(train))

    def on(trials: EncodedTrials, step: int, rows: Tensor) -> Tensor:
        return loss(trials[BatchIndex(step, rows)], [trials.trials.texts[k] for k in rows.tolist()])

    for step in range(1, config.steps + 1):
        model.train()
        optimisation.step(on(train, step, torch.randperm(len(train), generator=generator)[:size]))
        if step % (config.steps // CHECKS) == 0:
            model.eval()
            with torch.no_grad():
                parts = [float(on(valid, 0, rows)) * len(rows) for rows in torch.arange(len(valid)).split(64)]
            if (found := sum(parts) / len(valid)) < lowest:
                lowest, kept = found, copy.deepcopy(model.state_dict())
    model.load_state_dict(kept)
