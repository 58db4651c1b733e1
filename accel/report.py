"""One renderer from sections of figures, tables and text to a self-contained HTML page.

A room describes what it found as `Section` objects and calls `render`; no room writes HTML. The page carries its
figures as inline SVG and its style as inline CSS: it opens without a network, prints, and reads on a telephone.
Figures come from `new_figure`, which never touches pyplot's global state; rooms draw them. The one drawn here is the
learning curve, which looks the same for anything that is recognised.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from html import escape
from numbers import Integral, Real
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from accel.files import whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Paul Tol's "bright" scheme: its colours stay apart under the common forms of colour blindness.
palette = ["#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377", "#888888"]  # list[str]

INK, MUTED, GRID = "#1f2733", "#5b6675", "#e3e7ec"
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"
CSS_PX_PER_IN = 96
SMALLEST_SCALE = 0.7  # figure text is 10 pt (13 px); on a narrow screen a figure scrolls sideways below this scale


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
    paragraphs separated by blank lines. At least one of figure, table and text must be given. `opens_chapter`: the
    sections behind it belong to it in the list of contents."""

    title: str
    caption: str
    figure: Figure | None = None
    table: Table | None = None
    text: str = ""
    opens_chapter: bool = False

    def __post_init__(self) -> None:
        if self.figure is None and self.table is None and not self.text.strip():
            raise ValueError(f"section {self.title!r} got no figure, table or text; use at least one of them")


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


