"""What every vision model promises about batches, time, shapes and errors."""

import pytest
import torch
from torch import nn

from spikeloom.accel.spiking.neuron import LIF
from spikeloom.vision.models.spiking_transformer import SpikingTransformer
from spikeloom.vision.models.variants import create_model
from tests.vision.small import SMALL, images, small

EVERY = pytest.mark.parametrize("name", SMALL)


def select(x: torch.Tensor, samples: list[int]) -> torch.Tensor:
    return x[:, samples] if x.dim() == 5 else x[samples]


@EVERY
@torch.no_grad()
def test_a_sample_does_not_feel_its_batch(name: str) -> None:
    model, x = small(name, batch=4)
    together = model(x)
    alone = torch.cat([model(select(x, [i])) for i in range(4)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
    assert torch.equal(model(x), together), "a model remembers"
    changed = x.clone()
    select(changed, [0]).copy_(select(x, [0]).flip(-1))
    changed = torch.cat((select(x, [0]).flip(-1), select(x, [1, 2, 3])), dim=x.dim() - 4)
    torch.testing.assert_close(model(changed)[1:], together[1:], atol=1e-5, rtol=0)
    for order in ([3, 1, 0, 2], [1, 2, 3, 0], [2, 3, 1, 0]):
        torch.testing.assert_close(model(select(x, order)), together[order], atol=1e-5, rtol=0)


@EVERY
@torch.no_grad()
def test_what_comes_later_changes_no_earlier_spike(name: str) -> None:
    model, x = small(name, batch=2)
    frames = x if x.dim() == 5 else torch.stack([x * (1 + 0.3 * t) for t in range(6)])

    def fired(y: torch.Tensor) -> list[torch.Tensor]:
        found: list[torch.Tensor] = []
        hooks = [
            m.register_forward_hook(lambda m, a, out: found.append(out[0]))
            for m in model.modules()
            if isinstance(m, LIF)
        ]
        model(y)
        for hook in hooks:
            hook.remove()
        return found

    for early, whole in zip(fired(frames[:2]), fired(frames), strict=True):
        assert torch.equal(early, whole[:2])


@EVERY
@torch.no_grad()
def test_frame_by_frame_gives_the_spikes_of_the_whole(name: str) -> None:
    model, x = small(name, batch=2)
    frames = x if x.dim() == 5 else torch.stack([x * (1 + 0.3 * t) for t in range(4)])
    state, logits = None, []
    for frame in frames:
        y, state = model.step(frame, state)
        logits.append(y)
    torch.testing.assert_close(torch.stack(logits).mean(0), model(frames), atol=1e-5, rtol=0)
    whole, state = model(frames), None
    for frame in frames:  # a second stream starts from nothing
        _, state = model.step(frame, state)
    assert torch.equal(whole, model(frames))


@EVERY
@pytest.mark.parametrize("side", [(18, 28), (7, 11), (33, 16)])
@torch.no_grad()
def test_any_height_and_width_is_taken(name: str, side: tuple[int, int]) -> None:
    model, _ = small(name)
    x = images(model, 2, side)
    features = model.forward_features(x)
    reduction = model.feature_info[-1]["reduction"]
    assert features.shape == (4, 2, 32, -(-side[0] // reduction), -(-side[1] // reduction))
    assert model(x).shape == (2, model.num_classes)


@EVERY
@torch.no_grad()
def test_steps_are_chosen_per_call(name: str) -> None:
    model, x = small(name, batch=2)
    if x.dim() == 5:
        with pytest.raises(ValueError, match=r"frames of 4 steps and T=2"):
            model(x, T=2)
        return
    for T in (1, 2, 4, 6):
        shown = model(x, T=T)
        assert shown.shape == (2, model.num_classes)
        torch.testing.assert_close(shown, model(x.expand(T, *x.shape)), atol=1e-5, rtol=0)


@EVERY
def test_an_image_shown_and_an_image_repeated_train_alike(name: str) -> None:
    """The encoder of an image runs once; its statistics and gradients are those of all steps."""
    (once, x), (repeated, _) = small(name, batch=3), small(name, batch=3)
    if x.dim() == 5:
        return
    labels = torch.tensor([0, 1, 2])
    for model, y in ((once.train(), x), (repeated.train(), x.expand(4, *x.shape))):
        nn.functional.cross_entropy(model(y), labels).backward()
    for (path, a), b in zip(once.named_parameters(), repeated.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=2e-5, rtol=1e-3, msg=path)
    for (path, a), b in zip(once.named_buffers(), repeated.buffers(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5, msg=path)


@EVERY
def test_inputs_that_do_not_fit_are_named(name: str) -> None:
    model, x = small(name, batch=2)
    with pytest.raises(ValueError, match=r"got \(2, 5, 16, 16\)"):
        model(torch.zeros(2, 5, 16, 16))
    with pytest.raises(ValueError, match="check in_chans"):
        model(torch.zeros(2, model.in_chans * 16))
    with pytest.raises(ValueError, match="at least 1"):
        model(torch.zeros(2, model.in_chans, 0, 16))
    with pytest.raises(ValueError, match="call eval"):
        model.train().step(x[0])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"widths": (384,), "heads": 5}, "does not divide into 5 heads"),
        ({"widths": (4,), "heads": 4}, "at least 8"),
        ({"residual": "sew"}, "sums spikes"),
        ({"widths": (8, 16), "depths": (1, 1)}, "one stage"),
        ({"attention": "softmax"}, "attention='softmax' is unknown"),
        ({"layout": "mnist"}, "layout='mnist' is unknown"),
        ({"depths": (1, 1)}, "one of each for every stage"),
        ({"T": 0}, "at least 1 step"),
        ({"drop_path_rate": 1.0}, r"\[0, 1\)"),
        ({"drop_path_rate": 0.1, "residual": "sew", "tokenizer": "speds"}, "rescale the integer sums"),
    ],
)
def test_sizes_that_do_not_fit_are_named(options: dict, words: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=words):
        SpikingTransformer(**options)


def test_batch_first_frames_give_the_same() -> None:
    model, x = small("spikingformer_dvs", batch=3)
    with torch.no_grad():
        logits, (first, _) = model(x), model.step(x[0])
        model.batch_first = True
        assert torch.equal(model(x.transpose(0, 1)), logits)
        assert torch.equal(model.step(x[0])[0], first)


def test_dropped_branches_leave_whole_samples_out() -> None:
    plain, x = small("spikingformer_cifar", batch=6)
    model = create_model("spikingformer_4_384", widths=(32,), depths=(2,), heads=1, drop_path_rate=0.5)
    model.load_state_dict(plain.state_dict())
    block = model.stages[0].blocks[-1].train()
    assert [b.drop_path for b in model.stages[0].blocks] == [0.0, 0.5]
    torch.manual_seed(3)
    dropped = block._dropped(torch.ones(4, 20, 8, 2, 2))
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert all(dropped[:, b].unique().numel() == 1 for b in range(20)), "one decision a sample, for all steps"
    assert torch.equal(model.eval()(x), plain(x))


@pytest.mark.parametrize("name", ["spikingformer_cifar", "qkformer_imagenet", "ms_qkformer_dvs"])
def test_neurons_compute_in_float32_under_autocast(name: str) -> None:
    model, x = small(name, batch=2)
    dtypes = []
    for m in model.modules():
        if isinstance(m, LIF):
            m.register_forward_pre_hook(lambda m, args: dtypes.append(args[0].dtype))
    with torch.autocast("cpu", torch.bfloat16):
        model(x)
    assert set(dtypes) == {torch.float32}


@pytest.mark.parametrize("name", ["spikingformer_cifar", "cml_imagenet", "qkformer_cifar", "ms_qkformer_cifar"])
@pytest.mark.parametrize("keeping", ["compact", "checkpoints", "both"])
@pytest.mark.parametrize(
    "layout", [torch.contiguous_format, torch.channels_last], ids=["channels first", "channels last"]
)
def test_keeping_less_changes_no_gradient(name: str, keeping: str, layout: torch.memory_format) -> None:
    (plain, x), (saving, _) = ((model.to(memory_format=layout), x) for model, x in (small(name), small(name)))
    saving.set_compact(keeping != "checkpoints")
    saving.set_grad_checkpointing(keeping != "compact")
    for model in (plain.train(), saving.train()):
        model(x).square().sum().backward()
    for a, b in zip(plain.parameters(), saving.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)
    for a, b in zip(plain.buffers(), saving.buffers(), strict=True):
        assert torch.equal(a, b)


def test_the_interface_of_image_models() -> None:
    model, x = small("ms_qkformer_cifar", batch=2)
    features = model.forward_features(x)
    assert features.shape == (4, 2, 32, 4, 4) and model.num_features == model.head_hidden_size == 32
    assert torch.equal(model.forward_head(features), model(x))
    assert model.forward_head(features, pre_logits=True).shape == (2, 32)
    assert [(f["num_chs"], f["reduction"]) for f in model.feature_info] == [(16, 1), (16, 2), (32, 4)]
    final, maps = model.forward_intermediates(x)
    assert torch.equal(final, features) and [m.shape[-1] for m in maps] == [16, 8, 4]
    assert [m.shape[-1] for m in model.forward_intermediates(x, 1, intermediates_only=True)] == [4]
    assert [m.shape[-1] for m in model.forward_intermediates(x, [0], stop_early=True, intermediates_only=True)] == [16]
    with pytest.raises(ValueError, match="0 to 2"):
        model.forward_intermediates(x, [3])
    assert model.get_classifier() is model.head and model.no_weight_decay() == set()
    model.reset_classifier(7)
    assert model(x).shape == (2, 7) and model.num_classes == 7
    model.reset_classifier(0)
    assert model(x).shape == (2, 32)
    with pytest.raises(ValueError, match="use 'avg'"):
        model.reset_classifier(7, "max")
    model.set_input_size((24, 40))
    assert tuple(model.pretrained_cfg["input_size"]) == (3, 24, 40)
    assert set(model.group_matcher()) == {"stem", "blocks"}
    cfg = model.default_cfg
    assert {"mean", "std", "crop_pct", "interpolation", "first_conv", "classifier", "license", "paper_ids"} <= set(cfg)
    assert isinstance(model.get_submodule(cfg["first_conv"]), nn.Conv2d)


@EVERY
def test_a_saved_model_comes_back(name: str, tmp_path) -> None:
    model, x = small(name, batch=2)
    model.save_pretrained(tmp_path)
    back = SpikingTransformer.from_pretrained(tmp_path, strict=True).eval()
    assert torch.equal(back(x), model(x))
    assert back.pretrained_cfg == model.pretrained_cfg


def test_weights_of_ones_own_are_checked_by_their_sum(tmp_path) -> None:
    model, x = small("spikingformer_cifar", batch=2)
    model.save_pretrained(tmp_path)
    options = {"widths": (32,), "depths": (2,), "heads": 1, "cache_dir": str(tmp_path)}
    again = create_model(
        "spikingformer_4_384", pretrained=True, pretrained_cfg={"file": "model.safetensors"}, **options
    ).eval()
    assert torch.equal(again(x), model(x))
    with pytest.raises(ValueError, match="sha256"):
        create_model(
            "spikingformer_4_384", pretrained=True,
            pretrained_cfg={"file": "model.safetensors", "sha256": "0" * 64}, **options,
        )  # fmt: skip
