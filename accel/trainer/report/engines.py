"""A training through the engines as sections of a report: accuracy beside PyTorch, and how sparsity and cost drift."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spikeloom.accel.common.report import MUTED, Section, Table, new_figure, palette

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
    loss_scale: float = 1.0  # at its end
    control_accuracy: float | None = None  # of PyTorch again, from weights that were rounded once


def engine_sections(rows: Sequence[Epoch], arithmetic: str, chip_name: str, split: str) -> list[Section]:
    """Accuracy, drift and the table of epochs. split: how the test samples were chosen."""
    fired = [_layers(rows)] if rows[0].layer_spikes else []
    return [_accuracy(rows, arithmetic, split), _drift(rows, chip_name), *fired, _table(rows, split)]


def measured(row: Epoch) -> list[str]:
    """Operands that are shown: a network without neurons has no spikes and masks."""
    return [name for name in OPERANDS[:3] if name in row.densities]


def _accuracy(rows: Sequence[Epoch], arithmetic: str, split: str) -> Section:
    figure = new_figure(9.4, 3.0)
    axes = figure.subplots()
    epochs = [row.epoch for row in rows]
    style: dict[str, Any] = {"marker": "o", "ms": 4}
    axes.plot(epochs, [100 * r.torch_accuracy for r in rows], color=palette[6], label="PyTorch, FP32", **style)
    control = [100 * r.control_accuracy for r in rows if r.control_accuracy is not None]
    if control:
        axes.plot(epochs, control, color=palette[1], label="PyTorch, weights rounded once", linewidth=1)
    axes.plot(epochs, [100 * r.engine_accuracy for r in rows], color=palette[0], label="engines", **style)
    axes.set_xlabel("epoch")
    axes.set_ylabel("test accuracy (%)")
    axes.set_xticks(epochs[:: max(1, len(epochs) // 12)])
    axes.legend(frameon=False, loc="lower right")
    return Section(
        title="The same training twice",
        caption="One network, one seed, the same batches in the same order: once in PyTorch, once through the forward, "
        f"backward and weight-gradient engines ({arithmetic}). Test samples: {split}.",
        figure=figure,
    )


def _drift(rows: Sequence[Epoch], chip_name: str) -> Section:
    figure = new_figure(9.4, 3.3)
    left, right = figure.subplots(1, 2)
    epochs = [row.epoch for row in rows]
    for colour, operand in zip(palette, measured(rows[0]), strict=False):
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
    """Lines, or where there are more layers than colours, a map of layers by epochs."""
    if len(rows[0].layer_spikes) > len(palette):
        return _map_of_layers(rows)
    figure = new_figure(9.4, 3.6)
    axes = figure.subplots()
    for index, path in enumerate(rows[0].layer_spikes):
        values = [100 * row.layer_spikes[path] for row in rows]
        axes.plot([r.epoch for r in rows], values, color=palette[index], label=path, linewidth=1.3, marker="o", ms=3)
    axes.set_xlabel("epoch")
    axes.set_xticks([row.epoch for row in rows][:: max(1, len(rows) // 12)])
    axes.set_ylabel("neurons that fire in a step (%)")
    axes.set_ylim(0, None)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.02))
    return Section(
        title="Spikes by layer",
        caption=LAYERS,
        figure=figure,
    )


LAYERS = "Fraction of neurons that fire in a time step of training, layer by layer."


def _map_of_layers(rows: Sequence[Epoch]) -> Section:
    paths = list(rows[0].layer_spikes)
    figure = new_figure(9.4, 1.0 + 0.24 * len(paths))
    axes = figure.subplots()
    rates = [[100 * row.layer_spikes[path] for row in rows] for path in paths]
    edges = (rows[0].epoch - 0.5, rows[-1].epoch + 0.5, len(paths) - 0.5, -0.5)
    image = axes.imshow(rates, cmap="viridis", vmin=0, aspect="auto", extent=edges, interpolation="nearest")
    axes.grid(False)
    axes.set_xlabel("epoch")
    axes.set_xticks([row.epoch for row in rows][:: max(1, len(rows) // 12)])
    axes.set_yticks(range(len(paths)), paths, fontsize=8)
    bar = figure.colorbar(image, ax=axes, pad=0.01)
    bar.set_label("neurons that fire in a step (%)", color=MUTED)
    bar.ax.tick_params(color=MUTED, labelcolor=MUTED)
    bar.outline.set_visible(False)
    return Section(title="Spikes by layer", caption=f"{LAYERS} From the input (top) to the output.", figure=figure)


def _table(rows: Sequence[Epoch], split: str) -> Section:
    skipped, shown = any(r.skipped_steps for r in rows), measured(rows[0])
    short = {"spike": "spikes", "mask": "surrogate masks", "du": "gradients"}
    table: list[Sequence[str | int | float]] = [
        (
            r.epoch, f"{100 * r.torch_accuracy:.2f}", f"{100 * r.engine_accuracy:.2f}",
            *(f"{100 * r.densities[name]:.1f}" for name in shown), r.dense_energy_pj / 1e6,
            r.gated_energy_pj / 1e6, r.cycles, r.dram_bytes / 1e6,
            *([r.skipped_steps] if skipped else []),
        )
        for r in rows
    ]  # fmt: skip
    return Section(
        title="Epoch by epoch",
        caption=f"Test accuracy in % ({split}), fraction of non-zeros in %, and cost of an average training step. "
        + ("A step whose gradient overflowed FP16 is skipped." if skipped else "No gradient overflowed FP16."),
        table=Table(
            columns=(
                "epoch", "PyTorch", "engines", *(short[name] for name in shown), "µJ", "µJ, zeros gated",
                "cycles", "DRAM MB", *(["skipped"] if skipped else []),
            ),
            rows=table,
        ),
    )  # fmt: skip
