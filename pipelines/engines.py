"""`spikeloom engines`: one network trained twice, in PyTorch and through the chip's FP, BP and WG engines, and priced.

Same weights at the start, same batches, same optimizer. The tensors of the engines' training drive the cost model: an
epoch is priced with the densities that it had. A sweep (`-m seed=0,1,2`) ends in one table of both accuracies.
"""

import dataclasses
import logging
import math
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from accel.export import Exported, export
from accel.files import check_replaceable, read_json, whole, write_csv, write_json
from accel.report import render
from accel.trainer.chip import Chip
from accel.trainer.engines.activity import Activity, with_densities
from accel.trainer.engines.arithmetic import Arithmetic
from accel.trainer.engines.program import Engines
from accel.trainer.engines.units import Adam
from accel.trainer.figures_engines import OPERANDS, Epoch, engine_sections
from accel.trainer.simulator import simulate
from accel.trainer.workload import Workload
from pipelines.process import set_up
from pipelines.schema import EnginesConfig
from pipelines.scores import mean_and_sd
from pipelines.simulate import load_chip
from pipelines.small_tasks import SmallTask, small_task
from pipelines.sweeps import job_folder, leave

log = logging.getLogger("spikeloom")

# What a sweep may vary beside the seed.
ALIKE = ("task", "model", "precision", "accumulate", "lr", "anneal", "batch_size", "epochs", "window", "train_samples")


def run(config: EnginesConfig) -> None:
    set_up(config.threads)
    arithmetic = Arithmetic(operands=config.precision, accumulate=config.accumulate)  # type: ignore[arg-type]
    chip = load_chip(config.chip)
    task = small_task(config.task, config.network, config.root, config.seed, config.limit)
    job = job_folder(Path(config.out or "runs/engines"), f"{task.name}_{task.model_name}_seed{config.seed}")
    folder = job or Path(config.out or f"runs/engines/{task.name}_{task.model_name}/seed{config.seed}")
    check_replaceable(folder, ("result.json", "epochs.csv", "workload.json", "report.html"))
    model = task.build(config.seed, config.window)
    exported = export(
        model, [task.encode(task.train.x[: config.batch_size])], name=f"{task.model_name} on {task.name}",
        source={"densities": "measured while the engines trained"},
    )  # fmt: skip
    started = time.perf_counter()
    rows, last = train_twice(config, task, model, exported, arithmetic, chip)
    result = {
        "task": task.name, "model": task.model_name, "seed": config.seed, "precision": config.precision,
        "accumulate": config.accumulate, "loss_scale": config.loss_scale, "window": config.window, "lr": config.lr,
        "anneal": config.anneal, "batch_size": config.batch_size,
        "chip": chip.name, "train_samples": len(task.train), "test_samples": len(task.test),
        "parameters": sum(p.numel() for p in model.parameters()), "epochs": len(rows),
        "torch_accuracy": rows[-1].torch_accuracy, "engine_accuracy": rows[-1].engine_accuracy,
        "difference_points": 100 * (rows[-1].engine_accuracy - rows[-1].torch_accuracy),
        "skipped_steps": sum(row.skipped_steps for row in rows), "seconds": round(time.perf_counter() - started, 1),
    }  # fmt: skip
    write(folder, result, rows, last, f"{config.precision} operands, {config.accumulate} accumulators", chip)
    log.info(
        "after %d epochs: PyTorch %.2f %%, engines %.2f %% on %d test samples -> %s",
        len(rows), 100 * rows[-1].torch_accuracy, 100 * rows[-1].engine_accuracy, len(task.test),
        folder / "report.html",
    )  # fmt: skip
    if job is not None:
        leave(job)


