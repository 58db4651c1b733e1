"""What a trainer of spiking transformers would need: one training step over array size, memory, cores, precision, data
flow and activity, one at a time and together.

Precision is not simulated but priced: values of b instead of 16 bits take b/16 of the energy of moving them (registers,
SRAM, DRAM, network), an addition b/16 and a multiplication the square of the ratio of the significands; times and what
fits into a memory stay. Spikes, masks and the optimizer's 32-bit state keep their bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from spikeloom.accel.common.report import Section, Table, palette
from spikeloom.accel.common.svg import Chart
from spikeloom.accel.trainer.chip.chip import Chip
from spikeloom.accel.trainer.chip.override import ChipConfig
from spikeloom.accel.trainer.cost.dataflow import Objective
from spikeloom.accel.trainer.report.console import energy_shares
from spikeloom.accel.trainer.schedule.partition import Mapping
from spikeloom.accel.trainer.schedule.simulator import Simulation
from spikeloom.accel.trainer.workload import Density, Workload

E2ATST_TFLOPS_PER_W = 2.36
SIGNIFICANDS = {16: 11, 8: 4}  # bits with the hidden one: FP16, and FP8 with four bits of exponent
FIXED_BITS = ("s", "mask", "optimizer", "arithmetic", "leakage")
ACTIVITY = 0.2  # fraction of spikes and gradients that are not zero, where that is varied
ARRAYS = {8: 1, 32: 1, 64: 4}  # rows and columns, and what that takes of the engines' own SRAMs
CORE_FACTORS, MEMORY_FACTORS = (0.25, 0.5, 2, 4), (0.25, 4)


@dataclass(frozen=True, kw_only=True)
class Design:
    """What is varied; `chip` is the file with its changes."""

    label: str
    chip: ChipConfig
    flows: bool = False
    bits: int = 16
    density: float | None = None


@dataclass(frozen=True, kw_only=True)
class Row:
    """What a design reaches; `shares` are fractions of the energy, before a change of precision."""

    design: Design
    tflops_per_w: float
    time_ms: float
    energy_mj: float
    shares: dict[str, float]


def designs(base: ChipConfig, chip: Chip) -> list[Design]:
    """The chip as it is, and each axis at a few values."""
    found = [
        Design(label="as it is", chip=base),
        Design(label="data flows of attention searched", chip=base, flows=True),
    ]
    for array, buffers in ARRAYS.items():
        more = f", their memories × {buffers}" if buffers > 1 else ""
        scaled = replace(base, array=array, buffer_scale=buffers if buffers > 1 else base.buffer_scale)
        found.append(Design(label=f"arrays of {array} × {array}{more}", chip=scaled))
    kilobytes = (chip.norm_memory.size_bits + chip.optimizer_memory.size_bits) / 8192
    for factor in MEMORY_FACTORS:
        found.append(Design(label=f"shared memory × {factor:g}", chip=replace(base, sram_kb=factor * kilobytes)))
    for factor in CORE_FACTORS:
        cores = max(1, round(factor * chip.cores.count))
        found.append(Design(label=f"{cores} core{'s' * (cores > 1)}", chip=replace(base, cores=cores)))
    found.append(Design(label="8-bit values", chip=base, bits=8))
    gated = replace(base, sparsity="gating")
    found.append(Design(label=f"{ACTIVITY:.0%} activity, zeros gated".replace("%", " %"), chip=gated, density=ACTIVITY))
    return found


def together(rows: Sequence[Row], base: ChipConfig) -> Design:
    """The best value of each axis in one design."""
    start = rows[0].tflops_per_w
    changes: dict[str, object] = {}
    labels = []
    for keys in (("array", "buffer_scale"), ("sram_kb",), ("cores",)):
        varied = [row for row in rows if any(getattr(row.design.chip, k) != getattr(base, k) for k in keys)]
        best = max(varied, key=lambda row: row.tflops_per_w)
        if best.tflops_per_w > start:
            changes |= {k: getattr(best.design.chip, k) for k in keys}
            labels.append(best.design.label)
    chip = replace(base, sparsity="gating", **changes)  # type: ignore[arg-type]
    label = "; ".join(["all of it", *labels, "flows", "8 bits", f"{100 * ACTIVITY:.0f} % activity"])
    return Design(label=label, chip=chip, flows=True, bits=8, density=ACTIVITY)


def explore(workload: Workload, base: ChipConfig, load: Callable[[ChipConfig], Chip]) -> list[Row]:
    """All designs, and the best of each axis together; `load` makes a chip of a configuration."""
    rows = [measured(workload, design, load) for design in designs(base, load(base))]
    return [*rows, measured(workload, together(rows, base), load)]


def measured(workload: Workload, design: Design, load: Callable[[ChipConfig], Chip]) -> Row:
    """One design with the mapping of the least energy: a pipeline, layers over all cores, or a copy for each image."""
    chip = load(design.chip)
    network = workload if design.density is None else with_activity(workload, design.density)
    copies = min(chip.cores.count, workload.batch_size)
    flows: Objective | None = "energy" if design.flows else None
    mappings = [Mapping(flows=flows), Mapping(style="channels", flows=flows)]
    if copies > 1:
        mappings.append(Mapping(replicas=copies, style="channels", flows=flows))
    runs = []
    for mapping in mappings:
        simulation = Simulation(network, chip, mapping)
        simulation.time_ms()
        runs.append((simulation.energy_pj(chip), mapping))
    _, mapping = min(runs, key=lambda run: run[0])
    simulation = Simulation(network, chip, mapping)
    report = simulation.report()
    energy = at_bits(simulation, report.energy_by_tensor_pj, design.bits)
    return Row(
        design=design, tflops_per_w=2 * report.total.true_macs / energy,
        time_ms=report.time_per_iteration_ms, energy_mj=energy / 1e9, shares=energy_shares(report),
    )  # fmt: skip


def at_bits(simulation: Simulation, by_tensor: dict[str, float], bits: int) -> float:
    """The energy of a run in pJ with values of so many bits instead of 16."""
    chip, ratio = simulation.chip, bits / 16
    total = simulation.energy_pj(chip)
    if bits == 16:
        return total
    multiply = (SIGNIFICANDS[bits] / SIGNIFICANDS[16]) ** 2
    ops = replace(chip.ops, add_pj=chip.ops.add_pj * ratio, mul_pj=chip.ops.mul_pj * multiply)
    cheaper = simulation.energy_pj(replace(chip, ops=ops)) - total
    moved = sum(pj for tensor, pj in by_tensor.items() if tensor not in FIXED_BITS)
    return total + cheaper - (1 - ratio) * moved


def with_activity(workload: Workload, density: float) -> Workload:
    """The network with spikes and gradients of one density everywhere."""
    same = Density(mean=density, min=density, max=density)
    layers = [
        replace(layer, density_input=same if layer.input_kind != "real" else layer.density_input, density_du=same)
        for layer in workload.layers
    ]
    return replace(workload, layers=tuple(layers))


def section(rows: Sequence[Row], workload: Workload, chip: Chip) -> Section:
    """The table, and a bar for each design beside the published figure."""
    return Section(
        title="What would a trainer of spiking transformers need",
        caption=f"TFLOPS/W of one training step of {workload.model_name} (operations that the mathematics needs) when "
        f"one thing of {chip.name} changes, and with the best of each axis together. The line is E2ATST (arXiv "
        f"2508.00475), {E2ATST_TFLOPS_PER_W} TFLOPS/W for training in FP16 by its abstract. It is not comparable: "
        "arrays, node, memories, networks and what counts as an operation are not public. Activity is an assumption, "
        "8-bit prices are scaled, and neither says whether such a network still learns. Each design has the mapping of "
        "the least energy: a pipeline, layers over all cores, or a copy for each image.",
        table=Table(columns=COLUMNS, rows=[cells(row) for row in rows]),
        chart=_chart(rows),
    )


COLUMNS = ("design", "TFLOPS/W", "of 2.36", "ms", "mJ", "computing", "SRAM", "DRAM", "leakage")


def cells(row: Row) -> tuple[str, ...]:
    """A row of the table."""
    parts = [f"{100 * row.shares.get(name, 0.0):.0f} %" for name in ("computing", "SRAM", "DRAM", "leakage")]
    return (
        row.design.label, f"{row.tflops_per_w:.3f}", f"{row.tflops_per_w / E2ATST_TFLOPS_PER_W:.2f}",
        f"{row.time_ms:.4g}", f"{row.energy_mj:.4g}", *parts,
    )  # fmt: skip


def lines(rows: Sequence[Row]) -> list[str]:
    """The table as text, with the published figure below it."""
    table = [COLUMNS, *map(cells, rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    text = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in table]
    return [*text, f"{'E2ATST, abstract only: not comparable'.ljust(widths[0])}  {E2ATST_TFLOPS_PER_W}"]


def _chart(rows: Sequence[Row]) -> Chart:
    chart = Chart(9.4, 0.9 + 0.3 * len(rows))
    panel = chart.panel()
    panel.bars([row.design.label.split(";")[0] for row in rows], [(palette[0], [row.tflops_per_w for row in rows])])
    panel.rule(x=E2ATST_TFLOPS_PER_W, colour=palette[1])
    panel.margin = (0.03, 0.0)
    panel.x.low = 0.0
    panel.x.label = "TFLOPS/W; the line: E2ATST by its abstract, not comparable"
    return chart
