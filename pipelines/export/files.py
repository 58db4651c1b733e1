"""The folder of an export: program.pt2, workload.json, unsupported_ops.json and what else is asked for."""

import dataclasses
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

from spikeloom.accel.common.files import sweep_leftovers, whole, write_json
from spikeloom.accel.common.units import amount_text, counted
from spikeloom.accel.export.program import Exported
from spikeloom.accel.trainer.workload import Workload

log = logging.getLogger("spikeloom")


def write(exported: Exported, folder: Path, also: Callable[[Path], None] = lambda folder: None) -> None:
    """Write the three files, and what `also` adds; the folder appears whole."""
    program = exported.program_bytes()
    workload = dataclasses.replace(
        exported.workload, source={**exported.workload.source, "program_sha256": hashlib.sha256(program).hexdigest()}
    )
    sweep_leftovers(folder.parent, folder.name)
    with whole(folder) as unfinished:
        unfinished.mkdir(parents=True)
        (unfinished / "program.pt2").write_bytes(program)
        workload.to_json(unfinished / "workload.json")
        write_json(unfinished / "unsupported_ops.json", [dataclasses.asdict(u) for u in workload.unsupported])
        also(unfinished)
    log.info("%s", exported.balance)
    macs = sum(layer.macs_forward for layer in workload.layers)
    log.info(
        "%s, %s MACs a sample, %s -> %s", counted(len(workload.layers), "layer"),
        amount_text(macs / workload.batch_size), counted(len(workload.unsupported), "unsupported operation"), folder,
    )  # fmt: skip


def write_workload(workload: Workload, folder: Path) -> None:
    """Write a workload without a program; the folder appears whole."""
    sweep_leftovers(folder.parent, folder.name)
    with whole(folder) as unfinished:
        unfinished.mkdir(parents=True)
        workload.to_json(unfinished / "workload.json")
        write_json(unfinished / "unsupported_ops.json", [])
    log.info("%s", workload.source["balance"])
    log.info("%s -> %s", counted(len(workload.layers), "layer"), folder)
