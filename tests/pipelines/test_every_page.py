"""Every page that the product writes, in a browser: at three widths, in light and dark, without a complaint."""

import re
from pathlib import Path

import pytest

from spikeloom.pipelines import cli
from tests import pages
from tests.browser import WIDTHS, chromium, complaints
from tests.conftest import data_folder

ROOT = Path(__file__).resolve().parents[2]


def writers() -> set[str]:
    """Modules in which a page is rendered, without those that define how."""
    found = set[str]()
    for folder in ("pipelines", "examples"):
        for path in (ROOT / folder).rglob("*.py"):
            if re.search(r"(?<![\w.])(render|eeg_report)\(", path.read_text("utf-8")):
                found.add(str(path.relative_to(ROOT / folder)))
    return found


def test_every_module_that_writes_a_page_has_one_that_is_looked_at() -> None:
    assert writers() - set(pages.PAGES) == set()
    assert set(pages.PAGES) - writers() == set()


@pytest.mark.slow
def test_every_page_is_whole_at_three_widths_in_light_and_dark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    materials = data_folder("zuco")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPIKELOOM_DATA", "data")
    pages.write_data(tmp_path)
    for command in pages.COMMANDS:
        cli.main([word.replace("MATERIALS", str(materials)) for word in command])
    written = {str(path.relative_to(tmp_path)): path for path in tmp_path.rglob("*.html")}
    assert set(pages.PAGES.values()) - set(written) == set()
    with chromium() as browser:
        found = {
            (name, width, scheme): wrong
            for name, path in sorted(written.items()) for width in WIDTHS for scheme in ("light", "dark")
            if (wrong := complaints(browser, path.as_uri(), width, scheme))
        }  # fmt: skip
    assert found == {}
