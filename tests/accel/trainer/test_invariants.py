"""What holds for every chip, network and mapping: conservation, limits of sparsity, capacity, and time."""

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeloom.accel.trainer.chip.chip import Chip
from spikeloom.accel.trainer.cost.cycles import busiest, drawn_busiest
from spikeloom.accel.trainer.cost.layer_cost import layer_phases
from spikeloom.accel.trainer.schedule.partition import Mapping
from spikeloom.accel.trainer.schedule.result import SimulationReport
from spikeloom.accel.trainer.schedule.simulator import simulate
from spikeloom.accel.trainer.workload import Density, Layer, Workload, WorkloadError
from tests.accel.trainer.networks import NEUROMC, after, chip, conv, resnet18, workload
from tests.accel.trainer.random_workloads import random_workload

CHIP, CACTI = chip(), Chip.from_yaml(NEUROMC.with_name("cacti28.yaml"))
ALL = {
    "energy__include_dram": True,
    "energy__include_noc": True,
    "energy__include_leakage": True,
    "memories__soma_u__leak_mw__value": 2.0,
}
SKIPPING = {
    "engines__fp__zero_skipping": ["input", "weight"],
    "engines__bp__zero_skipping": ["du", "weight"],
    "engines__wg__zero_skipping": ["input", "du"],
}
GATING = {key.replace("skipping", "gating"): value for key, value in SKIPPING.items()}


def network(channels: list[int], size: int, batch: int, density: float = 1.0) -> Workload:
    """A chain of convolutions with norms and neurons; all operands have the same density."""
    d = Density(mean=density, min=density, max=density)
    layers: list[Layer] = []
    for i, (inputs, outputs) in enumerate(zip(channels, channels[1:], strict=False)):
        product = conv(
            f"c{i}", inputs, outputs, size, batch_size=batch, density_input=d, density_du=d, density_weight=d
        )
        if layers:
            product = replace(product, inputs=(layers[-1].path,))
        norm = after(product, "norm")
        layers += [product, norm, after(norm, "neuron")]
    return workload(*layers)


mappings = st.builds(
    Mapping,
    replicas=st.integers(1, 3),
    style=st.sampled_from(["pipeline", "channels"]),
    micro_batches=st.sampled_from([None, 1, 2]),
)


@settings(max_examples=10, deadline=None)
@given(
    channels=st.lists(st.integers(1, 70), min_size=2, max_size=4),
    size=st.integers(1, 10),
    batch=st.integers(3, 5),
    mapping=mappings,
    mesh=st.sampled_from([(1, 3), (2, 2), (3, 3)]),
    skipping=st.booleans(),
    density=st.floats(0, 1),
)
def test_nothing_is_lost_under_any_mapping(
    channels: list[int], size: int, batch: int, mapping: Mapping, mesh: tuple[int, int], skipping: bool, density: float
) -> None:
    """MACs, energy and time add up: `simulate` checks its laws, and here are the same sums from outside."""
    changes = {**ALL, **(SKIPPING if skipping else {}), "cores__count__value": mesh[0] * mesh[1]}
    report = simulate(network(channels, size, batch, density), chip(**changes, cores__mesh__value=list(mesh)), mapping)
    total = report.energy_per_iteration_pj
    assert sum(report.energy_by_tensor_pj.values()) == pytest.approx(total, rel=1e-12)
    assert sum(layer.total.energy.total_pj for layer in report.layers) == pytest.approx(total, rel=1e-12)
    for time in report.engine_times:
        spent = time.busy_cycles + time.stall_cycles + time.idle_cycles
        assert spent == pytest.approx(report.makespan_cycles, abs=1.001)
    for core, engine, _, _, start, end, busy in report.timeline:
        assert 0 <= start < end <= report.makespan_cycles and busy <= end - start + 1e-6, (core, engine)
    assert (report.network.bytes > 0) == (report.cores_used > 1) or not report.network.bytes
    assert sum(report.network.link_bytes.values()) >= (1 if report.network.bytes else 0)
    worst = report.network.worst_link_utilisation
    assert 0 <= worst <= 1.000001


def dense_and(density: float, **changes: object) -> tuple[SimulationReport, SimulationReport]:
    net = network([8, 40, 20], 6, 3, density)
    return simulate(net, CHIP), simulate(net, chip(**changes))


def test_full_density_gates_and_skips_nothing() -> None:
    for changes in (GATING, SKIPPING):
        dense, other = dense_and(1.0, **changes)
        assert other.makespan_cycles == dense.makespan_cycles
        assert other.total.energy == dense.total.energy


