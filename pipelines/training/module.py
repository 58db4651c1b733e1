"""What Lightning trains: a model with its configuration, its loss and its metrics.

Every module can be used in a `lightning.Trainer` of your own, and holds what `load_from_checkpoint` needs to build the
model again:

    data = SpeechDataModule(config.data, config.features)
    data.setup()
    module = ClassificationModule(config, data.spec)
    lightning.Trainer(max_epochs=3).fit(module, datamodule=data)
    again = ClassificationModule.load_from_checkpoint(PATH)
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any, ClassVar

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from spikeloom.accel.common.datamodule import DataSpec
from spikeloom.pipelines.config.train import TrainConfig, typed
from spikeloom.pipelines.domains import adapter_of
from spikeloom.pipelines.training.optim import OptimizerConfig, learning_rate_factor


class TrainingModule(lightning.LightningModule):
    """A model built from a configuration, and its optimiser.

    Args:
        config: of the training, or its plain values (as a checkpoint holds them).
        data: what the data tell the model (`SplitDataModule.spec`), or its plain values.
        model: to be trained; None builds the one that the configuration describes.
        extra: further hyperparameters of a subclass, plain values.
    """

    HISTORY: ClassVar[tuple[str, ...]] = ()  # the metrics of an epoch, in the order of metrics.csv

    def __init__(
        self, config: TrainConfig | Mapping[str, Any], data: DataSpec | Mapping[str, Any],
        model: nn.Module | None = None, **extra: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        self.config = config if isinstance(config, TrainConfig) else typed(config)
        self.spec = data if isinstance(data, DataSpec) else DataSpec.from_dict(data)
        self.save_hyperparameters({"config": asdict(self.config), "data": self.spec.as_dict(), **extra}, logger=False)
        self.model: Any = self.build() if model is None else model

    def build(self) -> nn.Module:
        """The model that the configuration describes, for these data."""
        model: nn.Module = adapter_of(self.config).build_model(self.config, self.spec)
        return model

    def forward(self, *inputs: Any) -> Any:
        """The outputs of the model."""
        return self.model(*inputs)

    def compile_model(self) -> None:
        """Run what a training step computes through torch.compile; names and weights stay."""
        self.model.compile()

    def training_loss(self, batch: Any) -> Tensor:
        """What a training step minimises, a scalar."""
        raise TypeError(f"{type(self).__name__} has no loss of its own")

    def describe(self, row: Mapping[str, float]) -> str:
        """A row of metrics in one line."""
        sparsity = f"  sparsity {100 * row['sparsity']:.1f} %" if "sparsity" in row else ""
        accuracy = f"  accuracy {100 * row['valid_accuracy']:.1f} %" if "valid_accuracy" in row else ""
        return f"train loss {row['train_loss']:.3f}  validation loss {row['valid_loss']:.3f}{accuracy}{sparsity}"

    def configure_optimizers(self) -> Any:
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        return scheduled(self.trainer, trained, self.config.optimizer)


class ClassificationModule(TrainingModule):
    """Minimises the negative log-likelihood of labels, or of the shares of classes where a batch has `targets`.

    A batch has int64 `labels` [B]. Validation and test log the exact accuracy (correct / total) and the mean loss;
    `predict_step` returns log-probabilities [B, classes].
    """

    HISTORY = ("train_loss", "train_kl", "valid_loss", "valid_accuracy", "sparsity")  # train_kl: of a distillation

    def __init__(
        self, config: TrainConfig | Mapping[str, Any], data: DataSpec | Mapping[str, Any],
        model: nn.Module | None = None, **extra: Any,
    ) -> None:  # fmt: skip
        super().__init__(config, data, model, **extra)
        self.train_loss = MeanMetric()
        for split in ("valid", "test"):
            setattr(self, f"{split}_accuracy", MulticlassAccuracy(num_classes=self.spec.n_classes, average="micro"))
            setattr(self, f"{split}_loss", MeanMetric())

    def log_probabilities(self, batch: Any) -> Tensor:
        """[B, classes], in float32."""
        log_p: Tensor = adapter_of(self.config).log_probabilities(self.model, batch)
        return log_p

    def training_loss(self, batch: Any) -> Tensor:
        log_p = self.log_probabilities(batch)
        if (targets := getattr(batch, "targets", None)) is not None:  # smoothed or mixed [B, classes]
            return -(targets * log_p).sum(1).mean()
        return self.cross_entropy(log_p, batch.labels)

    def cross_entropy(self, log_p: Tensor, labels: Tensor) -> Tensor:
        """Mean negative log-likelihood of labels [B] under log-probabilities [B, classes], smoothed as configured."""
        smoothing = self.config.optimizer.label_smoothing
        return (1 - smoothing) * F.nll_loss(log_p, labels) - smoothing * log_p.mean()

    def training_step(self, batch: Any, batch_index: int) -> Tensor:
        loss = self.training_loss(batch)
        self.train_loss(loss.detach(), weight=len(batch.labels))
        self.log("train_loss", self.train_loss, on_step=False, on_epoch=True, batch_size=len(batch.labels))
        return loss

    def validation_step(self, batch: Any, batch_index: int) -> None:
        self._measure("valid", batch)

    def test_step(self, batch: Any, batch_index: int) -> None:
        self._measure("test", batch)

    def predict_step(self, batch: Any, batch_index: int) -> Tensor:
        return self.log_probabilities(batch)

    def _measure(self, split: str, batch: Any) -> None:
        log_p, n = self.log_probabilities(batch), len(batch.labels)
        accuracy, loss = getattr(self, f"{split}_accuracy"), getattr(self, f"{split}_loss")
        accuracy(log_p, batch.labels)
        loss(F.nll_loss(log_p, batch.labels), weight=n)
        self.log(f"{split}_loss", loss, batch_size=n)
        self.log(f"{split}_accuracy", accuracy, batch_size=n, prog_bar=split == "valid")


def scheduled(trainer: lightning.Trainer, trained: Iterable[nn.Parameter], config: OptimizerConfig) -> Any:
    """What `configure_optimizers` returns for these parameters; the learning rate changes at every step."""
    # A fused step unscales gradients itself, and Lightning then refuses to clip those of mixed precision.
    clipped_and_mixed = trainer.gradient_clip_val is not None and trainer.precision != "32-true"
    optimizer = config.build(trained, fused=not clipped_and_mixed)
    steps = trainer.estimated_stepping_batches
    if not math.isfinite(steps):
        raise ValueError("the learning rate falls until the last step, which is unknown; give max_epochs or max_steps")
    epochs = trainer.max_epochs if (trainer.max_epochs or 0) > 0 else 1
    assert epochs is not None
    per_epoch = math.ceil(steps / epochs)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: learning_rate_factor(i, per_epoch, epochs, config)
    )
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
