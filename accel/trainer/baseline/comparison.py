"""A chip beside a GPU: how much DRAM traffic and energy of a training iteration the chip saves, and what moves that.

Both sides are models: the chip's bytes are those of `spikeloom.accel.trainer.schedule.simulator`, the GPU's those of
`baseline.kernels`. No figure here is a measurement, and nothing is tuned towards the published 55 to 85 %.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isclose
from typing import Any

from spikeloom.accel.trainer.baseline.gpu import PRECISIONS, Gpu, Precision
from spikeloom.accel.trainer.baseline.kernels import GpuReport, gpu_iteration
from spikeloom.accel.trainer.chip.chip import Chip
from spikeloom.accel.trainer.schedule.result import SimulationReport
from spikeloom.accel.trainer.schedule.simulator import Simulation, simulate
from spikeloom.accel.trainer.workload import Density, Layer, Workload

CLAIMED = (0.55, 0.85)  # published reduction of DRAM access against an A100, method of comparison unknown
DENSITIES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One network on a chip and on a GPU in one precision, for one training iteration."""

    model_name: str
    time_steps: int
    batch_size: int
    precision: Precision
    chip_bytes: int
    chip_bytes_without_optimizer: int
    chip_du_bytes: int  # gradients of membranes and activations, 16 bits each
    chip_energy_pj: float
    gpu: GpuReport

    @property
    def reduction(self) -> float:
        """Share of the GPU's DRAM bytes that the chip does not move, the weight update included."""
        return 1 - self.chip_bytes / self.gpu.dram_bytes

    @property
    def reduction_without_optimizer(self) -> float:
        return 1 - self.chip_bytes_without_optimizer / self.gpu.dram_bytes_without_optimizer

    def reduction_with_packed_du(self, density: float) -> float:
        """What it would be if the chip stored a gradient as one bit an element and 16 for each that is not zero."""
        packed = self.chip_bytes_without_optimizer - self.chip_du_bytes * (1 - (1 / 16 + density))
        return 1 - packed / self.gpu.dram_bytes_without_optimizer

    def document(self) -> dict[str, object]:
        """Plain values with units in their names."""
        return {
            "model_name": self.model_name, "time_steps": self.time_steps, "batch_size": self.batch_size,
            "chip_dram_bytes": self.chip_bytes, "chip_dram_bytes_without_optimizer": self.chip_bytes_without_optimizer,
            "chip_energy_pj": self.chip_energy_pj, "dram_reduction": self.reduction,
            "dram_reduction_without_optimizer": self.reduction_without_optimizer, "gpu": self.gpu.document(),
        }  # fmt: skip


def compare(
    workload: Workload, chip: Chip, gpu: Gpu, precisions: Sequence[Precision] = PRECISIONS, *,
    l2_bytes: int | None = None, report: SimulationReport | None = None,
) -> list[Comparison]:  # fmt: skip
    """One comparison for each precision; the chip is simulated once, unless there is its balanced `report` already."""
    report = report or simulate(workload, chip)
    total, optimizer = report.total, sum(phase.dram_bytes for phase in report.engines if phase.engine == "optimizer")
    return [
        Comparison(
            model_name=workload.model_name, time_steps=workload.time_steps, batch_size=workload.batch_size,
            precision=precision, chip_bytes=total.dram_bytes,
            chip_bytes_without_optimizer=total.dram_bytes - optimizer,
            chip_du_bytes=total.dram_bytes_by_tensor.get("du", 0), chip_energy_pj=report.energy_per_iteration_pj,
            gpu=gpu_iteration(workload, gpu, precision=precision, l2_bytes=l2_bytes),
        )
        for precision in precisions
    ]  # fmt: skip


def reductions(workload: Workload, chip: Chip, gpu: Gpu) -> list[float]:
    """Share of the GPU's DRAM bytes that the chip does not move, for each precision; traffic alone, nothing runs."""
    moved = sum(size for tensors in Simulation(workload, chip).dram_bytes().values() for size in tensors.values())
    return [1 - moved / gpu_iteration(workload, gpu, precision=precision).dram_bytes for precision in PRECISIONS]


def rescaled(workload: Workload, *, time_steps: int | None = None, batch_size: int | None = None) -> Workload:
    """The same network with other numbers of time steps and images; densities stay, per-step ones are dropped.

    Layers that are not resolved in time (a product over all steps) keep their count of products.

    Raises:
        ValueError: for a number below 1.
    """
    steps = workload.time_steps if time_steps is None else time_steps
    images = workload.batch_size if batch_size is None else batch_size
    if min(steps, images) < 1:
        raise ValueError(f"got {steps} time steps and a batch of {images}; use whole numbers >= 1")

    def one(layer: Layer) -> Layer:
        timed = layer.time_steps == workload.time_steps
        t, b = (steps if timed else layer.time_steps), (images if layer.batch_size == workload.batch_size else 1)
        times = t * b / layer.image_steps
        counts: dict[str, Any] = {name: round(getattr(layer, name) * times) for name in _MACS}
        assert all(isclose(counts[name], getattr(layer, name) * times) for name in _MACS)
        densities: dict[str, Any] = {name: _whole(getattr(layer, name)) for name in _DENSITIES}
        return replace(layer, time_steps=t, batch_size=b, **counts, **densities)

    return replace(workload, time_steps=steps, batch_size=images, layers=tuple(map(one, workload.layers)))


_MACS = ("macs_forward", "macs_backward", "macs_weight_gradient")
_DENSITIES = ("density_input", "density_spike", "density_mask", "density_du", "density_weight")


def _whole(density: Density | None) -> Density | None:
    return None if density is None else replace(density, per_step=())
