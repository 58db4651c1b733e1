"""How CET-MAE is pre-trained: what is masked, what is minimised, and the learning rate of a step.

    n = N + 1 tokens of EEG; masked: the sentence token and max(0, int(ratio n) - 1) random words
    L = 0.1 L_T + 1.0 L_E + 0.01 L_CL
    L_E  = mean over masked tokens of (EEG' - EEG)^2         L_T = cross-entropy at masked ids
    L_CL = symmetric InfoNCE of scale * e_i . t_j, where the same sentence read by others (i != j) is no negative

Text is masked id by id, Bernoulli(ratio), never a special token. Random numbers come from the generator that is given.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, SequentialLR

from spikeloom.bci.data.tokenizer import UNKNOWN
from spikeloom.bci.models.cet_mae import CETMAE


class PretrainingBatch(NamedTuple):
    """eeg [L, B, 840], mask [L, B] bool, ids [S, B] int64, sentence [B] int64: equal numbers, equal sentences; target
    [B, W]: vectors of the sentences by an encoder of their own, None without one."""

    eeg: Tensor
    mask: Tensor
    ids: Tensor
    sentence: Tensor
    target: Tensor | None = None


class PretrainingLosses(NamedTuple):
    """Scalars; `total` is what is minimised."""

    total: Tensor
    eeg: Tensor
    text: Tensor
    contrastive: Tensor


def sentence_numbers(keys: Sequence[str]) -> Tensor:
    """int64 [B]: equal keys, equal numbers."""
    numbers: dict[str, int] = {}
    return torch.tensor([numbers.setdefault(key, len(numbers)) for key in keys])


def mask_eeg(mask: Tensor, ratio: float, sentence_mask: str, generator: torch.Generator | None = None) -> Tensor:
    """Which valid tokens of mask [L, B] are hidden: bool [L, B]. At least one a sample is kept.

    sentence_mask: `forced` hides the last valid token and max(0, int(ratio n) - 1) others; `random` any int(ratio n).
    """
    lengths = mask.sum(0)
    if not bool((lengths >= (2 if sentence_mask == "forced" else 1)).all()):
        raise ValueError(f"a sample has {int(lengths.min())} EEG tokens; drop it, or mask without a sentence token")
    free = mask.clone()
    count = (ratio * lengths).int()
    if sentence_mask == "forced":
        last = (torch.arange(len(mask), device=mask.device)[:, None] == lengths - 1) & mask
        free &= ~last
        count = (count - 1).clamp(min=0)
    count = torch.minimum(count, free.sum(0) - 1)
    draw = torch.rand(mask.shape, generator=generator).to(mask.device).masked_fill(~free, 2.0)
    hidden = (draw.argsort(0).argsort(0) < count) & free
    return hidden | last if sentence_mask == "forced" else hidden


def mask_text(
    ids: Tensor, ratio: float, mask_id: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """ids [S, B] -> (copy with `<mask>`, bool [S, B] where). With two ordinary ids, one at least is masked, one not."""
    ordinary = (ids > UNKNOWN) & (ids != mask_id)
    draw = torch.rand(ids.shape, generator=generator).to(ids.device)
    order = draw.masked_fill(~ordinary, 2.0).argsort(0).argsort(0)  # rank among the ordinary ids, the rest behind
    n = ordinary.sum(0)
    chosen = (draw < ratio) & ordinary
    several = n >= 2
    chosen = torch.where(several & (order == 0), True, chosen) & ~(several & (order == n - 1))
    return torch.where(chosen, mask_id, ids), chosen


def info_nce(eeg_vector: Tensor, text_vector: Tensor, scale: Tensor | float, sentence: Tensor) -> Tensor:
    """L_CL of unit vectors [B, D], over the sentences `sentence` [B]; chance is the mean ln of the candidates left."""
    again = (sentence[:, None] == sentence) & ~torch.eye(len(sentence), dtype=torch.bool, device=sentence.device)
    logits = (scale * eeg_vector @ text_vector.T).masked_fill(again, -math.inf)
    own = torch.arange(len(sentence), device=sentence.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


@dataclass
class PretrainingConfig:
    """Shares masked, and weights of the losses; the defaults are the published ones."""

    eeg_mask: float = 0.75  # fraction of the words whose EEG is masked
    text_mask: float = 0.75  # fraction of the tokens that are masked
    sentence_mask: str = "forced"  # or random
    eeg_weight: float = 1.0  # of the EEG reconstruction loss
    text_weight: float = 0.1  # of the masked-token loss
    contrastive_weight: float = 0.01  # of the contrastive loss between EEG and text

    @classmethod
    def planted(cls) -> "PretrainingConfig":
        """Half masked on either side, and a contrastive term that counts: ten-word sentences must keep common words."""
        return cls(eeg_mask=0.5, text_mask=0.5, contrastive_weight=1.0)

    def build(self) -> "Pretraining":
        return Pretraining(self)


class Pretraining:
    """Masks a batch, runs the model, weighs the losses."""

    def __init__(self, config: PretrainingConfig) -> None:
        for name in ("eeg_mask", "text_mask"):
            if not 0 < getattr(config, name) < 1:
                raise ValueError(f"{name} must lie between 0 and 1, got {getattr(config, name)}; use 0.75")
        if config.sentence_mask not in ("forced", "random"):
            raise ValueError(f"sentence_mask is forced or random, got {config.sentence_mask!r}; use forced")
        self.config = config

    def __call__(
        self, model: CETMAE, batch: PretrainingBatch, generator: torch.Generator | None = None
    ) -> PretrainingLosses:
        """Losses of a batch. Raises ValueError where one is not finite, naming it."""
        config = self.config
        masked = mask_eeg(batch.mask, config.eeg_mask, config.sentence_mask, generator)
        ids, ids_masked = mask_text(batch.ids, config.text_mask, model.vocab_size - 1, generator)
        if not (bool(masked.any()) and bool(ids_masked.any())):
            raise ValueError("nothing is masked in this batch; use longer sentences or larger shares")
        out = model(batch.eeg, batch.mask, masked, ids, ids_masked, batch.target)
        eeg = F.mse_loss(out.eeg[masked], batch.eeg[masked])
        text = F.cross_entropy(model.text_decoder(out.text[ids_masked]), batch.ids[ids_masked])
        contrastive = info_nce(out.eeg_vector, out.text_vector, model.scale, batch.sentence)
        total = config.eeg_weight * eeg + config.text_weight * text + config.contrastive_weight * contrastive
        losses = PretrainingLosses(total, eeg, text, contrastive)
        if not bool(total.isfinite()):
            values = ", ".join(f"{name} {float(value.detach()):.3g}" for name, value in losses._asdict().items())
            raise ValueError(f"the loss is not finite ({values}); check the EEG for NaN, or lower the learning rate")
        return losses


@dataclass
class OptimisationConfig:
    """AdamW, linear warm-up, then one cosine to 0, per step. lr: 1e-3 for the small sizes, 1e-4 for the published."""

    lr: float = 1e-4
    weight_decay: float = 1e-2
    warmup_steps: int = 60
    clip_norm: float = 1.0

    def build(self, model: nn.Module, total_steps: int) -> "Optimisation":
        return Optimisation(self, model, total_steps)


class Optimisation:
    """Optimiser and schedule of the parameters that are not frozen."""

    def __init__(self, config: OptimisationConfig, model: nn.Module, total_steps: int) -> None:
        if not 1 <= config.warmup_steps < total_steps:
            raise ValueError(f"got {config.warmup_steps} warm-up steps of {total_steps}; use 1 up to one less than all")
        self.clip_norm = config.clip_norm
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=config.lr, weight_decay=config.weight_decay)
        warmup = LinearLR(self.optimizer, start_factor=1 / config.warmup_steps, total_iters=config.warmup_steps)
        cosine = CosineAnnealingLR(self.optimizer, T_max=total_steps - config.warmup_steps)
        self.schedule = SequentialLR(self.optimizer, [warmup, cosine], milestones=[config.warmup_steps])

    def step(self, loss: Tensor) -> None:
        """One update down the gradient of `loss`, clipped."""
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        self.optimizer.step()
        self.schedule.step()
