"""More of a simulation as sections: what is moved, roofline, cores over time, uncertainty, other chips, constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from spikeloom.accel.common.report import Section, Table, palette
from spikeloom.accel.common.svg import Chart
from spikeloom.accel.common.units import counted, energy_text, size_text
from spikeloom.accel.trainer.chip.chip import Chip
from spikeloom.accel.trainer.cost.compression import VALUE_BITS, stored_form
from spikeloom.accel.trainer.cost.dataflow import Objective, choices, products_of
from spikeloom.accel.trainer.cost.sensitivity import Sensitivity
from spikeloom.accel.trainer.schedule.pareto import Point, table
from spikeloom.accel.trainer.schedule.partition import Mapping as Placing
from spikeloom.accel.trainer.schedule.result import ENGINES, SimulationReport
from spikeloom.accel.trainer.schedule.tile import Part, Work
from spikeloom.accel.trainer.workload import Workload

COLOURS: dict[str, str] = dict(zip(ENGINES, (palette[0], palette[1], palette[2], palette[3]), strict=True))
NAMES = {"fp": "forward", "bp": "backward", "wg": "weight gradient", "optimizer": "weight update"}
TENSORS = {
    "arithmetic": "arithmetic (moves nothing)", "leakage": "leakage (moves nothing)", "W": "weights",
    "dW": "weight gradients", "s": "spikes", "x": "input currents", "u": "membranes", "du": "gradients of membranes",
    "ds": "gradients of spikes", "psum": "partial sums", "mask": "surrogate masks", "activation": "real activations",
    "norm": "normalisation", "optimizer": "optimizer state",
}  # fmt: skip
MOST_CORES = 24


def by_tensor(report: SimulationReport) -> Section:
    energy = {name: value for name, value in report.energy_by_tensor_pj.items() if value > 0}
    ranked = sorted(energy.items(), key=lambda item: -item[1])
    total = report.energy_per_iteration_pj or 1.0
    chart = Chart(9.4, 1.0 + 0.3 * max(2, len(ranked)))
    panel = chart.panel()
    panel.bars([TENSORS.get(name, name) for name, _ in ranked], [(palette[0], [100 * v / total for _, v in ranked])])
    panel.x.label = "share of the energy of a training step (%)"
    return Section(
        title="Energy by what is moved",
        caption="The same energy by the numbers it is spent on: reading and writing them in registers, on-chip "
        "memories, off-chip memory and the network. Arithmetic and leakage move nothing.",
        chart=chart,
    )


def roofline(report: SimulationReport) -> Section:
    """MACs per DRAM byte against MACs per second, of each layer and engine, below what the chip could do."""
    lanes = max(report.array_lanes.values())
    peak = sum(report.array_lanes.values()) * report.clock_hz * report.cores / 1e9
    bandwidth = report.dram_bandwidth_bytes_per_s
    points: dict[str, list[tuple[float, float]]] = {}
    for layer in report.layers:
        for phase in layer.phases:
            if phase.true_macs and phase.dram_bytes and phase.cycles:
                # As if the layer's engines ran on all cores at the same time: cycles are summed over cores.
                rate = phase.true_macs / (phase.cycles / report.clock_hz / report.cores) / 1e9
                points.setdefault(phase.engine, []).append((phase.true_macs / phase.dram_bytes, rate))
    everything = [x for found in points.values() for x, _ in found] or [1.0]
    left, right = min(everything) / 3, max(*everything, 3 * peak * 1e9 / bandwidth) * 2
    one = lanes * report.clock_hz * report.cores / 1e9
    grid = [left * (right / left) ** (i / 60) for i in range(61)]
    limit = f"limit of one kind of engine ({one:,.0f} GMAC/s, {bandwidth / 1e9:g} GB/s)"
    chart = Chart(9.4, 4.6, legend=[(limit, "var(--muted)"), *((NAMES[e], COLOURS[e]) for e in points)])
    panel = chart.panel()
    panel.line(grid, [min(one, bandwidth * x / 1e9) for x in grid], "var(--muted)")
    for engine, found in points.items():
        panel.dots([x for x, _ in found], [y for _, y in found], COLOURS[engine])
    panel.x.log = panel.y.log = 10
    panel.x.label, panel.y.label = "multiply-accumulates per byte of off-chip traffic", "GMAC/s on all cores"
    return Section(
        title="Roofline",
        caption="Each point is a layer in one phase. Under the slope the off-chip memory would be the limit, under the "
        "flat part the arrays. The distance to the line is what array slots lose to fill, to channels that 16 does not "
        "divide, and to zeros inserted for strides. Waiting for other layers is not in it; the timeline has that.",
        chart=chart,
    )


def timeline(report: SimulationReport) -> Section:
    cores = sorted({span[0] for span in report.timeline})
    shown = cores[:MOST_CORES]
    per_ms = report.clock_hz / 1e3
    chart = Chart(9.4, 1.2 + 0.32 * max(2, len(shown)), legend=[(NAMES[name], COLOURS[name]) for name in ENGINES])
    panel = chart.panel()
    spans: dict[tuple[int, str], list[tuple[float, float]]] = {}
    for core, engine, _, _, start, end, _ in report.timeline:
        spans.setdefault((core, engine), []).append((start / per_ms, end / per_ms))
    for lane, name in enumerate(ENGINES):
        for row, core in enumerate(shown):
            bars = _joined(spans.get((core, name), []), report.makespan_cycles / per_ms / 2000)
            panel.span(row - 0.31 + 0.2 * lane, 0.18, bars, COLOURS[name])
    panel.downwards, panel.y.grid = True, False
    panel.y.ticks = [(row, f"core {core}") for row, core in enumerate(shown)]
    panel.y.low, panel.y.high = -0.6, len(shown) - 0.4
    panel.x.low, panel.x.high = 0.0, report.makespan_cycles / per_ms or 1.0
    panel.x.label = "time (ms)"
    more = (
        f" The first {MOST_CORES} of {len(cores)} cores are drawn; trace.json has all."
        if len(cores) > len(shown)
        else ""
    )
    return Section(
        title="What the cores do",
        caption=f"Mapping: {report.mapping_name}, {counted(report.micro_batches, 'micro-batch', 'micro-batches')}, "
        f"{report.cores_used} of {counted(report.cores, 'core')}. Each core has a forward, a backward and a "
        "weight-gradient engine that work side by side; gaps are waiting. "
        f"In {100 * report.bubble_share:.0f} % of the time an engine of a core in use has "
        f"nothing to do.{more} trace.json opens at ui.perfetto.dev.",
        chart=chart,
    )


def cores(report: SimulationReport) -> Section:
    """What lies where, and how busy it is."""
    rows: list[Sequence[str | int | float]] = []
    layers: dict[int, list[str]] = {}
    for p in report.partition:
        layers.setdefault(p.core, []).append(f"{p.layer} [{p.low}–{p.high}]")
    times: dict[tuple[int, str], tuple[float, float]] = {}
    for t in report.engine_times:
        times[t.core, t.engine] = (t.busy_cycles, t.stall_cycles)
    span = report.makespan_cycles or 1
    for core in sorted(layers)[:MOST_CORES]:
        busy = [f"{100 * times[core, name][0] / span:.0f} %" for name in ("fp", "bp", "wg")]
        stall = sum(times[core, name][1] for name in ENGINES) / span
        names = layers[core]
        text = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        rows.append((core, *busy, f"{100 * stall:.1f} %", text))
    network = report.network
    busiest = (
        f" The network carried {size_text(network.bytes)}; its busiest link ({network.worst_link}) was taken "
        f"{100 * network.worst_link_utilisation:.2g} % of the time."
        if network.bytes
        else " Nothing went over the network."
    )
    return Section(
        title="Cores",
        caption="How long each engine works, how long it waits for a shared memory or the off-chip one (stall, in "
        f"percent of one engine's time), and which output channels lie on a core.{busiest}",
        table=Table(columns=("core", "forward", "backward", "gradient", "stall", "channels"), rows=rows),
    )


def uncertainty(found: Sensitivity) -> Section:
    """A tornado: one bar for each constant, from the energy at its low end to that at its high end."""
    nominal = found.nominal_pj or 1.0
    chart = Chart(9.4, 1.2 + 0.42 * max(2, len(found.swings)))
    panel = chart.panel()
    names = [
        f"{s.constant}: {s.low:.3g} to {s.high:.3g}{' ×' if s.constant in ('SRAM', 'network hop') else ''}"
        for s in found.swings
    ]
    for colour, ends in (
        (palette[2], [s.low_pj for s in found.swings]),
        (palette[1], [s.high_pj for s in found.swings]),
    ):
        panel.bars(names, [(colour, [value / nominal - 1 for value in ends])], start=1.0)
    panel.rule(x=1.0)
    panel.margin = (0.04, 0.0)
    panel.x.label = "energy of a training step, relative to the chip file's constants"
    return Section(
        title="How sure is this",
        caption="What published sources say about the same part differs widely. Each bar moves one constant through "
        f"its range and leaves the others. With all at their low ends the step costs {energy_text(found.low_pj)}, with "
        f"all at their high ends {energy_text(found.high_pj)}; the chip file gives {energy_text(nominal)}. The model "
        "itself (what is counted at all) may be wrong beyond that.",
        chart=chart,
    )


def what_if(points: Sequence[Point]) -> Section:
    return Section(
        title="The same step on other chips",
        caption="Each row is this training step on another chip, with the balanced pipeline on all its cores.",
        table=table(points),
    )


def constants(report: SimulationReport, shares: Mapping[str, float]) -> Section:
    """The prices that matter, where they come from, and what share of the energy each one causes."""
    origin = {c.path: c for c in report.constants}
    rows: list[Sequence[str | int | float]] = []
    for path, share in shares.items():
        found = origin.get(path) or origin.get(f"{path}.read_pj")
        if share < 5e-4:
            continue
        value = f"{found.value:.4g} {found.unit}" if found else "—"
        rows.append(
            (path, f"{100 * share:.1f} %", value, found.tier if found else "—", found.source if found else "all")
        )
    return Section(
        title="The constants behind it",
        caption="Share of the energy that would be gone if this price were zero; for a memory the price of a read is "
        "shown. report.json has every constant that was used.",
        table=Table(columns=("constant", "share", "value", "tier", "source"), rows=rows),
    )


def _joined(spans: list[tuple[float, float]], gap: float) -> list[tuple[float, float]]:
    """(start, length) of the spans, those closer than `gap` as one: a page holds thousands of marks, not millions."""
    joined: list[list[float]] = []
    for start, end in sorted(spans):
        if joined and start - joined[-1][1] < gap:
            joined[-1][1] = max(joined[-1][1], end)
        else:
            joined.append([start, end])
    return [(start, max(end - start, gap)) for start, end in joined]


def searched(tried: Sequence[tuple[Placing, float, float]], best: Placing, objective: str) -> Section:
    """What a search over mappings found."""
    rows: list[Sequence[str | int | float]] = [
        (mapping.name, f"{time:.4g}", f"{energy / 1e9:.4g}", "yes" if mapping == best else "")
        for mapping, time, energy in tried
    ]
    return Section(
        title="Ways to lay it on the cores",
        caption=f"Every mapping that was tried. The report shows the one with the least {objective}.",
        table=Table(columns=("mapping", "time ms", "energy mJ", "chosen"), rows=rows),
    )


def stored_weights(workload: Workload, chip: Chip) -> Section:
    """How the weights of each layer are stored, and what that saves."""
    rows: list[Sequence[str | int | float]] = []
    before, after = 0.0, 0.0
    for layer in workload.layers:
        if layer.kind != "gemm_weight":
            continue
        form, bits = stored_form(layer, chip)
        weights = layer.parameters
        before, after = before + VALUE_BITS * weights, after + bits * weights
        density = layer.density_weight
        zeros = "not measured" if density is None else f"{100 * (1 - density.mean):.1f} %"
        rows.append((layer.path, weights, zeros, form.replace("_", " "), f"{bits:.2f}", f"{bits * weights / 8e3:.4g}"))
    return Section(
        title="Stored weights",
        caption="How the chip stores the 16-bit weights that FP and BP read, index included: "
        f"{after / 8e3:,.4g} kB instead of {before / 8e3:,.4g} kB. Layers without enough zeros stay dense. Gradients "
        "and the optimizer's 32-bit copies are not compressed.",
        table=Table(columns=("layer", "weights", "zeros", "form", "bits a weight", "kB"), rows=rows),
    )


def attention_flows(workload: Workload, chip: Chip, objective: Objective) -> Section | None:
    """What a search over data flows chose for each attention product on one core; None without such products."""
    rows: list[Sequence[str | int | float]] = []
    for layer in workload.layers:
        if layer.kind != "gemm_activation":
            continue
        work = Work(layer=layer, chip=chip, part=Part(), steps=layer.image_steps)
        loops = work.loops(layer.positions)
        products = products_of(layer, loops, work.operand, layer.macs_forward, layer.macs_backward)
        for c in choices(products, layer, chip, objective):
            sizes = f"{c.product.m} × {c.product.k} × {c.product.n}"
            kept = {"ws": "right operand", "is": "left operand", "os": "result"}[c.flow]
            energy = f"{c.energy.total_pj / 1e6:.4g}"
            rows.append((layer.path, PRODUCTS[c.product.name], sizes, c.engine.upper(), kept, energy, c.cycles))
    if not rows:
        return None
    return Section(
        title="Data flows of attention",
        caption=f"The engine of each product of attention and what stays in its array, for the least {objective}; "
        "energy and cycles of a whole step on one core. Arrays that can hold any operand are an assumption: those of "
        "the published chip have one flow each.",
        table=Table(columns=("layer", "product", "m × k × n", "engine", "stays", "µJ", "cycles"), rows=rows),
    )


PRODUCTS = {"C": "forward", "dA": "gradient of the first", "dB": "gradient of the second"}
