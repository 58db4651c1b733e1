"""One renderer from sections of figures, tables and text to a self-contained HTML page: the template is `report.html`.

A package describes what it found as `Section` objects and calls `render`; no package writes HTML. The page carries its
figures as inline SVG and its style as inline CSS: it opens without a network, in light and in dark, prints, and reads
on a telephone. Text is escaped, and taken literally in figures: a class named `$x_1$` is no mathematics.

Figures come from `new_figure`, which never touches pyplot's global state; `common.charts` and the packages draw them.
"""

from __future__ import annotations

import base64
import csv
import io
import json
import logging
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib import resources
from numbers import Integral, Real
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from spikeloom.accel.common.files import whole
from spikeloom.accel.common.svg import PX_PER_IN, Chart

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger("spikeloom")

# Paul Tol's "bright" scheme: its colours stay apart under the common forms of colour blindness.
palette = ["#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#888888"]  # list[str]

# Colours of text and lines. In figures they follow the page from light to dark; ON_LIGHT and white text on images stay.
INK, MUTED, GRID, WARN, PAPER = "#1f2733", "#5b6675", "#e3e7ec", "#b4232f", "#fffffe"
ON_LIGHT, BLACK = "#1f2734", "#000000"
LIGHT = {
    "page": "#f6f7f9", "card": "#ffffff", "ink": INK, "soft": "#384353", "muted": MUTED, "grid": GRID,
    "link": "#2f5f93", "warn": WARN, "shade": "#00000033",
}  # fmt: skip
DARK = {
    "page": "#0f1419", "card": "#171d24", "ink": "#e6e9ee", "soft": "#c6ccd5", "muted": "#a3adba", "grid": "#323b47",
    "link": "#8ab8ee", "warn": "#ff9aa2", "shade": "#ffffff40",
}  # fmt: skip
FOLLOWS = {INK: "ink", MUTED: "muted", GRID: "grid", WARN: "warn", PAPER: "card"}  # colour of a figure -> of the page
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"
# Room for a table on a telephone; a letter of a wide font, the padding of a cell, and the least width of a column of
# sentences, and of the first one.
NARROW_PX, LETTER_PX, CELL_PX, PROSE_PX, FIRST_PX = 330, 8.8, 20, 224, 96
MOST_STACKED = 100  # cells of a table that is too wide; one of more cells scrolls
# Figure text is 10 pt (13 px). Below this scale a figure scrolls sideways; on a telephone sooner.
SMALLEST_SCALE, SMALLEST_ON_TELEPHONE = 0.7, 0.85


