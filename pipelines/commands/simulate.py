"""`spikeloom simulate`: what one training step of a workload costs on a chip; report.json, report.html, trace.json and
a table. `spikeloom simulate conformance` compares the model with published figures instead."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spikeloom.accel.common.files import check_replaceable, whole, write_json
from spikeloom.accel.common.report import Section, render
from spikeloom.accel.common.units import counted, duration_text, energy_text, size_text
from spikeloom.accel.trainer.baseline.gpu import Gpu
from spikeloom.accel.trainer.baseline.nsight import Counters, read_counters
from spikeloom.accel.trainer.chip.chip import Chip
from spikeloom.accel.trainer.chip.override import ChipConfig, with_counted_pulses
from spikeloom.accel.trainer.conformance import NOT_COMPARABLE, conformance
from spikeloom.accel.trainer.cost.dataflow import OBJECTIVES
from spikeloom.accel.trainer.cost.sensitivity import constant_shares, of_run
from spikeloom.accel.trainer.networks import PUBLISHED
from spikeloom.accel.trainer.report import chip as figures_chip
from spikeloom.accel.trainer.report import needed
from spikeloom.accel.trainer.report.baseline import NAMES, baseline_sections
from spikeloom.accel.trainer.report.console import headline, print_table
from spikeloom.accel.trainer.report.simulation import sections
from spikeloom.accel.trainer.schedule.pareto import Point
from spikeloom.accel.trainer.schedule.partition import Mapping as Placing
from spikeloom.accel.trainer.schedule.result import SimulationReport
from spikeloom.accel.trainer.schedule.search import MappingConfig, best, checked, run_mapping
from spikeloom.accel.trainer.schedule.simulator import Simulation, simulate
from spikeloom.accel.trainer.schedule.trace import write_trace
from spikeloom.accel.trainer.workload import Workload
from spikeloom.pipelines.config.chips import load_chip, load_gpu, names
from spikeloom.pipelines.config.simulate import SimulateConfig
from spikeloom.pipelines.export.sources import chosen, default_folder, workload_of
from spikeloom.pipelines.reports.sweeps import job_folder, leave_point
from spikeloom.pipelines.training.runtime import quiet

__all__ = ["headline", "load_chip", "print_table", "run", "write"]

log = logging.getLogger("spikeloom")


def run(config: SimulateConfig) -> float | None:
    """The objective of `mapping.objective` for a sweep that searches: ms, mJ or ms mJ; None for a conformance table."""
    quiet()
    if config.what == "conformance":
        print_conformance(config)
        return None
    if config.what not in ("step", "needed"):
        raise ValueError(f"what={config.what}: use step, conformance or needed")
    workload, folder = read_workload(config)
    if config.what == "needed":
        print_needed(workload, config, folder.with_name("needed") if config.workload else folder)
        return None
    chip = with_counted_pulses(load_chip(config.chip), workload.source)
    choice = ChipConfig(name=config.chip) if isinstance(config.chip, str) else config.chip
    gpu = gpu_of(config)
    placing, tried = run_mapping(workload, chip, config.mapping)
    simulation = Simulation(workload, chip, placing)
    report = simulation.report()
    balanced = report if placing == Placing() else None
    beside, figures = ([], {}) if gpu is None else baseline_sections(workload, chip, *gpu, report=balanced)
    out = Path(config.out) if config.out else folder
    label = " ".join([choice.label, *([] if placing == Placing() else [placing.name])])
    job = job_folder(out, label)
    folder = job or out
    check_replaceable(folder, ("report.json", "trace.json", "baseline.json", "report.html", "point.json"))
    log.info(
        "simulate: %s, batch %d, %s, %s, on %s with %s -> %s", workload.model_name, workload.batch_size,
        counted(workload.time_steps, "step"), counted(len(workload.layers), "layer"), chip.name,
        counted(chip.cores.count, "core"), folder,
    )  # fmt: skip
    more = [] if chip.mapping.weights == "dense" else [figures_chip.stored_weights(workload, chip)]
    if placing.flows is not None and (flows := figures_chip.attention_flows(workload, chip, placing.flows)):
        more.append(flows)
    if config.uncertainty:
        more.append(figures_chip.uncertainty(of_run(simulation)))
    if config.what_if:
        more.append(figures_chip.what_if(other_chips(workload, report, choice.label)))
    hint = "" if tried or not config.what_if else better_mapping(workload, chip, report, config.mapping)
    if tried:
        more.append(figures_chip.searched(tried, placing, config.mapping.objective))
    if config.uncertainty:
        more.append(figures_chip.constants(report, constant_shares(simulation)))
    if hint:
        more.append(Section("A faster mapping", "What a search over mappings finds for this step.", text=hint))
    write(report, folder, [*more, *beside], figures)
    if job is not None:
        leave_point(job, report, label)
        return objective(report, config.mapping.objective)
    print_table(report)
    if hint:
        print(f"  note: {hint}")
    compared = figures.get("networks", ())
    for row in compared:
        if row["model_name"] == compared[0]["model_name"]:  # the published networks beside it are in the report
            print(traffic_line(row))
    log.info("-> %s", folder / "report.html")
    return objective(report, config.mapping.objective)


WORTH_SAYING = 1.1  # times the objective of the best mapping, from which on the default is not good enough


def better_mapping(workload: Workload, chip: Chip, report: SimulationReport, config: MappingConfig) -> str:
    """A line where a search over mappings beats the chosen one by more than 10 %; empty otherwise."""
    if chip.cores.count == 1:
        return ""
    mapping, time_ms, energy_pj = best(workload, chip, checked(config.objective))
    found = {"time": time_ms, "energy": energy_pj / 1e9, "energy-delay": time_ms * energy_pj / 1e9}[config.objective]
    ratio = objective(report, config.objective) / found
    if ratio < WORTH_SAYING:
        return ""
    return (
        f"mapping.style=search finds {mapping.name}: {duration_text(time_ms)} and {energy_text(energy_pj)}, "
        f"{ratio:.2f} times better in {config.objective} than {report.mapping_name}"
    )


def objective(report: SimulationReport, name: str) -> float:
    """What a search makes small."""
    time_ms, energy_mj = report.time_per_iteration_ms, report.energy_per_iteration_pj / 1e9
    found = {"time": time_ms, "energy": energy_mj, "energy-delay": time_ms * energy_mj}.get(name)
    if found is None:
        raise ValueError(f"mapping.objective got {name!r}; use {', '.join(OBJECTIVES)}")
    return found


def read_workload(config: SimulateConfig) -> tuple[Workload, Path]:
    """The exported or the published network to simulate, and the folder of its results."""
    kind = chosen(config)
    if sum(given is not None for given in (config.workload, config.network, kind)) != 1:
        raise ValueError(
            "one workload is needed; add workload=RUN/export/workload.json, model=FILE.py:NAME example=FILE.npz, "
            f"program=FILE.pt2, onnx=FILE, nir=FILE, or network=NAME with one of {', '.join(PUBLISHED)} "
            "(`spikeloom simulate --help`)"
        )
    if kind is not None:
        return workload_of(kind, config), default_folder(kind, config) / "sim"
    if config.workload is not None:
        path = Path(config.workload)
        if key := {".onnx": "onnx", ".nir": "nir", ".pt2": "program"}.get(path.suffix):
            raise ValueError(f"workload={path} is not a workload.json; do {key}={path}")
        return Workload.from_json(path), path.parent.parent / "sim"
    if config.network not in PUBLISHED:
        raise ValueError(f"network={config.network} is unknown; use one of {', '.join(PUBLISHED)}")
    return PUBLISHED[config.network](config.time_steps, config.batch_size), Path("runs/simulate") / config.network


def other_chips(workload: Workload, report: SimulationReport, label: str) -> list[Point]:
    """This simulation, and the same step on every preset with the balanced mapping."""
    points = [Point.of(report, f"{label} (this)")]
    for name in names("chip"):
        chip = with_counted_pulses(load_chip(name), workload.source)
        if name != label and not (chip.fleet and chip.fleet.devices > 1):  # a fleet is several of a chip listed already
            points.append(Point.of(simulate(workload, chip), name))
    return points


def print_needed(workload: Workload, config: SimulateConfig, folder: Path) -> None:
    """The step on chips that differ from the given one in one thing each, as a table and a page."""
    base = ChipConfig(name=config.chip) if isinstance(config.chip, str) else config.chip
    page = Path(config.out) / "needed.html" if config.out else folder / "needed.html"
    chip = load_chip(base)
    rows = needed.explore(workload, base, load_chip)
    for line in needed.lines(rows):
        print(line)
    title = f"What {workload.model_name} would need on {base.label}"
    samples, steps = counted(workload.batch_size, "sample"), counted(workload.time_steps, "time step")
    lead = f"One training step of {samples} and {steps}."
    render(title, lead, [needed.section(rows, workload, chip)], page)
    log.info("-> %s", page)


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
    print(f"for reference: {NOT_COMPARABLE}")
    failed = sum(not row.passed for row in rows)
    print(f"{len(rows) - failed} of {len(rows)} comparisons hold, {counted(len(files), 'file')} of layer energies")
    if config.out:
        write_json(Path(config.out), [
            {"name": r.name, "here": r.measured, "published": r.expected, "unit": r.unit, "tolerance": r.tolerance,
             "relative_error": r.relative_error, "passed": r.passed} for r in rows
        ])  # fmt: skip
    if failed:
        raise ValueError(f"{counted(failed, 'comparison')} failed; the expectations are those of chip=neuromc")


def gpu_of(config: SimulateConfig) -> tuple[Gpu, Counters | None] | None:
    """The GPU that the step is compared with, and what a profiler measured on it. None with gpu=null."""
    if config.gpu is None:
        if config.counters is not None:
            raise ValueError(f"counters={config.counters} has no model to stand beside; leave gpu=null out")
        return None
    return load_gpu(config.gpu), None if config.counters is None else read_counters(config.counters)


def traffic_line(row: Mapping[str, Any]) -> str:
    """One network of baseline.json: bytes off chip, here and on the GPU."""
    gpu, less = row["gpu"], round(100 * row["dram_reduction"], 1)
    change = f"{abs(less):.1f} % {'less' if less > 0 else 'more'}" if less else "as much"
    return (
        f"  off-chip traffic of {row['model_name']}, batch {row['batch_size']}, {counted(row['time_steps'], 'step')}: "
        f"{size_text(row['chip_dram_bytes'])}, on {gpu['gpu_name']} ({NAMES[gpu['precision']]}) "
        f"{size_text(gpu['dram_bytes_per_iteration'])}: {change}"
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
