"""Checkpoints as training scripts write them: which weights are taken is chosen and said, wrappers are left out."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from spikeloom.vision.checkpoints import EMA, PLAIN, open_checkpoint

STATE = {"stem.weight": torch.ones(2, 3), "head.bias": torch.zeros(4)}
AVERAGE = {key: value + 0.5 for key, value in STATE.items()}


def saved(path: Path, held: Any) -> Path:
    torch.save(held, path)
    return path


def prefixed(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


def assert_is(found: dict[str, Tensor], state: dict[str, Tensor]) -> None:
    assert set(found) == set(state)
    assert all(torch.equal(found[key], state[key]) for key in state)


@pytest.mark.parametrize("ema", EMA)
@pytest.mark.parametrize("plain", PLAIN)
def test_averaged_weights_are_taken_where_they_are_and_the_choice_is_said(tmp_path: Path, ema: str, plain: str) -> None:
    path = saved(tmp_path / "both.pth", {plain: STATE, ema: AVERAGE, "epoch": 3})
    for asked, state, said in ((None, AVERAGE, "ema"), ("ema", AVERAGE, "ema"), ("plain", STATE, "plain")):
        found = open_checkpoint(path, asked)
        assert_is(found.state, state)
        assert (found.weights, found.both) == (said, True)


def test_a_file_of_one_kind_says_so_where_the_other_is_asked(tmp_path: Path) -> None:
    plain = saved(tmp_path / "plain.pth", {"model": STATE, "args": {"lr": 1.0}})
    found = open_checkpoint(plain)
    assert (found.weights, found.both) == ("plain", False)
    assert_is(found.state, STATE)
    with pytest.raises(ValueError, match=r"plain\.pth holds no averaged weights .*; use weights=plain"):
        open_checkpoint(plain, "ema")
    averaged = saved(tmp_path / "ema.pth", {"state_dict_ema": AVERAGE})
    assert_is(open_checkpoint(averaged).state, AVERAGE)
    with pytest.raises(ValueError, match=r"ema\.pth holds averaged weights alone; use weights=ema"):
        open_checkpoint(averaged, "plain")
    with pytest.raises(ValueError, match="weights=both is unknown; use ema or plain"):
        open_checkpoint(plain, "both")


@pytest.mark.parametrize(
    "prefix", ["_orig_mod.", "module.", "model.", "net.", "module._orig_mod.", "_orig_mod.module."]
)
def test_prefixes_of_every_key_are_left_out_and_said(tmp_path: Path, prefix: str) -> None:
    found = open_checkpoint(saved(tmp_path / "a.pth", {"state_dict": prefixed(STATE, prefix)}))
    assert_is(found.state, STATE)
    assert len(found.notes) == 1
    assert prefix.split(".")[0] in found.notes[0]


def test_prefixes_inside_are_left_out_and_those_of_a_scheme_stay(tmp_path: Path) -> None:
    compiled = {"_orig_mod.stem.weight": STATE["stem.weight"], "head._orig_mod.bias": STATE["head.bias"]}
    assert_is(open_checkpoint(saved(tmp_path / "a.pth", compiled)).state, STATE)
    sew = {"layer1.0.conv1.module.0.weight": torch.ones(1), "conv1.weight": torch.ones(2)}
    assert_is(open_checkpoint(saved(tmp_path / "b.pth", sew)).state, sew)
    twice = {"_orig_mod.head.bias": torch.ones(2), "head.bias": torch.ones(2)}
    with pytest.raises(ValueError, match="holds tensors twice"):
        open_checkpoint(saved(tmp_path / "c.pth", twice))


def test_wrappers_in_wrappers_and_counts_are_left_out(tmp_path: Path) -> None:
    counted = {
        **STATE,
        "total_ops": torch.zeros(1),
        "stem.total_ops": torch.zeros(1),
        "stem.total_params": torch.ones(1),
    }
    found = open_checkpoint(saved(tmp_path / "a.pth", {"net": {"params": counted}}))
    assert_is(found.state, STATE)
    assert found.notes == ("3 counts that are no weights left out (stem.total_ops, stem.total_params, total_ops)",) or (
        "3 counts that are no weights left out" in found.notes[0]
    )
    averaged = {
        "model_ema": {"module": {**prefixed(AVERAGE, "module."), "n_averaged": torch.tensor(7)}},
        "model": STATE,
    }
    assert_is(open_checkpoint(saved(tmp_path / "b.pth", averaged)).state, AVERAGE)


@pytest.mark.parametrize("held", [{}, {"epoch": 3}, [1, 2], {"model": {}}, {"state_dict": {"a": "text"}}])
def test_a_file_without_weights_is_named(tmp_path: Path, held: Any) -> None:
    with pytest.raises(ValueError, match=r"a\.pth holds no state_dict"):
        open_checkpoint(saved(tmp_path / "a.pth", held))
