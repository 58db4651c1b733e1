"""A model as a program and a workload, and what a training step of it costs on a chip."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from spikeloom.accel.export.program import Exported
    from spikeloom.accel.trainer.chip.chip import Chip
    from spikeloom.accel.trainer.schedule.partition import Mapping
    from spikeloom.accel.trainer.schedule.result import SimulationReport
    from spikeloom.accel.trainer.workload import Workload

__all__ = ["export", "simulate"]


def export(
    model: Any, x: Any, *, axes: str | None = None, name: str | None = None, strict: bool = True,
    out: str | Path | None = None,
) -> Exported:  # fmt: skip
    """A model as an exported program and a workload with the activity measured on its inputs.

    Args:
        model: any torch.nn.Module, or what `load` returns; it is left as it was.
        x: inputs that stand for the data: a tensor, a tuple of the arguments of `forward`, or a list of several
            batches of one shape.
        axes: a letter for each axis of the first tensor, T for time and B for the batch (``"TBN"``, ``"BCHW"``,
            ``"BTC"``); None: they are inferred, which ``workload.source["axes"]`` says.
        name: of the workload; None: the class of the model.
        strict: fail where an operation has no price or a trained parameter is lost; otherwise these are listed.
        out: folder for program.pt2, workload.json and unsupported_ops.json; None: nothing is written.

    Returns:
        `Exported`: ``program``, a torch.export.ExportedProgram; ``workload``, layers with shapes, MACs and densities,
        which `simulate` takes; ``balance``, what was accounted for.

    Raises:
        ValueError: where the model cannot be traced, holds an operation without a price, or axes do not fit.

    Examples:
        >>> import spikeloom, torch
        >>> model = spikeloom.create_model("spikescr_1l_8_128", n_outputs=10)
        >>> exported = spikeloom.export(model, torch.rand(20, 2, 140), axes="TBN", out="exported")
        >>> exported.workload.time_steps, exported.workload.batch_size
        (20, 2)
        >>> spikeloom.simulate("exported/workload.json").energy_per_iteration_pj > 0
        True
    """
    from spikeloom.accel.export.api import export_model
    from spikeloom.pipelines.export.files import write

    network = getattr(model, "model", model) if hasattr(model, "class_names") else model
    exported = export_model(network, x, axes=axes, name=name, strict=strict)
    if out is not None:
        write(exported, Path(out))
    return exported


def simulate(
    workload: Workload | str | Path, *, chip: str | Chip = "neuromc", mapping: Mapping | None = None,
    time_steps: int = 4, batch_size: int = 16,
) -> SimulationReport:  # fmt: skip
    """One training step (forward, back-propagation, weight gradients, update) of a workload on a trainer chip.

    Args:
        workload: `Workload`, the path of a workload.json, or a published network: ``"s_resnet18"``, ``"s_vgg16"`` or
            ``"spikingformer_8_768"``, whose activity is not measured and counts as 1.
        chip: a preset (``"neuromc"``, ``"cacti28"``, ``"edge4"``, ``"memristor"``, ``"fl5"``), the path of a YAML
            file, or a `Chip`.
        mapping: how layers are placed on the cores; None: the balanced mapping.
        time_steps: of a published network.
        batch_size: samples of a published network.

    Returns:
        `SimulationReport` with units in the names of its figures: ``energy_per_iteration_pj``,
        ``time_per_iteration_ms``, ``layers``, ``engines``, ``warnings``; ``to_json(path)`` writes all of it.

    Raises:
        ValueError: for an unknown network or chip, or a file that is none of ours.

    Examples:
        >>> import spikeloom
        >>> report = spikeloom.simulate("s_vgg16", chip="cacti28", batch_size=1)
        >>> report.energy_per_iteration_pj > 0, report.time_per_iteration_ms > 0
        (True, True)
    """
    from spikeloom.accel.trainer.chip.chip import Chip
    from spikeloom.accel.trainer.networks import PUBLISHED
    from spikeloom.accel.trainer.schedule import simulator
    from spikeloom.accel.trainer.workload import Workload
    from spikeloom.pipelines.config.chips import load_chip

    if not isinstance(workload, Workload):
        if str(workload) in PUBLISHED:
            workload = PUBLISHED[str(workload)](time_steps, batch_size)
        elif Path(workload).is_file():
            workload = Workload.from_json(Path(workload))
        else:
            raise ValueError(
                f"{workload} is neither a file nor a published network; give workload.json of an export, or one of "
                f"{', '.join(PUBLISHED)}"
            )
    described = chip if isinstance(chip, Chip) else load_chip(chip)
    return simulator.simulate(workload, described, mapping or simulator.BALANCED)
