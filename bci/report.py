"""One self-contained page for a reading experiment, through `mne.Report`: sections in, HTML out, no network needed.

`reading_report` is the whole page of an experiment: hand it what was found, and it chooses the sections and their
order. `write_report` is for pages of one's own: the sections are those of `accel.report`, from `bci.figures` or
anywhere else; figures go in as SVG, tables as HTML.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

from numpy.typing import ArrayLike

from accel.files import whole
from accel.report import Section, Table, table_html
from bci import figures, quality_figures
from bci.zuco.leakage import Overlap
from bci.zuco.summary import Summary

_STYLE = """
.spikeloom { overflow-x: auto; }
.spikeloom table { border-collapse: collapse; font-size: .94rem; }
.spikeloom th, .spikeloom td { padding: .35rem .6rem; border-bottom: 1px solid #e3e7ec; vertical-align: top; }
.spikeloom .number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.spikeloom p { max-width: 46rem; }
"""

Interval = tuple[float, float, float]  # estimate, lower, upper


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What is known after an experiment, or before it; whatever is left out has no section.

    verdict: one line that opens the page; where a decoder was tested it says whether it beat its noise control.
    summary: the recordings. judgement: sections of `bci.evaluation.sections`. decodes: (sentence read, {decoder:
    output}), the EEG decoder, the noise control and others side by side. controls: decoder -> (estimate, lower, upper)
    of `control_score`. saliency: importance of each feature `[840]` or `[8, 105]`, >= 0; saliency_measure: of what, in
    words. power: (strengths, shares of runs rejected, runs) of the calibration. leakage: sentences on both sides of
    splits. more: sections of one's own, before the configuration. config: what was run, seeds among it.
    """

    title: str
    verdict: str
    summary: Summary | None = None
    judgement: Sequence[Section] = ()
    decodes: Sequence[tuple[str, Mapping[str, str]]] = ()
    controls: Mapping[str, Interval] = field(default_factory=dict)
    control_score: str = "Excess"
    saliency: ArrayLike | None = None
    saliency_measure: str = "the gradient of the loss"
    power: tuple[ArrayLike, ArrayLike, ArrayLike] | None = None
    leakage: Sequence[Overlap] = ()
    more: Sequence[Section] = ()
    config: Mapping[str, object] = field(default_factory=dict)


def reading_report(path: Path, found: Findings) -> Path:
    """Write the page of an experiment to `path`, whole or not at all, and return it.

    Order: the verdict, what tests it, what was decoded, what the model used, then the recordings it rests on. Raises
    ValueError where a figure cannot be drawn from what was found, naming it.
    """
    parts = [Section("In one line", "", text=found.verdict), *found.judgement]
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
    return write_report(path, found.title, [*parts, *found.more], found.config)


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
    path: Path, title: str, sections: Sequence[Section], config: Mapping[str, object] = MappingProxyType({})
) -> Path:
    """Write the page to `path`, whole or not at all, and return it. config: what was run, seeds among it; closes it.

    Raises ValueError for no sections or a `path` that is not an .html file.
    """
    import mne

    path = Path(path)
    if path.suffix != ".html" or not sections:
        raise ValueError(f"got {len(sections)} sections for {path}; use at least one and a file called NAME.html")
    if config:
        rows = [(key, str(value)) for key, value in config.items()]
        sections = [*sections, Section("Configuration and seeds", "What was run.", table=Table(("Key", "Value"), rows))]
    report = mne.Report(title=title, image_format="svg", verbose="error")
    report.add_custom_css(_STYLE)
    for section in sections:
        words = section.text.split("\n\n") if section.text.strip() else []
        words += [section.caption] if section.figure is None else []
        html = "".join(f"<p>{escape(part.strip())}</p>" for part in words)
        html += table_html(section.table) if section.table is not None else ""
        together = section.title if section.figure is not None and html else None
        if section.figure is not None:
            report.add_figure(section.figure, title=section.title, caption=section.caption, section=together)
        if html:
            heading = f"{section.title}: in numbers" if together else section.title
            report.add_html(f'<div class="spikeloom">{html}</div>', title=heading, section=together)
    with TemporaryDirectory() as folder, whole(path) as partial:  # mne insists on the suffix, which partial lacks
        report.save(Path(folder) / "report.html", open_browser=False, verbose="error")
        shutil.move(Path(folder) / "report.html", partial)
    return path