@dataclass(frozen=True, kw_only=False)
class Table:
    """`rows` of `len(columns)` cells each. Columns of numbers are right-aligned and rounded to four digits; hand in
    `str` for any other format. Raises ValueError when a row has another length than `columns`."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str | int | float]]

    def __post_init__(self) -> None:
        for index, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(
                    f"row {index} of a table with {len(self.columns)} columns got {len(row)} cells; use one per column"
                )


@dataclass(frozen=True, kw_only=False)
class Section:
    """A titled part of a report. `caption` says in plain language what the figure or table shows; `text` holds
    paragraphs separated by blank lines, `chart` is a figure that needs no matplotlib. At least one of figure, chart,
    table and text must be given. `opens_chapter`: the sections behind it belong to it in the list of contents."""

    title: str
    caption: str
    figure: Figure | None = None
    table: Table | None = None
    text: str = ""
    opens_chapter: bool = False
    chart: Chart | None = None

    def __post_init__(self) -> None:
        if self.figure is None and self.chart is None and self.table is None and not self.text.strip():
            raise ValueError(f"section {self.title!r} got no figure, chart, table or text; use at least one of them")
        if self.figure is not None and self.chart is not None:
            raise ValueError(f"section {self.title!r} got a figure and a chart; use two sections")


def new_figure(width_in: float, height_in: float) -> Figure:
    """An empty figure of `width_in` × `height_in` inches in the style of the report; a page is 9.4 inches wide.

    Axes made by `figure.subplots`, `add_subplot` or `add_axes` get the style. More than a few thousand marks belong in
    an image or an artist with `rasterized=True`, otherwise each becomes an SVG element.
    """
    from matplotlib.figure import Figure

    class ReportFigure(Figure):
        # Every way to make axes ends in these two methods; styling there spares a change of the global rcParams.
        def add_subplot(self, *args: Any, **kwargs: Any) -> Any:
            return _styled(super().add_subplot(*args, **kwargs))

        def add_axes(self, *args: Any, **kwargs: Any) -> Any:
            return _styled(super().add_axes(*args, **kwargs))

    return ReportFigure(figsize=(width_in, height_in), layout="constrained", facecolor="none")


def _styled(axes: Any) -> Any:
    from cycler import cycler

    axes.set_prop_cycle(cycler(color=palette))
    axes.set(axisbelow=True, facecolor="none")
    axes.grid(True, color=GRID, linewidth=0.7)
    axes.tick_params(which="both", length=3, width=0.6, color=MUTED, labelcolor=MUTED, labelsize=10)
    for name, spine in axes.spines.items():
        spine.set(visible=name in ("left", "bottom"), linewidth=0.6, color=MUTED)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(fontsize=10, color=MUTED)
    for title in (axes.title, axes._left_title, axes._right_title):
        title.set(fontsize=11, color=INK)
    return axes


@contextmanager
def results_come_first(page: Path) -> Iterator[None]:
    """The block draws `page` from results that are on disk; an error in it becomes one line and costs nothing else."""
    try:
        yield
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "no message")
        log.warning("%s was not drawn (%s: %s); the results are complete", page, type(error).__name__, reason)


def render(
    title: str,
    lead: str,
    sections: Sequence[Section],
    path: Path,
    facts: Mapping[str, str] = MappingProxyType({}),
) -> Path:
    """Write the report to `path` and return it. `lead` opens the page; `facts` (label → value) become tiles below it.

    Equal inputs give equal bytes. The file appears whole or not at all; missing parent folders are made. Raises
    whatever a figure raises while it is drawn, and then leaves an earlier report at `path` as it was.
    """
    page, path = page_text(title, lead, sections, facts), Path(path)
    with whole(path) as partial:
        partial.write_text(page, encoding="utf-8", newline="\n")
    return path


def page_text(
    title: str, lead: str, sections: Sequence[Section], facts: Mapping[str, str] = MappingProxyType({})
) -> str:
    """The report of `render` as a string."""
    numbers = _numbers(sections)
    return str(_template().render(
        title=title, lead=_paragraphs(lead), facts=facts, light=LIGHT, dark=DARK, fonts=FONTS,
        scale=SMALLEST_SCALE, scale_on_telephone=SMALLEST_ON_TELEPHONE,
        sections=[_section(s, f"s{i}", number) for i, (s, number) in enumerate(zip(sections, numbers, strict=True), 1)],
    ))  # fmt: skip


@cache
def _template() -> Any:
    from jinja2 import Environment, StrictUndefined

    source = resources.files("spikeloom.accel.common").joinpath("report.html").read_text("utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["breakable"] = _breakable
    return environment.from_string(source)


def _numbers(sections: Sequence[Section]) -> list[str]:
    """1, 2, 3; where sections open chapters: 1, 1.1, 1.2, 2."""
    chapter, within, numbers = 0, 0, list[str]()
    for section in sections:
        if section.opens_chapter:
            chapter, within = chapter + 1, 0
        else:
            within += 1
        parts = (chapter, within) if chapter else (within,)
        numbers.append(".".join(str(n) for n in parts if n))
    return numbers


def _section(section: Section, name: str, number: str) -> dict[str, Any]:
    """What the template shows of a section."""
    svg = "" if section.figure is None else _svg(section.figure, name, section.title)
    if section.chart is not None:
        svg = section.chart.svg().replace("<svg", _opening(section.chart.width_in, section.title), 1)
    if section.caption.strip():
        svg = svg.replace('<svg role="img"', f'<svg role="img" aria-describedby="{name}-caption"', 1)
    table = None if section.table is None else _shown(section.table, section.title)
    return {
        "name": name, "number": number, "title": section.title, "opens_chapter": section.opens_chapter,
        "text": _paragraphs(section.text), "caption": _prose(section.caption), "svg": svg, "table": table,
        "on_white": BLACK in svg,  # black lines of another library: kept on white in the dark
    }  # fmt: skip


def _shown(table: Table, title: str) -> dict[str, Any]:
    """What the template shows of a table: heads and cells with their kinds, and whether a narrow screen gets one row
    below the other, with the column of each cell in front of it."""
    columns = [_column([row[i] for row in table.rows]) for i in range(len(table.columns))]
    kinds = [
        "number" if n else "prose" if any(len(text) > 30 and " " in text for text in texts) else ""
        for texts, n in columns
    ]
    heads = list(map(str, table.columns))
    widths = [
        PROSE_PX if kind == "prose" else CELL_PX + LETTER_PX * max(map(len, [*(texts if n else " ".join(texts).split()),
                                                                            *head.split(), ""]))
        for head, kind, (texts, n) in zip(heads, kinds, columns, strict=True)
    ]  # fmt: skip
    least = sum(widths) + max(0, FIRST_PX - widths[0])
    # Sentences in a narrow column take more lines than cells below each other.
    few = len(heads) == 2 or len(heads) * len(table.rows) <= MOST_STACKED or ("prose" in kinds and len(heads) == 3)
    # A row is named by its words, which need no column in front of them, unless other cells are sentences, too.
    named = kinds[0] == "" or (kinds[0] == "prose" and "prose" not in kinds[1:])
    return {
        "head": list(zip(heads, kinds, strict=True)),
        "body": [list(zip(row, kinds, strict=True)) for row in zip(*(cells for cells, _ in columns), strict=True)],
        "downloads": _downloads(table, title),
        "stacks": few and least > NARROW_PX,
        "labels": ["" if named and (i == 0 or len(heads) == 2) else head for i, head in enumerate(heads)],
    }


def _downloads(table: Table, title: str) -> list[tuple[str, str, str]]:
    """Kind, file name and data: address of the table with its numbers unrounded."""
    name = re.sub(r"[^a-z0-9]+", "_", title.lower()).strip("_")[:60] or "table"

    def plain(cell: Any) -> Any:
        if isinstance(cell, Integral):  # numpy's too; a bool stays one
            return bool(cell) if isinstance(cell, bool) else int(cell)
        if isinstance(cell, Real):
            return float(cell) if math.isfinite(float(cell)) else None
        return str(cell)

    rows = [[plain(cell) for cell in row] for row in table.rows]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([table.columns, *rows])
    columns = [str(column) for column in table.columns]
    distinct = columns if len(set(columns)) == len(columns) else [f"{i} {column}" for i, column in enumerate(columns)]
    objects = json.dumps([dict(zip(distinct, row, strict=True)) for row in rows], ensure_ascii=False)
    return [
        (kind.upper(), f"{name}.{kind}", f"data:{mime};base64,{base64.b64encode(content.encode()).decode()}")
        for kind, mime, content in (("csv", "text/csv", text.getvalue()), ("json", "application/json", objects))
    ]


def _paragraphs(text: str) -> list[str]:
    return [_prose(part) for part in re.split(r"\n\s*\n", text) if part.strip()]


def _prose(text: str) -> str:
    """Escaped text of a page in which what stands between backticks is code."""
    from markupsafe import Markup
    from markupsafe import escape as escaped

    return Markup(re.sub(r"`([^`\n]+)`", r"<code>\1</code>", str(escaped(text.strip()))))


def _breakable(text: str) -> str:
    """Escaped text whose long words may break behind a point, stroke or underscore, as keys and paths have them."""
    from markupsafe import Markup
    from markupsafe import escape as escaped

    pieces = re.split(r"(\S{13,})", str(text))
    long = [re.sub(r"(?<=\w[._/])(?=[A-Za-z])", "\0", piece) if i % 2 else piece for i, piece in enumerate(pieces)]
    return Markup(str(escaped("".join(long))).replace("\0", "<wbr />"))


def _svg(figure: Figure, name: str, label: str) -> str:
    """The figure as an <svg> element whose ids all start with `name`, so that figures on one page do not collide."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    # The salt makes matplotlib's ids a function of the drawing; text stays text: small, selectable, in the page's font.
    with rc_context({"svg.hashsalt": "spikeloom", "svg.fonttype": "none", "svg.image_inline": True}):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        # Drawing moves the axes a little, and the next drawing would start from there; a copy keeps renderings equal.
        drawn = deepcopy(figure)
        _prepare_text(drawn)
        drawn.savefig(buffer, format="svg", dpi=200, facecolor="none", metadata=nothing)
    svg = buffer.getvalue()
    svg = re.sub(r"<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    # matplotlib's style sheet would reach the whole page; the page's own sheet holds the same rule for figures only.
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)

    follows = {} if BLACK in svg else FOLLOWS

    def rename(tag: re.Match[str]) -> str:
        renamed = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", tag[0])
        return re.sub("#[0-9a-f]{6}", lambda c: f"var(--{follows[c[0]]})" if c[0] in follows else c[0], renamed)

    svg = re.sub(r"<[^>]*>", rename, svg)  # inside tags only: a label that reads like an id stays what it is
    opening = _opening(figure.get_figwidth(), label)
    return re.sub(r'<svg(.*?) width="[^"]*"|<svg', lambda m: opening + (m[1] or ""), svg, count=1).strip()


