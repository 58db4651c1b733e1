"""The sections of a simulation say what the report says, in words that need no chip designer."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from spikeloom.accel.common.report import render
from spikeloom.accel.trainer.report.simulation import sections
from spikeloom.accel.trainer.schedule.simulator import simulate
from spikeloom.accel.trainer.workload import Unsupported
from tests.accel.trainer.networks import chip, conv, resnet18, small_network, workload


def test_the_bars_add_up_to_the_energy() -> None:
    report = simulate(resnet18(), chip())
    for section in sections(report)[:2]:
        assert section.chart is not None
        (panel,) = section.chart.panels
        page = section.chart.svg()
        per_px = panel.x.seen and max(panel.x.seen) / (panel.x.px(max(panel.x.seen)) - panel.x.px(0.0))
        boxes = re.findall(r"M([\d.]+) [\d.]+H([\d.]+)V", page)
        drawn = sum((float(end) - float(start)) * per_px for start, end in boxes)
        assert "mJ" in panel.x.label and panel.x.label in page
        assert drawn == pytest.approx(report.energy_per_iteration_pj / 1e9, rel=0.02)  # of pixels


def test_small_layers_share_a_bar() -> None:
    layers = [conv("large", 64, 64, 16)] + [conv(f"small{index}", 1, 1, 1, kernel=1) for index in range(9)]
    chart = sections(simulate(workload(*layers), chip()))[0].chart
    assert chart is not None
    assert [text for _, text in chart.panels[0].y.places()] == ["large", "10 small layers"]  # nine and the loss


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


def test_a_training_with_more_layers_than_colours_names_each_of_them_once() -> None:
    from spikeloom.accel.trainer.report import engines

    paths = [f"stages.{i}.blocks.0.attn.attn_lif" for i in range(20)]
    spikes, densities = {path: i / 40 for i, path in enumerate(paths)}, dict.fromkeys(engines.OPERANDS, 0.1)
    rows = [
        engines.Epoch(
            epoch=epoch, torch_accuracy=0.5, engine_accuracy=0.5, loss=1.0, densities=densities, layer_spikes=spikes,
            dense_energy_pj=1e9, gated_energy_pj=9e8, cycles=10, dram_bytes=10, skipped_steps=0,
        )
        for epoch in (1, 2)
    ]  # fmt: skip
    figure = next(
        s.figure for s in engines.engine_sections(rows, "fp16", "neuromc", "a split") if s.title == "Spikes by layer"
    )
    assert figure is not None
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == paths
    assert figure.axes[0].images[0].get_array().max() == pytest.approx(100 * 19 / 40)
