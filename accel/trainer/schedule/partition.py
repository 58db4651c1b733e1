"""Which core computes what: layers in stages, stages cut into channel ranges, cores filled one after the other.

A stage is a product with the neurons, norms and elementwise operations behind it. It is cut along output channels, in
multiples of the chip's channel quantum (16), and along whole groups where there are groups. `fill` gives each core a
contiguous run of such quanta; `balance` finds, exactly, the smallest load of the fullest core over all contiguous cuts.
A `Mapping` says how often the network is laid out side by side (data parallel) and how each copy uses its cores:
`pipeline` (a contiguous run for each core, images follow each other) or `channels` (each layer over all cores).
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import ceil
from typing import Literal

from spikeloom.accel.common.units import counted
from spikeloom.accel.trainer.cost.dataflow import Objective
from spikeloom.accel.trainer.workload import Layer, Workload

Style = Literal["pipeline", "channels"]


@dataclass(frozen=True, kw_only=True)
class Mapping:
    """`replicas` copies of the network, each for a share of the batch, and how a copy is spread over its cores.

    `micro_batches` is how many images groups follow each other through a copy; None takes one image each for a
    pipeline, and the whole share at once otherwise. `flows` is the objective of a search over the data flows of
    attention products (`cost.dataflow`); None leaves them as the engines have them.
    """

    replicas: int = 1
    style: Style = "pipeline"
    micro_batches: int | None = None
    flows: Objective | None = None

    @property
    def name(self) -> str:
        count = self.micro_batches
        groups = f" of {counted(count, 'micro-batch', 'micro-batches')}" if count is not None else ""
        flows = ", data flows searched" if self.flows is not None else ""
        copies = "" if self.replicas == 1 else f"{self.replicas} copies, "
        return f"{copies}{self.style}{groups}{flows}"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Consecutive layers that share a cut; `channels` are those of the product that leads them."""

    layers: tuple[Layer, ...]
    channels: int
    quantum: int

    @property
    def quanta(self) -> int:
        return ceil(self.channels / self.quantum)


@dataclass(frozen=True, kw_only=True)
class Fragment:
    """Channels `low` to `high` of a stage on a core."""

    stage: int
    low: int
    high: int
    core: int


def stages_of(workload: Workload, quantum: int) -> tuple[Stage, ...]:
    """The stages in program order; what comes before the first product belongs to it."""
    groups: list[list[Layer]] = [[]]
    led = False
    for layer in workload.layers:
        if layer.kind.startswith("gemm"):
            if led:
                groups.append([])
            led = True
        groups[-1].append(layer)
    stages = []
    for group in groups:
        lead = next((layer for layer in group if layer.kind.startswith("gemm")), None)
        if lead is None:
            channels = max((layer.out_channels for layer in group), default=1)
            stages.append(Stage(layers=tuple(group), channels=channels, quantum=quantum))
            continue
        width = quantum
        if lead.groups > 1:  # whole groups, of at least a quantum
            each = lead.out_channels // lead.groups
            width = each * max(1, ceil(quantum / each))
        stages.append(Stage(layers=tuple(group), channels=lead.out_channels, quantum=width))
    return tuple(stages)


def fill(loads: Sequence[int], capacity: int) -> list[int]:
    """Greedy cut: the end of each run, so that no run has a load above `capacity`.

    Raises:
        ValueError: where a single load exceeds the capacity.
    """
    return _fill(list(accumulate(loads, initial=0)), capacity)


def _fill(sums: list[int], capacity: int) -> list[int]:
    ends, start = [], 0
    while start < len(sums) - 1:
        end = bisect_right(sums, sums[start] + capacity) - 1
        if end == start:
            raise ValueError(f"a load of {sums[start + 1] - sums[start]} got a capacity of {capacity}; use more")
        ends.append(end)
        start = end
    return ends


def balance(loads: Sequence[int], runs: int) -> tuple[int, list[int]]:
    """The smallest possible load of the fullest of at most `runs` contiguous runs, and the end of each run.

    Exact: a capacity is possible when the greedy cut needs no more than `runs`; halving finds the smallest one.
    """
    sums = list(accumulate(loads, initial=0))
    low, high = max(max(loads, default=0), ceil(sums[-1] / runs)), sums[-1]
    while low < high:
        middle = (low + high) // 2
        if len(_fill(sums, middle)) <= runs:
            high = middle
        else:
            low = middle + 1
    return low, _spread(sums, _fill(sums, low), runs) if loads else []


def _spread(sums: list[int], ends: list[int], runs: int) -> list[int]:
    """Cut the longest runs in two while there are cores without one: the fullest core gets no fuller."""
    starts = [0, *ends[:-1]]
    heap = [(-(sums[end] - sums[start]), start, end) for start, end in zip(starts, ends, strict=True)]
    heapq.heapify(heap)
    done: list[int] = []  # ends of runs of a single quantum
    while heap and len(heap) + len(done) < runs:
        _, start, end = heapq.heappop(heap)
        if end - start == 1:
            done.append(end)
            continue
        middle = bisect_right(sums, (sums[start] + sums[end]) / 2, start + 1, end) - 1
        cut = min(
            (max(start + 1, middle), min(end - 1, middle + 1)), key=lambda c: abs(sums[start] + sums[end] - 2 * sums[c])
        )
        for a, b in ((start, cut), (cut, end)):
            heapq.heappush(heap, (-(sums[b] - sums[a]), a, b))
    return sorted([*done, *(end for _, _, end in heap)])


def quanta_loads(stages: Sequence[Stage], loads: Sequence[int]) -> list[int]:
    """The load of each quantum of each stage in order, when `loads` are those of whole stages."""
    return [
        loads[i] * min(stage.channels, (q + 1) * stage.quantum) // stage.channels
        - loads[i] * q * stage.quantum // stage.channels
        for i, stage in enumerate(stages)
        for q in range(stage.quanta)
    ]


def fragments_of(stages: Sequence[Stage], loads: Sequence[int], cores: int, style: Style) -> tuple[Fragment, ...]:
    """The pieces of all stages, in program order; each stage is covered once."""
    if style == "channels":
        return tuple(
            Fragment(stage=i, low=low, high=high, core=core)
            for i, stage in enumerate(stages)
            for core, (low, high) in enumerate(_even(stage, cores))
        )
    ends = balance(quanta_loads(stages, loads), cores)[1]
    fragments = []
    core, position = 0, 0
    for i, stage in enumerate(stages):
        first, last = position, position + stage.quanta
        while position < last:
            while ends[core] <= position:
                core += 1
            end = min(last, ends[core])
            low, high = (position - first) * stage.quantum, min(stage.channels, (end - first) * stage.quantum)
            fragments.append(Fragment(stage=i, low=low, high=high, core=core))
            position = end
    return tuple(fragments)


def _even(stage: Stage, cores: int) -> list[tuple[int, int]]:
    """Cut a stage as evenly as its quantum allows."""
    pieces = min(cores, stage.quanta)
    cuts = [min(stage.channels, stage.quanta * i // pieces * stage.quantum) for i in range(pieces + 1)]
    return list(zip(cuts, cuts[1:], strict=False))
