"""A chip beside a GPU as sections of a report: DRAM traffic by network, and what the saving depends on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spikeloom.accel.common.report import Section, Table, palette
from spikeloom.accel.common.svg import Chart
from spikeloom.accel.common.units import energy_text, size_text
from spikeloom.accel.trainer.baseline.comparison import CLAIMED, DENSITIES, Comparison, compare, reductions, rescaled
from spikeloom.accel.trainer.baseline.gpu import PRECISIONS, Gpu
from spikeloom.accel.trainer.baseline.kernels import PHASES
from spikeloom.accel.trainer.baseline.nsight import Counters
from spikeloom.accel.trainer.chip.chip import Chip
from spikeloom.accel.trainer.networks import spiking_resnet18, spiking_vgg16, spikingformer
from spikeloom.accel.trainer.schedule.result import SimulationReport
from spikeloom.accel.trainer.workload import Workload

BATCHES, STEPS = (1, 2, 4, 8, 16, 32, 64), (1, 2, 4, 8, 16, 32)
NAMES = {"fp32": "single precision", "amp_fp16": "mixed precision"}
SHORT = {"fp32": "single", "amp_fp16": "mixed"}


def baseline_sections(
    workload: Workload, chip: Chip, gpu: Gpu, measured: Counters | None = None, report: SimulationReport | None = None
) -> tuple[list[Section], dict[str, Any]]:
    """Networks side by side, energies, what the saving depends on and the rules, as sections and as plain values.
    A network of one's own stands alone, a published one beside the others.

    `measured` are counters of a profiler for this workload in mixed precision, `report` is its simulation with the
    balanced mapping where there is one.
    """
    published = [spiking_resnet18(), spiking_vgg16(), spikingformer()]
    beside = published if workload.model_name in {network.model_name for network in published} else []
    networks = [workload, *(network for network in beside if network != workload)]
    rows = [compare(network, chip, gpu, report=report if network is workload else None) for network in networks]
    document: dict[str, Any] = {
        "networks": [comparison.document() for row in rows for comparison in row],
        "claimed_dram_reduction": list(CLAIMED),
    }
    sections = [
        _networks(rows, gpu), _energies(rows, gpu), _curves(workload, chip, gpu, rows[0]), _rules(gpu, rows[0]),
    ]  # fmt: skip
    if measured is not None:
        model = rows[0][PRECISIONS.index("amp_fp16")].gpu
        document["measured"] = {
            "dram_bytes": measured.dram_bytes, "kernels": measured.kernels,
            "model_over_measured": model.dram_bytes / measured.dram_bytes,
        }  # fmt: skip
        sections.insert(1, _measured(measured, rows[0]))
    return sections, document


def _networks(rows: Sequence[Sequence[Comparison]], gpu: Gpu) -> Section:
    table = [
        (
            _unbroken(c.model_name), f"{c.batch_size}×{c.time_steps}", SHORT[c.precision], size_text(c.chip_bytes),
            size_text(c.gpu.dram_bytes), f"{100 * c.reduction:.1f} %", f"{100 * c.reduction_without_optimizer:.1f} %",
        )
        for row in rows
        for c in row
    ]  # fmt: skip
    low, high = (f"{100 * share:.0f}" for share in CLAIMED)
    return Section(
        title=f"Off-chip traffic beside an {gpu.name}",
        caption="Bytes that one training step moves to and from off-chip memory, on the chip and on the GPU in single "
        f"and in mixed precision. The authors of the chip report {low} to {high} % less against an A100 without saying "
        "how they compared. The last column leaves out the weight update, which costs both sides alike.",
        table=Table(columns=("network", "batch × steps", "GPU", "chip", "on the GPU", "less", "no update"), rows=table),
    )


def _energies(rows: Sequence[Sequence[Comparison]], gpu: Gpu) -> Section:
    table = [
        (
            _unbroken(c.model_name), SHORT[c.precision],
            *map(energy_text, (c.chip_energy_pj, c.gpu.dram_device_pj, c.gpu.dram_path_pj, c.gpu.limit_pj)),
        )
        for row in rows
        for c in row
    ]  # fmt: skip
    return Section(
        title=f"Energy beside an {gpu.name}",
        caption="Energy of the same step. The chip column is everything its model prices. The GPU columns are bounds: "
        "what its traffic costs at the memory alone, what it costs on the whole way to the cache, and its power limit "
        "for as long as the step takes at its peak rates.",
        table=Table(
            columns=("network", "GPU", "chip", "GPU, memory", "GPU, to the cache", "GPU, power limit"), rows=table
        ),
    )


def _curves(workload: Workload, chip: Chip, gpu: Gpu, here: Sequence[Comparison]) -> Section:
    by_batch = [reductions(rescaled(workload, batch_size=n), chip, gpu) for n in BATCHES]
    by_steps = [reductions(rescaled(workload, time_steps=count), chip, gpu) for count in STEPS]
    chart = Chart(9.4, 3.4, legend=[(NAMES[p], palette[index]) for index, p in enumerate(PRECISIONS)])
    batch, steps, dense = chart.panel(), chart.panel(), chart.panel()
    for index, _ in enumerate(PRECISIONS):
        colour = palette[index]
        for panel, values, found in ((batch, BATCHES, by_batch), (steps, STEPS, by_steps)):
            panel.line(values, [100 * row[index] for row in found], colour, dots=True)
        dense.rule(y=100 * here[index].reduction_without_optimizer, colour=colour)
        packed = [100 * here[index].reduction_with_packed_du(density) for density in DENSITIES]
        dense.line(DENSITIES, packed, colour, dashed=True)
    labels = ("images in a batch", "time steps", "gradients that are not zero")
    heights = [y for panel in chart.panels for y in panel.y.seen]
    for panel, label in zip(chart.panels, labels, strict=True):
        panel.x.label = label
        panel.band(100 * CLAIMED[0], 100 * CLAIMED[1])
        panel.y.low, panel.y.high = min(0.0, *heights), 100.0
        panel.margin = (0.04, 0.0)
    for panel, values in ((batch, BATCHES), (steps, STEPS)):
        panel.x.log, panel.x.ticks = 2, [(v, str(v)) for v in values]
    batch.y.label = "less DRAM traffic (%)"
    return Section(
        title="What the saving depends on",
        caption=f"DRAM traffic that the chip saves on {workload.model_name}, against single and mixed precision on the "
        "GPU; the grey band is the published range. Small batches are ruled by the weight update, which costs both "
        "sides the same; once a batch outgrows the cache of the GPU the saving rises. Right, without the weight "
        "update: sparsity alone moves no byte (solid), since the chip stores spikes as one bit and gradients as 16 "
        "whether they are zero or not; dashed is what it would be if gradients were stored as a bit map and the "
        "values that are not zero.",
        chart=chart,
    )


def _measured(measured: Counters, here: Sequence[Comparison]) -> Section:
    model = here[PRECISIONS.index("amp_fp16")].gpu
    rows: list[tuple[str | int | float, ...]] = [
        ("model, mixed precision", size_text(model.dram_bytes), len(model.kernels)),
        ("measured by the profiler", size_text(measured.dram_bytes), measured.kernels),
        ("model / measured", f"{model.dram_bytes / measured.dram_bytes:.3f}", "–"),
    ]
    return Section(
        title="Model and profiler",
        caption=f"DRAM bytes of one iteration, from the model and from the counters in {measured.source}.",
        table=Table(columns=("what", "DRAM traffic", "kernels"), rows=rows),
    )


def _rules(gpu: Gpu, here: Sequence[Comparison]) -> Section:
    mixed = here[PRECISIONS.index("amp_fp16")].gpu
    phases = ", ".join(f"{name} {size_text(count)}" for name, count in mixed.by_phase().items() if name in PHASES)
    cache = f"{mixed.l2_bytes / 2**20:.0f} MiB" if mixed.l2_bytes else "no"
    lines = [
        "Single precision: every tensor has 4 bytes an element. Mixed: activations, spikes, membranes, gradients and "
        "the weights that kernels read have 2; master weights and Adam's moments 4. A GPU stores a spike and a mask as "
        "a full number.",
        f"A kernel reads a tensor for nothing if the kernel before touched it and all its operands fit in the cache "
        f"({cache} L2); a result stays out of DRAM if only the next kernel reads it. What the backward pass needs is "
        "written and read. Where the rules leave a choice the GPU gains: elementwise operations cost it nothing, and "
        "no workspace is counted.",
        f"The same network in mixed precision, by phase: {phases}.",
        f"Prices: {gpu.dram_device_pj_per_bit:g} pJ a bit at the memory, {gpu.dram_path_pj_per_bit:g} pJ a bit up to "
        f"the cache, {gpu.tdp_w:g} W at the limit. These are models of both machines, not measurements.",
    ]
    return Section(title="How the GPU is counted", caption="Rules of the comparison.", text="\n\n".join(lines))


def _unbroken(name: str) -> str:
    return name.replace("-", "\u2011")
