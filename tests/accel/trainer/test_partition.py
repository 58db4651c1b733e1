"""Every channel lies on one core, the fullest core is as empty as it can be, and the mesh has the shortest routes."""

from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeloom.accel.trainer.cost.noc import Network, chain, position, ring_steps, route, route_delay_ns, transfer_pj
from spikeloom.accel.trainer.schedule.partition import balance, fill, fragments_of, stages_of
from tests.accel.trainer.networks import chip, conv, resnet18, small_network, workload

CHIP = chip()


def brute_force(loads: list[int], runs: int) -> int:
    """The smallest load of the fullest run, over all ways to cut."""
    best = sum(loads)
    for count in range(min(runs, len(loads))):
        for cuts in combinations(range(1, len(loads)), count):
            edges = [0, *cuts, len(loads)]
            best = min(best, max(sum(loads[a:b]) for a, b in zip(edges, edges[1:], strict=False)))
    return best


@settings(max_examples=80, deadline=None)
@given(loads=st.lists(st.integers(1, 50), min_size=1, max_size=9), runs=st.integers(1, 4))
def test_the_balance_is_that_of_all_cuts(loads: list[int], runs: int) -> None:
    capacity, ends = balance(loads, runs)
    assert capacity == brute_force(loads, runs)
    edges = [0, *ends]
    parts = [loads[a:b] for a, b in zip(edges, edges[1:], strict=False)]
    assert [x for part in parts for x in part] == loads
    assert len(parts) == min(runs, len(loads))  # no core is idle while a run could be cut
    assert all(part and sum(part) <= capacity for part in parts)


def test_a_load_above_the_capacity_is_refused() -> None:
    assert fill([3, 3, 3], 6) == [2, 3]
    with pytest.raises(ValueError, match="load of 7 got a capacity of 6"):
        fill([3, 7], 6)


@pytest.mark.parametrize("style", ["pipeline", "channels"])
@pytest.mark.parametrize("cores", [1, 3, 20])
def test_every_channel_lies_on_one_core_in_multiples_of_sixteen(style: str, cores: int) -> None:
    stages = stages_of(resnet18(1, 1), 16)
    fragments = fragments_of(stages, [s.channels * 7 for s in stages], cores, style)  # type: ignore[arg-type]
    assert max(f.core for f in fragments) < cores
    for index, stage in enumerate(stages):
        own = sorted((f.low, f.high) for f in fragments if f.stage == index)
        assert own[0][0] == 0 and own[-1][1] == stage.channels
        assert all(a[1] == b[0] for a, b in zip(own, own[1:], strict=False))
        assert all(low % 16 == 0 for low, _ in own)
    if style == "pipeline":
        assert [f.core for f in fragments] == sorted(f.core for f in fragments)  # contiguous


def test_groups_are_never_cut() -> None:
    depthwise = conv("d", 48, 96, 8, groups=48)
    (stage,) = stages_of(workload(depthwise), 16)
    assert stage.quantum == 16  # eight groups of two
    heads = conv("h", 60, 60, 8, groups=3)
    assert stages_of(workload(heads), 16)[0].quantum == 20


def test_a_stage_is_a_product_with_what_follows_it() -> None:
    stages = stages_of(small_network(), 16)
    assert [[layer.path for layer in s.layers] for s in stages][1][0] == "block.conv"
    assert sum(len(s.layers) for s in stages) == len(small_network().layers)


@given(cores=st.tuples(st.integers(0, 19), st.integers(0, 19)))
def test_routes_are_shortest_and_go_along_x_first(cores: tuple[int, int]) -> None:
    a, b = (position(core, 5) for core in cores)
    links = route(*cores, 5)
    assert len(links) == abs(a[0] - b[0]) + abs(a[1] - b[1])
    vertical = [abs(x - y) == 5 for x, y in links]
    assert vertical == sorted(vertical)
    assert all(x[1] == y[0] for x, y in zip(links, links[1:], strict=False))


def test_neighbours_in_number_are_neighbours_on_the_mesh() -> None:
    assert all(len(route(core, core + 1, 5)) == 1 for core in range(19))
    assert len(chain(list(range(20)), 5)) == 19


def test_a_transfer_pays_events_and_hops() -> None:
    links = route(0, 6, 5)  # core 6 stands below core 3: three hops east, one south
    assert transfer_pj(CHIP, 16, links) == pytest.approx(4 * 2.0 + 2 * (3 * 3.0 + 1 * 4.2))
    assert Network(CHIP).transfer(links, 80).flits == 10
    # Four hops of 4.1 ns, or 20 flits of 2 ns that spread over five routers.
    assert route_delay_ns(4, 20, 2.0, 4.1) == pytest.approx(16.4)
    assert route_delay_ns(1, 20, 2.0, 4.1) == pytest.approx(20.0)
    assert ring_steps(1000, 5) == (800, 4) and ring_steps(1000, 1) == (0, 0)
