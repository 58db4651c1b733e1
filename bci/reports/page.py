"""The page of an EEG experiment: what was found in, HTML out, through the one template of `accel.common.report`.

`eeg_report` is the whole page of an experiment: hand it what was found, and it chooses the sections and their order.
`write_report` is for pages of one's own: any sections, and the configuration at the end.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from numpy.typing import ArrayLike

from spikeloom.accel.common.report import Section, Table, render
from spikeloom.bci.reports import charts as figures
from spikeloom.bci.reports import quality as quality_figures
from spikeloom.bci.zuco.leakage import Overlap
from spikeloom.bci.zuco.summary import Summary

Interval = tuple[float, float, float]  # estimate, lower, upper


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What is known after an experiment, or before it; whatever is left out has no section.

    verdict: one line that opens the page; where a decoder was tested it says whether it beat its noise control.
    summary: the recordings. assessment: sections of `bci.evaluation.sections`. decodes: (sentence read, {decoder:
    output}), the EEG decoder, the noise control and others side by side. controls: decoder -> (estimate, lower, upper)
    of `control_score`. saliency: importance of each feature `[840]` or `[8, 105]`, >= 0; saliency_measure: what depends
    on them, in words. power: (strengths, shares of runs rejected, runs) of the calibration. leakage: sentences on both
    sides of splits. more: sections of one's own, before the configuration. config: what was run, seeds among it.
    """

    title: str
    verdict: str
    summary: Summary | None = None
    assessment: Sequence[Section] = ()
    decodes: Sequence[tuple[str, Mapping[str, str]]] = ()
    controls: Mapping[str, Interval] = field(default_factory=dict)
    control_score: str = "Excess"
    saliency: ArrayLike | None = None
    saliency_measure: str = "the loss"
    power: tuple[ArrayLike, ArrayLike, ArrayLike] | None = None
    leakage: Sequence[Overlap] = ()
    more: Sequence[Section] = ()
    config: Mapping[str, object] = field(default_factory=dict)


def eeg_report(path: Path, found: Findings) -> Path:
    """Write the page of an experiment to `path`, whole or not at all, and return it.

    Order: the verdict, what tests it, what was decoded, what the model used, then the recordings it rests on. Raises
    ValueError where a figure cannot be drawn from what was found, naming it.
    """
    parts = [*found.assessment]
    if found.controls:
        parts.append(figures.control_comparison(found.controls, found.control_score))
    if found.decodes:
        parts.append(figures.sample_decodes(found.decodes))
    if found.saliency is not None:
        parts.append(figures.electrode_importance(found.saliency, found.saliency_measure))
    if found.power is not None:
        parts.append(figures.power_curve(*found.power))
    if found.leakage:
        parts.append(quality_figures.sentences_on_both_sides(found.leakage))
    if found.summary is not None:
        parts += recording_sections(found.summary)
    return write_report(path, found.title, [*parts, *found.more], found.config, found.verdict)


def recording_sections(summary: Summary) -> list[Section]:
    """The recordings themselves: what is whole, how people read, what the EEG looks like, where it was measured."""
    parts = [quality_figures.quality_totals(summary.quality), quality_figures.quality_of_recordings(summary.quality)]
    if summary.omission_rates:
        parts.append(figures.omission_rates(summary.omission_rates))
    if summary.frequencies_hz is not None and summary.density is not None:
        parts.append(figures.power_spectrum(summary.frequencies_hz, summary.density))
    parts.append(figures.sensor_layout())
    if summary.amplitudes_uv is not None:
        parts.append(figures.band_topomaps(summary.amplitudes_uv))
    return parts


def write_report(
    path: Path, title: str, sections: Sequence[Section], config: Mapping[str, object] = MappingProxyType({}),
    lead: str = "",
) -> Path:  # fmt: skip
    """Write the page to `path`, whole or not at all, and return it. config: what was run, seeds among it; closes it.

    Raises ValueError for no sections or a `path` that is not an .html file.
    """
    path = Path(path)
    if path.suffix != ".html" or not (sections or lead):
        raise ValueError(f"got {len(sections)} sections for {path}; use at least one and a file called NAME.html")
    if config:
        rows = [(key, str(value)) for key, value in config.items()]
        sections = [*sections, Section("Configuration and seeds", "What was run.", table=Table(("Key", "Value"), rows))]
    return render(title, lead, sections, path)
