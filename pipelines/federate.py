"""`spikeloom federate`: workers with data of their own train one model; accuracy, bytes, time and energy a round.

The server averages (FedAvg; fedprox adds a pull to the server's weights while workers train). engine=flower lets
Flower's FedAvg strategy run the rounds instead of the loop here; both give the same weights.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from accel.export import export
from accel.files import check_replaceable, whole, write_csv, write_json
from accel.report import render
from accel.trainer.federated import (
    Iteration,
    Link,
    RoundCost,
    Weights,
    WorkerRound,
    average,
    round_cost,
    split_samples,
    worker_time_s,
)
from accel.trainer.figures_federated import federated_sections
from accel.trainer.simulator import simulate
from pipelines.federated_workers import Worker, WorkerDied, bytes_of, describe, load, unload
from pipelines.process import set_up
from pipelines.schema import FederateConfig
from pipelines.simulate import load_chip
from pipelines.small_tasks import SmallTask, small_task

log = logging.getLogger("spikeloom")
Answer = tuple[WorkerRound, dict[str, np.ndarray] | None]


def run(config: FederateConfig) -> None:
    set_up(config.threads)
    task = small_task(config.task, config.network, config.root, config.seed, config.limit)
    folder = Path(config.out or f"runs/federate/{task.name}_{task.model_name}_{config.split}/seed{config.seed}")
    check_replaceable(folder, ("result.json", "rounds.csv", "report.html"))
    iteration, chip_name = iteration_on_chip(task, config)
    rounds, workers, weights = federate(config, task, iteration)
    result: dict[str, Any] = {
        "task": task.name, "model": task.model_name, "seed": config.seed, "workers": config.workers,
        "split": config.split, "alpha": config.alpha if config.split == "dirichlet" else None,
        "strategy": config.strategy, "engine": config.engine, "optimizer": config.local_optimizer,
        "rounds": config.rounds,
        "local_epochs": config.local_epochs, "model_bytes": bytes_of(weights), "chip": chip_name,
        "iteration_time_s": iteration.time_s, "iteration_energy_j": iteration.energy_j,
        "link_bits_per_s": config.link_bits_per_s, "link_pj_per_bit": config.link_pj_per_bit,
        "test_samples": len(task.test), "accuracy": rounds[-1]["accuracy"],
        **{f"total_{name}": sum(r[name] for r in rounds) for name in ("bytes", "time_s", "energy_j")},
        "holders": describe(workers, task.n_classes),
    }  # fmt: skip
    iid: list[dict[str, Any]] = []
    if config.compare_iid and config.split != "iid":
        log.info("the same with equal shares of a shuffle, to compare")
        iid, _, _ = federate(replace(config, split="iid", dies={}, slow={}), task, iteration)
        result |= {"iid_accuracy": iid[-1]["accuracy"], "non_iid_gap": iid[-1]["accuracy"] - rounds[-1]["accuracy"]}
    write(folder, result, rounds, iid)
    log.info("accuracy %.2f %% after %d rounds -> %s", 100 * result["accuracy"], config.rounds, folder / "report.html")


def iteration_on_chip(task: SmallTask, config: FederateConfig) -> tuple[Iteration, str]:
    """Cost of one local training step on a worker's chip, from an export of the model at its batch size."""
    size = max(2, min(config.batch_size or len(task.train) // config.workers, len(task.train)))
    batch = task.encode(task.train.x[:size])
    exported = export(task.build(config.seed), [batch], name=task.model_name, source={"densities": "one batch"})
    report = simulate(exported.workload, load_chip(config.chip))
    cost = Iteration(time_s=report.time_per_iteration_ms / 1e3, energy_j=report.energy_per_iteration_pj * 1e-12)
    return cost, report.chip_name


def federate(
    config: FederateConfig, task: SmallTask, iteration: Iteration, say: bool = True
) -> tuple[list[dict[str, Any]], list[Worker], Weights]:
    """Rows of the rounds, the workers, and the weights that they end with."""
    check(config)
    labels = task.train.labels.numpy()
    parts = split_samples(
        config.split, labels, config.workers, config.seed, alpha=config.alpha, groups=task.train.groups
    )
    workers = [Worker(k, task, task.train.select(part.tolist()), config) for k, part in enumerate(parts)]
    link = Link(bits_per_s=config.link_bits_per_s, pj_per_bit=config.link_pj_per_bit)
    server = task.build(config.seed)
    weights: Weights = unload(server)
    rows: list[dict[str, Any]] = []

    def one_round(turn: int, current: Weights) -> list[Answer]:
        return [ask(worker, current, turn, config, iteration, link) for worker in workers]

    def close(turn: int, averaged: Weights, answers: Sequence[Answer]) -> None:
        load(server, averaged)
        work = [done for done, _ in answers]
        cost = round_cost(work, iteration, link, bytes_of(averaged), config.deadline_s)
        rows.append(_row(turn, task.accuracy(server, task.test), cost, work))
        if say:
            tell(rows[-1])

    if config.engine == "flower":
        from pipelines.flower import run_rounds

        return rows, workers, run_rounds(config.rounds, config.workers, weights, one_round, close)
    return rows, workers, _rounds(config.rounds, weights, one_round, close)


def _rounds(
    n: int, weights: Weights, one_round: Callable[[int, Weights], list[Answer]],
    close: Callable[[int, Weights, Sequence[Answer]], None],
) -> Weights:  # fmt: skip
    for turn in range(1, n + 1):
        answers = one_round(turn, weights)
        given = [(new, done.samples) for done, new in answers if new is not None]
        if given:  # else nobody answered, and the weights stay
            weights = average([new for new, _ in given], [samples for _, samples in given])
        close(turn, weights, answers)
    return weights


def ask(
    worker: Worker, weights: Weights, turn: int, config: FederateConfig, iteration: Iteration, link: Link
) -> Answer:
    """Let one worker train. One that fails, or that the deadline does not wait for, does not stop the round."""
    slowdown = config.slow.get(worker.number, 1.0)

    def done(answered: bool, steps: int, why: str = "") -> WorkerRound:
        return WorkerRound(
            worker=worker.number, samples=len(worker.samples), steps=steps, slowdown=slowdown, answered=answered,
            why=why,
        )  # fmt: skip

    planned = done(True, worker.steps)
    late = worker_time_s(planned, iteration, link, bytes_of(weights))
    if config.deadline_s is not None and late > config.deadline_s:
        return done(False, worker.steps, f"too slow: {late:.3g} s"), None
    try:
        return planned, worker.train(weights, turn)
    except (WorkerDied, RuntimeError, MemoryError) as error:
        log.warning("round %d goes on without worker %d: %s", turn, worker.number, error)
        return done(False, 0, f"died: {error}"), None


def check(config: FederateConfig) -> None:
    for name, value, allowed in (
        ("strategy", config.strategy, ("fedavg", "fedprox")), ("engine", config.engine, ("plain", "flower")),
    ):  # fmt: skip
        if value not in allowed:
            raise ValueError(f"{name}={value} is unknown; use one of {', '.join(allowed)}")
    if min(config.rounds, config.local_epochs) < 1 or config.batch_size < 0:
        raise ValueError(
            f"got rounds={config.rounds}, local_epochs={config.local_epochs}, batch_size={config.batch_size}; use at "
            "least 1, 1, and 0 for whole batches"
        )
    strangers = [k for k in (*config.dies, *config.slow) if not 0 <= k < config.workers]
    if strangers or any(not factor >= 1 for factor in config.slow.values()):
        raise ValueError(
            f"dies={config.dies}, slow={config.slow}: workers are 0 to {config.workers - 1}, and slow is a factor >= 1"
        )


def _row(turn: int, accuracy: float, cost: RoundCost, work: Sequence[WorkerRound]) -> dict[str, Any]:
    return {
        "round": turn, "accuracy": accuracy, "answered": sum(w.answered for w in work), **asdict(cost),
        "energy_j": cost.energy_j, "missing": "; ".join(f"worker {w.worker} {w.why}" for w in work if not w.answered),
    }  # fmt: skip


def tell(row: dict[str, Any]) -> None:
    print(
        f"round {row['round']:3d}  accuracy {100 * row['accuracy']:.2f} %  {row['answered']} answered  "
        f"{row['bytes'] / 1e6:.2f} MB  {row['time_s']:.3f} s  {row['energy_j']:.4f} J  {row['missing']}".rstrip(),
        flush=True,
    )


def write(folder: Path, result: dict[str, Any], rounds: list[dict[str, Any]], iid: list[dict[str, Any]]) -> None:
    """result.json, rounds.csv and report.html; the folder appears whole."""
    with whole(folder) as partial:
        partial.mkdir(parents=True)
        write_json(partial / "result.json", result)
        write_csv(partial / "rounds.csv", rounds)
        render(
            f"{result['workers']} workers train one {result['model']}",
            f"Every worker keeps its samples of {result['task']} and trains on a chip of its own; only weights travel, "
            f"{result['model_bytes'] / 1e3:,.0f} kB each way. Energies and times are those of the chip model.",
            federated_sections(result, rounds, iid), partial / "report.html",
            {
                "accuracy": f"{100 * result['accuracy']:.1f} %",
                "rounds": str(result["rounds"]),
                "sent and received": f"{result['total_bytes'] / 1e6:.1f} MB",
                "energy of all workers": f"{result['total_energy_j']:.3g} J",
            },
        )  # fmt: skip

