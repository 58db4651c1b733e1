"""Several trained runs side by side: results, learning curves, accuracy against energy, settings that differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from os.path import commonpath
from pathlib import Path
from typing import Any

from spikeloom.accel.common.charts import WIDTH_IN
from spikeloom.accel.common.files import read_json
from spikeloom.accel.common.report import INK, Section, Table, new_figure, palette, render
from spikeloom.accel.common.sizes import flat
from spikeloom.accel.common.statistics import spread
from spikeloom.accel.common.units import counted
from spikeloom.pipelines.training.run_dir import NON_HPARAMS, finished, history, read_yaml

MARKERS = "osD^vP*X"
# Of energy: the file and where in it the energy of one inference stands, in pJ; the first that is there counts.
ENERGY = (("evaluation.json", ("energy", "energy_pj")), ("audit/audit.json", ("energy_pj",)))
SEEDS = ("seed", "split_seed")  # the ends of keys
AGAIN = "run the verb that writes it again"


@dataclass(frozen=True, kw_only=True)
class ComparedRun:
    """What a run directory holds of one training."""

    name: str  # its path below what all runs share
    settings: dict[str, Any]  # by dotted keys
    result: dict[str, Any]
    history: list[dict[str, float]]  # a row an epoch, of metrics.csv
    inference_pj: float | None  # energy of one inference, as an evaluation or an audit counted it
    step_pj: float | None  # energy of one training step, as a simulation priced it

    @property
    def accuracy(self) -> float | None:
        """Accuracy on the test set, from 0 to 1; None for a model that does not classify."""
        value = self.result.get("test_accuracy")
        return float(value) if isinstance(value, int | float) else None


def compare(runs: Sequence[Path], out: Path) -> Path:
    """Write the page.

    Args:
        runs: run directories of finished trainings, two or more.
        out: the HTML file.

    Returns:
        `out`.

    Raises:
        ValueError: for fewer than two runs, one named twice, or a folder that is not the run of a finished training.
    """
    if len(runs) < 2 or len({run.resolve() for run in runs}) < len(runs):
        raise ValueError(
            f"runs={[str(run) for run in runs]} are not two or more different runs; use `spikeloom compare RUN RUN`"
        )
    found = [read_run(run, name) for run, name in zip(runs, short_names(runs), strict=True)]
    best = max((run for run in found if run.accuracy is not None), key=lambda run: run.accuracy or 0.0, default=None)
    lead = f"{len(found)} runs."
    if best is not None:
        lead += f" The highest test accuracy is {100 * (best.accuracy or 0):.1f} %, of {best.name}."
    facts = {"runs": str(len(found)), "settings that differ": str(len(differing(found)))}
    return render("Runs compared", lead, sections(found), out, facts)


def short_names(runs: Sequence[Path]) -> list[str]:
    """Paths without the folders that all of them share."""
    shared = Path(commonpath([run.absolute().parent for run in runs]))
    return [run.absolute().relative_to(shared).as_posix() for run in runs]


def read_run(folder: Path, name: str) -> ComparedRun:
    """What a run directory holds. Raises ValueError naming the file that is missing or damaged."""
    for file in ("config.yaml", "result.json"):
        if not (folder / file).is_file():
            raise ValueError(f"{folder} is not the run directory of a finished training (no {file}); leave it out")
    curve = history(folder) if (folder / "metrics.csv").is_file() else []
    return ComparedRun(
        name=name, settings=flat(_plain(read_yaml(folder / "config.yaml"))),
        result=finished(folder), history=curve,
        inference_pj=_energy(folder), step_pj=_number(folder / "sim/report.json", ("energy_per_iteration_pj",)),
    )  # fmt: skip


def _plain(values: Any) -> Any:
    from omegaconf import OmegaConf

    return OmegaConf.to_container(values)


def _energy(folder: Path) -> float | None:
    return next((pj for file, keys in ENERGY if (pj := _number(folder / file, keys)) is not None), None)


def _number(path: Path, keys: Sequence[str]) -> float | None:
    value = read_json(path, AGAIN) if path.is_file() else None
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return float(value) if isinstance(value, int | float) else None


def sections(runs: Sequence[ComparedRun]) -> list[Section]:
    """The parts of the page; curves and energies only where runs have them."""
    return [
        results(runs), *curves(runs), *accuracy_against_energy(runs), *over_seeds(runs), settings(runs),
    ]  # fmt: skip


def results(runs: Sequence[ComparedRun]) -> Section:
    rows = [
        [run.name, _text(run.result.get("parameters")), _text(run.result.get("best_epoch")),
         _percent(run.result.get("valid_accuracy")), _percent(run.accuracy),
         _text(run.inference_pj, 1e-6), _text(run.step_pj, 1e-9), _text(run.result.get("seconds"))]
        for run in runs
    ]  # fmt: skip
    return Section(
        "Results",
        "Accuracies of classifiers at the best validation epoch. Energies are counted operations times published "
        "prices, not measurements: of one inference by `evaluate` or `audit`, of one training step by `simulate`; a "
        "dash where the run was not counted.",
        table=Table(
            ("run", "parameters", "best epoch", "validation accuracy (%)", "test accuracy (%)", "inference (µJ)",
             "training step (mJ)", "training time (s)"), rows,
        ),
    )  # fmt: skip


def curves(runs: Sequence[ComparedRun]) -> list[Section]:
    """One line a run of what its validation set says, epoch by epoch."""
    shown = [run for run in runs if run.history]
    panels = [
        (key, title, scale)
        for key, title, scale in (("valid_accuracy", "Validation accuracy (%)", 100.0),
                                  ("valid_loss", "Validation loss", 1.0))
        if any(key in run.history[0] for run in shown)
    ]  # fmt: skip
    if not panels:
        return []
    figure = new_figure(WIDTH_IN, 3.4 + 0.22 * (len(shown) // 2))
    for axes, (key, title, scale) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for number, run in enumerate(shown):
            points = [(row["epoch"], scale * row[key]) for row in run.history if "epoch" in row and key in row]
            style = {"color": palette[number % len(palette)], "linewidth": 1.6}
            dashes = ("-", "--", ":", "-.")[number // len(palette) % 4]
            axes.plot([x for x, _ in points], [y for _, y in points], dashes, label=run.name, **style)
        axes.set_title(title, loc="left")
        axes.set_xlabel("Epoch")
        axes.xaxis.get_major_locator().set_params(integer=True)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=2, edgecolor="none", fontsize=9.5, labelcolor=INK)
    return [Section("Learning curves", "What the validation set says after each epoch, one line a run.", figure=figure)]


def accuracy_against_energy(runs: Sequence[ComparedRun]) -> list[Section]:
    """One mark a run whose inference was counted."""
    shown = [(run, run.accuracy, run.inference_pj) for run in runs]
    known = [(run, accuracy, pj) for run, accuracy, pj in shown if accuracy is not None and pj is not None]
    if len(known) < 2:
        return []
    figure = new_figure(WIDTH_IN, 3.6 + 0.22 * (len(known) // 2))
    axes = figure.subplots()
    for number, (run, accuracy, pj) in enumerate(known):
        axes.plot(
            pj * 1e-6, 100 * accuracy, MARKERS[number % len(MARKERS)], color=palette[number % len(palette)],
            markersize=8, label=run.name,
        )  # fmt: skip
    axes.set(xlabel="Energy of one inference (µJ)", ylabel="Test accuracy (%)")
    axes.margins(y=0.12)
    axes.set_xlim(0, 1.12e-6 * max(pj for *_, pj in known))
    figure.legend(loc="outside lower left", ncols=2, edgecolor="none", fontsize=9.5, labelcolor=INK)
    left_out = len(runs) - len(known)
    note = (
        f" {left_out} of {counted(len(runs), 'run')} {'is' if left_out == 1 else 'are'} not shown: not counted."
        if left_out
        else ""
    )
    return [Section(
        "Accuracy against energy",
        f"Up and to the left is better: more samples right for less energy.{note}", figure=figure,
    )]  # fmt: skip


def over_seeds(runs: Sequence[ComparedRun]) -> list[Section]:
    """Runs that differ only in seed, as mean and standard deviation."""
    groups: dict[str, list[ComparedRun]] = {}
    for run in runs:
        alike = {k: v for k, v in run.settings.items() if not (k in NON_HPARAMS or k.rpartition(".")[2] in SEEDS)}
        groups.setdefault(repr(sorted(alike.items(), key=lambda item: item[0])), []).append(run)
    rows: list[list[str | int | float]] = []
    for group in groups.values():
        accuracies = [100 * run.accuracy for run in group if run.accuracy is not None]
        if len(group) > 1 and len(accuracies) == len(group):
            energies = [run.inference_pj * 1e-6 for run in group if run.inference_pj is not None]
            rows.append([", ".join(run.name for run in group), len(group), spread(accuracies, 1),
                         spread(energies, 3) if len(energies) == len(group) else "–",
                         f"{min(accuracies):.1f} … {max(accuracies):.1f}"])  # fmt: skip
    if not rows:
        return []
    return [Section(
        "Over seeds", "Runs that differ only in seed: mean and standard deviation (n − 1).",
        table=Table(("runs", "seeds", "test accuracy (%)", "inference (µJ)", "lowest … highest (%)"), rows),
    )]  # fmt: skip


def differing(runs: Sequence[ComparedRun]) -> list[str]:
    """Keys whose values differ, of those that decide what comes out; first the ones that all runs have."""
    keys = dict.fromkeys(key for run in runs for key in run.settings if key not in NON_HPARAMS)
    found = [key for key in keys if len({repr(run.settings.get(key)) for run in runs}) > 1]
    return sorted(found, key=lambda key: any(key not in run.settings for run in runs))


def settings(runs: Sequence[ComparedRun]) -> Section:
    """The settings that differ, one row each."""
    keys = differing(runs)
    if not keys:
        return Section("Settings that differ", "", text="None: the runs were trained with the same settings.")
    rows = [[key, *("–" if key not in run.settings else _value(run.settings[key]) for run in runs)] for key in keys]
    return Section(
        "Settings that differ",
        "By the names of the command line; everything else is equal. A dash: the run's configuration has no such key.",
        table=Table(("setting", *(run.name for run in runs)), rows),
    )


def _value(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _percent(value: Any) -> str:
    return f"{100 * value:.1f}" if isinstance(value, int | float) else "–"


def _text(value: Any, scale: float = 1.0) -> str:
    if not isinstance(value, int | float):
        return "–"
    return f"{value:,}" if isinstance(value, int) and scale == 1.0 else f"{scale * value:.3g}"
