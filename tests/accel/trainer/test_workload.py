"""A workload survives the way through its file, and a damaged file is refused with its fault named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spikeloom.accel.trainer.workload import Density, Layer, Workload, WorkloadError
from tests.accel.trainer.networks import conv, resnet18, small_network, workload


def test_a_workload_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "workload.json"
    for original in (small_network(), resnet18()):
        original.to_json(path)
        assert Workload.from_json(path) == original


def test_equal_workloads_give_equal_bytes_and_no_stray_files(tmp_path: Path) -> None:
    small_network().to_json(tmp_path / "a.json")
    small_network().to_json(tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "b.json"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "workload.json"
    small_network().to_json(path)
    before = path.read_bytes()
    unwritable = small_network()
    object.__setattr__(unwritable, "source", {"a": object()})  # what no constructor lets through
    with pytest.raises(TypeError):
        unwritable.to_json(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["workload.json"]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda d: d["layers"][3].pop("groups"), ["layer 'block.conv'", "field groups is missing"]),
        (lambda d: d["layers"][3].update(kind="magic"), ["layer 'block.conv'", "kind", "'magic'", "gemm_weight"]),
        (lambda d: d["layers"][3].update(input_kind="grey"), ["layer 'block.conv'", "input_kind", "'grey'", "ternary"]),
        (lambda d: d["layers"][3]["density_input"].update(mean=1.5), ["block.conv", "density_input.mean", "1.5"]),
        (lambda d: d["layers"][3]["density_input"].update(per_step=[0, -1]), ["density_input.per_step[1]", "-1"]),
        (lambda d: d["layers"][3].update(out_height=-4), ["layer 'block.conv'", "out_height", "-4", ">= 1"]),
        (lambda d: d["layers"][3].update(parameters=-1), ["layer 'block.conv'", "parameters", "-1"]),
        (lambda d: d["layers"][3].update(batch_size=True), ["layer 'block.conv'", "batch_size", "True"]),
        (lambda d: d["layers"][3].update(stride=[2]), ["layer 'block.conv'", "stride", "(2,)"]),
        (lambda d: d["layers"][3].update(groups=3), ["layer 'block.conv'", "groups", "3", "divide"]),
        (lambda d: d["layers"][3].update(macs_forward=17), ["layer 'block.conv'", "macs_forward", "17"]),
        (lambda d: d["layers"][3].update(macs_backward=17), ["layer 'block.conv'", "macs_backward", "17"]),
        (lambda d: d["layers"][2].update(neuron=None), ["layer 'stem.neuron'", "neuron", "None"]),
        (lambda d: d["layers"][2]["neuron"].update(reset="medium"), ["stem.neuron", "neuron.reset", "'medium'"]),
        (lambda d: d["layers"][2]["neuron"].pop("decay"), ["layer 'stem.neuron'", "decay is missing"]),
        (lambda d: d["layers"][2].update(path="stem"), ["layer 'stem'", "twice"]),
        (lambda d: d["layers"][2].update(colour="red"), ["layer 'stem.neuron'", "colour", "'red'", "unknown"]),
        (lambda d: d["layers"].append(3), ["layers[8]", "3", "object"]),
        (lambda d: d.update(layers={}), ["layers", "{}", "list"]),
        (lambda d: d.update(schema="spikeloom.workload/9"), ["schema", "spikeloom.workload/9", "spikeloom.workload/1"]),
        (lambda d: d.pop("dtype"), ["dtype", "missing"]),
        (lambda d: d.update(time_steps=0), ["time_steps", "0"]),
    ],
)  # fmt: skip
def test_a_damaged_file_is_refused_by_name(
    tmp_path: Path, damage: Callable[[dict[str, Any]], object], words: list[str]
) -> None:
    path = tmp_path / "workload.json"
    small_network().to_json(path)
    document = json.loads(path.read_text(encoding="utf-8"))
    damage(document)
    path.write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(WorkloadError) as caught:
        Workload.from_json(path)
    for word in (*words, str(path), "re-export with `spikeloom export run=DIR`"):
        assert word in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema": "spikeloom.workload/1"', "\x00"])
def test_a_truncated_file_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "workload.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(WorkloadError, match="re-export") as caught:
        Workload.from_json(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match=r"absent\.json.*re-export"):
        Workload.from_json(tmp_path / "absent.json")


def test_a_convolution_over_time_has_one_position_for_each_step() -> None:
    layer = Layer(
        path="conv", op="aten.conv1d.default", kind="gemm_weight", in_channels=6, out_channels=6, groups=6,
        kernel=(1, 31), padding=(0, 15), time_steps=100, batch_size=4, macs_forward=6 * 31 * 400,
        macs_weight_gradient=6 * 31 * 400, input_kind="binary", input_bits=1, parameters=6 * 31,
    )  # fmt: skip
    assert (layer.positions, layer.taps, layer.elements) == (1, 31, 6 * 400)


def test_densities_are_fractions() -> None:
    assert Density(mean=0.0, min=0.0, max=1.0).per_step == ()
    for bad in (-0.1, 1.1, float("nan"), None, "0.5", True):
        with pytest.raises(WorkloadError, match="mean"):
            Density(mean=bad, min=0.0, max=1.0)  # type: ignore[arg-type]


def test_sizes_that_do_not_make_the_macs_are_refused() -> None:
    with pytest.raises(WorkloadError, match=r"'c'.*macs_forward"):
        conv("c", 4, 4, 4, out_height=3)
    assert workload(conv("c", 4, 4, 4, macs_backward=0)).layers[0].macs_backward == 0
