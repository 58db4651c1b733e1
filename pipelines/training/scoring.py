"""Scoring a trained classifier: which samples, under which class names, and what is written down of them."""

import logging
from dataclasses import replace
from typing import Any

import numpy as np

from spikeloom.accel.common.files import first_few
from spikeloom.accel.common.statistics import accuracy, confusion_matrix
from spikeloom.pipelines.config.evaluate import EvaluateConfig
from spikeloom.pipelines.config.train import TrainConfig
from spikeloom.pipelines.domains import Classifier
from spikeloom.pipelines.training.run_dir import TrainedModel

log = logging.getLogger("spikeloom")
SPLITS = ("train", "valid", "test", "all")


def choose(domain: Classifier, trained_with: TrainConfig, config: EvaluateConfig) -> Any:
    """The samples to score."""
    if config.split not in SPLITS:
        raise ValueError(f"split={config.split} is unknown; use one of {', '.join(SPLITS)}")
    if config.data.root is not None and config.split != "all":
        raise ValueError(f"split={config.split} of another folder is not defined; add split=all to score all of it")
    return domain.choose(trained_with, config.split, config.data.root)


def numbered(n: int) -> tuple[str, ...]:
    """Names of the outputs of a converted model, where the names of its classes are not known."""
    return tuple(f"class {i}" for i in range(n))


def named_by(samples: Any, trained: TrainedModel) -> TrainedModel:
    """A model of numbered classes with the names of the samples, in their order: published sets sort their names.

    Any other model as it is. Raises ValueError where the samples have another number of classes.
    """
    names, n = samples.class_names, len(trained.class_names)
    if trained.class_names != numbered(n) or set(names) <= set(trained.class_names):
        return trained
    if len(names) != n:
        raise ValueError(
            f"the model's {n:,} classes are numbered, and those of these samples are {first_few(names)}; name the "
            "outputs with `spikeloom convert … classes=FILE`, a class a line"
        )
    log.info("the model's classes are numbered; they are taken as the samples' in their order: %s", first_few(names))
    return replace(trained, class_names=tuple(names))


def by_model_class(samples: Any, class_names: tuple[str, ...]) -> Any:
    """The samples with labels counted as the model counts. Raises ValueError for a class the model does not know."""
    unknown = sorted(set(samples.class_names) - set(class_names))
    if unknown:
        raise ValueError(
            f"the model knows {first_few(class_names)}, not {first_few(unknown)}; remove those samples, or name the "
            "outputs of a converted model with `spikeloom convert … classes=FILE`"
        )
    index = np.array([class_names.index(name) for name in samples.class_names], dtype=np.int64)
    return replace(samples, labels=index[samples.labels], class_names=class_names)


def score(domain: Classifier, trained: TrainedModel, samples: Any) -> dict[str, Any]:
    """Accuracy (correct / total), confusion matrix, per-class figures, and what the domain measures besides."""
    prepared = domain.prepare(trained, samples)
    log_p = domain.predict(trained.model, prepared)
    matrix = confusion_matrix(log_p, prepared.labels, len(trained.class_names)).numpy()
    shown, recognised, right = matrix.sum(1), matrix.sum(0), matrix.diagonal()
    per_class = {
        name: {
            domain.SAMPLES: int(shown[i]),
            "recall": float(right[i] / shown[i]) if shown[i] else None,
            "precision": float(right[i] / recognised[i]) if recognised[i] else None,
        }
        for i, name in enumerate(trained.class_names)
    }
    return {
        "accuracy": accuracy(log_p, prepared.labels), domain.SAMPLES: len(samples),
        "class_names": list(trained.class_names), "confusion_matrix": matrix.tolist(), "per_class": per_class,
        **domain.measure(trained, samples, prepared),
    }  # fmt: skip
