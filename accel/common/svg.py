"""Simple charts written as SVG without a plotting library: bars, lines, points, spans on linear or logarithmic axes.

Importing and drawing with matplotlib takes seconds, a chart from here milliseconds; `report` takes both. Images,
contours and dates it does not have. Colours of text and lines follow the page from light to dark.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from html import escape

PX_PER_IN = 96
TEXT_PX, TICK_PX, LETTER_PX = 13.3, 12.5, 7.1  # sizes of text; the width of a letter is a mean over sans-serif fonts
GAP_PX, LINE_PX = 8.0, 20.0
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

Mark = Callable[[], str]  # drawn when all axes are known


@dataclass
class Axis:
    """`log` is the base of a logarithmic axis. Limits that are not given are those of the marks."""

    label: str = ""
    low: float | None = None
    high: float | None = None
    log: int | None = None
    ticks: Sequence[tuple[float, str]] | None = None
    grid: bool = True
    start_px: float = 0.0
    end_px: float = 1.0
    seen: list[float] = field(default_factory=list)

    def settle(self, start_px: float, end_px: float, margin: float) -> None:
        """Fix limits and place; `margin` is the part of their span that is added where no limit is given."""
        self.start_px, self.end_px = start_px, end_px
        seen = [self._scaled(x) for x in self.seen if not self.log or x > 0] or [0.0]
        low = min(seen) if self.low is None else self._scaled(self.low)
        high = max(seen) if self.high is None else self._scaled(self.high)
        more = margin * (high - low) or (0.5 if high == low else 0.0)
        self._low = low - (more if self.low is None else 0.0)
        self._high = high + (more if self.high is None or high == low else 0.0)

    def _scaled(self, x: float) -> float:
        return math.log(max(x, 1e-300), self.log) if self.log else x

    def px(self, x: float) -> float:
        """Where a value lies, kept near the chart."""
        place = (self._scaled(x) - self._low) / (self._high - self._low)
        return self.start_px + min(max(place, -0.02), 1.02) * (self.end_px - self.start_px)

    def places(self) -> list[tuple[float, str]]:
        """(value, text) of the ticks."""
        if self.ticks is not None:
            return list(self.ticks)
        if self.log:
            every = max(1, math.ceil((self._high - self._low) / 7))
            powers = range(math.ceil(self._low), math.floor(self._high) + 1)
            if self.log == 10 and len(powers) < 3:
                within = [f * 10.0**p for p in range(math.floor(self._low), math.ceil(self._high)) for f in (1, 2, 5)]
                return [(x, f"{x:g}") for x in within if self._low <= math.log10(x) <= self._high]
            return [(self.log**p, f"{self.log}{str(p).translate(SUPERSCRIPT)}") for p in powers if p % every == 0]
        rough = (self._high - self._low) / max(2, abs(self.end_px - self.start_px) / 90)
        power = 10 ** math.floor(math.log10(rough))
        step = next(power * f for f in (1, 2, 5, 10) if power * f >= rough * 0.999)
        first, last = math.ceil(self._low / step - 1e-9), math.floor(self._high / step + 1e-9)
        decimals = max(0, -math.floor(math.log10(step)))
        return [(i * step, f"{i * step + 0.0:,.{decimals}f}") for i in range(first, last + 1)]


@dataclass
class Panel:
    """One pair of axes; y grows upwards, rows of `bars` downwards from 0."""

    x: Axis = field(default_factory=Axis)
    y: Axis = field(default_factory=Axis)
    marks: list[Mark] = field(default_factory=list)
    margin: tuple[float, float] = (0.0, 0.05)  # of x and y
    downwards: bool = False

    def bars(self, names: Sequence[str], parts: Sequence[tuple[str, Sequence[float]]], start: float = 0.0) -> None:
        """A horizontal bar for each name, of consecutive parts: (colour, a length for each name)."""
        self.downwards, self.y.grid = True, False
        self.y.ticks = [(i, name) for i, name in enumerate(names)]
        self.y.low, self.y.high = -0.6, max(len(names), 1) - 0.4
        ends = [start] * len(names)
        for colour, lengths in parts:
            for row, length in enumerate(lengths):
                if length:
                    self.span(row, 0.7, [(ends[row], length)], colour)
                ends[row] += length
        self.x.seen += [start, *ends]

    def span(self, row: float, height: float, spans: Sequence[tuple[float, float]], colour: str) -> None:
        """Rectangles (start, length) around y = `row`, as one shape."""
        self.x.seen += [e for start, length in spans for e in (start, start + length)]

        def draw() -> str:
            top, bottom = sorted((self.y.px(row - height / 2), self.y.px(row + height / 2)))
            boxes = ((self.x.px(start), self.x.px(start + length)) for start, length in spans)
            shape = "".join(f"M{a:.1f} {top:.1f}H{b:.1f}V{bottom:.1f}H{a:.1f}z" for a, b in boxes)
            return f'<path d="{shape}" style="fill:{colour}"/>'

        self.marks.append(draw)

    def line(self, xs: Sequence[float], ys: Sequence[float], colour: str, *, dashed: bool = False, dots: bool = False,
             width: float = 1.6) -> None:  # fmt: skip
        self.x.seen += xs
        self.y.seen += ys

        def draw() -> str:
            points = " ".join(f"{self.x.px(x):.1f},{self.y.px(y):.1f}" for x, y in zip(xs, ys, strict=True))
            dash = ";stroke-dasharray:6 4" if dashed else ""
            return f'<polyline points="{points}" style="fill:none;stroke:{colour};stroke-width:{width}{dash}"/>'

        self.marks.append(draw)
        if dots:
            self.dots(xs, ys, colour, 2.2)

    def dots(self, xs: Sequence[float], ys: Sequence[float], colour: str, radius: float = 3.2) -> None:
        self.x.seen += xs
        self.y.seen += ys
        self.marks.append(
            lambda: "".join(
                f'<circle cx="{self.x.px(x):.1f}" cy="{self.y.px(y):.1f}" r="{radius}" '
                f'style="fill:{colour};fill-opacity:.85"/>'
                for x, y in zip(xs, ys, strict=True)
            )
        )

    def names(self, xs: Sequence[float], ys: Sequence[float], texts: Sequence[str]) -> None:
        """Texts to the upper right of points."""
        self.marks.append(
            lambda: "".join(
                _text(self.x.px(x) + 6, self.y.px(y) - 5, text, TICK_PX, "start")
                for x, y, text in zip(xs, ys, texts, strict=True)
            )
        )

    def band(self, low: float, high: float) -> None:
        """A grey band between two values of y."""
        self.y.seen += [low, high]

        def draw() -> str:
            top, bottom = self.y.px(high), self.y.px(low)
            return (
                f'<rect x="{self.x.start_px:.1f}" y="{top:.1f}" width="{self.x.end_px - self.x.start_px:.1f}" '
                f'height="{bottom - top:.1f}" style="fill:#888888;fill-opacity:.13"/>'
            )

        self.marks.append(draw)

    def rule(self, x: float | None = None, y: float | None = None, colour: str = "var(--ink)") -> None:
        """A line through the whole panel at a value of x or of y."""
        self.x.seen += [] if x is None else [x]
        self.y.seen += [] if y is None else [y]

        def draw() -> str:
            a = self.x.px(x) if x is not None else None
            b = self.y.px(y) if y is not None else None
            x1, x2 = (a, a) if a is not None else (self.x.start_px, self.x.end_px)
            y1, y2 = (b, b) if b is not None else (self.y.start_px, self.y.end_px)
            return _line(x1, y1, x2, y2, colour, 1.2)

        self.marks.append(draw)


@dataclass
class Chart:
    """Panels side by side, with a legend of (text, colour) above them."""

    width_in: float
    height_in: float
    legend: list[tuple[str, str]] = field(default_factory=list)
    panels: list[Panel] = field(default_factory=list)

    def panel(self) -> Panel:
        """One more panel, to the right of the others."""
        self.panels.append(Panel())
        return self.panels[-1]

    def svg(self) -> str:
        """The drawing as an <svg> element without ids; equal charts give equal text."""
        width, height = self.width_in * PX_PER_IN, self.height_in * PX_PER_IN
        drawn = [f'<svg viewBox="0 0 {width:.0f} {height:.0f}">']
        top = self._legend(drawn, width)
        each = width / len(self.panels)
        for i, panel in enumerate(self.panels):
            bottom = height - LINE_PX - (LINE_PX if panel.x.label else 0.0) - 2
            panel.y.settle(*((top, bottom) if panel.downwards else (bottom, top)), panel.margin[1])
            ticks = panel.y.places()
            room = LETTER_PX * max((len(text) for _, text in ticks), default=0) + GAP_PX
            room += LINE_PX if panel.y.label else 0.0
            left, right = i * each + room, (i + 1) * each - 14
            panel.x.settle(left, right, panel.margin[0])
            start, end = sorted((top, bottom))
            drawn += _axes(panel, ticks, left, right, start, end)
            drawn += [mark() for mark in panel.marks]
            if panel.y.label:
                x, y = i * each + TEXT_PX - 2, (start + end) / 2
                drawn.append(_text(x, y, panel.y.label, TEXT_PX, "middle", f' transform="rotate(-90 {x:.0f} {y:.0f})"'))
        return "".join([*drawn, "</svg>"])

    def _legend(self, drawn: list[str], width: float) -> float:
        """Draw the legend in as many lines as it needs; where the panels begin."""
        lines: list[list[tuple[str, str]]] = [[]]
        used = 0.0
        for text, colour in self.legend:
            needed = LETTER_PX * len(text) + 36
            if lines[-1] and used + needed > width:
                lines.append([])
                used = 0.0
            lines[-1].append((text, colour))
            used += needed
        for row, line in enumerate(lines if self.legend else []):
            x = GAP_PX  # at the left, where they are seen before a figure is scrolled
            y = LINE_PX * (row + 0.5)
            for text, colour in line:
                box = f'x="{x:.1f}" y="{y - 5:.1f}" width="14" height="10"'
                drawn.append(f'<rect {box} style="fill:{colour}"/>{_text(x + 19, y + 4.5, text, TEXT_PX, "start")}')
                x += LETTER_PX * len(text) + 36
        return LINE_PX * len(lines) + 6 if self.legend else 8.0


def _axes(panel: Panel, rows: Sequence[tuple[float, str]], left: float, right: float, top: float, bottom: float
          ) -> list[str]:  # fmt: skip
    """Grid, ticks with their texts, the two axes and the label of x."""
    drawn = []
    for value, text in panel.x.places():
        x = panel.x.px(value)
        if panel.x.grid:
            drawn.append(_line(x, top, x, bottom, "var(--grid)", 0.9))
        drawn.append(_text(x, bottom + 16, text, TICK_PX, "middle"))
    for value, text in rows:
        y = panel.y.px(value)
        if panel.y.grid:
            drawn.append(_line(left, y, right, y, "var(--grid)", 0.9))
        drawn.append(_text(left - 6, y + 4.3, text, TICK_PX, "end"))
    drawn += [
        _line(left, top, left, bottom, "var(--muted)", 0.8),
        _line(left, bottom, right, bottom, "var(--muted)", 0.8),
    ]
    if panel.x.label:
        drawn.append(_text(left, bottom + 16 + LINE_PX, panel.x.label, TEXT_PX, "start"))
    return drawn


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float) -> str:
    style = f"stroke:{colour};stroke-width:{width}"
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" style="{style}"/>'


def _text(x: float, y: float, text: str, size: float, anchor: str, more: str = "") -> str:
    style = f"font-size:{size}px;text-anchor:{anchor};fill:var(--muted)"
    return f'<text x="{x:.1f}" y="{y:.1f}" style="{style}"{more}>{escape(text)}</text>'
