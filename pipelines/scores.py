"""Figures of merit of a classifier."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def accuracy(log_p: Tensor, labels: Tensor) -> float:
    """Correct / total: log-probabilities [n, classes], labels [n]."""
    return int((log_p.argmax(1) == labels).sum()) / len(labels)


def confusion_matrix(log_p: Tensor, labels: Tensor, n_classes: int) -> Tensor:
    """int64 [classes, classes]: row = spoken, column = recognised."""
    flat = labels * n_classes + log_p.argmax(1)
    return torch.bincount(flat, minlength=n_classes**2).reshape(n_classes, n_classes)


def mean_and_sd(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (n - 1); the latter is 0 for equal values, and for a single one."""
    apart = np.subtract(values, values[0])  # not from the mean, whose rounding would be told as a deviation
    return float(np.mean(values)), float(np.std(apart, ddof=1)) if len(values) > 1 else 0.0