def test_silence_costs_the_memory_floor() -> None:
    _, gated = dense_and(0.0, **GATING)
    products = [layer for layer in gated.layers if layer.kind == "gemm_weight"]
    assert all(
        layer.total.energy.compute_pj < 1e-9 or layer.engine("optimizer").energy.compute_pj for layer in products
    )
    assert all(layer.engine(n).energy.compute_pj == 0 for layer in products for n in ("fp", "bp", "wg"))  # type: ignore[arg-type]
    assert all(layer.engine("fp").energy.sram_pj > 0 for layer in products)
    assert gated.energy_per_iteration_pj > 0


@settings(max_examples=8, deadline=None)
@given(low=st.floats(0, 1), high=st.floats(0, 1))
def test_a_sparser_network_never_takes_longer(low: float, high: float) -> None:
    low, high = sorted((low, high))
    layers = [
        {p.engine: p for p in layer_phases(network([8, 40], 6, 3, d).layers[0], chip(**SKIPPING), True)}
        for d in (low, high)
    ]
    for engine in ("fp", "wg"):
        assert layers[0][engine].cycles <= layers[1][engine].cycles


def test_skipping_waits_for_the_fullest_lane() -> None:
    assert drawn_busiest(0.25, 256) > 0.25
    assert drawn_busiest(0.25, 10_000) < drawn_busiest(0.25, 256)  # long streams even out
    assert drawn_busiest(0.0, 9) == 0 and drawn_busiest(1.0, 9) == 1
    measured = Density(mean=0.25, min=0.2, max=0.3, busiest=0.5)
    assert busiest(measured, 256) == 0.5 and busiest(None, 256) == 1
    plain = conv("c", 32, 32, 16, density_input=replace(measured, busiest=0.25))
    uneven = replace(plain, density_input=measured)
    skipping = chip(engines__fp__zero_skipping=["input"])
    even, waits, dense = (layer_phases(*x, True)[0] for x in ((plain, skipping), (uneven, skipping), (plain, CHIP)))
    assert even.cycles < waits.cycles < dense.cycles
    # Both skip the same MACs, so they spend the same energy on arithmetic: gating's.
    assert even.energy.compute_pj == waits.energy.compute_pj == pytest.approx(0.25 * dense.energy.compute_pj)


def test_pruned_weights_save_energy_when_gated_and_cycles_when_skipped() -> None:
    pruned = Density(mean=0.1, min=0.1, max=0.1, busiest=0.2)
    layer = conv("c", 64, 64, 8, density_weight=pruned)
    dense = layer_phases(layer, CHIP, True)[0]
    gated = layer_phases(layer, chip(engines__fp__zero_gating=["weight"]), True)[0]
    skipped = layer_phases(layer, chip(engines__fp__zero_skipping=["weight"]), True)[0]
    assert gated.cycles == dense.cycles and gated.energy.compute_pj == pytest.approx(0.1 * dense.energy.compute_pj)
    assert skipped.cycles < 0.25 * dense.cycles
    assert skipped.energy.compute_pj == gated.energy.compute_pj


SIZES = st.lists(st.integers(8, 22), min_size=2, max_size=2, unique=True)


@settings(max_examples=10, deadline=None)
@given(
    name=st.sampled_from(["fp_in_s", "fp_in_w", "fp_out_xi", "bp_in_du", "bp_in_w", "norm_2mb", "optimizer_6mb"]),
    sizes=SIZES,
    channels=st.tuples(st.integers(1, 80), st.integers(1, 80)),
)
def test_a_larger_memory_never_moves_more_bytes(name: str, sizes: list[int], channels: tuple[int, int]) -> None:
    small = {f"memories__{n}__size_bits__value": 1 << 12 for n in ("norm_2mb", "optimizer_6mb") if n != name}
    smaller, larger = sorted(sizes)
    net = network([channels[0], channels[1], 16], 8, 3)
    moved = []
    for exponent in (max(smaller, 13), max(larger, 13)):
        report = simulate(net, chip(**small, **{f"memories__{name}__size_bits__value": 1 << exponent}))
        moved.append([layer.total.dram_bytes for layer in report.layers])
    if name.endswith(("_s", "_w", "_du", "mb")):  # the output SRAM also moves the balance between cores
        assert sum(moved[1]) <= sum(moved[0])


