"""The demo tells its chapters on one page, and refuses one it does not have."""

import logging
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from spikeloom import examples
from spikeloom.accel.common.report import Section
from spikeloom.examples.chapter import Chapter
from spikeloom.pipelines.commands import demo
from spikeloom.pipelines.config.demo import DemoConfig

training = logging.getLogger("spikeloom")


@pytest.fixture
def two_chapters(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("first", "second"):
        module = ModuleType(name)
        chapter = Chapter(
            title=f"The {name} story", lead=f"What the {name} one found.", answer=f"Answer of {name}.",
            sections=[Section(f"Part of {name}", "", text="text")], facts={f"{name} figure": "42 %"},
        )  # fmt: skip
        module.tell = lambda config, folder, chapter=chapter: chapter
        monkeypatch.setitem(sys.modules, f"spikeloom.examples.{name}", module)
    monkeypatch.setattr(demo, "CHAPTERS", {"first": ("First question?", 1), "second": ("Second question?", 1)})


def test_all_chapters_stand_on_one_page(two_chapters, tmp_path):
    demo.run(DemoConfig(run=str(tmp_path), chapters=["first", "second"]))
    page = (tmp_path / "report.html").read_text()
    for said in ("The first story", "The second story", "Part of second", "First question?", "Answer of second."):
        assert said in page
    assert page.count("42 %") == 4  # a tile and a row of each chapter
    assert "src=" not in page
    assert (tmp_path / "first/chapter.html").exists()


def test_the_demo_opens_with_what_it_will_do_and_hides_the_epochs_unless_asked(two_chapters, tmp_path, capfd):
    said = {}
    for logs in (False, True):
        module = sys.modules["spikeloom.examples.first"]
        chapter = module.tell(None, None)
        module.tell = lambda config, folder, chapter=chapter: (training.info("begins"), print("epoch 1"), chapter)[-1]
        demo.run(DemoConfig(run=str(tmp_path), chapters=["first", "second"], logs=logs))
        out, err = capfd.readouterr()
        assert out.strip().splitlines()[-1].startswith("report: ")
        said[logs] = out + err
        opening = err.split("1 of 2")[0]
        assert "about 1 minute" in opening and "First question?" in opening and "report.html" in opening
        assert "-> Answer of first." in said[logs]
    for line in ("begins", "epoch 1"):
        assert line not in said[False] and line in said[True]


def test_one_chapter_is_the_page(two_chapters, tmp_path):
    demo.run(DemoConfig(run=str(tmp_path), chapters=["second"]))
    page = (tmp_path / "report.html").read_text()
    assert "<h1>The second story</h1>" in page and "first story" not in page and "Answer of first" not in page


def test_every_chapter_has_a_file_and_others_are_refused(tmp_path):
    folder = Path(examples.__file__).parent
    assert {path.stem for path in folder.glob("*.py")} - {"__init__", "chapter"} == set(demo.CHAPTERS)
    assert set(DemoConfig().chapters) <= set(demo.CHAPTERS)
    with pytest.raises(ValueError, match=r"chapters=.*poetry.*is not a choice of"):
        demo.run(replace(DemoConfig(), run=str(tmp_path), chapters=["poetry"]))


@pytest.mark.slow
def test_the_decoder_of_the_brain_chapter_beats_its_noise_control(tmp_path):
    demo.run(DemoConfig(run=str(tmp_path), chapters=["brain"]))
    page = (tmp_path / "report.html").read_text()
    assert "The model beats its noise control" in page
