"""Data flows of attention: prices equal those of the engines, a search finds the best of all, nothing is lost."""

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeloom.accel.trainer.chip.override import ChipConfig
from spikeloom.accel.trainer.cost.closed_forms import (
    REAL,
    SPIKE,
    ConvLoops,
    backward_energy,
    forward_energy,
    systolic_cycles,
    weight_gradient_energy,
)
from spikeloom.accel.trainer.cost.dataflow import (
    FLOWS,
    OBJECTIVES,
    Product,
    choices,
    options,
    product_energy,
    products_of,
)
from spikeloom.accel.trainer.networks import spikingformer
from spikeloom.accel.trainer.report import needed
from spikeloom.accel.trainer.report.chip import attention_flows
from spikeloom.accel.trainer.schedule.partition import Mapping
from spikeloom.accel.trainer.schedule.search import MappingConfig, run_mapping
from spikeloom.accel.trainer.schedule.simulator import simulate
from spikeloom.accel.trainer.workload import Layer
from spikeloom.pipelines.config.chips import load_chip
from tests.accel.trainer.networks import chip
from tests.accel.trainer.random_workloads import random_workload

CHIP, CACTI = chip(), load_chip("cacti28")
LOOPS = ConvLoops(in_channels=64, out_channels=48, positions=30, groups=2)
sizes = st.integers(1, 70)


def attention(m: int, k: int, n: int, groups: int = 2, bits: int = 1) -> Layer:
    macs = m * k * n * groups
    return Layer(
        path="qk", op="aten.matmul.default", kind="gemm_activation", in_channels=k * groups, out_channels=n * groups,
        groups=groups, tokens=m, time_steps=1, batch_size=1, macs_forward=macs, macs_backward=2 * macs,
        input_kind="binary", input_bits=1, weight_bits=bits,
    )  # fmt: skip


def product(left: object = SPIKE, right: object = REAL) -> Product:
    return Product(name="C", m=30, k=32, n=24, groups=2, left=left, right=right, operands=("input", "weight"), times=1)  # type: ignore[arg-type]


def test_the_flows_of_the_engines_cost_what_the_engines_do() -> None:
    fixed = forward_energy(LOOPS, CHIP)
    assert product_energy(product(), CHIP, CHIP.fp, 1.0).total_pj == pytest.approx(fixed.total_pj)
    fixed = backward_energy(ConvLoops(in_channels=48, out_channels=64, positions=30, groups=2), CHIP)
    assert product_energy(product(left=REAL), CHIP, CHIP.bp, 1.0).total_pj == pytest.approx(fixed.total_pj)
    # WG: dW[C, K] = s^T[C, P] du[P, K]
    turned = Product(name="dB", m=32, k=30, n=24, groups=2, left=SPIKE, right=REAL, operands=("input", "du"), times=1)
    fixed = weight_gradient_energy(LOOPS, CHIP)
    assert product_energy(turned, CHIP, CHIP.wg, 1.0).total_pj == pytest.approx(fixed.total_pj)


def test_a_stationary_left_operand_is_the_other_one_with_roles_exchanged() -> None:
    held = product_energy(product(REAL, SPIKE), CHIP, replace(CHIP.fp, dataflow="is"), 1.0)
    turned = Product(
        name="C", m=24, k=32, n=30, groups=2, left=SPIKE, right=REAL, operands=("input", "weight"), times=1
    )
    assert held.total_pj == pytest.approx(product_energy(turned, CHIP, CHIP.fp, 1.0).total_pj)


@settings(max_examples=30, deadline=None)
@given(m=sizes, k=sizes, n=sizes, bits=st.sampled_from([1, 2, 16]))
def test_the_choice_is_the_best_of_all_engines_and_flows(m: int, k: int, n: int, bits: int) -> None:
    layer = attention(m, k, n, bits=bits)
    loops = ConvLoops(in_channels=2 * k, out_channels=2 * n, positions=m, groups=2)
    products = products_of(layer, loops, SPIKE, layer.macs_forward, layer.macs_backward)
    assert [(p.m, p.k, p.n) for p in products] == [(m, k, n), (m, n, k), (k, m, n)]
    assert sum(p.macs * p.times for p in products) == layer.macs_forward + layer.macs_backward
    energies = [{c.energy.total_pj for c in options(p, layer, CHIP)} for p in products]
    chosen = choices(products, layer, CHIP, "energy")
    assert [c.energy.total_pj for c in chosen] == pytest.approx([min(found) for found in energies])
    fastest = choices(products, layer, CHIP, "time")
    for p in products[1:]:
        assert {(c.engine, c.flow) for c in options(p, layer, CHIP)} == {(e, f) for e in ("bp", "wg") for f in FLOWS}
    busy: dict[str, int] = {}
    for c in fastest[1:]:
        busy[c.engine] = busy.get(c.engine, 0) + c.cycles
    one = [min(c.cycles for c in options(p, layer, CHIP)) for p in products[1:]]
    assert max(one) <= max(busy.values()) <= sum(one)
    assert fastest[0].cycles == min(2 * systolic_cycles(m, k, n, 16, 16, flow) for flow in FLOWS)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_search_over_flows_keeps_macs_and_bytes(objective: str) -> None:
    net = spikingformer(2, 2, depth=1, width=64)
    fixed, searched = simulate(net, CACTI), simulate(net, CACTI, Mapping(flows=objective))  # type: ignore[arg-type]
    assert fixed.total.true_macs == searched.total.true_macs
    assert fixed.dram_bytes_per_iteration == searched.dram_bytes_per_iteration
    assert searched.mapping_name.endswith("data flows searched")


