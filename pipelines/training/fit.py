"""One way to train any module on any data module: Lightning's trainer with the callbacks of this package.

    fit(module, data, config, folder) -> checkpoints/{best,last}.ckpt, metrics.csv, [pruning.csv], [epochs/], [logs/]

Classification, distillation and EEG all come through here; what differs is the module and the data.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, RichProgressBar
from lightning.pytorch.loggers import Logger

from spikeloom.accel.common.files import brief
from spikeloom.accel.spiking.synced import synchronise
from spikeloom.pipelines.config.train import TrainConfig, TrainerConfig
from spikeloom.pipelines.training.callbacks import BestEpoch, EveryEpoch, FiniteGuard, History, LastEpoch, Reseed
from spikeloom.pipelines.training.checkpoints import AtomicCheckpointIO, read_checkpoint
from spikeloom.pipelines.training.plugins import make_callbacks, make_loggers
from spikeloom.pipelines.training.pruning import Pruning, outcome
from spikeloom.pipelines.training.run_dir import hyperparameters
from spikeloom.pipelines.training.runtime import on_terminal
from spikeloom.pipelines.training.sharding import strategy_of

log = logging.getLogger("spikeloom")
RETRAIN = "delete it, or add overwrite=true"


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """What a training left: the module has the weights of the last epoch until `keep_best`.

    best: path of the checkpoint that was chosen; None after trainer.fast_dev_run, which keeps none. history: one row an
    epoch. pruning: the callback of a pruned model.
    """

    best: Path | None
    history: list[dict[str, float]]
    pruning: Pruning | None

    def keep_best(self, module: Any) -> dict[str, Any]:
        """Give the module the weights of the epoch that was chosen; returns `best_epoch` (counted from 1), its
        validation metrics `valid`, and of a pruned model `pruning`."""
        assert self.best is not None, "a training of fast_dev_run chooses no epoch"
        chosen = read_checkpoint(self.best, RETRAIN)
        module.load_state_dict(chosen["state_dict"])
        module.cpu().eval()
        epoch = int(chosen["epoch"]) + 1
        row = self.history[epoch - 1]
        kept: dict[str, Any] = {
            "best_epoch": epoch,
            "valid": {name: value for name, value in row.items() if name.startswith("valid_")},
        }
        if self.pruning is not None:
            kept["pruning"] = outcome(self.pruning)
            self.pruning.pruner.bake()
        return kept


def fit(
    module: Any, data: lightning.LightningDataModule, config: TrainConfig, folder: Path, *, seed: int,
    pick: str = "best_acc", resume: bool = False, quiet: bool = False,
) -> FitResult:  # fmt: skip
    """Train `module` on the training batches of `data`, pruning it where the configuration says so.

    Args:
        module: a `TrainingModule`; on the CPU and in single precision afterwards, whatever it was trained in.
        data: set up, or set up by Lightning.
        config: its `trainer`, `pruning`, `logger`, `callbacks` and `report_test_selected` are used here.
        folder: receives checkpoints, metrics.csv, pruning.csv and logs.
        seed: of the random numbers drawn in training.
        pick: the metric that chooses the epoch, best_acc or best_loss.
        resume: go on from checkpoints/last.ckpt where there is one.
        quiet: print no rows and no bar, take no logger and no callback (`config` may be that of a file), and write no
            last.ckpt: such a training begins anew.

    Raises:
        ValueError: a checkpoint is damaged or of another model, a logger or callback cannot be made, or a loss or
            gradient is not finite; names the remedy.
    """
    checkpoints, told = folder / "checkpoints", config.trainer
    pruner = config.pruning.build(module.model)
    pruning = None if pruner is None else Pruning(pruner, folder / "pruning.csv")
    history = History(folder / "metrics.csv", say=not quiet and not on_terminal())
    best = BestEpoch(checkpoints, pick, (lambda: True) if pruning is None else (lambda: pruning.reached))
    loggers = [] if quiet else make_loggers(config.logger, folder)
    own: list[Callback] = [
        # Checkpoints are written after History has its row of the epoch: a resumed run must not lose it.
        best,
        # Before last.ckpt: an epoch that a resumed run does not repeat has left all it leaves.
        *([EveryEpoch(folder / "epochs")] if config.report_test_selected else []),
        *([] if quiet else [LastEpoch(checkpoints)]),
        *([pruning] if pruning else []),
        history,
        FiniteGuard(),
        Reseed(seed, told.accumulate),
        *([EMAWeightAveraging(decay=told.ema_decay)] if told.ema_decay else []),
        *([] if quiet else make_callbacks(config.callbacks, logs=bool(loggers))),
    ]
    bar = not quiet and on_terminal()
    strategy = strategy_of(told.strategy, told.strategy_args, module)
    trainer = make_trainer(
        told, [*own, *([RichProgressBar()] if bar else [])], folder, bar=bar, loggers=loggers, strategy=strategy
    )
    last = checkpoints / "last.ckpt"
    start = last if resume and last.exists() else Path(told.ckpt_path) if told.ckpt_path is not None else None
    if start is not None:
        read_checkpoint(start, RETRAIN if start == last else "give trainer.ckpt_path=FILE, a last.ckpt of a training")
    for logger in loggers:
        logger.log_hyperparams(hyperparameters(config))
    if told.sync_batchnorm and not synchronise(module.model):
        raise ValueError("trainer.sync_batchnorm=true: this model has no batch norm; leave it out")
    if told.compile:
        module.compile_model()
    try:
        trainer.fit(module, datamodule=data, ckpt_path=start, weights_only=True)
    except SystemExit as end:  # how Lightning ends an interrupted training; the command line says it in its own way
        if isinstance(end.__context__, KeyboardInterrupt):
            raise end.__context__ from None
        raise
    except (RuntimeError, KeyError, MisconfigurationException) as error:
        raise in_one_line(error, told, start) from error
    module.float()
    if told.fast_dev_run:
        log.info("fast_dev_run: one batch of training and one of validation went through; nothing is kept")
        return FitResult(best=None, history=history.rows, pruning=pruning)
    if not best.best_model_path:
        missed = "no epoch was as sparse as pruning asks for" if pruning is not None else "no epoch was validated"
        raise ValueError(f"{missed}, so none is kept; train longer (trainer.epochs={told.epochs})")
    return FitResult(best=Path(best.best_model_path), history=history.rows, pruning=pruning)


def in_one_line(error: Exception, config: TrainerConfig, start: Path | None) -> Exception:
    """What a user can do about an error of Lightning or PyTorch in the middle of a training; else the error itself."""
    text = str(error)
    if start is not None and ("state_dict" in text or "loading" in text or isinstance(error, KeyError)):
        return ValueError(f"{start} is a checkpoint of another training ({brief(error)}); give that of this model")
    if config.compile and ("torch._inductor" in type(error).__module__ or "torch._dynamo" in type(error).__module__):
        return ValueError(f"trainer.compile=true failed ({brief(error)}); leave it out")
    if "not implemented for" in text and ("Half" in text or "BFloat16" in text):
        return ValueError(f"trainer.precision={config.precision}: {brief(error)} on this device; use a mixed precision")
    return ValueError(brief(error)) if isinstance(error, MisconfigurationException) else error


def make_trainer(
    config: TrainerConfig, callbacks: list[Callback], folder: Path, *, bar: bool, loggers: Sequence[Logger] = (),
    strategy: Any = None,
) -> lightning.Trainer:  # fmt: skip
    """Lightning's trainer as configured, with `strategy` in place of the named one.

    Raises ValueError, with the key, for a device, strategy or precision it does not have."""
    deterministic: Any = {"true": True, "false": None, "warn": "warn"}[config.deterministic]
    torch.backends.cudnn.deterministic = True  # of a GPU: a seed should mean the same twice
    whole = lambda value: value if value is None or value <= 1 else int(value)  # noqa: E731
    try:
        return lightning.Trainer(
            accelerator=config.accelerator, devices=config.devices, num_nodes=config.num_nodes,
            strategy=strategy or config.strategy, max_epochs=config.epochs, max_steps=config.max_steps or -1,
            accumulate_grad_batches=config.accumulate, gradient_clip_val=config.gradient_clip_val,
            precision=precision_of(config), deterministic=deterministic, profiler=config.profiler,
            limit_train_batches=whole(config.limit_train_batches), limit_val_batches=whole(config.limit_val_batches),
            val_check_interval=whole(config.val_check_interval), fast_dev_run=config.fast_dev_run,
            callbacks=callbacks, plugins=[AtomicCheckpointIO()], default_root_dir=folder, logger=list(loggers) or False,
            enable_model_summary=False, enable_progress_bar=bar, num_sanity_val_steps=0,
            use_distributed_sampler=False,  # the data modules give each process its part
        )  # fmt: skip
    except (ValueError, RuntimeError, ImportError, MisconfigurationException) as error:
        if "precision" in str(error) or "transformer" in config.precision:
            raise ValueError(
                f"trainer.precision={config.precision} is not available here ({brief(error)}); use 32-true"
            ) from error
        raise ValueError(
            f"trainer.accelerator={config.accelerator} trainer.devices={config.devices} "
            f"trainer.strategy={config.strategy} are not available here ({brief(error)}); use trainer=cpu"
        ) from error


def precision_of(config: TrainerConfig) -> Any:
    """`amp` as what it means on the accelerator that Lightning will take."""
    if config.precision != "amp":
        return config.precision
    return "16-mixed" if config.accelerator != "cpu" and torch.cuda.is_available() else "32-true"