def _opening(width_in: float, label: str) -> str:
    """How the <svg> element of a figure begins on a page."""
    width_px = width_in * PX_PER_IN
    size = f"--width:{width_px:.0f}px"
    return rf'<svg role="img" aria-label="{escape(label)}" style="{size}"'


def _prepare_text(figure: Figure) -> None:
    """Labels of x stand at the left. No text of a figure is mathematics, but the tick labels that matplotlib makes
    itself of numbers (10^3). Text and legends without a colour of their own follow the page."""
    from matplotlib.colors import same_color
    from matplotlib.legend import Legend
    from matplotlib.text import Text
    from matplotlib.ticker import LogFormatter, ScalarFormatter

    numbers = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            ticks = axis.get_major_ticks(len(axis.get_majorticklocs()))  # made now, or they would be while drawing
            if isinstance(axis.get_major_formatter(), LogFormatter | ScalarFormatter):
                numbers |= {id(text) for tick in ticks for text in (tick.label1, tick.label2)} | {id(axis.offsetText)}
    for axes in figure.axes:  # at the left, where they are seen before a figure is scrolled
        axes.xaxis.label.set(x=0, horizontalalignment="left")
    for text in figure.findobj(Text):
        if id(text) not in numbers:
            text.set_parse_math(False)
        if same_color(text.get_color(), "black"):  # the default; it would stay black in the dark
            text.set_color(INK)
    for legend in figure.findobj(Legend):
        legend.get_frame().set_facecolor(PAPER)


