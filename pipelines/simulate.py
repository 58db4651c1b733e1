"""`spikeloom simulate`: what one training step of a workload costs on a chip; report.json, report.html, trace.json and
a table. `spikeloom simulate conformance` compares the model with published figures instead."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accel.files import check_replaceable, whole, write_json
from accel.report import Section, render
from accel.trainer import figures_chip
from accel.trainer.chip import Chip
from accel.trainer.conformance import conformance
from accel.trainer.explore import Point
from accel.trainer.figures import sections
from accel.trainer.figures_baseline import NAMES, baseline_sections
from accel.trainer.networks import PUBLISHED
from accel.trainer.nsight import read_counters
from accel.trainer.partition import Mapping as Placing
from accel.trainer.result import ENGINES, SimulationReport
from accel.trainer.search import OBJECTIVES, run_mapping
from accel.trainer.sensitivity import constant_shares, sensitivity
from accel.trainer.simulator import Simulation, simulate
from accel.trainer.trace import write_trace
from accel.trainer.variant import ChipConfig
from accel.trainer.workload import Workload
from pipelines.chips import load_chip, load_gpu, names
from pipelines.process import set_up
from pipelines.schema import SimulateConfig
from pipelines.sweeps import job_folder, leave_point

__all__ = ["headline", "load_chip", "print_table", "run", "write"]

log = logging.getLogger("spikeloom")


def run(config: SimulateConfig) -> float | None:
    """The objective of `mapping.objective` for a sweep that searches: ms, mJ or ms mJ; None for a conformance table."""
    set_up()
    if config.what == "conformance":
        print_conformance(config)
        return None
    if config.what != "step":
        raise ValueError(f"what={config.what}: use step or conformance")
    (workload, folder), chip = read_workload(config), load_chip(config.chip)
    choice = ChipConfig(name=config.chip) if isinstance(config.chip, str) else config.chip
    beside, figures = beside_gpu(workload, chip, config)
    placing, tried = run_mapping(workload, chip, config.mapping)
    simulation = Simulation(workload, chip, placing)
    report = simulation.report()
    out = Path(config.out) if config.out else folder
    label = " ".join([choice.label, *([] if placing == Placing() else [placing.name])])
    job = job_folder(out, label)
    folder = job or out
    check_replaceable(folder, ("report.json", "trace.json", "baseline.json", "report.html", "point.json"))
    more = []
    if config.uncertainty:
        more.append(figures_chip.uncertainty(sensitivity(workload, chip, placing=placing)))
    if config.what_if:
        more.append(figures_chip.what_if(other_chips(workload, report, choice.label)))
    if tried:
        more.append(figures_chip.searched(tried, placing, config.mapping.objective))
    if config.uncertainty:
        more.append(figures_chip.constants(report, constant_shares(simulation)))
    write(report, folder, [*more, *beside], figures)
    if job is not None:
        leave_point(job, report, label)
        return objective(report, config.mapping.objective)
    print_table(report)
    for row in figures.get("networks", ()):
        print(traffic_line(row))
    log.info("-> %s", folder / "report.html")
    return objective(report, config.mapping.objective)


def objective(report: SimulationReport, name: str) -> float:
    """What a search makes small."""
    time_ms, energy_mj = report.time_per_iteration_ms, report.energy_per_iteration_pj / 1e9
    found = {"time": time_ms, "energy": energy_mj, "energy-delay": time_ms * energy_mj}.get(name)
    if found is None:
        raise ValueError(f"mapping.objective got {name!r}; use {', '.join(OBJECTIVES)}")
    return found


def read_workload(config: SimulateConfig) -> tuple[Workload, Path]:
    """The exported or the published network to simulate, and the folder of its results."""
    if (config.workload is None) == (config.network is None):
        raise ValueError(
            "one workload is needed; add workload=RUN/export/workload.json, or network=NAME with one of "
            f"{', '.join(PUBLISHED)} (`spikeloom simulate --help`)"
        )
    if config.workload is not None:
        path = Path(config.workload)
        return Workload.from_json(path), path.parent.parent / "sim"
    if config.network not in PUBLISHED:
        raise ValueError(f"network={config.network} is unknown; use one of {', '.join(PUBLISHED)}")
    return PUBLISHED[config.network](config.time_steps, config.batch_size), Path("runs/simulate") / config.network


def other_chips(workload: Workload, report: SimulationReport, label: str) -> list[Point]:
    """This simulation, and the same step on every preset with the balanced mapping."""
    points = [Point.of(report, f"{label} (this)")]
    for name in names("chip"):
        chip = load_chip(name)
        if name != label and not (chip.fleet and chip.fleet.devices > 1):  # a fleet is several of a chip listed already
            points.append(Point.of(simulate(workload, chip), name))
    return points


def print_conformance(config: SimulateConfig) -> None:
    """Every comparison with published figures; raises ValueError when one fails."""
    root = Path(config.oracle or Path(os.environ.get("SPIKELOOM_DATA", "data")) / "oracle")
    files = sorted(root.rglob("*.csv")) if root.is_dir() else []
    if config.oracle and not files:
        raise ValueError(f"oracle={config.oracle} has no csv file; name a folder of layer energies")
    rows = conformance(files, load_chip(config.chip))
    width = max(len(row.name) for row in rows)
    print(f"{'':{width}s} {'here':>20s} {'published':>20s} {'unit':9s} {'error':>9s}")
    for row in rows:
        verdict = "shown" if row.tolerance is None else "pass" if row.passed else "FAIL"
        print(
            f"{row.name:{width}s} {row.measured:20,.6g} {row.expected:20,.6g} {row.unit:9s} "
            f"{row.relative_error:9.2e} {verdict}"
        )
    if not files:
        print(f"layer energies: skipped, {root} has no csv file; set SPIKELOOM_DATA or oracle=FOLDER")
    failed = sum(not row.passed for row in rows)
    print(f"{len(rows) - failed} of {len(rows)} comparisons hold, {len(files)} file(s) of layer energies")
    if config.out:
        write_json(Path(config.out), [
            {"name": r.name, "here": r.measured, "published": r.expected, "unit": r.unit, "tolerance": r.tolerance,
             "relative_error": r.relative_error, "passed": r.passed} for r in rows
        ])  # fmt: skip
    if failed:
        raise ValueError(f"{failed} comparison(s) failed; the expectations are those of chip=neuromc")


def beside_gpu(workload: Workload, chip: Chip, config: SimulateConfig) -> tuple[list[Section], dict[str, Any]]:
    """The same training step on a GPU: sections of the report, and baseline.json. Nothing with gpu=null."""
    if config.gpu is None:
        if config.counters is not None:
            raise ValueError(f"counters={config.counters} has no model to stand beside; leave gpu=null out")
        return [], {}
    measured = None if config.counters is None else read_counters(config.counters)
    return baseline_sections(workload, chip, load_gpu(config.gpu), measured)


def traffic_line(row: Mapping[str, Any]) -> str:
    """One network of baseline.json: bytes off chip, here and on the GPU."""
    gpu = row["gpu"]
    return (
        f"  off-chip traffic of {row['model_name']}, batch {row['batch_size']}, {row['time_steps']} steps: "
        f"{row['chip_dram_bytes'] / 1e9:.2f} GB, on {gpu['gpu_name']} ({NAMES[gpu['precision']]}) "
        f"{gpu['dram_bytes_per_iteration'] / 1e9:.2f} GB: {100 * row['dram_reduction']:.1f} % less"
    )


def write(
    report: SimulationReport, folder: Path, beside: Sequence[Section] = (), figures: Mapping[str, object] | None = None
) -> None:
    """The folder of a simulation; `beside` and `figures` are what else there is to say."""
    with whole(folder) as partial:
        partial.mkdir(parents=True)
        report.to_json(partial / "report.json")
        write_trace(report, partial / "trace.json")
        if figures:
            write_json(partial / "baseline.json", figures)
        render(
            f"One training step of {report.model_name} on {report.chip_name}",
            "Forward pass, error back-propagation, weight gradients and weight update of one batch, simulated layer by "
            f"layer from shapes{' and measured activity' if report.densities else ''}. Energies are the chip model's, "
            "not a measurement of silicon.",
            [*sections(report), *beside], partial / "report.html", headline(report),
        )  # fmt: skip


def headline(report: SimulationReport) -> dict[str, str]:
    """The figures that matter, as tiles of a report."""
    images = report.batch_size
    return {
        "energy of one training step": energy_text(report.energy_per_iteration_pj),
        "per training sample": energy_text(report.energy_per_iteration_pj / images),
        f"time on {report.cores} core(s)": f"{report.time_per_iteration_ms:.3g} ms",
        "efficiency (true MACs)": f"{report.tflops_per_w_true:.2f} TFLOPS/W",
    }


def energy_text(pj: float) -> str:
    """Three digits in the unit that suits."""
    unit, scale = next(((u, s) for u, s in (("mJ", 1e9), ("µJ", 1e6), ("nJ", 1e3)) if pj >= s), ("pJ", 1.0))
    return f"{pj / scale:.3g} {unit}"


def print_table(report: SimulationReport) -> None:
    """Engine by engine on the console; the layers are in report.json and report.html."""
    print(
        f"{report.model_name} on {report.chip_name}: batch {report.batch_size}, {report.time_steps} steps, "
        f"{report.mapping_name} on {report.cores_used} of {report.cores} core(s)"
    )
    print(f"  {'engine':10s} {'energy µJ':>12s} {'cycles':>14s} {'busy':>6s} {'M MACs':>11s} {'DRAM kB':>10s}")
    for name, cost in zip(ENGINES, report.engines, strict=True):
        print(
            f"  {name:10s} {cost.energy.total_pj / 1e6:12.2f} {cost.cycles:14,d} {100 * report.busy_share[name]:5.1f}% "
            f"{cost.true_macs / 1e6:11.1f} {cost.dram_bytes / 1e3:10.0f}"
        )
    for label, value in headline(report).items():
        print(f"  {label}: {value}")
    for warning in report.warnings:
        print(f"  note: {warning}")
