"""The published variants: their exact sizes, and the interface that image models share."""

import json
from pathlib import Path

import pytest
import torch

from spikeloom.accel.spiking.neuron import LIF
from spikeloom.vision.models.resnets import RESNETS
from spikeloom.vision.models.spiking_transformer import SpikingTransformer
from spikeloom.vision.models.variants import MODELS, create_model, list_models

# name, options, parameters, buffers of the released code, convolutions + linear layers, neurons (of the released form)
PUBLISHED = [
    ("qkformer_hst_10_384", {}, 16_473_688, 60_259, 68, 77),
    ("qkformer_hst_10_512", {}, 29_079_336, 80_323, 68, 77),
    ("qkformer_hst_10_768", {}, 64_962_760, 120_451, 68, 77),
    ("qkformer_hst_4_384", {}, 6_706_234, 22_399, 32, 35),
    ("qkformer_hst_4_384", {"num_classes": 100}, 6_740_884, 22_399, 32, 35),
    ("qkformer_hst_2_256_cifar10dvs", {}, 1_504_138, 6_643, 20, 21),
    ("qkformer_hst_2_256_dvs128", {}, 1_999_371, 8_947, 20, 21),
    ("qkformer_hst_2_256_dvs128", {"mlp_ratio": 1}, 1_504_395, 6_643, 20, 21),
    ("spikingformer_8_384", {}, 16_816_024, 57_557, 54, 60),
    ("spikingformer_8_512", {}, 29_689_384, 76_725, 54, 60),
    ("spikingformer_8_768", {}, 66_338_632, 115_061, 54, 60),
    ("spikingformer_4_256", {}, 4_152_106, 19_933, 30, 32),
    ("spikingformer_4_256", {"num_classes": 100}, 4_175_236, 19_933, 30, 32),
    ("spikingformer_2_384", {}, 5_762_746, 16_049, 18, 18),
    ("spikingformer_2_384", {"num_classes": 100}, 5_797_396, 16_049, 18, 18),
    ("spikingformer_4_384", {}, 9_320_122, 29_885, 30, 32),
    ("spikingformer_4_384", {"num_classes": 100}, 9_354_772, 29_885, 30, 32),
    ("spikingformer_2_256_dvs", {}, 2_566_666, 10_705, 18, 18),
    ("spikingformer_2_256_dvs", {"num_classes": 11}, 2_566_923, 10_705, 18, 18),
]
ROWS = [
    *PUBLISHED,
    *((f"ms_{name}", *row) for name, *row in PUBLISHED if name.startswith("qkformer")),
    *((name.replace("former_", "former_cml_"), *row) for name, *row in PUBLISHED if name.startswith("spikingformer")),
]


def on_meta(name: str, **options: object) -> SpikingTransformer:
    with torch.device("meta"):
        return create_model(name, **options)


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def count(module: torch.nn.Module, *kinds: type) -> int:
    return sum(isinstance(m, kinds) for m in module.modules())


@pytest.mark.parametrize(("name", "options", "n_parameters", "n_buffers", "layers", "neurons"), ROWS)
def test_sizes_are_the_published_ones(name, options, n_parameters, n_buffers, layers, neurons) -> None:
    model = on_meta(name, **options)
    assert parameters(model) == n_parameters
    assert sum(b.numel() for b in model.buffers()) == n_buffers
    assert count(model, torch.nn.Conv2d, torch.nn.Linear) == layers
    if not name.startswith("ms_"):
        assert count(model, LIF) == neurons


def test_every_published_model_is_in_the_table() -> None:
    assert {name for name in MODELS if not name.startswith("maxformer")} - {name for name, *_ in ROWS} == {
        "spikingformer_digits", "qkformer_digits", "ms_qkformer_digits"
    }  # fmt: skip
    assert parameters(on_meta("spikingformer_digits")) == 163_522


