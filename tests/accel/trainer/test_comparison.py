"""Chip beside GPU: published networks have their published sizes, and what is scaled stays consistent."""

import csv
from pathlib import Path

import pytest

from spikeloom.accel.common.report import render
from spikeloom.accel.trainer.baseline.comparison import compare, rescaled
from spikeloom.accel.trainer.baseline.gpu import Gpu
from spikeloom.accel.trainer.baseline.kernels import gpu_iteration
from spikeloom.accel.trainer.baseline.nsight import METRICS, read_counters
from spikeloom.accel.trainer.networks import spiking_resnet18, spiking_vgg16, spikingformer
from spikeloom.accel.trainer.report.baseline import baseline_sections
from spikeloom.accel.trainer.workload import Workload
from tests.accel.trainer.networks import NEUROMC, chip, small_network

A100 = Gpu.from_yaml(NEUROMC.parents[1] / "gpus" / "a100_40gb.yaml")
CHIP = chip()


def counters(path: Path, rows: list[tuple[str, str, str, str]]) -> Path:
    """A file as Nsight Compute prints it, its own lines in front."""
    with path.open("w", newline="") as file:
        file.write("==PROF== Connected to process 7\n")
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(("ID", "Kernel Name", "Metric Name", "Metric Unit", "Metric Value"))
        writer.writerows((ID, "gemm", name, unit, value) for ID, name, unit, value in rows)
    return path


@pytest.mark.parametrize(
    ("build", "millions", "forward_gmacs"),
    [(spiking_resnet18, 11.69, 1.814), (spiking_vgg16, 15.23, 15.347), (spikingformer, 66.3, None)],
)
def test_published_networks_have_their_published_sizes(build, millions: float, forward_gmacs: float | None) -> None:
    net = build(time_steps=2, batch_size=3)
    assert sum(layer.parameters for layer in net.layers) / 1e6 == pytest.approx(millions, rel=2e-3)
    if forward_gmacs is not None:
        assert sum(layer.macs_forward for layer in net.layers) / 6e9 == pytest.approx(forward_gmacs, rel=1e-3)


def test_a_rescaled_network_is_the_network_built_at_that_size() -> None:
    assert rescaled(spiking_resnet18(), time_steps=7, batch_size=3) == spiking_resnet18(7, 3)
    with pytest.raises(ValueError, match="whole numbers >= 1"):
        rescaled(spiking_resnet18(), batch_size=0)


def test_the_saving_is_that_of_the_two_reports() -> None:
    single, mixed = compare(small_network(), CHIP, A100)
    for comparison, precision in ((single, "fp32"), (mixed, "amp_fp16")):
        gpu = gpu_iteration(small_network(), A100, precision=precision)
        assert comparison.gpu == gpu
        assert comparison.reduction == 1 - comparison.chip_bytes / gpu.dram_bytes
    assert single.reduction > mixed.reduction
    packed = [mixed.reduction_with_packed_du(density) for density in (0.0, 0.5, 15 / 16)]
    assert packed == sorted(packed, reverse=True)
    assert packed[-1] == pytest.approx(mixed.reduction_without_optimizer)


def test_counters_of_the_profiler_are_summed_in_bytes(tmp_path: Path) -> None:
    read, write = METRICS
    rows = [("0", read, "Mbyte", "1.5"), ("0", write, "byte", "1,024"), ("1", read, "Kbyte", "2"), ("1", "o", "x", "9")]
    found = read_counters(counters(tmp_path / "ncu.csv", rows))
    assert (found.read_bytes, found.written_bytes, found.kernels) == (1_502_000, 1_024, 2)


@pytest.mark.parametrize(
    ("rows", "words"),
    [([("0", METRICS[0], "Mbyte", "n/a")], "line 3 .*'n/a'"), ([("0", METRICS[0], "furlong", "1")], "furlong"),
     ([("0", "sm__cycles", "cycle", "1")], "none of the counters")],
)  # fmt: skip
def test_a_bad_counter_file_is_named_with_the_remedy(tmp_path: Path, rows, words: str) -> None:
    with pytest.raises(ValueError, match=rf"ncu\.csv.*{words}.*ncu --csv"):
        read_counters(counters(tmp_path / "ncu.csv", rows))
    (tmp_path / "empty.csv").write_text("nothing")
    with pytest.raises(ValueError, match=r"Metric Name.*ncu --csv"):
        read_counters(tmp_path / "empty.csv")


@pytest.mark.parametrize(
    ("workload", "names"),
    [(small_network(), ["test network"]), (spiking_vgg16(), ["S-VGG16", "S-ResNet18", "Spikingformer-8-768"])],
)
def test_a_network_of_ones_own_stands_alone_and_a_published_one_beside_the_others(
    workload: Workload, names: list[str]
) -> None:
    _, figures = baseline_sections(workload, CHIP, A100)
    assert [row["model_name"] for row in figures["networks"]] == [name for name in names for _ in range(2)]


def test_the_report_shows_the_measured_bytes_beside_the_model(tmp_path: Path) -> None:
    measured = read_counters(counters(tmp_path / "ncu.csv", [("0", METRICS[0], "Mbyte", "1")]))
    sections, figures = baseline_sections(small_network(), CHIP, A100, measured)
    assert figures["measured"]["dram_bytes"] == 10**6
    page = render("t", "l", sections, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Model and profiler" in page and "<svg" in page
