"""`spikeloom engines`: one network trained twice, in PyTorch and through the chip's FP, BP and WG engines, and priced.

Same weights at the start, same batches, same optimizer. The tensors of the engines' training drive the cost model: an
epoch is priced with the densities that it had. A sweep (`-m seed=0,1,2`) ends in one table of both accuracies.
"""

import dataclasses
import logging
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spikeloom.accel.common.files import check_replaceable, read_json, whole, write_csv, write_json
from spikeloom.accel.common.report import render
from spikeloom.accel.common.statistics import mean_and_sd, one_run_a_seed
from spikeloom.accel.common.units import counted, energy_text
from spikeloom.accel.export.program import Exported, export
from spikeloom.accel.trainer.chip.chip import Chip
from spikeloom.accel.trainer.engines.activity import Activity, with_densities
from spikeloom.accel.trainer.engines.agreement import agreement
from spikeloom.accel.trainer.engines.arithmetic import Arithmetic
from spikeloom.accel.trainer.engines.program import Engines
from spikeloom.accel.trainer.engines.scaling import LossScale
from spikeloom.accel.trainer.engines.units import Adam
from spikeloom.accel.trainer.report.engines import OPERANDS, Epoch, engine_sections, measured
from spikeloom.accel.trainer.schedule.simulator import simulate
from spikeloom.accel.trainer.workload import Workload
from spikeloom.pipelines.config.chips import load_chip
from spikeloom.pipelines.config.engines import EnginesConfig
from spikeloom.pipelines.reports.sweeps import job_folder, leave
from spikeloom.pipelines.training.runtime import set_up
from spikeloom.pipelines.training.toy_datasets import Inputs, SmallTask
from spikeloom.pipelines.training.toy_trials import toy_problem

log = logging.getLogger("spikeloom")

SCALE_PATIENCE = 200  # steps without an overflow after which the loss scale doubles
# What a sweep may vary beside the seed.
ALIKE = (
    "task", "model", "precision", "accumulate", "lr", "anneal", "batch_size", "epochs", "window", "limit", "unseen",
)  # fmt: skip


