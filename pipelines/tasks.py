"""The one classification task Lightning trains, whatever the domain, and what keeps its runs reproducible."""

import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from accel.files import write_csv
from pipelines.optimisation import OptimizerConfig, learning_rate_factor


class ClassificationTask(lightning.LightningModule):
    """Trains `model` by the negative log-likelihood of `log_probabilities(model, batch)` [B, classes].

    A batch has int64 `labels` [B]. Validation logs the exact accuracy (correct / total) and mean loss.
    """

    def __init__(
        self,
        model: nn.Module,
        n_classes: int,
        optimizer: OptimizerConfig,
        log_probabilities: Callable[[Any, Any], Tensor],
    ) -> None:
        super().__init__()
        self.model, self.optimizer_config, self.log_probabilities = model, optimizer, log_probabilities
        self.valid_accuracy = MulticlassAccuracy(num_classes=n_classes, average="micro")
        self.train_loss, self.valid_loss = MeanMetric(), MeanMetric()

    def training_loss(self, batch: Any) -> Tensor:
        """What a training step minimises."""
        return self.cross_entropy(self.log_probabilities(self.model, batch), batch.labels)

    def cross_entropy(self, log_p: Tensor, labels: Tensor) -> Tensor:
        """Mean negative log-likelihood of labels [B] under log-probabilities [B, classes], smoothed as configured."""
        smoothing = self.optimizer_config.label_smoothing
        return (1 - smoothing) * F.nll_loss(log_p, labels) - smoothing * log_p.mean()

    def training_step(self, batch: Any, batch_index: int) -> Tensor:
        loss = self.training_loss(batch)
        self.train_loss(loss.detach(), weight=len(batch.labels))
        self.log("train_loss", self.train_loss, on_step=False, on_epoch=True, batch_size=len(batch.labels))
        return loss

    def validation_step(self, batch: Any, batch_index: int) -> None:
        log_p = self.log_probabilities(self.model, batch)
        self.valid_accuracy(log_p, batch.labels)
        self.valid_loss(F.nll_loss(log_p, batch.labels), weight=len(batch.labels))
        self.log("valid_loss", self.valid_loss, batch_size=len(batch.labels))
        self.log("valid_accuracy", self.valid_accuracy, batch_size=len(batch.labels), prog_bar=True)

    def configure_optimizers(self) -> Any:
        return adamw_cosine(self, self.model.parameters(), self.optimizer_config)


def adamw_cosine(task: lightning.LightningModule, trained: Iterable[nn.Parameter], config: OptimizerConfig) -> Any:
    """What `configure_optimizers` of a task returns for these parameters; the rate changes at every step."""
    # A fused step unscales gradients itself, and Lightning then refuses to clip those of mixed precision.
    clipped_and_mixed = task.trainer.gradient_clip_val is not None and task.trainer.precision != "32-true"
    optimizer = config.build(trained, fused=not clipped_and_mixed)
    per_epoch = math.ceil(task.trainer.estimated_stepping_batches / task.trainer.max_epochs)  # type: ignore[operator]
    epochs = task.trainer.max_epochs or 1
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: learning_rate_factor(i, per_epoch, epochs, config)
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Reseed(Callback):
    """Seeds torch by (seed, step) before each training step, so a resumed run drops the same units as an unbroken one.

    Once an epoch would not do: loaders draw from the same generator, at other moments when a run resumes. Batches whose
    gradients are added up (`accumulate` of them) are one step, and get numbers of their own all the same.
    """

    def __init__(self, seed: int, accumulate: int = 1) -> None:
        self.seed, self.accumulate = seed, accumulate

    def on_train_batch_start(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, batch: Any, batch_index: int
    ) -> None:
        part = 500_009 * (batch_index % self.accumulate)
        torch.manual_seed(self.seed * 1_000_003 + trainer.global_step + part)


def check_pick(pick: str) -> None:
    """Raise ValueError for a way to choose an epoch that `BestEpoch` does not know."""
    if pick not in ("best_acc", "best_loss"):
        raise ValueError(f"an epoch is picked by best_acc or best_loss, got {pick!r}; use best_acc")


class BestEpoch(ModelCheckpoint):
    """Keeps best.ckpt, the epoch chosen on the validation clips, written after `History` has its row.

    best_acc: highest accuracy, among equals lowest loss, then the earlier. best_loss: lowest loss, then the earlier.
    Only epochs at whose end `eligible()` says so can be chosen.
    """

    def __init__(self, folder: Path, pick: str = "best_acc", eligible: Callable[[], bool] = lambda: True) -> None:
        check_pick(pick)
        self.eligible = eligible
        monitor, mode = ("valid_accuracy", "max") if pick == "best_acc" else ("valid_loss", "min")
        super().__init__(
            dirpath=folder, filename="best", monitor=monitor, mode=mode, enable_version_counter=False,
            save_on_train_epoch_end=True,
        )  # fmt: skip
        self.valid_accuracy = self.valid_loss = math.nan  # of the epoch that is kept

    def check_monitor_top_k(self, trainer: lightning.Trainer, current: Tensor | None = None) -> bool:
        if not self.eligible():
            return False
        accuracy, loss = (float(trainer.callback_metrics[name]) for name in ("valid_accuracy", "valid_loss"))
        tie = current is not None and accuracy == self.valid_accuracy and loss < self.valid_loss
        better = super().check_monitor_top_k(trainer, current) or tie
        if better:
            self.valid_accuracy, self.valid_loss = accuracy, loss
        return better

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "valid_accuracy": self.valid_accuracy, "valid_loss": self.valid_loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.valid_accuracy, self.valid_loss = state_dict["valid_accuracy"], state_dict["valid_loss"]
        super().load_state_dict(state_dict)


class EveryEpoch(ModelCheckpoint):
    """Writes the weights of every epoch. A class of its own, since Lightning keeps the state of callbacks by class."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            dirpath=folder, filename="{epoch}", save_top_k=-1, save_weights_only=True, enable_version_counter=False,
            save_on_train_epoch_end=True,
        )  # fmt: skip


class History(Callback):
    """One row of metrics an epoch, kept in the checkpoint and written to metrics.csv, so a resumed run has them all."""

    # train_kl: where a teacher is listened to
    METRICS: tuple[str, ...] = ("train_loss", "train_kl", "valid_loss", "valid_accuracy", "sparsity")

    def __init__(self, path: Path, *, say: bool) -> None:
        self.path, self.say = path, say
        self.rows: list[dict[str, float]] = []  # epoch, METRICS, lr

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        found = trainer.callback_metrics
        row: dict[str, float] = {"epoch": trainer.current_epoch + 1}
        row |= {name: float(found[name]) for name in self.METRICS if name in found}
        row["lr"] = float(trainer.optimizers[0].param_groups[0]["lr"])
        self.rows.append(row)
        write_csv(self.path, self.rows)
        if self.say:
            print(f"epoch {trainer.current_epoch + 1:3d}/{trainer.max_epochs}  {self.told(row)}", flush=True)

    def told(self, row: Mapping[str, float]) -> str:
        """A row in one line for people."""
        return (
            f"train loss {row['train_loss']:.3f}  validation loss {row['valid_loss']:.3f}  "
            f"accuracy {100 * row['valid_accuracy']:.1f} %"
            + (f"  sparsity {100 * row['sparsity']:.1f} %" if "sparsity" in row else "")
        )

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint under a temporary name first: a kill leaves the previous one whole."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        partial = f"{path}.{os.getpid()}.partial"
        super().save_checkpoint(checkpoint, partial, storage_options)
        os.replace(partial, path)
