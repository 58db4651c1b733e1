"""`spikeloom evaluate`: score a trained model on one of its splits, or on a folder it has never seen; writes JSON."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from accel.files import write_json
from pipelines.process import set_up
from pipelines.runs import TrainedModel, load_config, load_model
from pipelines.schema import EvaluateConfig, TrainConfig
from pipelines.scores import accuracy, confusion_matrix
from speech.datamodule import featurise
from speech.training import predict
from speech.utterances import Utterances

log = logging.getLogger("spikeloom")
SPLITS = ("train", "valid", "test", "all")


def run(config: EvaluateConfig) -> None:
    set_up()
    folder = Path(config.run)
    trained, trained_with = load_model(folder / "model"), load_config(folder)
    clips = by_model_class(choose(trained_with, config), trained.class_names)
    scores = score(trained, clips)
    out = Path(config.out) if config.out else folder / "evaluation.json"
    write_json(out, {"run": str(folder), "split": config.split, "root": config.data.root, **scores})
    log.info("accuracy %.1f %% on %d clips (%s) -> %s", 100 * scores["accuracy"], len(clips), config.split, out)


def choose(trained_with: TrainConfig, config: EvaluateConfig) -> Utterances:
    """The clips to score."""
    if config.split not in SPLITS:
        raise ValueError(f"split={config.split} is unknown; use one of {', '.join(SPLITS)}")
    source = trained_with.data
    if config.data.root is not None:
        if not hasattr(source, "root"):
            raise ValueError(f"this run was trained on {source.source} data, which has no folder; leave data.root out")
        if config.split != "all":
            raise ValueError(f"split={config.split} of another folder is not defined; add split=all to score all of it")
        source = replace(source, root=config.data.root)
    if config.split == "all":
        everything: Utterances = source.load()
        return everything
    chosen: Utterances = getattr(source.build(), config.split)
    return chosen


def by_model_class(clips: Utterances, class_names: tuple[str, ...]) -> Utterances:
    """The clips with labels counted as the model counts. Raises ValueError for a class the model does not know."""
    unknown = sorted(set(clips.class_names) - set(class_names))
    if unknown:
        raise ValueError(f"the model knows {', '.join(class_names)}, not {', '.join(unknown)}; remove those clips")
    index = np.array([class_names.index(name) for name in clips.class_names], dtype=np.int64)
    return replace(clips, labels=index[clips.labels], class_names=class_names)


def score(trained: TrainedModel, clips: Utterances) -> dict[str, Any]:
    """Accuracy (correct / total), confusion matrix and per-class figures."""
    features = featurise(clips, trained.features.build())
    log_p = predict(trained.model, features)
    matrix = confusion_matrix(log_p, features.labels, len(trained.class_names)).numpy()
    spoken, recognised, right = matrix.sum(1), matrix.sum(0), matrix.diagonal()
    per_class = {
        name: {
            "clips": int(spoken[i]),
            "recall": float(right[i] / spoken[i]) if spoken[i] else None,
            "precision": float(right[i] / recognised[i]) if recognised[i] else None,
        }
        for i, name in enumerate(trained.class_names)
    }
    return {
        "accuracy": accuracy(log_p, features.labels), "clips": len(clips), "speakers": clips.speaker_names(),
        "class_names": list(trained.class_names), "confusion_matrix": matrix.tolist(), "per_class": per_class,
    }  # fmt: skip