def train_twice(
    config: EnginesConfig, task: SmallTask, model: nn.Module, exported: Exported, arithmetic: Arithmetic, chip: Chip
) -> tuple[list[Epoch], Workload]:
    """Epoch rows, and the workload with the densities of the last epoch. The engines train `model`, which `exported`
    was made from, in place."""
    if config.epochs < 1 or config.batch_size < 2:
        raise ValueError(f"got epochs={config.epochs}, batch_size={config.batch_size}; use at least 1 and 2")
    reference = task.build(config.seed, config.window)
    torch_optimizer = torch.optim.AdamW(reference.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    engines = Engines(exported.program, forward=arithmetic, loss_scale=1.0 if arithmetic.exact else config.loss_scale)
    adam = Adam(lr=config.lr, weight_decay=config.weight_decay)
    rows = []
    workload = exported.workload
    rates = learning_rates(config, len(task.train) // min(config.batch_size, len(task.train)) * config.epochs)
    for epoch in range(config.epochs):
        engines.activity, losses, skipped = Activity(), [], 0
        for x, labels in batches(task, config, epoch):
            rate = next(rates)
            _torch_step(task, reference, torch_optimizer, x, labels, rate)
            loss, done = _engine_step(task, engines, adam, x, labels, rate)
            losses.append(loss)
            skipped += not done
        workload = with_densities(exported.workload, engines.activity.densities())
        row = _priced(
            workload, engines.activity, chip, epoch=epoch + 1, loss=sum(losses) / len(losses), skipped_steps=skipped,
            torch_accuracy=task.accuracy(reference, task.test), engine_accuracy=task.accuracy(model, task.test),
        )  # fmt: skip
        rows.append(row)
        tell(row)
    return rows, workload


def batches(task: SmallTask, config: EnginesConfig, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of an epoch, shuffled by (seed, epoch); a last one that is not full is left out."""
    order = torch.randperm(len(task.train), generator=torch.Generator().manual_seed(config.seed * 1_000_003 + epoch))
    size = min(config.batch_size, len(task.train))
    for ids in order[: len(order) // size * size].split(size):
        yield task.encode(task.train.x[ids]), task.train.labels[ids]


def learning_rates(config: EnginesConfig, steps: int) -> Iterator[float]:
    """The rate of each of `steps` steps, the same for both trainings."""
    for step in range(steps):
        yield config.lr * (0.5 * (1 + math.cos(math.pi * step / steps)) if config.anneal else 1.0)


def _torch_step(task: SmallTask, model: nn.Module, optimizer: Any, x: Tensor, labels: Tensor, rate: float) -> None:
    model.train()
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    task.loss(model(x), labels).backward()
    optimizer.step()


def _engine_step(
    task: SmallTask, engines: Engines, adam: Adam, x: Tensor, labels: Tensor, rate: float
) -> tuple[float, bool]:
    """One step through the engines; False where the gradient overflowed and nothing was updated. The loss is a unit of
    its own, in FP32 on the logits."""
    out = engines.forward(x).requires_grad_()
    loss = task.loss(out, labels)
    (gradient,) = torch.autograd.grad(loss, out)
    gradients = engines.backward(gradient)
    finite = all(bool(torch.isfinite(g).all()) for g in gradients.values())
    if finite:
        adam.update(engines.parameters, gradients, rate)
    return float(loss.detach()), finite


def _priced(workload: Workload, activity: Activity, chip: Chip, **fields: Any) -> Epoch:
    dense, zeros_off = (simulate(workload, gated(chip, on)) for on in (False, True))
    spikes = {path: seen["spike"].mean for path, seen in activity.densities().items() if "spike" in seen}
    return Epoch(
        densities={name: activity.mean(name) for name in OPERANDS}, layer_spikes=spikes,
        dense_energy_pj=dense.energy_per_iteration_pj, gated_energy_pj=zeros_off.energy_per_iteration_pj,
        cycles=dense.cycles_per_iteration, dram_bytes=dense.dram_bytes_per_iteration, **fields,
    )  # fmt: skip


def gated(chip: Chip, on: bool = True) -> Chip:
    """The same chip with zero-gating of every operand in every engine, or of none; zeros are never skipped."""
    operands = {"fp": ("input", "weight"), "bp": ("du", "weight"), "wg": ("input", "du")}
    changed = {
        name: dataclasses.replace(getattr(chip, name), zero_gating=zeros if on else (), zero_skipping=())
        for name, zeros in operands.items()
    }
    return dataclasses.replace(chip, **changed)


def tell(row: Epoch) -> None:
    zeros = "  ".join(f"{name} {100 * row.densities[name]:.1f} %" for name in OPERANDS[:3])
    print(
        f"epoch {row.epoch:3d}  loss {row.loss:.3f}  PyTorch {100 * row.torch_accuracy:.2f} %  engines "
        f"{100 * row.engine_accuracy:.2f} %  {zeros}  {row.gated_energy_pj / 1e6:.1f} µJ gated",
        flush=True,
    )


def write(
    folder: Path, result: dict[str, Any], rows: list[Epoch], workload: Workload, arithmetic: str, chip: Chip
) -> None:
    """result.json, epochs.csv, workload.json of the last epoch, report.html; the folder appears whole."""
    flat = [
        {
            "epoch": r.epoch, "loss": r.loss, "torch_accuracy": r.torch_accuracy, "engine_accuracy": r.engine_accuracy,
            **{f"density_{name}": r.densities[name] for name in OPERANDS}, "dense_energy_pj": r.dense_energy_pj,
            "gated_energy_pj": r.gated_energy_pj, "cycles": r.cycles, "dram_bytes": r.dram_bytes,
            "skipped_steps": r.skipped_steps,
        }
        for r in rows
    ]  # fmt: skip
    with whole(folder) as partial:
        partial.mkdir(parents=True)
        write_json(partial / "result.json", result)
        write_csv(partial / "epochs.csv", flat)
        workload.to_json(partial / "workload.json")
        render(
            f"{result['model']} on {result['task']}, trained through the engines",
            f"A network with {result['parameters']:,} parameters learned from {result['train_samples']:,} samples in "
            f"the arithmetic of the training chip ({arithmetic}), beside the same training in PyTorch. What was zero "
            "on the way is what the cost model prices.",
            engine_sections(rows, arithmetic, chip.name), partial / "report.html",
            {
                "PyTorch, test": f"{100 * result['torch_accuracy']:.2f} %",
                "engines, test": f"{100 * result['engine_accuracy']:.2f} %",
                "difference": f"{result['difference_points']:+.2f} points",
                "energy of a step, zeros gated": f"{rows[-1].gated_energy_pj / 1e6:.3g} µJ",
            },
        )  # fmt: skip


def collect(jobs: Sequence[Path]) -> None:
    """seeds.json and the table of a sweep on the console: each run, then means and deviations over the seeds of runs
    that are alike in all else that tells them apart."""
    results = [read_json(job / "result.json", "run the sweep again") for job in sorted(jobs)]
    out = Path(os.path.commonpath([job.parent for job in jobs]))
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for result in results:
        groups.setdefault(tuple(result[key] for key in ALIKE), []).append(result)
    rows = []
    for alike, found in groups.items():
        row: dict[str, Any] = {**dict(zip(ALIKE, alike, strict=True)), "seeds": [r["seed"] for r in found]}
        for name, values in (
            ("torch_percent", [100 * r["torch_accuracy"] for r in found]),
            ("engine_percent", [100 * r["engine_accuracy"] for r in found]),
            ("difference_points", [r["difference_points"] for r in found]),
        ):  # fmt: skip
            row[name], row[f"{name}_sd"] = mean_and_sd(values)
        rows.append(row)
    write_json(out / "seeds.json", rows)
    print(f"{'':44s} {'PyTorch %':>14s} {'engines %':>14s} {'difference':>14s}")
    for row, found in zip(rows, groups.values(), strict=True):
        what = f"{row['task']} {row['model']}, {row['precision']}/{row['accumulate']}, lr {row['lr']:g}"
        for r in found:
            numbers = 100 * r["torch_accuracy"], 100 * r["engine_accuracy"], r["difference_points"]
            print(f"{what + ', seed ' + str(r['seed']):44s} {numbers[0]:14.2f} {numbers[1]:14.2f} {numbers[2]:+14.2f}")
        if len(found) > 1:
            cells = [
                f"{row[name]:.2f} ± {row[name + '_sd']:.2f}" for name in ("torch_percent", "engine_percent")
            ] + [f"{row['difference_points']:+.2f} ± {row['difference_points_sd']:.2f}"]
            print(f"{f'mean ± sd of {len(found)} seeds':44s} " + " ".join(f"{cell:>14s}" for cell in cells))
    print(f"-> {out / 'seeds.json'}")
