"""Pages of runs: drawn again without training, compared on one page, and read in a browser at three widths."""

import base64
import json
import re
from pathlib import Path

import pytest

from spikeloom.accel.common import charts
from spikeloom.accel.common.files import write_csv, write_json
from spikeloom.accel.common.report import Section, Table, render
from spikeloom.pipelines import cli
from spikeloom.pipelines.config.register import register
from spikeloom.pipelines.eeg.report import matching
from spikeloom.pipelines.reports import comparison
from tests.browser import WIDTHS, chromium, complaints

register()


def finished(root: Path, name: str, *, seed: int = 0, accuracy: float = 0.9, lr: float = 0.1, pj: float = 2e6) -> Path:
    """A run directory with the files that a comparison reads."""
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(f"name: {name}\nseed: {seed}\noptimizer:\n  lr: {lr}\nmodel:\n  T: 4\n")
    write_json(folder / "result.json", {"test_accuracy": accuracy, "valid_accuracy": accuracy, "parameters": 12_345,
                                        "best_epoch": 2, "seconds": 3.5})  # fmt: skip
    write_csv(folder / "metrics.csv", [{"epoch": e, "valid_accuracy": e / 4, "valid_loss": 1 / e} for e in (1, 2, 3)])
    write_json(folder / "evaluation.json", {"energy": {"energy_pj": pj}})
    return folder


def table_of(page: str, title: str) -> list[dict[str, object]]:
    """The rows of a section's table, from its JSON."""
    section = page[page.index(f"{title}</h2>") :]
    found = re.search(r"data:application/json;base64,([\w+/=]+)", section)
    assert found is not None
    rows = json.loads(base64.b64decode(found[1]))
    assert isinstance(rows, list)
    return rows


def test_runs_are_compared_by_results_energy_seeds_and_the_settings_that_differ(tmp_path, monkeypatch, capsys) -> None:
    finished(tmp_path, "a/seed0", accuracy=0.9)
    finished(tmp_path, "a/seed1", seed=1, accuracy=0.8)
    finished(tmp_path, "b's", lr=0.2, accuracy=0.7, pj=1e6)
    monkeypatch.chdir(tmp_path)
    cli.main(["compare", "a/seed0", "a/seed1", "b's", "out=page.html"])
    page = (tmp_path / "page.html").read_text()
    results = table_of(page, "Results")
    assert [row["run"] for row in results] == ["a/seed0", "a/seed1", "b's"]
    assert [row["test accuracy (%)"] for row in results] == ["90.0", "80.0", "70.0"]
    assert [row["inference (µJ)"] for row in results] == ["2", "2", "1"]
    seeds = table_of(page, "Over seeds")
    assert len(seeds) == 1 and seeds[0]["test accuracy (%)"] == "85.0 ± 7.1" and seeds[0]["seeds"] == 2
    differs = {
        row["setting"]: (row["a/seed0"], row["a/seed1"], row["b's"]) for row in table_of(page, "Settings that differ")
    }
    assert differs == {"seed": ("0", "1", "0"), "optimizer.lr": ("0.1", "0.1", "0.2")}
    for title in ("Learning curves", "Accuracy against energy"):
        assert f"{title}</h2>" in page


def test_runs_without_energy_or_curves_are_compared_without_them(tmp_path) -> None:
    runs = [finished(tmp_path, name) for name in ("a", "b")]
    for run in runs:
        (run / "evaluation.json").unlink()
        (run / "metrics.csv").unlink()
    page = comparison.compare(runs, tmp_path / "page.html").read_text()
    assert "Learning curves" not in page and "Accuracy against energy" not in page
    assert [row["inference (µJ)"] for row in table_of(page, "Results")] == ["–", "–"]


def test_what_is_no_run_is_named(tmp_path, capsys) -> None:
    run = finished(tmp_path, "a")
    for runs, said in (
        ([run], "not two or more"),
        ([run, run], "not two or more"),
        ([run, tmp_path], r"no config\.yaml"),
    ):
        with pytest.raises(ValueError, match=said):
            comparison.compare(runs, tmp_path / "page.html")
    (run / "metrics.csv").write_text("epoch,valid_loss\n1,x\n")
    with pytest.raises(ValueError, match=r"metrics\.csv"):
        comparison.compare([run, finished(tmp_path, "b")], tmp_path / "page.html")


