"""Training of a model of readings: one Lightning task for CET-MAE and E2T-PTR, and the fit that both share.

What is minimised comes from the model's room; here are optimiser, schedule, checkpoints and the rows of metrics.csv.
Validation draws its masks by the number of the batch, so every epoch is measured by the same ones.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar
from torch import Tensor, nn

from bci.cet_mae import CETMAE
from bci.datamodule import EncodedReadings, reading_loader
from bci.e2t_ptr import E2TPTR
from bci.training import Pretraining, PretrainingBatch
from pipelines.optimisation import OptimizerConfig
from pipelines.process import on_terminal
from pipelines.pruning import Pruning, outcome
from pipelines.schema import TrainConfig
from pipelines.tasks import AtomicCheckpointIO, History, Reseed, adamw_cosine
from pipelines.train import check_checkpoint, precision_of

CLIP_NORM = 1.0
Losses = Callable[[Any, PretrainingBatch], Mapping[str, Tensor]]  # `loss`, which is minimised, and its parts


def pretraining_losses(pretraining: Pretraining) -> Losses:
    def losses(model: CETMAE, batch: PretrainingBatch) -> Mapping[str, Tensor]:
        found = pretraining(model, batch)
        return {"loss": found.total, "eeg": found.eeg, "text": found.text, "contrastive": found.contrastive}

    return losses


def decoding_losses(model: E2TPTR, batch: PretrainingBatch) -> Mapping[str, Tensor]:
    loss = model.loss(batch.eeg, batch.mask, batch.ids)
    if not bool(loss.isfinite()):
        raise ValueError(f"the loss is {float(loss.detach())}; check the EEG for NaN, or lower optimizer.lr")
    return {"loss": loss}


class ReadingTask(lightning.LightningModule):
    """Minimises `loss` of `losses(model, batch)`; logs every part for train and valid."""

    def __init__(self, model: nn.Module, losses: Losses, optimizer: OptimizerConfig) -> None:
        super().__init__()
        self.model, self.losses, self.optimizer_config = model, losses, optimizer

    def training_loss(self, batch: PretrainingBatch) -> Tensor:
        """What a training step minimises."""
        return self.losses(self.model, batch)["loss"]

    def training_step(self, batch: PretrainingBatch, batch_index: int) -> Tensor:
        found = self.losses(self.model, batch)
        self._log("train", found, batch)
        return found["loss"]

    def validation_step(self, batch: PretrainingBatch, batch_index: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(batch_index)
            self._log("valid", self.losses(self.model, batch), batch)

    def _log(self, split: str, found: Mapping[str, Tensor], batch: PretrainingBatch) -> None:
        values = {f"{split}_{name}": value.detach() for name, value in found.items()}
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=len(batch.sentence))

    def configure_optimizers(self) -> Any:
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        return adamw_cosine(self, trained, self.optimizer_config)


class LossHistory(History):
    """Every loss of an epoch."""

    METRICS = (
        *(f"{split}_{name}" for split in ("train", "valid") for name in ("loss", "eeg", "text", "contrastive")),
        "sparsity",
    )

    def told(self, row: Mapping[str, float]) -> str:
        return f"train loss {row['train_loss']:.3f}  validation loss {row['valid_loss']:.3f}" + (
            (f"  contrastive {row['valid_contrastive']:.3f}" if "valid_contrastive" in row else "")
            + (f"  sparsity {100 * row['sparsity']:.1f} %" if "sparsity" in row else "")
        )


class LowestLoss(ModelCheckpoint):
    """Keeps best.ckpt, the epoch of lowest validation loss, among equals the earlier; of a model that is being pruned
    only from those that are as sparse as was asked for."""

    def __init__(self, folder: Path, pruning: Pruning | None) -> None:
        super().__init__(
            dirpath=folder, filename="best", monitor="valid_loss", mode="min", enable_version_counter=False,
            save_on_train_epoch_end=True,
        )  # fmt: skip
        self.pruning = pruning

    def check_monitor_top_k(self, trainer: lightning.Trainer, current: Tensor | None = None) -> bool:
        eligible = self.pruning is None or self.pruning.reached
        return eligible and super().check_monitor_top_k(trainer, current)


class Fitted(NamedTuple):
    """The epoch whose weights were kept, counted from 1, and of a pruned model what became of its weights."""

    best_epoch: int
    pruning: dict[str, Any] | None


def fit(
    config: TrainConfig,
    folder: Path,
    task: ReadingTask,
    sets: Mapping[str, EncodedReadings],
    *,
    seed: int,
    resume: bool = False,
    say: bool = True,
) -> Fitted:
    """Train `task` on sets["train"] into `folder`, pruning it where the configuration says so, and leave it with the
    weights of the epoch that `LowestLoss` keeps."""
    checkpoints = folder / "checkpoints"
    pruner = config.pruning.build(task.model)
    pruning = None if pruner is None else Pruning(pruner, folder / "pruning.csv")
    best = LowestLoss(checkpoints, pruning)
    latest = ModelCheckpoint(
        dirpath=checkpoints, filename="last", enable_version_counter=False, save_on_train_epoch_end=True
    )
    say_bar = say and on_terminal()
    trainer = lightning.Trainer(
        accelerator=config.trainer.accelerator,
        devices=1,
        precision=precision_of(config.trainer),
        max_epochs=config.trainer.epochs,
        gradient_clip_val=CLIP_NORM,
        callbacks=[
            best,
            latest,
            *([pruning] if pruning else []),
            LossHistory(folder / "metrics.csv", say=say and not on_terminal()),
            Reseed(seed),
            *([RichProgressBar()] if say_bar else []),
        ],
        plugins=[AtomicCheckpointIO()],
        logger=False,
        enable_model_summary=False,
        enable_progress_bar=say_bar,
        num_sanity_val_steps=0,
    )
    last = checkpoints / "last.ckpt"
    check_checkpoint(last if resume else None)
    size = config.trainer.batch_size
    trainer.fit(
        task,
        reading_loader(sets["train"], batch_size=size, seed=seed, shuffle=True),
        reading_loader(sets["valid"], batch_size=size, seed=seed, shuffle=False),
        ckpt_path=last if resume and last.exists() else None,
        weights_only=True,
    )
    chosen = torch.load(checkpoints / "best.ckpt", weights_only=True, map_location="cpu")
    task.load_state_dict(chosen["state_dict"])
    task.cpu().eval()
    told = None
    if pruning is not None:
        told = outcome(pruning)
        pruning.pruner.bake()
    return Fitted(int(chosen["epoch"]) + 1, told)
