"""What training a model costs, in one call from Python."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

__all__ = ["Cost", "cost"]

if TYPE_CHECKING:
    from spikeloom.accel.export.program import Exported
    from spikeloom.accel.trainer.schedule.result import SimulationReport
    from spikeloom.accel.trainer.workload import Workload


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One training step of a model on a chip: `print()` shows it, the attributes hold it."""

    exported: "Exported"
    report: "SimulationReport"

    @property
    def workload(self) -> "Workload":
        """Layers with shapes, MACs and measured densities."""
        return self.exported.workload

    @property
    def energy_mj(self) -> float:
        """Energy of one training step of the whole batch, in mJ."""
        return self.report.energy_per_iteration_pj / 1e9

    @property
    def time_ms(self) -> float:
        """Time of one training step of the whole batch, in ms."""
        return self.report.time_per_iteration_ms

    def __str__(self) -> str:
        from spikeloom.accel.trainer.report.console import lines

        axes = self.workload.source["axes"]
        told = [*lines(self.report), f"  axes: {axes}", f"  balance: {self.exported.balance}"]
        if "neurons" in self.workload.source:
            told.append(f"  neurons: {self.workload.source['neurons']}")
        return "\n".join(told)

    def print(self) -> None:
        """Print energy, time and the closing balance."""
        print(self)


def cost(
    model: Any,
    x: Any,
    *,
    axes: str | None = None,
    chip: Any = "cacti28",
    name: str | None = None,
    strict: bool = True,
) -> Cost:
    """What one training step of `model` on a batch like `x` costs on a neuromorphic trainer chip.

    Args:
        model: any torch module whose operations are known; it is left as it was.
        x: a batch: a tensor, a tuple of the arguments of `forward`, or a list of several batches of one shape.
        axes: a letter for each axis of the first tensor, T for time and B for the batch ("TBN", "BCHW", "BTC");
            without it the axes are inferred, which the result says.
        chip: a preset ("neuromc", "cacti28", "memristor", "edge4", "fl5"), the path of a YAML file, or a Chip.
        name: of the model in the report; its class without one.
        strict: fail where an operation has no price or a trained parameter is lost; otherwise these are named.

    Returns:
        Energy in mJ, time in ms, the report and the workload; `print()` shows them.

    Raises:
        ValueError: for a model, batch, axes or chip that cannot be costed, in one line.

    Examples:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())
        >>> cost(model, torch.randn(4, 3, 16, 16), axes="BCHW").workload.batch_size
        4
    """
    from spikeloom.accel.export.api import export_model
    from spikeloom.accel.trainer.chip.chip import Chip
    from spikeloom.accel.trainer.schedule.simulator import simulate
    from spikeloom.pipelines.config.chips import load_chip

    exported = export_model(model, x, axes=axes, name=name, strict=strict)
    described = chip if isinstance(chip, Chip) else load_chip(chip)
    return Cost(exported=exported, report=simulate(exported.workload, described))
