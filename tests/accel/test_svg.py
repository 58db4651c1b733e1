"""Charts without a plotting library: what is drawn lies where its value is, on linear and logarithmic axes."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from spikeloom.accel.common.report import Section, render
from spikeloom.accel.common.svg import Axis, Chart


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ET.fromstring(svg).iter() if element.tag.endswith("text")]


def numbers(svg: str, name: str) -> list[float]:
    return [float(x) for x in re.findall(rf' {name}="([-\d.]+)"', svg)]


def test_bars_are_as_long_as_their_values_and_follow_each_other() -> None:
    chart = Chart(6, 2, legend=[("first", "#111111"), ("second", "#222222")])
    panel = chart.panel()
    panel.bars(["a", "b"], [("#111111", [1.0, 2.0]), ("#222222", [3.0, 0.0])])
    svg = chart.svg()
    boxes = [(float(a), float(b)) for a, b in re.findall(r"M([\d.]+) [\d.]+H([\d.]+)V", svg)]
    assert len(boxes) == 3  # nothing is drawn of no length
    (a, b), (c, d), (e, f) = boxes
    assert e == pytest.approx(b, abs=0.2) and d - c == pytest.approx(2 * (b - a), abs=0.3)
    assert f - e == pytest.approx(3 * (b - a), abs=0.3)
    assert {"a", "b", "first", "second"} <= set(texts(svg))


def test_a_logarithmic_axis_has_equal_steps_for_equal_ratios() -> None:
    chart = Chart(6, 3)
    panel = chart.panel()
    panel.x.log = panel.y.log = 10
    panel.dots([1, 10, 100, 10_000], [1e-3, 1.0, 1e3, 1e3], "#111111")
    svg = chart.svg()
    x, y = numbers(svg, "cx"), numbers(svg, "cy")
    assert x[1] - x[0] == pytest.approx(x[2] - x[1], abs=0.2) and x[3] - x[2] == pytest.approx(
        2 * (x[1] - x[0]), abs=0.3
    )
    assert y[0] > y[1] > y[2] == y[3]  # up is more
    assert {"10⁰", "10⁴", "10⁻³"} <= set(texts(svg))


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3, 7), (0.001, 0.0023), (0, 1e6), (5, 5)])
def test_ticks_of_a_linear_axis_are_round_and_within_it(low: float, high: float) -> None:
    axis = Axis(seen=[low, high])
    axis.settle(0, 600, 0.0)
    ticks = axis.places()
    assert 2 <= len(ticks) <= 16
    assert all(-0.5 <= axis.px(value) <= 600.5 for value, _ in ticks)
    assert len({text for _, text in ticks}) == len(ticks)


def test_names_are_not_markup_and_equal_charts_give_equal_bytes() -> None:
    def draw() -> str:
        chart = Chart(4, 2, legend=[("<b>&", "#111111")])
        panel = chart.panel()
        panel.line([0, 1], [0, 1], "#111111", dashed=True, dots=True)
        panel.names([0], [0], ["<i>"])
        panel.band(0.2, 0.4)
        panel.rule(x=0.5)
        panel.x.label, panel.y.label = "a < b", "&c"
        return chart.svg()

    assert draw() == draw()
    assert {"<b>&", "<i>", "a < b", "&c"} <= set(texts(draw()))


def test_a_section_takes_a_chart_or_a_figure(tmp_path: Path) -> None:
    chart = Chart(4, 2)
    chart.panel().line([0, 1], [0, 1], "#111111")
    page = render("T", "l", [Section("A & B", "c", chart=chart)], tmp_path / "r.html")
    text = page.read_text("utf-8")
    assert 'aria-label="A &amp; B"' in text and 'aria-describedby="s1-caption"' in text
    with pytest.raises(ValueError, match="use at least one"):
        Section("A", "c")
