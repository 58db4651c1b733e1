"""Charts that look the same for every model and data set: learning curve, confusion matrix, firing rates, class counts.

Each function takes plain arrays and numbers and returns a `Section` with a caption for a reader who does not know the
field; nothing here computes a result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from spikeloom.accel.common.report import INK, MUTED, ON_LIGHT, Section, Table, new_figure, palette

WIDTH_IN = 9.4
MAX_COUNTED_CLASSES = 20  # with more classes the numbers no longer fit into their cells
MAX_NAMED_CLASSES = 60
LONGEST_NAME = 24


def _epochs(rows: Sequence[Mapping[str, float]], columns: Sequence[str], best_epoch: int) -> list[int]:
    """The epochs of rows that have all `columns`, `best_epoch` among them."""
    for name in ("epoch", *columns):
        lacking = [i for i, row in enumerate(rows) if name not in row]
        if lacking:
            raise ValueError(f"row {lacking[0]} of a learning curve has no {name}; give one row an epoch with it")
    epochs = [int(row["epoch"]) for row in rows]
    if best_epoch not in epochs:
        raise ValueError(f"best_epoch must be one of the epochs, got {best_epoch}; use one of {epochs}")
    return epochs


def learning_curve(rows: Sequence[Mapping[str, float]], best_epoch: int, things: str = "samples") -> Section:
    """Losses and validation accuracy (0…1) of every epoch, a line at `best_epoch`.

    `rows` need epoch, train_loss, valid_loss and valid_accuracy; `things` names in the plural what is recognised.
    Raises ValueError for a row without one of them, and for a `best_epoch` that no row has.
    """
    epochs = _epochs(rows, ("train_loss", "valid_loss", "valid_accuracy"), best_epoch)
    best = rows[epochs.index(best_epoch)]["valid_accuracy"]
    figure = new_figure(9.4, 3.4)
    left, right = figure.subplots(1, 2)
    curves = {
        f"{what} {things}": [row[f"{split}_loss"] for row in rows]
        for split, what in (("train", "training"), ("valid", "validation"))
    }
    _curves(left, epochs, curves, best_epoch)
    left.set_title("Loss: lower is better", loc="left")
    left.legend(framealpha=1, edgecolor="none", fontsize=10, labelcolor=INK)
    left.set_ylim(0, 1.05 * left.dataLim.y1)
    right.plot(epochs, [100 * row["valid_accuracy"] for row in rows], color=palette[1], **_style(epochs))
    right.set_title(f"Validation {things} recognised (%)", loc="left")
    right.set_ylim(0, 100)
    _mark_epoch(right, best_epoch)
    return Section(
        "Learning curve",
        f"One epoch is one pass through the training {things}. Validation {things} are never trained on; when their "
        "loss stops falling while the training loss still does, the network overfits. Where it trains on distorted or "
        f"mixed {things}, the training loss can be the higher one. The dashed line marks epoch {best_epoch}, whose "
        f"weights are kept: {100 * best:.1f}\u00a0% of the validation {things} are right.",
        figure=figure,
    )


def loss_curves(rows: Sequence[Mapping[str, float]], best_epoch: int, caption: str) -> Section:
    """Every loss of every epoch, one panel a loss, training and validation, and a line at `best_epoch`.

    `rows` need epoch, and train_NAME beside each valid_NAME; `caption` explains the losses. Raises ValueError for rows
    without a loss or without one of a pair, and for a `best_epoch` that no row has.
    """
    names = [name.removeprefix("valid_") for name in (rows[0] if rows else ()) if name.startswith("valid_")]
    if not names:
        raise ValueError("the rows of a learning curve have no valid_ loss; give train_NAME and valid_NAME an epoch")
    columns = [f"{split}_{name}" for name in names for split in ("train", "valid")]
    epochs = _epochs(rows, columns, best_epoch)
    figure = new_figure(WIDTH_IN, 3.2)
    for panel, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        curves = {
            what: [row[f"{split}_{name}"] for row in rows]
            for split, what in (("train", "training"), ("valid", "validation"))
        }
        _curves(panel, epochs, curves, best_epoch)
        panel.set_title(name, loc="left")
        if name == names[0]:
            panel.legend(framealpha=1, edgecolor="none", fontsize=10, labelcolor=INK)
    return Section(
        "Learning curve", f"{caption} The dashed line marks epoch {best_epoch}, whose weights are kept.", figure=figure
    )


def _curves(panel: Any, epochs: Sequence[int], curves: Mapping[str, Sequence[float]], best_epoch: int) -> None:
    for (label, values), colour in zip(curves.items(), palette, strict=False):
        panel.plot(epochs, values, label=label, color=colour, **_style(epochs))
    _mark_epoch(panel, best_epoch)


def _style(epochs: Sequence[int]) -> dict[str, Any]:
    return {"marker": "o" if len(epochs) <= 40 else "", "markersize": 3 if len(epochs) > 2 else 6, "linewidth": 1.6}


def _mark_epoch(panel: Any, best_epoch: int) -> None:
    panel.axvline(best_epoch, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    panel.set_xlabel("Epoch")
    panel.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)


def confusion(matrix: ArrayLike, class_names: Sequence[str], samples: str = "samples") -> Section:
    """Counts `matrix` [C, C] (row: true class, column: predicted class) with the most frequent mistakes.

    `samples` names in the plural what is classified. Raises ValueError unless the matrix is [C, C] for C names.
    """
    from matplotlib.colors import PowerNorm

    counts, n = np.asarray(matrix, dtype=float), len(class_names)
    if counts.shape != (n, n):
        raise ValueError(f"matrix must be [C, C] for {n} class names, got {counts.shape}; use one row per class")
    of_class = counts.sum(axis=1)
    share = counts / np.maximum(of_class, 1)[:, None]
    cells_in = min(0.45 * min(n, MAX_COUNTED_CLASSES) + 0.5, WIDTH_IN - 2.4) if n <= MAX_COUNTED_CLASSES else 6.6
    figure = new_figure(cells_in + 2.4, cells_in + 1.0)
    axes = figure.subplots()
    # With a square-root scale a mistake made one time in fifty still shows.
    image = axes.imshow(100 * share, cmap="Blues", norm=PowerNorm(0.5, 0, 100), interpolation="nearest")
    axes.grid(False)
    if n <= MAX_NAMED_CLASSES:
        names = [short(name) for name in class_names]
        axes.set_xticks(range(n), names, rotation=90 if max(map(len, names)) > 3 else 0, fontsize=9)
        axes.set_yticks(range(n), names, fontsize=9)
    axes.set(xlabel="Predicted class", ylabel="True class")
    if n <= MAX_COUNTED_CLASSES:
        for row, column in np.argwhere(counts):
            colour = "white" if share[row, column] > 0.35 else ON_LIGHT
            axes.text(column, row, f"{counts[row, column]:.0f}", ha="center", va="center", color=colour, fontsize=9)
    bar = figure.colorbar(image, ax=axes, shrink=0.7, aspect=25, label="Fraction of the true class (%)")
    bar.set_ticks([0, 2, 10, 25, 50, 100])
    bar.outline.set_visible(False)
    mistakes = counts * (1 - np.eye(n))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:5]
    pairs = [divmod(int(i), n) for i in order if mistakes.flat[i] > 0]
    rows = [(class_names[r], class_names[c], int(counts[r, c]), percent(share[r, c])) for r, c in pairs]
    worst = f" The most frequent mistake: “{rows[0][0]}” taken for “{rows[0][1]}”." if rows else " There is no mistake."
    return Section(
        "Confusion matrix",
        f"{percent(np.trace(counts) / max(1.0, counts.sum()))} of {counts.sum():,.0f} {samples} are right. Each row is "
        f"a true class, each column a predicted one: the diagonal is right, everything else a mistake.{worst}",
        figure=figure,
        table=Table(("True class", "Predicted as", "Times", "Fraction of the class"), rows) if rows else None,
    )


def spike_rates(rates: Mapping[str, float]) -> Section:
    """One bar per layer of `rates` (layer name → fraction 0…1 of neurons and time steps that spike), input on top.

    Raises ValueError for no layers or a rate outside 0…1.
    """
    check_fractions(list(rates.items()), "spike rate of layer")
    values = 100 * np.fromiter(rates.values(), dtype=float)
    figure = new_figure(WIDTH_IN, 0.7 + 0.25 * len(rates))
    axes = figure.subplots()
    bars = axes.barh(range(len(rates)), values, height=0.68, color=palette[0])
    axes.bar_label(bars, [f"{value:.1f} %" for value in values], padding=4, fontsize=9, color=INK)
    axes.set_yticks(range(len(rates)), list(rates), fontsize=9)
    axes.set(xlim=(0, max(1.0, 1.12 * values.max())), ylim=(len(rates) - 0.4, -0.6))
    axes.set_xlabel("Neurons that spike in a time step (%)")
    axes.grid(False, axis="y")
    busiest, mean = max(rates, key=lambda name: rates[name]), values.mean() / 100
    return Section(
        "Firing rates",
        "The fraction of neurons that send a spike in an average time step. On hardware that works only when a spike "
        "arrives, a shorter bar means less energy; a bar near 0 % can also mean a layer that does too little. The "
        f"busiest is {busiest} with {percent(rates[busiest])}; the mean over layers is {percent(mean)}.",
        figure=figure,
    )


def class_counts(counts: Mapping[str, ArrayLike], class_names: Sequence[str], samples: str = "samples") -> Section:
    """Samples of every class, one stack a class in a colour a split, from `counts` (split name -> [C]).

    Raises ValueError for no split or another number of classes.
    """
    rows = {split: np.asarray(values) for split, values in counts.items()}
    if not rows or any(values.shape != (len(class_names),) for values in rows.values()):
        shapes = {split: values.shape for split, values in rows.items()}
        raise ValueError(f"counts must be [{len(class_names)}] for each split, got {shapes}; use one count per class")
    shown = min(len(class_names), MAX_NAMED_CLASSES)
    figure = new_figure(WIDTH_IN, 1.1 + 0.24 * shown)
    axes = figure.subplots()
    places, left = np.arange(shown), np.zeros(shown)
    for (split, values), colour in zip(rows.items(), palette, strict=False):
        axes.barh(places, values[:shown], left=left, height=0.7, color=colour, label=split)
        left = left + values[:shown]
    axes.set_yticks(places, [short(name) for name in class_names[:shown]])
    axes.set(ylim=(shown - 0.4, -0.6), xlabel=samples.capitalize())
    axes.grid(False, axis="y")
    figure.legend(loc="outside upper left", ncols=len(rows), edgecolor="none", fontsize=10, labelcolor=INK)
    totals = np.sum(list(rows.values()), axis=0)
    fewest, most = int(totals.argmin()), int(totals.argmax())
    spread = (
        f"Every class has {totals[0]:,.0f}."
        if totals[fewest] == totals[most]
        else f"Fewest: “{class_names[fewest]}” with {totals[fewest]:,.0f}; most: “{class_names[most]}” with "
        f"{totals[most]:,.0f}."
    )
    cut = f" The first {shown} of {len(class_names)} classes are drawn." if shown < len(class_names) else ""
    return Section(
        f"How many {samples} of each class",
        f"One bar a class. The network trains on the training {samples}; validation {samples} choose when to stop; "
        f"test {samples} are scored once at the end. {spread}{cut}",
        figure=figure,
    )


def check_fractions(values: Sequence[tuple[str, float]], name: str) -> None:
    """Raises ValueError for no values, or one outside 0…1."""
    if not values:
        raise ValueError(f"a figure of the {name} got no values; use at least one")
    for key, value in values:
        if not 0 <= value <= 1:
            raise ValueError(f"{name} {key!r} must lie in 0…1, got {value}; use a fraction")


def short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}\u00a0%"  # a no-break space keeps the sign with its number
