"""The result of one experiment of the demo as report sections, and the page that joins several of them.

An experiment is a module of this package with `tell(config, folder) -> Chapter`. It writes all its files to `folder`,
which it may overwrite, but no page.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spikeloom.accel.common.report import Section, Table, render

TITLE = "From a spoken word and a brain signal to a chip"
WORDS = (
    "Neurons of these networks send spikes: at each time step a neuron either fires (1) or stays silent (0). A "
    "layer that receives spikes only has to add weights, and only those of neurons that fired.\n\n"
    "The chip is a simulated processor on which such networks are trained. Its energies come from a published "
    "model of circuits, and were not measured on silicon: 1 mJ is a thousandth of a joule, 1 µJ a millionth.\n\n"
    "A training step processes one batch of examples forward, sends the error back, and changes the weights.\n\n"
    "p is the probability that chance alone gives a result at least as good. By custom, below 0.05 counts as "
    "evidence."
)


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """title, lead: as of a page; answer: one sentence for a reader who knows nothing of it; facts: label -> value, the
    main figures; question, seconds: what was asked, and the duration."""

    title: str
    lead: str
    answer: str
    sections: Sequence[Section]
    facts: Mapping[str, str]
    question: str = ""
    seconds: float = 0.0


def write_page(chapter: Chapter, path: Path) -> Path:
    """One chapter as a separate page."""
    return render(chapter.title, chapter.lead, chapter.sections, path, chapter.facts)


def bind(chapters: Sequence[Chapter], path: Path) -> Path:
    """All chapters on one page, which opens with their answers; a single one is the page itself."""
    if len(chapters) == 1:
        return write_page(chapters[0], path)
    rows = [[chapter.question, chapter.answer, f"{chapter.seconds:.0f} s"] for chapter in chapters]
    sections = [
        Section("In short", "", table=Table(("question", "answer", "took"), rows), opens_chapter=True),
        Section("What the words mean", "", text=WORDS),
    ]
    for chapter in chapters:
        facts = Table(("result", "value"), list(chapter.facts.items()))
        sections += [Section(chapter.title, "", table=facts, text=chapter.lead, opens_chapter=True), *chapter.sections]
    minutes = sum(chapter.seconds for chapter in chapters) / 60
    lead = (
        f"{len(chapters)} questions, each answered by an experiment that ran on this machine just now, from data to "
        f"result, in {minutes:.1f} minutes together."
    )
    first = {label: value for chapter in chapters for label, value in [*chapter.facts.items()][:1]}
    return render(TITLE, lead, sections, path, first)
