"""The demo tells its chapters on one page, and refuses one it does not have."""

import sys
import time
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from accel.report import Section
from pipelines import demo
from pipelines.chapters.chapter import Chapter
from pipelines.schema import DemoConfig


@pytest.fixture
def two_chapters(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("first", "second"):
        module = ModuleType(name)
        chapter = Chapter(
            title=f"The {name} story", lead=f"What the {name} one found.",
            sections=[Section(f"Part of {name}", "", text="text")], facts={f"{name} figure": "42 %"},
        )  # fmt: skip
        module.tell = lambda config, folder, chapter=chapter: chapter
        monkeypatch.setitem(sys.modules, f"pipelines.chapters.{name}", module)
    monkeypatch.setattr(demo, "CHAPTERS", ("first", "second"))


def test_all_chapters_stand_on_one_page(two_chapters, tmp_path):
    demo.run(DemoConfig(run=str(tmp_path), chapters=["first", "second"]))
    page = (tmp_path / "report.html").read_text()
    for said in ("Chapter 1: The first story", "Chapter 2: The second story", "Part of second", "1: first figure"):
        assert said in page
    assert page.count("42 %") == 4  # a tile and a row of each chapter
    assert "src=" not in page
    assert (tmp_path / "first/chapter.html").exists()


def test_one_chapter_is_the_page(two_chapters, tmp_path):
    demo.run(DemoConfig(run=str(tmp_path), chapters=["second"]))
    page = (tmp_path / "report.html").read_text()
    assert "<h1>The second story</h1>" in page and "first" not in page


def test_every_chapter_has_a_file_and_others_are_refused(tmp_path):
    folder = Path(demo.__file__).parent / "chapters"
    assert {path.stem for path in folder.glob("*.py")} - {"__init__", "chapter"} == set(demo.CHAPTERS)
    assert DemoConfig().chapters == list(demo.CHAPTERS)
    with pytest.raises(ValueError, match=r"chapters=.*poetry.*is not a choice of"):
        demo.run(replace(DemoConfig(), run=str(tmp_path), chapters=["poetry"]))


@pytest.mark.slow
def test_the_brain_chapter_is_told_within_three_minutes_and_is_heard_beyond_the_noise(tmp_path):
    started = time.process_time()
    demo.run(DemoConfig(run=str(tmp_path), chapters=["brain"]))
    seconds = time.process_time() - started  # of one or two cores, whatever else they do
    page = (tmp_path / "report.html").read_text()
    assert "The model beats its noise control" in page
    assert seconds < 360, f"took {seconds:.0f} s of processor time"
