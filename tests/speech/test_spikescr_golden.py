"""SpikeSCR against the released model's numbers, wherever batch size 1 and one head make the released code correct."""

import re
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from spikeloom.speech.models.spikescr import SpikeSCR, SpikeSCRConfig
from tests.golden import Golden, assert_gradients_equal, assert_statistics_equal, golden_files, relative_l2

# Released name -> (our name, and which third of a fused tensor it is).
SITES = {
    "spike_embed.conv": "embedding.conv.conv",
    "spike_embed.bn": "embedding.norm",
    "spike_embed.lif": "embedding.neurons",
    "attn.q": ("attention.qkv", 0),
    "attn.k": ("attention.qkv", 1),
    "attn.v": ("attention.qkv", 2),
    "attn.proj": "attention.out",
    "mlp1.fc1": "feed_forward1.hidden",
    "mlp1.fc2": "feed_forward1.out",
    "mlp2.fc1": "feed_forward2.hidden",
    "mlp2.fc2": "feed_forward2.out",
    "conformer_module.pw1.conv": "convolution.expand.linear",
    "conformer_module.bn1": "convolution.expand.norm",
    "conformer_module.dw.conv": "convolution.depthwise.conv",
    "conformer_module.bn2": "convolution.depthwise_norm",
    "conformer_module.pw2.conv": "convolution.value_and_gate.linear",
    "conformer_module.bn3": "convolution.value_and_gate.norm",
    "conformer_module.gsu.proj": "convolution.gate",
    "head": "head",
}
# Released name of a neuron -> ours, and which part of a fused tensor of spikes it is.
NEURONS = {
    "spike_embed.lif": ("embedding.neurons", None),
    "attn.q_lif": ("attention.qkv_neurons", 0),
    "attn.k_lif": ("attention.qkv_neurons", 1),
    "attn.v_lif": ("attention.qkv_neurons", 2),
    "attn.q_lif2": ("attention.rotated_neurons", 0),
    "attn.k_lif2": ("attention.rotated_neurons", 1),
    "attn.attn_lif": ("attention.attended_neurons", None),
    "attn.proj_lif": ("attention.out_neurons", None),
    "mlp1.fc1_lif": ("feed_forward1.hidden_neurons", None),
    "mlp1.fc2_lif": ("feed_forward1.out_neurons", None),
    "mlp2.fc1_lif": ("feed_forward2.hidden_neurons", None),
    "mlp2.fc2_lif": ("feed_forward2.out_neurons", None),
    "conformer_module.lif1": ("convolution.expand_neurons", None),
    "conformer_module.lif2": ("convolution.depthwise_neurons", None),
    "conformer_module.gsu.lif1": ("convolution.gate_in_neurons", None),
    "conformer_module.gsu.lif2": ("convolution.gate_neurons", None),
    "conformer_module.lif3": ("convolution.out_neurons", None),
}


def split_block(name: str) -> tuple[str, str]:
    block, rest = re.fullmatch(r"(blocks\.\d+\.)?(.*)", name).groups()
    return block or "", rest


def ours(released: str) -> tuple[str, int | None]:
    """(name of our tensor, third of it or None) for a released parameter or buffer."""
    block, rest = split_block(released)
    rest = rest.replace("_conv.", "@linear.").replace("_bn.", "@norm.")
    site, tail = re.fullmatch(r"(.*?)(@linear\.\w+|@norm\.\w+|\.\w+)", rest).groups()
    target = SITES[site]
    name, part = target if isinstance(target, tuple) else (target, None)
    return f"{block}{name}.{tail.lstrip('@.')}", part


def fused(released: dict[str, Tensor], like: dict[str, Tensor]) -> dict[str, Tensor]:
    """Released tensors under our names and shapes."""
    parts: dict[str, dict[int, Tensor]] = {}
    for name, tensor in released.items():
        target, part = ours(name)
        parts.setdefault(target, {})[part or 0] = tensor
    out = {}
    for name, pieces in parts.items():
        scalar = pieces[0].dim() == 0
        whole = pieces[0] if scalar else torch.cat([pieces[i] for i in sorted(pieces)])
        out[name] = whole.reshape(like[name].shape)
    return out


