"""`spikeloom demo`: small experiments from data to what they cost, told in chapters on one page."""

import logging
import time
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from pipelines.chapters.chapter import Chapter, bind, write_page
from pipelines.process import set_up
from pipelines.schema import DemoConfig

log = logging.getLogger("spikeloom")
CHAPTERS = ("speech", "pruning", "brain", "vision")  # files of pipelines.chapters, in the order they are told


def run(config: DemoConfig) -> None:
    unknown = sorted(set(config.chapters) - set(CHAPTERS))
    if unknown or not config.chapters:
        raise ValueError(f"chapters={config.chapters} is not a choice of {', '.join(CHAPTERS)}; give one or more")
    set_up()
    folder, told = Path(config.run), list[Chapter]()
    for number, name in enumerate(config.chapters, 1):
        log.info("\nchapter %d of %d: %s", number, len(config.chapters), name)
        started = time.perf_counter()
        chapter: Chapter = import_module(f"pipelines.chapters.{name}").tell(config, folder / name)
        chapter = replace(chapter, seconds=time.perf_counter() - started)
        write_page(chapter, folder / name / "chapter.html")
        told.append(chapter)
    page = bind(told, folder / "report.html")
    print(f"\nreport: {page.resolve()}")
