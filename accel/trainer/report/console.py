"""A simulation in a few lines of text: engine by engine, the figures that matter, and what explains odd totals."""

from collections.abc import Iterator

from spikeloom.accel.common.units import amount_text, counted, duration_text, energy_text, size_text
from spikeloom.accel.trainer.schedule.result import ENGINES, SimulationReport

OUTSIDE = ("DRAM", "leakage", "network on chip")
ODD_FRACTION = 0.5  # of the energy that is spent there, from which on the parts are named


def headline(report: SimulationReport) -> dict[str, str]:
    """The figures that matter, as tiles of a report."""
    images = report.batch_size
    return {
        "energy of one training step": energy_text(report.energy_per_iteration_pj),
        "per training sample": energy_text(report.energy_per_iteration_pj / images),
        f"time on {counted(report.cores, 'core')}": duration_text(report.time_per_iteration_ms),
        "efficiency (true MACs)": f"{report.tflops_per_w_true:.3g} TFLOPS/W",
    }


def energy_shares(report: SimulationReport) -> dict[str, float]:
    """Where the energy of the step goes, as fractions of the total: computing, SRAM, network, DRAM, leakage."""
    energy = report.total.energy
    parts = {
        "computing": energy.compute_pj, "network on chip": energy.noc_pj, "DRAM": energy.dram_pj,
        "leakage": energy.leakage_pj,
    }  # fmt: skip
    parts["SRAM"] = max(0.0, energy.total_pj - sum(parts.values()))
    return {name: pj / energy.total_pj for name, pj in parts.items()} if energy.total_pj else {}


def explanation(report: SimulationReport) -> str:
    """One line where most of the energy is spent outside the engines and their memories; empty otherwise."""
    shares = energy_shares(report)
    if sum(shares.get(name, 0.0) for name in OUTSIDE) < ODD_FRACTION:
        return ""
    largest = [item for item in sorted(shares.items(), key=lambda item: -item[1])[:3] if item[1] >= 0.005]
    return "where the energy goes: " + ", ".join(f"{name} {100 * share:.0f} %" for name, share in largest)


def lines(report: SimulationReport) -> Iterator[str]:
    """The text; the layers are in report.json and report.html."""
    yield (
        f"{report.model_name} on {report.chip_name}: batch {report.batch_size}, "
        f"{counted(report.time_steps, 'step')}, {report.mapping_name} on {report.cores_used} of "
        f"{counted(report.cores, 'core')}"
    )
    yield f"  {'engine':10s} {'energy':>10s} {'cycles':>14s} {'busy':>6s} {'MACs':>10s} {'DRAM':>10s}"
    for name, cost in zip(ENGINES, report.engines, strict=True):
        yield (
            f"  {name:10s} {energy_text(cost.energy.total_pj):>10s} {cost.cycles:14,d} "
            f"{100 * report.busy_share[name]:5.1f}% {amount_text(cost.true_macs):>10s} "
            f"{size_text(cost.dram_bytes):>10s}"
        )
    for label, value in headline(report).items():
        yield f"  {label}: {value}"
    if told := explanation(report):
        yield f"  {told}"
    for warning in report.warnings:
        yield f"  note: {warning}"


def print_table(report: SimulationReport) -> None:
    """Print `lines`."""
    for line in lines(report):
        print(line)