@pytest.mark.parametrize("name", [name for name, options, *_ in ROWS if not options])
def test_modules_have_the_sizes_of_their_closed_forms(name: str) -> None:
    model = on_meta(name)
    n_in = model.in_chans
    for i, stage in enumerate(model.stages):
        width = model.feature_info[i]["num_chs"]
        for block in stage.blocks:
            ratio = block.mlp.up.conv.out_channels // width
            ssa = block.attn.kind == "ssa"
            squares, lines = (4 + 2 * ratio, 12 + 3 * ratio) if ssa else (3 + 2 * ratio, 10 + 3 * ratio)
            assert parameters(block) == squares * width**2 + lines * width
        if model.tokenizer != "speds":
            expected = 9 * n_in * width / 8 + 14.90625 * width**2 + 5.75 * width
        elif i > 0:
            expected = 14 * width**2 + 6 * width
        else:
            a, b, c = {"imagenet": (4.5, 14, 7), "cifar": (4.5, 5, 5), "dvs": (1.125, 6.15625, 5.75)}[model.layout]
            expected = a * n_in * width + b * width**2 + c * width
        assert parameters(stage.embed) == expected
    assert parameters(model.head) == (model.num_features + 1) * model.num_classes


def test_published_heads_and_time_constants() -> None:
    def heads(name: str, **options: object) -> list[int]:
        return [block.attn.mix.heads for stage in on_meta(name, **options).stages for block in stage.blocks]

    assert set(heads("spikingformer_4_384")) == {12} and set(heads("spikingformer_4_384", num_classes=100)) == {8}
    assert set(heads("spikingformer_4_256")) == set(heads("spikingformer_8_768")) == {8}
    assert set(heads("qkformer_hst_10_384")) == {6} and set(heads("qkformer_hst_10_768")) == {12}
    assert set(heads("qkformer_hst_4_384")) == {8} and set(heads("spikingformer_2_256_dvs")) == {16}

    def tau(name: str, **options: object) -> set[float]:
        return {m.parameters_.tau for m in on_meta(name, **options).modules() if type(m).__name__ == "LIF"}

    assert tau("spikingformer_4_384") == tau("qkformer_hst_2_256_dvs128") == {2.0}
    assert tau("spikingformer_2_256_dvs") == tau("spikingformer_cml_2_256_dvs") == {1.5}
    assert tau("spikingformer_cml_2_256_dvs", num_classes=11) == {1.75}


def test_models_are_found_by_name_and_pattern() -> None:
    assert list_models("ms_*") == sorted(name for name in MODELS if name.startswith("ms_"))
    assert list_models() == sorted([*MODELS, *RESNETS])
    with pytest.raises(ValueError, match="did you mean spikingformer_4_384"):
        create_model("spikingformer_4_383")
    with pytest.raises(TypeError, match="unknown argument windw"):
        create_model("spikingformer_4_384", windw=3)
    with pytest.raises(ValueError, match="spikeloom convert"):
        create_model("spikingformer_digits", pretrained=True)


def saved_and_loaded(model: SpikingTransformer, folder: Path) -> SpikingTransformer:
    model.save_pretrained(folder)
    return SpikingTransformer.from_pretrained(folder)


@pytest.mark.parametrize("classes", [7, 0])
def test_a_changed_classifier_and_input_size_are_saved(classes: int, tmp_path: Path) -> None:
    model = create_model("spikingformer_digits").eval()
    model.reset_classifier(classes)
    model.set_input_size((32, 48))
    loaded = saved_and_loaded(model, tmp_path).eval()
    assert loaded.num_classes == classes
    assert tuple(loaded.pretrained_cfg["input_size"]) == (1, 32, 48)
    x = torch.randn(2, 1, 16, 16)
    assert torch.equal(loaded(x), model(x))


def test_a_new_classifier_is_where_and_what_the_model_is() -> None:
    model = create_model("spikingformer_digits").to(torch.bfloat16)
    model.reset_classifier(3)
    assert model.head.weight.dtype == torch.bfloat16
    with pytest.raises(ValueError, match="num_classes must be at least 0"):
        model.reset_classifier(-1)


