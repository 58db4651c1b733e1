"""What a simulation found: frozen records with units in their names, a table for the console and JSON on disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from spikeloom.accel.common.files import write_json
from spikeloom.accel.trainer.chip.constants import Constant
from spikeloom.accel.trainer.cost.closed_forms import Energy
from spikeloom.accel.trainer.workload import LayerKind, Unsupported

EngineName = Literal["fp", "bp", "wg", "optimizer"]
ENGINES: tuple[EngineName, ...] = ("fp", "bp", "wg", "optimizer")
TABLE_COLUMNS = ("layer", "FP µJ", "BP µJ", "WG µJ", "Adam µJ", "total µJ", "cycles", "MACs", "DRAM bytes")


@dataclass(frozen=True, kw_only=True)
class PhaseCost:
    """Cost of one engine on one layer, or a sum of such costs, for a whole iteration (all images and time steps).

    `looped_macs` are the MACs the array steps through, `true_macs` those the mathematics needs. `cycles` are those an
    engine works, summed over cores. Bytes have a key for each tensor class (W, dW, s, mask, u, du, activation, norm,
    optimizer): `dram_bytes_by_tensor` as moved, `compulsory_bytes_by_tensor` if every SRAM were large enough,
    `refill_bytes_by_tensor` what an engine read again from the shared memory of its core. `port_cycles` is how long
    the phase needs ports that it shares with other engines.
    """

    engine: str
    energy: Energy
    cycles: int
    looped_macs: int
    true_macs: int
    dram_bytes_by_tensor: Mapping[str, int]
    compulsory_bytes_by_tensor: Mapping[str, int] = field(default_factory=dict)
    refill_bytes_by_tensor: Mapping[str, int] = field(default_factory=dict)
    noc_bytes_by_tensor: Mapping[str, int] = field(default_factory=dict)
    noc_pj_by_tensor: Mapping[str, float] = field(default_factory=dict)
    port_cycles: Mapping[str, float] = field(default_factory=dict)

    def lasting(self, cycles: int) -> PhaseCost:
        """The same cost in another number of cycles."""
        return self if cycles == self.cycles else dataclasses.replace(self, cycles=cycles)

    @property
    def dram_bytes(self) -> int:
        return sum(self.dram_bytes_by_tensor.values())

    @property
    def compulsory_bytes(self) -> int:
        return sum(self.compulsory_bytes_by_tensor.values())

    @property
    def noc_bytes(self) -> int:
        return sum(self.noc_bytes_by_tensor.values())

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
class Placement:
    """Output channels `low` to `high` of the product that leads a stage, and what follows it, on a core."""

    core: int
    layer: str
    low: int
    high: int


@dataclass(frozen=True, kw_only=True)
class EngineTime:
    """How an engine of a core spends the makespan; the three add up to it."""

    core: int
    engine: str
    busy_cycles: float
    stall_cycles: float
    idle_cycles: float


@dataclass(frozen=True, kw_only=True)
class NetworkLoad:
    """What went over the mesh. `link_bytes` has an entry "from>to" of router numbers for each link that was used."""

    bytes: int
    all_reduce_bytes: int
    link_bytes: Mapping[str, int]
    worst_link: str
    worst_link_utilisation: float
    waited_cycles: float
    blocked_flits: int


@dataclass(frozen=True, kw_only=True)
class SimulationReport:
    """One training iteration. `engines` has the sums over layers in the order of `ENGINES`, `total` the sum of those.

    An image step is one image for one time step: an iteration has time_steps * batch_size of them. `timeline` holds one
    span for each task of an engine: (core, engine, layer, micro-batch, start, end, busy cycles).
    """

    model_name: str
    chip_name: str
    time_steps: int
    batch_size: int
    clock_hz: float
    array_lanes: Mapping[str, int]
    include_dram_energy: bool
    include_noc_energy: bool
    mapping_name: str
    replicas: int
    micro_batches: int
    cores: int
    cores_used: int
    mesh: tuple[int, int]
    makespan_cycles: int
    overlap_cycles: float
    engine_times: tuple[EngineTime, ...]
    partition: tuple[Placement, ...]
    network: NetworkLoad
    timeline: tuple[tuple[int, str, str, int, float, float, float], ...]
    layers: tuple[LayerCost, ...]
    engines: tuple[PhaseCost, ...]
    total: PhaseCost
    constants: tuple[Constant, ...]
    densities: Mapping[str, Mapping[str, float]]
    dram_pj_per_bit: float
    dram_bandwidth_bytes_per_s: float
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
        """From the first task to the last one, on all cores."""
        return self.makespan_cycles

    @property
    def time_per_iteration_ms(self) -> float:
        return self.makespan_cycles / self.clock_hz * 1e3

    @property
    def compulsory_dram_bytes_per_iteration(self) -> int:
        return self.total.compulsory_bytes

    @property
    def energy_by_tensor_pj(self) -> dict[str, float]:
        """The same energy by what is moved; `arithmetic` and `leakage` move nothing."""
        tensors = {"arithmetic": self.total.energy.compute_pj}
        parts: list[tuple[str, float]] = list(self.total.energy.memory_pj_by_tensor.items())
        if self.include_dram_energy:
            parts += [(n, 8 * size * self.dram_pj_per_bit) for n, size in self.total.dram_bytes_by_tensor.items()]
        parts += self.total.noc_pj_by_tensor.items()
        for name, value in parts:
            tensors[name] = tensors.get(name, 0.0) + value
        return {**tensors, "leakage": self.total.energy.leakage_pj}

    @property
    def bubble_share(self) -> float:
        """Share of the makespan in which FP, BP and WG of the cores in use have nothing to do."""
        idle = [t.idle_cycles for t in self.engine_times if t.engine != "optimizer" and t.core < self.cores_used]
        return sum(idle) / (len(idle) * self.makespan_cycles) if idle and self.makespan_cycles else 0.0

    @property
    def busy_share(self) -> dict[str, float]:
        """Share of the makespan that each kind of engine works, over all cores of the chip."""
        shares: dict[str, float] = dict.fromkeys(ENGINES, 0.0)
        for time in self.engine_times:
            shares[time.engine] += time.busy_cycles
        whole = self.cores * self.makespan_cycles
        return {name: cycles / whole if whole else 0.0 for name, cycles in shares.items()}

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
            "schema": "spikeloom.report/2",
            "model_name": self.model_name,
            "chip_name": self.chip_name,
            "time_steps": self.time_steps,
            "batch_size": self.batch_size,
            "clock_hz": self.clock_hz,
            "include_dram_energy": self.include_dram_energy,
            "include_noc_energy": self.include_noc_energy,
            "mapping": {
                "name": self.mapping_name, "replicas": self.replicas, "micro_batches": self.micro_batches,
                "cores": self.cores, "cores_used": self.cores_used, "mesh": list(self.mesh),
            },
            "energy_per_iteration_pj": self.energy_per_iteration_pj,
            "energy_per_image_step_pj": self.energy_per_image_step_pj,
            "energy_by_tensor_pj": self.energy_by_tensor_pj,
            "cycles_per_iteration": self.cycles_per_iteration,
            "time_per_iteration_ms": self.time_per_iteration_ms,
            "dram_bytes_per_iteration": self.dram_bytes_per_iteration,
            "compulsory_dram_bytes_per_iteration": self.compulsory_dram_bytes_per_iteration,
            "noc_bytes_per_iteration": self.network.bytes,
            "utilisation": self.utilisation,
            "busy_share": self.busy_share,
            "bubble_share": self.bubble_share,
            "overlap_cycles": self.overlap_cycles,
            "stall_cycles": sum(time.stall_cycles for time in self.engine_times),
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
            "partition": [dataclasses.asdict(placement) for placement in self.partition],
            "engine_times": [dataclasses.asdict(time) for time in self.engine_times],
            "network": dataclasses.asdict(self.network),
            "timeline_columns": ["core", "engine", "layer", "micro_batch", "start_cycle", "end_cycle", "busy_cycles"],
            "timeline": [list(span) for span in self.timeline],
            "densities": {path: dict(means) for path, means in self.densities.items()},
            "unsupported": [dataclasses.asdict(entry) for entry in self.unsupported],
            "warnings": list(self.warnings),
            "constants": [dataclasses.asdict(constant) for constant in self.constants],
        }  # fmt: skip

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
            "compulsory_bytes_by_tensor": dict(phase.compulsory_bytes_by_tensor),
            "refill_bytes_by_tensor": dict(phase.refill_bytes_by_tensor),
            "noc_bytes_by_tensor": dict(phase.noc_bytes_by_tensor),
        }


def sum_phases(engine: str, phases: Sequence[PhaseCost]) -> PhaseCost:
    """The sum of `phases`, labelled `engine`."""
    if len(phases) == 1:
        return phases[0] if phases[0].engine == engine else dataclasses.replace(phases[0], engine=engine)
    moved: dict[str, float] = {}
    dram: dict[str, int] = {}
    compulsory: dict[str, int] = {}
    refill: dict[str, int] = {}
    noc: dict[str, int] = {}
    noc_pj: dict[str, float] = {}
    ports: dict[str, float] = {}
    for phase in phases:
        for into, found in (
            (moved, phase.energy.memory_pj_by_tensor), (dram, phase.dram_bytes_by_tensor),
            (compulsory, phase.compulsory_bytes_by_tensor), (refill, phase.refill_bytes_by_tensor),
            (noc, phase.noc_bytes_by_tensor), (noc_pj, phase.noc_pj_by_tensor), (ports, phase.port_cycles),
        ):  # fmt: skip
            for key, value in found.items():
                into[key] = into[key] + value if key in into else value  # type: ignore[assignment]
    energies = [phase.energy for phase in phases]
    energy = Energy(
        compute_pj=sum([e.compute_pj for e in energies]), register_pj=sum([e.register_pj for e in energies]),
        sram_pj=sum([e.sram_pj for e in energies]), dram_pj=sum([e.dram_pj for e in energies]),
        noc_pj=sum([e.noc_pj for e in energies]), leakage_pj=sum([e.leakage_pj for e in energies]),
        memory_pj_by_tensor=moved,
    )  # fmt: skip
    return PhaseCost(
        engine=engine, energy=energy, cycles=sum([phase.cycles for phase in phases]),
        looped_macs=sum([phase.looped_macs for phase in phases]), true_macs=sum([phase.true_macs for phase in phases]),
        dram_bytes_by_tensor=dram, compulsory_bytes_by_tensor=compulsory, refill_bytes_by_tensor=refill,
        noc_bytes_by_tensor=noc, noc_pj_by_tensor=noc_pj, port_cycles=ports,
    )  # fmt: skip


def _table_row(name: str, phases: Sequence[PhaseCost]) -> tuple[str | int | float, ...]:
    by_engine = [sum_phases(engine, [phase for phase in phases if phase.engine == engine]) for engine in ENGINES]
    total = sum_phases("all", phases)
    energies_uj = [phase.energy.total_pj / 1e6 for phase in (*by_engine, total)]
    return (name, *energies_uj, total.cycles, total.looped_macs, total.dram_bytes)


def _tflops_per_w(macs: int, energy: Energy) -> float:
    # An operation per pJ is a tera-operation per joule, that is one TFLOPS/W.
    return 2 * macs / energy.total_pj if energy.total_pj else 0.0
