"""Does CET-MAE learn what it should, where the answer is known? Synthetic trials, a small model, and its measures.

Six readers read sentences of the grammar; the EEG of a fixated word holds a signal of `strength` times its noise, and
strength 0 holds none. The sentences of the splits are disjoint. Measured on unmasked EEG and text of unseen sentences:
the contrastive loss of batches of distinct sentences, top-k in them, and the rank among sentences of the same length,
the one measure that sentence length alone cannot lift. `LIMITS` say what a correct model reaches; those of `VARIANTS`
are broken on purpose, and must not.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import expit
from torch import Tensor

from spikeloom.bci.data.datamodule import sentence_vectors
from spikeloom.bci.data.tokenizer import PAD, TextTokenizer, train_tokenizer
from spikeloom.bci.evaluation.controls import permuted_within
from spikeloom.bci.evaluation.matching import contrast
from spikeloom.bci.evaluation.retrieval import retrieval_permutation, same_length_rank
from spikeloom.bci.evaluation.significance import Sentences
from spikeloom.bci.models.cet_mae import CETMAE, CETMAEConfig
from spikeloom.bci.models.layers import BatchPosition
from spikeloom.bci.models.pretraining import (  # fmt: skip
    OptimisationConfig,
    PretrainingBatch,
    PretrainingConfig,
    mask_eeg,
    mask_text,
)
from spikeloom.bci.synthetic.planted import SENTENCE_NOISE, PlantedSignal, amplitudes
from spikeloom.bci.zuco.corpus import write_sentences
from spikeloom.bci.zuco.gaze import PER_LETTER, draw_reader
from spikeloom.bci.zuco.records import N_FEATURES
from spikeloom.bci.zuco.samples import standardise
from spikeloom.bci.zuco.text import normalise


@dataclass
class SyntheticRecoveryConfig:
    """Sizes of the data, and the training of the small model on them."""

    strength: float = 1.0
    seed: int = 0
    n_sentences: int = 600
    n_subjects: int = 6
    batch_size: int = 64
    steps: int = 2500  # 1,000, by which the limits were found, fall short for seed 3, 1,500 at strength .5
    model: CETMAEConfig = field(default_factory=CETMAEConfig.planted)
    pretraining: PretrainingConfig = field(default_factory=PretrainingConfig.planted)
    optimisation: OptimisationConfig = field(default_factory=lambda: OptimisationConfig(lr=2e-3))

    def build(self) -> "SyntheticRecovery":
        return SyntheticRecovery(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class SyntheticTrials:
    """Rows of one split. eeg [L, R, 840], mask [L, R]; texts: of its n sentences; of_row, subject: int64 [R], sentence
    and reader of a row; ids [S, n]."""

    eeg: Tensor
    mask: Tensor
    ids: Tensor
    of_row: Tensor
    subject: Tensor
    texts: tuple[str, ...]
    target: Tensor | None = None  # [n, W], vectors of the sentences by an encoder

    def batch(self, rows: Tensor) -> PretrainingBatch:
        """Those rows, without the padding that none of them needs."""
        mask, ids = self.mask[:, rows], self.ids[:, self.of_row[rows]]
        longest = int(mask.any(1).sum())
        return PretrainingBatch(
            self.eeg[:longest, rows], mask[:longest], ids[: int((ids != PAD).any(1).sum())], self.of_row[rows],
            None if self.target is None else self.target[self.of_row[rows]],
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class RecoveryScores:
    """Of one split. mse_ratio: masked EEG, to the mean vector of the train tokens; text_gain: nats of masked text above
    (negative: below) those of unigrams counted in train."""

    loss: float
    top1: float
    top5: float
    same_length_rank: float
    p: float
    mse_ratio: float
    text_gain: float


VARIANTS = {
    "correct": "nothing is broken",
    "shuffled_pairs": "EEG is trained with the text of another trial of the same person",
    "frozen_text": "the text encoder stays random",
    "position_of_batch": "the position indexes the sample instead of time",
}
TARGETS = {"wordllama": "wordllama", "minilm": "minilm"}  # variant -> sentence encoder the EEG is matched with


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Worst values of a correct model on valid and test; mse_ratio and text_gain count on test alone; None: any."""

    loss: float | None = None
    top1: float | None = None
    top5: float | None = None
    rank: tuple[float, float] = (0.0, 1.0)
    p_at_most: float | None = None
    p_above: float | None = None
    mse_ratio: float | None = None
    text_gain: float = -0.2

    def missed(self, scores: Mapping[str, RecoveryScores]) -> list[str]:
        """What `scores` of valid and test fail, in words; nothing: the test is passed."""
        failed = []
        for split, s in scores.items():
            low, high = self.rank
            checks = {
                f"loss {s.loss:.3f} > {self.loss}": self.loss is not None and s.loss > self.loss,
                f"top-1 {s.top1:.3f} < {self.top1}": self.top1 is not None and s.top1 < self.top1,
                f"top-5 {s.top5:.3f} < {self.top5}": self.top5 is not None and s.top5 < self.top5,
                f"rank {s.same_length_rank:.3f} not in [{low}, {high}]": not low <= s.same_length_rank <= high,
                f"p {s.p:.3f} > {self.p_at_most}": self.p_at_most is not None and s.p > self.p_at_most,
                f"p {s.p:.3f} <= {self.p_above}": self.p_above is not None and s.p <= self.p_above,
            }
            if split == "test":
                ratio = self.mse_ratio
                checks |= {
                    f"MSE ratio {s.mse_ratio:.3f} > {ratio}": ratio is not None and s.mse_ratio > ratio,
                    f"text gain {s.text_gain:.3f} > {self.text_gain}": s.text_gain > self.text_gain,
                }
            failed += [f"{split}: {said}" for said, wrong in checks.items() if wrong]
        return failed


