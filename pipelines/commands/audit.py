"""`spikeloom audit run=DIR`: is a trained model spike-driven, where does it fire, and what does an inference cost?

audit/audit.json   verdict, exceptions, and every figure of audit/audit.html
"""

import logging
from dataclasses import replace
from pathlib import Path

from spikeloom.accel.analysis import report
from spikeloom.accel.common.files import check_replaceable, whole, write_json
from spikeloom.accel.common.report import render, results_come_first
from spikeloom.accel.common.units import counted
from spikeloom.pipelines.config.audit import AuditConfig
from spikeloom.pipelines.domains import adapter_of, data_at
from spikeloom.pipelines.training.run_dir import load_config
from spikeloom.pipelines.training.runtime import set_up

log = logging.getLogger("spikeloom")


def run(config: AuditConfig) -> None:
    set_up()
    if config.batches < 1 or config.batch_size < 1:
        raise ValueError(f"got batches={config.batches} of batch_size={config.batch_size}; use at least 1 of each")
    folder = Path(config.run)
    if not folder.is_dir():
        raise ValueError(f"no such run directory: {folder} is missing; give run=FOLDER of `spikeloom train`")
    trained_with = load_config(folder)
    trained_with = replace(trained_with, data=data_at(trained_with.data, config.data.root))
    out = Path(config.out) if config.out else folder / "audit"
    check_replaceable(out, ("audit.json", "audit.html"))
    log.info(
        "audit: %s, %s of %s -> %s", trained_with.name, counted(config.batches, "batch", "batches"),
        counted(config.batch_size, "sample"), out,
    )  # fmt: skip
    found, what = adapter_of(trained_with).audit(trained_with, config)
    verdict = found.spike_driven.sentence()
    with whole(out) as partial:
        partial.mkdir(parents=True)
        values = {"run": str(folder), "name": trained_with.name, "data": what, **found.as_dict()}
        write_json(partial / "audit.json", values)
        with results_come_first(out / "audit.html"):
            render(
                f"Audit of {trained_with.name}", f"{verdict}\n\nMeasured on {what}.", report.sections(found),
                partial / "audit.html", report.facts(found),
            )  # fmt: skip
    print("\n".join(report.summary_lines(found)))
    log.info("-> %s", out / "audit.html")
