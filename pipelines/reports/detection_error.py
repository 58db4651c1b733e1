"""False accepts and misses of a listener for people: lines in the terminal, and a page with the tradeoff."""

from pathlib import Path

from spikeloom.accel.common.report import MUTED, Section, Table, new_figure, palette, render
from spikeloom.speech.detection_error import DetectionError

ALLOWED = (0.5, 1.0, 10.0)  # false accepts an hour at which the miss rate is stated


def print_summary(found: DetectionError, threshold: float) -> None:
    """Both errors at the threshold in use, and the miss rate at fixed numbers of false accepts."""
    print(f"{span(found.hours)} without keywords, {found.keywords:,} keyword clips")
    print("threshold  false accepts an hour  miss rate")
    for row in zip(found.thresholds, found.per_hour(), found.miss_rates(), strict=True):
        print(f"{row[0]:9.2f}  {row[1]:21.1f}  {100 * row[2]:7.1f} %")
    for allowed in ALLOWED:
        print(at_most(found, allowed))
    print(f"in use: spotter.threshold={threshold}")


def span(hours: float) -> str:
    """So much sound in the unit that a listener would say: 36 s, 9.0 min, 24.0 h."""
    seconds = 3600 * hours
    if seconds < 60:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.1f} min" if hours < 1 else f"{hours:.1f} h"


def at_most(found: DetectionError, allowed: float) -> str:
    """The miss rate with at most so many false accepts an hour, as a sentence. An hour without one proves little:
    less than one false accept in all the sound is named as such."""
    point, rate = found.at(allowed), f"{allowed:g} false accept{'' if allowed == 1 else 's'}"
    if point is None:
        return f"At most {rate} an hour: at no threshold."
    few = " (less than one in all of this sound: use more hours)" if allowed * found.hours < 1 else ""
    return f"At most {rate} an hour{few}: {100 * point[2]:.1f} % missed, threshold {point[0]:g}."


def write_page(found: DetectionError, name: str, sound: str, threshold: float, path: Path) -> None:
    """The page: curve and table."""
    rows = [
        [f"{t:g}", f"{fa:,.1f}", f"{100 * miss:.1f} %"]
        for t, fa, miss in zip(found.thresholds, found.per_hour(), found.miss_rates(), strict=True)
    ]
    from matplotlib.ticker import LogLocator

    figure = new_figure(9.4, 4.2)
    axes = figure.subplots()
    least = 1 / found.hours  # what one false accept counts
    rates = [max(rate, least / 2) for rate in found.per_hour()]
    axes.plot(rates, [100 * miss for miss in found.miss_rates()], marker="o", markersize=4, color=palette[0])
    for t, rate, miss in zip(found.thresholds, rates, found.miss_rates(), strict=True):
        if abs(t - threshold) < 1e-9:
            axes.plot([rate], [100 * miss], marker="o", markersize=9, color=palette[1], linestyle="")
            axes.annotate(f"threshold {t:g}", (rate, 100 * miss), xytext=(8, 8), textcoords="offset points", fontsize=9)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
    axes.xaxis.set_major_formatter("{x:,g}")
    axes.minorticks_off()
    axes.axvline(least, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
    axes.set(xlabel="False accepts an hour", ylabel="Keywords missed (%)", ylim=(0, 102))
    curve = Section(
        "Detection-error tradeoff",
        "Each point is one threshold: to the right the listener speaks more often without being spoken to, upwards it "
        "misses more keywords. The lower left corner is best. The dashed line is one false accept in all of the sound; "
        "points left of it had none.",
        figure=figure,
        table=Table(("Threshold", "False accepts an hour", "Keywords missed"), rows),
    )
    allowances = "\n\n".join(at_most(found, allowed) for allowed in ALLOWED)
    lead = (
        f"{name} processed {span(found.hours)} of {sound}, in which no keyword is said, and "
        f"{found.keywords:,} clips of keywords, each between silences.\n\n{allowances}"
    )
    render(f"False accepts and misses of {name}", lead, [curve], path)
