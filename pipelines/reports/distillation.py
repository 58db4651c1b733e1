"""What a curriculum found: its table on the console, in a file and on a page, over the seeds found next to it."""

import logging
import math
from pathlib import Path
from typing import Any

from spikeloom.accel.common.files import contents, read_object, require_number, write_csv
from spikeloom.accel.common.report import Section, Table, render
from spikeloom.accel.common.statistics import mean_and_sd, one_run_a_seed
from spikeloom.accel.common.units import energy_text
from spikeloom.pipelines.config.distill import DistillConfig
from spikeloom.speech.charts import accuracy_against_cost

log = logging.getLogger("spikeloom")

AVERAGED = ("val_acc", "test_acc_at_best_val", "test_max_optimistic", "steps_mean", "ac_m", "mac_m", "energy_mj")
PERCENT = ("val_acc", "test_acc_at_best_val", "test_max_optimistic")
# Column of curriculum.csv -> its title on the page.
TITLES = {
    "resolution_ms": "step (ms)", "steps_mean": "steps, mean", "steps_max": "steps, most", "params": "parameters",
    "val_acc": "validation accuracy (%)", "test_acc_at_best_val": "test accuracy (%)",
    "test_max_optimistic": "test-selected accuracy (%)", "ac_m": "additions (M)", "mac_m": "multiplications (M)",
    "energy_mj": "energy (µJ)", "best_epoch": "best epoch",
}  # fmt: skip
OPTIMISTIC = "test_max_optimistic is optimistic (selected on test): it chose nothing and is no result."
RETRAIN = "run the curriculum of this seed again with resume=true"


def write_table(run: Path, config: DistillConfig) -> None:
    """Write curriculum.csv, seeds.csv and report.html into `run`, which holds curriculum.json, and print the tables."""
    found = read_curriculum(run / "curriculum.json")
    rows = found["stages"]
    beside = ((p.parent.name, read_curriculum(p)) for p in sorted(run.parent.glob("*/curriculum.json")))
    alike = [(o["seed"], name, o) for name, o in beside if o["settings_sha256"] == found["settings_sha256"]]
    runs, duplicates = one_run_a_seed(alike, keep=run.name)
    pooled = over_seeds(runs)
    for note in duplicates:
        print(note)
    write_csv(run / "curriculum.csv", rows)
    write_csv(run / "seeds.csv", pooled)
    for title, table in ((f"\n{found['name']}, seed {found['seed']}", rows), (f"\n{seeds_of(runs)}", pooled)):
        if table is rows or len(runs) > 1:
            print(title)
            print_table(as_table(table))
    if rows[0]["test_max_optimistic"] is not None:
        print(OPTIMISTIC)
    render(
        f"{found['name']}: a curriculum over time steps",
        lead(pooled, runs),
        [
            figure_of(pooled),
            *([Section("Over seeds", seeds_of(runs), table=for_people(pooled))] if len(runs) > 1 else []),
            Section(
                f"Every stage, seed {found['seed']}",
                "Accuracies: the epoch was chosen on the validation clips, then the test clips were scored once. "
                "The test-selected accuracy (not a valid estimate) chose nothing and is no result. Millions of "
                "additions and multiplications are those of one test clip; the energy prices them at 0.9 and 4.6 pJ. "
                "Each stage's folder holds its own report.",
                table=for_people(rows),
            ),
            settings_of(config),
        ],
        run / "report.html",
        facts(pooled),
    )
    log.info("table and report -> %s", run)


def read_curriculum(path: Path) -> dict[str, Any]:
    """A curriculum.json. Raises ValueError naming the file where it is damaged."""
    found = read_object(path, RETRAIN)
    with contents(path, RETRAIN):
        found["seed"], found["settings_sha256"] = int(found["seed"]), str(found["settings_sha256"])
        for row in found["stages"]:
            str(row["stage"])
            for name in ("resolution_ms", *AVERAGED):
                if row[name] is not None:
                    require_number(path, name, row[name], RETRAIN)
        if not found["stages"]:
            raise ValueError("no stage")
    return found


