"""The page opens anywhere, shows what it was given and nothing else, and is written whole or not at all."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from spikeloom.accel.common.charts import class_counts, confusion, spike_rates
from spikeloom.accel.common.report import (
    DARK,
    INK,
    LIGHT,
    MUTED,
    Section,
    Table,
    new_figure,
    palette,
    render,
    results_come_first,
)


def drawing() -> Figure:
    figure = new_figure(6, 2)
    left, right = figure.subplots(1, 2)
    left.plot([0, 1, 2], [0.1, 0.4, 0.2], "o-", label='id="left"')  # markers and clip paths are referenced by id
    left.legend()
    right.imshow(np.arange(12.0).reshape(3, 4))
    return figure


def page(tmp_path: Path, *sections: Section, **options: dict[str, str]) -> tuple[str, ElementTree.Element]:
    text = render("Title", "A lead.", sections, tmp_path / "report.html", **options).read_text(encoding="utf-8")
    return text, ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>"))


def cells(root: ElementTree.Element, tag: str = "td") -> list[tuple[str, str]]:
    return [("".join(cell.itertext()), cell.get("class", "")) for cell in root.iter(tag)]


def test_ids_are_unique_and_every_reference_resolves(tmp_path: Path) -> None:
    sections = [Section(f"Section {i}", "Same drawing.", drawing()) for i in range(5)]
    text, root = page(tmp_path, *sections)
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    references = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text)
    assert len(ids) == len(set(ids))
    assert len(references) > 10
    assert {a or b for a, b in references} <= set(ids)


def test_nothing_is_loaded_from_elsewhere(tmp_path: Path) -> None:
    text, root = page(tmp_path, Section("A", "c", drawing(), Table(["x"], [[1]]), "words"))
    assert not re.search(r"(https?:)?//[a-z]", re.sub(r'xmlns(:\w+)?="[^"]*"', "", text))
    assert "@import" not in text
    assert not {"script", "link", "iframe", "object", "base"} & {element.tag for element in root.iter()}
    for element in root.iter():
        for name, value in element.attrib.items():
            if name.endswith(("href", "src")):
                assert value.startswith(("#", "data:"))


def test_no_style_sheet_of_a_figure_reaches_the_page(tmp_path: Path) -> None:
    text, _ = page(tmp_path, Section("A", "c", drawing()))
    assert text.count("<style") == 1


def test_markup_in_any_text_is_shown_not_run(tmp_path: Path) -> None:
    bad = '<script>alert("&")</script>'
    figure = new_figure(4, 2)
    figure.subplots().set_xlabel(bad)
    section = Section(bad, bad, figure, Table([bad], [[bad]]), bad)
    path = render(bad, bad, [section] * 5, tmp_path / "r.html", {bad: bad})
    text = path.read_text(encoding="utf-8")
    root = ElementTree.fromstring(text.removeprefix("<!DOCTYPE html>"))
    assert "<script" not in text
    assert not [element for element in root.iter() if element.tag.endswith("script")]
    # title, h1, lead, tile (2); five times: contents, heading, caption, label, column, cell, paragraph
    assert "".join(root.itertext()).count(bad) == 5 + 5 * 7


def test_text_that_reads_like_an_id_is_left_alone(tmp_path: Path) -> None:
    text, root = page(tmp_path, Section("A", "c", drawing()))
    assert 'id="left"' in "".join(root.itertext())
    assert 'id="s1-figure_1"' in text


def test_equal_inputs_give_equal_bytes(tmp_path: Path) -> None:
    section = Section("A", "c", drawing())
    first = render("T", "l", [section], tmp_path / "1.html").read_bytes()
    again = render("T", "l", [section], tmp_path / "2.html").read_bytes()
    redrawn = render("T", "l", [Section("A", "c", drawing())], tmp_path / "3.html").read_bytes()
    assert first == again == redrawn
    other = drawing()
    other.axes[0].set_xlabel("x")
    assert render("T", "l", [Section("A", "c", other)], tmp_path / "4.html").read_bytes() != first


@pytest.mark.parametrize("fails", ["drawing", "writing"])
def test_a_failed_rendering_leaves_the_earlier_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    path = render("Old", "l", [Section("A", "c", text="words")], tmp_path / "r.html")
    before = path.read_bytes()

    def broken(*args: object, **kwargs: object) -> None:
        raise OSError("disk full")

    figure = drawing()
    if fails == "drawing":
        monkeypatch.setattr(Figure, "savefig", broken)
    else:
        monkeypatch.setattr("os.replace", broken)
    with pytest.raises(OSError, match="disk full"):
        render("New", "l", [Section("A", "c", figure)], path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_missing_parent_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "1" / "report.html"
    assert render("T", "l", [Section("A", "c", text="words")], path) == path
    assert path.is_file()


def test_a_section_with_nothing_names_itself() -> None:
    with pytest.raises(ValueError, match="'Empty hands'"):
        Section("Empty hands", "A caption alone shows nothing.", text="  \n")


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"row 1 .* 2 columns got 1"):
        Table(["a", "b"], [[1, 2], [3]])


def test_numbers_share_their_decimals_and_stand_right(tmp_path: Path) -> None:
    rows = [
        ["conv", 0.5, 1e-6, 12_345, np.float32(0.25), "3.1 ms", True, "0.9 ± 0.1"],
        ["10 heads and more", 12.3456, 2.0, 7, float("nan"), "–", False, "1"],
    ]
    _, root = page(tmp_path, Section("A", "c", table=Table([f"c{i}" for i in range(8)], rows)))
    number = "number"
    assert cells(root) == [
        ("conv", ""), ("0.50", number), ("1e-06", number), ("12,345", number),
        ("0.2500", number), ("3.1 ms", number), ("yes", ""), ("0.9 ± 0.1", number),
        ("10 heads and more", ""), ("12.35", number), ("2", number), ("7", number),
        ("–", number), ("–", number), ("no", ""), ("1", number),
    ]  # fmt: skip
    assert [kind for _, kind in cells(root, "th")] == [kind for _, kind in cells(root)][:8]


def test_small_numbers_do_not_round_to_nothing(tmp_path: Path) -> None:
    _, root = page(tmp_path, Section("A", "c", table=Table(["x"], [[0.00001234], [0.0000567], [0.0]])))
    assert [text for text, _ in cells(root)] == ["1.234e-05", "5.67e-05", "0"]


def test_paragraphs_facts_and_contents_appear(tmp_path: Path) -> None:
    section = Section("A", "c", text="One.\n\nTwo.")
    _, root = page(tmp_path, *[section] * 4, facts={"Accuracy": "94 %"})
    assert [p.text for p in root.iter("p")] == ["A lead.", *["One.", "Two.", "c"] * 4]
    assert [e.text for e in root.iter() if e.tag in ("dt", "dd")] == ["Accuracy", "94 %"]
    assert root.find(".//nav") is None
    _, root = page(tmp_path, replace(section, opens_chapter=True), *[section] * 4)
    assert [li.get("class") for li in root.findall(".//nav//li")] == ["chapter", None, None, None, None]
    assert [a.get("href") for a in root.findall(".//nav//a")] == [f"#{s.get('id')}" for s in root.iter("section")]
    assert root.find(".//dl") is None


def test_figures_leave_the_global_style_alone(tmp_path: Path) -> None:
    code = """
