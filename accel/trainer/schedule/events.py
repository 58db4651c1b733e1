"""The events of a schedule, one after the other: the plain loop, and the same in C++ (`events.cpp`) where there is a
compiler. Both give the same bits.

`Problem` is a schedule in flat arrays: what a task needs, which tasks wait for which, and the routes between them. A
share of a port or of the DRAM is a whole number of 1/`UNIT`, so that sums do not depend on their order and nothing
drifts. The tasks that move data and share no crowded port of their core all slow down alike: they lie in a heap of
their own, whose clock slows down while the DRAM is asked for more than there is, and an event costs the same on a chip
of twenty cores and on one of a thousand.
"""

from __future__ import annotations

import ctypes
import heapq
import os
import warnings
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from spikeloom.accel.spiking.kernels.compiler import BuildError, build

FP, BP, WG, UPDATE = range(4)
ENGINES = 4
UNIT = 2**36  # a whole port; sums of 2^16 tasks are exact in a float
SOURCE = Path(__file__).with_name("events.cpp")

Ints = np.ndarray  # int64
Floats = np.ndarray  # float64


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A schedule in flat arrays; the field order is that of the structure in `events.cpp`.

    `x_start` of n + 1 entries says where the entries of each x begin; a fragment is named by its number. `duty` has an
    entry for each fragment, engine and micro-batch. A route without links takes no time. `update` is 0 or 1.
    """

    cores: int
    stages: int
    fragments: int
    micros: int
    ports: int
    links: int
    update: int
    fragment_stage: Ints
    fragment_core: Ints
    fragment_place: Ints  # among the fragments of its stage
    own_start: Ints  # of each core
    own: Ints
    stage_start: Ints
    stage_fragment: Ints
    duty: Ints
    length: Floats  # cycles that a duty takes alone
    busy: Floats
    dram: Ints  # share
    port_start: Ints  # of each duty
    port: Ints
    port_share: Ints
    out_start: Ints  # of each stage
    out_edge: Ints
    in_start: Ints
    in_edge: Ints
    edge_source: Ints
    edge_target: Ints
    forward_route: Ints  # of each edge: that of its source's first fragment; the others follow
    backward_route: Ints  # of each edge: that of its target's first fragment
    route_start: Ints
    route_link: Ints
    route_flits: Floats
    route_delay: Floats
    fp_wait: Ints  # of each stage: arrivals that its FP waits for
    bp_wait: Ints
    sink: Ints  # of each stage: whether the loss follows it


class Ran(NamedTuple):
    """A schedule that ran: its last cycle, the cycles that transfers waited for links, and a row for each task of some
    length in the order of their ends: core, engine, fragment, micro-batch; start, end and busy cycles."""

    makespan: float
    waited: float
    spans: Ints  # [n, 4]
    cycles: Floats  # [n, 3]


def run(problem: Problem, spans: bool = True) -> Ran:
    """Run on the kernel, or on the loop where none can be built. Without `spans` only the makespan is of interest."""
    kernel = _kernel()
    return _Loop(problem).run() if kernel is None else _compiled(kernel, problem, spans)


@cache
def _kernel() -> ctypes.CDLL | None:
    """`$SPIKELOOM_BACKEND`=torch, the choice of plain loops, holds here too."""
    if os.environ.get("SPIKELOOM_BACKEND") == "torch":
        return None
    try:
        return build(SOURCE, "events")
    except BuildError as error:
        warnings.warn(f"the simulator runs on its plain loop, which is slow: {error}", RuntimeWarning, stacklevel=2)
        return None


class _Arguments(ctypes.Structure):
    _fields_ = [
        (f.name, ctypes.c_int64 if f.type == "int" else ctypes.c_void_p) for f in fields(Problem)
    ]  # fmt: skip


def _compiled(kernel: ctypes.CDLL, problem: Problem, spans: bool) -> Ran:
    values = [getattr(problem, f.name) for f in fields(Problem)]
    arguments = _Arguments(*(v if isinstance(v, int) else v.ctypes.data for v in values))
    most = problem.fragments * (3 * problem.micros + 1) if spans else 0
    names, cycles, ends = np.empty((most, 4), np.int64), np.empty((most, 3)), np.zeros(2)
    count = kernel.run(
        ctypes.byref(arguments), *(ctypes.c_void_p(x.ctypes.data) for x in (names, cycles, ends)), int(spans)
    )
    return Ran(float(ends[0]), float(ends[1]), names[:count], cycles[:count])


@dataclass(slots=True)
class _Task:
    """A task that is running: `left` full-speed cycles at time `since`; in the group, until its clock shows `end`."""

    fragment: int
    micro: int
    duty: int
    start: float
    left: float
    since: float
    dram: int
    near: float = 1.0  # slowdown by the ports of its core
    slow: float = 1.0
    end: float = 0.0
    grouped: bool = False
    version: int = 0


class _Loop:
    def __init__(self, problem: Problem) -> None:
        p = self.p = problem
        self.tasks: dict[int, _Task] = {}  # core * ENGINES + engine -> what runs there
        self.next = [0] * (p.cores * ENGINES)
        self.ready = np.zeros((p.fragments, ENGINES, p.micros), bool)
        self.wg_left = [p.micros] * p.fragments
        self.wait = [np.repeat(w[:, None], p.micros, 1) for w in (p.fp_wait, p.bp_wait)]
        ending = [int(p.stage_start[s + 1] - p.stage_start[s]) for s in range(p.stages) if p.sink[s]]
        self.loss_wait = [sum(ending)] * p.micros
        self.heap: list[tuple[float, int, int, int, int]] = []  # time, order, stage (or -1: an end), engine, micro
        self.group: list[tuple[float, int, int]] = []  # end on the group's clock, order, slot
        self.both: set[int] = set()  # slots that a port of their core slows down, and the DRAM too
        self.order, self.now = 0, 0.0
        self.demand, self.crowd = 0, 1.0
        self.clock, self.clock_since = 0.0, 0.0  # of the group
        self.free = [0.0] * p.links
        self.waited, self.makespan = 0.0, 0.0
        self.spans: list[tuple[int, int, int, int]] = []
        self.cycles: list[tuple[float, float, float]] = []

    def run(self) -> Ran:
        p = self.p
        for stage in range(p.stages):
            if p.fp_wait[stage] == 0:
                for m in range(p.micros):
                    self.make_ready(FP, stage, m)
        while True:
            while self.group and not self.is_due(self.group[0][2], self.group[0][1]):
                heapq.heappop(self.group)
            if self.group:
                end, order, slot = self.group[0]
                time = self.clock_since + (end - self.clock) * self.crowd
                if not self.heap or (time, order) < self.heap[0][:2]:
                    heapq.heappop(self.group)
                    self.now = max(self.now, time)
                    self.finish(slot)
                    continue
            if not self.heap:
                break
            time, order, stage, engine, m = heapq.heappop(self.heap)
            if stage >= 0:
                self.now = max(self.now, time)
                self.arrive(engine, stage, m)
            elif self.is_due(engine, order):  # an end: the slot stands where an arrival has its engine
                self.now = max(self.now, time)
                self.finish(engine)
        spans = np.array(self.spans, np.int64).reshape(-1, 4)
        return Ran(self.makespan, self.waited, spans, np.array(self.cycles, np.float64).reshape(-1, 3))

    def is_due(self, slot: int, order: int) -> bool:
        """What was foreseen before the last change of pace is void."""
        task = self.tasks.get(slot)
        return task is not None and task.version == order

    def make_ready(self, engine: int, stage: int, m: int) -> None:
        p = self.p
        for f in p.stage_fragment[p.stage_start[stage] : p.stage_start[stage + 1]].tolist():
            self.ready[f, engine, m] = True
            self.start_next(int(p.fragment_core[f]) * ENGINES + engine)

    def start_next(self, slot: int) -> None:
        """Start the next task of an engine that has none, if it may begin."""
        p, (core, engine) = self.p, divmod(slot, ENGINES)
        first, own = int(p.own_start[core]), int(p.own_start[core + 1] - p.own_start[core])
        index = self.next[slot]
        if slot in self.tasks or index == own * (1 if engine == UPDATE else p.micros):
            return
        m, place = divmod(index, own)
        f = int(p.own[first + (place if engine == FP else own - 1 - place)])
        if not self.ready[f, engine, m]:
            return
        self.next[slot] = index + 1
        duty = int(p.duty[(f * ENGINES + engine) * p.micros + m])
        task = _Task(f, m, duty, self.now, float(p.length[duty]), self.now, int(p.dram[duty]))
        self.tasks[slot] = task
        self.share_ports(core)
        if task.dram:
            self.ask(task.dram)
        if task.version == 0:
            self.foresee(slot)

    def share_ports(self, core: int) -> None:
        """How many times slower each task of a core runs because others use its ports."""
        p, asked = self.p, [0] * self.p.ports
        slots = [s for s in range(core * ENGINES, core * ENGINES + ENGINES) if s in self.tasks]
        used = {s: range(p.port_start[self.tasks[s].duty], p.port_start[self.tasks[s].duty + 1]) for s in slots}
        for slot in slots:
            for i in used[slot]:
                asked[p.port[i]] += int(p.port_share[i])
        for slot in slots:
            task = self.tasks[slot]
            near = max([1.0, *(asked[p.port[i]] / UNIT for i in used[slot])])
            if near != task.near:
                self.lift(slot)
                task.near = near
                if task.version:
                    self.foresee(slot)

    def ask(self, change: int) -> None:
        """More or less is asked of the DRAM."""
        self.demand += change
        crowd = max(1.0, self.demand / UNIT)
        if crowd == self.crowd:
            return
        self.clock, self.clock_since = self.group_clock(), self.now
        self.crowd = crowd
        for slot in sorted(self.both):
            if max(self.tasks[slot].near, crowd) != self.tasks[slot].slow:
                self.lift(slot)
                self.foresee(slot)

    def group_clock(self) -> float:
        return self.clock + (self.now - self.clock_since) / self.crowd

    def lift(self, slot: int) -> None:
        """Work out what is left of a task."""
        task = self.tasks[slot]
        if task.version == 0:
            return
        left = task.end - self.group_clock() if task.grouped else task.left - (self.now - task.since) / task.slow
        task.left, task.since = max(left, 0.0), self.now
        self.both.discard(slot)

    def foresee(self, slot: int) -> None:
        """Foresee the end of a task at its pace."""
        task = self.tasks[slot]
        self.order += 1
        task.version = self.order
        task.grouped = task.dram > 0 and task.near == 1.0
        if task.grouped:
            task.end = self.group_clock() + task.left
            heapq.heappush(self.group, (task.end, self.order, slot))
            return
        task.slow = task.near
        if task.dram > 0:
            task.slow = max(task.near, self.crowd)
            self.both.add(slot)
        heapq.heappush(self.heap, (self.now + task.left * task.slow, self.order, -1, slot, 0))

    def finish(self, slot: int) -> None:
        p, (core, engine) = self.p, divmod(slot, ENGINES)
        task = self.tasks.pop(slot)
        self.both.discard(slot)
        f, m = task.fragment, task.micro
        if self.now > task.start:
            self.spans.append((core, engine, f, m))
            self.cycles.append((task.start, self.now, float(p.busy[task.duty])))
            self.makespan = self.now
        self.share_ports(core)
        if task.dram:
            self.ask(-task.dram)
        stage, place = int(p.fragment_stage[f]), int(p.fragment_place[f])
        if engine == FP:
            for e in p.out_edge[p.out_start[stage] : p.out_start[stage + 1]].tolist():
                self.send(int(p.forward_route[e]) + place, FP, int(p.edge_target[e]), m)
            if p.sink[stage]:
                self.loss_wait[m] -= 1
                if self.loss_wait[m] == 0:
                    for last in np.flatnonzero(p.sink).tolist():
                        self.arrive(BP, last, m)
        elif engine == BP:
            for e in p.in_edge[p.in_start[stage] : p.in_start[stage + 1]].tolist():
                self.send(int(p.backward_route[e]) + place, BP, int(p.edge_source[e]), m)
            self.ready[f, WG, m] = True
            self.start_next(core * ENGINES + WG)
        elif engine == WG:
            self.wg_left[f] -= 1
            if self.wg_left[f] == 0 and p.update:
                self.ready[f, UPDATE, 0] = True
                self.start_next(core * ENGINES + UPDATE)
        self.start_next(slot)

    def arrive(self, engine: int, stage: int, m: int) -> None:
        self.wait[engine][stage, m] -= 1
        if self.wait[engine][stage, m] == 0:
            self.make_ready(engine, stage, m)

    def send(self, r: int, engine: int, stage: int, m: int) -> None:
        """A transfer holds the links of its route until its last flit has left; one that finds a link taken waits."""
        p = self.p
        links = p.route_link[p.route_start[r] : p.route_start[r + 1]].tolist()
        if not links:
            self.arrive(engine, stage, m)
            return
        start = max([self.now, *(self.free[link] for link in links)])
        taken = start + float(p.route_flits[r])
        for link in links:
            self.free[link] = taken
        self.waited += start - self.now
        self.order += 1
        heapq.heappush(self.heap, (taken + float(p.route_delay[r]), self.order, stage, engine, m))
