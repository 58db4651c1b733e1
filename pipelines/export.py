"""`spikeloom export`: a run -> export/program.pt2, workload.json, unsupported_ops.json and, if asked, more formats."""

import dataclasses
import hashlib
import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from accel.export import Exported, UnsupportedOpError, export
from accel.files import whole, write_json
from pipelines.domains import OwnWay, data_at, domain_of
from pipelines.exits import check, write_exits
from pipelines.process import set_up
from pipelines.runs import load_config, load_model
from pipelines.schema import ExportConfig

log = logging.getLogger("spikeloom")


def run(config: ExportConfig) -> None:
    set_up()
    check(config)
    folder = Path(config.run)
    trained, trained_with = load_model(folder / "model"), load_config(folder)
    trained_with = dataclasses.replace(trained_with, data=data_at(trained_with.data, config.data.root))
    domain = domain_of(trained_with.data)
    if isinstance(domain, OwnWay):
        for part in domain.export_parts(trained, trained_with, config.batches, config.batch_size):
            source = {"densities": part.measured}
            exported = export(part.module, part.batches, name=part.name, strict=config.strict, source=source)
            write(exported, folder / "export" / part.folder, partial(write_exits, config, exported, part.batches))
        return
    batches, what = domain.example_batches(trained, trained_with, config.batches, config.batch_size)
    exported = export(
        trained.model, batches, name=trained_with.name, strict=config.strict,
        source={"densities": what},
    )  # fmt: skip
    measured = with_gradients(exported, batches) if config.gradients else exported
    write(measured, folder / "export", partial(write_exits, config, exported, batches))


def with_gradients(exported: Exported, batches: Sequence[Any]) -> Exported:
    """Add density_du; a program that the engines cannot run keeps none, and that is said."""
    from accel.trainer.engines.gradients import with_gradient_densities

    try:
        return with_gradient_densities(exported, batches)
    except UnsupportedOpError as error:
        log.warning("density_du was not measured, the simulator will take it as 1: %s", error)
        return exported


def write(exported: Exported, folder: Path, also: Callable[[Path], None] = lambda folder: None) -> None:
    """Write the three files, and what `also` adds; the folder appears whole."""
    program = exported.program_bytes()
    workload = dataclasses.replace(
        exported.workload, source={**exported.workload.source, "program_sha256": hashlib.sha256(program).hexdigest()}
    )
    with whole(folder) as unfinished:
        unfinished.mkdir(parents=True)
        (unfinished / "program.pt2").write_bytes(program)
        workload.to_json(unfinished / "workload.json")
        write_json(unfinished / "unsupported_ops.json", [dataclasses.asdict(u) for u in workload.unsupported])
        also(unfinished)
    macs = sum(layer.macs_forward for layer in workload.layers)
    log.info(
        "%d layers, %.1f M MACs a sample, %d unsupported operations -> %s",
        len(workload.layers), macs / workload.batch_size / 1e6, len(workload.unsupported), folder,
    )  # fmt: skip
