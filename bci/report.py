"""One self-contained page for a reading experiment, through `mne.Report`: sections in, HTML out, no network needed.

The sections are those of `accel.report`, from `bci.figures` or anywhere else; figures go in as SVG, tables as HTML.
"""

import shutil
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

from accel.files import whole
from accel.report import Section, Table, table_html

_STYLE = """
.spikeloom table { border-collapse: collapse; font-size: .94rem; }
.spikeloom th, .spikeloom td { padding: .35rem .9rem; border-bottom: 1px solid #e3e7ec; vertical-align: top; }
.spikeloom .number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.spikeloom p { max-width: 46rem; }
"""


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