LIMITS = {  # by strength; ln 32 = 3.466
    1.0: Limits(loss=1.766, top1=0.48, top5=0.82, rank=(0.0, 0.10), p_at_most=0.01),
    0.5: Limits(loss=3.066, top1=0.14, top5=0.44, rank=(0.0, 0.32), p_at_most=0.01, mse_ratio=0.935),
    0.0: Limits(rank=(0.40, 0.60), p_above=0.01, mse_ratio=0.935),
}


class SyntheticRecovery:
    """Data of one seed. `train` gives a model, `score` its measures on `valid` or `test`."""

    def __init__(self, config: SyntheticRecoveryConfig) -> None:
        self.config = config
        sentences = write_sentences(config.n_sentences, config.seed)
        rng = np.random.default_rng((config.seed, 6))
        order = rng.permutation(len(sentences))
        held_out = len(sentences) // 10
        parts = {"train": order[2 * held_out :], "valid": order[:held_out], "test": order[held_out : 2 * held_out]}
        split_texts = {name: tuple(sentences[i] for i in part) for name, part in parts.items()}
        self.tokenizer: TextTokenizer = train_tokenizer(split_texts["train"])
        letters = np.array([len(normalise(word)) for text in sentences for word in text.split()])
        readers = [draw_reader(letters, rng) for _ in range(config.n_subjects)]
        signal = PlantedSignal(config.strength, config.seed)
        self.trials = {
            name: _read(texts, [reader.intercept for reader in readers], signal, self.tokenizer, rng)
            for name, texts in split_texts.items()
        }

    def train(self, variant: str = "correct") -> CETMAE:
        """A model after all steps, nothing selected; `variant`: one of VARIANTS."""
        if variant not in VARIANTS | TARGETS:
            raise ValueError(f"variant {variant!r} is unknown; use one of {', '.join(VARIANTS | TARGETS)}")
        config, trials = self.config, self._with_target(self.trials["train"], TARGETS.get(variant))
        sizes = replace(config.model, freeze_text=variant == "frozen_text", text_target=TARGETS.get(variant))
        if variant == "shuffled_pairs":
            partner = permuted_within(trials.subject.tolist(), config.seed)
            trials = replace(trials, of_row=trials.of_row[torch.from_numpy(partner)])
        torch.manual_seed(config.seed)
        generator = torch.Generator().manual_seed(config.seed)
        model = sizes.build(self.tokenizer.vocab_size).train()
        if trials.target is not None:
            model.start_target(trials.target)
        if variant == "position_of_batch":
            for part in (model.front.e_branch, model.eeg_decoder):
                part.position = BatchPosition(sizes.dropout)
        losses, optimisation = config.pretraining.build(), config.optimisation.build(model, config.steps)
        for _ in range(config.steps):
            rows = torch.randperm(len(trials.of_row), generator=generator)[: config.batch_size]
            optimisation.step(losses(model, trials.batch(rows), generator).total)
        return model.eval()

    @staticmethod
    def _with_target(trials: SyntheticTrials, encoder: str | None) -> SyntheticTrials:
        if encoder is None:
            return trials
        return replace(trials, target=sentence_vectors(encoder, trials.texts))

    def run(self, variant: str = "correct") -> dict[str, Any]:
        """Train and score; `missed` lists what falls short of the limits of this strength. Raises ValueError where it
        has none."""
        config = self.config
        if config.strength not in LIMITS:
            raise ValueError(f"strength {config.strength} has no limits; use one of {', '.join(map(str, LIMITS))}")
        model = self.train(variant)
        scores = {split: self.score(model, split) for split in ("valid", "test")}
        return {
            "strength": config.strength, "seed": config.seed, "variant": variant,
            "parameters": sum(p.numel() for p in model.parameters()),
            **{split: asdict(found) for split, found in scores.items()},
            "missed": LIMITS[config.strength].missed(scores),
        }  # fmt: skip

    @torch.no_grad()
    def score(self, model: CETMAE, split: str) -> RecoveryScores:
        """Measures on `split`: 30 draws of 32 distinct sentences, one reader each; ranks and p over all rows."""
        trials = self._with_target(self.trials[split], model.config.text_target)
        rows = torch.arange(len(trials.of_row))
        parts = [trials.batch(part) for part in rows.split(64)]
        eeg = torch.cat([model.eeg_vector(part.eeg, part.mask) for part in parts])
        text = model.text_vector(trials.ids, trials.target)
        generator = torch.Generator().manual_seed(self.config.seed)
        loss, top1, top5 = contrast(model, eeg, text, trials.of_row, generator)
        own, texts = trials.of_row.numpy(), trials.texts
        keys = [normalise(t) for t in texts]
        by_key = np.argsort(keys)
        place = np.empty_like(by_key)
        place[by_key] = np.arange(len(texts))
        sentences = Sentences(
            keys=tuple(keys[i] for i in by_key), texts=tuple(texts[i] for i in by_key),
            tasks=("NR",) * len(texts), of_row=place[own],
        )  # fmt: skip
        scores = (eeg @ text.T).numpy()[:, by_key]
        mse_ratio, text_gain = self._restored(model, parts, generator)
        return RecoveryScores(
            loss=loss, top1=top1, top5=top5,
            same_length_rank=same_length_rank(scores, place[own], sentences.n_words),
            p=retrieval_permutation(scores, sentences, seed=self.config.seed).p,
            mse_ratio=mse_ratio, text_gain=text_gain,
        )  # fmt: skip

    def _restored(
        self, model: CETMAE, parts: list[PretrainingBatch], generator: torch.Generator
    ) -> tuple[float, float]:
        """mse_ratio and text_gain over masked tokens of all `parts`."""
        train, config = self.trials["train"], self.config.pretraining
        mean = train.eeg[train.mask].mean(0)
        counts = torch.bincount(train.ids[train.ids != PAD], minlength=model.vocab_size) + 1.0
        unigram = (counts / counts.sum()).log()
        ours = theirs = text = unigrams = 0.0
        for part in parts:
            masked = mask_eeg(part.mask, config.eeg_mask, config.sentence_mask, generator)
            ids, ids_masked = mask_text(part.ids, config.text_mask, model.vocab_size - 1, generator)
            out = model(part.eeg, part.mask, masked, ids, ids_masked, part.target)
            wanted = part.ids[ids_masked]
            ours += float((out.eeg[masked] - part.eeg[masked]).square().sum())
            theirs += float((mean - part.eeg[masked]).square().sum())
            text += float(F.cross_entropy(model.text_decoder(out.text[ids_masked]), wanted))
            unigrams -= float(unigram[wanted].mean())
        return ours / theirs, (text - unigrams) / len(parts)


