"""What a run on spoken words looks like, as report sections with captions for a reader who does not know the field.

Each function takes plain arrays and numbers, from whatever model or dataset, and returns a `Section`. Nothing here
computes a result: accuracies, rates and features come in finished.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spikeloom.accel.common.charts import WIDTH_IN, check_fractions, percent
from spikeloom.accel.common.report import INK, Section, Table, new_figure, palette
from spikeloom.accel.common.units import prefixed

MAX_RASTER_LAYERS = 6
MAX_RASTER_CHANNELS = 48  # more rows than this and the dots of neighbours touch


def waveform_and_mel(
    waveform: ArrayLike, sample_rate_hz: float, features: ArrayLike, hop_ms: float, word: str, speaker: str,
    edges_hz: tuple[float, float] = (50.0, 8000.0),
) -> Section:  # fmt: skip
    """The sound pressure `waveform` [n] above the `features` [T, N] the network gets, on one time axis.

    `hop_ms` is the time between two feature frames, `edges_hz` the lowest and highest frequency of the bands. Raises
    ValueError for other numbers of dimensions or empty input.
    """
    wave, bands = _array(waveform, 1, "waveform"), _array(features, 2, "features")
    n_frames, n_bands = bands.shape
    figure, bottom = _below_waveform(wave, sample_rate_hz)
    seconds = n_frames * hop_ms / 1000
    _bar(bottom, mel_spectrogram(bottom, bands, hop_ms, edges_hz), bands, ("quiet", "loud"))
    bottom.set(xlim=(0, max(seconds, len(wave) / sample_rate_hz)))
    return Section(
        title=f"The word “{word}”, said by {speaker}",
        caption=f"Above, the sound as the microphone recorded it: {len(wave) / sample_rate_hz:.2f} seconds, "
        f"{sample_rate_hz / 1000:g} thousand samples a second. Below, the input of the network: every {hop_ms:g} "
        f"milliseconds, how loud each of {n_bands} frequency bands is, dark for quiet and bright for loud. "
        "Vowels show as bright horizontal stripes, hissing sounds as light patches near the top.",
        figure=figure,
    )


def waveform_and_coefficients(
    waveform: ArrayLike, sample_rate_hz: float, features: ArrayLike, step_ms: float, word: str, speaker: str
) -> Section:
    """The sound pressure `waveform` [n] above the cepstral coefficients `features` [T, N], on one time axis.

    `step_ms` is the time between two frames. Raises ValueError for other numbers of dimensions or empty input.
    """
    wave, coefficients = _array(waveform, 1, "waveform"), _array(features, 2, "features")
    figure, bottom = _below_waveform(wave, sample_rate_hz)
    seconds = len(coefficients) * step_ms / 1000
    _image(bottom, coefficients, seconds, ("least", "most"))
    n = coefficients.shape[1]
    bottom.set_yticks([0.5, n - 0.5], ["1", str(n)])
    bottom.set(ylabel="Coefficient", xlim=(0, max(seconds, len(wave) / sample_rate_hz)))
    return Section(
        title=f"The word “{word}”, said by {speaker}",
        caption=f"Above, the sound as the microphone recorded it: {len(wave) / sample_rate_hz:.2f} seconds, "
        f"{sample_rate_hz / 1000:g} thousand samples a second. Below, the input of the network: every {step_ms:g} "
        f"milliseconds, {n} mel-frequency cepstral coefficients. The first is the loudness; each further one describes "
        "the shape of the spectrum in finer detail.",
        figure=figure,
    )


def _below_waveform(wave: NDArray[Any], sample_rate_hz: float) -> tuple[Any, Any]:
    """A figure with the sound pressure on top, and the axes below it for the features."""
    figure = new_figure(WIDTH_IN, 4.4)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(1, 1.5))
    # A pixel column shows many samples: its lowest and highest value keep every click visible.
    step = max(1, len(wave) // 1500)
    starts = np.arange(0, len(wave), step)
    low, high = np.minimum.reduceat(wave, starts), np.maximum.reduceat(wave, starts)
    top.fill_between(starts / sample_rate_hz, low, high, color=palette[0], linewidth=0.6)
    top.set_ylabel("Sound pressure")
    top.set_yticks([])
    return figure, bottom


def events_and_frames(
    times_s: ArrayLike, units: ArrayLike, frames: ArrayLike, step_ms: float, word: str, speaker: str
) -> Section:
    """The spikes of an artificial ear, `times_s` and `units` [n], above the counts `frames` [T, N] made of them.

    Unit 0 stands for the highest frequency. Raises ValueError for other numbers of dimensions or empty frames.
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
        caption=f"Above, the output of a cochlea model: each of {len(at):,} dots is one nerve pulse, low "
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
        panel.set_title(f"{name} · {part} neurons · {percent(fired.mean())} active", loc="left", pad=3)
        panel.set(yticks=[], ylim=(-1, len(channels)), xlim=(-hop_ms / 2000, (n_steps - 0.5) * hop_ms / 1000))
        panel.grid(False, axis="y")
    panels[-1].set_xlabel("Time (s)")
    selection = "" if len(shown) == len(names) else f" Of {len(names)} layers, {len(shown)} are shown."
    return Section(
        title=f"Spikes while the network processes “{word}”",
        caption="Each dot is one spike: a neuron (a row) sends one pulse at one moment. The top panel is closest to "
        "the sound, the bottom one closest to the answer. Empty space is work the hardware need not do: a neuron that "
        f"stays silent costs almost nothing.{selection}",
        figure=figure,
    )


