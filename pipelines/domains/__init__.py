"""What a domain brings to the verbs: one module a domain, whose functions are one of the two protocols here.

A classifier shares training and evaluation with the others and brings the parts that differ. A domain whose training is
another one altogether has `train` and `evaluate` of its own instead. Which domain is meant follows from the room that a
configuration's class lives in, so there is nothing to register.
"""

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from accel.report import Section

DOMAINS = ("bci", "speech", "vision")


class DataModule(Protocol):
    """Labelled sets of samples for training, choosing and testing; the test set is read when it is first asked for."""

    @property
    def class_names(self) -> tuple[str, ...]: ...
    @property
    def n_classes(self) -> int: ...
    @property
    def valid_set(self) -> Any: ...
    @property
    def test_set(self) -> Any: ...
    def setup(self) -> None: ...
    def train_dataloader(self) -> Any: ...
    def val_dataloader(self) -> Any: ...


@runtime_checkable
class Domain(Protocol):
    """What every domain has. `trained` is a `runs.TrainedModel`, `config` a `schema.TrainConfig`, of `pipelines`."""

    def load_weights(self, folder: Path) -> nn.Module:
        """The model whose config.json and model.safetensors lie in `folder`."""

    def example_batches(self, trained: Any, config: Any, n_batches: int, batch_size: int) -> tuple[list[Tensor], str]:
        """Real input batches on which an export measures densities, and in words what they are."""


@runtime_checkable
class OwnWay(Domain, Protocol):
    """A domain that does not classify: it trains and evaluates in its own way, from the claim of the folder on, and
    exports parts of its models, in order; the first is the one in the export folder itself."""

    def train(self, config: Any) -> None: ...
    def evaluate(self, trained: Any, trained_with: Any, config: Any) -> None: ...
    def export_parts(self, trained: Any, config: Any, n_batches: int, batch_size: int) -> Sequence[Any]: ...


@runtime_checkable
class Classifier(Domain, Protocol):
    """A domain of samples with one label each. A set has a length and `labels` `[n]`."""

    SAMPLES: str  # what is counted: clips, images

    def data_module(self, config: Any) -> Any: ...

    def build_model(self, config: Any, data: Any) -> nn.Module: ...

    def task(self, config: Any, data: Any, model: Any) -> Any:
        """The `pipelines.tasks.ClassificationTask` of a model that learns from labels alone."""

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

    def tell(self, scores: dict[str, Any]) -> None:
        """Print what `measure` found."""


def data_at(source: Any, root: str | None) -> Any:
    """The data of a configuration, in another folder if one is given. Raises ValueError for data without a folder."""
    if root is None:
        return source
    if not hasattr(source, "root"):
        raise ValueError(f"this run was trained on {source.source} data, which has no folder; leave data.root out")
    return replace(source, root=root)


def room_of(config: Any) -> str:
    """The room that a configuration (or its class) lives in."""
    return (config if isinstance(config, type) else type(config)).__module__.partition(".")[0]


def domain_of(config: Any) -> Any:
    """The domain of a configuration, or of its class. Raises ValueError for one that is not of a domain."""
    room = room_of(config)
    if room not in DOMAINS:
        raise ValueError(f"{room} is no domain that trains; use data of {', '.join(DOMAINS)}")
    return import_module(f"pipelines.domains.{room}")
