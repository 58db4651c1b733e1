"""Released checkpoints: every key scheme there and back, and every mistake named."""

import argparse
import json
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file

from spikeloom.vision.convert import convert, identify, read_checkpoint, to_released
from spikeloom.vision.models.variants import create_model
from tests.vision.small import small

SCHEMES = {  # small model -> released tensors a checkpoint of these depths has, without the unused norms
    "spikingformer_cifar": 32 + 39 * 2,
    "spikingformer_imagenet": 32 + 39,
    "spikingformer_dvs": 32 + 39,
    "qkformer_cifar": None,
    "qkformer_imagenet": None,
    "qkformer_dvs": 122,
}


def with_unused(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The state with the two layer norms that released Spikingformer blocks carry."""
    out = dict(state)
    for key in [k for k in state if k.startswith("block.") and k.endswith("attn.q_conv.weight")]:
        for norm in ("norm1", "norm2"):
            for part in ("weight", "bias"):
                out[key.replace("attn.q_conv.weight", f"{norm}.{part}")] = torch.ones(state[key].shape[0])
    return out


@pytest.mark.parametrize("name", SCHEMES)
def test_every_scheme_there_and_back(name: str) -> None:
    model, x = small(name, batch=2)
    released = to_released(model)
    if SCHEMES[name] is not None:
        assert len(released) == SCHEMES[name]
    assert identify(released).scheme == name
    block = model.stages[0].blocks[0]
    heads = tuple(stage.blocks[0].attn.mix.heads for stage in model.stages)
    tau = block.attn.attn_lif.parameters_.tau
    described = {"num_heads": heads, "tau": tau, "T": 4, "model": name}
    converted = convert(with_unused(released), described)
    assert torch.equal(converted.model.eval()(x), model(x))
    n_blocks = len(model.stages[0].blocks)
    assert len(converted.dropped) == (4 * n_blocks if name.startswith("spikingformer") else 0)
    assert all(".norm" in key for key in converted.dropped)
    back = to_released(converted.model)
    assert all(torch.equal(back[key], value) for key, value in released.items()) and len(back) == len(released)


def test_released_files_have_the_published_number_of_tensors() -> None:
    def meta(name: str) -> dict[str, torch.Tensor]:
        with torch.device("meta"):
            return to_released(create_model(name))

    assert len(meta("qkformer_hst_10_384")) == 434
    assert len(meta("qkformer_hst_4_384")) == 200
    assert len(meta("qkformer_hst_2_256_cifar10dvs")) == 122
    with torch.device("meta"):
        released = with_unused(meta("spikingformer_8_384"))
        assert len(released) == 376
        converted = convert(released, name="spikingformer_8_384")
    assert len(released) - len(converted.dropped) == 344


def test_a_variant_is_found_by_its_sizes_or_asked_for() -> None:
    with torch.device("meta"):
        qk = to_released(create_model("qkformer_hst_4_384", num_classes=100))
        assert convert(qk).model.num_classes == 100
        sf = to_released(create_model("spikingformer_4_384", num_classes=100))
        with pytest.raises(ValueError, match=r"spikingformer_4_384 or spikingformer_cml_4_384.*model=NAME"):
            convert(sf)
        cml = convert(sf, name="spikingformer_cml_4_384").model
        assert cml.tokenizer == "cml" and cml.stages[0].blocks[0].attn.mix.heads == 8
        with pytest.raises(ValueError, match="choose the variant it was trained as"):
            convert(sf, name="spikingformer_2_384")
        with pytest.raises(ValueError, match="choose the variant"):
            convert(sf, name="qkformer_hst_4_384")
        with pytest.raises(ValueError, match="add heads=N"):
            convert(sf, name="spikingformer")
        own = convert(sf, name="spikingformer", heads=6, tau=1.5, T=2).model
        assert own.T == 2 and own.stages[0].blocks[0].attn.mix.heads == 6
        paper = to_released(create_model("qkformer_hst_2_256_dvs128", mlp_ratio=1))
        assert convert(paper, name="qkformer_hst_2_256_dvs128").model.num_classes == 11


def test_keys_and_shapes_that_do_not_fit_are_named() -> None:
    model, _ = small("qkformer_cifar", batch=2)
    released, described = to_released(model), {"num_heads": (4, 4, 1), "tau": 2.0, "T": 4}
    extra = {**released, "stage1.0.extra.weight": torch.ones(1)}
    with pytest.raises(ValueError, match=r"does not know stage1\.0\.extra\.weight"):
        convert(extra, described)
    norms = {**released, "stage1.0.norm1.weight": torch.ones(1)}
    with pytest.raises(ValueError, match=r"does not know stage1\.0\.norm1\.weight"):
        convert(norms, described)
    missing = {k: v for k, v in released.items() if k != "stage3.0.ssa.v_bn.bias"}
    with pytest.raises(ValueError, match=r"misses stage3\.0\.ssa\.v_bn\.bias"):
        convert(missing, described)
    shaped = {**released, "stage2.0.mlp.mlp2_bn.bias": torch.ones(7)}
    with pytest.raises(ValueError, match=r"stage2\.0\.mlp\.mlp2_bn\.bias has shape \(7,\)"):
        convert(shaped, described)
    with pytest.raises(ValueError, match="no table knows these keys"):
        convert({"layers.0.weight": torch.ones(1)})
    with pytest.raises(ValueError, match=r"head\.weight is of 0 classes"):
        convert({**released, "head.weight": torch.ones(0, 32)}, described)
    with pytest.raises(ValueError, match=r"metadata lacks num_heads, tau, T; .*model=NAME"):
        convert(released, {"hello": 1, "model": ""})


def test_a_stray_key_is_unknown_and_makes_no_block() -> None:
    model, _ = small("qkformer_cifar", batch=2)
    released, described = to_released(model), {"num_heads": (4, 4, 1), "tau": 2.0, "T": 4}
    with pytest.raises(ValueError, match=r"does not know stage1\.5\.foo; "):
        convert({**released, "stage1.5.foo": torch.ones(1)}, described)
    model, _ = small("spikingformer_cifar", batch=2)
    stray = {**with_unused(to_released(model)), "block.9.norm1.weight": torch.ones(32)}
    with pytest.raises(ValueError, match=r"does not know block\.9\.norm1\.weight; "):
        convert(stray, {**described, "num_heads": 1})
    halved = {k: v for k, v in released.items() if "bn" not in k}
    with pytest.raises(ValueError, match=r"misses [^,]+, [^,]+, [^,]+, … \(\d+ in all\); give"):
        convert(halved, described)


def test_the_ms_form_is_refused_by_its_residuals() -> None:
    with torch.device("meta"):
        released = to_released(create_model("qkformer_hst_4_384"))
        with pytest.raises(ValueError, match=r"form ms, .* those of sew, .*; choose qkformer_hst_4_384"):
            convert(released, name="ms_qkformer_hst_4_384")


def test_files_of_every_wrapping_are_read(tmp_path) -> None:
    model, _ = small("qkformer_cifar", batch=2)
    released = to_released(model)
    namespace = argparse.Namespace(lr=0.1, model="QKFormer")
    wrappings = {
        "plain.pth": released,
        "timm.pth.tar": {"state_dict": OrderedDict(released), "epoch": 3, "args": namespace},
        "parallel.pth": {"model": {f"module.{k}": v for k, v in released.items()}, "optimizer": {"state": {}}},
    }
    for name, held in wrappings.items():
        torch.save(held, tmp_path / name)
        state, described = read_checkpoint(tmp_path / name)
        assert described == {} and set(state) == set(released)
    save_file(
        {f"state/{k}": v.contiguous() for k, v in released.items()}, tmp_path / "golden.safetensors",
        {"config": json.dumps({"num_heads": [4, 4, 1], "tau": 2.0, "T": 4}), "model": "QKFormer"},
    )  # fmt: skip
    state, described = read_checkpoint(tmp_path / "golden.safetensors")
    assert set(state) == set(released) and described["num_heads"] == [4, 4, 1]
    (tmp_path / "renamed.pth").write_bytes((tmp_path / "golden.safetensors").read_bytes())
    again, described = read_checkpoint(tmp_path / "renamed.pth")
    assert set(again) == set(released) and described["num_heads"] == [4, 4, 1]


def test_files_that_hold_something_else_are_named(tmp_path) -> None:
    class Surprise:
        pass

    import tests.vision.test_convert as here

    here.Surprise = Surprise
    Surprise.__qualname__ = "Surprise"
    torch.save({"model": Surprise()}, tmp_path / "code.pth")
    with pytest.raises(ValueError, match=r"code\.pth holds more than tensors \([\w.]*Surprise\); save its") as refused:
        read_checkpoint(tmp_path / "code.pth")
    assert "weights_only" not in str(refused.value) and "\x1b" not in str(refused.value)
    (tmp_path / "notes.pth").write_text("accuracy 95 %, weights to follow")
    with pytest.raises(ValueError, match=r"notes\.pth cannot be read \(no checkpoint of PyTorch\)"):
        read_checkpoint(tmp_path / "notes.pth")
    torch.save({"head.weight": torch.ones(2), "head.bias": torch.tensor([1.0, float("nan")])}, tmp_path / "nan.pth")
    with pytest.raises(ValueError, match=r"nan\.pth holds NaN or infinity in head\.bias"):
        read_checkpoint(tmp_path / "nan.pth")
    save_file({"head.bias": torch.ones(2)}, tmp_path / "list.safetensors", {"config": "[1, 2]"})
    with pytest.raises(ValueError, match=r"list\.safetensors: config in its metadata is no JSON object"):
        read_checkpoint(tmp_path / "list.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00")
    with pytest.raises(ValueError, match=r"cut\.safetensors cannot be read"):
        read_checkpoint(tmp_path / "cut.safetensors")
    (tmp_path / "empty.pth").write_bytes(b"")
    with pytest.raises(ValueError, match=r"empty\.pth"):
        read_checkpoint(tmp_path / "empty.pth")
    torch.save({"epoch": 3}, tmp_path / "none.pth")
    with pytest.raises(ValueError, match="no state_dict"):
        read_checkpoint(tmp_path / "none.pth")
    with pytest.raises(ValueError, match="is not a file"):
        read_checkpoint(tmp_path / "absent.pth")