def accuracy_by_speaker(rows: Sequence[tuple[str, float, float, int]], chance: float | None = None) -> Section:
    """`rows` of (speaker held out, mean accuracy, standard deviation, number of seeds), accuracies as fractions 0…1.

    The deviation may be nan for one seed. `chance` draws a line at the accuracy of guessing. Raises ValueError for no
    rows or a mean outside 0…1.
    """
    check_fractions([row[:2] for row in rows], "accuracy of speaker")
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
    cells = [(name, percent(mean), "–" if np.isnan(sd) else percent(sd), seeds) for name, mean, sd, seeds in ordered]
    guessing = "" if chance is None else f" The dashed line is guessing: {percent(chance)}."
    return Section(
        title="Speakers that were held out",
        caption="For each line the network learned from all speakers but one and was then tested on that one. The dot "
        "is the mean over repeated trainings that start from different random numbers (seeds), the bar one standard "
        f"deviation to each side.{guessing} On average over speakers: {percent(means.mean() / 100)}.",
        figure=figure,
        table=Table(("Speaker", "Recognised", "Spread (sd)", "Seeds"), cells),
    )


def mel_spectrogram(axes: Any, bands: NDArray[Any], step_ms: float, edges_hz: tuple[float, float]) -> Any:
    """Mel bands [T, N] between two frequencies as an image with axes in seconds and Hz; returns the image."""
    import librosa.display

    image = librosa.display.specshow(
        bands.T, ax=axes, x_axis="time", y_axis="mel", x_coords=np.arange(len(bands)) * step_ms / 1000,
        fmin=edges_hz[0], fmax=edges_hz[1], htk=True, cmap="magma", rasterized=True,
    )  # fmt: skip
    axes.grid(False)
    axes.set(ylabel="Frequency (Hz)", xlabel="Time (s)")
    return image


def _image(axes: Any, frames: NDArray[Any], seconds: float, ends: tuple[str, str]) -> None:
    """Counts [T, N] of units as colours, low frequencies at the bottom; `ends` name the least and the most."""
    n_channels = frames.shape[1]
    image = axes.imshow(
        frames.T, origin="lower", aspect="auto", extent=(0, seconds, 0, n_channels), cmap="magma",
        interpolation="nearest",
    )  # fmt: skip
    axes.grid(False)
    axes.set_xlabel("Time (s)")
    axes.set_yticks([0.5, n_channels - 0.5], ["low", "high"])
    _bar(axes, image, frames, ends)


def _bar(axes: Any, image: Any, frames: NDArray[Any], ends: tuple[str, str]) -> None:
    bar = axes.figure.colorbar(image, ax=axes, aspect=12, pad=0.01, ticks=[frames.min(), frames.max()])
    bar.ax.set_yticklabels(ends)
    bar.outline.set_visible(False)


def accuracy_against_cost(
    points: Sequence[tuple[str, float, float, float, float]], undistilled: tuple[str, float, float, float, float] | None
) -> Section:
    """A curriculum: `points` of (label, mean time steps, energy in mJ, mean accuracy 0…1, its sd or nan), finest first.

    `undistilled` is the same for the model trained from scratch. Raises ValueError for an accuracy outside
    0…1.
    """
    every = [*points, *([undistilled] if undistilled else [])]
    check_fractions([(point[0], point[3]) for point in every], "accuracy of stage")
    figure = new_figure(WIDTH_IN, 3.6)
    panels = figure.subplots(1, 2, sharey=True)
    times, unit = prefixed(max(point[2] for point in every) * 1e9)  # of picojoules
    costs = ("Time steps in a word (mean)", f"Energy of a word ({unit}J)")
    for column, (panel, cost) in enumerate(zip(panels, costs, strict=True), 1):
        curves = [("distilled from the finer one", points, palette[0], "o-")]
        curves += [("from scratch", [undistilled], palette[1], "D")] if undistilled else []
        for label, shown, colour, style in curves:
            x = [point[1] if column == 1 else point[2] * 1e9 / times for point in shown]
            y = [100 * point[3] for point in shown]
            spread = np.nan_to_num([100 * point[4] for point in shown])
            panel.errorbar(x, y, yerr=spread, fmt=style, color=colour, capsize=3, linewidth=1.6, label=label)
        for label, *values in points:
            place = (values[0] if column == 1 else values[1] * 1e9 / times, 100 * values[2])
            panel.annotate(label, place, xytext=(6, 6), textcoords="offset points", fontsize=9.5, color=INK)
        panel.set(xlabel=cost, xlim=(0, None))
        panel.margins(x=0.15, y=0.2)
    panels[0].set_ylabel("Words recognised (%)")
    panels[1].legend(framealpha=1, edgecolor="none", fontsize=10, labelcolor=INK, loc="lower right")
    return Section(
        title="What coarser time steps cost, and save",
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


def _evenly(count: int, at_most: int) -> NDArray[np.intp]:
    """Indices of at most `at_most` of `count` things, evenly spaced, first and last included."""
    return np.unique(np.linspace(0, count - 1, min(count, at_most)).round().astype(np.intp))
