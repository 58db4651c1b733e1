"""Weights stored without their zeros: bits by hand, never more than dense, and what reaches DRAM and SRAM."""

from dataclasses import replace
from random import Random
from typing import Literal, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeloom.accel.trainer.chip.chip import Chip, ChipError, Cores
from spikeloom.accel.trainer.cost.compression import Form, bits_per_weight, stored_form
from spikeloom.accel.trainer.cost.layer_cost import layer_phases
from spikeloom.accel.trainer.report.chip import stored_weights
from spikeloom.accel.trainer.schedule.simulator import simulate
from spikeloom.accel.trainer.workload import Density, Layer
from tests.accel.trainer.networks import NEUROMC, chip, conv, workload
from tests.accel.trainer.random_workloads import random_workload

PRESETS = {name: Chip.from_yaml(NEUROMC.with_name(f"{name}.yaml")) for name in ("neuromc", "cacti28", "edge4")}
Stored = Literal["dense", "bitmap", "run_length", "compressed"]
FORMS = get_args(Stored)


def stored(preset: Chip, form: Stored) -> Chip:
    return replace(preset, mapping=replace(preset.mapping, weights=form))


def pruned(layer: Layer, density: float) -> Layer:
    return replace(layer, density_weight=Density(mean=density, min=density, max=density))


def test_bits_of_a_weight_by_hand() -> None:
    assert bits_per_weight("dense", 0.1) == 16
    assert bits_per_weight("bitmap", 0.1) == pytest.approx(2.6)  # 1 + 16 / 10
    assert bits_per_weight("run_length", 0.5) == pytest.approx(20 * 0.5 / (1 - 0.5**16))
    # No zeros: the index alone is too much, 1 of 16 bits and 4 of 16.
    assert bits_per_weight("bitmap", 1.0) == 17 and bits_per_weight("run_length", 1.0) == 20
    # Nothing but zeros: a bit each, or an entry of 20 bits for 16 of them.
    assert bits_per_weight("bitmap", 0.0) == 1 and bits_per_weight("run_length", 0.0) == 1.25
    assert bits_per_weight("run_length", 1e-12) == pytest.approx(1.25)


def test_bits_of_run_lengths_are_those_of_drawn_weights() -> None:
    """Zeros drawn at random and encoded run by run take what the formula says."""
    random, density, length = Random(0), 0.03, 200_000
    entries, run = 0, 0
    for _ in range(length):
        if random.random() < density or run == 15:  # fifteen zeros and this one: an entry of value zero
            entries, run = entries + 1, 0
        else:
            run += 1
    assert 20 * entries / length == pytest.approx(bits_per_weight("run_length", density), rel=0.02)


def test_the_smallest_form_is_taken() -> None:
    layer = conv("c", 64, 64, 8)
    here = stored(chip(), "compressed")
    forms = {density: stored_form(pruned(layer, density), here)[0] for density in (1.0, 0.97, 0.9, 0.1, 0.001)}
    assert forms == {1.0: "dense", 0.97: "dense", 0.9: "bitmap", 0.1: "run_length", 0.001: "bitmap"}
    assert stored_form(layer, here) == ("dense", 16.0)  # nothing was measured
    assert stored_form(pruned(layer, 0.1), chip()) == ("dense", 16.0)


def test_ninety_percent_zeros_by_hand() -> None:
    """A 64 x 64 convolution, 3 x 3, on one core: 36,864 weights, 73,728 bytes dense, 11,981 as a bitmap."""
    layer = pruned(conv("c", 64, 64, 8), 0.1)
    dense, bitmap = (layer_phases(layer, here, True) for here in (chip(), stored(chip(), "bitmap")))
    for before, after in list(zip(dense, bitmap, strict=True))[:2]:  # FP, BP
        assert (before.dram_bytes_by_tensor["W"], after.dram_bytes_by_tensor["W"]) == (73_728, 11_981)
        # Each of the 6 image steps loads the weights into the array: the slice does not fit in 18,432 bit.
        saved = 6 * 36_864 * 5.302477904 * (1 - 2.6 / 16)
        assert before.energy.sram_pj - after.energy.sram_pj == pytest.approx(saved, rel=1e-6)
        assert before.energy.register_pj == pytest.approx(after.energy.register_pj)
        assert before.energy.compute_pj == after.energy.compute_pj and before.cycles == after.cycles
    assert dense[2:] == bitmap[2:]  # gradients and the update are dense


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), preset=st.sampled_from(sorted(PRESETS)), form=st.sampled_from(FORMS[1:]))
def test_stored_weights_are_never_dearer_than_dense_ones(seed: int, preset: str, form: Stored) -> None:
    """On one core: on several, smaller weights may make another cut the fastest, which can cost more elsewhere."""
    net, alone = (
        random_workload(Random(seed)),
        replace(PRESETS[preset], cores=Cores(count=1, mesh_rows=1, mesh_columns=1)),
    )
    dense, here = (simulate(net, chip) for chip in (alone, stored(alone, form)))
    assert here.dram_bytes_per_iteration <= dense.dram_bytes_per_iteration
    parts = [(a.energy.total_pj - a.energy.leakage_pj, b) for a, b in zip(here.engines, dense.engines, strict=True)]
    assert all(pj <= (b.energy.total_pj - b.energy.leakage_pj) * (1 + 1e-9) for pj, b in parts)


@settings(max_examples=40, deadline=None)
@given(st.floats(0, 1), st.floats(0, 1))
def test_more_zeros_never_take_more_bits(one: float, other: float) -> None:
    sparse, full = sorted((one, other))
    forms: tuple[Form, ...] = ("dense", "bitmap", "run_length")
    for form in forms:
        assert bits_per_weight(form, sparse) <= bits_per_weight(form, full) + 1e-9


def test_the_report_says_how_each_layer_is_stored() -> None:
    net = workload(pruned(conv("full", 16, 16, 4), 1.0), pruned(conv("sparse", 16, 16, 4), 0.05))
    section = stored_weights(net, stored(chip(), "compressed"))
    assert section.table is not None
    assert [row[3] for row in section.table.rows] == ["dense", "run length"]


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(ChipError, match=r"mapping\.weights.*dense, bitmap, run_length, compressed"):
        chip(mapping__weights="zip")
