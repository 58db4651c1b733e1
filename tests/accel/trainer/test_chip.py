"""A chip file says where each number comes from, and all faults of a bad one are told at once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from spikeloom.accel.trainer.chip.chip import Chip
from spikeloom.accel.trainer.chip.document import ChipError
from tests.accel.trainer.networks import NEUROMC, chip, chip_mapping


def test_the_preset_has_the_published_chip() -> None:
    preset = Chip.from_yaml(NEUROMC)
    assert (preset.name, preset.cores.count, preset.node_nm) == ("neuromc", 20, 32)
    assert (preset.fp.rows, preset.fp.columns, preset.fp.dataflow, preset.wg.dataflow) == (16, 16, "ws", "os")
    assert preset.fp.memories["weight"].size_bits == 18_432
    assert preset.fp.memories["potential"].read_element_pj(16) == pytest.approx(92.68282828 / 16)
    assert preset.fp.memories["spike"].write_element_pj(1) == pytest.approx(7.176767677 / 16)
    assert not preset.energy.include_dram


def test_every_number_has_an_origin() -> None:
    rows = Chip.from_yaml(NEUROMC).provenance()
    assert len({row.path for row in rows}) == len(rows)
    assert all(row.source and row.unit and row.node_nm > 0 for row in rows)
    assert {row.tier for row in rows} <= {"published", "derived", "fit", "assumed"}
    by_path = {row.path: row for row in rows}
    assert by_path["clock_hz"].tier == "assumed"
    assert by_path["ops.add_pj"].tier == "published"
    assert by_path["ops.add_pj"].value == 0.548
    # As many rows as the file has numbers with a value.
    assert len(rows) == _count_values({key: node for key, node in chip_mapping().items() if key != "templates"})


def _count_values(node: Any) -> int:
    if not isinstance(node, dict):
        return 0
    if "value" in node:
        return len(node["value"]) if isinstance(node["value"], list) else 1
    return sum(_count_values(child) for child in node.values())


FAULTS: list[tuple[Callable[[dict[str, Any]], object], list[str]]] = [
    (lambda d: d.update(colour="red"), ["colour: unknown key"]),
    (lambda d: d["ops"].update(div_pj=1), ["ops.div_pj: unknown key", "sqrt_pj"]),
    (lambda d: d["ops"].pop("mul_pj"), ["ops.mul_pj: missing"]),
    (lambda d: d["ops"]["add_pj"].update(value=-0.5), ["ops.add_pj", "-0.5 pJ", "from 0 to"]),
    (lambda d: d["ops"]["add_pj"].update(value=float("nan")), ["ops.add_pj", "nan pJ"]),
    (lambda d: d["ops"]["add_pj"].update(value="1e3"), ["ops.add_pj", "'1e3' pJ"]),
    (lambda d: d["ops"]["add_pj"].pop("unit"), ["ops.add_pj.unit: missing"]),
    (lambda d: d["ops"]["add_pj"].update(unit="nJ"), ["ops.add_pj", "0.548", "'nJ'", "pJ"]),
    (lambda d: d["ops"]["add_pj"].update(source=" "), ["ops.add_pj.source"]),
    (lambda d: d["ops"]["add_pj"].update(tier="guess"), ["ops.add_pj.tier", "'guess'", "assumed"]),
    (lambda d: d["ops"]["add_pj"].update(node_nm=0), ["ops.add_pj.node_nm"]),
    (lambda d: d["ops"].update(add_pj=0.548), ["ops.add_pj", "0.548", "source, node_nm, tier", "pJ"]),
    (lambda d: d["memories"]["soma_u"]["size_bits"].update(value=0), ["memories.soma_u.size_bits", "0 bit", "from 1"]),
    (lambda d: d["memories"]["soma_u"]["size_bits"].update(value=1.5), ["memories.soma_u.size_bits", "whole number"]),
    (lambda d: d["memories"]["soma_u"].update(scope="moon"), ["memories.soma_u.scope", "'moon'", "engine"]),
    (lambda d: d["memories"].update(soma_u=3), ["memories.soma_u", "3", "mapping"]),
    (lambda d: d.update(memories=[1]), ["memories", "[1]", "mapping"]),
    (lambda d: d["cores"]["mesh"].update(value=[4, 4]), ["cores.mesh", "[4, 4] cores", "cores.count = 20"]),
    (lambda d: d["cores"]["mesh"].update(value=[4]), ["cores.mesh", "2 numbers"]),
    (lambda d: d["engines"]["fp"]["memories"].update(input="attic"), ["engines.fp.memories.input", "'attic'"]),
    (lambda d: d["engines"]["fp"]["memories"].pop("mask"), ["engines.fp.memories.mask: missing"]),
    (lambda d: d["engines"]["bp"].update(dataflow="rs"), ["engines.bp.dataflow", "'rs'", "ws, os, is"]),
    (lambda d: d["engines"]["bp"].update(zero_gating=["input"]), ["engines.bp.zero_gating", "du, weight"]),
    (lambda d: d["engines"]["fp"].update(zero_gating=["input", "input"]), ["engines.fp.zero_gating"]),
    (lambda d: d["engines"]["wg"].update(zero_skipping=["weight"]), ["engines.wg.zero_skipping", "input, du"]),
    (lambda d: d["engines"].pop("wg"), ["engines.wg: missing"]),
    (lambda d: d["energy"].update(include_dram=1), ["energy.include_dram", "1", "True, False"]),
    (lambda d: d["mapping"].update(membrane="forget"), ["mapping.membrane", "'forget'", "store, recompute"]),
    (lambda d: d["shared"].update(norm=["x"]), ["shared.norm", "['x']"]),
    (lambda d: d.update(name=""), ["name"]),
]


@pytest.mark.parametrize(("damage", "words"), FAULTS)
def test_a_fault_is_named(damage: Callable[[dict[str, Any]], object], words: list[str]) -> None:
    mapping = chip_mapping()
    damage(mapping)
    with pytest.raises(ChipError) as caught:
        Chip.from_mapping(mapping, "bad.yaml")
    assert str(caught.value).startswith("bad.yaml: 1 fault")
    for word in words:
        assert word in str(caught.value)


def test_all_faults_are_told_at_once() -> None:
    mapping = chip_mapping()
    mapping["ops"]["add_pj"]["value"] = -1
    mapping["cores"]["mesh"]["value"] = [1, 1]
    mapping["noc"].pop("hop_ns")
    with pytest.raises(ChipError, match=r"3 fault(.|\n)*cores\.mesh(.|\n)*ops\.add_pj(.|\n)*noc\.hop_ns: missing"):
        Chip.from_mapping(mapping, "bad.yaml")


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ChipError, match=r"absent\.yaml"):
        Chip.from_yaml(tmp_path / "absent.yaml")
    (tmp_path / "torn.yaml").write_text("ops: {add_pj: {value", encoding="utf-8")
    with pytest.raises(ChipError, match=r"torn\.yaml"):
        Chip.from_yaml(tmp_path / "torn.yaml")
    (tmp_path / "list.yaml").write_text(yaml.safe_dump([1, 2]), encoding="utf-8")
    with pytest.raises(ChipError, match=r"list\.yaml.*(.|\n)*mapping"):
        Chip.from_yaml(tmp_path / "list.yaml")


def test_gating_lists_are_read() -> None:
    assert chip(engines__bp__zero_gating=["du", "weight"]).bp.zero_gating == ("du", "weight")
