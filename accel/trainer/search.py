"""Which mapping is best: all ways to lay copies of a network side by side, tried one after the other."""

from __future__ import annotations

from dataclasses import dataclass

from accel.trainer.chip import Chip
from accel.trainer.partition import Mapping, Style
from accel.trainer.simulator import simulate
from accel.trainer.workload import Workload

OBJECTIVES = ("time", "energy", "energy-delay")
STYLES = ("balanced", "channels", "data", "search")


@dataclass
class MappingConfig:
    """How the network is laid on the cores.

    style: balanced (a pipeline of contiguous channel ranges with the smallest load of the fullest core), channels (each
    layer over all cores), data (a copy of the network for each core, as many as there are images), or search (all of
    these and mixtures; objective: time, energy or energy-delay). replicas: copies side by side, each for a share of the
    batch. micro_batches: groups of images that follow each other through a pipeline; null: one image each.
    """

    style: str = "balanced"
    replicas: int = 1
    micro_batches: int | None = None
    objective: str = "time"


Tried = list[tuple[Mapping, float, float]]  # mapping, time in ms, energy in pJ


def run_mapping(workload: Workload, chip: Chip, config: MappingConfig) -> tuple[Mapping, Tried]:
    """The mapping that `config` asks for, and what a search tried.

    Raises:
        ValueError: for an unknown style or objective.
    """
    if config.style == "search":
        return search(workload, chip, config.objective)
    if config.micro_batches is not None and config.micro_batches < 1:
        raise ValueError(f"mapping.micro_batches got {config.micro_batches}; use 1 or more, or null")
    if config.style == "data":
        copies = min(chip.cores.count, workload.batch_size)
        return Mapping(replicas=copies, style="channels", micro_batches=config.micro_batches), []
    if config.style not in STYLES:
        raise ValueError(f"mapping.style got {config.style!r}; use one of {', '.join(STYLES)}")
    style: Style = "channels" if config.style == "channels" else "pipeline"
    return Mapping(replicas=config.replicas, style=style, micro_batches=config.micro_batches), []


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


def search(workload: Workload, chip: Chip, objective: str = "time") -> tuple[Mapping, Tried]:
    """The best mapping, and all of them in the order tried.

    Raises:
        ValueError: for an unknown objective.
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"mapping.objective got {objective!r}; use one of {', '.join(OBJECTIVES)}")
    tried: Tried = []
    for mapping in candidates(workload, chip):
        report = simulate(workload, chip, mapping)
        tried.append((mapping, report.time_per_iteration_ms, report.energy_per_iteration_pj))
    measures = {"time": lambda t: t[1], "energy": lambda t: t[2], "energy-delay": lambda t: t[1] * t[2]}
    return min(tried, key=measures[objective])[0], tried
