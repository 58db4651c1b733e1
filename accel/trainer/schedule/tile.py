"""A part of a layer on a core: its channels and images, its counts, and how its bytes become the cost of a phase."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

from spikeloom.accel.trainer.chip.chip import Chip
from spikeloom.accel.trainer.cost.closed_forms import (
    OPERAND_BITS,
    REAL,
    ConvLoops,
    Energy,
    Operand,
    forward_energy,
    weight_gradient_energy,
)
from spikeloom.accel.trainer.cost.cycles import active_share
from spikeloom.accel.trainer.cost.dataflow import Objective
from spikeloom.accel.trainer.cost.traffic import Reads, bytes_of
from spikeloom.accel.trainer.schedule.result import EngineName, PhaseCost
from spikeloom.accel.trainer.workload import Layer

NOTHING = Energy()


class Part(NamedTuple):
    """Channels `low` to `high` out of `channels`, for images `first` to `last` out of `batch`. The channels are those
    of the product that a layer follows; a layer of its own gives a share in proportion.

    `backward`: whether a gradient is passed on. `weights_at_home`: whether all weights of the core fit in its shared
    memory. `shard` of `shards` is the share of the update, which data-parallel cores divide among them. Without
    `energy` only cycles and bytes are worked out. `flows` is the objective of a search over the data flows of
    attention products.
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
    flows: Objective | None = None

    def of_channels(self, total: int) -> int:
        return total * self.high // self.channels - total * self.low // self.channels

    def of_images(self, total: int) -> int:
        return total * self.last // self.batch - total * self.first // self.batch


def trained_parameters(layer: Layer) -> int:
    """Parameters that the update changes. A product without WG is frozen, up to biases: one for each output."""
    if layer.kind == "gemm_weight" and not layer.macs_weight_gradient and layer.parameters > layer.out_channels:
        return 0
    return layer.parameters


def shared_counts(layer: Layer, chip: Chip, steps: int) -> list[int]:
    """All counts of a layer that its parts share out in proportion to their channels."""
    whole = layer.in_channels * layer.in_height * layer.in_width * layer.tokens * steps
    macs = (layer.macs_forward, layer.macs_backward, layer.macs_weight_gradient)
    return [
        layer.out_channels, layer.out_channels * layer.positions, layer.parameters, trained_parameters(layer),
        bytes_of(whole, input_operand(layer, chip).width), *(n for m in macs for n in divmod(m, layer.image_steps)),
    ]  # fmt: skip


def input_operand(layer: Layer, chip: Chip) -> Operand:
    """How the array takes this layer's input: whole numbers as bit planes, or as FP16 where that needs less energy in
    FP and WG. (Arrays of devices take every input bit by bit, so that fewer bits are always cheaper there.)"""
    planes = Operand(kind=layer.input_kind, bits=layer.input_bits)
    if layer.input_kind != "integer" or chip.crossbar:
        return planes
    active, both = active_share(layer, chip.fp, 1.0), active_share(layer, chip.wg, 1.0)
    trained = layer.macs_weight_gradient > 0
    key = (
        "operand", layer.in_channels, layer.out_channels, layer.groups, layer.positions, layer.taps, layer.input_bits,
        active, both, trained,
    )  # fmt: skip
    if key not in chip.prices:
        loops = ConvLoops(
            in_channels=layer.in_channels, out_channels=layer.out_channels, positions=layer.positions, taps=layer.taps,
            groups=layer.groups,
        )  # fmt: skip

        def energy_pj(operand: Operand) -> float:
            forward = forward_energy(loops, chip, operand=operand, active=active).total_pj
            if not trained:
                return forward
            return forward + weight_gradient_energy(loops, chip, operand=operand, active=both).total_pj

        chip.prices[key] = planes if energy_pj(planes) <= energy_pj(REAL) else REAL
    chosen: Operand = chip.prices[key]
    return chosen


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
        return input_operand(self.layer, self.chip)

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
