"""What a simulation found: frozen records with units in their names, a table for the console and JSON on disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from accel.files import write_json
from accel.trainer.cost import Energy
from accel.trainer.provenance import Constant
from accel.trainer.workload import LayerKind, Unsupported

EngineName = Literal["fp", "bp", "wg", "optimizer"]
ENGINES: tuple[EngineName, ...] = ("fp", "bp", "wg", "optimizer")
TABLE_COLUMNS = ("layer", "FP µJ", "BP µJ", "WG µJ", "Adam µJ", "total µJ", "cycles", "MACs", "DRAM bytes")


@dataclass(frozen=True, kw_only=True)
class PhaseCost:
    """Cost of one engine on one layer, or a sum of such costs, for a whole iteration (all images and time steps).

    `looped_macs` are the MACs the array steps through, `true_macs` those the mathematics needs.
    `dram_bytes_by_tensor` has a key for each tensor class: W, dW, s, mask, u, du, activation, norm, optimizer.
    """

    engine: str
    energy: Energy
    cycles: int
    looped_macs: int
    true_macs: int
    dram_bytes_by_tensor: Mapping[str, int]

    @property
    def dram_bytes(self) -> int:
        return sum(self.dram_bytes_by_tensor.values())

    @property
    def tflops_per_w_looped(self) -> float:
        """Two operations per MAC of the loops, divided by the energy; 0 where nothing was spent."""
        return _tflops_per_w(self.looped_macs, self.energy)

    @property
    def tflops_per_w_true(self) -> float:
        """Two operations per MAC that the mathematics needs, divided by the energy; 0 where nothing was spent."""
        return _tflops_per_w(self.true_macs, self.energy)


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """Cost of one layer; `phases` are in the order of execution, and a recomputed forward pass is there twice."""

    path: str
    op: str
    kind: LayerKind
    phases: tuple[PhaseCost, ...]

    @cached_property
    def total(self) -> PhaseCost:
        return sum_phases("all", self.phases)

    def engine(self, name: EngineName) -> PhaseCost:
        """The cost on one engine; all zero where the layer does not use it."""
        return sum_phases(name, [phase for phase in self.phases if phase.engine == name])


@dataclass(frozen=True, kw_only=True)
class SimulationReport:
    """One training iteration. `engines` has the sums over layers in the order of `ENGINES`, `total` the sum of those.

    An image step is one image for one time step: an iteration has time_steps * batch_size of them.
    """

    model_name: str
    chip_name: str
    time_steps: int
    batch_size: int
    clock_hz: float
    array_lanes: Mapping[str, int]
    include_dram_energy: bool
    layers: tuple[LayerCost, ...]
    engines: tuple[PhaseCost, ...]
    total: PhaseCost
    constants: tuple[Constant, ...]
    densities: Mapping[str, Mapping[str, float]]
    unsupported: tuple[Unsupported, ...]
    warnings: tuple[str, ...]

    @property
    def image_steps(self) -> int:
        return self.time_steps * self.batch_size

    @property
    def energy_per_iteration_pj(self) -> float:
        return self.total.energy.total_pj

    @property
    def energy_per_image_step_pj(self) -> float:
        return self.total.energy.total_pj / self.image_steps

    @property
    def cycles_per_iteration(self) -> int:
        return self.total.cycles

    @property
    def time_per_iteration_ms(self) -> float:
        return self.total.cycles / self.clock_hz * 1e3

    @property
    def dram_bytes_per_iteration(self) -> int:
        return self.total.dram_bytes

    @property
    def tflops_per_w_looped(self) -> float:
        return self.total.tflops_per_w_looped

    @property
    def tflops_per_w_true(self) -> float:
        return self.total.tflops_per_w_true

    @property
    def utilisation(self) -> dict[str, float]:
        """Share of the slots of each array that hold a MAC of the loops, over the cycles of its engine."""
        return {
            phase.engine: phase.looped_macs / (self.array_lanes[phase.engine] * phase.cycles) if phase.cycles else 0.0
            for phase in self.engines
            if phase.engine in self.array_lanes
        }

    def table(self) -> list[tuple[str | int | float, ...]]:
        """One row for each layer that costs anything, in program order, per iteration, with the columns
        `TABLE_COLUMNS`; the last row is the total."""
        rows = [_table_row(layer.path, layer.phases) for layer in self.layers if layer.phases]
        return [*rows, _table_row("total", self.engines)]

    def to_json(self, path: str | Path) -> None:
        """Write to `path`; equal reports give equal bytes, and a crash never leaves half a file."""
        write_json(Path(path), self.document())

    def document(self) -> dict[str, Any]:
        """The report as plain dictionaries and lists, with derived figures and units in the names."""
        return {
            "schema": "spikeloom.report/1",
            "model_name": self.model_name,
            "chip_name": self.chip_name,
            "time_steps": self.time_steps,
            "batch_size": self.batch_size,
            "clock_hz": self.clock_hz,
            "include_dram_energy": self.include_dram_energy,
            "energy_per_iteration_pj": self.energy_per_iteration_pj,
            "energy_per_image_step_pj": self.energy_per_image_step_pj,
            "cycles_per_iteration": self.cycles_per_iteration,
            "time_per_iteration_ms": self.time_per_iteration_ms,
            "dram_bytes_per_iteration": self.dram_bytes_per_iteration,
            "utilisation": self.utilisation,
            "total": self._phase(self.total),
            "engines": {phase.engine: self._phase(phase) for phase in self.engines},
            "layers": [
                {
                    "path": layer.path,
                    "op": layer.op,
                    "kind": layer.kind,
                    "phases": [{"engine": phase.engine, **self._phase(phase)} for phase in layer.phases],
                }
                for layer in self.layers
            ],
            "densities": {path: dict(means) for path, means in self.densities.items()},
            "unsupported": [dataclasses.asdict(entry) for entry in self.unsupported],
            "warnings": list(self.warnings),
            "constants": [dataclasses.asdict(constant) for constant in self.constants],
        }

    def _phase(self, phase: PhaseCost) -> dict[str, Any]:
        return {
            "energy_per_iteration_pj": {**dataclasses.asdict(phase.energy), "total_pj": phase.energy.total_pj},
            "energy_per_image_step_pj": phase.energy.total_pj / self.image_steps,
            "cycles": phase.cycles,
            "looped_macs": phase.looped_macs,
            "true_macs": phase.true_macs,
            "tflops_per_w_looped": phase.tflops_per_w_looped,
            "tflops_per_w_true": phase.tflops_per_w_true,
            "dram_bytes": phase.dram_bytes,
            "dram_bytes_by_tensor": dict(phase.dram_bytes_by_tensor),
        }


def sum_phases(engine: str, phases: Sequence[PhaseCost]) -> PhaseCost:
    """The sum of `phases`, labelled `engine`."""
    energy = Energy()
    tensors: dict[str, int] = {}
    for phase in phases:
        energy = energy + phase.energy
        for name, count in phase.dram_bytes_by_tensor.items():
            tensors[name] = tensors.get(name, 0) + count
    return PhaseCost(
        engine=engine,
        energy=energy,
        cycles=sum(phase.cycles for phase in phases),
        looped_macs=sum(phase.looped_macs for phase in phases),
        true_macs=sum(phase.true_macs for phase in phases),
        dram_bytes_by_tensor=tensors,
    )


def _table_row(name: str, phases: Sequence[PhaseCost]) -> tuple[str | int | float, ...]:
    by_engine = [sum_phases(engine, [phase for phase in phases if phase.engine == engine]) for engine in ENGINES]
    total = sum_phases("all", phases)
    energies_uj = [phase.energy.total_pj / 1e6 for phase in (*by_engine, total)]
    return (name, *energies_uj, total.cycles, total.looped_macs, total.dram_bytes)


def _tflops_per_w(macs: int, energy: Energy) -> float:
    # An operation per pJ is a tera-operation per joule, that is one TFLOPS/W.
    return 2 * macs / energy.total_pj if energy.total_pj else 0.0
