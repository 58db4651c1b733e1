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

from spikeloom.accel.common.files import check_replaceable, whole, write_csv, write_json
from spikeloom.accel.common.report import render
from spikeloom.accel.common.units import counted, duration_text, energy_text, size_text
from spikeloom.accel.export.program import export
from spikeloom.accel.trainer.federated.rounds import (
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
from spikeloom.accel.trainer.report.federated import federated_sections
from spikeloom.accel.trainer.schedule.simulator import simulate
from spikeloom.pipelines.config.chips import load_chip
from spikeloom.pipelines.config.federate import FederateConfig
from spikeloom.pipelines.federated.workers import Worker, WorkerDied, bytes_of, describe, load, unload
from spikeloom.pipelines.training.runtime import set_up
from spikeloom.pipelines.training.toy_datasets import SmallTask
from spikeloom.pipelines.training.toy_trials import toy_problem

log = logging.getLogger("spikeloom")
Answer = tuple[WorkerRound, dict[str, np.ndarray] | None]


def run(config: FederateConfig) -> None:
    config = replace(config, dies=config.dies or {}, slow=config.slow or {})
    check(config)
    set_up(config.threads)
    task = toy_problem(config.task, config.network, config.root, config.seed, config.limit, readers=config.workers)
    folder = Path(config.out or f"runs/federate/{task.name}_{task.model_name}_{config.split}/seed{config.seed}")
    check_replaceable(folder, ("result.json", "rounds.csv", "report.html"))
    iteration, chip_name = iteration_on_chip(task, config)
    log.info(
        "federate: %s of %s, %d training and %d test samples (%s), %s (%s), %s of %s -> %s",
        task.model_name, task.name, len(task.train), len(task.test), task.split, counted(config.workers, "worker"),
        config.split, counted(config.rounds, "round"), counted(config.local_epochs, "epoch"), folder,
    )  # fmt: skip
    rounds, workers, weights = federate(config, task, iteration)
    result: dict[str, Any] = {
        "task": task.name, "model": task.model_name, "seed": config.seed, "workers": config.workers,
        "split": config.split, "alpha": config.alpha if config.split == "dirichlet" else None,
        "strategy": config.strategy, "engine": config.engine, "optimizer": config.local_optimizer,
        "rounds": config.rounds,
        "local_epochs": config.local_epochs, "model_bytes": bytes_of(weights), "chip": chip_name,
        "iteration_time_s": iteration.time_s, "iteration_energy_j": iteration.energy_j,
        "link_bits_per_s": config.link_bits_per_s, "link_pj_per_bit": config.link_pj_per_bit,
        "test_samples": len(task.test), "test_split": task.split, "accuracy": rounds[-1]["accuracy"],
        **{f"total_{name}": sum(r[name] for r in rounds) for name in ("bytes", "time_s", "energy_j")},
        "holders": describe(workers, task.n_classes),
    }  # fmt: skip
    iid: list[dict[str, Any]] = []
    if config.compare_iid and config.split != "iid":
        log.info("the same with equal shares of a shuffle, to compare")
        iid, _, _ = federate(replace(config, split="iid", dies={}, slow={}), task, iteration)
        result |= {"iid_accuracy": iid[-1]["accuracy"], "non_iid_gap": iid[-1]["accuracy"] - rounds[-1]["accuracy"]}
    write(folder, result, rounds, iid)
    log.info(
        "accuracy %.2f %% (%s) after %d rounds -> %s", 100 * result["accuracy"], task.split, config.rounds,
        folder / "report.html",
    )  # fmt: skip


def iteration_on_chip(task: SmallTask, config: FederateConfig) -> tuple[Iteration, str]:
    """Cost of one local training step on a worker's chip, from an export of the model at its batch size."""
    size = max(2, min(config.batch_size or len(task.train) // config.workers, len(task.train)))
    batch = task.encode(task.train.x[:size])
    exported = export(
        task.build(config.seed), [batch], name=task.model_name, source={"densities": "one batch"}, axes=task.axes
    )
    report = simulate(exported.workload, load_chip(config.chip))
    cost = Iteration(time_s=report.time_per_iteration_ms / 1e3, energy_j=report.energy_per_iteration_pj * 1e-12)
    return cost, report.chip_name


def federate(
    config: FederateConfig, task: SmallTask, iteration: Iteration, say: bool = True
) -> tuple[list[dict[str, Any]], list[Worker], Weights]:
    """Rows of the rounds, the workers, and the weights that they end with.

    Raises:
        ValueError: for settings that cannot be, and where nobody answered in any round.
    """
    config = replace(config, dies=config.dies or {}, slow=config.slow or {})
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

    def ask_one(number: int, turn: int, current: Weights) -> Answer:
        return ask(workers[number], current, turn, config, iteration, link)

    def close(turn: int, averaged: Weights, answers: Sequence[Answer]) -> None:
        load(server, averaged)
        work = [done for done, _ in answers]
        cost = round_cost(work, iteration, link, bytes_of(averaged), config.deadline_s)
        rows.append(_row(turn, task.accuracy(server, task.test), cost, work))
        if say:
            print_round(rows[-1], task.split)

    if config.engine == "flower":
        from spikeloom.pipelines.federated.flower import run_rounds

        found = run_rounds(config.rounds, config.workers, weights, ask_one, close)
    else:
        found = _rounds(config.rounds, config.workers, weights, ask_one, close)
    if not any(row["answered"] for row in rows):
        reasons = "; ".join(dict.fromkeys(row["missing"] for row in rows if row["missing"])) or "no round was closed"
        raise ValueError(f"nobody answered in {config.rounds} rounds ({reasons[:300]}); use a later deadline_s or dies")
    return rows, workers, found


def _rounds(
    n: int, workers: int, weights: Weights, ask_one: Callable[[int, int, Weights], Answer],
    close: Callable[[int, Weights, Sequence[Answer]], None],
) -> Weights:  # fmt: skip
    for turn in range(1, n + 1):
        answers = [ask_one(number, turn, weights) for number in range(workers)]
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
    for name, given in (("dies", config.dies), ("slow", config.slow)):
        if not isinstance(given, dict) or not all(isinstance(v, int | float) for kv in given.items() for v in kv):
            raise ValueError(f"{name}={given}: numbers of workers and a number for each, as in {name}={{1:2}}")
    unknown = [k for k in (*config.dies, *config.slow) if k not in range(config.workers)]
    if unknown or any(not factor >= 1 for factor in config.slow.values()):
        raise ValueError(
            f"dies={config.dies}, slow={config.slow}: workers are 0 to {config.workers - 1}, and slow is a factor >= 1"
        )


def _row(turn: int, accuracy: float, cost: RoundCost, work: Sequence[WorkerRound]) -> dict[str, Any]:
    return {
        "round": turn, "accuracy": accuracy, "answered": sum(w.answered for w in work), **asdict(cost),
        "energy_j": cost.energy_j, "missing": "; ".join(f"worker {w.worker} {w.why}" for w in work if not w.answered),
    }  # fmt: skip


def print_round(row: dict[str, Any], split: str) -> None:
    print(
        f"round {row['round']:3d}  accuracy {100 * row['accuracy']:.2f} % ({split})  {row['answered']} answered  "
        f"{size_text(row['bytes'])}  {duration_text(1e3 * row['time_s'])}  {energy_text(1e12 * row['energy_j'])}  "
        f"{row['missing']}".rstrip(),
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
            f"{size_text(result['model_bytes'])} each way. Energies and times are those of the chip model.",
            federated_sections(result, rounds, iid), partial / "report.html",
            {
                f"test accuracy, {result['test_split']}": f"{100 * result['accuracy']:.1f} %",
                "rounds": str(result["rounds"]),
                "sent and received": size_text(result['total_bytes']),
                "energy of all workers": energy_text(1e12 * result['total_energy_j']),
            },
        )  # fmt: skip
