"""Trials of EEG as a small problem: CET-MAE and E2T-PTR on the readers of the synthetic recovery test.

Every reader reads sentences of a small grammar, and the EEG of a word holds a signal of it (`bci.synthetic.recovery`).
Test sentences are not in the training set, their readers are. All trials are padded to one length, so that one exported
program takes every batch. What is masked is drawn from the trials of a batch: whoever trains on it masks the same.

cet_mae   one pretraining step; accuracy: top-1, EEG finds its sentence among 32
e2t_ptr   one teacher-forced step; accuracy: next ids given the true text before them, which is no decoding
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from spikeloom.bci.data.tokenizer import PAD
from spikeloom.bci.evaluation.matching import contrast
from spikeloom.bci.models.cet_mae import CETMAEConfig
from spikeloom.bci.models.e2t_ptr import build_e2t_ptr
from spikeloom.bci.models.pretraining import PretrainingBatch, PretrainingConfig
from spikeloom.bci.synthetic.recovery import SyntheticRecovery, SyntheticRecoveryConfig, SyntheticTrials
from spikeloom.pipelines.export.training_steps import PretrainingStep, TeacherForcedStep, pretraining_inputs
from spikeloom.pipelines.training.toy_datasets import Examples, Inputs, SmallTask, small_task

TRIALS = "trials"
MEASURES = {"cet_mae": "top-1 of 32 unseen sentences", "e2t_ptr": "next ids of unseen sentences, given the text before"}
SIZES = replace(CETMAEConfig.planted(), dropout=0.0)
RECIPE = PretrainingConfig.planted()


@dataclass(frozen=True, kw_only=True)
class TrialsTask(SmallTask):
    """Examples hold numbers of rows; the network is a whole training step and returns its loss."""

    recovery: SyntheticRecovery

    def encode(self, x: Tensor) -> Inputs:
        """Inputs of a training step on rows x [B] of the training trials."""
        batch = padded(self.recovery.trials["train"], x)
        if self.model_name == "e2t_ptr":
            return batch.eeg, batch.mask, batch.ids
        generator = torch.Generator().manual_seed(zlib.crc32(x.numpy().tobytes()))
        return tuple(pretraining_inputs(batch, RECIPE, self.recovery.tokenizer.vocab_size - 1, generator))

    def build(self, seed: int, window: float | None = None) -> nn.Module:
        """The training step with weights drawn by `seed`; there are no neurons for a `window`."""
        torch.manual_seed(seed)
        vocabulary = self.recovery.tokenizer.vocab_size
        if self.model_name == "e2t_ptr":
            decoder = build_e2t_ptr(SIZES, vocabulary)
            bart: Any = decoder.bart
            bart.config.dropout = 0.0
            return TeacherForcedStep(decoder)
        return PretrainingStep(SIZES.build(vocabulary), RECIPE)

    def loss(self, out: Tensor, labels: Tensor) -> Tensor:
        return out

    @torch.no_grad()
    def accuracy(self, model: nn.Module, examples: Examples, batch_size: int = 250) -> float:
        """As the head of this module says, on rows of the test trials."""
        was_training = model.training
        model.eval()
        trials = self.recovery.trials["test"]
        batches = [padded(trials, rows) for rows in examples.x.split(batch_size)]
        inner: Any = model.model
        if isinstance(model, TeacherForcedStep):
            right = [((inner(b.eeg, b.mask, b.ids).argmax(2) == b.ids) & (b.ids != PAD)).sum() for b in batches]
            found = float(sum(right)) / sum(int((b.ids != PAD).sum()) for b in batches)
        else:
            eeg = torch.cat([inner.eeg_vector(b.eeg, b.mask) for b in batches])
            text = inner.text_vector(trials.ids)
            of_row, generator = trials.of_row[examples.x], torch.Generator().manual_seed(0)
            found = contrast(inner, eeg, text, of_row, generator)[1]
        model.train(was_training)
        return found


def padded(trials: SyntheticTrials, rows: Tensor) -> PretrainingBatch:
    """Rows as long as the longest of all."""
    of_row = trials.of_row[rows]
    return PretrainingBatch(trials.eeg[:, rows], trials.mask[:, rows], trials.ids[:, of_row], of_row)


def toy_problem(
    name: str, model: str = "", root: str | None = None, seed: int = 0, limit: int = 0, unseen: bool = False,
    readers: int = 6,
) -> SmallTask:  # fmt: skip
    """A small task of pictures, clips or (task `trials`) EEG; arguments as of `small_task`, and how many read.

    Raises:
        ValueError: for a model that does not fit, or readers that are not in the training set.
    """
    if name != TRIALS:
        return small_task(name, model, root, seed, limit, unseen)
    model = model or "cet_mae"
    if model not in MEASURES:
        raise ValueError(f"model={model} does not fit task={TRIALS}; use one of {', '.join(MEASURES)}")
    if unseen:
        raise ValueError(f"task={TRIALS} tests on unseen sentences of known readers; use unseen=false")
    recovery = SyntheticRecoveryConfig(seed=seed, n_subjects=readers).build()
    train, test = (_examples(recovery.trials[split]) for split in ("train", "test"))
    if limit:
        train = train.select(torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:limit])
    return TrialsTask(
        name=name, model_name=model, train=train, test=test, n_classes=1, time_steps=len(recovery.trials["train"].eeg),
        split=f"{MEASURES[model]}; readers shared", axes="TBC", recovery=recovery,
    )  # fmt: skip


def _examples(trials: SyntheticTrials) -> Examples:
    groups: Sequence[str] = [f"reader {n}" for n in trials.subject.tolist()]
    return Examples(
        x=torch.arange(len(groups)), labels=torch.zeros(len(groups), dtype=torch.long), groups=tuple(groups)
    )
