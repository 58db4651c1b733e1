"""A simulated training step loses nothing, counts each byte once, and is the same every time."""

import subprocess
import sys
from dataclasses import replace
from math import prod
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeloom.accel.trainer.chip.chip import Chip
from spikeloom.accel.trainer.cost.closed_forms import (
    ConvLoops,
    backward_energy,
    forward_energy,
    gradient_unit_energy,
    soma_energy,
    systolic_cycles,
)
from spikeloom.accel.trainer.cost.layer_cost import layer_phases
from spikeloom.accel.trainer.schedule.partition import Mapping
from spikeloom.accel.trainer.schedule.result import ENGINES, TABLE_COLUMNS, EngineName, PhaseCost, SimulationReport
from spikeloom.accel.trainer.schedule.simulator import simulate
from spikeloom.accel.trainer.workload import Density, Layer, Unsupported, Workload
from tests.accel.trainer.networks import LIF, NEUROMC, after, chip, conv, resnet18, small_network, workload

CHIP = chip()
ONE_CORE = chip(cores__count__value=1, cores__mesh__value=[1, 1])
ROOT = Path(__file__).parents[3]
PARTS = ("compute_pj", "register_pj", "sram_pj", "dram_pj", "noc_pj", "leakage_pj")


def engine(report: SimulationReport, path: str, name: EngineName) -> PhaseCost:
    return next(layer for layer in report.layers if layer.path == path).engine(name)


