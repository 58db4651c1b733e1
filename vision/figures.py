"""What a run on pictures or events looks like, as report sections with captions for a lay reader.

Each function takes plain arrays and numbers and returns a `Section`; nothing here computes a result or reads a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from accel.report import INK, MUTED, Section, Table, new_figure, palette

WIDTH_IN = 9.4
GALLERY, COLUMNS = 24, 8  # pictures in a gallery, and in one row of it
MAX_COUNTED_CLASSES = 20  # with more classes the numbers no longer fit into their cells
MAX_NAMED_CLASSES = 60


def gallery(pictures: Sequence[np.ndarray], true: Sequence[str], said: Sequence[str] | None = None) -> Section:
    """`pictures` 0…1 `[H, W]`, `[H, W, 1]` or `[H, W, 3]` with their class, and what the network said of each."""
    if not pictures:
        raise ValueError("a gallery without a picture; give at least one")
    rows = -(-len(pictures) // COLUMNS)
    figure = new_figure(WIDTH_IN, (1.42 if said else 1.3) * rows)
    panels = np.atleast_2d(figure.subplots(rows, COLUMNS))
    for panel in panels.flat:
        panel.axis("off")
    for i, (panel, picture) in enumerate(zip(panels.flat, pictures, strict=False)):
        flat = picture[:, :, 0] if picture.ndim == 3 and picture.shape[2] == 1 else picture
        panel.imshow(flat, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        wrong = said is not None and said[i] != true[i]
        text = f"{_short(true[i])}\nsaid {_short(said[i])}" if wrong and said is not None else _short(true[i])
        panel.set_title(text, fontsize=9, color=palette[1] if wrong else INK)
    if said is None:
        return Section(
            "What the pictures show", "One picture of each class, as stored, with the name of its class.", figure=figure
        )
    wrong_shown = sum(a != b for a, b in zip(true, said, strict=True))
    mistakes = (
        f"The {wrong_shown} at the end, in red, are its surest mistakes: above what the picture is, below what the "
        "network took it for."
        if wrong_shown
        else "It made no mistake on the test set."
    )
    return Section(
        "What the network was asked, and said",
        f"Pictures of the test set, as the network sees them, with their class. {mistakes}",
        figure=figure,
    )


def event_frames(frames: np.ndarray, name: str) -> Section:
    """Frames `[T, 2, H, W]` of one recording of class `name`: blue where it became brighter, orange where darker."""
    steps = np.unique(np.linspace(0, len(frames) - 1, min(len(frames), COLUMNS)).round().astype(int))
    figure = new_figure(WIDTH_IN, 1.5)
    panels = np.atleast_1d(figure.subplots(1, len(steps)))
    top = max(1.0, float(np.quantile(frames[frames > 0], 0.98))) if (frames > 0).any() else 1.0
    for panel, step in zip(panels, steps, strict=True):
        darker, brighter = (np.clip(frames[step, p] / top, 0, 1) for p in (0, 1))
        panel.imshow(np.stack([1 - brighter, 1 - brighter / 2 - darker / 2, 1 - darker], -1), interpolation="nearest")
        panel.axis("off")
        panel.set_title(f"{step + 1}", fontsize=9, color=MUTED)
    return Section(
        f"A recording of “{name}”",
        "An event camera has no pictures: each of its pixels reports, by itself, when it becomes brighter (blue) or "
        f"darker (orange). These are {len(steps)} of {len(frames)} frames as a network gets them, in order; "
        "each counts the events of its stretch of the recording.",
        figure=figure,
    )


def confusion(matrix: ArrayLike, class_names: Sequence[str]) -> Section:
    """Counts `matrix` [C, C] (row: what it is, column: what the network said) with its most frequent mistakes."""
    counts = np.asarray(matrix, dtype=float)
    n = len(class_names)
    if counts.shape != (n, n):
        raise ValueError(f"matrix must be [{n}, {n}], got {counts.shape}; use one row and column per class")
    of_class = counts.sum(1)
    share = np.divide(counts, of_class[:, None], out=np.zeros_like(counts), where=of_class[:, None] > 0)
    side = min(WIDTH_IN - 1.4, 2.6 + 0.42 * min(n, MAX_COUNTED_CLASSES))
    figure = new_figure(side + 1.2, side)
    axes = figure.subplots()
    image = axes.imshow(100 * np.sqrt(share), cmap="Blues", vmin=0, vmax=100, interpolation="nearest")
    axes.grid(False)
    if n <= MAX_NAMED_CLASSES:
        axes.set_xticks(range(n), class_names, rotation=90 if max(map(len, class_names)) > 3 else 0, fontsize=9)
        axes.set_yticks(range(n), class_names, fontsize=9)
    axes.set(xlabel="The network said", ylabel="It is")
    if n <= MAX_COUNTED_CLASSES:
        for row, column in np.argwhere(counts):
            colour = "white" if share[row, column] > 0.35 else INK
            axes.text(column, row, f"{counts[row, column]:.0f}", ha="center", va="center", color=colour, fontsize=9)
    bar = figure.colorbar(image, ax=axes, shrink=0.7, aspect=25, label="Share of the class (%)")
    bar.set_ticks([100 * np.sqrt(t / 100) for t in (0, 2, 10, 25, 50, 100)], labels=["0", "2", "10", "25", "50", "100"])
    bar.outline.set_visible(False)
    mistakes = counts * (1 - np.eye(n))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:5]
    pairs = [divmod(int(i), n) for i in order if mistakes.flat[i] > 0]
    rows = [(class_names[r], class_names[c], int(counts[r, c]), _percent(share[r, c])) for r, c in pairs]
    worst = f" The most frequent mistake: “{rows[0][0]}” taken for “{rows[0][1]}”." if rows else " There is no mistake."
    return Section(
        "What gets mixed up",
        f"{_percent(np.trace(counts) / max(1.0, counts.sum()))} of {counts.sum():,.0f} test samples are right. Each "
        "row is what a sample is, each column what the network took it for: the diagonal is right, anything beside it "
        f"a mistake.{worst}",
        figure=figure,
        table=Table(("It is", "Taken for", "Times", "Share"), rows) if rows else None,
    )


def spike_rates(rates: Mapping[str, float]) -> Section:
    """One bar a layer of `rates` (path of the layer → share 0…1 of neurons and steps that spike), input on top."""
    if not rates or not all(0 <= rate <= 1 for rate in rates.values()):
        raise ValueError("a figure of spike rates needs shares of 0…1, at least one; got others")
    percent = 100 * np.fromiter(rates.values(), dtype=float)
    figure = new_figure(WIDTH_IN, 0.7 + 0.22 * len(rates))
    axes = figure.subplots()
    bars = axes.barh(range(len(rates)), percent, height=0.68, color=palette[0])
    axes.bar_label(bars, [f"{value:.1f} %" for value in percent], padding=4, fontsize=9, color=INK)
    axes.set_yticks(range(len(rates)), [_path(name) for name in rates], fontsize=9)
    axes.set(xlim=(0, max(1.0, 1.12 * percent.max())), ylim=(len(rates) - 0.4, -0.6))
    axes.set_xlabel("Neurons that spike in a time step (%)")
    axes.grid(False, axis="y")
    busiest = max(rates, key=lambda name: rates[name])
    return Section(
        "How busy each layer is",
        "The share of neurons that send a spike in an average time step. On hardware that works only when a spike "
        "arrives, a shorter bar means less energy; a bar near 0 % can also mean a layer that does too little. The "
        f"busiest is {_path(busiest)} with {_percent(rates[busiest])}; the mean over layers is "
        f"{_percent(percent.mean() / 100)}.",
        figure=figure,
    )


def class_counts(counts: Mapping[str, ArrayLike], class_names: Sequence[str]) -> Section:
    """Samples of every class, one bar a class in a colour a split, from `counts` (split name -> [C])."""
    rows = {split: np.asarray(values) for split, values in counts.items()}
    shown = min(len(class_names), MAX_NAMED_CLASSES)
    figure = new_figure(WIDTH_IN, 1.1 + 0.24 * shown)
    axes = figure.subplots()
    places, left = np.arange(shown), np.zeros(shown)
    for (split, values), colour in zip(rows.items(), palette, strict=False):
        axes.barh(places, values[:shown], left=left, height=0.7, color=colour, label=split)
        left = left + values[:shown]
    axes.set_yticks(places, [_short(name) for name in class_names[:shown]])
    axes.set(ylim=(shown - 0.4, -0.6), xlabel="Samples")
    axes.grid(False, axis="y")
    figure.legend(loc="outside upper left", ncols=len(rows), edgecolor="none", fontsize=10, labelcolor=INK)
    totals = np.sum(list(rows.values()), axis=0)
    fewest, most = int(totals.argmin()), int(totals.argmax())
    spread = (
        f"Every class has {totals[0]:,}."
        if totals[fewest] == totals[most]
        else f"Fewest: “{class_names[fewest]}”, {totals[fewest]:,}; most: “{class_names[most]}”, {totals[most]:,}."
    )
    cut = f" The first {shown} of {len(class_names)} classes are drawn." if shown < len(class_names) else ""
    return Section(
        "How many samples of each class",
        "One bar a class. The network learns from the training samples, validation samples choose when to stop, and "
        f"test samples are scored once at the end. {spread}{cut}",
        figure=figure,
    )


def recordings(seconds: Mapping[str, ArrayLike], events: Mapping[str, ArrayLike]) -> Section:
    """Lengths in seconds and numbers of events of recordings, by split [n]."""
    figure = new_figure(WIDTH_IN, 3.0)
    for panel, values, label in zip(
        figure.subplots(1, 2), (seconds, events), ("Length (seconds)", "Events in a recording"), strict=True
    ):
        everything = np.concatenate([np.asarray(v, dtype=float) for v in values.values()])
        edges = np.linspace(0, max(1e-9, everything.max()), 40)
        parts = [np.asarray(v, dtype=float) for v in values.values()]
        panel.hist(parts, edges, stacked=True, color=palette[: len(parts)], label=list(values))
        panel.set(xlabel=label, ylabel="Recordings")
    figure.legend(list(seconds), loc="outside upper left", ncols=3, edgecolor="none", fontsize=10, labelcolor=INK)
    length = np.concatenate([np.asarray(v, dtype=float) for v in seconds.values()])
    return Section(
        "How long recordings are, and how busy",
        f"Half of the recordings are longer than {np.median(length):.2f} seconds. A recording with few events has "
        "little to be recognised by.",
        figure=figure,
    )


def _path(path: str) -> str:
    """`stages.2.blocks.0.attn.q_lif` as a person reads it: `stage 3, block 1, attn q`."""
    words = []
    parts = path.split(".")
    for part, after in zip(parts, [*parts[1:], ""], strict=True):
        if part in ("stages", "blocks", "units") and after.isdigit():
            words.append(f"{part[:-1]} {int(after) + 1},")
        elif not part.isdigit():
            words.append(part.removesuffix("_lif").removesuffix("lif").replace("_", " "))
    return " ".join(" ".join(words).split()).rstrip(",") or path


def _short(name: str) -> str:
    return name if len(name) <= 18 else f"{name[:17]}…"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}\u00a0%"  # a no-break space keeps the sign with its number
