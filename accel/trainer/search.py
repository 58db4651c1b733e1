"""Which mapping is best: all ways to lay copies of a network side by side, tried one after the other."""

from __future__ import annotations

from accel.trainer.chip import Chip
from accel.trainer.partition import Mapping
from accel.trainer.result import SimulationReport
from accel.trainer.simulator import simulate
from accel.trainer.workload import Workload

OBJECTIVES = ("time", "energy", "energy-delay")


def candidates(workload: Workload, chip: Chip) -> list[Mapping]:
    """Copies in powers of two and every divisor of the cores, each as a pipeline and cut by channels."""
    cores, batch = chip.cores.count, workload.batch_size
    largest = min(cores, batch)
    counts = {n for n in range(1, largest + 1) if cores % n == 0 or n & (n - 1) == 0} | {largest}
    found = []
    for replicas in sorted(counts):
        found.append(Mapping(replicas=replicas, style="pipeline"))
        if cores // replicas > 1:
            found.append(Mapping(replicas=replicas, style="channels"))
    return found


def search(
    workload: Workload, chip: Chip, objective: str = "time"
) -> tuple[SimulationReport, list[tuple[Mapping, float, float]]]:
    """The best simulation, and (mapping, time in ms, energy in pJ) of all of them in the order tried.

    Raises:
        ValueError: for an unknown objective.
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"objective got {objective!r}; use one of {', '.join(OBJECTIVES)}")
    best: SimulationReport | None = None
    tried = []
    for mapping in candidates(workload, chip):
        report = simulate(workload, chip, mapping)
        tried.append((mapping, report.time_per_iteration_ms, report.energy_per_iteration_pj))
        if best is None or _value(report, objective) < _value(best, objective):
            best = report
    assert best is not None
    return best, tried


def _value(report: SimulationReport, objective: str) -> float:
    time, energy = report.time_per_iteration_ms, report.energy_per_iteration_pj
    return {"time": time, "energy": energy, "energy-delay": time * energy}[objective]
