"""The sections of a simulation say what the report says, in words that need no chip designer."""

from dataclasses import replace
from pathlib import Path

import pytest

from accel.report import render
from accel.trainer.figures import sections
from accel.trainer.simulator import simulate
from accel.trainer.workload import Unsupported
from tests.accel.trainer.networks import chip, conv, resnet18, small_network, workload


def test_the_bars_add_up_to_the_energy() -> None:
    report = simulate(resnet18(), chip())
    for section in sections(report)[:2]:
        assert section.figure is not None
        axes = section.figure.axes[0]
        drawn = sum(patch.get_width() for patch in axes.patches)
        assert "mJ" in axes.get_xlabel()
        assert drawn == pytest.approx(report.energy_per_iteration_pj / 1e9)


def test_small_layers_share_a_bar() -> None:
    layers = [conv("large", 64, 64, 16)] + [conv(f"small{index}", 1, 1, 1, kernel=1) for index in range(9)]
    figure = sections(simulate(workload(*layers), chip()))[0].figure
    assert figure is not None
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["large", "10 small layers"]  # nine and the loss


def test_the_table_has_the_figures_of_the_report() -> None:
    report = simulate(small_network(), chip())
    table = sections(report)[2].table
    assert table is not None
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["clock cycles"][0] == f"{report.cycles_per_iteration:,}"
    assert rows["energy"][0] == f"{report.energy_per_iteration_pj / 1e6:.4g} µJ"
    assert rows["energy"][1] == f"{report.energy_per_iteration_pj / 3e6:.4g} µJ"
    assert rows["TFLOPS/W, operations as needed"][0] == f"{report.tflops_per_w_true:.3f}"


def test_the_caveats_follow_the_chip_and_the_workload() -> None:
    network = replace(small_network(), unsupported=(Unsupported(path="block.fft", op="aten.fft", elements=12),))
    text = sections(simulate(network, chip()))[-1].text
    assert "aten.fft at block.fft" in text
    assert "left out of the energy" in text
    assert "500 MHz is assumed" in text
    assert "is included in the energy" in sections(simulate(network, chip(energy__include_dram=True)))[-1].text


def test_the_sections_render_to_a_page(tmp_path: Path) -> None:
    parts = sections(simulate(small_network(), chip()))
    page = render("Simulation", "One training step.", parts, tmp_path / "report.html")
    text = Path(page).read_text(encoding="utf-8")
    assert "What one training step costs" in text
    assert "block.conv" in text
