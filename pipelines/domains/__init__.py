"""What a domain brings to the verbs: one adapter a domain, whose functions are the protocol here.

Classifiers of speech and vision share training and evaluation and bring the parts that differ (`Classifier`). Which
adapter is meant follows from the package that a configuration's classes live in, so there is nothing to register. A
leaf: adapters are imported when they are asked for.
"""

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from spikeloom.accel.analysis.energy import Operations
from spikeloom.accel.common.datamodule import DataSpec
from spikeloom.accel.common.report import Section
from spikeloom.accel.trainer.workload import Workload
from spikeloom.pipelines.config.groups import package_of

DOMAINS = ("bci", "speech", "vision")


@runtime_checkable
class Adapter(Protocol):
    """What every domain has. `trained` is a `run_dir.TrainedModel`, `config` a `config.train.TrainConfig`."""

    def train(self, config: Any) -> dict[str, Any]:
        """Train into `config.run` and return its result.json."""

    def report(self, config: Any) -> None:
        """Draw the page of the finished run `config.run` again."""

    def print_table(self, config: Any) -> None:
        """The runs beside this one that differ only in seed, as one table; nothing for a single run."""

    def evaluate(self, config: Any, trained_with: Any) -> dict[str, Any]:
        """Score the run `config.run`, trained with `trained_with`; writes JSON and returns its content."""

    def print_summary(self, found: dict[str, Any]) -> None:
        """Print what `evaluate` found: what an inference costs, or the verdict."""

    def build_model(self, config: Any, data: DataSpec) -> nn.Module: ...

    def load_weights(self, folder: Path) -> nn.Module:
        """The model whose config.json and model.safetensors lie in `folder`."""

    def example_batches(self, trained: Any, config: Any, n_batches: int, batch_size: int) -> tuple[list[Tensor], str]:
        """Real input batches on which an export measures densities, and in words what they are."""

    def audit(self, trained_with: Any, config: Any) -> tuple[Operations, str]:
        """Operations of the run `config.run` (a `config.audit.AuditConfig`) on real samples, and in words on which."""


@runtime_checkable
class HasPretraining(Adapter, Protocol):
    """A domain with models that are pretrained, for others to inherit from."""

    def is_pretraining(self, config: Any) -> bool:
        """Whether `train` pretrains the model of this configuration."""


@runtime_checkable
class HasWorkload(Protocol):
    """An adapter whose export is a workload without a program: the layers are no graph of PyTorch operations."""

    def export_workload(self, folder: Path, trained_with: Any, n_batches: int, batch_size: int) -> Workload: ...


@runtime_checkable
class LoadsOwnFolder(Protocol):
    """An adapter whose model folder has no preprocessor_config.json: the run has the front end."""

    def load_trained(self, folder: Path, trained_with: Any) -> Any:
        """The `run_dir.TrainedModel` of the model folder `folder`, trained with `trained_with`."""


@runtime_checkable
class HasParts(Adapter, Protocol):
    """A domain that exports parts of its models, in order; the first is the one in the export folder itself."""

    def export_parts(self, trained: Any, config: Any, n_batches: int, batch_size: int) -> Sequence[Any]: ...


@runtime_checkable
class Classifier(Adapter, Protocol):
    """A domain of samples with one label each. A set has a length and `labels` `[n]`."""

    SAMPLES: str  # what is counted: clips, images

    def data_module(self, config: Any) -> Any:
        """A `SplitDataModule`, not set up."""

    def log_probabilities(self, model: Any, batch: Any) -> Tensor:
        """[B, classes] of a training batch, in float32."""

    def predict(self, model: Any, samples: Any) -> Tensor:
        """Log-probabilities `[n, classes]` of a whole set, in its order, in evaluation mode."""

    def origins(self, data: Any) -> dict[str, Any]:
        """Where the sets come from, for result.json."""

    def tested_on(self, result: dict[str, Any]) -> str:
        """The test samples in words, as the end of a sentence."""

    def model_card(self, result: dict[str, Any], data: Any) -> str: ...

    def page(
        self, run: Path, trained: Any, data: Any, result: dict[str, Any], log_p: Tensor
    ) -> tuple[str, str, Sequence[Section]]:
        """Title, opening paragraph and sections of the run's report; log_p `[n, classes]` of the test set."""

    def choose(self, trained_with: Any, split: str, root: str | None) -> Any:
        """Labelled samples to score, from the run's own data or another folder; has `labels` and `class_names`."""

    def prepare(self, trained: Any, samples: Any) -> Any:
        """Such samples as the set that `predict` takes."""

    def measure(self, trained: Any, samples: Any, prepared: Any) -> dict[str, Any]:
        """What else evaluation.json holds: who or what was scored, and what an inference costs."""


def data_at(source: Any, root: str | None) -> Any:
    """The data of a configuration, in another folder if one is given. Raises ValueError for data without a folder."""
    if root is None:
        return source
    if not hasattr(source, "root"):
        raise ValueError(f"this run was trained on {source.source} data, which has no folder; leave data.root out")
    return replace(source, root=root)


def domain_of(config: Any) -> Any:
    """The domain of a configuration, or of its class. Raises ValueError for one that is not of a domain."""
    domain = package_of(config)
    if domain not in DOMAINS:
        raise ValueError(f"{domain} is no domain that trains; use data of {', '.join(DOMAINS)}")
    return import_module(f"spikeloom.pipelines.domains.{domain}")


def adapter_of(config: Any) -> Any:
    """The adapter of a training's configuration: that of its data, but of its model where that learns by a rule of its
    own (binary-stochastic networks)."""
    if package_of(config.model) in DOMAINS:
        return domain_of(config.data)
    return import_module(f"spikeloom.pipelines.domains.{config.model.kind}")
