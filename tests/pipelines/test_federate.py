"""Federated training: it is FedAvg, one worker is plain training, and a round survives its workers."""

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from spikeloom.accel.trainer.federated.rounds import Iteration
from spikeloom.pipelines.cli import main
from spikeloom.pipelines.commands import federate as verb
from spikeloom.pipelines.commands.federate import federate
from spikeloom.pipelines.config.federate import FederateConfig
from spikeloom.pipelines.federated.workers import make_optimizer
from spikeloom.pipelines.training.toy_datasets import SmallTask, small_task

ITERATION = Iteration(time_s=0.01, energy_j=0.001)
BASE = FederateConfig(
    task="digits", network="mlp", workers=5, rounds=1, lr=0.1, local_optimizer="sgd", compare_iid=False
)


@pytest.fixture(scope="module")
def task() -> SmallTask:
    return small_task("digits", "mlp", limit=200)


def distance_of(a, b) -> float:
    return float(abs(a - b).max())


def distance(found, model: torch.nn.Module) -> float:
    pairs = [(torch.from_numpy(found[name]), p.detach()) for name, p in model.named_parameters()]
    return max(float((a - b).norm() / b.norm()) for a, b in pairs)


@pytest.mark.parametrize("split", ["iid", "shards", "dirichlet"])
def test_one_full_batch_step_of_five_workers_is_one_central_step(task: SmallTask, split: str) -> None:
    _, workers, found = federate(replace(BASE, batch_size=0, split=split), task, ITERATION, say=False)
    assert sum(len(w.samples) for w in workers) == len(task.train)
    central = task.build(0)
    optimizer = torch.optim.SGD(central.parameters(), lr=0.1)
    task.loss(central(task.encode(task.train.x)), task.train.labels).backward()
    optimizer.step()
    assert distance(found, task.build(0)) > 1e-3  # something was learnt
    assert distance(found, central) < 1e-6


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_one_worker_is_plain_training(task: SmallTask, optimizer: str) -> None:
    config = replace(BASE, workers=1, rounds=3, local_epochs=2, batch_size=50, local_optimizer=optimizer, lr=0.01)
    _, workers, found = federate(config, task, ITERATION, say=False)
    model = task.build(0)
    learner = make_optimizer(model, config)
    samples = workers[0].samples
    for epoch in range(6):
        order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(epoch))
        for ids in order.split(50):
            learner.zero_grad()
            F.nll_loss(task.log_probabilities(model(task.encode(samples.x[ids]))), samples.labels[ids]).backward()
            learner.step()
    assert all(torch.equal(torch.from_numpy(found[name]), p.detach()) for name, p in model.named_parameters())


def test_a_worker_that_dies_or_is_slow_does_not_stop_the_round(task: SmallTask) -> None:
    config = replace(BASE, rounds=3, batch_size=20, dies={3: 2}, slow={1: 50.0}, deadline_s=0.5)
    rows, _, _ = federate(config, task, ITERATION, say=False)
    assert [r["answered"] for r in rows] == [4, 3, 3]
    assert "worker 1 too slow" in rows[0]["missing"] and "worker 3 died" in rows[1]["missing"]
    assert rows[0]["time_s"] == 0.5 and rows[1]["bytes"] < rows[0]["bytes"]
    silent = replace(config, rounds=2, dies=dict.fromkeys(range(5), 2), slow={}, deadline_s=None)
    rows, _, weights = federate(silent, task, ITERATION, say=False)
    _, _, after_one = federate(replace(silent, rounds=1), task, ITERATION, say=False)
    assert rows[1]["answered"] == 0  # nobody answered in the second round: the weights stay
    assert all((weights[name] == after_one[name]).all() for name in weights)


