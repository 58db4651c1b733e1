"""A training through the engines as sections of a report: accuracy beside PyTorch, and how sparsity and cost drift."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from accel.report import Section, Table, new_figure, palette

OPERANDS = ("spike", "mask", "du", "weight")
NAMES = {
    "spike": "spikes", "mask": "surrogate masks", "du": "gradients of neurons and products", "weight": "weights",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One epoch: test accuracies, mean densities, and the cost of an average training step, priced from the same
    tensors with every slot charged (`dense`) and with zeros gated off (`gated`)."""

    epoch: int
    torch_accuracy: float
    engine_accuracy: float
    loss: float
    densities: Mapping[str, float]
    layer_spikes: Mapping[str, float]
    dense_energy_pj: float
    gated_energy_pj: float
    cycles: int
    dram_bytes: int
    skipped_steps: int  # a gradient overflowed FP16, nothing was updated


def engine_sections(rows: Sequence[Epoch], arithmetic: str, chip_name: str) -> list[Section]:
    """Accuracy, drift and the table of epochs."""
    return [_accuracy(rows, arithmetic), _drift(rows, chip_name), _layers(rows), _table(rows)]


def _accuracy(rows: Sequence[Epoch], arithmetic: str) -> Section:
    figure = new_figure(9.4, 3.0)
    axes = figure.subplots()
    epochs = [row.epoch for row in rows]
    style: dict[str, Any] = {"marker": "o", "ms": 4}
    axes.plot(epochs, [100 * r.torch_accuracy for r in rows], color=palette[6], label="PyTorch, FP32", **style)
    axes.plot(epochs, [100 * r.engine_accuracy for r in rows], color=palette[0], label="engines", **style)
    axes.set_xlabel("epoch")
    axes.set_ylabel("test accuracy (%)")
    axes.set_xticks(epochs[:: max(1, len(epochs) // 12)])
    axes.legend(frameon=False, loc="lower right")
    return Section(
        title="The same training twice",
        caption="One network, one seed, the same batches in the same order: once in PyTorch, once through the forward, "
        f"backward and weight-gradient engines ({arithmetic}).",
        figure=figure,
    )


def _drift(rows: Sequence[Epoch], chip_name: str) -> Section:
    figure = new_figure(9.4, 3.3)
    left, right = figure.subplots(1, 2)
    epochs = [row.epoch for row in rows]
    for colour, operand in zip(palette, OPERANDS[:3], strict=False):
        values = [100 * r.densities[operand] for r in rows]
        left.plot(epochs, values, color=colour, label=NAMES[operand], marker="o", ms=3)
    left.set_ylabel("not zero (%)")
    left.set_ylim(0, 130)
    left.set_yticks(range(0, 101, 20))
    for colour, label, values in (
        (palette[6], "every slot charged", [r.dense_energy_pj / 1e6 for r in rows]),
        (palette[0], "zeros gated off", [r.gated_energy_pj / 1e6 for r in rows]),
    ):
        right.plot(epochs, values, color=colour, label=label, marker="o", ms=3)
    right.set_ylabel("energy of a step (µJ)")
    right.set_ylim(0, 1.35 * max(r.dense_energy_pj for r in rows) / 1e6)
    for axis in (left, right):
        axis.set_xlabel("epoch")
        axis.set_xticks(epochs[:: max(1, len(epochs) // 8)])
        axis.legend(frameon=False, fontsize=9)
    return Section(
        title="Zeros and energy, epoch by epoch",
        caption="Left, how much of the tensors was not zero in each epoch, averaged over layers. Right, what an "
        f"average training step of that epoch costs on {chip_name}, priced from those very tensors: with every slot "
        "of the arrays charged, and with the arithmetic on zeros switched off.",
        figure=figure,
    )


def _layers(rows: Sequence[Epoch]) -> Section:
    figure = new_figure(9.4, 3.6)
    axes = figure.subplots()
    for index, path in enumerate(rows[0].layer_spikes):
        style = "-" if index < len(palette) else "--"
        values = [100 * row.layer_spikes[path] for row in rows]
        colour = palette[index % len(palette)]
        axes.plot([r.epoch for r in rows], values, style, color=colour, label=path, linewidth=1.3, marker="o", ms=3)
    axes.set_xlabel("epoch")
    axes.set_xticks([row.epoch for row in rows][:: max(1, len(rows) // 12)])
    axes.set_ylabel("neurons that fire in a step (%)")
    axes.set_ylim(0, None)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.02))
    return Section(
        title="Spikes by layer",
        caption="Share of neurons that fire in a time step of training, layer by layer.",
        figure=figure,
    )


def _table(rows: Sequence[Epoch]) -> Section:
    skipped = any(r.skipped_steps for r in rows)
    table: list[Sequence[str | int | float]] = [
        (
            r.epoch, f"{100 * r.torch_accuracy:.2f}", f"{100 * r.engine_accuracy:.2f}",
            *(f"{100 * r.densities[name]:.1f}" for name in OPERANDS[:3]), f"{r.dense_energy_pj / 1e6:.2f}",
            f"{r.gated_energy_pj / 1e6:.2f}", r.cycles, f"{r.dram_bytes / 1e6:.3f}",
            *([r.skipped_steps] if skipped else []),
        )
        for r in rows
    ]  # fmt: skip
    return Section(
        title="Epoch by epoch",
        caption="Test accuracy in %, share of non-zeros in %, and cost of an average training step. "
        + ("A step whose gradient overflowed FP16 is skipped." if skipped else "No gradient overflowed FP16."),
        table=Table(
            columns=(
                "epoch", "PyTorch", "engines", "spikes", "masks", "du", "µJ", "gated", "cycles", "DRAM MB",
                *(["skipped"] if skipped else []),
            ),
            rows=table,
        ),
    )  # fmt: skip
