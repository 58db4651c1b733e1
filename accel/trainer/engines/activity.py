"""What was not zero while the engines ran: densities by layer, operand and time step, as a workload holds them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from spikeloom.accel.trainer.workload import Density, Workload

OPERANDS = ("input", "spike", "mask", "du", "weight")


@dataclass
class Activity:
    """Fractions of non-zeros, gathered over any number of training steps: layer path -> operand -> one entry a step."""

    steps: int = 0  # time steps and images of the batch that runs
    batch: int = 0
    seen: dict[str, dict[str, list[tuple[float, tuple[float, ...]]]]] = field(default_factory=dict)

    def note(self, path: str, operand: str, tensor: Tensor) -> None:
        """Count `tensor`, laid out [T, ...], [T*B, ...] or (a convolution over time) [B, C, T]; else as a whole."""
        nonzero = (tensor != 0).float()
        if operand != "weight" and nonzero.dim() == 3 and nonzero.shape[0] == self.batch != self.steps:
            nonzero = nonzero.permute(2, 0, 1)
        timed = operand != "weight" and nonzero.shape[0] in (self.steps, self.steps * self.batch)
        per_step = nonzero.reshape(self.steps, -1).mean(1).tolist() if timed else []
        mean = sum(per_step) / len(per_step) if timed else float(nonzero.mean())
        self.seen.setdefault(path, {}).setdefault(operand, []).append((mean, tuple(per_step)))

    def densities(self) -> dict[str, dict[str, Density]]:
        """Mean, range and mean per time step over everything noted; steps are left out where batches differ in them."""
        return {
            path: {operand: _density(entries) for operand, entries in operands.items()}
            for path, operands in self.seen.items()
        }

    def mean(self, operand: str) -> float:
        """Mean over the layers that have this operand."""
        found = [o[operand] for o in self.densities().values() if operand in o]
        return sum(d.mean for d in found) / len(found) if found else float("nan")


def _density(entries: Sequence[tuple[float, tuple[float, ...]]]) -> Density:
    means = [mean for mean, _ in entries]
    lengths = {len(steps) for _, steps in entries}
    per_step = (
        tuple(sum(s) / len(s) for s in zip(*(steps for _, steps in entries), strict=True)) if len(lengths) == 1 else ()
    )
    return Density(mean=sum(means) / len(means), min=min(means), max=max(means), per_step=per_step)


def with_densities(
    workload: Workload, densities: Mapping[str, Mapping[str, Density]], operands: Sequence[str] = OPERANDS
) -> Workload:
    """The workload with the measured densities of `operands` in place of its own. The busiest lane is known to an
    export only: it keeps its ratio to the mean.

    Raises:
        ValueError: when no layer of the workload was measured: it describes another program.
    """
    if not set(densities) & {layer.path for layer in workload.layers}:
        raise ValueError(f"workload {workload.model_name!r} has none of the measured layers; export the same program")
    layers = []
    for layer in workload.layers:
        found: dict[str, Any] = {}
        for operand, density in densities.get(layer.path, {}).items():
            if operand in operands:
                before: Density | None = getattr(layer, f"density_{operand}")
                busiest = None
                if before is not None and before.busiest is not None and before.mean > 0:
                    busiest = min(1.0, max(density.mean, before.busiest / before.mean * density.mean))
                found[f"density_{operand}"] = replace(density, busiest=busiest)
        layers.append(replace(layer, **found))
    return replace(workload, layers=tuple(layers))
