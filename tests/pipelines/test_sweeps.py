"""Sweeps end in one table, whatever process their jobs run in, and in one line where a job is refused."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from spikeloom.pipelines import cli
from spikeloom.pipelines.commands import evaluate, train
from spikeloom.pipelines.config.mistakes import PLUGINS as INSTALLED_BY
from spikeloom.pipelines.reports.jobs import Job, print_table

SMALL = ["network=s_resnet18", "batch_size=1", "gpu=null", "what_if=false", "uncertainty=false"]
LAUNCHERS = {
    "joblib": (
        "hydra_plugins.hydra_joblib_launcher",
        ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "chip.cores=4,8"],
    ),
    "submitit": ("hydra_plugins.hydra_submitit_launcher", ["hydra/launcher=submitit_local", "chip.cores=4,8"]),
    "ray": (
        "hydra_plugins.hydra_ray_launcher",
        [
            "hydra/launcher=ray",
            "+hydra.launcher.ray.init.num_cpus=1",
            "+hydra.launcher.ray.init.log_to_driver=false",
            "+hydra.launcher.ray.init.include_dashboard=false",
            "chip.cores=4,8",
        ],
    ),
    "optuna": (
        "hydra_plugins.hydra_optuna_sweeper",
        ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=1", "chip.cores=choice(2,4,8)"],
    ),
}  # name -> plugin, command line


@pytest.mark.parametrize("name", LAUNCHERS)
def test_jobs_of_any_launcher_end_in_one_table(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin, line = LAUNCHERS[name]
    pytest.importorskip(plugin, reason=f"`{INSTALLED_BY.get(name, INSTALLED_BY['joblib'])}`")
    monkeypatch.chdir(tmp_path)
    cli.main(["simulate", "-m", *SMALL, *line, "out=designs"])
    rows = list(csv.DictReader((tmp_path / "designs" / "sweep.csv").open(encoding="utf-8")))
    assert len(rows) == (4 if name == "optuna" else 2)
    assert len(capsys.readouterr().out.splitlines()) == len(rows) + 2
    stray = {path.name for path in tmp_path.iterdir()} - {"designs"}
    assert stray == ({"runs"} if name == "submitit" else set())  # the notes of its jobs: runs/sweeps


def test_the_value_of_a_job_is_shown_whatever_time_it_took(capsys: pytest.CaptureFixture[str]) -> None:
    for seconds in (1.0, 2.0):
        print_table([Job(number=0, overrides={}, value=1.0, results={"valid_accuracy": 0.0, "seconds": seconds})])
        assert capsys.readouterr().out.split()[:4] == ["job", "valid_accuracy", "value", "seconds"]


@pytest.mark.parametrize("name", ["joblib", "submitit"])
def test_a_refused_job_of_another_process_is_named_in_one_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin, line = LAUNCHERS[name]
    pytest.importorskip(plugin, reason="pip install 'spikeloom[sweep]'")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        cli.main(["simulate", "-m", *SMALL, *line[:-1], "chip.cores=-1,-2", "out=designs"])
    printed = capsys.readouterr()
    assert end.value.code == 2 and printed.out == "" and printed.err.count("\n") == 1
    assert "job 0 (chip.cores=-1): chip.cores=-1" in printed.err and "job 1 (chip.cores=-2)" in printed.err


def test_a_sweeper_makes_the_validation_error_of_trainings_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="pip install 'spikeloom[sweep]'")

    def run(config: Any) -> None:
        folder = Path(config.run)
        folder.mkdir(parents=True)
        scores = {"valid_accuracy": 1 - config.optimizer.lr, "test_accuracy": 0.5, "seconds": 1.0}
        (folder / "result.json").write_text(json.dumps(scores), "utf-8")

    monkeypatch.setattr(train, "run", run)
    cli.main([
        "train", "-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=4", "hydra.sweeper.n_jobs=1",
        "optimizer.lr=interval(0.001,0.1)", f"run={tmp_path}/${{hydra:job.num}}",
    ])  # fmt: skip
    rows = list(csv.DictReader((tmp_path / "sweep.csv").open(encoding="utf-8")))
    assert len(rows) == 4 and len({row["optimizer.lr"] for row in rows}) == 4
    for row in rows:
        assert float(row["value"]) == pytest.approx(float(row["optimizer.lr"]), abs=1e-4)
    assert capsys.readouterr().out.count("\n") == 6

    monkeypatch.setattr(evaluate, "run", lambda config: None)
    with pytest.raises(SystemExit):
        cli.main(["evaluate", "-m", "hydra/sweeper=optuna", "hydra.sweeper.n_jobs=1", "run=choice(a,b)"])
    assert "no number that a sweeper could make small" in capsys.readouterr().err
