"""Agreement with published figures: NeuroMC's layer energies, SCALE-Sim's cycles, whole networks."""

from pathlib import Path

import pytest

from spikeloom.accel.trainer.conformance import anchor_rows, conformance, oracle_rows, systolic_rows, whole_network_rows
from tests.accel.trainer.networks import chip
from tests.conftest import data_folder

HEADER = "phase,C,K,OY,OX,FY,FX,author_total_pj,author_compute_pj,author_conv_memory_pj,net\n"
# Layers of S-ResNet18 whose totals the authors print, with compute and memory of the closed forms left out.
PUBLISHED_TOTALS = {
    ("FE", 256, 128, 14, 14, 3, 3): 86715291.29,
    ("BE", 128, 256, 28, 28, 3, 3): 616944864.37,
    ("WE", 128, 64, 3, 3, 28, 28): 66276622.18,
}


@pytest.mark.oracle
def test_every_layer_of_the_authors_is_reproduced() -> None:
    files = sorted(data_folder("oracle").rglob("*.csv"))
    assert files, "the folder oracle has no csv file"
    for path in files:
        rows = oracle_rows(path, chip())
        lines = [line for line in path.read_text(encoding="utf-8").splitlines()[1:] if line.strip()]
        assert lines
        assert len(rows) == 3 * len(lines)
        failed = [f"{row.name}: {row.measured} for {row.expected}" for row in rows if row.relative_error > 1e-6]
        assert not failed, failed


def test_published_totals_are_reproduced(tmp_path: Path) -> None:
    path = tmp_path / "layers.csv"
    lines = [",".join(map(str, (*shape, total, 1, 1, "net"))) for shape, total in PUBLISHED_TOTALS.items()]
    path.write_text(HEADER + "\n".join(lines) + "\n", encoding="utf-8")
    rows = {row.name: row for row in oracle_rows(path, chip())}
    assert [row.passed for name, row in rows.items() if name.endswith("total")] == [True] * 3
    assert not any(row.passed for name, row in rows.items() if not name.endswith("total"))
    assert rows["WE 128 64 3 3 28 28 compute"].measured == pytest.approx(33655652.352, rel=1e-12)


def test_a_file_without_lines_or_with_an_unknown_phase_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "layers.csv"
    path.write_text(HEADER, encoding="utf-8")
    with pytest.raises(ValueError, match=r"layers\.csv got no rows"):
        oracle_rows(path, chip())
    path.write_text(HEADER + "XX,1,1,1,1,1,1,1,1,1,net\n", encoding="utf-8")
    with pytest.raises(ValueError, match="'XX'"):
        oracle_rows(path, chip())


def test_the_twelve_systolic_cases_are_exact() -> None:
    rows = systolic_rows()
    assert len(rows) == 12
    assert all(row.measured == row.expected for row in rows)


def test_whole_networks_have_the_energy_of_their_layers() -> None:
    rows = {row.name: row for row in anchor_rows(chip())}
    assert [name for name, row in rows.items() if not row.passed] == []
    assert rows["S-ResNet18 FP loop MACs"].measured == 1_849_688_064
    assert rows["S-ResNet18 energy"].measured == pytest.approx(13.947e9, rel=1e-3)
    assert rows["S-VGG16 energy"].measured == pytest.approx(80.846e9, rel=1e-3)
    for name, deviation in (("S-ResNet18", 0.042), ("S-VGG16", 0.079)):
        against = rows[f"{name} looped against the paper"]
        assert (against.tolerance, against.expected) == (None, 1.05)
        assert against.relative_error == pytest.approx(deviation, abs=1e-3)


def test_the_whole_network_is_shown_beside_the_published_layers() -> None:
    without, within = (row.measured for row in whole_network_rows(chip()))
    assert without == pytest.approx(0.747, abs=2e-3) and within == pytest.approx(0.552, abs=2e-3)


def test_another_price_fails_the_comparison() -> None:
    rows = conformance([], chip(ops__add_pj__value=0.6))
    assert sum(not row.passed for row in rows) >= 8
    assert sum(row.passed for row in rows) >= 12
