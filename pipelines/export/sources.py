"""What `export` and `simulate` can start from beside a run: a user's model, a program, an ONNX or a NIR file."""

import logging
from pathlib import Path
from typing import Any

from spikeloom.accel.common.units import counted
from spikeloom.accel.trainer.workload import Workload

log = logging.getLogger("spikeloom")
FILES = ("module", "program", "onnx", "nir")


def chosen(config: Any) -> str | None:
    """The one kind of source that `config` names, or None.

    Raises:
        ValueError: for several.
    """
    given = [name for name in FILES if isinstance(getattr(config, name, None), str)]
    if len(given) > 1:
        raise ValueError(f"got {' and '.join(_key(name) for name in given)}; give one of them")
    return given[0] if given else None


def exported_of(kind: str, config: Any) -> Any:
    """Program, workload and balance of a user's model, program or NIR file.

    Raises:
        ValueError: naming the file, for one that cannot be read or exported.
    """
    from spikeloom.accel.export.api import export_model
    from spikeloom.accel.export.program import load_program, measure
    from spikeloom.pipelines.export.user_model import load_module, read_inputs

    inputs = read_inputs(config.example, config.input, config.seed)
    if kind == "program":
        program = load_program(config.program)
        if inputs is None:
            inputs = _kept_inputs(program)
        return measure(
            program, [_needed(inputs, kind)], name=Path(config.program).stem, strict=config.strict, axes=config.axes,
            source={"densities": _densities(config), "program": Path(config.program).name},
        )  # fmt: skip
    if kind == "nir":
        from spikeloom.accel.interop.nir_network import Defaults, read_nir

        defaults = Defaults(dt_s=config.dt_s, time_steps=config.time_steps, surrogate=config.surrogate)
        network = read_nir(Path(config.nir), defaults)
        if inputs is None:
            inputs = (network.example(config.batch_size),)
        return export_model(
            network, [inputs], name=Path(config.nir).stem, strict=config.strict, axes=config.axes or "TB..."
        )  # fmt: skip
    model = load_module(config.module)
    return export_model(
        model, [_needed(inputs, kind)], axes=config.axes, strict=config.strict,
        name=Path(config.module.rpartition(":")[0]).stem,
    )  # fmt: skip


def workload_of(kind: str, config: Any) -> Workload:
    """The workload of a source; an ONNX file gives shapes only."""
    if kind == "onnx":
        from spikeloom.accel.interop.onnx_shapes import onnx_workload

        workload = onnx_workload(Path(config.onnx), shapes=config.input, axes=config.axes, strict=config.strict)
        log.info("%s", workload.source["balance"])
        return workload
    exported = exported_of(kind, config)
    tell(exported)
    found: Workload = exported.workload
    return found


def tell(exported: Any) -> None:
    """Print the closing balance and how the axes were read."""
    source = exported.workload.source
    log.info(
        "axes %s: %s, batch %d",
        source["axes"],
        counted(exported.workload.time_steps, "step"),
        exported.workload.batch_size,
    )
    if "neurons" in source:
        log.info("%s", source["neurons"])
    log.info("%s", exported.balance)


def default_folder(kind: str, config: Any) -> Path:
    """runs/KIND/NAME of a file."""
    text = getattr(config, kind)
    return Path("runs") / Path(text.rpartition(":")[0] if kind == "module" else text).stem


def _densities(config: Any) -> str:
    return f"measured on {config.example}" if config.example else f"random inputs {config.input or 'of the file'}"


def _kept_inputs(program: Any) -> Any:
    """The example inputs that torch.export saves with a program."""
    found = program.example_inputs
    return tuple(found[0]) if found and not found[1] else None


def _needed(inputs: Any, kind: str) -> Any:
    if inputs is None:
        raise ValueError(f"{_key(kind)}… needs inputs; add example=FILE.npz, or input=4x3x32x32 axes=BCHW")
    return inputs


def _key(name: str) -> str:
    return "model=" if name == "module" else f"{name}="
