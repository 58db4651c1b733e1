"""Which mapping is best: all ways to lay copies of a network side by side, tried one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from spikeloom.accel.trainer.chip.chip import Chip
from spikeloom.accel.trainer.cost.dataflow import OBJECTIVES, Objective
from spikeloom.accel.trainer.schedule.partition import Mapping, Style
from spikeloom.accel.trainer.schedule.plan import Pricer
from spikeloom.accel.trainer.schedule.simulator import Simulation
from spikeloom.accel.trainer.workload import Workload

STYLES = ("balanced", "channels", "data", "search")


@dataclass
class MappingConfig:
    """How the network is laid on the cores.

    style: balanced (a pipeline of contiguous channel ranges with the smallest load of the fullest core), channels (each
    layer over all cores), data (a copy of the network for each core, as many as there are images), or search (all of
    these and mixtures, with fixed and with searched flows; objective: time, energy or energy-delay). replicas: copies
    side by side, each for a share of the batch. micro_batches: groups of images that follow each other through a
    pipeline; null: one image each. flows: fixed (attention products run as the engines of the chip do) or search (each
    on the engine, FP or BP or WG, and with the operand in the array that suit the objective).
    """

    style: str = "balanced"
    replicas: int = 1
    micro_batches: int | None = None
    objective: str = "time"
    flows: str = "fixed"


Tried = list[tuple[Mapping, float, float]]  # mapping, time in ms, energy in pJ


def run_mapping(workload: Workload, chip: Chip, config: MappingConfig) -> tuple[Mapping, Tried]:
    """The mapping that `config` asks for, and what a search tried.

    Raises:
        ValueError: for an unknown style or objective.
    """
    objective = checked(config.objective)
    if config.style == "search":
        return search(workload, chip, objective)
    if config.flows not in ("fixed", "search"):
        raise ValueError(f"mapping.flows got {config.flows!r}; use fixed or search")
    flows = objective if config.flows == "search" else None
    if config.micro_batches is not None and config.micro_batches < 1:
        raise ValueError(f"mapping.micro_batches got {config.micro_batches}; use 1 or more, or null")
    if config.style == "data":
        copies = min(chip.cores.count, workload.batch_size)
        return Mapping(replicas=copies, style="channels", micro_batches=config.micro_batches, flows=flows), []
    if config.style not in STYLES:
        raise ValueError(f"mapping.style got {config.style!r}; use one of {', '.join(STYLES)}")
    style: Style = "channels" if config.style == "channels" else "pipeline"
    return Mapping(replicas=config.replicas, style=style, micro_batches=config.micro_batches, flows=flows), []


def checked(objective: str) -> Objective:
    """The objective of that name. Raises ValueError where there is none."""
    for known in OBJECTIVES:
        if objective == known:
            return known
    raise ValueError(f"mapping.objective got {objective!r}; use one of {', '.join(OBJECTIVES)}")


def candidates(workload: Workload, chip: Chip) -> list[Mapping]:
    """Copies in powers of two and every divisor of the cores, each cut by channels and as a pipeline, whose images
    follow each other one by one, in four groups, or all at once."""
    cores, batch = chip.cores.count, workload.batch_size
    largest = min(cores, batch)
    counts = {n for n in range(1, largest + 1) if cores % n == 0 or n & (n - 1) == 0} | {largest}
    found = []
    for replicas in sorted(counts):
        if cores // replicas > 1:
            share = -(-batch // replicas)
            groups = sorted({1, min(4, share), share}, reverse=True)
            found += [Mapping(replicas=replicas, style="pipeline", micro_batches=n) for n in groups]
        else:
            found.append(Mapping(replicas=replicas, style="pipeline"))
        if cores // replicas > 1:
            found.append(Mapping(replicas=replicas, style="channels"))
    return found


def search(workload: Workload, chip: Chip, objective: Objective = "time") -> tuple[Mapping, Tried]:
    """The best mapping, and all of them in the order tried: with the flows of the engines, and where there is attention
    also with a search over its data flows."""
    mappings = candidates(workload, chip)
    if any(layer.kind == "gemm_activation" for layer in workload.layers):
        mappings += [replace(mapping, flows=objective) for mapping in mappings]
    tried: Tried = []
    for simulation in simulations(workload, chip, mappings):
        tried.append((simulation.mapping, simulation.time_ms(), simulation.energy_pj(chip)))
    measures = {"time": lambda t: t[1], "energy": lambda t: t[2], "energy-delay": lambda t: t[1] * t[2]}
    return min(tried, key=measures[objective])[0], tried


def simulations(workload: Workload, chip: Chip, mappings: Sequence[Mapping]) -> Iterator[Simulation]:
    """One for each mapping, not run yet; parts of equal size are priced once for all."""
    pricer: Pricer | None = None
    for mapping in mappings:
        simulation = Simulation(workload, chip, mapping, pricer)
        pricer = simulation.layout.pricer
        yield simulation


def best(workload: Workload, chip: Chip, objective: Objective) -> tuple[Mapping, float, float]:
    """The best mapping without a search over data flows, with its time in ms and its energy in pJ; by time, only the
    fastest is priced."""
    runs = []
    for simulation in simulations(workload, chip, candidates(workload, chip)):
        time = simulation.time_ms()
        energy = 1.0 if objective == "time" else simulation.energy_pj(chip)
        runs.append((energy if objective == "energy" else time * energy, time, simulation))
    _, time, simulation = min(runs, key=lambda run: run[0])
    return simulation.mapping, time, simulation.energy_pj(chip)
