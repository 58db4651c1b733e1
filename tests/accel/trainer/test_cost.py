"""The closed forms give the values that a hand evaluation gives, for shapes of any kind."""

from math import ceil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeloom.accel.trainer.cost.closed_forms import (
    REAL,
    ConvLoops,
    Energy,
    Operand,
    adam_energy,
    backward_energy,
    forward_energy,
    gradient_unit_energy,
    norm_backward_energy,
    norm_forward_energy,
    soma_energy,
    systolic_cycles,
    weight_gradient_energy,
    weights_stay,
)
from tests.accel.trainer.networks import chip

CHIP = chip()
R1, R16 = 0.00901 * 2 / 7.1, 0.14416 * 2 / 7.1
S1, SW, SX = 0.44854798, 5.302477904, 5.792676768
ACCUMULATE, MULTIPLY = 0.58225, 1.360

SHAPES = [  # (C, K, P, F): few channels, 1x1, 5x5, non-square maps, numbers that 16 does not divide
    (3, 10, 5 * 7, 9),
    (64, 48, 56 * 56, 9),
    (17, 33, 6, 1),
    (5, 200, 3 * 11, 25),
    (1, 1, 1, 1),
]


def streamed(c: int, k: int, p: int, f: int, reduction: int, outputs: int, r_in: float, s_in: float) -> float:
    """Memory energy of FP and BP, term by term."""
    macs, weights, results = c * k * p * f, c * k * f, outputs * p
    folds = ceil(reduction / 16) * f
    return (
        2 * macs * r_in
        + 2 * weights * R16
        + weights * SW
        + macs * R16
        + (macs - results) * R16
        + macs * R16
        + results * folds * s_in
        + results * (folds - 1) * (R16 + SX)
        + results * folds * SX
    )


@pytest.mark.parametrize(("c", "k", "p", "f"), SHAPES)
def test_the_engines_match_a_hand_evaluation(c: int, k: int, p: int, f: int) -> None:
    loops, macs = ConvLoops(in_channels=c, out_channels=k, positions=p, taps=f), c * k * p * f
    forward, backward, gradient = (
        forward_energy(loops, CHIP), backward_energy(loops, CHIP), weight_gradient_energy(loops, CHIP)
    )  # fmt: skip
    assert forward.compute_pj == pytest.approx(macs * ACCUMULATE, rel=1e-9)
    assert forward.register_pj + forward.sram_pj == pytest.approx(streamed(c, k, p, f, c, k, R1, S1), rel=1e-9)
    assert backward.compute_pj == pytest.approx(macs * MULTIPLY, rel=1e-9)
    assert backward.register_pj + backward.sram_pj == pytest.approx(streamed(c, k, p, f, k, c, R16, SX), rel=1e-9)
    assert gradient.compute_pj == pytest.approx(macs * ACCUMULATE, rel=1e-9)
    weights = c * k * f
    memory = 2 * macs * R1 + 2 * macs * R16 + weights * R16 + (macs - weights) * R16 + macs * R16
    memory += ceil(macs / min(k, 16)) * S1 + ceil(macs / min(c, 16)) * SX + weights * SW
    assert gradient.register_pj + gradient.sram_pj == pytest.approx(memory, rel=1e-9)


def test_real_inputs_multiply_and_move_16_bits() -> None:
    c, k, p, f = 3, 10, 35, 9
    loops, macs = ConvLoops(in_channels=c, out_channels=k, positions=p, taps=f), 3 * 10 * 35 * 9
    real = forward_energy(loops, CHIP, operand=REAL)
    assert real.compute_pj == pytest.approx(macs * MULTIPLY, rel=1e-9)
    assert real.register_pj + real.sram_pj == pytest.approx(streamed(c, k, p, f, c, k, R16, SX), rel=1e-9)
    extra = weight_gradient_energy(loops, CHIP, operand=REAL).total_pj
    extra -= weight_gradient_energy(loops, CHIP).total_pj
    expected = macs * (MULTIPLY - ACCUMULATE) + 2 * macs * (R16 - R1) + ceil(macs / 10) * (SX - S1)
    assert extra == pytest.approx(expected, rel=1e-9)
    ternary = forward_energy(loops, CHIP, operand=Operand(kind="ternary", bits=2))
    assert ternary.compute_pj == forward_energy(loops, CHIP).compute_pj
    assert ternary.sram_pj > forward_energy(loops, CHIP).sram_pj


def test_a_grouped_layer_is_its_groups_side_by_side() -> None:
    depthwise = ConvLoops(in_channels=24, out_channels=48, positions=20, taps=9, groups=24)
    one = ConvLoops(in_channels=1, out_channels=2, positions=20, taps=9)
    assert depthwise.macs == 24 * one.macs
    for price in (forward_energy, backward_energy, weight_gradient_energy):
        assert price(depthwise, CHIP).total_pj == pytest.approx(24 * price(one, CHIP).total_pj, rel=1e-12)


