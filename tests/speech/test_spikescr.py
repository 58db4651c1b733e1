"""SpikeSCR: what its results may depend on, and what they may not."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from spikeloom.speech.models.readout import valid_steps
from spikeloom.speech.models.spikescr import (
    Neurons,
    SpikeSCR,
    SpikeSCRConfig,
    SpikingAttention,
    log_mean_probability,
)

INPUTS, CLASSES = 12, 5
Run = tuple[Tensor, dict[str, Tensor]]  # logits, and spikes [T, B, ...] of every neuron site


@pytest.fixture(autouse=True)
def _one_thread():
    """Models this small only lose by more threads, and much on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def build(**options: object) -> SpikeSCR:
    """A small float64 model, in evaluation, whose batch norms have been trained: every site fires, none always."""
    torch.manual_seed(0)
    options = {"width": 32, "heads": 8, "dropout": 0.0} | options
    model = SpikeSCRConfig(**options).build(INPUTS, CLASSES).double()
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm1d)):
        nn.init.uniform_(norm.weight, 0.8, 1.5)
        nn.init.uniform_(norm.bias, 0.1, 0.5)
        norm.momentum = 0.5
    with torch.no_grad():
        for i in range(4):
            model(frames(30, 8, seed=100 + i))
    return model.eval()


def frames(steps: int, batch: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(steps, batch, INPUTS, dtype=torch.float64, generator=generator)


def with_garbage(x: Tensor, lengths: Tensor, padding: int, fill: float) -> Tensor:
    x = torch.cat((x, x.new_zeros(padding, *x.shape[1:])))
    return torch.where(valid_steps(lengths, x.shape[0])[:, :, None], x, fill)


def watched(model: SpikeSCR, x: Tensor, lengths: Tensor | None) -> Run:
    spikes: dict[str, Tensor] = {}
    hooks = [
        m.register_forward_hook(lambda m, args, out, name=name: spikes.__setitem__(name, out[0].detach()))
        for name, m in model.named_modules()
        if isinstance(m, Neurons)
    ]
    with torch.no_grad():
        logits = model(x, lengths)
    for hook in hooks:
        hook.remove()
    return logits, spikes


def assert_same_sample(a: Run, i: int, b: Run, j: int, n: int) -> None:
    """Sample i of run a and sample j of run b agree over n steps."""
    assert (a[0][:n, i] - b[0][:n, j]).abs().max() <= 1e-9
    assert a[1].keys() == b[1].keys()
    for site in a[1]:
        assert torch.equal(a[1][site][:n, i], b[1][site][:n, j]), site


@pytest.mark.parametrize(
    ("config", "n_classes", "count"),
    [
        (SpikeSCRConfig(128, 8, 1, 1), 20, 261_632),
        (SpikeSCRConfig(256, 16, 1, 4), 35, 1_709_824),
        (SpikeSCRConfig(256, 16, 2, 4), 35, 3_302_400),
        (SpikeSCRConfig(256, 16, 1, 4), 12, 1_703_936),
        (SpikeSCRConfig(256, 16, 2, 4), 12, 3_296_512),
    ],
    ids=["SHD 1L-8-128", "1L-16-256", "2L-16-256", "1L-16-256, 12 words", "2L-16-256, 12 words"],
)
@pytest.mark.parametrize("causal", [False, True])
def test_parameter_counts_are_those_published(config, n_classes, count, causal):
    config.causal = causal
    assert sum(p.numel() for p in config.build(140, n_classes).parameters()) == count


@pytest.mark.parametrize("heads", [8, 16])
@pytest.mark.parametrize("causal", [False, True])
def test_a_sample_does_not_depend_on_its_batch(heads, causal):
    model, lengths = build(heads=heads, causal=causal, depth=2), torch.randint(5, 25, (32,))
    lengths[0] = 25
    x = frames(25, 32)
    whole = watched(model, x, lengths)
    assert all(0 < s.mean() < 1 for s in whole[1].values()), {n: s.mean() for n, s in whole[1].items()}
    for size in (1, 2, 7):
        order = torch.randperm(32)
        for start in range(0, 32, size)[:5]:
            ids = order[start : start + size]
            part = watched(model, x[:, ids], lengths[ids])
            for j, i in enumerate(ids.tolist()):
                assert_same_sample(whole, i, part, j, int(lengths[i]))


@pytest.mark.parametrize("heads", [8, 16])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("fill", [7.0, torch.nan, torch.inf])
def test_padding_cannot_matter(heads, causal, fill):
    model, lengths, x = build(heads=heads, causal=causal), torch.tensor([20, 11, 1]), frames(20, 3)
    alone = [watched(model, x[:n, i : i + 1], None) for i, n in enumerate(lengths.tolist())]
    for padding in (0, 1, 50):
        padded = watched(model, with_garbage(x, lengths, padding, fill), lengths)
        for i, n in enumerate(lengths.tolist()):
            assert_same_sample(alone[i], 0, padded, i, n)


@pytest.mark.parametrize("causal", [False, True])
def test_single_precision_predicts_the_same_in_any_batch_and_padding(causal):
    model, lengths, x = build(causal=causal).float(), torch.randint(5, 25, (32,)), frames(25, 32).float()
    with torch.no_grad():
        whole = log_mean_probability(model(with_garbage(x, lengths, 9, 7.0), lengths), lengths)
        alone = torch.cat([log_mean_probability(model(x[:n, i : i + 1])) for i, n in enumerate(lengths.tolist())])
    assert (whole - alone).abs().max() <= 1e-4
    assert torch.equal(whole.argmax(1), alone.argmax(1))


@pytest.mark.parametrize("causal", [False, True])
def test_neighbours_leave_own_logits_and_get_no_gradient(causal):
    model, x, lengths = build(causal=causal), frames(20, 3), torch.tensor([20, 13, 20])
    other = x.clone()
    other[:, [0, 2]] = 5 * frames(20, 2, seed=9)
    assert_same_sample(watched(model, x, lengths), 1, watched(model, other, lengths), 1, 13)
    x.requires_grad_()
    model(x, lengths)[:13, 1].square().sum().backward()
    assert (x.grad[:, [0, 2]] == 0).all()
    assert (x.grad[13:] == 0).all()
    assert x.grad[:13, 1].any()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("fill", [0.0, torch.nan])
def test_training_does_not_depend_on_padding(causal, fill):
    lengths, labels, x = torch.tensor([20, 11, 4]), torch.tensor([0, 3, 1]), frames(20, 3)
    results = []
    for padding in (0, 1, 50):
        model = build(causal=causal).train()
        logits = model(with_garbage(x, lengths, padding, fill), lengths)
        loss = F.nll_loss(log_mean_probability(logits, lengths), labels)
        loss.backward()
        results.append((loss.detach(), *(p.grad for p in model.parameters()), *model.buffers()))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


@pytest.mark.parametrize("lengths", [None, torch.tensor([9, 4, 1])])
@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_readout_is_a_distribution_with_finite_gradient(lengths, scale):
    logits = (torch.randn(9, 3, CLASSES) * scale).requires_grad_()
    log_p = log_mean_probability(logits, lengths)
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(3), rtol=0, atol=1e-6)
    for label in range(CLASSES):
        loss = F.nll_loss(log_p, torch.full((3,), label))
        (grad,) = torch.autograd.grad(loss, logits, retain_graph=True)
        assert loss.isfinite()
        assert grad.isfinite().all()
        if lengths is not None:
            assert (grad[4:, 1] == 0).all()


