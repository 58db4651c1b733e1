"""The published models against the numbers of their released code: spikes, logits, gradients, running statistics."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spikeloom.accel.spiking import events
from spikeloom.accel.spiking.events import dense_from
from spikeloom.accel.spiking.kernels import loader
from spikeloom.accel.spiking.neuron import LIF
from spikeloom.vision.convert import SCHEMES, Converted, convert, read_checkpoint, tensor_names, unit_names
from tests.golden import Golden, assert_gradients_equal, assert_statistics_equal, golden_files, relative_l2

FILES = ("spikingformer_*.safetensors", "qkformer_*.safetensors")


def build(golden: Golden) -> Converted:
    return convert(*read_checkpoint(golden.path))


def images(golden: Golden, name: str = "input") -> Tensor:
    """Images [B, C, H, W] as they are; event frames come batch first and go time first."""
    x = golden.tensors[name]
    return x.transpose(0, 1).contiguous() if x.dim() == 5 else x


def neuron_name(converted: Converted, released: str) -> str:
    """Our path of a neuron that the released code calls `released`."""
    unit = released.removesuffix("_lif")
    names = unit_names(SCHEMES[converted.sizes.scheme], converted.sizes.depths)
    if unit in names and not (unit.endswith(".attn.proj") and unit.startswith("block.")):
        return f"{names[unit]}.lif"
    block, last = unit.rsplit(".", 1)
    ours = names[f"{block}.q"].removesuffix(".q")
    return f"{ours}.attn_lif" if last == "attn" else f"{ours}.lif"  # a Spikingformer's proj_lif comes first


def spikes_of(model: nn.Module, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits, and spikes per step of every neuron."""
    counts: dict[str, Tensor] = {}

    def hook(path: str):
        return lambda m, args, out: counts.__setitem__(path, out[0].detach().flatten(1).sum(1).long())

    hooks = [m.register_forward_hook(hook(path)) for path, m in model.named_modules() if isinstance(m, LIF)]
    logits = model(x)
    for h in hooks:
        h.remove()
    return logits, counts


@contextmanager
def products_of_events() -> Iterator[list[Tensor]]:
    """Inside, the results of products that skip zeros are collected."""
    found: list[Tensor] = []
    with pytest.MonkeyPatch.context() as patch:
        real = events.event_conv
        patch.setattr(events, "event_conv", lambda *given: found.append(real(*given)) or found[-1])
        yield found


def assert_traces_equal(golden: Golden, prefix: str, converted: Converted, counts: dict[str, Tensor]) -> None:
    traces = golden.under(prefix)
    assert len(traces) == len(counts)
    for released, expected in traces.items():
        assert torch.equal(counts[neuron_name(converted, released)], expected), f"{golden.path.name} {released}"


@pytest.mark.golden
@pytest.mark.parametrize("pattern", FILES)
def test_released_weights_give_released_spikes_and_logits(pattern: str) -> None:
    for golden in golden_files(pattern):
        converted = build(golden)
        with torch.no_grad():
            logits, counts = spikes_of(converted.model.eval(), images(golden))
        assert_traces_equal(golden, "trace", converted, counts)
        torch.testing.assert_close(logits, golden.tensors["logits"], atol=1e-5, rtol=0)


def step(golden: Golden, converted: Converted, keeping: str) -> tuple[dict[str, Tensor], bool]:
    """A training step whose logits, loss and gradient of the input are the released ones: spikes, and whether products
    skipped zeros."""
    model = converted.model.train()
    model.set_compact("compact" in keeping)
    model.set_grad_checkpointing(keeping == "checkpoints")
    if "skipping" in keeping:
        model.to(memory_format=torch.channels_last)
    x = images(golden).clone().requires_grad_()
    with products_of_events() as products:
        logits, counts = spikes_of(model, x)
    torch.testing.assert_close(logits, golden.tensors["train_logits"], atol=1e-5, rtol=0)
    loss = F.cross_entropy(logits, golden.tensors["labels"])
    torch.testing.assert_close(loss, golden.tensors["loss"].squeeze(), atol=1e-5, rtol=0)
    loss.backward()
    assert x.grad is not None
    grad = x.grad.transpose(0, 1) if x.dim() == 5 else x.grad
    assert relative_l2(grad, golden.tensors["grad_input"]) <= 1e-4, golden.path.name
    return counts, bool(products)


def assert_step_equal(golden: Golden, converted: Converted, names: dict[str, str], noise: float = 1e-6) -> None:
    """Gradients and statistics after a training step; `names`: released name -> ours."""
    model, grads = converted.model, golden.under("grad")
    parameters, state = dict(model.named_parameters()), model.state_dict()
    assert {names[key] for key in grads} == set(parameters)
    found = {key: parameters[names[key]].grad for key in grads}
    assert_gradients_equal(found, grads, golden.json("zero_grad_keys"), noise)
    released = golden.under("train_state")
    assert_statistics_equal({key: state[names[key]] for key in released}, released)


@pytest.mark.golden
@pytest.mark.parametrize("pattern", FILES)
@pytest.mark.parametrize("keeping", ["all", "compact", "checkpoints", "all, skipping zeros", "compact, skipping zeros"])
def test_a_training_step_gives_released_loss_gradients_and_statistics(pattern: str, keeping: str) -> None:
    for golden in golden_files(pattern):
        converted = build(golden)
        counts, skipped = step(golden, converted, keeping)
        can_skip = loader.backend() == "compiled" and dense_from() > 0
        assert ("skipping" in keeping and can_skip) == skipped, golden.path.name
        assert_traces_equal(golden, "trace_train", converted, counts)
        assert_step_equal(golden, converted, tensor_names(SCHEMES[converted.sizes.scheme], converted.sizes.depths))


@pytest.mark.golden
@pytest.mark.parametrize("pattern", FILES)
def test_samples_of_one_batch_give_what_each_gives_alone(pattern: str) -> None:
    for golden in golden_files(pattern):
        if "eval_batch_input" not in golden.tensors:
            continue
        model = build(golden).model.eval()
        with torch.no_grad():
            logits = model(images(golden, "eval_batch_input"))
        torch.testing.assert_close(logits, golden.tensors["eval_batch_logits"], atol=1e-5, rtol=0)
