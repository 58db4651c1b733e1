"""`spikeloom simulate`: what one training step of a workload costs on a chip; report.json, report.html and a table."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

from accel.files import whole, write_json
from accel.report import Section, render
from accel.trainer.chip import Chip
from accel.trainer.figures import sections
from accel.trainer.figures_baseline import baseline_sections
from accel.trainer.gpu import Gpu
from accel.trainer.nsight import read_counters
from accel.trainer.result import ENGINES, SimulationReport
from accel.trainer.simulator import simulate
from accel.trainer.workload import Workload
from pipelines.process import set_up
from pipelines.schema import SimulateConfig

log = logging.getLogger("spikeloom")


def run(config: SimulateConfig) -> None:
    set_up()
    path = Path(config.workload)
    workload, chip = Workload.from_json(path), load_chip(config.chip)
    beside, figures = beside_gpu(workload, chip, config)
    report = simulate(workload, chip)
    folder = Path(config.out) if config.out else path.parent.parent / "sim"
    write(report, folder, beside, figures)
    print_table(report)
    log.info("-> %s", folder / "report.html")


def load_chip(name: str) -> Chip:
    """A preset by name, or a YAML file by path."""
    with _described("chip", name) as path:
        return Chip.from_yaml(path)


def load_gpu(name: str) -> Gpu:
    """A preset by name, or a YAML file by path."""
    with _described("gpu", name) as path:
        return Gpu.from_yaml(path)


@contextmanager
def _described(key: str, name: str) -> Iterator[Path]:
    presets = resources.files("conf") / f"{key}s"
    preset = presets / f"{name}.yaml"
    if preset.is_file():
        with resources.as_file(preset) as path:
            yield path
        return
    if not Path(name).is_file():
        known = sorted(f.name.removesuffix(".yaml") for f in presets.iterdir() if f.name.endswith(".yaml"))
        raise ValueError(f"{key}={name} is neither a preset ({', '.join(known)}) nor a file; give one of these")
    yield Path(name)


def beside_gpu(workload: Workload, chip: Chip, config: SimulateConfig) -> tuple[list[Section], dict[str, object]]:
    """The same training step on a GPU: sections of the report, and baseline.json. Nothing with gpu=null."""
    if config.gpu is None:
        if config.counters is not None:
            raise ValueError(f"counters={config.counters} has no model to stand beside; leave gpu=null out")
        return [], {}
    measured = None if config.counters is None else read_counters(config.counters)
    return baseline_sections(workload, chip, load_gpu(config.gpu), measured)


def write(
    report: SimulationReport, folder: Path, beside: Sequence[Section] = (), figures: Mapping[str, object] | None = None
) -> None:
    """The folder of a simulation; `beside` and `figures` are what `beside_gpu` gives."""
    with whole(folder) as partial:
        partial.mkdir(parents=True)
        report.to_json(partial / "report.json")
        if figures:
            write_json(partial / "baseline.json", figures)
        render(
            f"One training step of {report.model_name} on {report.chip_name}",
            "Forward pass, error back-propagation, weight gradients and weight update of one batch, simulated layer by "
            "layer from shapes and measured activity. Energies are the chip model's, not a measurement of silicon.",
            [*sections(report), *beside], partial / "report.html", headline(report),
        )  # fmt: skip


def headline(report: SimulationReport) -> dict[str, str]:
    """The figures that matter, as tiles of a report."""
    images = report.batch_size
    return {
        "energy of one training step": f"{report.energy_per_iteration_pj / 1e9:.3g} mJ",
        "per training clip": f"{report.energy_per_iteration_pj / images / 1e6:.3g} µJ",
        "time on one core": f"{report.time_per_iteration_ms:.3g} ms",
        "efficiency (true MACs)": f"{report.tflops_per_w_true:.2f} TFLOPS/W",
    }


def print_table(report: SimulationReport) -> None:
    """Engine by engine on the console; the layers are in report.json and report.html."""
    print(f"{report.model_name} on {report.chip_name}: batch {report.batch_size}, {report.time_steps} steps, one core")
    print(f"  {'engine':10s} {'energy µJ':>12s} {'cycles':>12s} {'M MACs':>9s} {'DRAM kB':>9s}")
    for name, cost in zip(ENGINES, report.engines, strict=True):
        dram = sum(cost.dram_bytes_by_tensor.values())
        print(
            f"  {name:10s} {cost.energy.total_pj / 1e6:12.2f} {cost.cycles:12,d} "
            f"{cost.true_macs / 1e6:9.1f} {dram / 1e3:9.0f}"
        )
    for label, value in headline(report).items():
        print(f"  {label}: {value}")
    for warning in report.warnings:
        print(f"  note: {warning}")
