"""`spikeloom demo`: small experiments from data to what they cost, on one page that opens with their answers."""

import contextlib
import io
import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from spikeloom.pipelines.checkout import beside_the_package
from spikeloom.pipelines.config.demo import DemoConfig
from spikeloom.pipelines.training.runtime import on_terminal, set_up

log = logging.getLogger("spikeloom.demo")
# File of spikeloom.examples -> the question that it answers, and its seconds on two idle cores.
CHAPTERS = {
    "speech": ("Which word was spoken, and what does training such a network cost on a chip?", 120),
    "brain": ("A decoder writes sentences from EEG: do they really depend on the EEG?", 100),
    "pruning": ("How much energy is saved if nine of ten weights are zero?", 70),
    "vision": ("Which digit was scanned, and does the network compute with spikes alone?", 90),
}


def run(config: DemoConfig) -> None:
    unknown = sorted(set(config.chapters) - set(CHAPTERS))
    if unknown or not config.chapters:
        raise ValueError(f"chapters={config.chapters} is not a choice of {', '.join(CHAPTERS)}; give one or more")
    set_up()
    trainings = logging.getLogger("spikeloom")
    before = trainings.level
    log.setLevel(logging.INFO)
    trainings.setLevel(logging.INFO if config.logs else logging.WARNING)
    # A terminal has a bar in the place of lines for epochs; elsewhere these are printed when asked for.
    silent = not (config.logs or on_terminal())
    try:
        with contextlib.redirect_stdout(io.StringIO()) if silent else contextlib.nullcontext():
            page = write(config)
    finally:
        trainings.setLevel(before)
    print(f"\nreport: {page.resolve()}")


def write(config: DemoConfig) -> Path:
    """Announce the experiments, run them, and write their page."""
    folder, done = Path(config.run), list[Any]()
    minutes = max(1, round(sum(CHAPTERS[name][1] for name in config.chapters) / 60))
    log.info(
        "spikeloom demo: %d experiment%s on this machine, about %d minute%s on two idle cores; nothing is downloaded",
        len(config.chapters), "s" * (len(config.chapters) > 1), minutes, "s" * (minutes > 1),
    )  # fmt: skip
    for number, name in enumerate(config.chapters, 1):
        log.info("  %d  %s", number, CHAPTERS[name][0])
    log.info("The answers will be on one page, %s. Logs of the trainings: logs=true", folder / "report.html")
    chapters = beside_the_package("examples.chapter")
    for number, name in enumerate(config.chapters, 1):
        question, seconds = CHAPTERS[name]
        log.info("\n%d of %d, about %d s: %s", number, len(config.chapters), seconds, question)
        started = time.perf_counter()
        chapter = beside_the_package(f"examples.{name}").tell(config, folder / name)
        chapter = replace(chapter, question=question, seconds=time.perf_counter() - started)
        chapters.write_page(chapter, folder / name / "chapter.html")
        log.info("  -> %s (%.0f s)", chapter.answer, chapter.seconds)
        done.append(chapter)
    return Path(chapters.bind(done, folder / "report.html"))