def test_a_saved_configuration_with_an_unknown_name_is_refused(tmp_path: Path) -> None:
    create_model("spikingformer_digits").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["taux"] = config.pop("tau")
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(TypeError, match="unknown argument taux"):
        SpikingTransformer.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("name", "options", "size", "mean"),
    [
        ("spikingformer_digits", {}, [1, 16, 16], [0.3053]),
        ("spikingformer_8_384", {"in_chans": 1}, [1, 224, 224], [0.0]),
        ("spikingformer_4_384", {"in_chans": 4}, [4, 32, 32], [0.0] * 4),
        ("spikingformer_2_256_dvs", {}, [2, 128, 128], [0.0, 0.0]),
        ("qkformer_hst_4_384", {"num_classes": 100}, [3, 32, 32], [0.5071, 0.4865, 0.4409]),
    ],
)
def test_a_configuration_says_how_these_channels_are_fed(name, options, size, mean) -> None:
    cfg = on_meta(name, **options).pretrained_cfg
    assert cfg["input_size"] == size
    assert cfg["mean"] == mean
    assert len(cfg["std"]) == len(mean)


def test_a_given_configuration_wins() -> None:
    given = {"crop_pct": 1.0, "first_conv": "x"}
    assert given.items() <= on_meta("qkformer_hst_10_384", pretrained_cfg=given).pretrained_cfg.items()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depths": [-1]}, "depths must be at least 1, got -1"),
        ({"widths": (0,)}, "widths must be at least 1, got 0"),
        ({"in_chans": 0}, "in_chans must be at least 1, got 0"),
        ({"num_classes": -1}, "num_classes must be at least 0"),
        ({"mlp_ratio": 0}, "mlp_ratio=0 leaves a width of 64 without hidden channels"),
        ({"T": 2.5}, "T must be at least 1 step and a whole number, got 2.5"),
    ],
)
def test_sizes_that_no_network_has_are_refused(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        create_model("spikingformer_digits", **options)


def test_an_unknown_argument_is_refused_even_without_a_value() -> None:
    with pytest.raises(TypeError, match="unknown argument foo"):
        create_model("spikingformer_digits", foo=None)


@pytest.mark.parametrize("indices", [0, 4, -1])
def test_a_number_of_stages_that_a_model_lacks_is_refused(indices: int) -> None:
    model = create_model("qkformer_digits").eval()
    with pytest.raises(ValueError, match=f"indices={indices} asks for the last"):
        model.forward_intermediates(torch.randn(1, 1, 16, 16), indices=indices)
    assert model.forward_intermediates(torch.randn(1, 1, 16, 16), [], stop_early=True, intermediates_only=True) == []


def test_pictures_of_whole_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must be floating point, got torch\.uint8"):
        create_model("spikingformer_digits")(torch.zeros(1, 1, 16, 16, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("name", "options", "parameters", "tensors"),
    [
        ("maxformer_10_384", {}, 16_237_240, 398), ("maxformer_10_512", {}, 28_653_480, 398),
        ("maxformer_10_768", {}, 63_992_200, 398), ("maxformer_4_384", {}, 6_568_282, 169),
        ("maxformer_4_384", {"num_classes": 100}, 6_602_932, 169), ("maxformer_2_256_cifar10dvs", {}, 1_455_626, 110),
        ("maxformer_2_256_dvs128", {}, 1_455_883, 110), ("ms_qkformer_hst_4_384", {}, 6_706_234, 200),
        ("ms_qkformer_hst_10_384", {}, 16_473_688, 434),
        ("ms_qkformer_hst_2_256_dvs128", {"mlp_ratio": 1}, 1_504_395, 122),
    ],
)  # fmt: skip
def test_max_formers_have_the_published_sizes(name: str, options: dict, parameters: int, tensors: int) -> None:
    with torch.device("meta"):
        model = create_model(name, **options)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert len(model.state_dict()) == tensors