def learning_curve(rows: Sequence[Mapping[str, float]], best_epoch: int, things: str = "samples") -> Section:
    """Losses and validation accuracy (0…1) of every epoch, a line at `best_epoch`.

    `rows` need epoch, train_loss, valid_loss and valid_accuracy; `things` names in the plural what is recognised.
    Raises ValueError for a row without one of them, and for a `best_epoch` that no row has.
    """
    for name in ("epoch", "train_loss", "valid_loss", "valid_accuracy"):
        lacking = [i for i, row in enumerate(rows) if name not in row]
        if lacking:
            raise ValueError(f"row {lacking[0]} of a learning curve has no {name}; give one row an epoch with it")
    epochs = [int(row["epoch"]) for row in rows]
    if best_epoch not in epochs:
        raise ValueError(f"best_epoch must be one of the epochs, got {best_epoch}; use one of {epochs}")
    best = rows[epochs.index(best_epoch)]["valid_accuracy"]
    figure = new_figure(9.4, 3.4)
    left, right = figure.subplots(1, 2)
    style: dict[str, Any] = {"marker": "o" if len(epochs) <= 40 else "", "markersize": 3, "linewidth": 1.6}
    for name, what, colour in (("train_loss", "it learns from", 0), ("valid_loss", "kept aside", 1)):
        left.plot(epochs, [row[name] for row in rows], label=f"{things} {what}", color=palette[colour], **style)
    left.set_title("Error (loss): lower is better", loc="left")
    left.legend(framealpha=1, edgecolor="none", fontsize=10, labelcolor=INK)
    left.set_ylim(bottom=0)
    right.plot(epochs, [100 * row["valid_accuracy"] for row in rows], color=palette[1], **style)
    right.set_title(f"{things.capitalize()} kept aside, recognised (%)", loc="left")
    right.set_ylim(0, 100)
    for panel in (left, right):
        panel.axvline(best_epoch, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        panel.set_xlabel("Epoch (passes through the training data)")
        panel.xaxis.get_major_locator().set_params(integer=True)
    return Section(
        "How the network learned",
        f"One epoch is one pass through the {things} the network learns from. Those kept aside are never trained on; "
        "when their error stops falling while the other still does, it has begun to learn by heart. Where it learns "
        f"from distorted or mixed {things}, they are the harder ones, and their error is the higher. The dashed line "
        f"marks epoch {best_epoch}, whose network is kept: {100 * best:.1f}\u00a0% right.",
        figure=figure,
    )


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
    parts = [f"<h1>{escape(title)}</h1>", *(f'<p class="lead">{p}</p>' for p in _paragraphs(lead))]
    if facts:
        tiles = (f"<div><dt>{escape(label)}</dt><dd>{escape(value)}</dd></div>" for label, value in facts.items())
        parts.append(f'<dl class="facts">{"".join(tiles)}</dl>')
    header = f"<header>{''.join(parts)}</header>"
    if len(sections) > 4:
        items = ("<li>", '<li class="chapter">')
        links = (
            f'{items[s.opens_chapter]}<a href="#s{i}">{escape(s.title)}</a></li>' for i, s in enumerate(sections, 1)
        )
        header += f'\n<nav aria-label="Contents"><ol>{"".join(links)}</ol></nav>'
    body = "\n".join(_section(section, f"s{i}") for i, section in enumerate(sections, 1))
    page = _PAGE.format(title=escape(title), style=_STYLE, header=header, body=body)

    path = Path(path)
    with whole(path) as partial:
        partial.write_text(page, encoding="utf-8", newline="\n")
    return path


def _section(section: Section, name: str) -> str:
    caption = escape(section.caption.strip())
    parts = [f"<h2>{escape(section.title)}</h2>", *(f"<p>{p}</p>" for p in _paragraphs(section.text))]
    if section.figure is not None:
        drawing = f'<div class="wide">{_svg(section.figure, name, section.title)}</div>'
        parts.append(f"<figure>{drawing}{f'<figcaption>{caption}</figcaption>' if caption else ''}</figure>")
    elif caption:
        parts.append(f'<p class="caption">{caption}</p>')
    if section.table is not None:
        parts.append(table_html(section.table))
    return f'<section id="{name}">{"".join(parts)}</section>'


def _paragraphs(text: str) -> list[str]:
    return [escape(part.strip()) for part in re.split(r"\n\s*\n", text) if part.strip()]


def _svg(figure: Figure, name: str, label: str) -> str:
    """The figure as an <svg> element whose ids all start with `name`, so that figures on one page do not collide."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    # The salt makes matplotlib's ids a function of the drawing; text stays text: small, selectable, in the page's font.
    with rc_context({"svg.hashsalt": "spikeloom", "svg.fonttype": "none", "svg.image_inline": True}):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        # Drawing moves the axes a little, and the next drawing would start from there; a copy keeps renderings equal.
        deepcopy(figure).savefig(buffer, format="svg", dpi=200, facecolor="none", metadata=nothing)
    svg = buffer.getvalue()
    svg = re.sub(r"<!--.*?-->", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    # matplotlib's style sheet would reach the whole page; the page's own sheet holds the same rule for figures only.
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)

    def rename(tag: re.Match[str]) -> str:
        return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", tag[0])

    svg = re.sub(r"<[^>]*>", rename, svg)  # inside tags only: a label that reads like an id stays what it is
    width_px = figure.get_figwidth() * CSS_PX_PER_IN
    size = f"width:{width_px:.0f}px;min-width:{SMALLEST_SCALE * width_px:.0f}px"
    opening = rf'<svg role="img" aria-label="{escape(label)}" style="{size}"'
    return re.sub(r'<svg(.*?) width="[^"]*"|<svg', lambda m: opening + (m[1] or ""), svg, count=1).strip()


def table_html(table: Table) -> str:
    """The table as an HTML element, its columns of numbers marked with the class `number`."""
    columns = [_column([row[i] for row in table.rows]) for i in range(len(table.columns))]
    kinds = [
        "number" if is_number else "prose" if max(map(len, texts), default=0) > 30 else ""
        for texts, is_number in columns
    ]
    aligned = [f' class="{kind}"' if kind else "" for kind in kinds]
    head = "".join(f"<th{a}>{escape(str(c))}</th>" for a, c in zip(aligned, table.columns, strict=True))
    rows = zip(*(cells for cells, _ in columns), strict=True)
    lines = ("".join(f"<td{a}>{escape(cell)}</td>" for a, cell in zip(aligned, row, strict=True)) for row in rows)
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


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


_STYLE = f"""
:root {{ color-scheme: light; }}
* {{ box-sizing: border-box; }}
body {{ margin: 0; background: #f6f7f9; color: {INK}; font: 16px/1.6 {FONTS}; }}
main {{ max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }}
h1 {{ font-size: clamp(1.5rem, 4vw, 2.1rem); line-height: 1.2; margin: 0 0 .75rem; letter-spacing: -.01em; }}
h2 {{ font-size: 1.25rem; line-height: 1.3; margin: 0 0 .75rem; }}
h1, h2, p, figcaption, td, li {{ overflow-wrap: break-word; }}
p, figcaption {{ margin: 0 0 .9rem; max-width: 46rem; white-space: pre-line; }}
.lead {{ font-size: 1.1rem; color: #384353; }}
.facts {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem; margin: 1.5rem 0; }}
.facts div, section, nav {{ background: #fff; border: 1px solid {GRID}; border-radius: 10px; }}
.facts div {{ padding: .75rem 1rem; display: flex; flex-direction: column; }}
dt {{ font-size: .85rem; line-height: 1.35; color: {MUTED}; }}
dd {{ margin: .15rem 0 0; font-size: 1.3rem; line-height: 1.3; font-weight: 600; overflow-wrap: anywhere; }}
nav {{ margin-top: 1.25rem; padding: .9rem 1.25rem; }}
nav ol {{ margin: 0; padding-left: 1.4rem; columns: 18rem auto; column-gap: 2.5rem; }}
nav li {{ break-inside: avoid; padding: .1rem 0; }}
nav li.chapter {{ list-style: none; margin: .5rem 0 0 -1.4rem; font-weight: 600; break-after: avoid; }}
a {{ color: #2f5f93; text-underline-offset: .15em; }}
section {{ margin-top: 1.25rem; padding: 1.4rem 1.5rem 1.5rem; scroll-margin-top: 1rem; }}
section > :last-child, figure > :last-child {{ margin-bottom: 0; }}
figure {{ margin: 0 0 1rem; }}
figcaption, .caption {{ color: #384353; font-size: .96rem; }}
figcaption {{ margin-top: .6rem; }}
.wide {{
  overflow-x: auto; margin-bottom: .25rem;  /* the shadows at the edges show that there is more to scroll to */
  background: linear-gradient(90deg, #fff 40%, #fff0) 0 0 / 2rem 100% no-repeat local,
    linear-gradient(-90deg, #fff 40%, #fff0) 100% 0 / 2rem 100% no-repeat local,
    linear-gradient(90deg, #0003, #0000) 0 0 / .7rem 100% no-repeat,
    linear-gradient(-90deg, #0003, #0000) 100% 0 / .7rem 100% no-repeat;
}}
svg {{ display: block; max-width: 100%; height: auto; }}
svg * {{ stroke-linejoin: round; stroke-linecap: butt; }}
svg text {{ font-family: {FONTS} !important; }}
figure + .wide {{ margin-top: 1rem; }}
table {{ border-collapse: collapse; min-width: min(100%, 24rem); font-size: .94rem; }}
th.number, td.number {{ text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .4rem .9rem; vertical-align: top; border-bottom: 1px solid {GRID}; }}
th {{ color: {MUTED}; text-align: left; font-weight: 600; vertical-align: bottom; border-bottom: 1.5px solid #c6ccd4; }}
td {{ max-width: 32rem; }}
.prose {{ min-width: 14rem; }}
tbody tr:last-child td {{ border-bottom: 0; }}
@media (max-width: 40rem) {{
  main {{ padding: 1.25rem .75rem 2.5rem; }}
  section {{ padding: 1.1rem 1rem; }}
  .facts {{ grid-template-columns: repeat(auto-fit, minmax(8rem, 1fr)); }}
  th, td {{ padding: .4rem .6rem; }}
}}
@media print {{
  body {{ background: #fff; font-size: 11pt; }}
  main {{ max-width: none; padding: 0; }}
  section, .facts div, nav {{ border-color: #ccc; }}
  figure, tr {{ break-inside: avoid; }}
  h2 {{ break-after: avoid; }}
  .wide {{ overflow: visible; background: none; }}
  svg {{ min-width: 0 !important; }}
}}
"""

# Every element is closed, so that the page is well-formed XML too. The policy holds the promise of no network.
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8" />
<meta name="viewport" content="width=device-width, initial-scale=1" />
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'" />
<title>{title}</title>
<style>{style}</style>
</head>
<body><main>
{header}
{body}
</main></body>
</html>
"""
