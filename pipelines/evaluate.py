"""`spikeloom evaluate`: score a trained model on one of its splits, or on a folder it has never seen; writes JSON."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from accel.files import write_json
from accel.learning.stochastic_network import StochasticConfig
from pipelines.domains import Classifier, OwnWay, domain_of
from pipelines.process import set_up
from pipelines.runs import TrainedModel, load_config, load_model
from pipelines.schema import EvaluateConfig, TrainConfig
from pipelines.scores import accuracy, confusion_matrix

log = logging.getLogger("spikeloom")
SPLITS = ("train", "valid", "test", "all")


def run(config: EvaluateConfig) -> None:
    set_up()
    folder = Path(config.run)
    if (folder / "config.yaml").is_file() and isinstance(load_config(folder).model, StochasticConfig):
        from pipelines import stochastic

        stochastic.evaluate(config, load_config(folder))
        return
    trained, trained_with = load_model(folder / "model"), load_config(folder)
    domain = domain_of(trained_with.data)
    if isinstance(domain, OwnWay):
        domain.evaluate(trained, trained_with, config)
        return
    samples = by_model_class(choose(domain, trained_with, config), trained.class_names)
    scores = score(domain, trained, samples)
    out = Path(config.out) if config.out else folder / "evaluation.json"
    write_json(out, {"run": str(folder), "split": config.split, "root": config.data.root, **scores})
    log.info(
        "accuracy %.1f %% on %d %s (%s) -> %s",
        100 * scores["accuracy"], len(samples), domain.SAMPLES, config.split, out,
    )  # fmt: skip
    domain.tell(scores)


def choose(domain: Classifier, trained_with: TrainConfig, config: EvaluateConfig) -> Any:
    """The samples to score."""
    if config.split not in SPLITS:
        raise ValueError(f"split={config.split} is unknown; use one of {', '.join(SPLITS)}")
    if config.data.root is not None and config.split != "all":
        raise ValueError(f"split={config.split} of another folder is not defined; add split=all to score all of it")
    return domain.choose(trained_with, config.split, config.data.root)


def by_model_class(samples: Any, class_names: tuple[str, ...]) -> Any:
    """The samples with labels counted as the model counts. Raises ValueError for a class the model does not know."""
    unknown = sorted(set(samples.class_names) - set(class_names))
    if unknown:
        raise ValueError(f"the model knows {', '.join(class_names)}, not {', '.join(unknown)}; remove those samples")
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