def test_weights_that_stay_are_not_loaded_again() -> None:
    fits = ConvLoops(in_channels=8, out_channels=16, positions=4, taps=9)  # 1,152 weights fill the 18,432 bits
    assert weights_stay(fits, CHIP.fp.memories["weight"])
    one_more = ConvLoops(in_channels=1153, out_channels=1, positions=4)
    assert not weights_stay(one_more, CHIP.fp.memories["weight"])
    saved = forward_energy(fits, CHIP).total_pj - forward_energy(fits, CHIP, load_weights=False).total_pj
    assert saved == pytest.approx(1152 * (2 * R16 + SW), rel=1e-9)


def test_the_neuron_units_have_the_published_price() -> None:
    soma, gradient = soma_energy(1000, CHIP), gradient_unit_energy(1000, CHIP)
    assert soma.compute_pj == pytest.approx(1562.25, rel=1e-9)
    assert soma.total_pj - soma.compute_pj == pytest.approx(24856.447, rel=1e-7)
    assert gradient.compute_pj == pytest.approx(4378.25, rel=1e-9)
    assert gradient.total_pj - gradient.compute_pj == pytest.approx(23949.199, rel=1e-7)


def test_norm_and_adam_count_operations_and_traffic() -> None:
    add, mul, root = 0.548, 0.812, 0.514
    forward, backward = norm_forward_energy(1000, 10, CHIP), norm_backward_energy(1000, 10, CHIP)
    assert forward.compute_pj == pytest.approx(1000 * 3 * (add + mul) + 10 * (2 * add + 4 * mul + root))
    assert forward.sram_pj == pytest.approx(1000 * (2 * 46.976 + 45.96) / 16)
    assert backward.compute_pj == pytest.approx(1000 * (7 * add + 3 * mul) + 10 * 22 * mul)
    assert backward.sram_pj == pytest.approx(1000 * (4 * 46.976 + 45.96) / 16)
    adam = adam_energy(100, 10, CHIP)
    assert adam.compute_pj == pytest.approx(120 * (4 * add + 11 * mul + root))
    assert adam.sram_pj == pytest.approx(110 * (4 * 458.18 + 3 * 375.04) * 32 / 256)
    assert adam.register_pj == pytest.approx(110 * 14 * 0.081217)


sizes = st.integers(min_value=1, max_value=40)
loop_nests = st.builds(
    lambda groups, c, k, p, f: ConvLoops(
        in_channels=groups * c, out_channels=groups * k, positions=p, taps=f, groups=groups
    ),
    st.integers(min_value=1, max_value=4), sizes, sizes, sizes, st.sampled_from([1, 9, 25]),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(loops=loop_nests, active=st.floats(min_value=0, max_value=1))
def test_gating_is_linear_and_leaves_the_memory_floor(loops: ConvLoops, active: float) -> None:
    for price in (forward_energy, backward_energy, weight_gradient_energy):
        dense, gated, silent = price(loops, CHIP), price(loops, CHIP, active=active), price(loops, CHIP, active=0.0)
        assert gated.compute_pj == pytest.approx(active * dense.compute_pj, rel=1e-12)
        between = silent.total_pj + active * (dense.total_pj - silent.total_pj)
        assert gated.total_pj == pytest.approx(between, rel=1e-9)
        assert silent.compute_pj == 0
        assert silent.sram_pj == dense.sram_pj > 0
        assert price(loops, CHIP, active=1.0) == dense


@settings(max_examples=60, deadline=None)
@given(loops=loop_nests, quanta=st.integers(min_value=1, max_value=3))
def test_the_macs_of_an_output_split_add_up(loops: ConvLoops, quanta: int) -> None:
    width = loops.group_outputs
    parts = [min(quanta, width), max(0, width - quanta)]
    split = [
        ConvLoops(in_channels=loops.group_inputs, out_channels=part, positions=loops.positions, taps=loops.taps)
        for part in parts
        if part
    ]
    assert loops.groups * sum(part.macs for part in split) == loops.macs


@pytest.mark.parametrize(
    ("flow", "expected"),
    [("os", 3 * 2 * (40 + 30) - 1), ("ws", 3 * 2 * (35 + 46) - 1), ("is", 3 * 3 * (20 + 46) - 1)],
)
def test_cycles_of_a_ragged_product(flow: str, expected: int) -> None:
    assert systolic_cycles(35, 40, 20, 16, 16, flow) == expected  # type: ignore[arg-type]


def test_taps_have_folds_of_their_own() -> None:
    assert systolic_cycles(50, 32, 16, 16, 16, "ws", k_taps=9) == systolic_cycles(50, 288, 16, 16, 16, "ws")
    assert systolic_cycles(50, 3, 16, 16, 16, "ws", k_taps=9) == 9 * (50 + 46) - 1  # 27 rows would take two folds
    assert systolic_cycles(3, 50, 16, 16, 16, "os", m_taps=9) == 9 * (50 + 30) - 1


def test_bad_cycle_requests_are_refused() -> None:
    with pytest.raises(ValueError, match="whole numbers >= 1"):
        systolic_cycles(0, 1, 1, 16, 16, "os")
    with pytest.raises(ValueError, match="'rs'"):
        systolic_cycles(1, 1, 1, 16, 16, "rs")  # type: ignore[arg-type]


def test_energies_add_and_scale() -> None:
    one = Energy(compute_pj=1, register_pj=2, sram_pj=3, dram_pj=4, noc_pj=5, leakage_pj=6)
    assert (one + 2 * one) == 3 * one
    assert one.total_pj == 21