def over_seeds(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a stage: mean and sample standard deviation (n - 1) over `runs`; the sd of a single run is None."""
    pooled = []
    for rows in zip(*(run["stages"] for run in runs), strict=True):
        row = {"stage": rows[0]["stage"], "resolution_ms": rows[0]["resolution_ms"], "seeds": len(rows)}
        for name in AVERAGED:
            values = [row[name] for row in rows]
            known = None not in values
            mean, sd = mean_and_sd(values) if known else (None, None)
            row |= {name: mean, f"{name}_sd": sd if len(rows) > 1 else None}
        pooled.append(row)
    return pooled


def seeds_of(runs: list[dict[str, Any]]) -> str:
    listed = ", ".join(str(run["seed"]) for run in sorted(runs, key=lambda run: run["seed"]))
    return f"Mean and standard deviation (n - 1) over {len(runs)} seeds: {listed}."


def as_table(rows: list[dict[str, Any]]) -> Table:
    """Rows for people: accuracies in percent, a mean with its deviation in one cell, a dash where nothing is known."""

    def cell(row: dict[str, Any], name: str) -> str:
        value, sd = row[name], row.get(f"{name}_sd")
        if value is None:
            return "–"
        scale, digits = (100, ".1f") if name in PERCENT else (1, ".4g")
        if not isinstance(value, float):
            return f"{value:,}" if isinstance(value, int) and name != "seed" else str(value)
        return f"{scale * value:{digits}}" + (f" ± {scale * sd:{digits}}" if sd is not None else "")

    shown = [name for name in rows[0] if not name.endswith("_sd")]
    titles = [f"{name} %" if name in PERCENT else name for name in shown]
    return Table(titles, [[cell(row, name) for name in shown] for row in rows])


def for_people(rows: list[dict[str, Any]]) -> Table:
    """The table of a page: the titles of its columns in words, energies in µJ."""
    in_uj = [
        {
            name: value * 1000 if name.startswith("energy_mj") and value is not None else value
            for name, value in row.items()
        }
        for row in rows
    ]
    table = as_table(in_uj)
    return Table([TITLES.get(name.removesuffix(" %"), name) for name in table.columns], table.rows)


def print_table(table: Table) -> None:
    lines = [[str(cell) for cell in line] for line in (table.columns, *table.rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  " + "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


def figure_of(pooled: list[dict[str, Any]]) -> Section:
    def point(row: dict[str, Any]) -> tuple[str, float, float, float, float]:
        sd = row["test_acc_at_best_val_sd"]
        spread = math.nan if sd is None else sd
        label = f"{row['resolution_ms']:g} ms"
        return label, row["steps_mean"], row["energy_mj"], row["test_acc_at_best_val"], spread

    distilled, plain = split(pooled)
    return accuracy_against_cost([point(row) for row in distilled], point(plain) if plain else None)


def split(rows: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """The stages of the curriculum, and the row of the model trained from scratch if there is one."""
    plain = [row for row in rows if row["stage"] == "undistilled"]
    return [row for row in rows if row["stage"] != "undistilled"], plain[0] if plain else None


def lead(pooled: list[dict[str, Any]], runs: list[dict[str, Any]]) -> str:
    distilled, plain = split(pooled)
    fine, coarse = distilled[0], distilled[-1]
    steps = ", ".join(f"{row['resolution_ms']:g}" for row in distilled)
    fewer, less = (fine[name] / coarse[name] for name in ("steps_mean", "energy_mj"))
    sentences = [
        f"The same network processed words in steps of {steps} ms, each stage distilled from the one before.",
        f"From the finest to the coarsest, a word takes {fewer:.1f} times fewer steps, {less:.1f} times less energy.",
    ]
    if plain:
        with_teacher, alone = (100 * row["test_acc_at_best_val"] for row in (coarse, plain))
        sentences.append(
            f"At {coarse['resolution_ms']:g} ms it recognises {with_teacher:.1f} % of the test words, and "
            f"{alone:.1f} % when it is trained from scratch ({len(runs)} seed{'s' if len(runs) > 1 else ''})."
        )
    return " ".join(sentences)


def facts(pooled: list[dict[str, Any]]) -> dict[str, str]:
    distilled, plain = split(pooled)
    shown = {"first stage": distilled[0], "last stage, distilled": distilled[-1]}
    shown |= {"from scratch": plain} if plain else {}
    return {
        f"{who}, {row['resolution_ms']:g} ms": f"{100 * row['test_acc_at_best_val']:.1f} %, "
        f"{energy_text(1e9 * row['energy_mj'])}"
        for who, row in shown.items()
    }


def settings_of(config: DistillConfig) -> Section:
    rows = [
        ["resolutions (ms)", ", ".join(f"{ms:g}" for ms in config.resolutions_ms)],
        ["epochs a stage", str(config.trainer.epochs)],
        ["temperature", f"{config.distillation.temperature:g}"],
        ["weight of the teacher (KL)", f"{config.distillation.kl_weight:g}"],
        ["epoch kept", config.teacher_pick],
        ["learning rate", f"{config.optimizer.lr:g}"],
    ]
    return Section(
        "What was run", "config.yaml beside this page holds everything.", table=Table(["setting", "value"], rows)
    )
