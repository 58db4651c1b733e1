"""Weights in arrays of devices: cells, lines and pulses counted by hand, no byte of a weight, a checked chip file."""

from dataclasses import replace
from pathlib import Path

import pytest

from spikeloom.accel.trainer.chip.chip import Chip
from spikeloom.accel.trainer.chip.crossbar import Crossbar
from spikeloom.accel.trainer.chip.document import ChipError, read_document
from spikeloom.accel.trainer.cost.closed_forms import ConvLoops, Operand
from spikeloom.accel.trainer.cost.crossbar import crossbar_energy, programming_energy
from spikeloom.accel.trainer.schedule.simulator import simulate
from spikeloom.accel.trainer.workload import Layer, Workload

CHIPS = Path(__file__).resolve().parents[3] / "conf" / "chips"
UNIT = Crossbar(
    cell_pj=1.0, driver_pj=100.0, sense_pj=10_000.0, accumulator_pj=3.0, pulse_pj=5.0, pulses_per_weight=0.2
)  # fmt: skip


def chip(name: str) -> Chip:
    return Chip.from_yaml(CHIPS / f"{name}.yaml")


def linear(inputs: int, outputs: int) -> Layer:
    macs = inputs * outputs * 8
    return Layer(
        path=f"fc{inputs}", op="linear", kind="gemm_weight", in_channels=inputs, out_channels=outputs, time_steps=4,
        batch_size=2, macs_forward=macs, macs_backward=macs, macs_weight_gradient=macs, input_kind="binary",
        input_bits=1, parameters=inputs * outputs,
    )  # fmt: skip


def test_a_product_counts_cells_drivers_and_senses_of_its_tiles() -> None:
    # 300 x 200 on tiles of 128 x 128: 3 row tiles, 2 column tiles.
    assert UNIT.product_pj(300, 200, 128, 128) == 300 * 200 + 300 * 2 * 100 + 200 * 3 * 10_000
    assert UNIT.product_pj(300, 200, 128, 128, active=0.1) == pytest.approx(6000 + 6000 + 6_000_000)
    assert UNIT.update_pj(1000) == (3000, 1000)


def test_a_layer_repeats_its_product_for_positions_taps_and_bits() -> None:
    memristor = chip("memristor")
    loops = ConvLoops(in_channels=130, out_channels=64, positions=7, taps=9)
    one = UNIT.product_pj(130, 64, 128, 128)
    adds = memristor.ops.add_pj
    forward = crossbar_energy(loops, memristor, UNIT, forward=True, operand=Operand())
    assert forward.compute_pj == pytest.approx(63 * one + 64 * 7 * (2 * 9 - 1) * adds)
    assert "W" not in forward.memory_pj_by_tensor and forward.register_pj == 0
    back = UNIT.product_pj(64, 130, 128, 128)
    backward = crossbar_energy(loops, memristor, UNIT, forward=False, operand=Operand(kind="real", bits=16))
    assert backward.compute_pj == pytest.approx(16 * 63 * back + 130 * 7 * (9 * 16 - 1) * adds)
    assert programming_energy(1000, UNIT).total_pj == 4000


def test_no_weight_moves_and_no_moment_is_kept_for_weights_in_arrays() -> None:
    workload = Workload(model_name="two", time_steps=4, batch_size=2, dtype="float32",
                        layers=(linear(300, 200), replace(linear(200, 10), inputs=("fc300",))))  # fmt: skip
    digital, arrays = simulate(workload, chip("cacti28")), simulate(workload, chip("memristor"))

    def dram(report: object, tensor: str) -> int:
        return sum(engine.dram_bytes_by_tensor.get(tensor, 0) for engine in report.engines)  # type: ignore[attr-defined]

    assert dram(digital, "W") > 0 and dram(digital, "optimizer") > 0
    assert dram(arrays, "W") == dram(arrays, "optimizer") == 0
    assert dram(arrays, "dW") == dram(digital, "dW")
    assert arrays.energy_per_iteration_pj < digital.energy_per_iteration_pj


def test_prices_that_matter_move_the_total_the_right_way() -> None:
    workload = Workload(model_name="one", time_steps=4, batch_size=2, dtype="float32", layers=(linear(300, 200),))
    cheap = chip("memristor")
    assert cheap.crossbar is not None
    total = simulate(workload, cheap).energy_per_iteration_pj
    for key in ("cell_pj", "driver_pj", "sense_pj", "accumulator_pj", "pulse_pj", "pulses_per_weight"):
        dearer = replace(cheap, crossbar=replace(cheap.crossbar, **{key: 10 * getattr(cheap.crossbar, key)}))
        assert simulate(workload, dearer).energy_per_iteration_pj > total, key


def test_a_faulty_section_names_every_fault(tmp_path: Path) -> None:
    document = read_document(CHIPS / "memristor.yaml")
    del document["crossbar"]["sense_pj"]
    document["crossbar"]["pulse_pj"] = {**document["crossbar"]["pulse_pj"], "unit": "nJ"}
    with pytest.raises(ChipError, match=r"mine: 2 fault[\s\S]*crossbar.sense_pj: missing[\s\S]*use the unit pJ"):
        Chip.from_mapping(document, "mine")
