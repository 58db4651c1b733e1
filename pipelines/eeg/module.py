"""What Lightning trains of EEG: CET-MAE by its pretraining objective, E2T-PTR by the next id given the true ones.

Validation draws its masks by the number of the batch, so every epoch is measured by the same ones. Sentences are
contrasted within a batch of one process, so two processes learn what one learns from two batches that it adds up
(trainer.accumulate=2), not from one of twice the size.
"""

from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from spikeloom.accel.common.datamodule import DataSpec
from spikeloom.bci.models.cet_mae import CETMAEConfig
from spikeloom.bci.models.e2t_ptr import build_e2t_ptr
from spikeloom.bci.models.pretraining import PretrainingBatch
from spikeloom.pipelines.config.train import TrainConfig
from spikeloom.pipelines.training.module import TrainingModule

PARTS = ("loss", "eeg", "text", "contrastive")


class TrialModule(TrainingModule):
    """Minimises `loss` of `losses(batch)`; logs every part for train, valid and test."""

    HISTORY: ClassVar[tuple[str, ...]] = (
        *(f"train_{part}" for part in PARTS), *(f"valid_{part}" for part in PARTS), "sparsity",
    )  # fmt: skip

    def losses(self, batch: PretrainingBatch) -> Mapping[str, Tensor]:
        """`loss`, which is minimised, and its parts; scalars."""
        raise TypeError(f"{type(self).__name__} has no losses of its own")

    def training_loss(self, batch: PretrainingBatch) -> Tensor:
        return self.losses(batch)["loss"]

    def training_step(self, batch: PretrainingBatch, batch_index: int) -> Tensor:
        found = self.losses(batch)
        self._log("train", found, batch)
        return found["loss"]

    def validation_step(self, batch: PretrainingBatch, batch_index: int) -> None:
        self._measure("valid", batch, batch_index)

    def test_step(self, batch: PretrainingBatch, batch_index: int) -> None:
        self._measure("test", batch, batch_index)

    def describe(self, row: Mapping[str, float]) -> str:
        contrastive = f"  contrastive {row['valid_contrastive']:.3f}" if "valid_contrastive" in row else ""
        return super().describe(row) + contrastive

    def _measure(self, split: str, batch: PretrainingBatch, batch_index: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(batch_index * self.trainer.world_size + self.trainer.global_rank)
            self._log(split, self.losses(batch), batch)

    def _log(self, split: str, found: Mapping[str, Tensor], batch: PretrainingBatch) -> None:
        values = {f"{split}_{name}": value.detach() for name, value in found.items()}
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=len(batch.sentence), sync_dist=True)


class PretrainingModule(TrialModule):
    """CET-MAE. `predict_step` returns the vectors of EEG and text, `[B, D]` each."""

    def losses(self, batch: PretrainingBatch) -> Mapping[str, Tensor]:
        found = self.objective(self.model, batch)
        return {"loss": found.total, "eeg": found.eeg, "text": found.text, "contrastive": found.contrastive}

    @cached_property
    def objective(self) -> Any:
        return self.config.model.pretraining.build()

    def predict_step(self, batch: PretrainingBatch, batch_index: int) -> tuple[Tensor, Tensor]:
        return self.model.eeg_vector(batch.eeg, batch.mask), self.model.text_vector(batch.ids, batch.target)


class DecodingModule(TrialModule):
    """E2T-PTR. `predict_step` returns the ids it writes freely, `[S, B]`.

    Args:
        config, data, model: as in `TrainingModule`.
        sizes: of the CET-MAE whose encoder it has, or their plain values.
    """

    def __init__(
        self, config: TrainConfig | Mapping[str, Any], data: DataSpec | Mapping[str, Any],
        model: nn.Module | None = None, *, sizes: CETMAEConfig | Mapping[str, Any],
    ) -> None:  # fmt: skip
        self.sizes = sizes if isinstance(sizes, CETMAEConfig) else CETMAEConfig(**sizes)
        super().__init__(config, data, model, sizes=asdict(self.sizes))

    def build(self) -> nn.Module:
        recipe = self.config.model
        return build_e2t_ptr(self.sizes, self.spec.vocab_size, recipe.stream, recipe.decoder)

    def losses(self, batch: PretrainingBatch) -> Mapping[str, Tensor]:
        smoothing = self.config.optimizer.label_smoothing if self.training else 0.0
        return {"loss": self.model.loss(batch.eeg, batch.mask, batch.ids, label_smoothing=smoothing)}

    def predict_step(self, batch: PretrainingBatch, batch_index: int) -> Any:
        return self.model.generate(batch.eeg, batch.mask, self.config.model.decoding)
