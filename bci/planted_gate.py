"""Does CET-MAE learn what it should, where the answer is known? Synthetic readings, a small model, and its measures.

Six readers read sentences of the grammar; the EEG of a fixated word holds a signal of `strength` times its noise, and
strength 0 holds none. The sentences of the splits are disjoint. Judged on unmasked EEG and text of unseen sentences:
the contrastive loss of batches of distinct sentences, top-k in them, and the rank among sentences of the same length,
the one measure that sentence length alone cannot lift.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import expit
from torch import Tensor

from bci.cet_mae import CETMAE, CETMAEConfig
from bci.evaluation.retrieval import retrieval_permutation, same_length_rank
from bci.evaluation.significance import Sentences
from bci.tokenizer import PAD, TextTokenizer, train_tokenizer
from bci.training import (
    OptimisationConfig,
    PretrainingBatch,
    PretrainingConfig,
    info_nce,
    mask_eeg,
    mask_text,
)  # fmt: skip
from bci.zuco.corpus import write_sentences
from bci.zuco.gaze import PER_LETTER, draw_reader
from bci.zuco.planted import SENTENCE_NOISE, PlantedSignal, amplitudes
from bci.zuco.records import N_FEATURES
from bci.zuco.samples import standardise
from bci.zuco.text import normalise


@dataclass
class PlantedGateConfig:
    """Sizes of the data, and the training of the small model on them."""

    strength: float = 1.0
    seed: int = 0
    n_sentences: int = 600
    n_subjects: int = 6
    batch_size: int = 64
    steps: int = 1000
    model: CETMAEConfig = field(default_factory=CETMAEConfig.planted)
    pretraining: PretrainingConfig = field(default_factory=PretrainingConfig.planted)
    optimisation: OptimisationConfig = field(default_factory=lambda: OptimisationConfig(lr=2e-3))

    def build(self) -> "PlantedGate":
        return PlantedGate(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class Readings:
    """Rows of one split. eeg [L, R, 840], mask [L, R]; texts: of its n sentences; of_row: int64 [R], sentence of a row;
    ids [S, n]."""

    eeg: Tensor
    mask: Tensor
    ids: Tensor
    of_row: Tensor
    texts: tuple[str, ...]

    def batch(self, rows: Tensor) -> PretrainingBatch:
        """Those rows, without the padding that none of them needs."""
        mask, ids = self.mask[:, rows], self.ids[:, self.of_row[rows]]
        longest = int(mask.any(1).sum())
        return PretrainingBatch(
            self.eeg[:longest, rows], mask[:longest], ids[: int((ids != PAD).any(1).sum())], self.of_row[rows]
        )


@dataclass(frozen=True, kw_only=True)
class GateScores:
    """Of one split. mse_ratio: masked EEG, to the mean vector of the train tokens; text_gain: nats of masked text above
    (negative: below) those of unigrams counted in train."""

    loss: float
    top1: float
    top5: float
    same_length_rank: float
    p: float
    mse_ratio: float
    text_gain: float


class PlantedGate:
    """Data of one seed. `train` gives a model, `score` its measures on `valid` or `test`."""

    def __init__(self, config: PlantedGateConfig) -> None:
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
        self.readings = {
            name: _read(texts, [reader.intercept for reader in readers], signal, self.tokenizer, rng)
            for name, texts in split_texts.items()
        }

    def train(self, pair: Callable[[PretrainingBatch], PretrainingBatch] = lambda batch: batch) -> CETMAE:
        """A model after all steps, nothing selected. `pair` may rearrange batches, to see what that breaks."""
        config, readings = self.config, self.readings["train"]
        torch.manual_seed(config.seed)
        generator = torch.Generator().manual_seed(config.seed)
        model = config.model.build(self.tokenizer.vocab_size).train()
        losses, optimisation = config.pretraining.build(), config.optimisation.build(model, config.steps)
        for _ in range(config.steps):
            rows = torch.randperm(len(readings.of_row), generator=generator)[: config.batch_size]
            optimisation.step(losses(model, pair(readings.batch(rows)), generator).total)
        return model.eval()

    @torch.no_grad()
    def score(self, model: CETMAE, split: str) -> GateScores:
        """Measures on `split`: 30 draws of 32 distinct sentences, one reader each; ranks and p over all rows."""
        readings = self.readings[split]
        rows = torch.arange(len(readings.of_row))
        parts = [readings.batch(part) for part in rows.split(64)]
        eeg = torch.cat([model.eeg_vector(part.eeg, part.mask) for part in parts])
        text = model.text_vector(readings.ids)
        generator = torch.Generator().manual_seed(self.config.seed)
        drawn = [self._contrast(model, eeg, text, readings.of_row, generator) for _ in range(30)]
        loss, top1, top5 = np.mean(drawn, axis=0)
        own, texts = readings.of_row.numpy(), readings.texts
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
        return GateScores(
            loss=float(loss), top1=float(top1), top5=float(top5),
            same_length_rank=same_length_rank(scores, place[own], sentences.n_words),
            p=retrieval_permutation(scores, sentences, seed=self.config.seed).p,
            mse_ratio=mse_ratio, text_gain=text_gain,
        )  # fmt: skip

    def _contrast(
        self, model: CETMAE, eeg: Tensor, text: Tensor, of_row: Tensor, generator: torch.Generator
    ) -> tuple[float, float, float]:
        """Loss, top-1 and top-5 (EEG asks for its text) of one draw of 32 distinct sentences."""
        shuffled = torch.randperm(len(of_row), generator=generator)
        chosen = torch.randperm(len(text), generator=generator)[:32]
        rows = torch.stack([shuffled[of_row[shuffled] == sentence][0] for sentence in chosen])
        loss = info_nce(eeg[rows], text[chosen], model.scale, chosen)
        similarity = eeg[rows] @ text[chosen].T
        rank = (similarity > similarity.diagonal()[:, None]).sum(1)
        return float(loss), float((rank < 1).float().mean()), float((rank < 5).float().mean())

    def _restored(
        self, model: CETMAE, parts: list[PretrainingBatch], generator: torch.Generator
    ) -> tuple[float, float]:
        """mse_ratio and text_gain over masked tokens of all `parts`."""
        train, config = self.readings["train"], self.config.pretraining
        mean = train.eeg[train.mask].mean(0)
        counts = torch.bincount(train.ids[train.ids != PAD], minlength=model.vocab_size) + 1.0
        unigram = (counts / counts.sum()).log()
        ours = theirs = text = unigrams = 0.0
        for part in parts:
            masked = mask_eeg(part.mask, config.eeg_mask, config.sentence_mask, generator)
            ids, ids_masked = mask_text(part.ids, config.text_mask, model.vocab_size - 1, generator)
            out, wanted = model(part.eeg, part.mask, masked, ids, ids_masked), part.ids[ids_masked]
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
) -> Readings:
    """Every sentence by every reader, but for the readings in which no word was fixated."""
    rows, of_row = [], []  # float32 [L, 840] and sentence number of each reading
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
    lengths = torch.tensor([len(row) for row in rows])
    eeg = torch.zeros(int(lengths.max()), len(rows), N_FEATURES)
    for r, row in enumerate(rows):
        eeg[: len(row), r] = torch.from_numpy(row)
    mask = torch.arange(len(eeg))[:, None] < lengths
    return Readings(eeg=eeg, mask=mask, ids=tokenizer.encode(texts).ids, of_row=torch.tensor(of_row), texts=texts)
