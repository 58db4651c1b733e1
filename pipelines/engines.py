"""`spikeloom engines`: one network trained twice, in PyTorch and through the chip's FP, BP and WG engines, and priced.

Same weights at the start, same batches, same optimizer. The tensors of the engines' training drive the cost model: an
epoch is priced with the densities that it had.
"""

import dataclasses
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from accel.export import Exported, export
from accel.files import whole, write_csv, write_json
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
from pipelines.simulate import load_chip
from pipelines.small_tasks import SmallTask, small_task

log = logging.getLogger("spikeloom")


def run(config: EnginesConfig) -> None:
    set_up(config.threads)
    arithmetic = Arithmetic(operands=config.precision, accumulate=config.accumulate)  # type: ignore[arg-type]
    chip = load_chip(config.chip)
    task = small_task(config.task, config.model, config.root, config.seed, config.limit)
    model = task.build(config.seed, config.window)
    exported = export(
        model, [task.encode(task.train.x[: config.batch_size])], name=f"{task.model_name} on {task.name}",
        source={"densities": "measured while the engines trained"},
    )  # fmt: skip
    started = time.perf_counter()
    rows, last = train_twice(config, task, model, exported, arithmetic, chip)
    result = {
        "task": task.name, "model": task.model_name, "seed": config.seed, "precision": config.precision,
        "accumulate": config.accumulate, "loss_scale": config.loss_scale, "window": config.window,
        "chip": chip.name, "train_samples": len(task.train), "test_samples": len(task.test),
        "parameters": sum(p.numel() for p in model.parameters()), "epochs": len(rows),
        "torch_accuracy": rows[-1].torch_accuracy, "engine_accuracy": rows[-1].engine_accuracy,
        "difference_points": 100 * (rows[-1].engine_accuracy - rows[-1].torch_accuracy),
        "skipped_steps": sum(row.skipped_steps for row in rows), "seconds": round(time.perf_counter() - started, 1),
    }  # fmt: skip
    folder = Path(config.out or f"runs/engines/{task.name}_{task.model_name}/seed{config.seed}")
    write(folder, result, rows, last, f"{config.precision} operands, {config.accumulate} accumulators", chip)
    log.info(
        "after %d epochs: PyTorch %.2f %%, engines %.2f %% on %d test samples -> %s",
        len(rows), 100 * rows[-1].torch_accuracy, 100 * rows[-1].engine_accuracy, len(task.test),
        folder / "report.html",
    )  # fmt: skip


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
    for epoch in range(config.epochs):
        engines.activity, losses, skipped = Activity(), [], 0
        for x, labels in batches(task, config, epoch):
            _torch_step(task, reference, torch_optimizer, x, labels)
            loss, done = _engine_step(task, engines, adam, x, labels)
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


def _torch_step(task: SmallTask, model: nn.Module, optimizer: Any, x: Tensor, labels: Tensor) -> None:
    model.train()
    optimizer.zero_grad()
    task.loss(model(x), labels).backward()
    optimizer.step()


def _engine_step(task: SmallTask, engines: Engines, adam: Adam, x: Tensor, labels: Tensor) -> tuple[float, bool]:
    """One step through the engines; False where the gradient overflowed and nothing was updated. The loss is a unit of
    its own, in FP32 on the logits."""
    out = engines.forward(x).requires_grad_()
    loss = task.loss(out, labels)
    (gradient,) = torch.autograd.grad(loss, out)
    gradients = engines.backward(gradient)
    finite = all(bool(torch.isfinite(g).all()) for g in gradients.values())
    if finite:
        adam.update(engines.parameters, gradients)
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