import sys, spikeloom.accel.common.report as report
assert "matplotlib" not in sys.modules, "importing the report must stay cheap"
import matplotlib

def settings():  # asking for the backend would import pyplot
    return {key: matplotlib.rcParams[key] for key in matplotlib.rcParams if key != "backend"}

before = settings()
figure = report.new_figure(4, 2)
figure.subplots().plot([1, 2])
report.render("T", "l", [report.Section("A", "c", figure)], sys.argv[1])
assert settings() == before
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "r.html")], check=True)


def test_every_way_to_make_axes_gets_the_style() -> None:
    figure = new_figure(4, 3)
    figure.set_layout_engine("none")
    for axes in (*figure.subplots(1, 2), figure.add_subplot(), figure.add_axes((0.1, 0.1, 0.2, 0.2))):
        assert not axes.spines["top"].get_visible()
        assert axes.plot([1, 2])[0].get_color() == palette[0]
        assert axes.xaxis.get_gridlines()[0].get_visible()
    assert tuple(figure.get_size_inches()) == (4, 3)


STRANGE = ["$x_1$", "cost_$", "a_b^c", r"\frac{", "<b>bold</b>", "100 % & more", "$$", "_"]


def test_names_of_classes_are_neither_mathematics_nor_markup(tmp_path: Path) -> None:
    counts = np.eye(len(STRANGE), dtype=int) + 1
    bars = new_figure(4, 2)
    bars.subplots().barh(STRANGE, range(len(STRANGE)), label="$y$")
    bars.axes[0].legend(title="_$")
    sections = [
        confusion(counts, STRANGE), spike_rates(dict.fromkeys(STRANGE, 0.5)),
        class_counts({"train $": np.arange(len(STRANGE))}, STRANGE), Section("Bars $", "c_$", bars),
    ]  # fmt: skip
    text, root = page(tmp_path, *sections)
    shown = "".join(root.itertext())
    for name in STRANGE:
        assert shown.count(name) >= 5, name  # both axes of the matrix, the rates, the counts, the bars
    assert "<b>" not in text


