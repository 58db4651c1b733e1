"""What a chapter of the demo hands in: a story in sections, and how several of them become one page.

A chapter is a file of this room with `tell(config, folder) -> Chapter`. It runs a small experiment, leaves all it makes
in `folder`, which it may overwrite, and writes no page of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from accel.report import Section, Table, render

TITLE = "Brain signals, speech and vision on neuromorphic hardware"


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """title, lead: as of a page; facts: label -> value, the few figures to remember; seconds: how long it took."""

    title: str
    lead: str
    sections: Sequence[Section]
    facts: Mapping[str, str]
    seconds: float = 0.0


def write_page(chapter: Chapter, path: Path) -> Path:
    """One chapter as a page of its own."""
    return render(chapter.title, chapter.lead, chapter.sections, path, chapter.facts)


def bind(chapters: Sequence[Chapter], path: Path) -> Path:
    """All chapters on one page, each opened by its lead and its figures; a single one is the page itself."""
    if len(chapters) == 1:
        return write_page(chapters[0], path)
    sections = []
    for number, chapter in enumerate(chapters, 1):
        facts = Table(("found here", "value"), list(chapter.facts.items()))
        sections += [
            Section(f"Chapter {number}: {chapter.title}", "", table=facts, text=chapter.lead, opens_chapter=True)
        ]
        sections += chapter.sections
    took = ", ".join(f"{chapter.seconds:.0f}" for chapter in chapters)
    lead = f"{len(chapters)} experiments ran here one after the other, each from its data to what it found ({took} s)."
    first = {
        f"{n}: {label}": value for n, chapter in enumerate(chapters, 1) for label, value in [*chapter.facts.items()][:1]
    }
    return render(TITLE, lead, sections, path, first)
