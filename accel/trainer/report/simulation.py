"""A simulation as sections of a report: where the energy goes, and what one training step costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from spikeloom.accel.common.report import Section, Table, palette
from spikeloom.accel.common.svg import Chart
from spikeloom.accel.common.units import counted, duration_text, energy_text, size_text
from spikeloom.accel.trainer.report import chip as figures_chip
from spikeloom.accel.trainer.schedule.result import ENGINES, LayerCost, SimulationReport

LABELS = {"fp": "forward", "bp": "backward", "wg": "weight gradient", "optimizer": "weight update"}
COMPONENTS = {
    "compute_pj": "arithmetic",
    "register_pj": "registers",
    "sram_pj": "on-chip memory",
    "dram_pj": "off-chip memory",
    "noc_pj": "network on chip",
    "leakage_pj": "leakage",
}
MAX_BARS = 24
SMALL_SHARE = 0.005  # layers below this share of the energy are drawn as one bar


@dataclass(frozen=True, kw_only=True)
class _Bar:
    label: str
    energies_uj: tuple[float, ...]


def sections(report: SimulationReport) -> list[Section]:
    """The simulation for a reader who is no chip designer: energy by layer, by cause and by what is moved, cost of a
    training step, roofline, what the cores do, and what to keep in mind."""
    return [
        _by_layer(report), _by_component(report), _training_step(report), figures_chip.by_tensor(report),
        figures_chip.roofline(report), figures_chip.timeline(report), figures_chip.cores(report), _caveats(report),
    ]  # fmt: skip


def _by_layer(report: SimulationReport) -> Section:
    layers = [layer for layer in report.layers if layer.phases]
    total_pj = report.energy_per_iteration_pj
    ranked = sorted(layers, key=lambda layer: layer.total.energy.total_pj, reverse=True)
    large = {
        layer.path for layer in ranked[:MAX_BARS] if layer.total.energy.total_pj >= SMALL_SHARE * max(total_pj, 1e-300)
    }
    bars = [_layer_bar(_shortened(layer.path), [layer]) for layer in layers if layer.path in large]
    small = [layer for layer in layers if layer.path not in large]
    if small:
        bars.append(_layer_bar(f"{len(small)} small layers", small))
    chart = _stacked_bars(bars, [LABELS[name] for name in ENGINES])
    return Section(
        title="Energy by layer",
        caption="Energy of one training step on the simulated chip, for each layer from input to output. Colours show "
        "whether it is spent on the forward pass, on sending the error back, on the gradient of the weights or on "
        "changing the weights.",
        chart=chart,
    )


def _by_component(report: SimulationReport) -> Section:
    names = [name for name in COMPONENTS if getattr(report.total.energy, name) > 0]
    bars = [
        _Bar(label=LABELS[phase.engine], energies_uj=tuple(getattr(phase.energy, name) / 1e6 for name in names))
        for phase in report.engines
    ]
    chart = _stacked_bars(bars, [COMPONENTS[name] for name in names])
    return Section(
        title="Energy by cause",
        caption="The same energy, by the phase of training and by what consumes it. Moving numbers between memories "
        "and registers usually costs as much as calculating with them, which is why a design that keeps data close "
        "to the arithmetic saves energy.",
        chart=chart,
    )


def _training_step(report: SimulationReport) -> Section:
    images = report.batch_size
    whole: list[tuple[str, Callable[[float], str], float]] = [
        ("energy", _energy, report.energy_per_iteration_pj),
        *((f"… {LABELS[phase.engine]}", _energy, phase.energy.total_pj) for phase in report.engines),
        ("time", _time, report.time_per_iteration_ms),
        ("clock cycles", _count, report.cycles_per_iteration),
        ("multiply-accumulates, as executed", _count, report.total.looped_macs),
        ("multiply-accumulates, as needed", _count, report.total.true_macs),
        ("off-chip memory traffic", _size, report.dram_bytes_per_iteration),
        ("… if every on-chip memory were large enough", _size, report.compulsory_dram_bytes_per_iteration),
        ("traffic between cores", _size, report.network.bytes),
    ]
    rows: list[Sequence[str | int | float]] = [(name, form(value), form(value / images)) for name, form, value in whole]
    rows.append(("TFLOPS/W, operations as executed", f"{report.tflops_per_w_looped:.3g}", "—"))
    rows.append(("TFLOPS/W, operations as needed", f"{report.tflops_per_w_true:.3g}", "—"))
    for name, share in report.utilisation.items():
        rows.append((f"array slots used while busy, {LABELS[name]}", f"{100 * share:.1f} %", "—"))
    return Section(
        title="What one training step costs",
        caption=f"One step trains on {counted(images, 'sample')} with {counted(report.time_steps, 'time step')} each, "
        f"on {counted(report.cores, 'core')} at {report.clock_hz / 1e6:g} MHz. “As executed” counts every slot of "
        "the array, including the zeros that a strided layer inserts; “as needed” counts only what the mathematics "
        "asks for.",
        table=Table(columns=("quantity", "per training step", "per sample"), rows=rows),
    )


def _caveats(report: SimulationReport) -> Section:
    dram = "is included in the energy" if report.include_dram_energy else "is left out of the energy, its bytes are not"
    tiers = {tier: sum(constant.tier == tier for constant in report.constants) for tier in ("published", "assumed")}
    clock = next((constant.tier for constant in report.constants if constant.path == "clock_hz"), "given")
    lines = [
        f"These figures come from a model, not from a measured chip. The preset “{report.chip_name}” uses "
        f"{len(report.constants)} constants here: {tiers['published']} published by the authors of the chip, "
        f"{tiers['assumed']} assumed, the others derived.",
        f"Off-chip memory {dram}. Each tensor moves once for each phase, and again where it does not fit in the memory "
        "of its core.",
        f"The clock of {report.clock_hz / 1e6:g} MHz is {clock}; times scale with it, energies do not.",
        "All arithmetic slots are charged, zero or not, unless the chip description turns zero-gating or zero-skipping "
        "on. Gating saves energy; skipping saves cycles too, and waits for the fullest lane.",
        *(f"{warning[0].upper()}{warning[1:]}." for warning in report.warnings),
    ]
    if report.unsupported:
        missing = ", ".join(f"{entry.op} at {entry.path}" for entry in report.unsupported)
        lines.append(f"Not in any figure, since the simulator has no price for them: {missing}.")
    return Section(title="How to read these figures", caption="", text="\n\n".join(lines))


def _layer_bar(label: str, layers: Sequence[LayerCost]) -> _Bar:
    energies = (sum(layer.engine(name).energy.total_pj for layer in layers) / 1e6 for name in ENGINES)
    return _Bar(label=label, energies_uj=tuple(energies))


def _stacked_bars(bars: Sequence[_Bar], parts: Sequence[str]) -> Chart:
    """Horizontal bars from top to bottom, one colour for each part; µJ or mJ by the size of the longest bar."""
    longest = max((sum(bar.energies_uj) for bar in bars), default=0.0)
    scale, unit = (1e-3, "mJ") if longest >= 1e3 else (1.0, "µJ")
    colours = [palette[index % len(palette)] for index in range(len(parts))]
    chart = Chart(9.4, 1.3 + 0.3 * max(len(bars), 2), legend=list(zip(parts, colours, strict=True)))
    panel = chart.panel()
    panel.x.label = f"energy per training step ({unit})"
    panel.bars(
        [bar.label for bar in bars],
        [(colour, [scale * bar.energies_uj[index] for bar in bars]) for index, colour in enumerate(colours)],
    )
    return chart


def _shortened(path: str, longest: int = 32) -> str:
    """The end of a long layer path, which is the part that tells layers apart."""
    return path if len(path) <= longest else f"…{path[1 - longest :]}"


def _count(number: float) -> str:
    return f"{number:,.0f}"


# One digit more than in headlines.
_energy, _time, _size = (partial(form, digits=4) for form in (energy_text, duration_text, size_text))