def test_tick_labels_of_a_logarithmic_axis_stay_powers_of_ten(tmp_path: Path) -> None:
    figure = new_figure(4, 2)
    axes = figure.subplots()
    axes.plot([1, 2], [1, 1e6])
    axes.set(yscale="log", ylabel="cost $")
    _, root = page(tmp_path, Section("A", "c", figure))
    shown = "".join(root.itertext())
    assert "mathdefault" not in shown and "cost $" in shown


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("text", ["ink", "soft", "muted", "link", "warn"])
@pytest.mark.parametrize("ground", ["page", "card"])
def test_text_stands_out_from_its_ground(scheme: dict[str, str], text: str, ground: str) -> None:
    brighter, darker = sorted((luminance(scheme[text]), luminance(scheme[ground])), reverse=True)
    assert (brighter + 0.05) / (darker + 0.05) >= 4.5


def test_a_page_has_a_dark_scheme_that_its_figures_follow(tmp_path: Path) -> None:
    figure = drawing()
    figure.axes[0].set_xlabel("time")
    text, _ = page(tmp_path, Section("A", "c", figure))
    assert "prefers-color-scheme: dark" in text and DARK["ink"] in text
    figure_alone = text[text.index("<svg") : text.index("</svg>")]
    (legend,) = re.findall(r'<g id="s1-legend_1">.*?</g>\s*</g>\s*</g>', figure_alone, re.DOTALL)[:1]
    assert "fill: var(--card)" in legend and "fill: var(--ink)" in legend  # or it would be black on dark
    assert "var(--muted)" in figure_alone and INK not in figure_alone and MUTED not in figure_alone


def test_a_figure_with_black_lines_stays_on_white_in_the_dark(tmp_path: Path) -> None:
    figure = drawing()
    figure.axes[0].axhline(0.2, color="black")
    text, root = page(tmp_path, Section("A", "c", figure))
    assert MUTED in text[text.index("<svg") : text.index("</svg>")]
    assert any("on-white" in div.get("class", "") for div in root.iter("div"))


