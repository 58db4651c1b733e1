"""`spikeloom report run=RUN`: the page of a run drawn again from what the run directory holds, without training."""

import logging
from pathlib import Path
from typing import Any

from spikeloom.accel.common.files import contents
from spikeloom.pipelines.config.report import ReportConfig
from spikeloom.pipelines.domains import adapter_of
from spikeloom.pipelines.reports import distillation
from spikeloom.pipelines.training.run_dir import RETRAIN, load_config, read_yaml
from spikeloom.pipelines.training.runtime import set_up

log = logging.getLogger("spikeloom")


def run(config: ReportConfig) -> None:
    set_up()
    folder = Path(config.run)
    if (folder / "curriculum.json").is_file():
        settings: Any = read_yaml(folder / "config.yaml")
        with contents(folder / "config.yaml", RETRAIN):
            distillation.settings_of(settings)
        distillation.write_table(folder, settings)
        return
    trained_with = load_config(folder)
    trained_with.run = str(folder)  # it may have moved
    adapter_of(trained_with).report(trained_with)
    log.info("-> %s", folder / "report.html")