def assert_same(a: SimulationReport, b: SimulationReport, tmp_path: Path) -> None:
    a.to_json(tmp_path / "a.json")
    b.to_json(tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


shapes = st.tuples(
    st.integers(1, 40), st.integers(1, 40), st.integers(1, 12), st.sampled_from([1, 3]), st.sampled_from([1, 2]),
    st.integers(1, 3), st.integers(1, 3),
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(shape=shapes, membrane=st.sampled_from(["store", "recompute"]))
def test_energy_is_conserved(shape: tuple[int, ...], membrane: str) -> None:
    inputs, outputs, size, kernel, stride, steps, batch = shape
    steps_batch = {"time_steps": steps, "batch_size": batch}
    first = conv("a", inputs, outputs, size, kernel=kernel, stride=stride, **steps_batch)
    norm = after(first, "norm")
    neuron = after(norm, "neuron", neuron=replace(LIF, detach_reset=False))
    second = conv("b", outputs, inputs, first.out_height, kernel=kernel, **steps_batch)
    network = workload(first, norm, neuron, second)
    full = chip(
        mapping__membrane=membrane, energy__include_dram=True, energy__include_leakage=True,
        memories__soma_u__leak_mw__value=3.0,
    )  # fmt: skip
    report = simulate(network, full)
    total = report.energy_per_iteration_pj
    assert sum(phase.energy.total_pj for phase in report.engines) == pytest.approx(total, rel=1e-12)
    assert sum(layer.total.energy.total_pj for layer in report.layers) == pytest.approx(total, rel=1e-12)
    assert sum(getattr(report.total.energy, part) for part in PARTS) == pytest.approx(total, rel=1e-12)
    assert report.energy_per_image_step_pj * steps * batch == pytest.approx(total, rel=1e-12)
    assert report.total.energy.dram_pj == pytest.approx(8 * 20.3125 * report.dram_bytes_per_iteration, rel=1e-12)
    # 3 mW in each of 20 cores, for as long as the iteration takes (whole cycles are shown)
    leak_pj = 20 * 3e9 * report.time_per_iteration_ms / 1e3
    assert report.total.energy.leakage_pj == pytest.approx(leak_pj, abs=20 * 3e9 / report.clock_hz)
    true = first.macs_forward + first.macs_weight_gradient + 3 * second.macs_forward
    assert report.total.true_macs == true
    assert report.total.looped_macs >= true
    assert sum(layer.total.cycles for layer in report.layers) == report.total.cycles


def test_a_layer_costs_its_closed_form_for_each_image_and_step() -> None:
    network = small_network()
    report = simulate(network, ONE_CORE, Mapping(micro_batches=1))
    second = network.layers[3]
    out = ConvLoops(in_channels=8, out_channels=20, positions=16, taps=9)
    inserted = ConvLoops(in_channels=8, out_channels=20, positions=64, taps=9)
    steps = second.time_steps * second.batch_size  # 1,440 weights exceed the weight SRAM
    forward = engine(report, "block.conv", "fp")
    assert forward.energy.total_pj == pytest.approx(steps * forward_energy(out, CHIP).total_pj, rel=1e-12)
    backward = engine(report, "block.conv", "bp")
    assert backward.energy.total_pj == pytest.approx(steps * backward_energy(inserted, CHIP).total_pj, rel=1e-12)
    assert (backward.looped_macs, backward.true_macs) == (4 * second.macs_forward, second.macs_forward)
    neurons = network.layers[2].elements
    assert engine(report, "stem.neuron", "fp").energy == soma_energy(neurons, CHIP)
    assert engine(report, "stem.neuron", "bp").energy == gradient_unit_energy(neurons, CHIP)
    # The 4,096 partial sums of the output SRAM hold 16 columns of 16 steps (8 columns of 8): one fill streams them all.
    assert forward.cycles == systolic_cycles(16 * steps, 8, 20, 16, 16, "ws", k_taps=9)
    assert backward.cycles == systolic_cycles(64 * steps, 20, 8, 16, 16, "ws", k_taps=9)
    gradient = engine(report, "block.conv", "wg")
    assert gradient.cycles == systolic_cycles(8, 64 * steps, 20, 16, 16, "os", m_taps=9)
    # The array cannot do more than one MAC per lane and cycle.
    assert all(phase.looped_macs <= 256 * phase.cycles for phase in report.engines)
    assert all(0 < share <= 1 for share in report.utilisation.values())


def test_the_first_product_has_no_backward_phase() -> None:
    report = simulate(small_network(), CHIP)
    assert engine(report, "stem", "bp").energy.total_pj == 0
    assert engine(report, "stem", "wg").energy.total_pj > 0
    assert engine(report, "block.conv", "bp").energy.total_pj > 0
    encoder = after(conv("input", 2, 2, 8), "neuron", path="encoder", inputs=())
    with_encoder = simulate(workload(encoder, *small_network().layers), CHIP)
    assert engine(with_encoder, "encoder", "fp").energy.total_pj > 0
    assert engine(with_encoder, "encoder", "bp").energy.total_pj == 0
    # A norm in front has parameters: the product behind it must send their gradient back.
    norm = after(conv("input", 2, 2, 8), "norm", path="front", inputs=())
    with_norm = simulate(workload(norm, *small_network().layers), CHIP)
    assert engine(with_norm, "stem", "bp").energy.total_pj > 0


def test_a_detached_layer_has_no_backward_phase() -> None:
    report = simulate(small_network(macs_backward=0), CHIP)
    assert engine(report, "block.conv", "bp").energy.total_pj == 0
    assert engine(report, "block.conv", "wg").dram_bytes_by_tensor["du"] > 0


def test_frozen_weights_have_no_gradient_and_no_update() -> None:
    report = simulate(small_network(macs_weight_gradient=0), CHIP)
    assert engine(report, "block.conv", "wg").energy.total_pj == 0
    assert engine(report, "block.conv", "optimizer").energy.total_pj == 0
    assert engine(report, "block.conv", "bp").energy.total_pj > 0


def test_a_strided_gradient_can_be_compacted() -> None:
    inserted = simulate(small_network(), CHIP)
    compacted = simulate(small_network(), chip(mapping__strided_gradient="compacted"))
    for name in ("bp", "wg"):
        assert engine(inserted, "block.conv", name).looped_macs == 4 * engine(compacted, "block.conv", name).looped_macs
    assert compacted.total.looped_macs == compacted.total.true_macs == inserted.total.true_macs
    assert compacted.energy_per_iteration_pj < inserted.energy_per_iteration_pj
    assert inserted.tflops_per_w_looped > inserted.tflops_per_w_true
    assert compacted.tflops_per_w_looped == compacted.tflops_per_w_true


def test_recomputing_the_potential_costs_a_second_forward_pass_and_saves_its_bytes() -> None:
    neuron = replace(LIF, detach_reset=False)
    layers = [replace(layer, neuron=neuron) if layer.kind == "neuron" else layer for layer in small_network().layers]
    stored = simulate(workload(*layers), CHIP)
    recomputed = simulate(workload(*layers), chip(mapping__membrane="recompute"))
    for path in ("block.conv", "block.conv.norm", "block.conv.neuron"):
        once, twice = engine(stored, path, "fp"), engine(recomputed, path, "fp")
        assert twice.energy.sram_pj == pytest.approx(2 * once.energy.sram_pj)
        assert twice.cycles == 2 * once.cycles
        assert twice.true_macs == once.true_macs
    assert engine(stored, "head", "fp") == engine(recomputed, "head", "fp")
    assert stored.total.dram_bytes_by_tensor["u"] == 2 * 2 * sum(x.elements for x in layers if x.kind == "neuron")
    assert "u" not in recomputed.total.dram_bytes_by_tensor
    # With a detached reset and a window there is no potential to keep, and nothing to run again.
    detached = simulate(small_network(), CHIP)
    assert detached.total == simulate(small_network(), chip(mapping__membrane="recompute")).total
    assert "u" not in detached.total.dram_bytes_by_tensor


def test_a_surrogate_without_a_window_needs_16_bits_and_says_so() -> None:
    neuron = replace(LIF, half_width=None)
    layers = [replace(layer, neuron=neuron) if layer.kind == "neuron" else layer for layer in small_network().layers]
    report = simulate(workload(*layers), CHIP)
    assert "mask" not in report.total.dram_bytes_by_tensor
    assert report.total.dram_bytes_by_tensor["u"] > 0
    assert any("not a window" in warning for warning in report.warnings)
    assert not any("not a window" in warning for warning in simulate(small_network(), CHIP).warnings)


def test_dram_bytes_of_a_layer_are_the_compulsory_ones() -> None:
    """A 3x3 convolution 64 to 128 on 16x16 maps with its neurons, 16 images, 4 steps: 10,141,696 bytes."""
    layer = conv("c", 64, 128, 16, time_steps=4, batch_size=16)
    neuron = after(layer, "neuron")
    phases = {
        (part.kind, phase.engine): dict(phase.dram_bytes_by_tensor)
        for part in (layer, neuron)
        for phase in layer_phases(part, CHIP, True)
        if phase.engine != "optimizer"
    }
    assert phases == {
        ("gemm_weight", "fp"): {"s": 131_072, "W": 147_456},
        ("neuron", "fp"): {"s": 262_144, "mask": 262_144},
        ("neuron", "bp"): {"s": 262_144, "mask": 262_144, "du": 4_194_304},
        ("gemm_weight", "bp"): {"du": 4_194_304, "W": 147_456},
        ("gemm_weight", "wg"): {"s": 131_072, "dW": 147_456},
    }
    assert sum(sum(tensors.values()) for tensors in phases.values()) == 10_141_696


def test_dram_energy_is_a_switch_and_its_bytes_are_not() -> None:
    without, included = simulate(small_network(), CHIP), simulate(small_network(), chip(energy__include_dram=True))
    assert without.total.energy.dram_pj == 0 < included.total.energy.dram_pj
    assert without.dram_bytes_per_iteration == included.dram_bytes_per_iteration > 0
    used, used_with_dram = ({row.path for row in report.constants} for report in (without, included))
    assert used_with_dram - used == {"dram.energy_pj_per_bit"}
    assert "ops.add_pj" in used


@settings(max_examples=20, deadline=None)
@given(density=st.floats(0, 1), operands=st.lists(st.sampled_from(["du", "weight"]), unique=True))
def test_gating_saves_energy_in_proportion_and_no_cycles(density: float, operands: list[str]) -> None:
    measured = Density(mean=density, min=density, max=density)
    layer = conv("c", 8, 20, 8, density_du=measured, density_weight=measured, density_input=measured)
    dense = {phase.engine: phase for phase in layer_phases(layer, CHIP, True)}
    gating = chip(engines__bp__zero_gating=operands, engines__fp__zero_gating=["input"])
    gated = {phase.engine: phase for phase in layer_phases(layer, gating, True)}
    active = prod([density] * len(operands))
    assert gated["bp"].energy.compute_pj == pytest.approx(active * dense["bp"].energy.compute_pj, rel=1e-12)
    assert gated["fp"].energy.compute_pj == pytest.approx(density * dense["fp"].energy.compute_pj, rel=1e-12)
    assert gated["wg"] == dense["wg"]
    for name in ("fp", "bp"):
        assert gated[name].cycles == dense[name].cycles
        assert gated[name].energy.sram_pj == dense[name].energy.sram_pj
        assert gated[name].energy.register_pj <= dense[name].energy.register_pj


def test_gating_at_full_density_is_dense_but_for_inserted_zeros() -> None:
    full = Density(mean=1.0, min=1.0, max=1.0)
    gating = chip(engines__bp__zero_gating=["du"], engines__wg__zero_gating=["input", "du"])
    plain = conv("c", 8, 20, 8, density_du=full, density_input=full)
    assert layer_phases(plain, gating, True) == layer_phases(plain, CHIP, True)
    strided = conv("c", 8, 20, 8, stride=2, density_du=full, density_input=full)
    gated, dense = (layer_phases(strided, which, True)[1].energy.compute_pj for which in (gating, CHIP))
    assert gated == pytest.approx(dense / 4)  # three of four positions hold an inserted zero


def test_gating_without_a_measurement_is_dense_and_warned_about() -> None:
    report = simulate(small_network(), chip(engines__fp__zero_gating=["weight"]))
    assert report.total == simulate(small_network(), CHIP).total
    assert any("without a measured density of weight" in warning for warning in report.warnings)


def test_attention_gather_and_layer_norm_are_costed() -> None:
    shared = {"time_steps": 2, "batch_size": 3}
    table = Layer(path="embed", op="aten.embedding.default", kind="gather", in_channels=1, out_channels=32, tokens=10,
                  parameters=3200, **shared)  # fmt: skip
    norm = Layer(path="norm", op="aten.layer_norm.default", kind="norm", in_channels=32, out_channels=32, tokens=10,
                 parameters=64, inputs=("embed",), **shared)  # fmt: skip
    product = Layer(
        path="attention", op="aten.matmul.default", kind="gemm_activation", in_channels=32, out_channels=32, groups=4,
        tokens=10, macs_forward=4 * 8 * 8 * 10 * 6 * 2, macs_backward=4 * 8 * 8 * 10 * 6 * 4, inputs=("norm",),
        **shared,
    )  # fmt: skip
    view = Layer(path="view", op="aten.view.default", kind="view", in_channels=32, out_channels=32, **shared)
    report = simulate(workload(table, norm, product, view), chip(energy__include_dram=True))
    assert engine(report, "embed", "fp").dram_bytes_by_tensor == {"W": 32 * 10 * 6 * 2}
    assert engine(report, "attention", "bp").true_macs == 2 * engine(report, "attention", "fp").true_macs
    assert engine(report, "attention", "wg").energy.total_pj == 0
    one = Layer(path="one", op="aten.matmul.default", kind="gemm_activation", in_channels=32, out_channels=32, groups=4,
                tokens=10, macs_forward=4 * 8 * 8 * 10 * 6, macs_backward=0, **shared)  # fmt: skip
    single = layer_phases(one, CHIP, True)
    assert [phase.engine for phase in single] == ["fp"]
    double = engine(report, "attention", "fp")
    assert double.energy.compute_pj == pytest.approx(2 * single[0].energy.compute_pj)
    rows = 60  # a layer norm has statistics for each of its rows, a batch norm for each channel
    batch = layer_phases(replace(norm, op="aten.batch_norm.default"), CHIP, True)[0].energy.compute_pj
    per_statistic = 2 * 0.548 + 4 * 0.812 + 0.514
    assert engine(report, "norm", "fp").energy.compute_pj - batch == pytest.approx((rows - 32) * per_statistic)
    assert next(layer for layer in report.layers if layer.path == "view").phases == ()


def test_what_is_not_costed_is_reported() -> None:
    network = replace(small_network(), unsupported=(Unsupported(path="fft", op="aten.fft", elements=12),))
    report = simulate(network, CHIP)
    assert report.unsupported == network.unsupported
    assert any("unsupported" in warning for warning in report.warnings)
    assert report.densities["block.conv"] == {"input": 0.25, "du": 0.25}
    with pytest.raises(ValueError, match="at least one operation"):
        simulate(replace(network, layers=()), CHIP)


def test_batch_and_time_enter_linearly_when_weights_do_not_stay() -> None:
    """Larger than the weight SRAM, without optimizer: twice the images or steps cost twice the energy."""
    one = conv("c", 64, 64, 8, time_steps=1, batch_size=1)
    many = conv("c", 64, 64, 8, time_steps=4, batch_size=3)
    for single, times in zip(layer_phases(one, CHIP, True)[:3], layer_phases(many, CHIP, True)[:3], strict=True):
        assert times.energy.total_pj == pytest.approx(12 * single.energy.total_pj, rel=1e-12)
    one, many = conv("c", 4, 4, 8, time_steps=1, batch_size=1), conv("c", 4, 4, 8, time_steps=4, batch_size=3)
    loaded = layer_phases(one, CHIP, True)[0].energy.total_pj
    assert layer_phases(many, CHIP, True)[0].energy.total_pj < 12 * loaded


def test_two_runs_give_equal_bytes(tmp_path: Path) -> None:
    small_network().to_json(tmp_path / "workload.json")
    read = Workload.from_json(tmp_path / "workload.json")
    assert_same(simulate(small_network(), CHIP), simulate(read, Chip.from_yaml(NEUROMC)), tmp_path)


def test_the_table_adds_up() -> None:
    rows = simulate(small_network(), CHIP).table()
    assert all(len(row) == len(TABLE_COLUMNS) for row in rows)
    assert rows[-1][0] == "total"
    for column in range(1, len(TABLE_COLUMNS)):
        assert sum(row[column] for row in rows[:-1]) == pytest.approx(rows[-1][column])  # type: ignore[misc]


def test_a_resnet18_iteration_is_plausible() -> None:
    report = simulate(resnet18(), CHIP)
    assert 5e9 < report.energy_per_image_step_pj < 50e9
    optimizer = report.engines[ENGINES.index("optimizer")]
    assert 0 < optimizer.energy.total_pj < 0.02 * report.energy_per_iteration_pj


def test_the_cost_path_runs_without_torch(tmp_path: Path) -> None:
    small_network().to_json(tmp_path / "workload.json")
    script = (
        "import sys\n"
        "for name in ('torch', 'hydra', 'omegaconf', 'lightning', 'matplotlib'):\n"
        "    sys.modules[name] = None\n"
        "from spikeloom.accel.trainer.chip.chip import Chip\n"
        "from spikeloom.accel.trainer.schedule.simulator import simulate\n"
        "from spikeloom.accel.trainer.workload import Workload\n"
        "report = simulate(Workload.from_json(sys.argv[1]), Chip.from_yaml(sys.argv[2]))\n"
        "report.to_json(sys.argv[3])\n"
    )
    arguments = [tmp_path / "workload.json", NEUROMC, tmp_path / "alone.json"]
    subprocess.run([sys.executable, "-c", script, *map(str, arguments)], check=True, cwd=ROOT)
    simulate(small_network(), CHIP).to_json(tmp_path / "here.json")
    assert (tmp_path / "alone.json").read_bytes() == (tmp_path / "here.json").read_bytes()
