"""What a run on spoken words looks like, as report sections with captions for a reader who does not know the field.

Each function takes plain arrays and numbers, from whatever model or dataset, and returns a `Section`. Nothing here
computes a result: accuracies, rates and features come in finished.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from accel.report import INK, Section, Table, new_figure, palette

WIDTH_IN = 9.4
MAX_RASTER_LAYERS = 6
MAX_RASTER_CHANNELS = 48  # more rows than this and the dots of neighbours touch
MAX_COUNTED_CLASSES = 20  # with more classes the numbers no longer fit into their cells


def waveform_and_mel(
    waveform: ArrayLike, sample_rate_hz: float, features: ArrayLike, hop_ms: float, word: str, speaker: str
) -> Section:
    """The sound pressure `waveform` [n] above the `features` [T, N] the network gets, on one time axis.

    `hop_ms` is the time between two feature frames. Raises ValueError for other numbers of dimensions or empty input.
    """
    wave, bands = _array(waveform, 1, "waveform"), _array(features, 2, "features")
    n_frames, n_bands = bands.shape
    figure = new_figure(WIDTH_IN, 4.4)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.5))

    # A pixel column shows many samples: its lowest and highest value keep every click visible.
    step = max(1, len(wave) // 1500)
    starts = np.arange(0, len(wave), step)
    low, high = np.minimum.reduceat(wave, starts), np.maximum.reduceat(wave, starts)
    top.fill_between(starts / sample_rate_hz, low, high, color=palette[0], linewidth=0.6)
    top.set_ylabel("Sound pressure")
    top.set_yticks([])
    seconds = n_frames * hop_ms / 1000
    _image(bottom, bands, seconds, ("quiet", "loud"))
    bottom.set(ylabel="Frequency band", xlim=(0, max(seconds, len(wave) / sample_rate_hz)))
    return Section(
        title=f"The word “{word}”, said by {speaker}",
        caption=f"Above, the sound as the microphone recorded it: {len(wave) / sample_rate_hz:.2f} seconds, "
        f"{sample_rate_hz / 1000:g} thousand samples a second. Below, what the network listens to: every {hop_ms:g} "
        f"milliseconds, how loud each of {n_bands} frequency bands is, dark for quiet and bright for loud. "
        "Vowels show as bright horizontal stripes, hissing sounds as light patches near the top.",
        figure=figure,
    )


def events_and_frames(
    times_s: ArrayLike, units: ArrayLike, frames: ArrayLike, step_ms: float, word: str, speaker: str
) -> Section:
    """The spikes of an artificial ear, `times_s` and `units` [n], above the counts `frames` [T, N] made of them.

    Unit 0 hears the highest frequency. Raises ValueError for other numbers of dimensions or empty frames.
    """
    at, unit = np.asarray(times_s, dtype=np.float64), np.asarray(units)
    if at.ndim != 1 or at.shape != unit.shape:
        raise ValueError(f"got times of shape {at.shape} and units of shape {unit.shape}; give one of each per spike")
    counts = _array(frames, 2, "frames")
    n_steps, n_channels = counts.shape
    figure = new_figure(WIDTH_IN, 5.2)
    top, bottom = figure.subplots(2, 1, sharex=True)
    at = at - at.min(initial=np.inf) if len(at) else at  # as the frames count it
    top.plot(at, -unit, "o", color=palette[0], markersize=1.1, markeredgewidth=0, rasterized=True)
    top.set(ylabel="Ear channel", yticks=[])
    top.grid(False)
    seconds = n_steps * step_ms / 1000
    _image(bottom, counts[:, ::-1], seconds, ("none", f"{counts.max():g}"))
    bottom.set(ylabel="Channel of the network", xlim=(0, max(seconds, float(at.max(initial=0)))))
    return Section(
        title=f"The word “{word}”, said by {speaker}",
        caption=f"Above, the sound as an artificial ear hears it: each of {len(at):,} dots is one nerve pulse, low "
        f"frequencies at the bottom. Below, what the network gets: every {step_ms:g} milliseconds, how many pulses "
        f"arrived in each of {n_channels} groups of neighbouring channels, dark for none and bright for many.",
        figure=figure,
    )


def spike_raster(spikes: Mapping[str, NDArray[Any]], hop_ms: float, word: str) -> Section:
    """One panel per layer of `spikes` (layer name → [T, channels], non-zero where a neuron fired), first layer on top.

    Draws at most six layers and 96 channels of each, evenly spaced, and says so. Raises ValueError for no layers,
    a layer that is not [T, channels], or layers whose T differ.
    """
    layers = {name: _array(values, 2, f"spikes of layer {name!r}") != 0 for name, values in spikes.items()}
    lengths = {len(values) for values in layers.values()}
    if len(lengths) != 1:
        raise ValueError(f"layers of one raster need the same number of time steps, got {sorted(lengths)}; use one run")
    n_steps, names = lengths.pop(), list(layers)
    shown = [names[i] for i in _evenly(len(names), MAX_RASTER_LAYERS)]
    figure = new_figure(WIDTH_IN, 0.6 + 1.4 * len(shown))
    figure.set_layout_engine("constrained", h_pad=0.1)
    panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
    for panel, name in zip(panels, shown, strict=True):
        fired = layers[name]
        channels = _evenly(fired.shape[1], MAX_RASTER_CHANNELS)
        step, row = np.nonzero(fired[:, channels])
        panel.plot(step * hop_ms / 1000, row, "o", color=palette[0], markersize=2.8, markeredgewidth=0, rasterized=True)
        part = f"{len(channels)} of {fired.shape[1]}" if len(channels) < fired.shape[1] else f"{len(channels)}"
        panel.set_title(f"{name} · {part} neurons · {_percent(fired.mean())} active", loc="left", pad=3)
        panel.set(yticks=[], ylim=(-1, len(channels)), xlim=(-hop_ms / 2000, (n_steps - 0.5) * hop_ms / 1000))
        panel.grid(False, axis="y")
    panels[-1].set_xlabel("Time (s)")
    selection = "" if len(shown) == len(names) else f" Of {len(names)} layers, {len(shown)} are shown."
    return Section(
        title=f"Spikes while the network hears “{word}”",
        caption="Each dot is one spike: a neuron (a row) sends one pulse at one moment. The top panel is closest to "
        "the sound, the bottom one closest to the answer. White space is work the hardware need not do: a neuron that "
        f"stays silent costs almost nothing.{selection}",
        figure=figure,
    )


def confusion(matrix: ArrayLike, class_names: Sequence[str], accuracy: float) -> Section:
    """Counts `matrix` [C, C] (row: the word said, column: the word recognised) with its most frequent mistakes.

    `accuracy` is a fraction 0…1. Raises ValueError unless the matrix is [C, C] for C `class_names`.
    """
    from matplotlib.colors import PowerNorm

    counts = _array(matrix, 2, "matrix")
    n_classes = len(class_names)
    if counts.shape != (n_classes, n_classes):
        raise ValueError(
            f"matrix must be [C, C] for {n_classes} class names, got {counts.shape}; use one row per class"
        )
    said = counts.sum(axis=1)
    share = counts / np.maximum(said, 1)[:, None]
    cells_in = min(0.45 * n_classes + 0.5, WIDTH_IN - 2.4)
    figure = new_figure(cells_in + 2.4, cells_in + 1.0)
    axes = figure.subplots()
    # With a square-root scale a mistake made one time in fifty still shows.
    image = axes.imshow(100 * share, cmap="Blues", norm=PowerNorm(0.5, 0, 100), interpolation="nearest")
    axes.grid(False)
    fontsize = 10 if n_classes <= MAX_COUNTED_CLASSES else 9
    turned = 90 if max(map(len, class_names)) > 3 else 0
    axes.set_xticks(range(n_classes), class_names, rotation=turned, fontsize=fontsize)
    axes.set_yticks(range(n_classes), class_names, fontsize=fontsize)
    axes.set(xlabel="The network recognised", ylabel="The speaker said")
    if n_classes <= MAX_COUNTED_CLASSES:
        for row, column in np.argwhere(counts):
            colour = "white" if share[row, column] > 0.35 else INK
            axes.text(column, row, f"{counts[row, column]:.0f}", ha="center", va="center", color=colour, fontsize=9)
    bar = figure.colorbar(image, ax=axes, shrink=0.7, aspect=25, label="Share of the spoken word (%)")
    bar.set_ticks([0, 2, 10, 25, 50, 100])
    bar.outline.set_visible(False)

    mistakes = counts * (1 - np.eye(n_classes))
    order = np.argsort(-mistakes, axis=None, kind="stable")[:5]
    pairs = [divmod(int(i), n_classes) for i in order if mistakes.flat[i] > 0]
    rows = [(class_names[r], class_names[c], int(counts[r, c]), _percent(share[r, c])) for r, c in pairs]
    table = Table(("Said", "Recognised as", "Times", "Share"), rows) if rows else None
    worst = f" The most frequent mistake: “{rows[0][0]}” taken for “{rows[0][1]}”." if rows else " There is no mistake."
    return Section(
        title="Which words get mixed up",
        caption=f"{_percent(accuracy)} of {said.sum():,.0f} recordings are right. Each row is a word that was said, "
        f"each column a word the network took it for: the diagonal is right, anything beside it a mistake.{worst}",
        figure=figure,
        table=table,
    )


def spike_rates(rates: Mapping[str, float]) -> Section:
    """One bar per layer of `rates` (layer name → fraction 0…1 of neurons and time steps that spike), input on top.

    Raises ValueError for no layers or a rate outside 0…1.
    """
    _check_fractions(list(rates.items()), "spike rate of layer")
    percent = 100 * np.fromiter(rates.values(), dtype=float)
    figure = new_figure(WIDTH_IN, 0.7 + 0.27 * len(rates))
    axes = figure.subplots()
    bars = axes.barh(range(len(rates)), percent, height=0.68, color=palette[0])
    axes.bar_label(bars, [f"{value:.1f} %" for value in percent], padding=4, fontsize=9.5, color=INK)
    axes.set_yticks(range(len(rates)), list(rates))
    axes.set(xlim=(0, max(1.0, 1.12 * percent.max())), ylim=(len(rates) - 0.4, -0.6))
    axes.set_xlabel("Neurons that spike in a time step (%)")
    axes.grid(False, axis="y")
    busiest, mean = max(rates, key=lambda name: rates[name]), percent.mean() / 100
    return Section(
        title="How busy each layer is",
        caption="The share of neurons that send a spike in an average time step. On hardware that works only when a "
        "spike arrives, a shorter bar means less energy; a bar near 0 % can also mean a layer that does too little. "
        f"The busiest is {busiest} with {_percent(rates[busiest])}; the mean over layers is {_percent(mean)}.",
        figure=figure,
    )


def accuracy_by_speaker(rows: Sequence[tuple[str, float, float, int]], chance: float | None = None) -> Section:
    """`rows` of (speaker held out, mean accuracy, standard deviation, number of seeds), accuracies as fractions 0…1.

    The deviation may be nan for one seed. `chance` draws a line at the accuracy of guessing. Raises ValueError for no
    rows or a mean outside 0…1.
    """
    _check_fractions([row[:2] for row in rows], "accuracy of speaker")
    ordered = sorted(rows, key=lambda row: -row[1])
    means, spreads = (100 * np.array([row[i] for row in ordered], dtype=float) for i in (1, 2))
    figure = new_figure(WIDTH_IN, 0.8 + 0.36 * len(rows))
    axes = figure.subplots()
    places = np.arange(len(rows))
    axes.hlines(places, means - np.nan_to_num(spreads), means + np.nan_to_num(spreads), color=palette[4], linewidth=3)
    axes.plot(means, places, "o", color=palette[0], markersize=7)
    axes.set_yticks(places, [row[0] for row in ordered])
    lowest = float(np.min(means - np.nan_to_num(spreads)))
    if chance is not None:
        axes.axvline(100 * chance, color=palette[1], linewidth=1.2, linestyle=(0, (4, 3)))
        lowest = min(lowest, 100 * chance)
    # A spread can reach past 100 %, an accuracy cannot; the axis ends a little later so that a dot at 100 stays whole.
    axes.set(xlim=(max(-1.0, 10 * np.floor((lowest - 3) / 10)), 101), ylim=(len(rows) - 0.4, -0.6))
    axes.set_xlabel("Words recognised (%)")
    cells = [(name, _percent(mean), "–" if np.isnan(sd) else _percent(sd), seeds) for name, mean, sd, seeds in ordered]
    guessing = "" if chance is None else f" The dashed line is guessing: {_percent(chance)}."
    return Section(
        title="Voices the network never heard",
        caption="For each line the network learned from all speakers but one and was then tested on that one. The dot "
        "is the mean over repeated trainings that start from different random numbers (seeds), the bar one standard "
        f"deviation to each side.{guessing} On average over speakers: {_percent(means.mean() / 100)}.",
        figure=figure,
        table=Table(("Speaker", "Recognised", "Spread (sd)", "Seeds"), cells),
    )


def _image(axes: Any, frames: NDArray[Any], seconds: float, ends: tuple[str, str]) -> None:
    """Frames [T, N] as colours, low frequencies at the bottom; `ends` name the smallest and the largest value."""
    n_channels = frames.shape[1]
    image = axes.imshow(
        frames.T, origin="lower", aspect="auto", extent=(0, seconds, 0, n_channels), cmap="magma",
        interpolation="nearest",
    )  # fmt: skip
    axes.grid(False)
    axes.set_xlabel("Time (s)")
    axes.set_yticks([0.5, n_channels - 0.5], ["low", "high"])
    bar = axes.figure.colorbar(image, ax=axes, aspect=12, pad=0.01, ticks=[frames.min(), frames.max()])
    bar.ax.set_yticklabels(ends)
    bar.outline.set_visible(False)


def accuracy_against_cost(
    points: Sequence[tuple[str, float, float, float, float]], undistilled: tuple[str, float, float, float, float] | None
) -> Section:
    """A curriculum: `points` of (label, mean time steps, energy in mJ, mean accuracy 0…1, its sd or nan), finest first.

    `undistilled` is the same for the model that learned without a teacher. Raises ValueError for an accuracy outside
    0…1.
    """
    every = [*points, *([undistilled] if undistilled else [])]
    _check_fractions([(point[0], point[3]) for point in every], "accuracy of stage")
    figure = new_figure(WIDTH_IN, 3.6)
    panels = figure.subplots(1, 2, sharey=True)
    costs = ("Time steps in a word (mean)", "Energy of a word (mJ)")
    for column, (panel, cost) in enumerate(zip(panels, costs, strict=True), 1):
        curves = [("taught by the finer one", points, palette[0], "o-")]
        curves += [("without a teacher", [undistilled], palette[1], "D")] if undistilled else []
        for label, shown, colour, style in curves:
            x, y = [point[column] for point in shown], [100 * point[3] for point in shown]
            spread = np.nan_to_num([100 * point[4] for point in shown])
            panel.errorbar(x, y, yerr=spread, fmt=style, color=colour, capsize=3, linewidth=1.6, label=label)
        for label, *values in points:
            place = (values[column - 1], 100 * values[2])
            panel.annotate(label, place, xytext=(6, 6), textcoords="offset points", fontsize=9.5, color=INK)
        panel.set(xlabel=cost, xlim=(0, None))
        panel.margins(x=0.15, y=0.2)
    panels[0].set_ylabel("Words recognised (%)")
    panels[1].legend(framealpha=1, edgecolor="none", fontsize=10, labelcolor=INK, loc="lower right")
    return Section(
        title="What coarser hearing costs, and saves",
        caption="Each dot is one network, named after the length of its time steps: the further left, the fewer steps "
        "and the less energy a word takes. Along the line each network began as a copy of the one to its right and "
        "went on with it as teacher. Bars are one standard deviation over seeds, where there are several.",
        figure=figure,
    )


def _array(values: ArrayLike, n_dims: int, name: str) -> NDArray[Any]:
    array = np.asarray(values)
    if array.ndim != n_dims or array.size == 0:
        raise ValueError(f"{name} needs {n_dims} dimensions and some elements, got shape {array.shape}; reshape it")
    return array


def _check_fractions(values: Sequence[tuple[str, float]], name: str) -> None:
    if not values:
        raise ValueError(f"a figure of the {name} got no values; use at least one")
    for key, value in values:
        if not 0 <= value <= 1:
            raise ValueError(f"{name} {key!r} must lie in 0…1, got {value}; use a fraction")


def _evenly(count: int, at_most: int) -> NDArray[np.intp]:
    """Indices of at most `at_most` of `count` things, evenly spaced, first and last included."""
    return np.unique(np.linspace(0, count - 1, min(count, at_most)).round().astype(np.intp))


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}\u00a0%"  # a no-break space keeps the sign with its number
