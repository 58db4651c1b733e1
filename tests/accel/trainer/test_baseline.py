"""The GPU model: bytes by hand, and what precision, cache and fusion may and may not do to them."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikeloom.accel.trainer.baseline.gpu import Gpu, GpuError
from spikeloom.accel.trainer.baseline.kernels import gpu_iteration
from spikeloom.accel.trainer.workload import Workload
from tests.accel.trainer.networks import after, conv, resnet18, small_network, workload

GPUS = Path(__file__).parents[3] / "conf" / "gpus"
A100 = Gpu.from_yaml(GPUS / "a100_40gb.yaml")


def hand_example() -> Workload:
    """A 3x3 convolution 64 to 128 on 16x16 maps with its neurons, 16 images, 4 steps, no norm."""
    layer = conv("c", 64, 128, 16, time_steps=4, batch_size=16)
    return workload(layer, after(layer, "neuron"))


def test_bytes_of_the_hand_example_are_exact() -> None:
    report = gpu_iteration(hand_example(), A100, precision="amp_fp16", l2_bytes=0, optimizer=False)
    moved = {kernel.name: kernel.dram_bytes for kernel in report.kernels}
    assert moved == {
        "product forward": 6_438_912, "product dgrad": 6_438_912, "product wgrad": 6_438_912,
        "neuron forward": 12_582_912, "neuron backward": 12_582_912,
    }  # fmt: skip
    assert report.dram_bytes == 44_482_560
    assert 1 - 10_141_696 / report.dram_bytes == pytest.approx(0.772, abs=5e-4)


def test_single_precision_moves_twice_the_bytes_of_mixed() -> None:
    half = gpu_iteration(hand_example(), A100, precision="amp_fp16", l2_bytes=0, optimizer=False)
    single = gpu_iteration(hand_example(), A100, precision="fp32", l2_bytes=0, optimizer=False)
    assert single.dram_bytes == 2 * half.dram_bytes


def test_adam_moves_its_state_and_in_mixed_precision_a_copy() -> None:
    for precision, per_weight in (("fp32", 4 * (4 + 3)), ("amp_fp16", 4 * (3 + 3) + 2 + 2)):
        report = gpu_iteration(hand_example(), A100, precision=precision, l2_bytes=0)
        assert report.by_phase()["optimizer"] == 73_728 * per_weight


def test_a_read_is_free_only_right_after_and_only_where_it_fits() -> None:
    """x, s and u of 4 MiB each: in a large cache the neuron reads x for nothing, and x needs no DRAM at all."""
    report = gpu_iteration(hand_example(), A100, precision="amp_fp16", optimizer=False)
    moved = {kernel.name: kernel for kernel in report.kernels}
    assert "activation" not in moved["product forward"].written_bytes  # dead once the neuron has it
    assert moved["neuron forward"].read_bytes == {}
    assert moved["neuron forward"].written_bytes == {"s": 4_194_304, "u": 4_194_304}  # saved, read by others
    assert "du" not in moved["product wgrad"].read_bytes  # the neuron has just left it
    assert "du" in moved["neuron backward"].written_bytes  # two products read it, the later one not from the cache rule
    tight = gpu_iteration(hand_example(), A100, precision="amp_fp16", l2_bytes=12_582_911, optimizer=False)
    assert {k.name: k for k in tight.kernels}["neuron forward"].read_bytes == {"activation": 4_194_304}


def test_a_norm_reads_its_input_twice_each_way() -> None:
    layer = conv("c", 8, 8, 16)
    net = workload(layer, after(layer, "norm"))
    x = layer.elements * 2
    moved = {k.name: k for k in gpu_iteration(net, A100, l2_bytes=0, optimizer=False).kernels}
    assert moved["norm statistics"].read_bytes == moved["norm forward"].read_bytes == {"activation": x}
    assert moved["norm forward"].written_bytes == {"activation": x}
    for name in ("norm reduction", "norm backward"):
        assert moved[name].read_bytes == {"activation": x, "du": x}


def test_the_first_layer_has_no_dgrad_and_a_frozen_one_no_wgrad() -> None:
    first = conv("first", 2, 8, 8, macs_backward=0)
    second = replace(conv("second", 8, 8, 8), inputs=("first",))
    frozen = replace(conv("frozen", 8, 8, 8, macs_weight_gradient=0), inputs=("second",))
    names = [(k.layer, k.name) for k in gpu_iteration(workload(first, second, frozen), A100, optimizer=False).kernels]
    assert ("first", "product dgrad") not in names and ("second", "product dgrad") in names
    assert ("frozen", "product wgrad") not in names and ("frozen", "product dgrad") in names


@settings(max_examples=15, deadline=None)
@given(sizes=st.lists(st.integers(0, 2**26), min_size=2, max_size=4), precision=st.sampled_from(["fp32", "amp_fp16"]))
def test_a_larger_cache_never_moves_more(sizes: list[int], precision) -> None:
    moved = [gpu_iteration(small_network(), A100, precision=precision, l2_bytes=n).dram_bytes for n in sorted(sizes)]
    assert moved == sorted(moved, reverse=True)


def test_elementwise_kernels_cost_only_where_they_are_not_fused() -> None:
    fused = gpu_iteration(small_network(), A100, l2_bytes=0)
    apart = gpu_iteration(small_network(), A100, l2_bytes=0, fuse_elementwise=False)
    assert apart.dram_bytes > fused.dram_bytes
    assert {k.name for k in apart.kernels} - {k.name for k in fused.kernels} == {
        "elementwise forward", "elementwise backward"
    }  # fmt: skip


def test_traffic_by_phase_and_by_tensor_adds_up() -> None:
    report = gpu_iteration(resnet18(), A100)
    assert sum(report.by_phase().values()) == sum(report.by_tensor().values()) == report.dram_bytes
    assert report.dram_device_pj == pytest.approx(8 * 3.9 * report.dram_bytes)
    assert report.dram_path_pj == pytest.approx(8 * 21 * report.dram_bytes)
    assert report.limit_pj == pytest.approx(400 * report.time_ms * 1e9)


def test_bad_requests_and_bad_files_name_the_fix(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="use one of fp32, amp_fp16"):
        gpu_iteration(hand_example(), A100, precision="fp8")  # type: ignore[arg-type]
    text = (GPUS / "a100_40gb.yaml").read_text(encoding="utf-8")
    bad = tmp_path / "gpu.yaml"
    bad.write_text(text.replace("value: 400, unit: W", "value: -1, unit: kW") + "colour: green\n", encoding="utf-8")
    with pytest.raises(GpuError) as caught:
        Gpu.from_yaml(bad)
    assert all(words in str(caught.value) for words in ("3 fault", "colour: unknown", "got -1 in unit 'kW'"))
