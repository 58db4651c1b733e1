"""Whole training steps of the EEG models as modules of tensors alone, from the inputs to the loss: for export.

What a training draws at random (which tokens are masked) and what Python decides by values (which are kept) is worked
out before, and goes in as indices and masks.

PretrainingStep      EEG, masked text -> L = w_E L_E + w_T L_T + w_CL L_CL      CET-MAE
TeacherForcedStep    EEG, text -> cross-entropy of all positions                 E2T-PTR
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikeloom.bci.data.tokenizer import PAD
from spikeloom.bci.models.cet_mae import CETMAE, Kept, keep, mean_direction
from spikeloom.bci.models.e2t_ptr import E2TPTR
from spikeloom.bci.models.pretraining import PretrainingBatch, PretrainingConfig, info_nce, mask_eeg, mask_text


class PretrainingInputs(NamedTuple):
    """eeg [L, B, 840] and its mask [L, B] bool; ids [S, B] with `<mask>` in them, of which there are those in `there`
    [S, B] bool; times [K, B] of the EEG tokens that are kept, the first of which are those in `kept` [K, B] bool;
    hidden [L, B], 1 where an EEG token is masked; the places `rows` [R] of masked ids in the flattened text with their
    `answers` [R]; visible [S, B], 1 where an id is not masked; sentence [B]."""

    eeg: Tensor
    mask: Tensor
    ids: Tensor
    there: Tensor
    times: Tensor
    kept: Tensor
    hidden: Tensor
    rows: Tensor
    answers: Tensor
    visible: Tensor
    sentence: Tensor


def pretraining_inputs(
    batch: PretrainingBatch, config: PretrainingConfig, mask_id: int, generator: torch.Generator
) -> PretrainingInputs:
    """Masks drawn as in training. K is what the longest EEG that fits would keep, so it is equal for batches of equal
    shapes."""
    masked = mask_eeg(batch.mask, config.eeg_mask, config.sentence_mask, generator)
    shown, chosen = mask_text(batch.ids, config.text_mask, mask_id, generator)
    times, kept = keep(batch.mask, masked)
    steps, least = len(batch.mask), 1 if config.sentence_mask == "forced" else 0
    short = steps - max(least, int(config.eeg_mask * steps)) - len(times)
    rows = chosen.flatten().nonzero().squeeze(1)
    there = batch.ids != PAD
    return PretrainingInputs(
        batch.eeg, batch.mask, shown, there, F.pad(times, (0, 0, 0, short)), F.pad(kept, (0, 0, 0, short)),
        masked.float(), rows, batch.ids.flatten()[rows], (there & ~chosen).float(), batch.sentence,
    )  # fmt: skip


class PretrainingStep(nn.Module):
    """The loss of one pretraining step of a CET-MAE, a scalar; all of its parameters take part."""

    def __init__(self, model: CETMAE, config: PretrainingConfig) -> None:
        super().__init__()
        self.model, self.config = model, config

    def forward(
        self, eeg: Tensor, mask: Tensor, ids: Tensor, there: Tensor, times: Tensor, kept_mask: Tensor, hidden: Tensor,
        rows: Tensor, answers: Tensor, visible: Tensor, sentence: Tensor,
    ) -> Tensor:  # fmt: skip
        model, weights = self.model, self.config
        kept = Kept(times, kept_mask)
        a, t = model.front.project(eeg, None, kept), model.encode_text(ids, there)
        unify = model.front.unify_branch
        joint = unify(torch.cat((a, t)), torch.cat((kept_mask, there)), "joint")
        restored = model.eeg_decoder(joint[: len(a)], kept, mask)
        at = hidden[..., None]
        eeg_loss = F.mse_loss(restored * at, eeg * at) / hidden.mean()
        logits = model.text_decoder(joint[len(a) :].flatten(0, 1).index_select(0, rows))
        text_loss = F.cross_entropy(logits, answers)
        contrastive = info_nce(
            mean_direction(unify(a, kept_mask, "eeg"), kept_mask), mean_direction(unify(t, there, "text"), visible),
            model.scale, sentence,
        )  # fmt: skip
        loss: Tensor = (
            weights.eeg_weight * eeg_loss + weights.text_weight * text_loss + weights.contrastive_weight * contrastive
        )
        return loss


class TeacherForcedStep(nn.Module):
    """The loss of one training step of an E2T-PTR: every id of ids [S, B] given those before it, a scalar."""

    def __init__(self, model: E2TPTR) -> None:
        super().__init__()
        self.model = model

    def forward(self, eeg: Tensor, mask: Tensor, ids: Tensor) -> Tensor:
        return self.model.loss(eeg, mask, ids)
