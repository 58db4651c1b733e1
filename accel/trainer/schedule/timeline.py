"""When each engine of each core works: one copy of the network as a schedule, which `events` runs.

A task is one fragment of a stage on one engine for one micro-batch. FP of a stage waits for the outputs of the stages
in front of it, BP for the gradients from the stages behind it (the last ones for the loss of that micro-batch), WG for
the BP of its own fragment, the update for all its WG. Each engine takes its tasks in a fixed order: FP in program
order, BP and WG backwards, one micro-batch after the other. FP, BP, WG and the update of a core run side by side.

They share ports: the SRAMs of the normalisation unit and of the optimizer, memories that the chip file gives to
several engines; all cores share the DRAM. A task that needs a share r of a port's time runs at full speed while the
shares of all running tasks add up to at most 1; above, all who use the port slow down alike. So a core that works alone
has the whole bandwidth. Busy cycles are those a task needs alone; the rest between its start and its end is stall.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from spikeloom.accel.trainer.cost.noc import Network, Transfer, chain, spread
from spikeloom.accel.trainer.schedule.events import ENGINES, UNIT, Floats, Ints, Problem, Ran, run
from spikeloom.accel.trainer.schedule.partition import Fragment

QUEUES = ("fp", "bp", "wg", "optimizer")


class Duty(NamedTuple):
    """What a fragment asks of an engine for one micro-batch."""

    cycles: int = 0
    dram_bytes: int = 0
    ports: tuple[tuple[str, float], ...] = ()  # port -> cycles


class Edge(NamedTuple):
    """Data that passes from stage to stage, in bytes for one micro-batch: outputs of `layer` forward, their gradients
    backward."""

    source: int
    target: int
    layer: str
    forward_bytes: int
    backward_bytes: int


# Of the duties of a fragment: cycles alone, busy cycles, shares of the DRAM, numbers of ports, the ports, their shares.
Need = tuple[list[float], list[float], list[int], list[int], list[str], list[int]]


class Sent(NamedTuple):
    """What a fragment sends over an edge for each micro-batch; `place` is its own in its stage."""

    edge: int
    place: int
    forward: bool
    transfer: Transfer


@dataclass
class Schedule:
    """One copy of the network on its cores.

    `duties` has one for each fragment, kind of micro-batch and engine; `kinds` is that of each micro-batch. `needs` may
    be shared by schedules of one pace of the DRAM that keep their lists of duties.
    """

    fragments: Sequence[Fragment]
    duties: Sequence[Sequence[Sequence[Duty]]]
    kinds: Sequence[int]
    edges: Sequence[Edge]
    network: Network
    dram_bytes_per_cycle: float  # of all cores together
    update: bool = True
    first_core: int = 0  # of the chip: where core 0 of this copy lies
    needs: dict[int, Need] = field(default_factory=dict)

    def run(self, spans: bool = True) -> Ran:
        """The makespan in cycles and, unless only that is of interest, what ran when."""
        return run(self.problem, spans)

    @cached_property
    def of_stage(self) -> list[list[int]]:
        found: list[list[int]] = [[] for _ in range(1 + max(fragment.stage for fragment in self.fragments))]
        for f, fragment in enumerate(self.fragments):
            found[fragment.stage].append(f)
        return found

    @cached_property
    def sent(self) -> list[Sent]:
        """All transfers of a micro-batch: edge by edge, first forward, then backward, in the order of the senders."""
        found = []
        for e, edge in enumerate(self.edges):
            for forward, senders in ((True, self.of_stage[edge.source]), (False, self.of_stage[edge.target])):
                for place in range(len(senders)):
                    transfer = self.network.transfer(*self.route(e, place, forward, self.first_core))
                    found.append(Sent(e, place, forward, transfer))
        return found

    @cached_property
    def problem(self) -> Problem:
        fragments, edges, of_stage = self.fragments, self.edges, self.of_stage
        stages, cores = range(len(of_stage)), 1 + max(fragment.core for fragment in fragments)
        on_core: list[list[int]] = [[] for _ in range(cores)]
        for f, fragment in enumerate(fragments):
            on_core[fragment.core].append(f)
        outgoing: list[list[int]] = [[] for _ in stages]
        incoming: list[list[int]] = [[] for _ in stages]
        for e, edge in enumerate(edges):
            outgoing[edge.source].append(e)
            incoming[edge.target].append(e)
        widths = [len(own) for own in of_stage]
        forward, backward, position = [], [], 0
        for edge in edges:
            forward.append(position)
            backward.append(position + widths[edge.source])
            position += widths[edge.source] + widths[edge.target]
        numbers: dict[tuple[int, int], int] = {}
        routes = [
            [numbers.setdefault(link, len(numbers)) for link in t.links] if t.size_bytes else [] for *_, t in self.sent
        ]
        kinds, micros = len(self.duties[0]), len(self.kinds)
        places = [place for own in of_stage for place in range(len(own))]
        duty = (
            np.arange(len(fragments))[:, None, None] * kinds + np.asarray(self.kinds)[None, None, :]
        ) * ENGINES + np.arange(ENGINES)[None, :, None]
        return Problem(
            cores=cores, stages=len(of_stage), fragments=len(fragments), micros=micros, links=len(numbers),
            update=int(self.update),
            fragment_stage=_ints([f.stage for f in fragments]), fragment_core=_ints([f.core for f in fragments]),
            fragment_place=_ints(_at([f for own in of_stage for f in own], places)),
            **_lists("own", on_core), **_lists("stage_fragment", of_stage, "stage_start"),
            duty=np.ascontiguousarray(duty, np.int64).reshape(-1), **self._needs(),
            **_lists("out_edge", outgoing, "out_start"), **_lists("in_edge", incoming, "in_start"),
            edge_source=_ints([edge.source for edge in edges]), edge_target=_ints([edge.target for edge in edges]),
            forward_route=_ints(forward), backward_route=_ints(backward), **_lists("route_link", routes, "route_start"),
            route_flits=_floats([t.flits for *_, t in self.sent]),
            route_delay=_floats([t.delay_cycles for *_, t in self.sent]),
            fp_wait=_ints([sum(widths[edges[e].source] for e in incoming[s]) for s in stages]),
            bp_wait=_ints([sum(widths[edges[e].target] for e in outgoing[s]) or 1 for s in stages]),
            sink=_ints([not outgoing[s] for s in stages]),
        )  # fmt: skip

    def _needs(self) -> dict[str, Any]:
        """What all duties need, one behind the other."""
        lengths, busy, dram, starts, ports, shares = [], [], [], [0], [], []
        for duties in self.duties:
            for engines in duties:
                if id(engines) not in self.needs:
                    self.needs[id(engines)] = self._need(engines)
                length, cycles, moved, counts, port, share = self.needs[id(engines)]
                lengths += length
                busy += cycles
                dram += moved
                starts += counts
                ports += port
                shares += share
        names = sorted(set(ports))
        return {
            "ports": len(names), "length": _floats(lengths), "busy": _floats(busy), "dram": _ints(dram),
            "port_start": np.cumsum(_ints(starts)), "port": _ints([names.index(port) for port in ports]),
            "port_share": _ints(shares),
        }  # fmt: skip

    def _need(self, engines: Sequence[Duty]) -> Need:
        """Cycles that each duty takes alone, those it is busy, and its shares of the DRAM and of each port meanwhile;
        alone, it never needs more of a port than there is."""
        found: Need = ([], [], [], [], [], [])
        lengths, busy, dram, counts, ports, shares = found
        for cycles, size, used in engines:
            moving = size / self.dram_bytes_per_cycle
            length = max(float(cycles), moving)
            taken = [(port, time) for port, time in used if time > 0]
            lengths.append(length)
            busy.append(float(cycles))
            dram.append(int(moving / length * UNIT) if moving > 0 else 0)
            counts.append(len(taken))
            ports += [port for port, _ in taken]
            shares += [int(time / length * UNIT) for _, time in taken]
        return found

    def route(self, e: int, place: int, forward: bool, first_core: int) -> tuple[Sequence[tuple[int, int]], int]:
        """Links and bytes of a transfer over an edge in a copy that begins at `first_core`; `place` is that of the
        sender among the fragments of its stage.

        Forward, the fragment's outputs pass along all cores that need them. Backward, partial gradients are added
        along the chain of the target's cores, and the first of these passes the sum to the source's cores.
        """
        edge, columns = self.edges[e], self.network.columns
        senders = self.of_stage[edge.source if forward else edge.target]
        fragment = self.fragments[senders[place]]
        core = first_core + fragment.core
        if forward:
            whole = self.fragments[senders[-1]].high
            size = edge.forward_bytes * fragment.high // whole - edge.forward_bytes * fragment.low // whole
        else:
            size = edge.backward_bytes
            if place:
                return chain((core, first_core + self.fragments[senders[place - 1]].core), columns), size
        others = tuple(first_core + c for c in self._cores[edge.target if forward else edge.source])
        return spread(core, others, columns), size

    @cached_property
    def _cores(self) -> list[list[int]]:
        """The cores of each stage."""
        return [sorted({self.fragments[f].core for f in own}) for own in self.of_stage]


def _ints(values: Sequence[int]) -> Ints:
    return np.array(values, np.int64)


def _floats(values: Sequence[float]) -> Floats:
    return np.array(values, np.float64)


def _at(positions: Sequence[int], values: Sequence[int]) -> list[int]:
    """A list that has each value at its position."""
    found = [0] * len(values)
    for position, value in zip(positions, values, strict=True):
        found[position] = value
    return found


def _lists(name: str, lists: Sequence[Sequence[int]], start: str = "") -> dict[str, Any]:
    """Lists one behind the other, and where each begins."""
    return {
        name: _ints([x for entry in lists for x in entry]),
        start or f"{name}_start": _ints(list(accumulate(map(len, lists), initial=0))),
    }


def engine_times(names: Ints, cycles: Floats, cores: int, makespan: float) -> list[list[tuple[float, float, float]]]:
    """(busy, stall, idle) cycles of each engine of each core; they add up to the makespan."""
    slots = names[:, 0] * ENGINES + names[:, 1]
    busy = np.bincount(slots, cycles[:, 2], cores * ENGINES)
    taken = np.bincount(slots, cycles[:, 1] - cycles[:, 0], cores * ENGINES)
    stall, idle = np.maximum(0.0, taken - busy), np.maximum(0.0, makespan - np.maximum(taken, busy))
    rows = list(zip(busy.tolist(), stall.tolist(), idle.tolist(), strict=True))
    return [rows[core * ENGINES : (core + 1) * ENGINES] for core in range(cores)]


def overlap_cycles(names: Ints, cycles: Floats) -> float:
    """Cycles, summed over cores, in which at least two engines of a core worked."""
    cores = np.concatenate([names[:, 0], names[:, 0]])
    times = np.concatenate([cycles[:, 0], cycles[:, 1]])
    changes = np.repeat([1, -1], len(names))
    order = np.lexsort((changes, times, cores))
    running = np.cumsum(changes[order])  # back at 0 behind the last event of a core
    passed = np.diff(times[order], append=0.0)
    return float(passed[running > 1].sum())
