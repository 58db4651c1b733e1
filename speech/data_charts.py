"""What a data set of spoken words holds, as report sections with captions for a reader who does not know the field.

Each function takes plain arrays and numbers and returns a `Section`; nothing here reads a file or computes a feature.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from spikeloom.accel.common.charts import WIDTH_IN
from spikeloom.accel.common.report import INK, Section, Table, new_figure, palette
from spikeloom.speech.charts import mel_spectrogram

COLUMNS = 4  # of small pictures, one a class
MAX_DOTS = 4000  # of one raster; more would be a solid block at this size


def durations(seconds: Mapping[str, ArrayLike], measured: str) -> Section:
    """Distribution of clip lengths from `seconds` (split name -> [n]); `measured` says what was taken as the length.

    Raises ValueError for a split without clips.
    """
    lengths = {split: np.asarray(values, dtype=np.float64) for split, values in seconds.items()}
    if not lengths or any(values.size == 0 for values in lengths.values()):
        raise ValueError(f"got lengths for {list(lengths)}, some without clips; use at least one clip for each split")
    everything = np.concatenate(list(lengths.values()))
    figure = new_figure(WIDTH_IN, 2.8)
    axes = figure.subplots()
    edges = np.linspace(0, max(1.05 * float(everything.max()), 0.1), 41)
    centres = (edges[1:] + edges[:-1]) / 2
    for (split, values), colour, width in zip(lengths.items(), palette, (4.2, 2.8, 1.4), strict=False):
        share = 100 * np.histogram(values, edges)[0] / len(values)
        axes.plot(centres, share, drawstyle="steps-mid", color=colour, linewidth=width, label=split)
    axes.set(xlabel="Length of a clip (s)", ylabel="Clips of the split (%)", xlim=(0, edges[-1]), ylim=(0, None))
    axes.legend(framealpha=1, edgecolor="none", fontsize=10, labelcolor=INK)
    if np.ptp(everything) < 0.005:
        middle = f"All clips last {everything[0]:.2f} seconds."
    else:
        middle = f"Half of the clips are shorter than {np.median(everything):.2f} seconds."
    rows = [
        (split, *(f"{v:.2f} s" for v in (values.min(), np.median(values), values.max())))
        for split, values in lengths.items()
    ]
    return Section(
        title="How long the clips are",
        caption=f"{measured} {middle} Curves that lie on each other mean that the splits hold the same kind of clips.",
        figure=figure,
        table=Table(("Split", "Shortest", "Median", "Longest"), rows),
    )


def spectrograms(
    features: Mapping[str, ArrayLike], step_ms: float, caption: str, edges_hz: tuple[float, float] | None = None
) -> Section:
    """One picture a class of `features` (title -> [T, N], channel 0 at the bottom), all on one scale of time.

    edges_hz: lowest and highest frequency of mel bands, for an axis in Hz; None for channels that are no frequencies.
    Raises ValueError for no class or features of other than two dimensions.
    """
    from matplotlib.ticker import MaxNLocator

    images = {title: np.asarray(values) for title, values in features.items()}
    if not images or any(values.ndim != 2 or values.size == 0 for values in images.values()):
        raise ValueError("features must be [T, N] for at least one class; use the frames of one clip each")
    figure, panels = _small_panels(len(images), 1.25)
    longest = max(len(values) for values in images.values()) * step_ms / 1000
    for panel, (title, values) in zip(panels, images.items(), strict=True):
        seconds = len(values) * step_ms / 1000
        if edges_hz is not None:
            xlabel = panel.get_xlabel()  # of the last panels only
            mel_spectrogram(panel, values, step_ms, edges_hz)
            panel.set(xlabel=xlabel, ylabel="Hz" if panels.index(panel) % COLUMNS == 0 else "")
            panel.xaxis.set_major_locator(MaxNLocator(3))
            panel.set_yticks([t for t in (125, 500, 2000, 8000) if edges_hz[0] <= t <= edges_hz[1]], minor=False)
        else:
            panel.imshow(values.T, origin="lower", aspect="auto", extent=(0, seconds, 0, values.shape[1]), cmap="magma",
                         interpolation="nearest")  # fmt: skip
            panel.set_yticks([])
        panel.set_title(title, loc="left", pad=7)
        panel.set(xlim=(0, longest))
        panel.grid(False)
    return Section(title="One clip of each word, as the network gets it", caption=caption, figure=figure)


def rasters(events: Mapping[str, tuple[ArrayLike, ArrayLike]], n_units: int) -> Section:
    """One raster a class of `events` (title -> times_s [n], units [n]); unit 0, the highest frequency, is on top.

    Draws at most `MAX_DOTS` events of a clip, every second, third, … one, and says so. Raises ValueError for no class.
    """
    clips = {title: (np.asarray(times), np.asarray(units)) for title, (times, units) in events.items()}
    if not clips:
        raise ValueError("rasters got no class; use the events of one clip each")
    figure, panels = _small_panels(len(clips), 1.5)
    longest = max((float(np.ptp(times)) for times, _ in clips.values() if len(times)), default=0.0)
    thinned = False
    for panel, (title, (times, units)) in zip(panels, clips.items(), strict=True):
        shown = slice(None, None, -(-len(times) // MAX_DOTS) or 1)
        thinned |= len(times) > MAX_DOTS
        start = times.min() if len(times) else 0.0
        panel.plot(times[shown] - start, units[shown], "o", color=palette[0], markersize=0.9, markeredgewidth=0,
                   rasterized=True)  # fmt: skip
        panel.set_title(f"{title} · {len(times):,} spikes", loc="left", pad=7)
        panel.set(xlim=(0, longest or 1.0), ylim=(n_units, 0), yticks=[])
        panel.grid(False, axis="y")
    part = f" Of a clip with more than {MAX_DOTS:,} spikes only every second, third, … one is drawn." if thinned else ""
    return Section(
        title="One clip of each word, as spikes",
        caption="Each dot is one spike of an artificial ear: a channel (a row) answers to one frequency, high ones on "
        "top, low ones at the bottom. Time runs to the right and starts at the first spike. Dense bands are the "
        f"resonances of the mouth; where they bend, the sound changes.{part}",
        figure=figure,
    )


def _small_panels(count: int, height_in: float) -> tuple[Any, list[Any]]:
    """A figure with `count` panels in rows of `COLUMNS`; they share the time axis, labelled below the last ones."""
    columns = min(COLUMNS, count)
    n_rows = -(-count // columns)
    figure = new_figure(WIDTH_IN, 0.5 + height_in * n_rows)
    grid = figure.subplots(n_rows, columns, sharex=True, squeeze=False)
    figure.set_layout_engine("constrained", wspace=0.06)
    panels = list(grid.flat)
    for unused in panels[count:]:
        unused.remove()
    for panel in panels[max(0, count - columns) : count]:
        panel.set_xlabel("Time (s)")
        panel.xaxis.get_major_locator().set_params(nbins=4)
        panel.tick_params(labelbottom=True)
    return figure, panels[:count]