def build(golden: Golden) -> SpikeSCR:
    c = golden.json("config")
    config = SpikeSCRConfig(
        width=c["n_hidden"],
        heads=c["num_heads"],
        depth=c["depth"],
        mlp_ratio=c["hidden_dims"] // c["n_hidden"],
        dropout=0.0,
    )
    model = config.build(c["n_inputs"], c["n_classes"])
    frozen = set(golden.json("no_grad_keys"))
    state = {k: v for k, v in golden.under("state").items() if k not in frozen}
    model.load_state_dict(fused(state, model.state_dict()))
    return model


def spike_counts(model: SpikeSCR, run: Callable[[], Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Output of `run`, and spikes per step of every neuron site, per third of a fused site."""
    counts: dict[str, Tensor] = {}
    hooks = []
    for name, module in model.named_modules():
        if name.endswith("neurons"):
            hooks.append(
                module.register_forward_hook(lambda m, args, out, name=name: counts.__setitem__(name, out[0].detach()))
            )
    result = run()
    for hook in hooks:
        hook.remove()
    return result, counts


def assert_traces_equal(golden: Golden, prefix: str, spikes: dict[str, Tensor]) -> None:
    traces = golden.under(prefix)
    assert traces
    for released, expected in traces.items():
        block, rest = split_block(released)
        name, part = NEURONS[rest]
        s = spikes[block + name]
        if part is not None:
            s = s[:, :, part] if s.dim() == 5 else s.chunk(3, dim=2)[part]
        assert torch.equal(s.flatten(1).sum(1).long(), expected), f"{golden.path.name} {prefix} {released}"


@pytest.mark.golden
def test_released_weights_give_released_spikes_logits_and_gradients():
    for golden in golden_files("spikescr_*.safetensors"):
        model = build(golden)
        x = golden.tensors["input"].transpose(0, 1)

        model.eval()
        with torch.no_grad():
            logits, spikes = spike_counts(model, lambda m=model, x=x: m(x))
        assert_traces_equal(golden, "trace", spikes)
        torch.testing.assert_close(logits, golden.tensors["logits"], atol=1e-5, rtol=0)
        scores = logits.softmax(2).sum(0)
        torch.testing.assert_close(scores, golden.tensors["scores"], atol=1e-5, rtol=0)
        assert torch.equal(scores.argmax(1), golden.tensors["pred"])

        model.train()
        x = x.clone().requires_grad_()
        logits, spikes = spike_counts(model, lambda m=model, x=x: m(x))
        assert_traces_equal(golden, "trace_train", spikes)
        torch.testing.assert_close(logits, golden.tensors["train_logits"], atol=1e-5, rtol=0)
        # The released training applies softmax a second time; only this comparison does, too.
        loss = F.cross_entropy(logits.softmax(2).sum(0), golden.tensors["labels"])
        torch.testing.assert_close(loss, golden.tensors["loss"].squeeze(), atol=1e-5, rtol=0)
        loss.backward()
        assert relative_l2(x.grad.transpose(0, 1), golden.tensors["grad_input"]) <= 1e-4

        state, zero = model.state_dict(), {ours(k)[0] for k in golden.json("zero_grad_keys")}
        found = {name: parameter.grad for name, parameter in model.named_parameters()}
        assert_gradients_equal(found, fused(golden.under("grad"), state), zero)
        assert_statistics_equal(state, fused(golden.under("train_state"), state))


@pytest.mark.golden
@pytest.mark.parametrize("padding", [0, 1, 50])
def test_a_batch_gives_what_each_sample_gives_alone(padding):
    for golden in golden_files("spikescr_*.safetensors"):
        model = build(golden).eval()
        x = golden.tensors["eval_batch_input"].transpose(0, 1)
        steps, batch = x.shape[:2]
        garbage = torch.full((padding, *x.shape[1:]), 7.0)
        with torch.no_grad():
            logits = model(torch.cat((x, garbage)), torch.full((batch,), steps))[:steps]
        torch.testing.assert_close(logits, golden.tensors["eval_batch_logits"], atol=1e-5, rtol=0)
