"""How the network is laid on the cores of a chip: images shared among copies, each cut for so many cores, and the
schedule that follows. `simulator` runs it and books what it costs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil

from spikeloom.accel.common.units import counted
from spikeloom.accel.trainer.chip.chip import Chip
from spikeloom.accel.trainer.cost.compression import VALUE_BITS, stored_bits
from spikeloom.accel.trainer.cost.layer_cost import Part
from spikeloom.accel.trainer.cost.noc import Network
from spikeloom.accel.trainer.schedule.partition import Fragment, Mapping, fragments_of, stages_of
from spikeloom.accel.trainer.schedule.plan import Pricer, edges_of
from spikeloom.accel.trainer.schedule.result import ENGINES
from spikeloom.accel.trainer.schedule.timeline import Duty, Edge, Need, Schedule
from spikeloom.accel.trainer.workload import Workload

LARGEST_TRIAL = 64  # cores up to which all smaller numbers are tried
MOST_MICRO_BATCHES = 1024  # unless a mapping asks for more: a timeline of every image of a large batch helps nobody


@dataclass(frozen=True, kw_only=True)
class Cut:
    """A copy of the network on `cores` cores; `at_home`: whether the weights of a core fit in its shared memory."""

    fragments: tuple[Fragment, ...]
    cores: int
    at_home: tuple[bool, ...]


class Layout:
    """A workload under a mapping; `pricer` has the cost of its parts.

    Raises:
        ValueError: for more copies than cores or images.
    """

    def __init__(self, workload: Workload, chip: Chip, mapping: Mapping, pricer: Pricer) -> None:
        self.workload, self.chip, self.mapping, self.pricer = workload, chip, mapping, pricer
        batch, count = workload.batch_size, chip.cores.count
        if not 1 <= mapping.replicas <= min(batch, count):
            raise ValueError(
                f"got {mapping.replicas} copies of the network for {counted(count, 'core')} and "
                f"{counted(batch, 'image')}; use 1 to {min(batch, count)}"
            )
        self.network = Network(chip)
        self.stages = stages_of(workload, chip.mapping.channel_quantum)
        numbers = iter(range(len(workload.layers)))
        self.numbers = [[next(numbers) for _ in stage.layers] for stage in self.stages]
        cuts = [batch * r // mapping.replicas for r in range(mapping.replicas + 1)]
        self.images = list(zip(cuts, cuts[1:], strict=False))  # of each copy
        self.micros = self.micro_batches(*self.images[-1])
        # Words of 16 bits that the stored weights of each stage take.
        self._weights = [
            sum(ceil(layer.parameters * stored_bits(layer, chip) / VALUE_BITS) for layer in stage.layers)
            for stage in self.stages
        ]
        self._edges: dict[int, list[Edge]] = {}
        self._needs: dict[int, Need] = {}
        self._schedules: dict[tuple[int, int], Schedule] = {}

    @cached_property
    def widest(self) -> Cut:
        """The network on all cores."""
        return self._cut(self.chip.cores.count // self.mapping.replicas)

    @cached_property
    def cut(self) -> Cut:
        """The network on as many cores as make it fastest: a finer cut is not always better, and a core that would make
        the step slower stays idle."""
        most = self.widest.cores
        if self.mapping.style != "pipeline" or self.mapping.replicas > 1 or most > LARGEST_TRIAL:
            return self.widest
        cuts = [self.widest, *(self._cut(width) for width in range(most - 1, 0, -1))]
        return min(cuts, key=lambda cut: self.schedule(cut, 0).run(spans=False).makespan)

    def _cut(self, width: int) -> Cut:
        """The network for `width` cores of a copy."""
        fragments = fragments_of(self.stages, self._stage_loads, width, self.mapping.style)
        bits = [0] * (1 + max(f.core for f in fragments))
        for f in fragments:
            bits[f.core] += 16 * (self._weights[f.stage] * (f.high - f.low) // self.stages[f.stage].channels)
        home = self.chip.optimizer_memory.size_bits
        return Cut(fragments=fragments, cores=len(bits), at_home=tuple(total <= home for total in bits))

    def schedule(self, cut: Cut, copy: int) -> Schedule:
        """The schedule of a copy on cores of its own; only a single copy has its update in it."""
        if (known := self._schedules.get((id(cut), copy))) is not None:
            return known
        first, last = self.images[copy]
        micros = self.micro_batches(first, last)
        cases, kinds = self.pricer.cases(micros)
        images = -(-(last - first) // len(micros))
        if images not in self._edges:
            self._edges[images] = edges_of(self.stages, self.pricer.plan, self.workload.batch_size, images)
        rate = self.chip.dram.bandwidth_bytes_per_s / self.chip.clock_hz / self.mapping.replicas  # shared by copies
        duties = [self._duties(fragment, cut, cases, copy) for fragment in cut.fragments]
        found = self._schedules[id(cut), copy] = Schedule(
            cut.fragments, duties, kinds, self._edges[images], self.network, rate, update=self.mapping.replicas == 1,
            first_core=copy * cut.cores, needs=self._needs,
        )  # fmt: skip
        return found

    def micro_batches(self, first: int, last: int) -> list[tuple[int, int]]:
        """Ranges of images that follow each other."""
        share = last - first
        count = self.mapping.micro_batches
        if count is None:
            count = min(share, MOST_MICRO_BATCHES) if self.mapping.style == "pipeline" else 1
        count = max(1, min(count, share))
        return [(first + share * m // count, first + share * (m + 1) // count) for m in range(count)]

    def part(self, fragment: Fragment, cut: Cut, first: int, last: int, copy: int) -> Part:
        """A fragment for a range of images, without energies."""
        return Part(
            low=fragment.low, high=fragment.high, channels=self.stages[fragment.stage].channels, first=first, last=last,
            batch=self.workload.batch_size, weights_at_home=cut.at_home[fragment.core], shard=copy,
            shards=self.mapping.replicas, energy=False, flows=self.mapping.flows,
        )  # fmt: skip

    def _duties(self, fragment: Fragment, cut: Cut, cases: list[tuple[int, int, bool]], copy: int) -> list[list[Duty]]:
        part = self.part(fragment, cut, 0, 0, copy)
        return self.pricer.fragment_duties(self.numbers[fragment.stage], cases, part)

    @cached_property
    def _stage_loads(self) -> list[int]:
        """Cycles of the busiest engine of each stage for the last (a largest) micro-batch, on a single core."""
        loads = []
        first, last = self.micros[-1]
        for stage, numbers in zip(self.stages, self.numbers, strict=True):
            part = Part(
                low=0, high=stage.channels, channels=stage.channels, first=first, last=last,
                batch=self.workload.batch_size, shards=self.mapping.replicas, energy=False, flows=self.mapping.flows,
            )  # fmt: skip
            cycles: dict[str, int] = dict.fromkeys(ENGINES, 0)
            for number in numbers:
                for phase in self.pricer.phases(number, part):
                    cycles[phase.engine] += phase.cycles
            loads.append(max(cycles[name] for name in ("fp", "bp", "wg")))
        return loads
