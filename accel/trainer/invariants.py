"""What holds in every simulation, checked in every run: nothing is lost, nothing is counted twice, no engine does two
things at once."""

from __future__ import annotations

from collections.abc import Iterator
from math import isclose

from spikeloom.accel.trainer.schedule.result import SimulationReport
from spikeloom.accel.trainer.workload import Workload

TOLERANCE = 1e-9  # of sums of floats; each of them is far more exact


class InvariantError(ValueError):
    """A simulation whose totals contradict each other or the workload: a fault of the simulator."""


def broken_invariants(
    report: SimulationReport, workload: Workload, backward: frozenset[str], makespan: float
) -> list[str]:
    """One line for each invariant that does not hold; empty when all do."""
    return [*_macs(report, workload, backward), *_energy(report), *_bytes(report), *_time(report, makespan)]


def _macs(report: SimulationReport, workload: Workload, backward: frozenset[str]) -> Iterator[str]:
    """The MACs of all fragments are those of the layers, in each phase. A search over data flows may move gradients of
    products without weights from BP to WG."""
    by_engine = {phase.engine: phase.true_macs for phase in report.engines}
    moved = sum(
        phase.true_macs
        for layer in report.layers if layer.kind == "gemm_activation"
        for phase in layer.phases if phase.engine == "wg"
    )  # fmt: skip
    for name, found, expected in (
        ("fp", by_engine["fp"], sum(layer.macs_forward for layer in workload.layers)),
        ("bp", by_engine["bp"] + moved, sum(x.macs_backward for x in workload.layers if x.path in backward)),
        ("wg", by_engine["wg"] - moved, sum(layer.macs_weight_gradient for layer in workload.layers)),
    ):
        if found != expected:
            yield f"{name} has {found} MACs, the layers have {expected}"


def _energy(report: SimulationReport) -> Iterator[str]:
    """The total is the sum over engines, over layers and over tensor classes."""
    total = report.energy_per_iteration_pj
    for name, found in (
        ("engines", sum(phase.energy.total_pj for phase in report.engines)),
        ("layers", sum(layer.total.energy.total_pj for layer in report.layers)),
        ("tensor classes", sum(report.energy_by_tensor_pj.values())),
    ):
        if not isclose(found, total, rel_tol=TOLERANCE, abs_tol=1e-6):
            yield f"the energy of all {name} is {found} pJ, the total {total} pJ"


def _bytes(report: SimulationReport) -> Iterator[str]:
    """DRAM carries at least what must move, tensor by tensor, and the links what the transfers sent."""
    for name, least in report.total.compulsory_bytes_by_tensor.items():
        moved = report.total.dram_bytes_by_tensor.get(name, 0)
        if moved < least:
            yield f"{moved} bytes of {name} moved, at least {least} must"
    if report.network.bytes > sum(report.network.link_bytes.values()):
        yield f"{report.network.bytes} bytes were sent, the links carried {sum(report.network.link_bytes.values())}"


def _time(report: SimulationReport, makespan: float) -> Iterator[str]:
    """Busy, stall and idle of each engine add up to the makespan, and its tasks do not overlap."""
    for time in report.engine_times:
        found = time.busy_cycles + time.stall_cycles + time.idle_cycles
        if not isclose(found, makespan, rel_tol=TOLERANCE, abs_tol=1e-3):
            yield f"{time.engine} of core {time.core} accounts for {found} of {makespan} cycles"
    last: dict[tuple[int, str], float] = {}
    for core, engine, layer, _, start, end, busy in report.timeline:
        key = (core, engine)
        if busy > (end - start) + 1e-9 * end + 1e-6:
            yield f"{engine} of core {core} ends {layer} after {end - start} of the {busy} cycles that it takes"
        if start < last.get(key, 0.0) - 1e-6:
            yield f"{engine} of core {core} starts {layer} at {start} before it ends the task before at {last[key]}"
        last[key] = end
