"""The optional files of an export, model.nir and model.onnx: written, run by their own runner, compared spike by spike.

A file is kept only if its round trip on the batches of the export agrees with the program.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from spikeloom.accel.export.program import Exported
from spikeloom.accel.interop import nir, onnx
from spikeloom.accel.interop.nir_network import NirRunner
from spikeloom.accel.interop.roundtrip import round_trip
from spikeloom.pipelines.config.export import ExportConfig

log = logging.getLogger("spikeloom")


def check(config: ExportConfig) -> None:
    """Raise ImportError, before anything is measured, where an exit that is asked for lacks its libraries."""
    if config.nir:
        nir.library()
    if config.onnx:
        onnx.libraries()


def write_exits(config: ExportConfig, exported: Exported, batches: Sequence[Any], folder: Path) -> None:
    """Write what `config` asks for into `folder`, which exists. Raises ValueError where a format cannot express the
    program or its round trip fails."""
    calls: list[tuple[Tensor, ...]] = [batch if isinstance(batch, tuple) else (batch,) for batch in batches]
    if config.nir:
        path = folder / "model.nir"
        nir.write_nir(exported.program, calls[0], path, dt_s=config.nir_dt_s)
        log.info("model.nir: %s", round_trip(exported.program, calls, NirRunner(path), path.name))
    if config.onnx:
        path = folder / "model.onnx"
        onnx.write_onnx(exported.program, path)
        log.info("model.onnx: %s", round_trip(exported.program, calls, onnx.OnnxRunner(path), path.name))
