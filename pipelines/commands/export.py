"""`spikeloom export`: a run -> export/program.pt2, workload.json, unsupported_ops.json and, if asked, more formats."""

import dataclasses
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from spikeloom.accel.common.units import counted
from spikeloom.accel.export.program import Exported, UnsupportedOpError, export
from spikeloom.pipelines.config.export import ExportConfig
from spikeloom.pipelines.domains import HasParts, HasWorkload, adapter_of, data_at
from spikeloom.pipelines.export.files import write, write_workload
from spikeloom.pipelines.export.interop import check, write_exits
from spikeloom.pipelines.export.sources import chosen, default_folder, exported_of
from spikeloom.pipelines.training.run_dir import load_config, load_model
from spikeloom.pipelines.training.runtime import set_up

log = logging.getLogger("spikeloom")


def run(config: ExportConfig) -> None:
    set_up()
    check(config)
    kind = chosen(config)
    if (kind is None) == (config.run is None):
        raise ValueError(
            "one model is needed; add run=FOLDER, model=FILE.py:NAME example=FILE.npz, or program=FILE.pt2 "
            "(`spikeloom export --help`)"
        )
    if kind is not None:
        own = exported_of(kind, config)
        log.info("%s", own.workload.source.get("neurons", f"axes {own.workload.source['axes']}"))
        write(own, Path(config.out) if config.out else default_folder(kind, config) / "export")
        return
    folder = Path(str(config.run))
    out = Path(config.out) if config.out else folder / "export"
    trained_with = load_config(folder)
    trained_with = dataclasses.replace(trained_with, data=data_at(trained_with.data, config.data.root), run=str(folder))
    domain = adapter_of(trained_with)
    if isinstance(domain, HasWorkload):
        write_workload(domain.export_workload(folder, trained_with, config.batches, config.batch_size), out)
        return
    trained = load_model(folder / "model")
    log.info(
        "export: %s, %s parameters, densities on %s of %s -> %s", trained_with.name,
        f"{sum(p.numel() for p in trained.model.parameters()):,}", counted(config.batches, "batch", "batches"),
        counted(config.batch_size, "sample"), out,
    )  # fmt: skip
    if isinstance(domain, HasParts):
        for part in domain.export_parts(trained, trained_with, config.batches, config.batch_size):
            source = {"densities": part.measured}
            exported = export(
                part.module, part.batches, name=part.name, strict=config.strict, source=source, axes="TB..."
            )
            measured = with_gradients(exported, part.batches) if config.gradients and part.is_training else exported
            also = [] if part.is_training else [partial(write_exits, config, exported, part.batches)]
            write(measured, out / part.folder, *also)
        return
    batches, what = domain.example_batches(trained, trained_with, config.batches, config.batch_size)
    exported = export(
        trained.model, batches, name=trained_with.name, strict=config.strict,
        source={"densities": what}, axes="TB...",
    )  # fmt: skip
    measured = with_gradients(exported, batches) if config.gradients else exported
    write(measured, out, partial(write_exits, config, exported, batches))


def with_gradients(exported: Exported, batches: Sequence[Any]) -> Exported:
    """Add density_du; a program that the engines cannot run keeps none, and that is said."""
    from spikeloom.accel.trainer.engines.gradients import with_gradient_densities

    try:
        return with_gradient_densities(exported, batches)
    except UnsupportedOpError as error:
        log.warning("density_du was not measured, the simulator will take it as 1: %s", error)
        return exported