def test_contents_and_headings_are_numbered_alike(tmp_path: Path) -> None:
    section = Section("A", "c", text="words")
    chapter = replace(section, opens_chapter=True)
    _, root = page(tmp_path, chapter, section, section, chapter, section)
    wanted = ["1", "1.1", "1.2", "2", "2.1"]
    for place in (".//nav", ".//section/h2"):
        assert [s.text for e in root.findall(place) for s in e.iter("span")] == wanted
    _, root = page(tmp_path, *[section] * 5)
    assert [span.text for span in root.find(".//nav").iter("span")] == ["1", "2", "3", "4", "5"]  # type: ignore[union-attr]


def test_figures_and_tables_have_names_for_a_screen_reader(tmp_path: Path) -> None:
    _, root = page(tmp_path, Section("Rates", "A caption.", drawing(), Table(["x"], [[1]])))
    (svg,) = [element for element in root.iter() if element.tag.endswith("svg")]
    assert svg.get("aria-label") == "Rates"
    (caption,) = [e for e in root.iter() if e.get("id") == svg.get("aria-describedby")]
    assert caption.text == "A caption."
    regions = [e for e in root.iter() if e.get("role") == "region"]
    assert [e.get("aria-label") for e in regions] == ["Figure: Rates", "Table: Rates"]
    assert all(e.get("tabindex") == "0" for e in regions)  # a keyboard can scroll them


def test_a_page_that_fails_costs_a_line_and_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("spikeloom").propagate = True
    caplog.set_level("WARNING", logger="spikeloom")
    with results_come_first(tmp_path / "report.html"):
        raise ValueError("no such colour\nsecond line")
    (record,) = caplog.records
    assert "report.html was not drawn (ValueError: no such colour); the results are complete" in record.message
    assert list(tmp_path.iterdir()) == []


def test_on_a_narrow_screen_a_table_that_is_too_wide_is_stacked_with_the_column_of_each_cell(tmp_path: Path) -> None:
    columns = [f"a_long_column_{i}" for i in range(5)]
    small, large = [["name", 1, 2, 3, 4]] * 3, [["name", 1, 2, 3, 4]] * 40
    sections = [
        Section("Narrow", "", table=Table(("a", "b"), [["name", 1]])),
        Section("Wide", "", table=Table(columns, small)),
        Section("Wide and long", "", table=Table(columns, large)),
        Section("Sentences", "", table=Table(("read", "written"), [["some words " * 9] * 2])),
        Section("Key and sentence", "", table=Table(("key", "value"), [["key", "some words " * 9]])),
    ]
    _, root = page(tmp_path, *sections)
    tables = [e for e in root.iter("div") if (e.get("aria-label") or "").startswith("Table")]
    assert ["stacks" in str(table.get("class")) for table in tables] == [False, True, False, True, False]
    labels = [[cell.get("data-column") for cell in table.iter("td")] for table in tables]
    assert labels[1][:5] == [None, *columns[1:]]  # a row is named by its first cell
    assert labels[3] == ["read", "written"] and set(labels[0] + labels[2] + labels[4]) == {None}


def test_long_keys_break_at_their_points_and_need_no_column_in_front_of_them(tmp_path: Path) -> None:
    table = Table(("Key", "Value"), [("optimizer.cosine_period_epochs_of_all", "none <b>"), ("run", "a_b")] * 10)
    page = render("", "", [Section("Settings", "", table=table)], tmp_path / "a.html").read_text()
    assert "<td>optimizer.<wbr />cosine_<wbr />period_<wbr />epochs_<wbr />of_<wbr />all</td>" in page
    assert "<td>none &lt;b&gt;</td>" in page and "<td>a_b</td>" in page
    assert "data-column" not in page.split("</style>")[1]


def test_code_is_set_as_code_and_everything_else_is_escaped(tmp_path: Path) -> None:
    text, root = page(tmp_path, Section("Text", "Run `a <b>`.", text="One ` alone & <i>"))
    assert [code.text for code in root.iter("code")] == ["a <b>"]
    assert "One ` alone &amp; &lt;i&gt;" in text
