"""SpikCommander: the released model's numbers, exact sizes, and what it must not depend on."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikeloom.speech.models.loading import load_model
from spikeloom.speech.models.readout import read_out
from spikeloom.speech.models.released import from_released, released_tensors
from spikeloom.speech.models.spikcommander import SpikCommander, SpikCommanderConfig, window_sums
from tests.golden import Golden, assert_gradients_equal, assert_statistics_equal, golden_files, relative_l2

# Released name of a neuron below its block -> ours, and which part of q, k, v it is.
NEURONS = {
    "see.lif1": ("embedding.first_neurons", None),
    "see.lif2": ("embedding.second_neurons", None),
    "attn.head_lif": ("attention.head_neurons", None),
    "attn.q_lif": ("attention.qkv_neurons", 0),
    "attn.k_lif": ("attention.qkv_neurons", 1),
    "attn.v_lif": ("attention.qkv_neurons", 2),
    "attn.local_attn_lif": ("attention.gates.local_neurons", None),
    "attn.global_attn_lif": ("attention.gates.global_neurons", None),
    "attn.v_dw_lif": ("attention.value_neurons", None),
    "attn.mattn_lif": ("attention.attended_neurons", None),
    "attn.proj_lif": ("attention.out_neurons", None),
    "scrmlp.lif1": ("mlp.first_neurons", None),
    "scrmlp.fc1_lif": ("mlp.hidden_neurons", None),
    "scrmlp.lif2": ("mlp.depthwise_neurons", None),
    "scrmlp.fc2_lif": ("mlp.back_neurons", None),
    "scrmlp.lif3": ("mlp.out_neurons", None),
}
SIZES = {
    "shd 1L": (SpikCommanderConfig(), 20, 190_664),
    "ssc 1L": (SpikCommanderConfig(form="ssc", width=256, heads=16, mlp_ratio=4), 35, 1_120_368),
    "ssc 2L": (SpikCommanderConfig(form="ssc", width=256, heads=16, mlp_ratio=4, depth=2), 35, 2_127_328),
    "gsc 1L": (SpikCommanderConfig(form="gsc", width=256, heads=16, mlp_ratio=4), 35, 1_120_688),
    "gsc 2L": (SpikCommanderConfig(form="gsc", width=256, heads=16, mlp_ratio=4, depth=2), 35, 2_127_968),
}


def build(golden: Golden) -> SpikCommander:
    c = golden.json("config")
    config = SpikCommanderConfig(
        form=c["dataset"], width=c["n_hidden"], heads=c["num_heads"], depth=c["depth"], mlp_ratio=c["mlp_ratio"],
        window=c["attention_window"], global_steps=c["global_steps"], dropout=0.0,
    )  # fmt: skip
    model = config.build(c["n_inputs"], c["n_classes"])
    model.load_state_dict(from_released(golden.under("state"), model))
    return model


def spikes_of(model: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    found: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda m, args, out, name=name: found.__setitem__(name, out.detach()))
        for name, module in model.named_modules()
        if name.endswith("neurons")
    ]
    out = model(x)
    for hook in hooks:
        hook.remove()
    return out, found


def assert_traces_equal(golden: Golden, prefix: str, spikes: dict[str, Tensor]) -> None:
    traces = golden.under(prefix)
    assert traces
    for released, expected in traces.items():
        match = re.fullmatch(r"(blocks\.\d+\.)?(.*)", released)
        assert match
        name, part = NEURONS[match[2]]
        s = spikes[(match[1] or "") + name]
        s = s if part is None else s.chunk(3, dim=2)[part]
        assert torch.equal(s.flatten(1).sum(1).long(), expected), f"{golden.path.name} {prefix} {released}"


@pytest.mark.golden
def test_released_weights_give_released_spikes_logits_and_gradients() -> None:
    for golden in golden_files("spikcommander_*.safetensors"):
        model = build(golden).eval()
        x = golden.tensors["input"].transpose(0, 1)
        with torch.no_grad():
            logits, spikes = spikes_of(model, x)
        assert_traces_equal(golden, "trace", spikes)
        torch.testing.assert_close(logits, golden.tensors["logits"], atol=1e-5, rtol=0)
        scores = logits.softmax(2).sum(0)
        torch.testing.assert_close(scores, golden.tensors["scores"], atol=1e-5, rtol=0)
        assert torch.equal(scores.argmax(1), golden.tensors["pred"])

        model.train()
        x = x.clone().requires_grad_()
        logits, spikes = spikes_of(model, x)
        assert_traces_equal(golden, "trace_train", spikes)
        torch.testing.assert_close(logits, golden.tensors["train_logits"], atol=1e-5, rtol=0)
        # The released training applies softmax a second time; only this comparison does, too.
        loss = F.cross_entropy(logits.softmax(2).sum(0), golden.tensors["labels"])
        torch.testing.assert_close(loss, golden.tensors["loss"].squeeze(), atol=1e-5, rtol=0)
        loss.backward()
        assert x.grad is not None
        assert relative_l2(x.grad.transpose(0, 1), golden.tensors["grad_input"]) <= 1e-4
        found = released_tensors({n: p.grad for n, p in model.named_parameters() if p.grad is not None}, model)
        assert_gradients_equal(found, golden.under("grad"), golden.json("zero_grad_keys"))
        assert_statistics_equal(released_tensors(model.state_dict(), model), golden.under("train_state"))


@pytest.mark.golden
@pytest.mark.parametrize("padding", [0, 1, 50])
def test_a_batch_gives_what_each_sample_gives_alone(padding: int) -> None:
    for golden in golden_files("spikcommander_*.safetensors"):
        model = build(golden).eval()
        x = golden.tensors["eval_batch_input"].transpose(0, 1)
        steps, batch = x.shape[:2]
        garbage = torch.full((padding, *x.shape[1:]), 7.0)
        with torch.no_grad():
            logits = model(torch.cat((x, garbage)), torch.full((batch,), steps))[:steps]
        torch.testing.assert_close(logits, golden.tensors["eval_batch_logits"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", SIZES)
def test_parameters_are_those_of_the_released_models(name: str) -> None:
    config, n_classes, n_parameters = SIZES[name]
    assert sum(p.numel() for p in config.build(140, n_classes).parameters()) == n_parameters


def small(**changes: Any) -> SpikCommander:
    torch.manual_seed(0)
    config = SpikCommanderConfig(width=32, heads=2, window=3, global_steps=10, dropout=0.0, **changes)
    model = config.build(20, 4).double()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.uniform_(module.running_mean, -0.5, 0.0)
            nn.init.uniform_(module.running_var, 0.05, 0.3)
    return model


def frames(steps: int = 24, batch: int = 3) -> Tensor:
    return 2 * torch.rand(steps, batch, 20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("form", ["shd", "ssc", "gsc"])
@pytest.mark.parametrize("causal", [False, True])
def test_padding_changes_no_valid_result_in_evaluation_and_training(form: str, causal: bool) -> None:
    model, x, lengths = small(form=form, causal=causal).eval(), frames(), torch.tensor([24, 15, 7])
    assert float(model(x).std()) > 0
    alone = torch.cat([read_out(model, model(x[:n, i : i + 1])) for i, n in enumerate(lengths.tolist())])
    losses = []
    for padding, garbage in ((0, 5.0), (1, 9.0), (50, float("nan"))):
        longer = torch.cat((x, torch.zeros(padding, *x.shape[1:], dtype=x.dtype)))
        padded = torch.where((torch.arange(len(longer))[:, None] >= lengths)[:, :, None], garbage, longer)
        torch.testing.assert_close(read_out(model.eval(), model(padded, lengths), lengths), alone, atol=1e-9, rtol=0)
        trained = small(form=form, causal=causal).train()
        losses.append(float(read_out(trained, trained(padded, lengths), lengths)[:, 1].sum()))
    assert losses[1:] == pytest.approx(losses[:2], abs=1e-9)


@pytest.mark.parametrize("form", ["shd", "ssc", "gsc"])
def test_the_causal_form_sees_no_future_and_the_released_one_does(form: str) -> None:
    x = frames()
    later = x.clone()
    later[12:] += 3
    causal, whole = small(form=form, causal=True).eval(), small(form=form).eval()
    assert torch.equal(causal(x)[:12], causal(later)[:12])
    assert not torch.equal(whole(x)[:12], whole(later)[:12])


def test_the_global_gate_fires_at_twenty_counts_and_not_at_nineteen() -> None:
    gates = SpikCommanderConfig(width=16, heads=1).build(4, 2).blocks[0].attention.gates
    for n in (19, 20):
        counts = torch.zeros(30, 1, 1, 16)
        counts[:n] = 1
        fired = gates.global_neurons(counts.sum(0, keepdim=True) * gates.global_scale)
        assert bool(fired.all()) == (n == 20)
        assert bool(fired.any()) == (n == 20)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [0, 3, 40])
def test_running_sums_give_window_sums_exactly(window: int, causal: bool) -> None:
    x = torch.randint(0, 3, (25, 2, 3, 4)).float()
    expected = torch.stack([x[max(0, t - window) : t + 1 + (0 if causal else window)].sum(0) for t in range(25)])
    assert torch.equal(window_sums(x.cumsum(0), window, causal), expected)


def test_a_saved_model_is_loaded_as_itself(tmp_path: Path) -> None:
    model = small(form="gsc").float().eval()
    model.save_pretrained(tmp_path)
    assert torch.equal(load_model(tmp_path).eval()(frames().float()), model(frames().float()))


def test_released_keys_go_there_and_back_under_both_names() -> None:
    model = SpikCommanderConfig().build(140, 20)
    released = released_tensors(model.state_dict(), model)
    assert len(released) == 79
    for names in (
        released,
        {k.replace("see.", "spike_embed.").replace("scrmlp", "mlp"): v for k, v in released.items()},
    ):
        again = from_released(names, model)
        assert all(torch.equal(again[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("head.weight"), "head.weight is missing"),
        (lambda s: s.update({"blocks.0.attn.extra": torch.zeros(1)}), "blocks.0.attn.extra is not in the model"),
        (lambda s: s.update({"head.weight": torch.zeros(3, 3)}), r"head.weight has the shape \(3, 3\)"),
        (lambda s: s.update({"spike_embed.linear.weight": s["see.linear.weight"]}), "linear.weight is there twice"),
    ],
)
def test_released_weights_that_do_not_fit_are_named(change: Any, message: str) -> None:
    model = SpikCommanderConfig().build(140, 20)
    state = released_tensors(model.state_dict(), model)
    change(state)
    with pytest.raises(ValueError, match=message):
        from_released(state, model)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"form": "fsdd"}, "form=fsdd is unknown"), ({"heads": 3}, "multiple of"), ({"window": -1}, "window=-1")],
)
def test_sizes_that_make_no_network_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SpikCommanderConfig(**changes).build(140, 20)
