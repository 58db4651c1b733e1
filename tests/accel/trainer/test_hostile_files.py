"""Files made to do harm: one line that names the file and what is wrong, in bounded time and length."""

import json
from dataclasses import asdict
from importlib import resources
from pathlib import Path

import pytest

from spikeloom.accel.common.report import Section, new_figure, render
from spikeloom.accel.learning.stochastic.files import load_network
from spikeloom.accel.trainer.baseline.nsight import read_counters
from spikeloom.accel.trainer.chip.chip import Chip
from spikeloom.accel.trainer.chip.document import ChipError
from spikeloom.accel.trainer.workload import Workload, WorkloadError
from spikeloom.pipelines.config.chips import load_chip
from tests.accel.trainer.networks import small_network

PRESETS = resources.files("spikeloom.conf") / "chips"


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_base_is_found_beside_the_file_or_among_the_presets(tmp_path: Path) -> None:
    clock = "clock_hz: {value: 100000000, unit: Hz, source: me, node_nm: 28, tier: assumed}\n"
    for base in ("cacti28.yaml", "cacti28"):
        mine = load_chip(str(written(tmp_path / "mine.yaml", f"base: {base}\nname: mine\n{clock}")))
        assert (mine.name, mine.clock_hz, mine.fp) == ("mine", 1e8, load_chip("cacti28").fp)
    assert load_chip(str(written(tmp_path / "cacti28.yaml", f"base: cacti28.yaml\n{clock}"))).clock_hz == 1e8
    assert load_chip(str(tmp_path / "mine.yaml")).clock_hz == 1e8  # on the file beside it now
    with pytest.raises(ChipError, match=r"no\.yaml: base: got 'nothing', no such file; .*neuromc\.yaml"):
        load_chip(str(written(tmp_path / "no.yaml", "base: nothing\n")))
    with pytest.raises(ChipError, match="a chip cannot build on itself"):
        Chip.from_yaml(written(tmp_path / "self.yaml", "base: self.yaml\n"))


def test_aliases_that_multiply_are_named_in_a_short_line(tmp_path: Path) -> None:
    lines = ["x0: &b0 [z,z,z,z,z,z,z,z]"] + [f"x{i}: &b{i} [{','.join([f'*b{i - 1}'] * 8)}]" for i in range(1, 12)]
    path = written(tmp_path / "bomb.yaml", "base: neuromc.yaml\n" + "\n".join(lines) + "\nname: *b11\n")
    with pytest.raises(ChipError, match=r"bomb\.yaml") as error:
        load_chip(str(path))
    assert len(str(error.value)) < 2000


@pytest.mark.parametrize("change", [
    {"macs_weight_gradient": 1}, {"time_steps": 10**12}, {"in_channels": 2**70}, {"kind": ["norm"] * 10**5},
    {"inputs": [0] * 10**5},
])  # fmt: skip
def test_a_workload_that_contradicts_itself_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    document = json.loads(json.dumps(asdict(small_network())))
    norm = next(layer for layer in document["layers"] if not layer["kind"].startswith("gemm"))
    norm.update(change)
    path = written(tmp_path / "w.json", json.dumps(document))
    with pytest.raises(WorkloadError, match=r"w\.json: layer") as error:
        Workload.from_json(path)
    assert len(str(error.value)) < 1000


def test_nested_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match=r"deep\.json: not a readable workload file"):
        Workload.from_json(written(tmp_path / "deep.json", "[" * 100_000))


HEAD = '"ID","Metric Name","Metric Unit","Metric Value"\n'


@pytest.mark.parametrize("text", [
    HEAD + '"0","dram__bytes_read.sum","Tbyte","1e308"\n', HEAD + '"0","dram__bytes_read.sum","byte","nan"\n',
    HEAD + '"0","dram__bytes_read.sum","byte"\n', HEAD + '"0","dram__bytes_read.sum","byte","' + "9" * 200_000 + '"\n',
    '"Metric Name Metric Value"\n"0"\n', HEAD + '"0","dram__bytes_read.sum","byte","-1"\n', HEAD,
    HEAD + "\0" + '"0","dram__bytes_read.sum","byte","x"\n',
])  # fmt: skip
def test_counters_that_cannot_be_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match=r"c\.csv: ") as error:
        read_counters(written(tmp_path / "c.csv", text))
    assert len(str(error.value)) < 600


@pytest.mark.parametrize(
    "text", ['{"network": 2147483648, "image": [1, 4]}', '{"network": {"rule": 3}}', "[]", '{"a": 1}']
)
def test_a_stochastic_model_of_another_shape_is_refused(tmp_path: Path, text: str) -> None:
    written(tmp_path / "config.json", text)
    with pytest.raises(ValueError, match=str(tmp_path)):
        load_network(tmp_path)


def test_names_with_dollars_are_no_formulas(tmp_path: Path) -> None:
    figure = new_figure(4, 2)
    figure.subplots().set_title("$x_{ ^ $")
    render("t", "x", [Section("t", "c", figure=figure)], tmp_path / "r.html")
    assert "$x_{ ^ $" in (tmp_path / "r.html").read_text(encoding="utf-8")
