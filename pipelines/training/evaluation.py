"""A trained classifier scored on one of its splits, or on a folder of other recordings or pictures."""

import logging
from pathlib import Path
from typing import Any

from spikeloom.accel.common.files import write_json
from spikeloom.pipelines.config.evaluate import EvaluateConfig
from spikeloom.pipelines.config.train import TrainConfig
from spikeloom.pipelines.domains import adapter_of
from spikeloom.pipelines.training.run_dir import load_model
from spikeloom.pipelines.training.scoring import by_model_class, choose, named_by, score

log = logging.getLogger("spikeloom")


def evaluate(config: EvaluateConfig, trained_with: TrainConfig) -> dict[str, Any]:
    """Score `config.run` on a split or another folder; writes evaluation.json and returns its content."""
    folder, domain = Path(config.run), adapter_of(trained_with)
    trained = load_model(folder / "model")
    chosen = choose(domain, trained_with, config)
    trained = named_by(chosen, trained)
    samples = by_model_class(chosen, trained.class_names)
    log.info(
        "%s: %d %s of split %s, a model with %s parameters", config.run, len(samples), domain.SAMPLES, config.split,
        f"{sum(p.numel() for p in trained.model.parameters()):,}",
    )  # fmt: skip
    scores = score(domain, trained, samples)
    out = Path(config.out) if config.out else folder / "evaluation.json"
    found = {"run": str(folder), "split": config.split, "root": config.data.root, **scores}
    write_json(out, found)
    log.info(
        "accuracy %.1f %% on %d %s (%s) -> %s",
        100 * scores["accuracy"], len(samples), domain.SAMPLES, config.split, out,
    )  # fmt: skip
    return found