def test_small_memories_spill_and_large_ones_move_what_must_move() -> None:
    net = network([64, 128, 128], 16, 4)
    one = {"cores__count__value": 1, "cores__mesh__value": [1, 1]}
    tiny = {f"memories__{name}__size_bits__value": 1 << 14 for name in ("norm_2mb", "optimizer_6mb")}
    spilt, roomy = simulate(net, chip(**one, **tiny)), simulate(net, chip(**one))
    assert spilt.dram_bytes_per_iteration > spilt.compulsory_dram_bytes_per_iteration
    assert roomy.dram_bytes_per_iteration == roomy.compulsory_dram_bytes_per_iteration
    assert spilt.compulsory_dram_bytes_per_iteration == roomy.compulsory_dram_bytes_per_iteration


def test_shared_ports_slow_down_what_runs_at_the_same_time() -> None:
    """The normalisation SRAM serves FP and BP: with a slow port their tasks stall, with a fast one they do not."""
    net = network([16, 16, 16, 16], 8, 6)
    one = {"cores__count__value": 1, "cores__mesh__value": [1, 1], "dram__bandwidth_bytes_per_s__value": 1e13}
    images = Mapping(micro_batches=6)
    slow = simulate(net, chip(**one, memories__norm_2mb__port_bits__value=16), images)
    fast = simulate(net, chip(**one, memories__norm_2mb__ports__value=16), images)
    assert sum(t.stall_cycles for t in slow.engine_times) > 0
    assert sum(t.stall_cycles for t in fast.engine_times) < 1
    assert slow.makespan_cycles > fast.makespan_cycles
    assert fast.overlap_cycles > 0


def test_a_memory_that_two_engines_share_is_contended() -> None:
    shared = chip(engines__wg__memories={"input": "fp_in_s", "gradient": "wg_in_du", "output": "wg_out_dw"})
    net, one = network([16, 16, 16], 8, 6), Mapping(micro_batches=6)
    assert sum(t.stall_cycles for t in simulate(net, shared, one).engine_times) > sum(
        t.stall_cycles for t in simulate(net, CHIP, one).engine_times
    )


def test_whole_numbers_cost_a_pass_for_each_bit() -> None:
    spikes = conv("c", 32, 32, 8)
    numbers = replace(spikes, input_kind="integer", input_bits=2)
    one, two = layer_phases(spikes, CHIP, True)[0], layer_phases(numbers, CHIP, True)[0]
    assert two.energy.compute_pj == pytest.approx(2 * one.energy.compute_pj)
    assert one.cycles < two.cycles <= 2 * one.cycles
    assert two.dram_bytes_by_tensor["s"] == 2 * one.dram_bytes_by_tensor["s"]
    assert any("bit plane" in note for note in simulate(workload(numbers), CHIP).warnings)


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("bits", range(1, 9))
def test_whole_numbers_are_never_dearer_than_fp16(bits: int, trained: bool) -> None:
    real = conv("c", 32, 32, 8)
    real = replace(real, input_kind="real", input_bits=16)
    if not trained:
        real = replace(real, macs_weight_gradient=0, parameters=0)
    numbers = replace(real, input_kind="integer", input_bits=bits)
    dear, cheap = (
        sum(p.energy.total_pj for p in layer_phases(layer, CHIP, True) if p.engine in ("fp", "wg"))
        for layer in (real, numbers)
    )
    assert cheap <= dear


def test_one_core_gets_micro_batches_like_several() -> None:
    net = network([16, 32, 32], 8, 6)
    one, two = (simulate(net, chip(cores__count__value=n, cores__mesh__value=[1, n])) for n in (1, 2))
    assert one.micro_batches == two.micro_batches == 6
    assert one.makespan_cycles <= 2 * two.makespan_cycles


def test_a_linear_layer_streams_images_through_its_weights() -> None:
    """100 steps of 16 clips are 1,600 rows; 256 of them fit in the partial sums of 16 columns: 7 fills instead of
    1,600."""
    layer = conv("l", 256, 256, 1, kernel=1, time_steps=100, batch_size=16)
    phase = layer_phases(layer, CHIP, True)[0]
    folds = 16 * 16
    assert phase.cycles == 6 * (folds * (256 + 46) - 1) + folds * (64 + 46) - 1
    assert phase.looped_macs / (256 * phase.cycles) > 0.8


def test_a_layer_too_large_for_any_buffer_is_named() -> None:
    with pytest.raises(ValueError, match=r"'c0' does not fit on chip 'neuromc': engine fp needs 4096 bit of weight"):
        simulate(network([16, 16], 4, 2), chip(memories__fp_in_w__size_bits__value=2048))


def test_links_in_a_cycle_are_refused() -> None:
    a, b = replace(conv("a", 4, 4, 4), inputs=("b",)), replace(conv("b", 4, 4, 4), inputs=("a",))
    with pytest.raises(WorkloadError, match=r"'a'.*'b'.*cycle"):
        workload(a, b)


