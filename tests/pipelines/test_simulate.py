"""`spikeloom simulate` from the command line: chips by name and file, keys of a chip, sweeps, and published figures."""

import json
import shutil
from pathlib import Path

import pytest

from spikeloom.accel.trainer.chip.override import ChipConfig, mesh_of
from spikeloom.accel.trainer.schedule.pareto import Point, pareto
from spikeloom.accel.trainer.schedule.simulator import simulate
from spikeloom.accel.trainer.schedule.trace import trace
from spikeloom.pipelines import cli
from spikeloom.pipelines.commands.simulate import objective
from spikeloom.pipelines.config.chips import load_chip, names, presets
from tests.accel.trainer.networks import NEUROMC, small_network

QUICK = ["what_if=false", "uncertainty=false", "gpu=null"]


@pytest.fixture
def workload(tmp_path: Path) -> str:
    path = tmp_path / "run" / "export" / "workload.json"
    small_network().to_json(path)
    return f"workload={path}"


def test_help_lists_every_chip_with_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["simulate", "--help"])
    shown = capsys.readouterr().out
    assert {"neuromc", "cacti28", "fl5", "edge4"} <= set(presets())
    for name, summary in presets().items():
        assert summary and f"  {name:10s} {summary}" in shown


def test_presets_have_the_promised_cores() -> None:
    cores = {name: load_chip(name).cores.count for name in names("chip")}
    assert (cores["neuromc"], cores["cacti28"], cores["edge4"]) == (20, 20, 4)
    assert load_chip("fl5").fleet is not None and load_chip("fl5").fleet.devices == 5  # type: ignore[union-attr]
    for name in ("cacti28", "edge4", "fl5"):
        chip = load_chip(name)
        assert chip.energy.include_dram and chip.energy.include_noc
        assert all(row.source and row.tier for row in chip.provenance())


def test_a_run_writes_report_page_and_trace(workload: str, tmp_path: Path) -> None:
    cli.main(["simulate", workload, "chip=edge4", *QUICK])
    folder = tmp_path / "run" / "sim"
    report = json.loads((folder / "report.json").read_text())
    assert report["chip_name"] == "edge4" and report["mapping"]["cores"] == 4
    page = (folder / "report.html").read_text()
    assert all(title in page for title in ("Roofline", "What the cores do", "Energy by what is moved"))
    assert "http://" not in page.replace("http://www.w3.org", "") and "<script" not in page
    events = json.loads((folder / "trace.json").read_text())["traceEvents"]
    slices = [e for e in events if e["ph"] == "X"]
    assert slices and all(0 <= e["ts"] < 1e12 and 0 <= e["dur"] < 1e12 for e in slices)
    assert trace.__doc__


def test_what_is_needed_is_a_table_and_a_page(
    workload: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["simulate", workload, "what=needed", "chip=edge4"])
    shown = capsys.readouterr().out
    assert "as it is" in shown and "8-bit values" in shown and "not comparable" in shown
    assert "arXiv 2508.00475" in (tmp_path / "run" / "needed" / "needed.html").read_text()


def test_a_folder_of_other_things_is_left_alone(
    workload: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "precious"
    out.mkdir()
    for _ in range(2):  # into an empty folder, and over results of its own
        cli.main(["simulate", workload, f"out={out}", *QUICK])
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(SystemExit):
        cli.main(["simulate", workload, f"out={out}", *QUICK])
    assert "precious holds thesis.txt, which would be deleted; give another out=FOLDER" in capsys.readouterr().err
    assert (out / "thesis.txt").read_text() == "mine"


def test_a_chip_file_is_read_like_a_preset(workload: str, tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    shutil.copy(NEUROMC, mine)
    for chip, out in (("neuromc", "a"), (str(mine), "b")):
        cli.main(["simulate", workload, f"chip={chip}", f"out={tmp_path / out}", *QUICK])
    assert (tmp_path / "a/report.json").read_bytes() == (tmp_path / "b/report.json").read_bytes()


def test_a_published_network_needs_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["simulate", "network=s_vgg16", "time_steps=1", "batch_size=2", f"out={tmp_path / 'sim'}", *QUICK])
    report = json.loads((tmp_path / "sim" / "report.json").read_text())
    assert (report["model_name"], report["batch_size"], report["time_steps"]) == ("S-VGG16", 2, 1)
    with pytest.raises(SystemExit):
        cli.main(["simulate", "network=lenet", *QUICK])
    assert (
        "network=lenet is unknown; use one of s_resnet18, s_resnet50, s_vgg16, spiking_resnet18"
        in capsys.readouterr().err
    )


def test_keys_of_a_chip_change_it() -> None:
    chip = load_chip(ChipConfig(name="cacti28", cores=8, sram_kb=1024, sparsity="skipping", clock_mhz=100))
    assert (chip.cores.count, chip.cores.mesh_rows, chip.cores.mesh_columns, chip.clock_hz) == (8, 2, 4, 1e8)
    assert chip.norm_memory.size_bits + chip.optimizer_memory.size_bits == 1024 * 8192
    assert chip.norm_memory.read_pj < load_chip("cacti28").norm_memory.read_pj
    assert chip.wg.zero_skipping == ("input", "du")
    changed = next(row for row in chip.provenance() if row.path == "cores.count")
    assert (changed.source, changed.tier) == ("set by the user", "assumed")
    assert [mesh_of(n) for n in (1, 7, 20, 32)] == [(1, 1), (1, 7), (4, 5), (4, 8)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["chip=loihi9"], ["chip=loihi9", "cacti28, edge4, fl5", "neuromc"]),
        (["chip.cores=0"], ["chip.cores=0", "at least 1"]),
        (["chip.sparsity=some"], ["chip.sparsity=some", "dense, gating, skipping"]),
        (["chip.membrane=forget"], ["mapping.membrane", "'forget'"]),
        (["mapping.style=magic"], ["mapping.style", "'magic'", "balanced"]),
        (["mapping.replicas=99"], ["99 copies"]),
        (["what=dance"], ["what=dance", "conformance"]),
        (["workload=net.onnx"], ["onnx=net.onnx"]),
        (["network=s_resnet18"], ["one workload is needed", "workload=RUN"]),
    ],
)
def test_a_mistake_is_one_line(
    workload: str, arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["simulate", workload, *arguments, *QUICK])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and len(said.splitlines()) == 1
    assert all(word in said for word in words), said


