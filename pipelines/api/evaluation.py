"""A trained model scored on data: accuracy and costs of a classifier, the whole protocol of an EEG decoder."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from spikeloom.pipelines.api.runs import model_folder
from spikeloom.pipelines.config.evaluate import EvaluateConfig, OtherFolder
from spikeloom.pipelines.domains import adapter_of
from spikeloom.pipelines.training.run_dir import load_config
from spikeloom.pipelines.training.run_names import run_to_write

__all__ = ["evaluate", "evaluate_run"]


def evaluate(
    run: str | Path, *, split: str = "test", root: str | Path | None = None, out: str | Path | None = None,
    controls: Any = None, protocol: Any = None,
) -> dict[str, Any]:  # fmt: skip
    """Score a trained model on a split of its data or on another folder, as `spikeloom evaluate` does.

    Args:
        run: as for `load`. A model folder alone does not say what it was trained on. A built-in model or one of the Hub
            is copied below ``runs/`` first.
        split: ``"train"``, ``"valid"``, ``"test"`` or, of classifiers, ``"all"``.
        root: another folder of data in the layout of those the run was trained on, with ``split="all"``; None: the
            run's own.
        out: JSON file for the result; None: evaluation.json in the run directory.
        controls: `ControlsConfig` of an EEG decoder: which controls are trained and how often.
        protocol: `ProtocolConfig` of an EEG decoder: its tests.

    Returns:
        What the JSON file holds. Of a classifier ``accuracy`` in [0, 1], ``confusion_matrix`` (a list of rows) with
        the true class first, ``per_class`` recall and precision, ``class_names``, and the operations and energy of an
        inference; of an EEG decoder the ``verdict``, its tests and every control.

    Raises:
        ValueError: where the run or the data are missing, damaged, or do not fit together.

    Examples:
        >>> import spikeloom
        >>> found = spikeloom.evaluate("runs/digits", split="valid")
        >>> found["samples"], 0 <= found["accuracy"] <= 1
        (180, True)
    """
    given = {"controls": controls, "protocol": protocol}
    return evaluate_run(
        EvaluateConfig(
            run=str(run), split=split, data=OtherFolder(None if root is None else str(root)),
            out=None if out is None else str(out), **{key: value for key, value in given.items() if value is not None},
        )
    )  # fmt: skip


def evaluate_run(config: EvaluateConfig) -> dict[str, Any]:
    """`evaluate` for the keys of the command line; logs where the file lies."""
    config = replace(config, run=str(run_to_write(config.run)))
    model_folder(config.run)  # tells a wrong path from a damaged run
    trained_with = load_config(Path(config.run))
    found: dict[str, Any] = adapter_of(trained_with).evaluate(config, trained_with)
    return found
