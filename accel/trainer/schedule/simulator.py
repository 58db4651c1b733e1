"""One training iteration of a workload on all cores of a chip: energy, time, and traffic, layer by layer.

What is assumed, since the public text leaves it open:

- Each core has its FP, BP and WG engine, an update unit and a shared memory; an engine feeds its array from its own
  SRAM without stalls (bank counts are not public), and shares the ports listed in `schedule`.
- The network is partitioned as `partition` says, `balanced` by default: a pipeline over contiguous channel ranges with
  the smallest possible load of the fullest core. Images follow each other; batch statistics are those of the
  micro-batch, and weights change once, after all of them.
- The units of neurons, norms and elementwise operations have as many lanes as the array has columns and work before or
  after the array of their engine; a normalisation takes two passes, or what the port of its SRAM allows.
- DRAM bytes follow `traffic`. An input is read once for all cores that share it, and reaches them over the network.
  Neurons, norms and elementwise operations are fused with what produces their input. The optimizer streams 32-bit
  weights and moments and 16-bit gradients.
- Copies of the network work side by side, each on cores and links of its own; those with as many images are alike.
  They sum their gradients on a ring (reduce-scatter), update a share of the weights each, and pass the result on
  (all-gather).
- Layers before the first one with parameters pass no gradient on, and that one needs no BP if it is a matrix product.
- A recomputed membrane repeats the forward pass of its layers on the FP engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from math import ceil

import numpy as np

from spikeloom.accel.trainer.chip.chip import Chip
from spikeloom.accel.trainer.cost.closed_forms import Energy
from spikeloom.accel.trainer.cost.noc import ring_steps, route, transfers_pj
from spikeloom.accel.trainer.invariants import InvariantError, broken_invariants
from spikeloom.accel.trainer.schedule.events import UPDATE, Floats, Ints, Ran
from spikeloom.accel.trainer.schedule.layout import Cut, Layout
from spikeloom.accel.trainer.schedule.partition import Mapping
from spikeloom.accel.trainer.schedule.plan import Plan, Pricer, repeated, with_loss
from spikeloom.accel.trainer.schedule.result import (
    ENGINES,
    EngineName,
    EngineTime,
    LayerCost,
    NetworkLoad,
    PhaseCost,
    Placement,
    SimulationReport,
    sum_phases,
)
from spikeloom.accel.trainer.schedule.tile import trained_parameters
from spikeloom.accel.trainer.schedule.timeline import QUEUES, Schedule, engine_times, overlap_cycles
from spikeloom.accel.trainer.schedule.warnings import density_means, is_used, refuse_oversized, warnings_of
from spikeloom.accel.trainer.workload import Workload

BALANCED = Mapping()


def simulate(workload: Workload, chip: Chip, mapping: Mapping = BALANCED) -> SimulationReport:
    """Cost of one training iteration: forward, loss, backward, weight gradients, their reduction, Adam.

    Raises:
        ValueError: for a workload without layers, a layer whose smallest tile fits in no buffer, or a mapping with more
            copies than cores or images.
    """
    return Simulation(workload, chip, mapping).report()


class Simulation:
    """A workload on a chip under a mapping. `report` runs it and `time_ms` runs it alone; `energy_pj` then gives it
    other prices. Simulations of the same workload on the same chip may share a `pricer`."""

    def __init__(
        self, workload: Workload, chip: Chip, mapping: Mapping = BALANCED, pricer: Pricer | None = None
    ) -> None:
        if not workload.layers:
            raise ValueError(
                f"workload {workload.model_name!r} got no layers; use an export with at least one operation"
            )
        refuse_oversized(workload, chip)
        self.original, self.chip, self.mapping = workload, chip, mapping
        workload = self.workload = with_loss(workload)
        self.plan = Plan.of(workload, chip)
        self.layout = Layout(workload, chip, mapping, pricer or Pricer(workload, chip, self.plan))
        self.network = self.layout.network
        self.transfers: list[tuple[Sequence[tuple[int, int]], int, int]] = []  # links, bytes, how often
        self.makespan, self.all_reduce_bytes = 0.0, 0
        self.phases: list[dict[str, list[PhaseCost]]] = [{} for _ in workload.layers]  # layer -> engine -> parts

    @cached_property
    def cut(self) -> Cut:
        return self.layout.cut

    def time_ms(self) -> float:
        """How long an iteration takes."""
        *_, self.makespan = self._run()
        return ceil(self.makespan) / self.chip.clock_hz * 1e3

    def dram_bytes(self) -> dict[str, dict[str, int]]:
        """Engine -> tensor class -> bytes, with the network cut for all cores: nothing runs."""
        moved: dict[str, dict[str, int]] = {name: {} for name in ENGINES}
        for copy, (first, last) in enumerate(self.layout.images):
            for fragment in self.layout.widest.fragments:
                part = self.layout.part(fragment, self.layout.widest, first, last, copy)
                for number in self.layout.numbers[fragment.stage]:
                    for phase in self.layout.pricer.phases(number, part):
                        for tensor, size in phase.dram_bytes_by_tensor.items():
                            moved[phase.engine][tensor] = moved[phase.engine].get(tensor, 0) + size
        return moved

    def report(self) -> SimulationReport:
        names, cycles, makespan = self._run()
        self._add_phases()
        self.makespan = makespan
        layers, leakage = [], self._leakage_pj(self.chip)
        worked = sum(p.cycles for by_engine in self.phases for parts in by_engine.values() for p in parts)
        for layer, by_engine in zip(self.workload.layers, self.phases, strict=True):
            found = []
            for name in ENGINES:
                if name in by_engine:
                    phase = sum_phases(name, by_engine[name])
                    if leakage and worked:
                        share = Energy(leakage_pj=leakage * phase.cycles / worked)
                        phase = replace(phase, energy=phase.energy + share)
                    found.append(phase)
                    if name == "fp" and layer.path in self.plan.recomputed:
                        found.append(repeated(phase, layer.kind.startswith("gemm")))
            layers.append(LayerCost(path=layer.path, op=layer.op, kind=layer.kind, phases=tuple(found)))
        return self._assemble(tuple(layers), names, cycles, makespan)

    def _run(self) -> tuple[Ints, Floats, float]:
        """Names and cycles of all tasks, as `events` has them, and the makespan."""
        runs: dict[int, tuple[Schedule, Ran]] = {}  # images of a copy -> its run
        names, cycles = [], []
        for copy, (first, last) in enumerate(self.layout.images):
            size = last - first
            if size not in runs:
                schedule = self.layout.schedule(self.cut, copy)
                runs[size] = schedule, schedule.run()
                alike = [c for c, (a, b) in enumerate(self.layout.images) if b - a == size]
                self._network_cost(schedule, runs[size][1].waited, alike)
            ran = runs[size][1]
            names.append(ran.spans + np.array([copy * self.cut.cores, 0, 0, 0]))
            cycles.append(ran.cycles)
        end = max(ran.makespan for _, ran in runs.values())
        tasks = np.concatenate(names), np.concatenate(cycles)
        return (*tasks, end) if self.mapping.replicas == 1 else self._all_reduce(*tasks, end, runs)

    def _network_cost(self, schedule: Schedule, waited: float, copies: Sequence[int]) -> None:
        """Book the transfers of `copies` under the layer whose output or gradient they carry. The first of them is the
        one that ran; the others send the same over links of their own."""
        index = {layer.path: i for i, layer in enumerate(self.workload.layers)}
        times, carried = len(schedule.kinds), self.network.carried
        for edge, place, forward, (links, size, _, _, blocked) in schedule.sent:
            if not links or not size:
                continue
            layer = index[schedule.edges[edge].layer]
            tensor = ("s" if self.workload.layers[layer].kind == "neuron" else "activation") if forward else "du"
            sent: list[tuple[Sequence[tuple[int, int]], int, int]] = [(links, size, times)]
            for copy in copies[1:]:
                others, _ = schedule.route(edge, place, forward, copy * self.cut.cores)
                sent.append((others, size, times))
            for used, _, _ in sent:
                for link in used:
                    carried[link] = carried.get(link, 0) + times * size
            self.network.blocked_flits += len(copies) * times * blocked
            self._book(layer, "fp" if forward else "bp", tensor, sent)
        self.network.waited_cycles += len(copies) * waited

    def _book(
        self, layer: int, engine: EngineName, tensor: str, sent: Sequence[tuple[Sequence[tuple[int, int]], int, int]]
    ) -> None:
        self.transfers += sent
        size = sum(size * times for _, size, times in sent)
        paid = transfers_pj(sent, self.chip)
        self.phases[layer].setdefault(engine, []).append(
            PhaseCost(
                engine=engine, energy=Energy(noc_pj=paid), cycles=0, looped_macs=0, true_macs=0,
                dram_bytes_by_tensor={}, noc_bytes_by_tensor={tensor: size},
                noc_pj_by_tensor={tensor: paid} if paid else {},
            )
        )  # fmt: skip

    def _all_reduce(
        self, names: Ints, cycles: Floats, start: float, runs: dict[int, tuple[Schedule, Ran]]
    ) -> tuple[Ints, Floats, float]:
        """Reduce-scatter of the gradients, each copy's share of the update, all-gather of the weights."""
        copies, per_copy = self.mapping.replicas, self.cut.cores
        noc = self.chip.noc
        sent = [0] * per_copy  # bytes of one of the two passes, from each core
        for fragment in self.cut.fragments:
            stage = self.layout.stages[fragment.stage]
            for number in self.layout.numbers[fragment.stage]:
                layer = self.workload.layers[number]
                trained = trained_parameters(layer)
                held = trained * fragment.high // stage.channels - trained * fragment.low // stage.channels
                size, _ = ring_steps(2 * held, copies)
                if not size:
                    continue
                sent[fragment.core] += size
                ring = [(self._ring_route(fragment.core, copy), 2 * size, 1) for copy in range(copies)]
                self._book(number, "optimizer", "dW", ring)
        loads: dict[tuple[int, int], int] = {}
        longest = 0
        for core, size in enumerate(sent):
            for copy in range(copies):
                links = self._ring_route(core, copy)
                longest = max(longest, len(links))
                for link in links:
                    loads[link] = loads.get(link, 0) + size
        for link, size in loads.items():
            self.network.carried[link] = self.network.carried.get(link, 0) + 2 * size
        self.all_reduce_bytes = 2 * sum(sent) * copies
        hop_cycles = noc.hop_ns * self.chip.clock_hz / 1e9
        one_pass = (
            ceil(8 * max(loads.values(), default=0) / noc.link_bits_per_cycle) + (copies - 1) * longest * hop_cycles
        )
        begin, end = start + one_pass, start + one_pass
        tasks: list[tuple[int, int, int, int]] = []
        times: list[tuple[float, float, float]] = []
        for copy, (first, last) in enumerate(self.layout.images):
            schedule, _ = runs[last - first]
            clock = [begin] * per_copy
            for f, fragment in reversed(list(enumerate(self.cut.fragments))):
                duty = schedule.duties[f][schedule.kinds[0]][UPDATE]
                length = max(float(duty.cycles), duty.dram_bytes / schedule.dram_bytes_per_cycle)
                if length:
                    core, now = fragment.core, clock[fragment.core]
                    tasks.append((copy * per_copy + core, UPDATE, f, 0))
                    times.append((now, now + length, float(duty.cycles)))
                    clock[core] = now + length
            end = max(end, *clock)
        if tasks:
            names, cycles = np.concatenate([names, np.array(tasks)]), np.concatenate([cycles, np.array(times)])
        return names, cycles, end + one_pass

    def _ring_route(self, core: int, copy: int) -> Sequence[tuple[int, int]]:
        """From a core of a copy to the same core of the next copy."""
        following = (copy + 1) % self.mapping.replicas
        source, target = copy * self.cut.cores + core, following * self.cut.cores + core
        return route(source, target, self.chip.cores.mesh_columns)

    def _add_phases(self) -> None:
        """The cost of every fragment for the whole batch, with the cycles of its micro-batches."""
        for copy, (first, last) in enumerate(self.layout.images):
            micros = self.layout.micro_batches(first, last)
            kinds = self.layout.pricer.kinds_of(micros)
            alike = [(*micros[kind], kinds.count(kind)) for kind in dict.fromkeys(kinds)]
            for fragment in self.cut.fragments:
                part = self.layout.part(fragment, self.cut, first, last, copy)
                priced = part._replace(energy=True)
                pieces = [(part._replace(first=a, last=b), times) for a, b, times in alike]
                for number in self.layout.numbers[fragment.stage]:
                    whole = self.layout.pricer.phases(number, priced)
                    cycles: dict[str, int] = {}
                    if len(micros) > 1:
                        for piece, times in pieces:
                            for p in self.layout.pricer.phases(number, piece):
                                cycles[p.engine] = cycles.get(p.engine, 0) + times * p.cycles
                    for phase in whole:
                        if phase.engine != "optimizer" and len(micros) > 1:
                            phase = phase.lasting(cycles.get(phase.engine, 0))
                        self.phases[number].setdefault(phase.engine, []).append(phase)

    def energy_pj(self, chip: Chip) -> float:
        """The energy of the run that was made, with the prices of `chip`, which must be alike in all else."""
        pricer = self.layout.pricer if chip is self.chip else Pricer(self.workload, chip, self.plan)
        total = 0.0
        for copy, (first, last) in enumerate(self.layout.images):
            for fragment in self.cut.fragments:
                part = self.layout.part(fragment, self.cut, first, last, copy)._replace(energy=True)
                for number in self.layout.numbers[fragment.stage]:
                    layer = self.workload.layers[number]
                    for phase in pricer.phases(number, part):
                        total += phase.energy.total_pj
                        if phase.engine == "fp" and layer.path in self.plan.recomputed:
                            total += repeated(phase, layer.kind.startswith("gemm")).energy.total_pj
        return total + transfers_pj(self.transfers, chip) + self._leakage_pj(chip)

    def _leakage_pj(self, chip: Chip) -> float:
        """A milliwatt for a second is 1e9 pJ."""
        if not chip.energy.include_leakage:
            return 0.0
        leak_mw = sum(m.leak_mw * chip.memory_count[name] for name, m in chip.memories.items())
        return leak_mw * self.makespan / chip.clock_hz * 1e9

    def _assemble(
        self, layers: tuple[LayerCost, ...], names: Ints, cycles: Floats, makespan: float
    ) -> SimulationReport:
        workload, chip = self.workload, self.chip
        phases = [phase for layer in layers for phase in layer.phases]
        engines = tuple(sum_phases(name, [phase for phase in phases if phase.engine == name]) for name in ENGINES)
        total = sum_phases("all", engines)
        lead = [next((x for x in s.layers if x.kind.startswith("gemm")), s.layers[0]).path for s in self.layout.stages]
        fragment_names = [lead[fragment.stage] for fragment in self.cut.fragments]
        times = engine_times(names, cycles, chip.cores.count, makespan)
        links = {f"{a}>{b}": size for (a, b), size in sorted(self.network.carried.items())}
        worst = max(links, key=lambda link: links[link], default="")
        flits = 8 * links.get(worst, 0) / chip.noc.link_bits_per_cycle
        report = SimulationReport(
            model_name=workload.model_name, chip_name=chip.name, time_steps=workload.time_steps,
            batch_size=workload.batch_size, clock_hz=chip.clock_hz,
            array_lanes={name: engine.rows * engine.columns for name, engine in chip.arrays.items()},
            include_dram_energy=chip.energy.include_dram, include_noc_energy=chip.energy.include_noc,
            mapping_name=self.mapping.name, replicas=self.mapping.replicas, micro_batches=len(self.layout.micros),
            cores=chip.cores.count, cores_used=self.cut.cores * self.mapping.replicas,
            mesh=(chip.cores.mesh_rows, chip.cores.mesh_columns), makespan_cycles=ceil(makespan),
            overlap_cycles=overlap_cycles(names, cycles),
            engine_times=tuple(
                EngineTime(core=core, engine=QUEUES[i], busy_cycles=busy, stall_cycles=stall, idle_cycles=idle)
                for core, row in enumerate(times)
                for i, (busy, stall, idle) in enumerate(row)
            ),
            partition=tuple(
                Placement(core=copy * self.cut.cores + f.core, layer=name, low=f.low, high=f.high)
                for copy in range(self.mapping.replicas)
                for f, name in zip(self.cut.fragments, fragment_names, strict=True)
            ),
            network=NetworkLoad(
                bytes=total.noc_bytes, all_reduce_bytes=self.all_reduce_bytes, link_bytes=links, worst_link=worst,
                worst_link_utilisation=flits / makespan if makespan else 0.0,
                waited_cycles=self.network.waited_cycles, blocked_flits=self.network.blocked_flits,
            ),
            timeline=tuple(
                (core, QUEUES[engine], fragment_names[fragment], micro, start, end, busy)
                for (core, engine, fragment, micro), (start, end, busy) in zip(
                    names.tolist(), cycles.tolist(), strict=True
                )
            ),
            layers=layers, engines=engines, total=total,
            constants=tuple(constant for constant in chip.constants if is_used(constant.path, chip)),
            densities={layer.path: means for layer in workload.layers if (means := density_means(layer))},
            dram_pj_per_bit=chip.dram.energy_pj_per_bit,
            dram_bandwidth_bytes_per_s=chip.dram.bandwidth_bytes_per_s,
            unsupported=workload.unsupported, warnings=tuple(warnings_of(self.original, chip)),
        )  # fmt: skip
        broken = broken_invariants(report, workload, self.plan.backward, makespan)
        if broken:
            raise InvariantError(
                f"the simulation of {workload.model_name} broke an invariant: {'; '.join(broken)}; report this workload"
            )
        return report
