"""What a reading experiment and its decoders look like, as report sections with captions for a newcomer.

Each function takes plain arrays and returns a `Section`; `page.write_report` puts them on a page. Nothing here
computes a result: rates, spectra, scores and intervals come in finished. Values per channel are in the order of
`spikeloom.bci.zuco.records.CHANNELS`, features band-major as everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spikeloom.accel.common.report import INK, MUTED, Section, Table, new_figure, palette
from spikeloom.bci.raw.montage import montage
from spikeloom.bci.zuco.records import BAND_EDGES_HZ, BANDS, CHANNELS, N_CHANNELS, N_FEATURES, REFERENCE

if TYPE_CHECKING:
    import mne

WIDTH_IN = 9.4
NAMES = {"t": "theta", "a": "alpha", "b": "beta", "g": "gamma"}


def omission_rates(rates: Mapping[str, ArrayLike]) -> Section:
    """subject -> omission rate of each sentence `[n]`, 0...1: median, quartiles and mean of every subject.

    Raises ValueError for no subjects, a subject without sentences, or a rate outside 0...1.
    """
    found = {subject: _finite(values, f"omission rates of {subject}") for subject, values in rates.items()}
    if not found:
        raise ValueError("got no subjects; use at least one")
    for subject, values in found.items():
        if values.min() < 0 or values.max() > 1:
            raise ValueError(f"omission rate of {subject} must lie in 0…1, got {values.max()}; use a fraction")
    figure = new_figure(WIDTH_IN, 3.4)
    axes = figure.subplots()
    places = np.arange(len(found))
    quartiles = 100 * np.array([np.percentile(values, (25, 50, 75)) for values in found.values()])
    axes.vlines(places, quartiles[:, 0], quartiles[:, 2], color=palette[4], linewidth=6)
    axes.plot(places, quartiles[:, 1], "o", color=palette[0], markersize=6)
    axes.set_xticks(places, list(found), rotation=90 if len(found) > 14 else 0)
    axes.set(ylabel="Words not looked at (%)", ylim=(0, max(60.0, 1.1 * quartiles.max())))
    axes.grid(False, axis="x")
    means = {subject: float(values.mean()) for subject, values in found.items()}
    low, high = min(means, key=lambda s: means[s]), max(means, key=lambda s: means[s])
    span = f"{low} skips {100 * means[low]:.0f} % of them" + (
        f", {high} {100 * means[high]:.0f} %" if high != low else ""
    )
    return Section(
        "How many words each reader skips",
        "Readers do not look at every word; skipped words leave no EEG of their own. Dots are the median sentence, "
        f"bars reach from the first to the third quartile. On average {span}.",
        figure,
    )


def power_spectrum(frequencies_hz: ArrayLike, density: ArrayLike) -> Section:
    """Power spectral densities `[n_chans, F]` in uV²/Hz over `frequencies_hz` `[F]`: every channel and the median.

    The flat reference channel is left out. Raises ValueError unless one column a frequency is given.
    """
    at, power = np.asarray(frequencies_hz, dtype=float), np.asarray(density, dtype=float)
    if at.ndim != 1 or power.ndim != 2 or power.shape[1] != len(at) or not (power > 0).any():
        raise ValueError(
            f"got densities {power.shape} over frequencies {at.shape}; use [n_chans, F] over [F], not all 0"
        )
    alive = power[(power > 0).all(axis=1)]
    if not len(alive):
        raise ValueError("every channel has a frequency of zero power; leave the first, 0 Hz, out")
    decibels = 10 * np.log10(alive)
    figure = new_figure(WIDTH_IN, 3.4)
    axes = figure.subplots()
    for number, (band, (low, high)) in enumerate(BAND_EDGES_HZ.items()):
        axes.axvspan(low, high, color=palette[number // 2], alpha=0.12, linewidth=0)
        axes.annotate(band, ((low + high) / 2, 0.97), xycoords=("data", "axes fraction"), ha="center", va="top",
                      fontsize=9, color=MUTED)  # fmt: skip
    axes.plot(at, decibels.T, color=MUTED, linewidth=0.4, alpha=0.35, rasterized=True)
    axes.plot(at, np.median(decibels, axis=0), color=palette[0], linewidth=1.8)
    axes.set(xlabel="Frequency (Hz)", ylabel="Power (dB re 1 µV²/Hz)", xlim=(at.min(), min(at.max(), 60.0)))
    shown = decibels[:, at <= max(60.0, at.min())]
    axes.set_ylim(shown.min() - 2, shown.max() + 4)  # the labels of the bands stand on top
    return Section(
        "Power spectrum",
        f"How strong each rhythm is in {len(alive)} channels (grey) and in the middle one of them (blue). Shaded: the "
        "eight bands whose amplitude the features are. Brain signals fall off with frequency; a peak near 10 Hz is the "
        "alpha rhythm, a narrow one at 50 Hz the mains.",
        figure,
    )


def sensor_layout() -> Section:
    """The 105 electrodes from above, nose up, labelled."""
    info = _info()
    figure = new_figure(8.6, 8.6)
    axes = figure.subplots()
    _topomap(axes, np.zeros(N_CHANNELS - 1), info, cmap="Greys", vlim=(0, 1), contours=0, names=info.ch_names)
    for text in axes.texts:
        text.set_fontsize(8.5)
    return Section(
        "Where the electrodes sit",
        f"The {N_CHANNELS - 1} electrodes seen from above, nose up. All measure against {REFERENCE} at the crown, "
        "whose own signal is therefore zero. Electrodes of the face and the neck were left out.",
        figure,
    )


def band_topomaps(amplitudes_uv: ArrayLike) -> Section:
    """Mean amplitude of each band and channel, `[8, 105]` or `[840]` in uV, as eight maps with a scale each."""
    values = _per_channel(amplitudes_uv)
    info = _info()
    figure = new_figure(WIDTH_IN, 5.2)
    for axes, band, row in zip(figure.subplots(2, 4).flat, BANDS, values[:, :-1], strict=True):
        image = _topomap(axes, row, info, cmap="viridis", vlim=(row.min(), row.max()), contours=4)
        low, high = BAND_EDGES_HZ[band]
        axes.set_title(f"{band} · {NAMES[band[0]]} · {low:g}–{high:g} Hz", fontsize=10, color=INK)
        _scale(figure, image, axes, "µV")
    return Section(
        "Where each rhythm is strong",
        "Mean amplitude over all fixations on words, for each of the eight bands, seen from above with the nose up. "
        "Every map has its own scale. Alpha is expected at the back of the head; strength at the rim is often muscle.",
        figure,
    )


def electrode_importance(saliency: ArrayLike, measured: str = "the loss") -> Section:
    """Importance of each feature, `[8, 105]` or `[840]`, >= 0, summed over bands to one map; Cz stays blank.

    measured: what depends on the features, in words. Raises ValueError for other shapes or a negative value.
    """
    values = _per_channel(saliency)
    if values.min() < 0:
        raise ValueError(f"importance must not be negative, got {values.min()}; use absolute values")
    total = values[:, :-1].sum(axis=0)
    share = 100 * total / total.sum() if total.sum() > 0 else total
    figure = new_figure(WIDTH_IN, 4.0)
    left, right = figure.subplots(1, 2, width_ratios=(1.1, 1))
    image = _topomap(left, share, _info(), cmap="magma", vlim=(0.0, max(float(share.max()), 1e-9)), contours=4)
    _scale(figure, image, left, "% of all")
    by_band = values.sum(axis=1)
    right.bar(range(len(BANDS)), 100 * by_band / max(float(by_band.sum()), 1e-12), color=palette[0], width=0.7)
    right.set_xticks(range(len(BANDS)), BANDS)
    right.set(ylabel="Share of importance (%)", xlabel="Band (t theta, a alpha, b beta, g gamma)")
    right.grid(False, axis="x")
    strongest = np.argsort(-share, kind="stable")[:5]
    largest = ", ".join(f"{CHANNELS[i]} {share[i]:.1f} %" for i in strongest)
    return Section(
        "Which electrodes the model uses",
        f"Importance: how much {measured} depends on what an electrode measures. Left, summed over bands and seen from "
        f"above, nose up; right, over electrodes. The largest shares: {largest}. A model can rely on an electrode and "
        "still know nothing of the words: read this map after the comparison with controls.",
        figure,
    )


def sample_decodes(samples: Sequence[tuple[str, Mapping[str, str]]]) -> Section:
    """`(sentence read, {decoder: its output})` of a few sentences; the same decoders, in order, for every sentence.

    Give the controls beside the EEG decoder. Raises ValueError for no samples or unequal decoders.
    """
    if not samples:
        raise ValueError("got no samples; use at least one")
    decoders = list(samples[0][1])
    if len(decoders) < 2 or any(list(outputs) != decoders for _, outputs in samples):
        raise ValueError(f"got the decoders {decoders} for the first sentence; use the same two or more for all")
    rows = [(read, *(text or "(nothing)" for text in outputs.values())) for read, outputs in samples]
    return Section(
        "What the decoders wrote",
        "Free-running output, the sentence that was read on the left. A decoder that gets noise instead of EEG is "
        "beside it: what it also gets right comes from the language model.",
        table=Table(("Read", *decoders), rows),
    )


def control_comparison(scores: Mapping[str, tuple[float, float, float]], score: str) -> Section:
    """decoder -> (estimate, lower, upper) of `score`, as dots with intervals, in the order given.

    Raises ValueError for no decoders or an estimate outside its interval.
    """
    if not scores:
        raise ValueError("got no decoders; use at least one")
    for name, (estimate, lower, upper) in scores.items():
        if not lower <= estimate <= upper:
            raise ValueError(f"{name}: the estimate {estimate} lies outside its interval [{lower}, {upper}]")
    figure = new_figure(WIDTH_IN, 1.0 + 0.38 * len(scores))
    axes = figure.subplots()
    middle, low, high = np.array(list(scores.values()), dtype=float).T
    places = np.arange(len(scores))
    axes.hlines(places, low, high, color=palette[4], linewidth=3.5)
    axes.plot(middle, places, "o", color=palette[0], markersize=7)
    axes.axvline(0, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axes.set_yticks(places, list(scores))
    axes.set(xlabel=score, ylim=(len(scores) - 0.4, -0.6))
    rows = [(name, *(f"{round(value, 4) + 0.0:+.4f}" for value in values)) for name, values in scores.items()]
    return Section(
        "The decoder compared with its controls",
        f"{score}: dots are estimates, bars 95 % intervals over sentences and readers. The decoder must stand clear of "
        "its controls. Those that still see something of the EEG (phase, random_init) may lie above zero themselves.",
        figure,
        Table(("Decoder", score, "Lower", "Upper"), rows),
    )


def power_curve(strengths: ArrayLike, rejections: ArrayLike, n_runs: ArrayLike) -> Section:
    """Share of simulated runs, 0...1, that reach p < .05, by planted `signal_strength`; each `[k]`, strengths rising.

    Bars are 95 % Wilson intervals of `n_runs`. Raises ValueError for unequal lengths or shares outside 0...1.
    """
    at, share, runs = (np.asarray(v, dtype=float) for v in (strengths, rejections, n_runs))
    if at.ndim != 1 or not len(at) or not at.shape == share.shape == runs.shape or (np.diff(at) <= 0).any():
        raise ValueError(f"got strengths {at.tolist()}, shares {share.shape}, runs {runs.shape}; use rising strengths")
    if share.min() < 0 or share.max() > 1 or runs.min() < 1:
        raise ValueError(f"got shares {share.tolist()} of {runs.tolist()} runs; use fractions of one run or more")
    z2 = 1.96**2  # Wilson: (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n)
    middle = (share + z2 / (2 * runs)) / (1 + z2 / runs)
    half = 1.96 * np.sqrt(share * (1 - share) / runs + z2 / (4 * runs**2)) / (1 + z2 / runs)
    figure = new_figure(WIDTH_IN, 3.4)
    axes = figure.subplots()
    places = np.arange(len(at))  # strengths double: equal steps, 0 among them
    axes.vlines(places, 100 * (middle - half), 100 * (middle + half), color=palette[4], linewidth=3.5)
    axes.plot(places, 100 * share, "o-", color=palette[0], linewidth=1.6)
    axes.axhline(5, color=palette[1], linewidth=1.2, linestyle=(0, (4, 3)))
    axes.set_xticks(places, [f"{strength:g}" for strength in at])
    axes.set(xlabel="Strength of the planted signal", ylabel="Runs called significant (%)", ylim=(-3, 103))
    null = f" Without a signal: {100 * share[0]:.1f} % of {runs[0]:.0f} runs." if at[0] == 0 else ""
    return Section(
        "Does the test find what is there, and only that",
        "Synthetic recordings in which the truth is known. The dashed line is the 5 % that chance may call significant "
        f"when there is no signal; above it the curve should rise to 100 %.{null}",
        figure,
        Table(
            ("Strength", "Significant (%)", "Runs"),
            [(f"{s:g}", 100 * r, int(n)) for s, r, n in zip(at, share, runs, strict=True)],
        ),
    )


def _info() -> mne.Info:
    """Every electrode but the reference, with its place."""
    import mne

    info = mne.create_info(list(CHANNELS[:-1]), 500.0, "eeg")
    info.set_montage(montage(), on_missing="raise")
    return info


def _topomap(axes: Any, values: NDArray[Any], info: mne.Info, **how: Any) -> Any:
    import mne

    image, _ = mne.viz.plot_topomap(values, info, axes=axes, show=False, **how)
    for text in axes.texts:
        text.set_fontsize(6)
    return image


def _scale(figure: Any, image: Any, axes: Any, unit: str) -> None:
    bar = figure.colorbar(image, ax=axes, shrink=0.6, aspect=14, pad=0.02)
    bar.ax.tick_params(labelsize=8, colors=MUTED)
    bar.ax.set_title(unit, fontsize=8, color=MUTED)
    bar.outline.set_visible(False)


def _per_channel(values: ArrayLike) -> NDArray[Any]:
    """`[8, 105]` of `[840]` or `[8, 105]`."""
    array = np.asarray(values, dtype=float)
    if array.shape not in ((N_FEATURES,), (len(BANDS), N_CHANNELS)) or not np.isfinite(array).all():
        raise ValueError(f"got shape {array.shape}; use 840 finite values, band-major, or [8, 105]")
    return array.reshape(len(BANDS), N_CHANNELS)


def _finite(values: ArrayLike, name: str) -> NDArray[Any]:
    array = np.asarray(values, dtype=float).ravel()
    array = array[~np.isnan(array)]  # sentences without gaze have no rate
    if not array.size:
        raise ValueError(f"{name}: got no value; leave the subject out")
    return array
