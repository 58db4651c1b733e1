"""`spikeloom bench calibration`: false positives and power of the EEG evaluation, without and with a synthetic signal.

out=FILE.json holds every figure; out=FILE.html is a page with the power curve.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spikeloom.accel.common.files import write_json
from spikeloom.accel.common.report import Section, Table
from spikeloom.bci.evaluation.battery import TESTS, calibrate, synthetic_pool
from spikeloom.bci.evaluation.embeddings import load_encoder
from spikeloom.bci.evaluation.null_worlds import Text
from spikeloom.bci.reports.charts import power_curve
from spikeloom.bci.reports.page import write_report
from spikeloom.bci.zuco.materials import TASK_LISTS, read_materials
from spikeloom.pipelines.config.bench import CalibrationBenchConfig


def print_calibration(config: CalibrationBenchConfig, out: str | None) -> None:
    lists = task_lists(Path(config.materials), config.tasks)
    found = calibrate(
        synthetic_pool() if lists is None else [Text(text, task) for task, texts in lists.items() for text in texts],
        lists, null_runs=config.null_runs, power_runs=config.power_runs, world_runs=config.world_runs,
        confound_runs=config.confound_runs, encoder=None if config.encoder is None else load_encoder(config.encoder),
        say=lambda line: print(line, flush=True),
    )  # fmt: skip
    found["tasks"] = None if lists is None else list(lists)
    if out is None:
        return
    if Path(out).suffix == ".html":
        page(Path(out), found)
        write_json(Path(out).with_suffix(".json"), found)
    else:
        write_json(Path(out), found)
    print(f"-> {out}")


def task_lists(materials: Path, tasks: Sequence[str]) -> dict[str, tuple[str, ...]] | None:
    """The sentences of ZuCo's tasks in their reading order; None where the materials are not there.

    Raises ValueError for a task that is none.
    """
    if unknown := sorted(set(tasks) - set(TASK_LISTS)):
        raise ValueError(f"calibration.tasks={unknown} are unknown; use some of {', '.join(TASK_LISTS)}")
    if not (materials / "zuco1_task_materials").is_dir():
        print(f"no task materials in {materials}: null worlds of synthetic sentences, which have too few rare words")
        return None
    found = read_materials(materials)
    return {task: found[task] for task in tasks or TASK_LISTS}


def planted(found: dict[str, Any]) -> Section:
    """Power over the fraction of content words that outputs hold."""
    at = found["fractions"].index(0.02)
    return Section(
        "Planted words",
        f"Share of {found['runs']} decoders with p < .05 against permuted sentences and against a control without the "
        f"words, by fraction of the true content words in the output. At 0.02, {found['below_constant_sentence'][at]} "
        "have a BLEU-1 below one constant sentence.",
        table=Table(("level", *(f"{f:g}" for f in found["fractions"])), [
            (level, *(f"{100 * share:.0f} %" for share in curves["headline"]))
            for level, curves in found["levels"].items()
        ]),
    )  # fmt: skip


def page(path: Path, found: dict[str, Any]) -> None:
    """The figures as a report."""
    without, null = found["pipeline"], found["null_worlds"]
    words = null["levels"]["words"]["own"]["rejected"]
    verdict = (
        f"Without a signal {100 * without['rejected']:.1f} % of {without['runs']} runs have p < .05, and so have "
        f"{100 * words:.1f} % of {null['runs']:,} runs of twelve kinds of decoders that ignore the EEG."
    )
    parts = [Section("In one line", "", text=verdict)]
    if (power := found["power"]) is not None:
        shares = [without["rejected"], *power["levels"]["words"]["own"]]
        runs = [without["runs"], *[power["runs"]] * len(power["strengths"])]
        parts.append(power_curve([0.0, *power["strengths"]], shares, runs))
        parts.append(Section(
            "Power at every level", f"Share of {power['runs']} runs of each strength with p < .05, sentences permuted.",
            table=Table(
                ("level", *(f"{s:g}" for s in power["strengths"])),
                [(level, *(f"{100 * share:.0f} %" for share in curves["own"]))
                 for level, curves in power["levels"].items()],
            ),
        ))  # fmt: skip
        parts.append(planted(found["planted_words"]))
    parts.append(Section(
        "Decoders that ignore the EEG",
        f"Share of {null['runs']:,} runs with p < .05, in parentheses the largest share in one of twelve kinds: own "
        "sentence against permuted ones; EEG minus a control of the same kind; the larger p of both.",
        table=Table(("level", *TESTS), [
            (level, *(f"{100 * v['rejected']:.1f} % ({100 * v['largest']:.1f} %)" for v in tests.values()))
            for level, tests in null["levels"].items()
        ]),
    ))  # fmt: skip
    parts.append(Section(
        "Kinds of null decoders", "Share with p < .05, own sentence against permuted ones.",
        table=Table(
            ("readers agree (rho)", "length leaks", "task style", *null["levels"]),
            [(w["rho"], w["leak"], w["tau"], *(f"{100 * w[level]:.1f} %" for level in null["levels"]))
             for w in null["worlds"]],
        ),
    ))  # fmt: skip
    if (confounds := found["confounds"]) is not None:
        rows = [(f"gaze leaks into the EEG; passes {name}", f"{100 * share:.0f} %")
                for name, share in confounds["gaze"].items()]  # fmt: skip
        rows += [(f"drift in time, split by {unit}", f"{100 * share:.0f} %")
                 for unit, share in (confounds["drift"] or {}).items()]  # fmt: skip
        parts.append(Section(
            "Gaze and time", f"Share of {confounds['runs']} runs with p < .05 in which no word is in the EEG.",
            table=Table(("decoder", "p < .05"), rows),
        ))  # fmt: skip
    write_report(path, "Calibration of the evaluation", parts)