def _read(
    texts: tuple[str, ...],
    intercepts: list[float],
    signal: PlantedSignal,
    tokenizer: TextTokenizer,
    rng: np.random.Generator,
) -> SyntheticTrials:
    """Every sentence by every reader, but for the trials in which no word was fixated."""
    rows, of_row, readers = [], [], []  # float32 [L, 840], sentence number and reader of each trial
    for subject, intercept in enumerate(intercepts):
        gain = signal.gain(subject)
        for number, text in enumerate(texts):
            words = text.split()
            letters = np.array([len(normalise(word)) for word in words])
            fixated = np.flatnonzero(rng.random(len(words)) < expit(intercept + PER_LETTER * letters))
            if len(fixated):
                noise = signal.noise(len(fixated) + 1, rng)
                tokens = gain + noise[:-1] + [signal.signal(words[i]) for i in fixated]
                sentence = tokens.mean(0) + SENTENCE_NOISE * noise[-1]
                rows.append(standardise(amplitudes(np.vstack((tokens, sentence)))).astype(np.float32))
                of_row.append(number)
                readers.append(subject)
    lengths = torch.tensor([len(row) for row in rows])
    eeg = torch.zeros(int(lengths.max()), len(rows), N_FEATURES)
    for r, row in enumerate(rows):
        eeg[: len(row), r] = torch.from_numpy(row)
    mask = torch.arange(len(eeg))[:, None] < lengths
    return SyntheticTrials(
        eeg=eeg, mask=mask, ids=tokenizer.encode(texts).ids, of_row=torch.tensor(of_row),
        subject=torch.tensor(readers), texts=texts,
    )  # fmt: skip
