"""The callbacks of every training: reproducible random numbers, the epoch that is kept, history, and a guard."""

import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor
from torch.optim import Optimizer

from spikeloom.accel.common.files import first_few, write_csv

log = logging.getLogger("spikeloom")
PICKS = {"best_acc": ("valid_accuracy", "max"), "best_loss": ("valid_loss", "min")}


class Reseed(Callback):
    """Seeds torch by (seed, step) before each training step, so a resumed run drops the same units as an unbroken one.

    Once an epoch would not do: loaders draw from the same generator, at other moments when a run resumes. Batches whose
    gradients are added up (`accumulate` of them) are one step, and get numbers of their own all the same, as do
    processes that train together: two of them draw what one draws for two batches that it adds up.
    """

    def __init__(self, seed: int, accumulate: int = 1) -> None:
        self.seed, self.accumulate = seed, accumulate

    def on_train_batch_start(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, batch: Any, batch_index: int
    ) -> None:
        part = 500_009 * (batch_index % self.accumulate * trainer.world_size + trainer.global_rank)
        torch.manual_seed(self.seed * 1_000_003 + trainer.global_step + part)


def check_pick(pick: str) -> None:
    """Raise ValueError for a way to choose an epoch that `BestEpoch` does not know."""
    if pick not in PICKS:
        raise ValueError(f"an epoch is picked by {' or '.join(PICKS)}, got {pick!r}; use best_acc")


class BestEpoch(ModelCheckpoint):
    """Keeps best.ckpt, the epoch chosen on the validation samples, written after `History` has its row.

    best_acc: highest accuracy, among equals lowest loss, then the earlier. best_loss: lowest loss, then the earlier.
    Only epochs at whose end `eligible()` says so can be chosen.
    """

    def __init__(self, folder: Path, pick: str = "best_acc", eligible: Callable[[], bool] = lambda: True) -> None:
        check_pick(pick)
        self.eligible = eligible
        monitor, mode = PICKS[pick]
        super().__init__(
            dirpath=folder, filename="best", monitor=monitor, mode=mode, enable_version_counter=False,
            save_on_train_epoch_end=True,
        )  # fmt: skip
        self.valid_accuracy = self.valid_loss = math.nan  # of the epoch that is kept

    def check_monitor_top_k(self, trainer: lightning.Trainer, current: Tensor | None = None) -> bool:
        if not self.eligible():
            return False
        found = trainer.callback_metrics
        accuracy, loss = (float(found.get(name, math.nan)) for name in ("valid_accuracy", "valid_loss"))
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


class LastEpoch(ModelCheckpoint):
    """Keeps last.ckpt, which an interrupted training resumes from; `save_last` of `BestEpoch` would follow it only."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            dirpath=folder, filename="last", enable_version_counter=False, save_on_train_epoch_end=True
        )  # fmt: skip


class EveryEpoch(ModelCheckpoint):
    """Writes the weights of every epoch. A class of its own, since Lightning keeps the state of callbacks by class."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            dirpath=folder, filename="{epoch}", save_top_k=-1, save_weights_only=True, enable_version_counter=False,
            save_on_train_epoch_end=True,
        )  # fmt: skip


class History(Callback):
    """One row of metrics an epoch, kept in the checkpoint and written to metrics.csv, so a resumed run has them all.

    `say` prints each row with the time that is left.
    """

    def __init__(self, path: Path, *, say: bool) -> None:
        self.path, self.say = path, say
        self.rows: list[dict[str, float]] = []  # epoch, the module's HISTORY, lr
        self._started, self._done = 0.0, 0

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self._started, self._done = time.monotonic(), trainer.current_epoch
        batches, between = trainer.num_training_batches, trainer.val_check_batch
        if isinstance(between, int) and 0 < between < batches and batches % between:
            log.warning(
                "trainer.val_check_interval: the last validation of an epoch comes %d batches before its end, and the "
                "epoch is chosen by it; a divisor of %d batches ends with the epoch", batches % between, batches,
            )  # fmt: skip

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: Any) -> None:
        found = trainer.callback_metrics
        row: dict[str, float] = {"epoch": trainer.current_epoch + 1}
        row |= {name: float(found[name]) for name in module.HISTORY if name in found}
        row["lr"] = float(trainer.optimizers[0].param_groups[0]["lr"])
        self.rows.append(row)
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            write_csv(self.path, self.rows)
        if self.say and trainer.is_global_zero:
            print(
                f"epoch {row['epoch']:3.0f}/{trainer.max_epochs}  {module.describe(row)}{self._left(trainer)}",
                flush=True,
            )

    def _left(self, trainer: lightning.Trainer) -> str:
        """`  ETA 0:03:20` from the epochs of this process."""
        done, all_epochs = trainer.current_epoch + 1, trainer.max_epochs or 0
        if done >= all_epochs:
            return ""
        seconds = (time.monotonic() - self._started) / (done - self._done) * (all_epochs - done)
        minutes, seconds = divmod(round(seconds), 60)
        return f"  ETA {minutes // 60}:{minutes % 60:02d}:{seconds:02d}"

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows = state_dict["rows"]


class FiniteGuard(Callback):
    """Stops at the first loss or gradient that is not finite; the checkpoint of the epoch before stays.

    Gradients of float16 products are scaled and may overflow: their scaler leaves such a step out.
    """

    def __init__(self) -> None:
        self._index, self._batch = 0, None  # those at hand

    def on_train_batch_start(self, trainer: lightning.Trainer, module: Any, batch: Any, batch_index: int) -> None:
        self._index, self._batch = batch_index, batch

    def on_before_backward(self, trainer: lightning.Trainer, module: Any, loss: Tensor) -> None:
        loss = loss.detach()
        if not bool(torch.isfinite(loss).all()):
            raise ValueError(self._words(f"the loss is {float(loss)}", trainer))

    def on_before_optimizer_step(self, trainer: lightning.Trainer, module: Any, optimizer: Optimizer) -> None:
        if "16-mixed" in str(trainer.precision):
            return
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        # One number for all of them; only where it is none, or there is no such number, is each looked at.
        plain = all(type(gradient) is Tensor and gradient.layout == torch.strided for gradient in gradients)
        if plain and bool(torch.isfinite(torch.nn.utils.get_total_norm(gradients))):
            return
        for name, parameter in module.named_parameters():
            if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all()):
                raise ValueError(self._words(f"the gradient of {name} is not finite", trainer))

    def _words(self, what: str, trainer: lightning.Trainer) -> str:
        ids = getattr(getattr(self._batch, "student", self._batch), "sample_ids", None)
        samples = "" if ids is None else f" (samples {first_few([str(i) for i in ids.tolist()], 8)})"
        return (
            f"{what} in epoch {trainer.current_epoch + 1}, batch {self._index + 1}{samples}; lower optimizer.lr, or "
            "check the data with `spikeloom data check`. The checkpoint of the epoch before is kept"
        )
