"""Pruning as an option of training: a Lightning callback that tells a pruner of every step, for any model of the suite.

It needs nothing of the task but its `model` (and `training_loss(batch)` where a mask is found before training). The
optimiser calls the pruner after each step that it really makes, so a step that a gradient scaler skips moves nothing.
"""

import copy
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.optim import Optimizer

from spikeloom.accel.common.files import write_csv
from spikeloom.accel.learning.pruning.at_init import AtInitPruner
from spikeloom.accel.learning.pruning.pruner import Pruner, PruneReport
from spikeloom.accel.learning.pruning.sparsity import MacCounter


class Pruning(Callback):
    """Prunes `task.model` by `pruner`, one row an epoch in the file `path`. The pruner's state is in the checkpoint."""

    def __init__(self, pruner: Pruner, path: Path) -> None:
        self.pruner, self.path = pruner, path
        self.rows: list[dict[str, Any]] = []  # one an epoch
        self.macs: dict[str, int] = {}  # dense multiply-accumulates of one sample, by layer
        self.last: PruneReport | None = None
        self._loaded: dict[str, Any] | None = None
        self._counter: MacCounter | None = None

    @property
    def reached(self) -> bool:
        """Whether the weights now are as sparse as they are going to be, and as they are meant to be."""
        if not self.pruner.finished or self.last is None:
            return False
        return self.pruner.target is None or self.last.sparsity.sparsity_of_pruned_layers >= self.pruner.target

    def on_fit_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        if len(trainer.optimizers) != 1:
            raise ValueError(f"pruning follows one optimiser, and this task has {len(trainer.optimizers)}; use one")
        (optimizer,) = trainer.optimizers
        self.pruner.plan(planned_rates(trainer), optimizer)
        if self._loaded is not None:
            self.pruner.load_state_dict(self._loaded)
        optimizer.register_step_post_hook(lambda made, args, kwargs: self.pruner.after_step(made, not skipped(made)))

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        if isinstance(self.pruner, AtInitPruner) and not self.pruner.found:
            self.pruner.find(losses_of(trainer, module))
            for mask in self.pruner.masks():  # of several processes, each saw batches of its own
                mask.copy_(trainer.strategy.broadcast(mask, src=0))

    def on_before_optimizer_step(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, optimizer: Optimizer
    ) -> None:
        self.pruner.before_step(optimizer)

    def on_validation_batch_start(self, trainer: Any, module: Any, batch: Any, batch_idx: int, *loader: int) -> None:
        if not self.macs:
            self._counter = MacCounter(module.model)

    def on_validation_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int, *loader: int
    ) -> None:
        if self._counter is not None:
            self.macs, self._counter = self._counter.of_one(samples_in(batch)), None

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self.last = report = self.pruner.report(self.macs or None)
        sparsity = report.sparsity
        self.rows.append(
            {
                "epoch": trainer.current_epoch + 1, "step": report.step, "threshold": report.threshold, "mu": report.mu,
                "l1": report.l1, "l1_missing": report.l1_missing, "lr_sum": report.lr_sum, "pruned": report.pruned,
                "regrown": report.regrown, "zeros": sparsity.zeros,
                "sparsity_of_pruned_layers": sparsity.sparsity_of_pruned_layers,
                "sparsity_of_conv_and_linear": sparsity.sparsity_of_conv_and_linear,
                "sparsity_of_all_parameters": sparsity.sparsity_of_all_parameters,
                "macs_left": sparsity.macs_left,
                **{f"sparsity.{layer.path}": 1 - layer.density for layer in sparsity.layers},
            }
        )  # fmt: skip
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            write_csv(self.path, self.rows)
        module.log("sparsity", sparsity.sparsity_of_pruned_layers)

    def state_dict(self) -> dict[str, Any]:
        return {"pruner": self.pruner.state_dict(), "rows": self.rows, "macs": self.macs}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._loaded, self.rows, self.macs = state_dict["pruner"], state_dict["rows"], state_dict["macs"]


def skipped(optimizer: Optimizer) -> bool:
    """Whether a fused optimiser left its step out, as its gradient scaler told it to; others are then not called."""
    found_inf = getattr(optimizer, "found_inf", None)
    return found_inf is not None and bool(found_inf)


def planned_rates(trainer: lightning.Trainer) -> list[float]:
    """The learning rate that every optimiser step of this fit is meant to have, by running a copy of its scheduler."""
    if not math.isfinite(trainer.estimated_stepping_batches):
        raise ValueError("pruning needs to know how many steps there will be; set trainer.epochs")
    steps = int(trainer.estimated_stepping_batches)
    (optimizer,) = trainer.optimizers
    rate = lambda o: float(o.param_groups[0]["lr"])  # noqa: E731
    if not trainer.lr_scheduler_configs:
        return [rate(optimizer)] * steps
    (config,) = trainer.lr_scheduler_configs
    if isinstance(config.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        raise ValueError("a learning rate that follows the validation loss cannot be planned for; use a fixed schedule")
    kept = {id(p): p for group in optimizer.param_groups for p in group["params"]}  # not worth copying
    twin = copy.deepcopy(config.scheduler, dict(kept))
    period = config.frequency * (1 if config.interval == "step" else math.ceil(steps / (trainer.max_epochs or 1)))
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the optimiser has not stepped: it will not
        for step in range(steps):
            rates.append(rate(twin.optimizer))
            if (step + 1) % period == 0:
                twin.step()
    return rates


def losses_of(trainer: lightning.Trainer, module: lightning.LightningModule) -> Callable[[nn.Module], Iterator[Tensor]]:
    """Training losses of another model under this task, one a batch, epoch after epoch."""
    task: Any = module
    if not hasattr(task, "training_loss"):
        raise ValueError(f"{type(task).__name__} has no training_loss(batch), so no mask can be found before training")

    def losses(model: nn.Module) -> Iterator[Tensor]:
        real = task.model
        while True:
            for batch in trainer.train_dataloader or ():
                batch = trainer.strategy.batch_to_device(batch)
                task.model = model
                try:
                    loss: Tensor = task.training_loss(batch)
                finally:
                    task.model = real
                yield loss

    return losses


def samples_in(batch: Any) -> int:
    """How many samples a batch holds: as many as it has labels, else the first dimension of its first tensor."""
    labels = getattr(batch, "labels", None)
    if labels is not None:
        return len(labels)
    tensors = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, Sequence) else (batch,)
    return next((len(t) for t in tensors if isinstance(t, Tensor)), 1)


def outcome(pruning: Pruning) -> dict[str, Any]:
    """What result.json says of the weights the task holds now: sparsity, work left, the L1 coefficient on the way."""
    pruner, l1 = pruning.pruner, [row["l1"] for row in pruning.rows if row["l1"] is not None]
    report = pruner.report(pruning.macs or None)
    return {
        "method": pruner.method,
        "target": pruner.target,
        "sparsity": report.sparsity.sparsity_of_pruned_layers,
        "threshold": report.threshold,
        "l1_mean": sum(l1) / len(l1) if l1 else None,
        "l1_missing": report.l1_missing,
        "report": report.sparsity.as_dict(),
    }