def test_more_copies_than_cores_are_refused() -> None:
    with pytest.raises(ValueError, match="4 copies of the network for 20 core"):
        simulate(network([4, 4], 4, 3), CHIP, Mapping(replicas=4))


def test_copies_sum_their_gradients_on_a_ring() -> None:
    net = network([16, 16], 8, 4)
    report = simulate(net, chip(energy__include_noc=True), Mapping(replicas=4))
    weights = sum(layer.parameters for layer in net.layers)
    # 2 P (n - 1) / n bytes of 16-bit gradients and weights from each of 4 copies
    assert report.network.all_reduce_bytes == pytest.approx(4 * 2 * 2 * weights * 3 / 4, abs=16)
    assert report.total.energy.noc_pj > 0
    assert report.total.true_macs == simulate(net, CHIP).total.true_macs


def test_cost_grows_with_layers_and_cores_and_1024_cores_work() -> None:
    """A piece is what a core does of a product; the time for one is the same on 20 cores and on 1,024."""
    network, each = resnet18(2, 4), []
    for rows, columns in ((4, 5), (32, 32)):
        grown: Chip = chip(cores__count__value=rows * columns, cores__mesh__value=[rows, columns])
        times_s = []
        for _ in range(2):
            start = process_time()
            report = simulate(network, grown)
            times_s.append(process_time() - start)
        each.append(min(times_s) / len(report.partition))
    assert 20 < report.cores_used <= 1024 and len(report.partition) > 200
    assert each[1] < 4 * each[0]


def test_copies_of_uneven_shares_do_not_wait_for_each_other() -> None:
    """Two images and one: each copy has links of its own, and the larger share is what takes long."""
    net = network([32, 64, 64], 6, 3)
    small = {"cores__count__value": 6, "cores__mesh__value": [2, 3]}
    both = simulate(net, chip(**small), Mapping(replicas=2, micro_batches=1))
    assert {int(link.split(">")[0]) // 3 for link in both.network.link_bytes} == {0, 1}
    halves = [span for span in both.timeline if span[1] != "optimizer"]
    ends = [max(span[5] for span in halves if (span[0] >= both.cores_used // 2) == second) for second in (False, True)]
    assert ends[0] < ends[1]


@pytest.mark.parametrize("batch", [1, 2, 6])
def test_more_cores_or_bandwidth_never_make_a_step_slower(batch: int) -> None:
    net = network([16, 48, 64, 32, 64], 8, batch)
    assert_never_slower([simulate(net, cores(CHIP, n)).makespan_cycles for n in range(1, 13)])
    assert_never_slower([simulate(net, bandwidth(CHIP, 10.0**e)).makespan_cycles for e in (8, 8.5, 9, 10, 11)])


def cores(preset: Chip, count: int) -> Chip:
    """The chip with `count` cores in a row: one of fewer is a part of it."""
    grid = replace(preset.cores, count=count, mesh_rows=1, mesh_columns=count)
    return replace(preset, cores=grid)


def bandwidth(preset: Chip, bytes_per_s: float) -> Chip:
    return replace(preset, dram=replace(preset.dram, bandwidth_bytes_per_s=bytes_per_s))


def assert_never_slower(cycles: Sequence[int]) -> None:
    assert all(more <= less for less, more in zip(cycles, cycles[1:], strict=False)), cycles


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    preset=st.sampled_from([CHIP, CACTI]),
    count=st.integers(1, 12),
    rate=st.sampled_from([1e8, 1e9, 25.6e9]),
)
def test_more_cores_or_bandwidth_never_make_a_random_network_slower(
    seed: int, preset: Chip, count: int, rate: float
) -> None:
    net, here = random_workload(Random(seed)), bandwidth(preset, rate)
    assert_never_slower([simulate(net, cores(here, n)).makespan_cycles for n in (count, count + 1, 2 * count, 24)])
    faster = [bandwidth(cores(preset, count), rate * factor) for factor in (1, 1.5, 4, 100)]
    assert_never_slower([simulate(net, there).makespan_cycles for there in faster])


def test_a_core_that_works_alone_has_the_whole_bandwidth() -> None:
    """A network of one stage on a chip of many cores: idle cores hold no part of the DRAM."""
    net = network([16, 16], 8, 1)
    slow = {"dram__bandwidth_bytes_per_s__value": 1e8}
    one, many = (simulate(net, chip(cores__count__value=n, cores__mesh__value=[1, n], **slow)) for n in (1, 8))
    assert many.makespan_cycles <= one.makespan_cycles
