"""The events of a schedule: the compiled loop equals the plain one bit by bit, links and the DRAM are shared."""

from pathlib import Path
from random import Random

import numpy as np
import pytest

from spikeloom.accel.spiking.kernels.compiler import BuildError, compiler
from spikeloom.accel.trainer.cost.noc import Network, Transfer
from spikeloom.accel.trainer.schedule import events
from spikeloom.accel.trainer.schedule.partition import Fragment, Mapping
from spikeloom.accel.trainer.schedule.simulator import Simulation
from spikeloom.accel.trainer.schedule.timeline import Duty, Edge, Schedule
from tests.accel.trainer.networks import chip
from tests.accel.trainer.random_workloads import random_workload
from tests.accel.trainer.test_schedule_ends import PRESETS, random_chip

CHIP = chip()
PACES = ("neuromc", "cacti28", "memristor")


def both(schedule: Schedule) -> events.Ran:
    """What the plain loop makes of a schedule; the compiled one must agree."""
    plain = events._Loop(schedule.problem).run()
    if compiler() is not None:
        ran = events.run(schedule.problem)
        assert (ran.makespan, ran.waited) == (plain.makespan, plain.waited)
        assert np.array_equal(ran.spans, plain.spans) and np.array_equal(ran.cycles, plain.cycles)
        assert events.run(schedule.problem, spans=False).makespan == plain.makespan
    return plain


@pytest.mark.parametrize("seed", range(40))
def test_the_compiled_loop_equals_the_plain_one_bit_by_bit(seed: int) -> None:
    random = Random(seed)
    net, here = random_workload(random), random_chip(random, PRESETS[random.choice(PACES)])
    style = random.choice(["pipeline", "channels"])
    simulation = Simulation(net, here, Mapping(style=style, micro_batches=random.choice([None, 1, 3])))
    ran = both(simulation.layout.schedule(simulation.cut, 0))
    assert ran.makespan == max(ran.cycles[:, 1], default=0.0)


def chain_of(*duties: Duty, edges: tuple[Edge, ...] = (), micros: int = 1, rate: float = 1.0) -> Schedule:
    """A stage on a core of its own for each forward duty."""
    fragments = [Fragment(stage=i, low=0, high=16, core=i) for i in range(len(duties))]
    nothing = Duty()
    return Schedule(
        fragments, [[[d, nothing, nothing, nothing]] for d in duties], [0] * micros, edges, Network(CHIP), rate
    )


def test_two_tasks_that_ask_for_the_whole_dram_take_twice_as_long_and_one_alone_has_all() -> None:
    ran = both(chain_of(Duty(1, 100), Duty(1, 100)))
    assert ran.cycles[:, 1].tolist() == [200.0, 200.0]
    ran = both(chain_of(Duty(1, 100), Duty(1, 40)))  # after 80 cycles the short one has its 40 bytes
    assert ran.cycles[:, 1].tolist() == pytest.approx([80.0, 140.0], rel=1e-9)
    ran = both(chain_of(Duty(100, 50), Duty(100, 50)))  # half the DRAM each: nobody waits
    assert ran.cycles[:, 1].tolist() == [100.0, 100.0]


def test_a_transfer_waits_for_a_taken_link() -> None:
    """Two micro-batches of no length leave at once: the second waits until the first has left, ten flits later."""
    schedule = chain_of(Duty(), Duty(5), edges=(Edge(0, 1, "x", 80, 0),), micros=2)
    ran = both(schedule)
    first: Transfer = next(sent.transfer for sent in schedule.sent if sent.forward)
    assert first.flits == 10 and ran.waited == 10
    arrival = first.flits + first.delay_cycles
    assert ran.cycles[:, 0].tolist() == [arrival, arrival + 10]


def test_without_a_compiler_the_plain_loop_runs_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(source: Path, name: str) -> None:
        raise BuildError("no C++ compiler found; install g++ or set $CXX")

    schedule = chain_of(Duty(3), Duty(4), edges=(Edge(0, 1, "x", 0, 0),))
    monkeypatch.setattr(events, "build", build)
    events._kernel.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match="plain loop, which is slow: no C"):
            assert events.run(schedule.problem).makespan == 7.0
    finally:
        events._kernel.cache_clear()


def test_very_many_cores_cost_an_event_what_few_do() -> None:
    """Tasks that share the DRAM are not visited one by one: what is pushed grows as the tasks do."""

    def pushed(count: int) -> int:
        loop = events._Loop(chain_of(*(Duty(1, 100 + i) for i in range(count))).problem)
        loop.run()
        return loop.order

    assert pushed(256) <= 4 * pushed(64) + 16
