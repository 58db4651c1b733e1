"""What a run on pictures or events looks like, as report sections with captions for a lay reader.

Each function takes plain arrays and numbers and returns a `Section`; nothing here computes a result or reads a file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from spikeloom.accel.common.charts import WIDTH_IN, short
from spikeloom.accel.common.report import GRID, INK, MUTED, WARN, Section, new_figure, palette

GALLERY, COLUMNS = 24, 8  # pictures in a gallery, and in one row of it


def gallery(pictures: Sequence[np.ndarray], true: Sequence[str], predicted: Sequence[str] | None = None) -> Section:
    """`pictures` 0…1 `[H, W]`, `[H, W, 1]` or `[H, W, 3]` with their class, and what the network predicted for each."""
    if not pictures:
        raise ValueError("a gallery without a picture; give at least one")
    rows = -(-len(pictures) // COLUMNS)
    figure = new_figure(WIDTH_IN, (1.42 if predicted else 1.3) * rows)
    panels = np.atleast_2d(figure.subplots(rows, COLUMNS))
    for panel in panels.flat:
        panel.axis("off")
    for i, (panel, picture) in enumerate(zip(panels.flat, pictures, strict=False)):
        flat = picture[:, :, 0] if picture.ndim == 3 and picture.shape[2] == 1 else picture
        panel.imshow(flat, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        wrong = predicted is not None and predicted[i] != true[i]
        text = (
            f"{short(true[i])}\npredicted {short(predicted[i])}" if wrong and predicted is not None else short(true[i])
        )
        panel.set_title(text, fontsize=9, color=WARN if wrong else INK)
    if predicted is None:
        return Section(
            "What the pictures show", "One picture of each class, as stored, with the name of its class.", figure=figure
        )
    wrong_shown = sum(a != b for a, b in zip(true, predicted, strict=True))
    mistakes = (
        f"The {wrong_shown} at the end, in red, are its most confident mistakes: the class above, the prediction below."
        if wrong_shown
        else "It made no mistake on the test set."
    )
    return Section(
        "Predictions on test pictures",
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
        panel.set(xticks=[], yticks=[])
        for spine in panel.spines.values():  # a frame without events is as white as the page
            spine.set(visible=True, color=GRID)
        panel.set_title(f"{step + 1}", fontsize=9, color=MUTED)
    return Section(
        f"A recording of “{name}”",
        "An event camera has no pictures: each of its pixels reports, by itself, when it becomes brighter (blue) or "
        f"darker (orange). These are {len(steps)} of {len(frames)} frames as a network gets them, in order; "
        "each counts the events of its stretch of the recording.",
        figure=figure,
    )


def spike_maps(inputs: Sequence[np.ndarray], names: Sequence[str], maps: Mapping[str, np.ndarray]) -> Section:
    """Inputs as `gallery` takes them with their classes, and for each layer where it fires, `[n, H, W]` in 0…1."""
    figure = new_figure(WIDTH_IN, 1.42 * len(inputs))
    panels = figure.subplots(len(inputs), 1 + len(maps), squeeze=False)
    for row, (picture, name) in enumerate(zip(inputs, names, strict=True)):
        flat = picture[:, :, 0] if picture.ndim == 3 and picture.shape[2] == 1 else picture
        panels[row, 0].imshow(flat, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        panels[row, 0].set_title(short(name), fontsize=9, color=INK)
        for panel, (layer, map_nHW) in zip(panels[row, 1:], maps.items(), strict=True):
            panel.imshow(map_nHW[row], cmap="viridis", vmin=0, vmax=max(1e-9, float(map_nHW.max())))
            if row == 0:
                panel.set_title(layer.replace(", ", "\n"), fontsize=9 if len(maps) < 5 else 8, color=MUTED)
    for panel in panels.flat:
        panel.axis("off")
    return Section(
        "Where the neurons fire",
        "Test samples, and for some layers how often the neurons at a place fire, over all channels and time steps: "
        "dark never, yellow as often as anywhere in that layer. Where a layer is an attention, the map shows which "
        "parts of the picture it lets through.",
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