def test_flower_runs_the_same_rounds(task: SmallTask) -> None:
    pytest.importorskip("flwr")
    config = replace(BASE, rounds=3, batch_size=20, split="dirichlet", dies={2: 2})
    plain, flower = (
        federate(replace(config, engine=engine), task, ITERATION, say=False) for engine in ("plain", "flower")
    )
    for mine, theirs in zip(plain[0], flower[0], strict=True):
        assert abs(mine["accuracy"] - theirs["accuracy"]) < 0.01
        assert {**mine, "accuracy": 0} == {**theirs, "accuracy": 0}
    for name, value in plain[2].items():
        assert distance_of(value, flower[2][name]) < 1e-5


def test_a_seed_gives_the_same_rounds_again_and_fedprox_pulls_back(task: SmallTask) -> None:
    config = replace(BASE, rounds=2, batch_size=10, lr=0.05, split="shards")
    first, again = (federate(config, task, ITERATION, say=False) for _ in range(2))
    assert first[0] == again[0]
    pulled = federate(replace(config, strategy="fedprox", mu=18.0), task, ITERATION, say=False)
    start = task.build(0)
    assert distance(pulled[2], start) < distance(first[2], start)


def test_the_verb_writes_rounds_costs_and_the_gap(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "fl"
    verb.run(replace(BASE, rounds=2, lr=0.1, limit=300, split="shards", compare_iid=True, out=str(out)))
    result = json.loads((out / "result.json").read_text())
    assert result["total_bytes"] == 2 * 2 * 5 * result["model_bytes"]
    assert result["test_split"] == "random split, writers shared"
    assert (out / "report.html").read_text().count(result["test_split"]) >= 3  # facts, figure, table
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("round")]
    assert len(lines) == 4 and all(result["test_split"] in line for line in lines)
    assert result["non_iid_gap"] == result["iid_accuracy"] - result["accuracy"]
    assert result["iteration_time_s"] > 0 and result["total_energy_j"] > 0
    with pytest.raises(ValueError, match=r"holds fl, which would be deleted"):
        verb.run(replace(BASE, out=str(tmp_path)))
    assert len((out / "rounds.csv").read_text().splitlines()) == 3 and "<svg" in (out / "report.html").read_text()


def test_bad_requests_name_the_fix(task: SmallTask) -> None:
    for changes, words in (
        ({"strategy": "fedmagic"}, "use one of fedavg"), ({"rounds": 0}, "rounds=0"), ({"dies": {7: 1}}, "0 to 4"),
        ({"local_optimizer": "lion"}, "use sgd or adam"), ({"engine": "spark"}, "plain, flower"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            federate(replace(BASE, **changes), task, ITERATION, say=False)
    with pytest.raises(ValueError, match="use one of digits"):
        small_task("svhn")
    with pytest.raises(ValueError, match="use one of cnn, mlp"):
        small_task("digits", "spikescr")


def test_a_federation_where_nobody_answers_fails(task: SmallTask) -> None:
    engines = ["plain", *(["flower"] if find_spec("flwr") else [])]
    for engine in engines:
        config = replace(BASE, rounds=2, dies=dict.fromkeys(range(5), 1), engine=engine)
        with pytest.raises(ValueError, match=r"nobody answered in 2 rounds"):
            federate(config, task, ITERATION, say=False)


def test_workers_that_die_and_lag_are_set_from_the_command_line(tmp_path: Path) -> None:
    out = tmp_path / "out"
    main(["federate", "model=mlp", "limit=200", "rounds=2", "workers=3", "dies={2:2}", "slow={1:4.0}", f"out={out}"])
    rows = (out / "rounds.csv").read_text("utf-8").splitlines()
    answered = rows[0].split(",").index("answered")
    assert [row.split(",")[answered] for row in rows[1:]] == ["3", "2"]


def test_any_network_of_the_suite_is_federated(tmp_path: Path) -> None:
    found = small_task("digits", "spikingformer", limit=40)
    config = replace(BASE, workers=2, batch_size=10, network="spikingformer", local_optimizer="adam", lr=1e-3)
    rows, _, weights = federate(config, found, ITERATION, say=False)
    assert rows[-1]["answered"] == 2
    before = found.build(0).state_dict()
    assert any(distance_of(weights[name], before[name].numpy()) > 0 for name in weights)