def test_a_sweep_ends_in_one_table(workload: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["simulate", "-m", workload, "chip=neuromc,edge4", "chip.cores=2,4", *QUICK])
    folder = tmp_path / "run" / "sim"
    rows = json.loads((folder / "sweep.json").read_text())
    assert [row["label"] for row in rows] == [
        "neuromc cores=2", "neuromc cores=4", "edge4 cores=2", "edge4 cores=4",
    ]  # fmt: skip
    page = (folder / "sweep.html").read_text()
    assert "<svg" in page and "mapping: pipeline" in page and "<th" in page
    assert len((folder / "sweep.csv").read_text().splitlines()) == 5
    assert (folder / "000_neuromc_cores=2" / "report.html").exists()
    assert "TFLOPS/W" in capsys.readouterr().out


@pytest.mark.slow
def test_a_sweep_in_several_processes_ends_in_one_table(workload: str, tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    cli.main(["simulate", "-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", workload, "chip.cores=2,4", *QUICK])
    rows = json.loads((tmp_path / "run" / "sim" / "sweep.json").read_text())
    assert [row["label"] for row in rows] == ["neuromc cores=2", "neuromc cores=4"]


def test_a_sweeper_gets_the_objective_to_make_small() -> None:
    report = simulate(small_network(), load_chip("edge4"))
    time, energy, both = (objective(report, name) for name in ("time", "energy", "energy-delay"))
    assert time == report.time_per_iteration_ms and both == pytest.approx(time * energy)
    with pytest.raises(ValueError, match="time, energy, energy-delay"):
        objective(report, "beauty")


def test_a_missing_plugin_of_hydra_is_one_line(workload: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["simulate", "-m", workload, "hydra/sweeper=ax", "chip.cores=2,4", *QUICK])
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and "pip install hydra-ax-sweeper" in said


def test_the_front_has_what_nothing_beats() -> None:
    def point(time: float, energy: float) -> Point:
        return Point(
            label="p", model="m", chip="c", mapping="x", cores=1, cores_used=1, time_ms=time, energy_mj=energy,
            tflops_per_w_true=1, dram_mb=1, noc_mb=0, bubble_share=0,
        )  # fmt: skip

    points = [point(2, 2), point(1, 3), point(3, 1), point(3, 3), point(2, 2.5)]
    assert pareto(points) == [point(1, 3), point(2, 2), point(3, 1)]


def test_conformance_prints_its_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "oracle").mkdir()
    (tmp_path / "oracle" / "layers.csv").write_text(
        "phase,C,K,OY,OX,FY,FX,author_total_pj,author_compute_pj,author_conv_memory_pj,net\n"
        "WE,128,64,3,3,28,28,66276622.182,33655652.352,32620969.83,S-ResNet18\n"
    )
    cli.main(["simulate", "conformance", f"oracle={tmp_path / 'oracle'}", f"out={tmp_path / 'table.json'}"])
    shown = capsys.readouterr().out
    assert "S-ResNet18 looped against the paper" in shown and "FAIL" not in shown
    assert all(row["passed"] for row in json.loads((tmp_path / "table.json").read_text()))
    with pytest.raises(SystemExit):  # another chip has other prices
        cli.main(["simulate", "conformance", "chip=cacti28", f"oracle={tmp_path / 'oracle'}"])
