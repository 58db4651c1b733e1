"""`spikeloom compare RUN RUN …`: several trained runs on one page: results, curves, energy, settings that differ."""

import logging
from pathlib import Path

from spikeloom.pipelines.config.compare import CompareConfig
from spikeloom.pipelines.reports.comparison import compare
from spikeloom.pipelines.training.run_names import find_run
from spikeloom.pipelines.training.runtime import quiet

log = logging.getLogger("spikeloom")


def run(config: CompareConfig) -> None:
    quiet()
    page = compare([find_run(name) for name in config.runs], Path(config.out))
    log.info("-> %s", page)
