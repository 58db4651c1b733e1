"""`spikeloom bench calibration`: how often the evaluation claims content, with and without a planted signal.

out=FILE.json holds every figure; out=FILE.html is a page with the power curve.
"""

from pathlib import Path
from typing import Any

from accel.files import write_json
from accel.report import Section, Table
from bci.evaluation.battery import calibrate, synthetic_pool
from bci.evaluation.null_worlds import Text
from bci.figures import power_curve
from bci.report import write_report
from bci.zuco.materials import read_materials
from pipelines.benchmarks.config import CalibrationBenchConfig

TASKS = ("SR1", "NR1", "NR2")


def print_calibration(config: CalibrationBenchConfig, out: str | None) -> None:
    found = calibrate(
        pool(Path(config.materials)), null_runs=config.null_runs, power_runs=config.power_runs,
        world_runs=config.world_runs, say=lambda line: print(line, flush=True),
    )  # fmt: skip
    if out is None:
        return
    if Path(out).suffix == ".html":
        page(Path(out), found)
    else:
        write_json(Path(out), found)
    print(f"-> {out}")


def pool(materials: Path) -> list[Text]:
    """The sentences of three ZuCo tasks where they are, else synthetic ones of two tasks."""
    if not (materials / "zuco1_task_materials").is_dir():
        print(f"no task materials in {materials}: null worlds of synthetic sentences, which have too few rare words")
        return synthetic_pool()
    found = read_materials(materials)
    return [Text(text, task) for task in TASKS for text in found[task]]


def page(path: Path, found: dict[str, Any]) -> None:
    power, without = found["power"], found["pipeline"]
    verdict = (
        f"Without a signal {100 * without['rejected']:.1f} % of {without['runs']} runs have p < .05, and so have "
        f"{100 * found['null_worlds_pooled']:.1f} % of the runs of twelve kinds of decoders that ignore the EEG."
    )
    worlds = Table(
        ("readers agree (rho)", "length leaks", "task style", "p < .05"),
        [(w["rho"], w["leak"], w["tau"], f"{100 * w['rejected']:.1f} %") for w in found["null_worlds"]],
    )
    write_report(path, "Calibration of the evaluation", [
        Section("In one line", "", text=verdict),
        power_curve(power["strengths"], power["rejected"], power["runs"]),
        Section("Decoders that ignore the EEG", f"{found['world_runs']} runs of each kind.", table=worlds),
    ])  # fmt: skip
