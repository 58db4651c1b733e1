"""Golden parity files: tensors with everything needed to rebuild a model in their metadata."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from tests.conftest import data_folder


@dataclass(frozen=True)
class Golden:
    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, str]

    def json(self, key: str) -> Any:
        return json.loads(self.metadata[key])

    def under(self, prefix: str) -> dict[str, Tensor]:
        """Tensors whose key starts with `prefix/`, without it."""
        return {k.removeprefix(prefix + "/"): v for k, v in self.tensors.items() if k.startswith(prefix + "/")}


def golden_files(pattern: str) -> list[Golden]:
    """Every golden file that matches, read; skips when there is none."""
    paths = sorted(data_folder("golden").glob(pattern))
    if not paths:
        pytest.skip(f"no {pattern} in $SPIKELOOM_DATA/golden")
    found = []
    for path in paths:
        with safe_open(path, "pt") as f:
            found.append(Golden(path, {k: f.get_tensor(k) for k in f.keys()}, f.metadata()))  # noqa: SIM118
    return found


def relative_l2(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm().clamp(min=1e-30))


def assert_gradients_equal(
    found: Mapping[str, Tensor | None], expected: Mapping[str, Tensor], zero: Collection[str], noise: float = 1e-6
) -> None:
    """Gradients by name; those that are `zero` in exact arithmetic are at most the share `noise` of the largest."""
    assert set(found) == set(expected)
    largest = max(float(gradient.norm()) for gradient in expected.values())
    for name, gradient in found.items():
        assert gradient is not None, name
        if name in zero:
            assert float(gradient.abs().max()) <= noise * largest, name
        else:
            assert relative_l2(gradient.reshape(expected[name].shape), expected[name]) <= 1e-4, name


def assert_statistics_equal(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Running statistics by name, after a training step."""
    for name, buffer in expected.items():
        torch.testing.assert_close(found[name], buffer, rtol=1e-5, atol=1e-6, msg=name)
