"""A part of a layer on a core: its channels and images, its counts, and how its bytes become the cost of a phase."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

from accel.trainer.chip import Chip
from accel.trainer.cost import OPERAND_BITS, ConvLoops, Energy, Operand
from accel.trainer.result import EngineName, PhaseCost
from accel.trainer.traffic import Reads, bytes_of
from accel.trainer.workload import Layer

NOTHING = Energy()


class Part(NamedTuple):
    """Channels `low` to `high` out of `channels`, for images `first` to `last` out of `batch`. The channels are those
    of the product that a layer follows; a layer of its own gives a share in proportion.

    `backward`: whether a gradient is passed on. `weights_at_home`: whether all weights of the core fit in its shared
    memory. `shard` of `shards` is the share of the update, which data-parallel cores divide among them. Without
    `energy` only cycles and bytes are worked out.
    """

    low: int = 0
    high: int = 1
    channels: int = 1
    first: int = 0
    last: int = 1
    batch: int = 1
    backward: bool = True
    weights_at_home: bool = True
    shard: int = 0
    shards: int = 1
    energy: bool = True

    def of_channels(self, total: int) -> int:
        return total * self.high // self.channels - total * self.low // self.channels

    def of_images(self, total: int) -> int:
        return total * self.last // self.batch - total * self.first // self.batch


@dataclass(frozen=True, kw_only=True)
class Work:
    """Counts of a part of a layer over all its image steps."""

    layer: Layer
    chip: Chip
    part: Part
    steps: int  # image steps of this part

    @property
    def elements(self) -> int:
        """Outputs of this part over all its image steps."""
        return self.part.of_channels(self.layer.out_channels * self.layer.positions) * self.steps

    @property
    def parameters(self) -> int:
        return self.part.of_channels(self.layer.parameters)

    @property
    def operand(self) -> Operand:
        return Operand(kind=self.layer.input_kind, bits=self.layer.input_bits)

    def loops(self, positions: int) -> ConvLoops:
        layer = self.layer
        outputs = self.part.of_channels(layer.out_channels)
        groups, inputs = layer.groups, layer.in_channels
        if groups > 1:  # a cut runs between groups
            groups = max(1, groups * outputs // layer.out_channels)
            inputs = inputs // layer.groups * groups
        return ConvLoops(in_channels=inputs, out_channels=outputs, positions=positions, taps=layer.taps, groups=groups)

    def macs(self, total: int) -> int:
        each, rest = divmod(total, self.layer.image_steps)
        return self.part.of_channels(each) * self.steps + self.part.of_images(self.part.of_channels(rest))

    def input_elements(self, loops: ConvLoops) -> int:
        """Inputs that the array of this part streams."""
        layer = self.layer
        return loops.in_channels * layer.in_height * layer.in_width * layer.tokens * self.steps

    def input_bytes(self) -> int:
        """This part's share of the input, which is read once for all parts."""
        layer = self.layer
        whole = layer.in_channels * layer.in_height * layer.in_width * layer.tokens * self.steps
        return self.part.of_channels(bytes_of(whole, self.operand.width))

    def phase(
        self, engine: EngineName, price: Callable[[], Energy], cycles: int, *, looped: int = 0, true: int = 0,
        reads: Mapping[str, tuple[int, Reads]] | None = None, writes: Mapping[str, int] | None = None,
        ports: Mapping[str, float] | None = None,
    ) -> PhaseCost:  # fmt: skip
        """Add what depends on bytes; energy is left out where only time is asked for.

        `reads` gives bytes of a tensor and how often they come, `writes` bytes.
        """
        chip = self.chip
        compulsory: dict[str, int] = {**writes} if writes else {}
        dram, refill = compulsory.copy(), {}
        if reads:
            for name, (size, (visits, loads)) in reads.items():
                compulsory[name] = compulsory.get(name, 0) + size
                dram[name] = dram.get(name, 0) + loads * size
                if visits > loads:
                    refill[name] = (visits - loads) * size
        energy = NOTHING
        if self.part.energy:
            energy = price()
            if chip.energy.include_refill and refill:
                homes = {"W": chip.optimizer_memory}
                moved = {
                    n: (0.0, homes.get(n, chip.norm_memory).read_element_pj(8) * size) for n, size in refill.items()
                }
                energy = energy + Energy.of(0.0, **moved)
            if chip.energy.include_dram:
                energy = energy + Energy(dram_pj=8 * sum(dram.values()) * chip.dram.energy_pj_per_bit)
        ports = ports or {}
        if ports:
            cycles = max(cycles, ceil(max(ports.values())))
        return PhaseCost(
            engine=engine, energy=energy, cycles=cycles, looped_macs=looped, true_macs=true,
            dram_bytes_by_tensor=dram, compulsory_bytes_by_tensor=compulsory, refill_bytes_by_tensor=refill,
            port_cycles=ports,
        )  # fmt: skip

    def array_ports(self, name: str, cycles: int) -> dict[str, float]:
        """A memory that several engines use is busy for as long as one of their arrays runs."""
        return {key: float(cycles) for key in self.chip.shared_memories[name]}

    def norm_port(self, elements: int, accesses: int) -> dict[str, float]:
        memory = self.chip.norm_memory
        return {"norm": elements * accesses * OPERAND_BITS / (memory.port_bits * memory.ports)}
