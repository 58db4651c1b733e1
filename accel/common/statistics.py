"""Figures over samples and over seeds: accuracy, confusion matrix, mean and deviation, and one run a seed.

A table over seeds says how a result varies with the seed, so every seed counts once: two runs of one seed are copies,
not evidence. `one_run_a_seed` keeps one of them and names the others.
"""

from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from spikeloom.accel.common.files import first_few

Run = TypeVar("Run")


def accuracy(log_p: Tensor, labels: Tensor) -> float:
    """Correct / total: log-probabilities [n, classes], labels [n]."""
    return int((log_p.argmax(1) == labels).sum()) / len(labels)


def confusion_matrix(log_p: Tensor, labels: Tensor, n_classes: int) -> Tensor:
    """int64 [classes, classes] of log-probabilities [n, classes] and labels [n]: row = true, column = predicted."""
    flat = labels * n_classes + log_p.argmax(1)
    return torch.bincount(flat, minlength=n_classes**2).reshape(n_classes, n_classes)


def mean_and_sd(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (n - 1); the latter is 0 for equal values, and for a single one."""
    apart = np.subtract(values, values[0])  # not from the mean, whose rounding would show as a deviation
    return float(np.mean(values)), float(np.std(apart, ddof=1)) if len(values) > 1 else 0.0


def spread(values: Sequence[float], digits: int = 2) -> str:
    """`mean ± sd` as text; a single value alone; a dash for none."""
    if not values:
        return "–"
    mean, sd = mean_and_sd(values)
    return f"{mean:.{digits}f}" + (f" ± {sd:.{digits}f}" if len(values) > 1 else "")


def one_run_a_seed(found: Iterable[tuple[int, str, Run]], keep: str | None = None) -> tuple[list[Run], list[str]]:
    """Of (seed, name, run) one run a seed, seeds rising, and a sentence for each seed that has several.

    Kept is the run named `keep` if it is among them, else the first.
    """
    by_seed: dict[int, list[tuple[str, Run]]] = {}
    for seed, name, run in found:
        by_seed.setdefault(seed, []).append((name, run))
    kept, notes = list[Run](), list[str]()
    for seed, runs in sorted(by_seed.items()):
        name, run = next((pair for pair in runs if pair[0] == keep), runs[0])
        kept.append(run)
        if others := [other for other, _ in runs if other != name]:
            notes.append(f"seed {seed} was run {len(runs)} times: {name} counts, {first_few(others)} left out")
    return kept, notes
