"""When each engine of each core works: one copy of the network, event by event.

A task is one fragment of a stage on one engine for one micro-batch. FP of a stage waits for the outputs of the stages
in front of it, BP for the gradients from the stages behind it (the last ones for the loss of that micro-batch), WG for
the BP of its own fragment, the update for all its WG. Each engine takes its tasks in a fixed order: FP in program
order, BP and WG backwards, one micro-batch after the other. FP, BP, WG and the update of a core run side by side.

They share ports: the SRAMs of the normalisation unit and of the optimizer, memories that the chip file gives to
several engines, and the core's slot of the DRAM bandwidth (an equal part for each core that works). A task that needs a
share r of a port's time runs at full speed while the shares of all running tasks add up to at most 1; above, all who
use the port slow down alike. Busy cycles are those a task needs alone; the rest between its start and its end is stall.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from accel.trainer.noc import Network, Transfer, chain
from accel.trainer.partition import Fragment

QUEUES = ("fp", "bp", "wg", "optimizer")
FP, BP, WG, UPDATE = range(4)


Shares = tuple[tuple[str, float], ...]  # port -> share of its time that a task at full speed needs


class Duty(NamedTuple):
    """What a fragment asks of an engine for one micro-batch."""

    cycles: int = 0
    dram_bytes: int = 0
    ports: tuple[tuple[str, float], ...] = ()  # port -> cycles


class Edge(NamedTuple):
    """Data that passes from stage to stage, in bytes for one micro-batch: outputs forward, gradients backward."""

    source: int
    target: int
    forward_bytes: int
    backward_bytes: int


class Span(NamedTuple):
    """One task as it ran; `busy_cycles` is what it needed, the rest of its time is stall."""

    core: int
    engine: int
    fragment: int
    micro_batch: int
    start_cycle: float
    end_cycle: float
    busy_cycles: float


@dataclass(slots=True)
class _Run:
    """A task that is running: `left` full-speed cycles at time `since`, slowed down by `slow`."""

    task: tuple[int, int, int]
    start: float
    left: float
    since: float
    shares: Shares
    busy: float
    slow: float = 1.0
    version: int = 0


@dataclass
class Schedule:
    """Runs to the end when made by `run`; `spans` are in the order of their ends."""

    fragments: Sequence[Fragment]
    duties: Sequence[Sequence[Sequence[Duty]]]  # fragment -> engine -> micro-batch (the update has one)
    edges: Sequence[Edge]
    micro_batches: int
    network: Network
    dram_bytes_per_cycle: float  # of one core
    update: bool = True
    first_core: int = 0  # of the chip: where core 0 of this copy lies
    spans: list[Span] = field(default_factory=list)

    def run(self) -> float:
        """The makespan in cycles."""
        self._prepare()
        waited = self.network.waited_cycles
        for stage, waits in enumerate(self.fp_wait):
            for m in range(self.micro_batches):
                if waits[m] == 0:
                    self._ready(FP, stage, m, 0.0)
        heap, active, pop = self.heap, self.active, heapq.heappop
        while heap:
            now, _, kind, payload = pop(heap)
            if kind == 0:
                core, engine, version = payload
                running = active[core].get(engine)
                if running is not None and running.version == version:
                    self._end(core, engine, running, now)
            else:
                engine, stage, m = payload
                self._arrive(engine, stage, m, now)
        self.waited_cycles = self.network.waited_cycles - waited  # of all transfers
        return max((span.end_cycle for span in self.spans), default=0.0)

    def _prepare(self) -> None:
        stages = 1 + max(fragment.stage for fragment in self.fragments)
        micros = self.micro_batches
        self.heap: list[tuple[float, int, int, tuple[int, ...]]] = []
        self.order = 0
        self.of_stage: list[list[int]] = [[] for _ in range(stages)]
        self.cores = 1 + max(fragment.core for fragment in self.fragments)
        on_core: list[list[int]] = [[] for _ in range(self.cores)]
        for f, fragment in enumerate(self.fragments):
            self.of_stage[fragment.stage].append(f)
            on_core[fragment.core].append(f)
        self.active: list[dict[int, _Run]] = [{} for _ in range(self.cores)]
        self.queues = [
            [
                [(f, m) for m in range(micros) for f in own],
                [(f, m) for m in range(micros) for f in reversed(own)],
                [(f, m) for m in range(micros) for f in reversed(own)],
                [(f, 0) for f in reversed(own)],
            ]
            for own in on_core
        ]
        self.next = [[0, 0, 0, 0] for _ in range(self.cores)]
        self.is_ready = [[[False] * micros for _ in QUEUES] for _ in self.fragments]
        self.wg_left = [micros] * len(self.fragments)
        self.out_edges: list[list[tuple[int, int]]] = [[] for _ in range(stages)]  # (edge, target)
        self.in_edges: list[list[tuple[int, int]]] = [[] for _ in range(stages)]
        fp_wait, bp_wait = [0] * stages, [0] * stages
        for e, edge in enumerate(self.edges):
            self.out_edges[edge.source].append((e, edge.target))
            self.in_edges[edge.target].append((e, edge.source))
            fp_wait[edge.target] += len(self.of_stage[edge.source])
            bp_wait[edge.source] += len(self.of_stage[edge.target])
        sinks = [s for s in range(stages) if not self.out_edges[s]]
        for s in sinks:
            bp_wait[s] = 1
        self.sinks = set(sinks)
        self.loss_wait = [sum(len(self.of_stage[s]) for s in sinks)] * micros
        self.fp_wait = [[n] * micros for n in fp_wait]
        self.bp_wait = [[n] * micros for n in bp_wait]
        self.routes: dict[tuple[int, int, bool], Transfer] = {}
        # id of a duty -> cycles that it takes alone, those it is busy, and its shares of ports
        self.lengths: dict[int, tuple[float, float, Shares]] = {}
        self.paces: dict[tuple[int, ...], tuple[float, ...]] = {}  # of tasks that run together, by their shares

    def _push(self, time: float, kind: int, payload: tuple[int, ...]) -> None:
        self.order += 1
        heapq.heappush(self.heap, (time, self.order, kind, payload))

    def _ready(self, engine: int, stage: int, m: int, now: float) -> None:
        for f in self.of_stage[stage]:
            self.is_ready[f][engine][m] = True
            core = self.fragments[f].core
            if engine not in self.active[core]:
                self._start_next(core, engine, now)

    def _start_next(self, core: int, engine: int, now: float) -> None:
        """Start the next task of an engine that has none, if it may begin."""
        queue, index = self.queues[core][engine], self.next[core][engine]
        if index == len(queue):
            return
        f, m = queue[index]
        if not self.is_ready[f][engine][m]:
            return
        self.next[core][engine] = index + 1
        duty = self.duties[f][engine][m]
        known = self.lengths.get(id(duty))
        if known is None:
            known = self.lengths[id(duty)] = self._needs(duty)
        length, busy, shares = known
        run = _Run((f, engine, m), now, length, now, shares, busy)
        running = self.active[core]
        running[engine] = run
        if len(running) > 1:
            self._share_ports(core, now)
        if run.version == 0:
            self._due(core, engine, run, now)

    def _needs(self, duty: Duty) -> tuple[float, float, Shares]:
        """Cycles that a task takes alone, those it is busy, and its share of each port that it uses meanwhile; alone,
        it never needs more of a port than there is."""
        dram = duty.dram_bytes / self.dram_bytes_per_cycle
        length = max(float(duty.cycles), dram)
        used = [(port, cycles / length) for port, cycles in (*duty.ports, ("dram", dram)) if cycles > 0]
        return length, float(duty.cycles), tuple(used)

    def _share_ports(self, core: int, now: float) -> None:
        """Set the pace of every task that runs on a core."""
        running = self.active[core]
        key = tuple([id(run.shares) for run in running.values()])  # of tuples that `lengths` keeps
        paces = self.paces.get(key)
        if paces is None:
            paces = self.paces[key] = _paces([run.shares for run in running.values()])
        for (engine, run), slow in zip(running.items(), paces, strict=True):
            if slow != run.slow:
                run.left -= (now - run.since) / run.slow
                run.since, run.slow = now, slow
                self._due(core, engine, run, now)

    def _due(self, core: int, engine: int, run: _Run, now: float) -> None:
        """Foresee the end of a task; what was foreseen before is void, since no two forecasts share a number."""
        run.version = self.order = self.order + 1
        left = run.left if run.left > 0.0 else 0.0
        heapq.heappush(self.heap, (now + left * run.slow, self.order, 0, (core, engine, run.version)))

    def _end(self, core: int, engine: int, run: _Run, now: float) -> None:
        running = self.active[core]
        del running[engine]
        f, _, m = run.task
        if now > run.start:
            self.spans.append(Span(core, engine, f, m, run.start, now, run.busy))
        if len(running) > 1 or any(other.slow != 1.0 for other in running.values()):
            self._share_ports(core, now)
        stage = self.fragments[f].stage
        if engine == FP:
            for e, target in self.out_edges[stage]:
                self._send(e, f, True, (FP, target, m), now)
            if stage in self.sinks:
                self.loss_wait[m] -= 1
                if self.loss_wait[m] == 0:
                    for sink in sorted(self.sinks):
                        self._arrive(BP, sink, m, now)
        elif engine == BP:
            for e, source in self.in_edges[stage]:
                self._send(e, f, False, (BP, source, m), now)
            self.is_ready[f][WG][m] = True
            if WG not in running:
                self._start_next(core, WG, now)
        elif engine == WG:
            self.wg_left[f] -= 1
            if self.wg_left[f] == 0 and self.update:
                self.is_ready[f][UPDATE][0] = True
                if UPDATE not in running:
                    self._start_next(core, UPDATE, now)
        if engine not in running:
            self._start_next(core, engine, now)

    def _arrive(self, engine: int, stage: int, m: int, now: float) -> None:
        wait = self.fp_wait if engine == FP else self.bp_wait
        wait[stage][m] -= 1
        if wait[stage][m] == 0:
            self._ready(engine, stage, m, now)

    def _send(self, e: int, f: int, forward: bool, arrival: tuple[int, int, int], now: float) -> None:
        message = self.routes.get((e, f, forward))
        if message is None:
            route = self.route(e, f, forward, self.first_core)
            message = self.routes[e, f, forward] = self.network.transfer(*route)
        if message.links and message.size_bytes:
            self._push(self.network.send(message, now), 1, arrival)
        else:
            self._arrive(*arrival, now)

    def route(self, e: int, f: int, forward: bool, first_core: int) -> tuple[list[tuple[int, int]], int]:
        """Links and bytes of a transfer in a copy that begins at `first_core`.

        Forward, the fragment's outputs pass along all cores that need them. Backward, partial gradients are added
        along the chain of the target's cores, and the first of these passes the sum to the source's cores.
        """
        edge, columns = self.edges[e], self.network.columns
        core, fragment = self.fragments[f].core, self.fragments[f]
        if forward:
            whole = max(self.fragments[g].high for g in self.of_stage[edge.source])
            size = edge.forward_bytes * fragment.high // whole - edge.forward_bytes * fragment.low // whole
            others = sorted({self.fragments[g].core for g in self.of_stage[edge.target]} - {core})
        else:
            size = edge.backward_bytes
            before = [self.fragments[g].core for g in self.of_stage[edge.target] if g < f]
            if before:
                return chain([first_core + core, first_core + before[-1]], columns), size
            others = sorted({self.fragments[g].core for g in self.of_stage[edge.source]} - {core})
        above, below = [c for c in others if c > core], [c for c in others if c < core][::-1]
        ways = ([first_core + c for c in (core, *way)] for way in (above, below))
        return [link for way in ways for link in chain(way, columns)], size


def _paces(together: Sequence[Shares]) -> tuple[float, ...]:
    """How many times slower each of the tasks runs that share the ports of a core."""
    asked: dict[str, float] = {}
    for shares in together:
        for port, share in shares:
            asked[port] = asked.get(port, 0.0) + share
    return tuple(max([1.0, *(asked[port] for port, _ in shares)]) for shares in together)


def engine_times(spans: Sequence[Span], cores: int, makespan: float) -> list[list[tuple[float, float, float]]]:
    """(busy, stall, idle) cycles of each engine of each core; they add up to the makespan."""
    busy = [[0.0] * len(QUEUES) for _ in range(cores)]
    taken = [[0.0] * len(QUEUES) for _ in range(cores)]
    for span in spans:
        busy[span.core][span.engine] += span.busy_cycles
        taken[span.core][span.engine] += span.end_cycle - span.start_cycle
    return [
        [(b, max(0.0, t - b), max(0.0, makespan - max(t, b))) for b, t in zip(busy[c], taken[c], strict=True)]
        for c in range(cores)
    ]


def overlap_cycles(spans: Sequence[Span]) -> float:
    """Cycles, summed over cores, in which at least two engines of a core worked."""
    by_core: dict[int, list[tuple[float, int]]] = {}
    for span in spans:
        by_core.setdefault(span.core, []).extend(((span.start_cycle, 1), (span.end_cycle, -1)))
    total = 0.0
    for events in by_core.values():
        events.sort()
        running, last = 0, 0.0
        for time, change in events:
            if running > 1:
                total += time - last
            running, last = running + change, time
    return total