def test_readout_is_the_mean_of_probabilities_over_valid_steps():
    logits, lengths = torch.randn(9, 3, CLASSES, dtype=torch.float64), torch.tensor([9, 4, 1])
    logits[4:, 1] = torch.nan
    log_p = log_mean_probability(logits, lengths)
    for i, n in enumerate(lengths.tolist()):
        torch.testing.assert_close(log_p[i].exp(), logits[:n, i].softmax(1).mean(0))


def streamed(model: SpikeSCR, x: Tensor, chunk: int) -> Tensor:
    state, pieces = None, []
    with torch.no_grad():
        for t in range(0, len(x), chunk):
            logits, state = model.stream(x[t : t + chunk], state)
            pieces.append(logits)
    assert state.position == len(x)
    return torch.cat(pieces)


@pytest.mark.parametrize(
    ("steps", "chunk", "window"),
    [
        *[(80, chunk, window) for window in (None, 16) for chunk in (1, 7, 80)],
        (1000, 70, 16),
        *[pytest.param(1000, chunk, window, marks=pytest.mark.slow) for window in (None, 16) for chunk in (1, 7, 1000)],
    ],
)
def test_stream_equals_offline(steps, chunk, window):
    model, x = build(causal=True, attn_window=window, depth=2), frames(steps, 2)
    offline, spikes = watched(model, x, None)
    assert all(s[steps // 2 :].any() for s in spikes.values())
    assert (streamed(model, x, chunk) - offline).abs().max() <= 1e-9


@pytest.mark.parametrize("window", [None, 16])
def test_causal_outputs_are_unchanged_by_later_input(window):
    model, x = build(causal=True, attn_window=window), frames(60, 2)
    later = x.clone()
    later[40:] = 5 * frames(20, 2, seed=9)
    with torch.no_grad():
        before, after = model(x), model(later)
    assert (before[:40] - after[:40]).abs().max() <= 1e-9
    assert not torch.equal(before[40:], after[40:])


def test_attention_window_reaches_so_far_and_no_further():
    everything, window, x = build(causal=True), build(causal=True, attn_window=9), frames(60, 4)
    window.load_state_dict(everything.state_dict())
    with torch.no_grad():
        a, b = everything(x), window(x)
    assert (a[:9] - b[:9]).abs().max() <= 1e-9
    assert not torch.equal(a[9:], b[9:])


def cost_of_a_pass(module: nn.Module, call: Callable[[], Tensor]) -> tuple[int, int]:
    """Floating-point operations of matrix products and convolutions, and bytes kept for the backward pass."""
    kept: dict[int, int] = {}  # address -> size

    def keep(tensor: Tensor) -> Tensor:
        alive.append(tensor)  # so that no address is used twice
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    alive: list[Tensor] = []
    counter = FlopCounterMode(display=False)
    with counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        call().sum().backward()
    weights = {p.untyped_storage().data_ptr() for p in module.parameters()}
    return counter.get_total_flops(), sum(size for place, size in kept.items() if place not in weights)


def test_work_and_memory_grow_in_proportion_to_the_steps(monkeypatch):
    """Attention too: it sums over time before it meets the queries."""
    monkeypatch.setattr(
        "spikeloom.accel.spiking.events.dense_from", lambda side=1: 0.0
    )  # only dense products are counted
    model = SpikeSCRConfig(width=64, heads=4, depth=1, mlp_ratio=1).build(140, 35)
    x = torch.rand(200, 2, 140)
    (work, memory), (double_work, double_memory) = (
        cost_of_a_pass(model, lambda steps=steps: log_mean_probability(model(x[:steps]))) for steps in (100, 200)
    )
    assert double_work == 2 * work > 0
    assert 1.9 * memory < double_memory <= 2 * memory


def test_attention_over_five_hundred_steps_of_32_clips_keeps_less_than_two_gigabytes():
    attention = SpikingAttention(SpikeSCRConfig(width=256, heads=16))
    _, of_two_clips = cost_of_a_pass(attention, lambda: attention(torch.rand(500, 2, 256), None, 0, None)[0])
    assert 0 < of_two_clips * 32 / 2 < 2e9


def test_model_that_sees_the_future_refuses_to_stream():
    with pytest.raises(ValueError, match=r"cannot stream; train with model\.causal=true"):
        build().stream(frames(3, 1))


def test_saved_model_comes_back_whole(tmp_path):
    model = build(causal=True, attn_window=9, depth=2, mlp_ratio=2).float()
    model.save_pretrained(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} >= {"config.json", "model.safetensors"}
    loaded = SpikeSCR.from_pretrained(tmp_path).eval()
    assert loaded.config == model.config
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    x = frames(12, 2).float()
    with torch.no_grad():
        assert torch.equal(loaded(x), model(x))


def test_evaluation_leaves_the_model_as_it_was():
    model = build()
    before = copy.deepcopy(model.state_dict())
    model(frames(10, 2))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 100, "heads": 8}, r"multiple of 2\*heads"),
        ({"width": 24, "heads": 8}, r"multiple of 2\*heads"),
        ({"attn_window": 16}, "needs causal=true"),
        ({"attn_window": 0, "causal": True}, "at least 1 step"),
        ({"dropout": 1.0}, r"\[0, 1\)"),
    ],
)
def test_wrong_sizes_are_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        SpikeSCR(n_inputs=INPUTS, n_classes=CLASSES, **options)


@pytest.mark.parametrize("shape", [(5, 2, INPUTS + 1), (5, INPUTS)])
def test_wrong_frames_are_an_error(shape):
    with pytest.raises(ValueError, match=rf"expected frames \[T, B, {INPUTS}\], got"):
        build()(torch.zeros(shape, dtype=torch.float64))