def run(config: EnginesConfig) -> None:
    set_up(config.threads)
    arithmetic = Arithmetic(operands=config.precision, accumulate=config.accumulate)  # type: ignore[arg-type]
    chip = load_chip(config.chip)
    task = toy_problem(config.task, config.network, config.root, config.seed, config.limit, config.unseen)
    job = job_folder(Path(config.out or "runs/engines"), f"{task.name}_{task.model_name}_seed{config.seed}")
    folder = job or Path(config.out or f"runs/engines/{task.name}_{task.model_name}/seed{config.seed}")
    check_replaceable(folder, ("result.json", "epochs.csv", "workload.json", "report.html"))
    model = task.build(config.seed, config.window)
    exported = export(
        model, [task.encode(task.train.x[: config.batch_size])], name=f"{task.model_name} on {task.name}",
        source={"densities": "measured while the engines trained"}, axes=task.axes,
    )  # fmt: skip
    log.info(
        "engines: %s of %s, %s parameters, %d training and %d test samples (%s), %s, %s on %s -> %s",
        task.model_name, task.name, f"{sum(p.numel() for p in model.parameters()):,}", len(task.train), len(task.test),
        task.split, counted(config.epochs, "epoch"), config.precision, chip.name, folder,
    )  # fmt: skip
    started = time.perf_counter()
    first = next(batches(task, config, 0))
    before = _agreement(task, exported, first, arithmetic, config.loss_scale)
    rows, last = train_twice(config, task, model, exported, arithmetic, chip)
    after = _agreement(task, exported, first, arithmetic, rows[-1].loss_scale)
    result = {
        "task": task.name, "model": task.model_name, "seed": config.seed, "precision": config.precision,
        "accumulate": config.accumulate, "loss_scale": config.loss_scale, "window": config.window, "lr": config.lr,
        "anneal": config.anneal, "batch_size": config.batch_size, "limit": config.limit, "unseen": config.unseen,
        "warmup_steps": config.warmup_steps, "clip_norm": config.clip_norm,
        "chip": chip.name, "train_samples": len(task.train), "test_samples": len(task.test),
        "test_split": task.split,
        "parameters": sum(p.numel() for p in model.parameters()), "epochs": len(rows),
        "torch_accuracy": rows[-1].torch_accuracy, "engine_accuracy": rows[-1].engine_accuracy,
        "difference_points": 100 * (rows[-1].engine_accuracy - rows[-1].torch_accuracy),
        "control_accuracy": rows[-1].control_accuracy, "gradients_before": before, "gradients_after": after,
        "skipped_steps": sum(row.skipped_steps for row in rows), "seconds": round(time.perf_counter() - started, 1),
    }  # fmt: skip
    write(folder, result, rows, last, f"{config.precision} operands, {config.accumulate} accumulators", chip)
    log.info(
        "after %s: PyTorch %.2f %%, engines %.2f %% on %d test samples (%s) -> %s",
        counted(len(rows), "epoch"), 100 * rows[-1].torch_accuracy, 100 * rows[-1].engine_accuracy, len(task.test),
        task.split, folder / "report.html",
    )  # fmt: skip
    for when, found in (("before", before), ("after", after)):
        if found and found["spike_flips"] is not None:
            log.info(
                "%s training, %s differs from FP32 in %.2f %% of spikes; cosine of gradients %.3f, %.4f with the "
                "spikes of FP32", when, config.precision, 100 * found["spike_flips"], found["cosine"],
                found["cosine_forced"],
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
    reference, control = (task.build(config.seed, config.window) for _ in range(2))
    with torch.no_grad():  # the control parts from the reference by one rounding of the weights, and no other
        for p in control.parameters():
            p.copy_(p.half())
    by_torch = [reference, *([control] if config.control else [])]
    optimizers = [torch.optim.AdamW(m.parameters(), lr=config.lr, weight_decay=config.weight_decay) for m in by_torch]
    engines = Engines(exported.program, forward=arithmetic, loss_scale=1.0 if arithmetic.exact else config.loss_scale)
    adam = Adam(lr=config.lr, weight_decay=config.weight_decay)
    scale = LossScale(engines.loss_scale, patience=SCALE_PATIENCE if not arithmetic.exact else sys.maxsize)
    rows = []
    workload = exported.workload
    rates = learning_rates(config, len(task.train) // min(config.batch_size, len(task.train)) * config.epochs)
    for epoch in range(config.epochs):
        engines.activity, losses, skipped = Activity(), [], 0
        for x, labels in batches(task, config, epoch):
            rate = next(rates)
            for trained, optimizer in zip(by_torch, optimizers, strict=True):
                _torch_step(task, trained, optimizer, x, labels, rate, config.clip_norm)
            loss, done = _engine_step(task, engines, adam, scale, x, labels, rate, config.clip_norm)
            losses.append(loss)
            skipped += not done
        workload = with_densities(exported.workload, engines.activity.densities())
        row = _priced(
            workload, engines.activity, chip, epoch=epoch + 1, loss=sum(losses) / len(losses), skipped_steps=skipped,
            torch_accuracy=task.accuracy(reference, task.test), engine_accuracy=task.accuracy(model, task.test),
            loss_scale=scale.value, control_accuracy=task.accuracy(control, task.test) if config.control else None,
        )  # fmt: skip
        rows.append(row)
        print_epoch(row, task.split)
    return rows, workload


def batches(task: SmallTask, config: EnginesConfig, epoch: int) -> Iterator[tuple[Inputs, Tensor]]:
    """The batches of an epoch, shuffled by (seed, epoch); a last one that is not full is left out."""
    order = torch.randperm(len(task.train), generator=torch.Generator().manual_seed(config.seed * 1_000_003 + epoch))
    size = min(config.batch_size, len(task.train))
    for ids in order[: len(order) // size * size].split(size):
        yield task.encode(task.train.x[ids]), task.train.labels[ids]


def learning_rates(config: EnginesConfig, steps: int) -> Iterator[float]:
    """The rate of each of `steps` steps, for both trainings: it rises over the warm-up, then stays or falls."""
    first = config.warmup_steps
    for step in range(steps):
        falling = 0.5 * (1 + math.cos(math.pi * max(0, step - first) / max(1, steps - first))) if config.anneal else 1.0
        yield config.lr * falling * min(1.0, (step + 1) / (first + 1))


def _torch_step(
    task: SmallTask, model: nn.Module, optimizer: Any, x: Inputs, labels: Tensor, rate: float, clip_norm: float
) -> None:
    model.train()
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad()
    task.loss(task.run(model, x), labels).backward()
    if clip_norm:
        nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()


def _engine_step(
    task: SmallTask, engines: Engines, adam: Adam, scale: LossScale, x: Inputs, labels: Tensor, rate: float,
    clip_norm: float,
) -> tuple[float, bool]:  # fmt: skip
    """One step through the engines; False where the gradient overflowed and nothing was updated. The loss is a unit of
    its own, in FP32 on the logits."""
    engines.loss_scale = scale.value
    out = engines.forward(*(x if isinstance(x, tuple) else (x,))).requires_grad_()
    loss = task.loss(out, labels)
    (gradient,) = torch.autograd.grad(loss, out)
    gradients = engines.backward(gradient)
    done = scale.update(gradients)
    if done:
        if clip_norm:
            norm = torch.linalg.vector_norm(torch.stack([g.norm() for g in gradients.values()]))
            gradients = {name: g * min(1.0, clip_norm / (float(norm) + 1e-6)) for name, g in gradients.items()}
        adam.update(engines.parameters, gradients, rate)
    return float(loss.detach()), done


def _agreement(
    task: SmallTask, exported: Exported, batch: tuple[Inputs, Tensor], arithmetic: Arithmetic, loss_scale: float
) -> dict[str, Any] | None:
    """How gradients of the engines part from those of FP32 on one batch; None where nothing is rounded."""
    x, labels = batch
    if arithmetic.exact:
        return None
    found = agreement(
        exported.program,
        x if isinstance(x, tuple) else (x,),
        lambda out: task.loss(out, labels),
        arithmetic,
        loss_scale,
    )
    return dataclasses.asdict(found)


def _priced(workload: Workload, activity: Activity, chip: Chip, **fields: Any) -> Epoch:
    dense, zeros_off = (simulate(workload, gated(chip, on)) for on in (False, True))
    spikes = {path: seen["spike"].mean for path, seen in activity.densities().items() if "spike" in seen}
    return Epoch(
        densities={name: activity.mean(name) for name in OPERANDS if not math.isnan(activity.mean(name))},
        layer_spikes=spikes,
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


def print_epoch(row: Epoch, split: str) -> None:
    zeros = "  ".join(f"{name} {100 * row.densities[name]:.1f} %" for name in measured(row))
    print(
        f"epoch {row.epoch:3d}  loss {row.loss:.3f}  PyTorch {100 * row.torch_accuracy:.2f} %  engines "
        f"{100 * row.engine_accuracy:.2f} % ({split})  {zeros}  {energy_text(row.gated_energy_pj)} gated",
        flush=True,
    )


def write(
    folder: Path, result: dict[str, Any], rows: list[Epoch], workload: Workload, arithmetic: str, chip: Chip
) -> None:
    """result.json, epochs.csv, workload.json of the last epoch, report.html; the folder appears whole."""
    flat = [
        {
            "epoch": r.epoch, "loss": r.loss, "torch_accuracy": r.torch_accuracy, "engine_accuracy": r.engine_accuracy,
            **{f"density_{name}": value for name, value in r.densities.items()}, "dense_energy_pj": r.dense_energy_pj,
            "gated_energy_pj": r.gated_energy_pj, "cycles": r.cycles, "dram_bytes": r.dram_bytes,
            "skipped_steps": r.skipped_steps, "loss_scale": r.loss_scale,
            **({} if r.control_accuracy is None else {"control_accuracy": r.control_accuracy}),
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
            engine_sections(rows, arithmetic, chip.name, result["test_split"]), partial / "report.html",
            {
                f"test samples, {result['test_split']}": f"{result['test_samples']:,}",
                "PyTorch, test": f"{100 * result['torch_accuracy']:.2f} %",
                "engines, test": f"{100 * result['engine_accuracy']:.2f} %",
                "difference": f"{result['difference_points']:+.2f} points",
                "energy of a step, zeros gated": energy_text(rows[-1].gated_energy_pj),
            },
        )  # fmt: skip


def collect(jobs: Sequence[Path]) -> None:
    """seeds.json and the table of a sweep on the console: each run, then means and deviations over the seeds of runs
    that are alike in all else that tells them apart."""
    out = Path(os.path.commonpath([job.parent for job in jobs]))
    every: dict[tuple[Any, ...], list[tuple[int, str, dict[str, Any]]]] = {}  # what is alike -> (seed, run, result)
    for job in sorted(jobs):
        result = read_json(job / "result.json", "run the sweep again")
        every.setdefault(tuple(result[key] for key in ALIKE), []).append((result["seed"], job.name, result))
    rows, groups = [], {}
    for alike, runs in every.items():
        found, duplicates = one_run_a_seed(runs)
        groups[alike] = found
        for note in duplicates:
            print(note)
        row: dict[str, Any] = {**dict(zip(ALIKE, alike, strict=True)), "seeds": [r["seed"] for r in found]}
        row["test_split"] = ", ".join(dict.fromkeys(r["test_split"] for r in found))
        for name, values in (
            ("torch_percent", [100 * r["torch_accuracy"] for r in found]),
            ("engine_percent", [100 * r["engine_accuracy"] for r in found]),
            ("difference_points", [r["difference_points"] for r in found]),
            *([("control_percent", [100 * r["control_accuracy"] for r in found])] if controlled(found) else []),
        ):  # fmt: skip
            row[name], row[f"{name}_sd"] = mean_and_sd(values)
        rows.append(row)
    write_json(out / "seeds.json", rows)
    names = [
        f"{row['task']} {row['model']} ({row['test_split']}), {row['precision']}/{row['accumulate']}, lr {row['lr']:g}"
        for row in rows
    ]
    width = max(len(f"{name}, seed {seed}") for name, row in zip(names, rows, strict=True) for seed in row["seeds"])
    print(f"{'':{width}s} {'PyTorch %':>14s} {'engines %':>14s} {'difference':>14s} {'control %':>14s}")
    for name, row, found in zip(names, rows, groups.values(), strict=True):
        for r in found:
            numbers = 100 * r["torch_accuracy"], 100 * r["engine_accuracy"], r["difference_points"]
            what, control = (
                f"{name}, seed {r['seed']}",
                f"{100 * r['control_accuracy']:.2f}" if controlled([r]) else "–",
            )
            print(f"{what:{width}s} {numbers[0]:14.2f} {numbers[1]:14.2f} {numbers[2]:+14.2f} {control:>14s}")
        if len(found) > 1:
            cells = [f"{row[key]:.2f} ± {row[key + '_sd']:.2f}" for key in ("torch_percent", "engine_percent")] + [
                f"{row['difference_points']:+.2f} ± {row['difference_points_sd']:.2f}"
            ]
            if "control_percent" in row:
                cells.append(f"{row['control_percent']:.2f} ± {row['control_percent_sd']:.2f}")
            what = f"mean ± sd of {len(found)} seeds ({row['test_split']})"
            print(f"{what:{width}s} " + " ".join(f"{cell:>14s}" for cell in cells))
    print(f"-> {out / 'seeds.json'}")


def controlled(results: Sequence[dict[str, Any]]) -> bool:
    """Whether all runs trained a control."""
    return all(r["control_accuracy"] is not None for r in results)