def test_searched_flows_save_energy_and_gradients_go_to_wg() -> None:
    net = spikingformer(2, 2, depth=1, width=64)
    fixed, searched = simulate(net, CHIP), simulate(net, CHIP, Mapping(flows="energy"))
    assert searched.energy_per_iteration_pj < fixed.energy_per_iteration_pj
    (mixed,) = (layer for layer in searched.layers if layer.kind == "gemm_activation")
    assert "wg" in {phase.engine for phase in mixed.phases}
    section = attention_flows(net, CHIP, "energy")
    assert section is not None and section.table is not None and len(section.table.rows) == 3
    assert attention_flows(replace(net, layers=net.layers[:3]), CHIP, "energy") is None


@pytest.mark.parametrize("seed", range(15))
def test_random_networks_keep_the_laws_with_searched_flows(seed: int) -> None:
    simulate(random_workload(Random(seed)), CACTI, Mapping(flows="energy-delay"))


def test_a_search_over_mappings_tries_both_and_settings_are_checked() -> None:
    net = spikingformer(1, 2, depth=1, width=64)
    _, tried = run_mapping(net, CHIP, MappingConfig(style="search"))
    assert len(tried) == 2 * len([m for m, _, _ in tried if m.flows is None])
    chosen, _ = run_mapping(net, CHIP, MappingConfig(flows="search", objective="energy"))
    assert chosen == Mapping(flows="energy")
    for bad in (MappingConfig(flows="both"), MappingConfig(objective="area")):
        with pytest.raises(ValueError, match="use"):
            run_mapping(net, CHIP, bad)


@pytest.mark.parametrize("preset", [pytest.param("neuromc", marks=pytest.mark.slow), "cacti28"])
def test_more_cores_are_never_slower_in_a_search(preset: str) -> None:
    """On meshes that hold the smaller ones: 1 x 1, 1 x 2, 2 x 2, 2 x 4, 4 x 4. Five in a row do not hold 2 x 2."""
    nets = [*(random_workload(Random(seed)) for seed in range(3)), spikingformer(2, 2, depth=1, width=64)]
    for net in nets:
        times = []
        for cores in (1, 2, 4, 8, 16):
            _, tried = run_mapping(net, load_chip(ChipConfig(name=preset, cores=cores)), MappingConfig(style="search"))
            times.append(min(time for _, time, _ in tried))
        assert times == sorted(times, reverse=True), net.model_name


def test_what_is_needed_changes_one_thing_a_row_and_all_at_once() -> None:
    net = spikingformer(2, 2, depth=1, width=64)
    base = needed.ChipConfig(name="neuromc")
    rows = needed.explore(net, base, load_chip)
    by_label = {row.design.label: row for row in rows}
    plain = by_label["as it is"]
    assert plain.tflops_per_w == pytest.approx(simulate(net, load_chip(base), Mapping()).tflops_per_w_true, rel=0.2)
    assert by_label["8-bit values"].energy_mj < plain.energy_mj
    assert by_label["20 % activity, zeros gated"].energy_mj < plain.energy_mj
    assert rows[-1].tflops_per_w == max(row.tflops_per_w for row in rows)
    assert "not comparable" in needed.lines(rows)[-1] and "2.36" in needed.lines(rows)[-1]
    section = needed.section(rows, net, load_chip(base))
    assert section.chart is not None and "arXiv 2508.00475" in section.caption


def test_fewer_bits_save_in_proportion_where_values_move() -> None:
    """Half the bits: half of what moves values, (4 / 11)^2 of a multiplication, half of an addition."""
    net = spikingformer(1, 1, depth=1, width=64)
    simulation = needed.Simulation(net, CHIP)
    report = simulation.report()
    by_tensor = report.energy_by_tensor_pj
    assert needed.at_bits(simulation, by_tensor, 16) == pytest.approx(report.energy_per_iteration_pj)
    kept = sum(by_tensor.get(name, 0.0) for name in ("s", "mask", "optimizer"))
    moved = sum(pj for name, pj in by_tensor.items() if name not in needed.FIXED_BITS)
    ops = {name: replace(CHIP.ops, **{f"{name}_pj": 0.0}) for name in ("add", "mul")}
    whole = report.energy_per_iteration_pj
    add, mul = (whole - simulation.energy_pj(replace(CHIP, ops=ops[name])) for name in ("add", "mul"))
    arithmetic = by_tensor["arithmetic"] - add / 2 - mul * (1 - (4 / 11) ** 2)
    assert needed.at_bits(simulation, by_tensor, 8) == pytest.approx(arithmetic + kept + moved / 2)