# A dash for a missing value, or digits with separators, an exponent, a spread, and at the end a short unit.
_NUMBER = r"[–—-]?|[−+-]?[\d.][\d.,\se+−±-]*(\s?[^\s\d]{1,6})?"


def _column(cells: Sequence[Any]) -> tuple[list[str], bool]:
    """The cells as text, and whether they read as numbers (such as 12, 0.5, "3.1 ms", "0.97 ± 0.01")."""
    sizes = [abs(float(c)) for c in cells if isinstance(c, Real) and not isinstance(c, Integral)]
    sizes = [size for size in sizes if math.isfinite(size) and size > 0]
    # One number of decimals for a column keeps the points under each other; only wide ranges are rounded cell by cell.
    decimals = min(4, max(0, 3 - math.floor(math.log10(max(sizes))))) if sizes else 0
    uniform = not sizes or (max(sizes) < 1e9 and min(sizes) >= 10.0 ** -max(decimals - 1, 0))

    def text(cell: Any) -> str:
        if isinstance(cell, bool):
            return "yes" if cell else "no"
        if isinstance(cell, Integral):
            return f"{cell:,}" if abs(int(cell)) >= 10_000 else str(cell)
        if isinstance(cell, Real):
            number = float(cell)
            if not math.isfinite(number):
                return "–" if math.isnan(number) else str(number)
            return f"{number:,.{decimals}f}" if uniform else f"{number:.4g}"
        return str(cell)

    texts = [text(cell) for cell in cells]
    return texts, bool(texts) and all(re.fullmatch(_NUMBER, t) for t in texts)
