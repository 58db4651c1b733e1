"""What the zeros of a pruned model save on a chip: the same chip three times, by what it does with zero operands."""

from collections.abc import Sequence
from importlib import resources
from statistics import fmean
from typing import NamedTuple

from spikeloom.accel.trainer.chip.override import SPARSITIES, ChipConfig, variant
from spikeloom.accel.trainer.schedule.result import ENGINES
from spikeloom.accel.trainer.schedule.simulator import simulate
from spikeloom.accel.trainer.workload import Workload

MEANING = {
    "dense": "multiplies by zeros", "gating": "does not multiply by zeros", "skipping": "takes no time for them either",
    "compressed": "nor does it store zero weights",
}  # fmt: skip


class StepCost(NamedTuple):
    """One training step: energy in microjoules a sample, cycles of the busy engines, forward and in all, and kilobytes
    of weights that FP and BP read from off-chip memory."""

    forward_uj: float
    step_uj: float
    forward_cycles: float
    step_cycles: float
    makespan_cycles: float
    weights_kb: float


def step_cost(workload: Workload, mode: str, chip: str = "neuromc") -> StepCost:
    """On the preset `chip` as it treats zeros in `mode`: dense, gating or skipping, for all operands, or compressed:
    skipping, and weights stored in the fewest bits."""
    sparsity, weights = ("skipping", "compressed") if mode == "compressed" else (mode, "dense")
    with resources.as_file(resources.files("spikeloom.conf") / "chips" / f"{chip}.yaml") as path:
        report = simulate(workload, variant(path, ChipConfig(name=chip, sparsity=sparsity, weights=weights)))
    engines = dict(zip(ENGINES, report.engines, strict=True))
    forward = engines["fp"]
    return StepCost(
        forward_uj=forward.energy.total_pj / 1e6 / report.batch_size,
        step_uj=report.energy_per_iteration_pj / 1e6 / report.batch_size,
        forward_cycles=forward.cycles,
        step_cycles=sum(engine.cycles for engine in report.engines),
        makespan_cycles=report.makespan_cycles,
        weights_kb=sum(phase.dram_bytes_by_tensor.get("W", 0) for phase in (forward, engines["bp"])) / 1e3,
    )


def mean_cost(workloads: Sequence[Workload], mode: str, chip: str = "neuromc") -> StepCost:
    """Mean over the same model with several seeds."""
    costs = [step_cost(workload, mode, chip) for workload in workloads]
    return StepCost(*(fmean(values) for values in zip(*costs, strict=True)))


def modes() -> tuple[str, ...]:
    return (*SPARSITIES, "compressed")
