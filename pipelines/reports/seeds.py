"""Finished runs of one recipe with different seeds, as one table: rows, mean and standard deviation over the seeds."""

from pathlib import Path
from typing import Any, NamedTuple

from spikeloom.accel.common.files import contents, read_object, require_number
from spikeloom.accel.common.statistics import mean_and_sd, one_run_a_seed
from spikeloom.pipelines.training.run_dir import hyperparameters, load_config

AGAIN = "train this seed again"


class SeedRun(NamedTuple):
    """Everything trained with one seed: the contents of its result.json files, one a held-out speaker or just one."""

    seed: int
    results: list[dict[str, Any]]

    def percent(self, key: str = "test_accuracy") -> float:
        """Mean over the results."""
        return 100 * sum(result[key] for result in self.results) / len(self.results)


def finished(folder: Path, kind: str) -> tuple[list[SeedRun], list[str]]:
    """`folder` and the runs beside it that differ from it in their seeds alone, one a seed, and what was left out:
    those that left a file `kind`, which is result.json, or speakers.json of several results."""
    wanted = _settings(folder, kind)
    runs = []  # (seed, name of the run, run)
    for path in sorted(folder.parent.glob(f"*/{kind}")):
        if path.parent == folder or _settings(path.parent, kind) == wanted:
            values = read_object(path, AGAIN)
            with contents(path, AGAIN):
                run = SeedRun(int(values["seed"]), list(values.get("results", [values])))
                for result in run.results:
                    require_number(path, "test_accuracy", result["test_accuracy"], AGAIN)
                    if not isinstance(result["name"], str) or (kind == "speakers.json" and not result["test_speakers"]):
                        raise ValueError("a result has no name, or no speakers")
            runs.append((run.seed, path.parent.name, run))
    return one_run_a_seed(runs, keep=folder.name)


def _settings(folder: Path, kind: str) -> dict[str, Any] | None:
    """All that decides what comes out of a run but its seeds; None if that cannot be read."""
    folders = [path.parent for path in sorted(folder.glob("*/config.yaml"))] if kind == "speakers.json" else [folder]
    try:
        config = load_config(folders[0])
    except (IndexError, ValueError):
        return None
    each_its_own = ["seed", "data.split_seed", "report_test_selected"]
    each_its_own += ["data.test_speaker"] if kind == "speakers.json" else []
    settings = {name: value for name, value in hyperparameters(config).items() if name not in each_its_own}
    return {"name": config.name, **settings}


def print_seeds(config: Any) -> None:
    """The seeds of a training, where several are finished beside `config.run`."""
    print_seed_table(Path(config.run), "result.json")


def print_seed_table(folder: Path, kind: str) -> None:
    """Test accuracy of every seed finished beside `folder`, by held-out speaker where there are several."""
    runs, duplicates = finished(folder, kind)
    for note in duplicates:
        print(note)
    by_speaker = len(runs[0].results) > 1 if runs else False
    if len(runs) < 2 and not by_speaker:
        return  # the run has said its one number
    name = runs[0].results[0]["name"]
    print(f"\n{name}: test accuracy at the best validation epoch, {len(runs)} seed{'s' * (len(runs) > 1)}")
    if by_speaker:
        speakers: dict[str, list[float]] = {}  # held-out speaker -> accuracy in percent, one a seed
        for run in runs:
            for result in run.results:
                speakers.setdefault(result["test_speakers"][0], []).append(100 * result["test_accuracy"])
        for speaker, values in speakers.items():
            print(_row(speaker, values) + f"   ({', '.join(f'{v:.1f}' for v in values)})")
    audited = all("test_max_optimistic" in result for run in runs for result in run.results)
    for run in runs:
        optimistic = f"   optimistic (selected on test): {run.percent('test_max_optimistic'):.1f} %" if audited else ""
        print(f"  {f'seed {run.seed}':12s} {run.percent():5.1f} %{optimistic}")
    print(_row("mean", [run.percent() for run in runs]) + ("   (sd over the seeds)" if len(runs) > 1 else ""))
    if audited:
        print(_row("optimistic", [run.percent("test_max_optimistic") for run in runs]) + "   (selected on test)")


def _row(name: str, values: list[float]) -> str:
    mean, sd = mean_and_sd(values)
    return f"  {name:12s} {mean:5.1f} ± {sd:4.1f} %"