def test_a_report_drawn_again_is_that_of_the_training(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    cli.main(["train", "experiment=spiking_cnn_digits", "trainer.epochs=1", "run=a", "trainer.threads=1"])
    before = Path("a/report.html").read_text()
    weights = Path("a/model/model.safetensors").read_bytes()
    Path("a/report.html").unlink()
    Path("a").rename("moved")
    cli.main(["report", "run=moved"])
    assert Path("moved/report.html").read_text() == before
    assert Path("moved/model/model.safetensors").read_bytes() == weights
    Path("moved/result.json").unlink()
    with pytest.raises(SystemExit):
        cli.main(["report", "run=moved"])
    assert "result.json is missing" in capsys.readouterr().err


def test_a_pretraining_reads_the_same_from_its_file() -> None:
    gallery = {"top": {1: 0.5, 5: 0.75}, "chance_top": {1: 0.25, 5: 0.5}, "gallery": 4.0, "mrr": 0.5, "chance_mrr": 0.3}
    found = {
        "drawn": 4, "loss": 1.0, "top1": 0.5, "top5": 0.75, "same_length_rank": 0.25, "p": 0.01, "gallery": gallery,
    }  # fmt: skip
    again = matching(json.loads(json.dumps(found)))
    assert again == matching(found) and ("first of all 4", "50.0 %", "25.0 %") in again.table.rows


def test_a_table_comes_as_csv_and_json_with_its_numbers_unrounded(tmp_path) -> None:
    rows = [["a, b", 1.23456789, 3], ["c", float("nan"), 4]]
    page = render("Title", "", [Section("Some rows", "", table=Table(("name", "x", "n"), rows))], tmp_path / "a.html")
    text = page.read_text()
    assert table_of(text, "Some rows") == [{"name": "a, b", "x": 1.23456789, "n": 3}, {"name": "c", "x": None, "n": 4}]
    found = re.search(r'download="some_rows.csv" href="data:text/csv;base64,([\w+/=]+)"', text)
    assert found and base64.b64decode(found[1]).decode() == 'name,x,n\n"a, b",1.23456789,3\nc,,4\n'


def pages(root: Path) -> list[Path]:
    """One page of each kind that is made without a training."""
    runs = [finished(root, f"a_run_with_a_long_name_{i}/seed{i}", seed=i, accuracy=0.9 - i / 50) for i in range(4)]
    found = [comparison.compare(runs, root / "comparison.html")]
    names = [f"word {i}" for i in range(10)]
    found.append(render(
        "Every chart", "With a word that is very long: " + "Antidisestablishmentarianism" * 3,
        [
            charts.confusion([[9 - abs(i - j) for j in range(10)] for i in range(10)], names),
            charts.spike_rates({f"blocks.{i}.attention.query": i / 20 for i in range(8)}),
            charts.class_counts({"train": list(range(10)), "test": [3] * 10}, names),
            charts.learning_curve([{"epoch": 1, "train_loss": 1, "valid_loss": 1, "valid_accuracy": 0.5}], 1),
            Section("Wide", "", table=Table([f"column {i}" for i in range(20)], [[i * 1000.5 for i in range(20)]])),
            Section("Text", "", text="Some text."),
        ],
        root / "charts.html", {"a fact": "42 %", "another": "3.1 mJ"},
    ))  # fmt: skip
    cli.main(["simulate", "network=s_vgg16", "batch_size=1", f"out={root / 'sim'}"])
    return [*found, root / "sim/report.html"]


def test_pages_are_whole_at_three_widths_in_light_and_dark_and_downloads_work(tmp_path) -> None:
    with chromium() as browser:
        made = pages(tmp_path)
        found = {
            (page.name, width, scheme): wrong
            for page in made for width in WIDTHS for scheme in ("light", "dark")
            if (wrong := complaints(browser, page.as_uri(), width, scheme))
        }  # fmt: skip
        assert found == {}
        tab = browser.new_page()
        tab.goto(made[0].as_uri())
        with tab.expect_download() as download:
            tab.click("text=CSV >> nth=0")
        assert download.value.suggested_filename == "results.csv"
        assert Path(download.value.path()).read_text().startswith("run,parameters,")


def test_the_browser_test_notices_what_it_looks_for(tmp_path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<body><p style='color:#999'>pale</p><div style='width:3000px'>wide</div>"
        "<p style='position:relative;left:-20px'>cut</p><img src='data:,'>"
        "<div class=stacks style='overflow:auto'><p style='width:900px'>broad</p></div>"
        "<main><svg width=20 height=20 role=img><text x=10 y=15>leaves</text></svg></main>"
        "<script>console.error('said')</script></body>"
    )
    with chromium() as browser:
        found = " ".join(complaints(browser, bad.as_uri(), 390, "light"))
    for said in (
        "said",
        "sideways",
        "contrast 2.85",
        "cut: cut",
        "a table that is stacked scrolls",
        "cut at the edge of a figure: leaves",
        "without a text",
    ):
        assert said in found, (said, found)
