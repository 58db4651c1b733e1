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
from math import ceil

from accel.trainer.assembly import Plan, Pricer, edges_of, with_loss
from accel.trainer.chip import Chip
from accel.trainer.cost import Energy
from accel.trainer.laws import broken_laws
from accel.trainer.layer_cost import Part
from accel.trainer.noc import Network, ring_steps, route, transfer_pj
from accel.trainer.notes import density_means, is_used, refuse_oversized, warnings_of
from accel.trainer.partition import Fragment, Mapping, Stage, fragments_of, stages_of
from accel.trainer.result import (
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
from accel.trainer.schedule import QUEUES, UPDATE, Duty, Schedule, Span, engine_times, overlap_cycles
from accel.trainer.workload import Workload

BALANCED = Mapping()


def simulate(workload: Workload, chip: Chip, mapping: Mapping = BALANCED) -> SimulationReport:
    """Cost of one training iteration: forward, loss, backward, weight gradients, their reduction, Adam.

    Raises:
        ValueError: for a workload without layers, a layer whose smallest tile fits in no buffer, or a mapping with more
            copies than cores or images.
    """
    return Simulation(workload, chip, mapping).report()


class Simulation:
    """A workload on a chip under a mapping. `report` runs it; `energy_pj` then gives it other prices."""

    def __init__(self, workload: Workload, chip: Chip, mapping: Mapping = BALANCED) -> None:
        if not workload.layers:
            raise ValueError(
                f"workload {workload.model_name!r} got no layers; use an export with at least one operation"
            )
        refuse_oversized(workload, chip)
        self.original, self.chip, self.mapping = workload, chip, mapping
        workload = self.workload = with_loss(workload)
        self.transfers: list[tuple[Sequence[tuple[int, int]], int, int]] = []  # links, bytes, how often
        self.makespan = 0.0
        batch, count = workload.batch_size, chip.cores.count
        if not 1 <= mapping.replicas <= min(batch, count):
            raise ValueError(
                f"got {mapping.replicas} copies of the network for {count} core(s) and {batch} image(s); use 1 to "
                f"{min(batch, count)}"
            )
        self.plan = Plan.of(workload, chip)
        self.pricer = Pricer(workload, chip, self.plan)
        self.stages = stages_of(workload, chip.mapping.channel_quantum)
        numbers = iter(range(len(workload.layers)))
        self.numbers = [[next(numbers) for _ in stage.layers] for stage in self.stages]
        self.width = count // mapping.replicas  # cores of one copy
        cuts = [batch * r // mapping.replicas for r in range(mapping.replicas + 1)]
        self.images = list(zip(cuts, cuts[1:], strict=False))  # of each copy
        self.micros = self._micro_batches(*self.images[-1])
        self.fragments = fragments_of(self.stages, self._stage_loads(), self.width, mapping.style)
        self.cores_per_copy = 1 + max(f.core for f in self.fragments)
        self.at_home = self._weights_at_home()
        self.network = Network(chip)
        self.phases: list[dict[str, list[PhaseCost]]] = [{} for _ in workload.layers]  # layer -> engine -> parts

    def _micro_batches(self, first: int, last: int) -> list[tuple[int, int]]:
        share = last - first
        count = self.mapping.micro_batches
        if count is None:
            count = share if self.mapping.style == "pipeline" and self.width > 1 else 1
        count = max(1, min(count, share))
        return [(first + share * m // count, first + share * (m + 1) // count) for m in range(count)]

    def _part(self, stage: Stage, low: int, high: int, first: int, last: int, copy: int, at_home: bool) -> Part:
        return Part(
            low=low, high=high, channels=stage.channels, first=first, last=last, batch=self.workload.batch_size,
            weights_at_home=at_home, shard=copy, shards=self.mapping.replicas, energy=False,
        )  # fmt: skip

    def _stage_loads(self) -> list[int]:
        """Cycles of the busiest engine of each stage for the last (a largest) micro-batch, on a single core."""
        loads = []
        for stage, numbers in zip(self.stages, self.numbers, strict=True):
            part = self._part(stage, 0, stage.channels, *self.micros[-1], 0, True)
            cycles: dict[str, int] = dict.fromkeys(ENGINES, 0)
            for number in numbers:
                for phase in self.pricer.phases(number, part):
                    cycles[phase.engine] += phase.cycles
            loads.append(max(cycles[name] for name in ("fp", "bp", "wg")))
        return loads

    def _weights_at_home(self) -> list[bool]:
        """For each core of a copy, whether the 16-bit weights of all its fragments fit in its shared memory."""
        bits = [0] * self.cores_per_copy
        for fragment in self.fragments:
            stage = self.stages[fragment.stage]
            weights = sum(layer.parameters for layer in stage.layers)
            bits[fragment.core] += 16 * (weights * (fragment.high - fragment.low) // stage.channels)
        return [total <= self.chip.optimizer_memory.size_bits for total in bits]

    def report(self) -> SimulationReport:
        spans, makespan = self._run()
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
                        found.append(_again(phase, layer.kind.startswith("gemm")))
            layers.append(LayerCost(path=layer.path, op=layer.op, kind=layer.kind, phases=tuple(found)))
        return self._assemble(tuple(layers), spans, makespan)

    def _run(self) -> tuple[list[Span], float]:
        """Spans of all cores, and the makespan."""
        chip, mapping = self.chip, self.mapping
        used = self.cores_per_copy * mapping.replicas
        rate = chip.dram.bandwidth_bytes_per_s / chip.clock_hz / used
        alone = mapping.replicas == 1
        runs: dict[int, tuple[list[Span], float, list[list[list[Duty]]]]] = {}  # images of a copy -> its run
        spans: list[Span] = []
        end = 0.0
        for copy, (first, last) in enumerate(self.images):
            size = last - first
            if size not in runs:
                micros = self._micro_batches(first, last)
                duties = [self._fragment_duties(f, micros, copy) for f in self.fragments]
                edges, self.edge_names = edges_of(
                    self.stages, self.plan, self.workload.batch_size, -(-size // len(micros))
                )
                self.network.free.clear()  # the links of other copies are others
                schedule = Schedule(
                    self.fragments, duties, edges, len(micros), self.network, rate, update=alone,
                    first_core=copy * self.cores_per_copy,
                )  # fmt: skip
                runs[size] = (schedule.spans, schedule.run(), duties)
                self._network_cost(schedule, [c for c, (a, b) in enumerate(self.images) if b - a == size])
            found, finish, _ = runs[size]
            offset = copy * self.cores_per_copy
            spans += [span._replace(core=span.core + offset) for span in found] if offset else found
            end = max(end, finish)
        return (spans, end) if alone else self._all_reduce(spans, end, runs, rate)

    def _fragment_duties(self, fragment: Fragment, micros: list[tuple[int, int]], copy: int) -> list[list[Duty]]:
        stage = self.stages[fragment.stage]
        part = self._part(stage, fragment.low, fragment.high, 0, 0, copy, self.at_home[fragment.core])
        return self.pricer.fragment_duties(self.numbers[fragment.stage], micros, part)

    def _network_cost(self, schedule: Schedule, copies: Sequence[int]) -> None:
        """Book the transfers of `copies` under the layer whose output or gradient they carry. The first of them is the
        one that ran; the others send the same over links of their own."""
        index = {layer.path: i for i, layer in enumerate(self.workload.layers)}
        times = schedule.micro_batches
        for (edge, fragment, forward), (links, size, _, _, blocked) in schedule.routes.items():
            if not links or not size:
                continue
            layer = index[self.edge_names[edge]]
            tensor = ("s" if self.workload.layers[layer].kind == "neuron" else "activation") if forward else "du"
            sent: list[tuple[Sequence[tuple[int, int]], int, int]] = [(links, size, times)]
            for copy in copies[1:]:
                others, _ = schedule.route(edge, fragment, forward, copy * self.cores_per_copy)
                sent.append((others, size, times))
                self.network.blocked_flits += times * blocked
                for link in others:
                    self.network.carried[link] = self.network.carried.get(link, 0) + times * size
            self._book(layer, "fp" if forward else "bp", tensor, sent)
        self.network.waited_cycles += (len(copies) - 1) * schedule.waited_cycles

    def _book(
        self, layer: int, engine: EngineName, tensor: str, sent: Sequence[tuple[Sequence[tuple[int, int]], int, int]]
    ) -> None:
        self.transfers += sent
        size = sum(size * times for _, size, times in sent)
        paid = self._transfers_pj(sent, self.chip)
        self.phases[layer].setdefault(engine, []).append(
            PhaseCost(
                engine=engine, energy=Energy(noc_pj=paid), cycles=0, looped_macs=0, true_macs=0,
                dram_bytes_by_tensor={}, noc_bytes_by_tensor={tensor: size},
                noc_pj_by_tensor={tensor: paid} if paid else {},
            )
        )  # fmt: skip

    def _all_reduce(
        self, spans: list[Span], start: float, runs: dict[int, tuple[list[Span], float, list[list[list[Duty]]]]],
        rate: float,
    ) -> tuple[list[Span], float]:  # fmt: skip
        """Reduce-scatter of the gradients, each copy's share of the update, all-gather of the weights."""
        copies, per_copy = self.mapping.replicas, self.cores_per_copy
        noc = self.chip.noc
        sent = [0] * per_copy  # bytes of one of the two passes, from each core
        for fragment in self.fragments:
            stage = self.stages[fragment.stage]
            for number in self.numbers[fragment.stage]:
                layer = self.workload.layers[number]
                trained = 0 if layer.kind == "gemm_weight" and not layer.macs_weight_gradient else layer.parameters
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
        for copy, (first, last) in enumerate(self.images):
            duties = runs[last - first][2]
            clock = [begin] * per_copy
            for f, fragment in reversed(list(enumerate(self.fragments))):
                duty = duties[f][UPDATE][0]
                length = max(float(duty.cycles), duty.dram_bytes / rate)
                if length:
                    core, now = fragment.core, clock[fragment.core]
                    spans.append(Span(copy * per_copy + core, UPDATE, f, 0, now, now + length, float(duty.cycles)))
                    clock[core] = now + length
            end = max(end, *clock)
        return spans, end + one_pass

    def _ring_route(self, core: int, copy: int) -> list[tuple[int, int]]:
        """From a core of a copy to the same core of the next copy."""
        following = (copy + 1) % self.mapping.replicas
        source, target = copy * self.cores_per_copy + core, following * self.cores_per_copy + core
        return route(source, target, self.chip.cores.mesh_columns)

    def _add_phases(self) -> None:
        """The cost of every fragment for the whole batch, with the cycles of its micro-batches."""
        for copy, (first, last) in enumerate(self.images):
            micros = self._micro_batches(first, last)
            kinds = self.pricer.kinds_of(micros)
            alike = [(*micros[kind], kinds.count(kind)) for kind in dict.fromkeys(kinds)]
            for fragment in self.fragments:
                stage = self.stages[fragment.stage]
                home = self.at_home[fragment.core]
                part = self._part(stage, fragment.low, fragment.high, first, last, copy, home)
                priced = part._replace(energy=True)
                pieces = [(part._replace(first=a, last=b), times) for a, b, times in alike]
                for number in self.numbers[fragment.stage]:
                    whole = self.pricer.phases(number, priced)
                    cycles: dict[str, int] = {}
                    if len(micros) > 1:
                        for piece, times in pieces:
                            for p in self.pricer.phases(number, piece):
                                cycles[p.engine] = cycles.get(p.engine, 0) + times * p.cycles
                    for phase in whole:
                        if phase.engine != "optimizer" and len(micros) > 1:
                            phase = phase.lasting(cycles.get(phase.engine, 0))
                        self.phases[number].setdefault(phase.engine, []).append(phase)

    def energy_pj(self, chip: Chip) -> float:
        """The energy of the run that `report` made, with the prices of `chip`, which must be alike in all else."""
        pricer, total = Pricer(self.workload, chip, self.plan), 0.0
        for copy, (first, last) in enumerate(self.images):
            for fragment in self.fragments:
                stage = self.stages[fragment.stage]
                home = self.at_home[fragment.core]
                part = self._part(stage, fragment.low, fragment.high, first, last, copy, home)._replace(energy=True)
                for number in self.numbers[fragment.stage]:
                    layer = self.workload.layers[number]
                    for phase in pricer.phases(number, part):
                        total += phase.energy.total_pj
                        if phase.engine == "fp" and layer.path in self.plan.recomputed:
                            total += _again(phase, layer.kind.startswith("gemm")).energy.total_pj
        return total + self._transfers_pj(self.transfers, chip) + self._leakage_pj(chip)

    @staticmethod
    def _transfers_pj(sent: Sequence[tuple[Sequence[tuple[int, int]], int, int]], chip: Chip) -> float:
        if not chip.energy.include_noc:
            return 0.0
        return sum(times * transfer_pj(chip, size, links) for links, size, times in sent)

    def _leakage_pj(self, chip: Chip) -> float:
        """A milliwatt for a second is 1e9 pJ."""
        if not chip.energy.include_leakage:
            return 0.0
        leak_mw = sum(m.leak_mw * chip.memory_count[name] for name, m in chip.memories.items())
        return leak_mw * self.makespan / chip.clock_hz * 1e9

    all_reduce_bytes = 0

    def _assemble(self, layers: tuple[LayerCost, ...], spans: list[Span], makespan: float) -> SimulationReport:
        workload, chip = self.workload, self.chip
        phases = [phase for layer in layers for phase in layer.phases]
        engines = tuple(sum_phases(name, [phase for phase in phases if phase.engine == name]) for name in ENGINES)
        total = sum_phases("all", engines)
        lead = [next((x for x in s.layers if x.kind.startswith("gemm")), s.layers[0]).path for s in self.stages]
        fragment_names = [lead[fragment.stage] for fragment in self.fragments]
        times = engine_times(spans, chip.cores.count, makespan)
        links = {f"{a}>{b}": size for (a, b), size in sorted(self.network.carried.items())}
        worst = max(links, key=lambda link: links[link], default="")
        flits = 8 * links.get(worst, 0) / chip.noc.link_bits_per_cycle
        report = SimulationReport(
            model_name=workload.model_name, chip_name=chip.name, time_steps=workload.time_steps,
            batch_size=workload.batch_size, clock_hz=chip.clock_hz,
            array_lanes={name: engine.rows * engine.columns for name, engine in chip.arrays.items()},
            include_dram_energy=chip.energy.include_dram, include_noc_energy=chip.energy.include_noc,
            mapping_name=self.mapping.name, replicas=self.mapping.replicas, micro_batches=len(self.micros),
            cores=chip.cores.count, cores_used=self.cores_per_copy * self.mapping.replicas,
            mesh=(chip.cores.mesh_rows, chip.cores.mesh_columns), makespan_cycles=ceil(makespan),
            overlap_cycles=overlap_cycles(spans),
            engine_times=tuple(
                EngineTime(core=core, engine=QUEUES[i], busy_cycles=busy, stall_cycles=stall, idle_cycles=idle)
                for core, row in enumerate(times)
                for i, (busy, stall, idle) in enumerate(row)
            ),
            partition=tuple(
                Placement(core=copy * self.cores_per_copy + f.core, layer=name, low=f.low, high=f.high)
                for copy in range(self.mapping.replicas)
                for f, name in zip(self.fragments, fragment_names, strict=True)
            ),
            network=NetworkLoad(
                bytes=total.noc_bytes, all_reduce_bytes=self.all_reduce_bytes, link_bytes=links, worst_link=worst,
                worst_link_utilisation=flits / makespan if makespan else 0.0,
                waited_cycles=self.network.waited_cycles, blocked_flits=self.network.blocked_flits,
            ),
            timeline=tuple(
                (s.core, QUEUES[s.engine], fragment_names[s.fragment], s.micro_batch, s.start_cycle, s.end_cycle,
                 s.busy_cycles)
                for s in spans
            ),
            layers=layers, engines=engines, total=total,
            constants=tuple(constant for constant in chip.constants if is_used(constant.path, chip)),
            densities={layer.path: means for layer in workload.layers if (means := density_means(layer))},
            dram_pj_per_bit=chip.dram.energy_pj_per_bit,
            dram_bandwidth_bytes_per_s=chip.dram.bandwidth_bytes_per_s,
            unsupported=workload.unsupported, warnings=tuple(warnings_of(self.original, chip)),
        )  # fmt: skip
        broken = broken_laws(report, workload, self.plan.backward, makespan)
        if broken:
            raise AssertionError(f"the simulation of {workload.model_name} broke a law: {'; '.join(broken)}")
        return report


def _again(phase: PhaseCost, product: bool) -> PhaseCost:
    """The repetition of a forward phase in BP. A repeated product reads its operands again; a repeated neuron or norm
    writes nothing, since its results stay on chip this time. Its MACs are work of the engine, not of the network."""
    nothing: dict[str, int] = {}
    energy = replace(phase.energy, noc_pj=0.0, leakage_pj=0.0, dram_pj=phase.energy.dram_pj if product else 0.0)
    return replace(
        phase, energy=energy, true_macs=0, noc_bytes_by_tensor=nothing, noc_pj_by_tensor=nothing,
        dram_bytes_by_tensor=phase.dram_bytes_by_tensor if product else nothing,
        compulsory_bytes_by_tensor=phase.compulsory_bytes_by_tensor if product else nothing,
        refill_bytes_by_tensor=phase.refill_bytes_by_tensor if product else nothing,
    )  # fmt: skip
