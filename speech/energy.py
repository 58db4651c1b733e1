"""Operations and energy of one inference of a speech model, counted from the events of real clips.

Layers of synapses are counted by `spikeloom.accel.analysis.operations`: whole-number inputs (spikes, event counts, the
integer residual stream) accumulate, mel frames multiply. What SpikeSCR adds to them, d features a head, C in all, T
steps:

    rotary positions       MAC = 4 C a step and block (q and k)
    gate                   MAC = C a step and block (real value * spiking gate)
    attention, quadratic   AC = sum of q k^T over the pairs seen + sum over pairs and heads of score * spikes of v
    attention, running sum AC = k spikes * v spikes (updates of S = sum of k v^T) + sum of the entries of S that q reads

The two forms give the same output. Without a causal mask the model sums S over the clip and reads it; a causal one
updates S frame by frame, as it streams; with a window it keeps the last k and v and scores them (quadratic). A clip is
run alone, as long as it is: no count depends on padding, on neighbours or on the size of a batch. Taps beyond the ends
of a clip are not counted, but a causal convolution reads its past from a buffer that starts as zeros and multiplies
those like any frame. SpikeSCR adds up the spikes of its branches, so a layer that reads the sum is given 2, 3, ….
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from spikeloom.accel.analysis.energy import Convention, EnergyConstants, Operations, per_inference
from spikeloom.accel.analysis.operations import OperationCounter, Product, Rule
from spikeloom.accel.common.batches import BatchIndex
from spikeloom.speech.batches import FeatureSet
from spikeloom.speech.models.prediction import layer_name
from spikeloom.speech.models.recurrent import GRULayer
from spikeloom.speech.models.spikcommander import Gates
from spikeloom.speech.models.spikescr import SeparableGatedConvolution, SpikeSCR, SpikingAttention

AttentionForm = Literal["running_sum", "quadratic"]
FIRST_AND_LAST = frozenset(
    {"stem.maps.0", "layers.0.inputs.linear", "embedding.pointwise", "head"}
)  # of the other networks
SPIKESCR = Convention(permitted=frozenset({"embedding.conv.conv", "head"}))  # given real values or sums by design


def count_operations(
    model: nn.Module,
    feature_set: FeatureSet,
    n_clips: int = 64,
    *,
    attention_form: AttentionForm | None = None,
    constants: EnergyConstants | None = None,
) -> Operations:
    """Operations per clip of `model` in evaluation mode, over `n_clips` clips spread evenly over the set.

    `attention_form` None counts the form that is executed. Raises ValueError for n_clips < 1 and for an augmented set,
    whose clips nobody spoke.
    """
    if n_clips < 1:
        raise ValueError(f"n_clips must be at least 1, got {n_clips}; use for example 64")
    if feature_set.augmentation is not None:
        raise ValueError("operations are counted on clips as they are; use with_augmentation(None)")
    n_clips = min(n_clips, len(feature_set))
    attention = _Attention(attention_form)
    rules: dict[type[nn.Module], Rule] = {
        SpikingAttention: attention, SeparableGatedConvolution: _gate, GRULayer: _gru_gates, Gates: _gates,
    }  # fmt: skip
    device, steps, was_training = next(model.parameters()).device, 0, model.training
    model.eval()
    try:
        with torch.inference_mode(), OperationCounter(model, rules) as counter:
            for clip in torch.linspace(0, len(feature_set) - 1, n_clips).round().long().tolist():
                batch = feature_set[BatchIndex(0, torch.tensor([clip]))]
                length = int(batch.lengths[0])
                model(batch.features[:, :length].to(device).transpose(0, 1))
                steps += length
    finally:
        model.train(was_training)
    if not isinstance(model, SpikeSCR):
        return per_inference(
            counter, samples=n_clips, steps=steps / n_clips, what="clip", constants=constants, name=_name,
            convention=Convention(permitted=FIRST_AND_LAST & counter.connections.keys()),
            network=str(getattr(model, "title", type(model).__name__)),
        )  # fmt: skip
    outputs = sum(c.outputs for c in counter.connections.values() if c.path != "head")  # the head has no bias
    return per_inference(
        counter, samples=n_clips, steps=steps / n_clips, what="clip", convention=SPIKESCR, name=_name,
        constants=constants, network="SpikeSCR", bias_adds=outputs,  # batch norms, once folded, are biases
        residual_adds=4 * len(model.blocks) * steps * model.config.width,
        details={
            "attention_form": attention.form,
            "attention_ac": {form: ac / n_clips for form, ac in attention.ac.items()},
        },
    )  # fmt: skip


def _name(path: str) -> str:
    return layer_name(path.removesuffix(".lif"))


class _Attention:
    """Rule of `SpikingAttention`: rotation, and q k v in the form that is asked for. `ac`: both forms, all clips."""

    def __init__(self, form: AttentionForm | None) -> None:
        self.asked, self.form = form, form
        self.ac: dict[str, float] = {"running_sum": 0.0, "quadratic": 0.0}

    def __call__(self, module: nn.Module, product: Callable[[str], Product]) -> list[RemovableHandle]:
        assert isinstance(module, SpikingAttention)
        self.form = self.asked or ("quadratic" if module.causal and module.window is not None else "running_sum")
        v_TBHD: list[Tensor] = []  # spikes of the clip that is running; v fires before q and k are rotated

        def keep_v(neurons: nn.Module, args: tuple[Tensor, ...], out: tuple[Tensor, object]) -> None:
            q_k_v = out[0].unflatten(2, (3, module.heads, -1))
            v_TBHD[:] = [q_k_v[:, :, 2]]
            rotated = product("rotation")
            rotated.judged = False
            rotated.add(q_k_v[:, :, :2].double())
            rotated.mac += 2 * q_k_v[:, :, :2].numel()
            rotated.dense = rotated.mac

        def multiply(neurons: nn.Module, args: tuple[Tensor, ...], out: tuple[Tensor, object]) -> None:
            q, k, v = out[0][:, :, 0].double(), out[0][:, :, 1].double(), v_TBHD[0].double()
            found = product("q k v")
            for operand in (q, k, v):
                found.add(operand)
            ac, dense = attention_operations(q, k, v, module.causal, module.window)
            for form in self.ac:
                self.ac[form] += ac[form]
            found.ac += ac[str(self.form)]
            found.dense += dense[str(self.form)]

        hooked = (module.qkv_neurons, keep_v), (module.rotated_neurons, multiply)
        return [neurons.register_forward_hook(hook) for neurons, hook in hooked]


def _gru_gates(module: nn.Module, product: Callable[[str], Product]) -> list[RemovableHandle]:
    """Rule of `GRULayer`: three products of gates a unit and step."""

    def multiply(layer: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
        found = product("gates")
        found.judged = False
        found.mac += 3 * out.numel()
        found.dense = found.mac

    return [module.register_forward_hook(multiply)]


def _gates(module: nn.Module, product: Callable[[str], Product]) -> list[RemovableHandle]:
    """Rule of SpikCommander's `Gates`: every spike of q and k enters and leaves a window and enters the global sum; two
    gates then pass the spikes of v, which costs as many additions as gates are open."""
    assert isinstance(module, Gates)

    def add(gates: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
        found = product("gates")
        found.add(args[0].double())
        found.ac += 3 * float(args[0].double().sum()) + float(out.double().sum())
        found.dense += 4 * args[0].numel()

    return [module.register_forward_hook(add)]


def _gate(module: nn.Module, product: Callable[[str], Product]) -> list[RemovableHandle]:
    """Rule of `SeparableGatedConvolution`: a real value times a spiking gate."""
    assert isinstance(module, SeparableGatedConvolution)

    def multiply(neurons: nn.Module, args: tuple[Tensor, ...], out: tuple[Tensor, object]) -> None:
        found = product("gated value")
        found.judged = False
        found.add(out[0].double())
        found.mac += out[0].numel()
        found.dense = found.mac

    return [module.gate_neurons.register_forward_hook(multiply)]


def attention_operations(
    q_TBHD: Tensor, k_TBHD: Tensor, v_TBHD: Tensor, causal: bool, window: int | None
) -> tuple[dict[str, float], dict[str, float]]:
    """(additions, dense MACs) of one clip in both forms. All sums in float64.

    With n_v[s] the spikes of v at step s, both forms end in sum_t q[t] . sum_{s seen from t} k[s] n_v[s]: score by
    score in one, entry of S by entry in the other.
    """
    q, k, v = q_TBHD, k_TBHD, v_TBHD
    steps, _, heads, width = q.shape
    spikes_v = v.sum(3, keepdim=True)
    scores = float((q * _seen(k, causal, window)).sum())
    attended = float((q * _seen(k * spikes_v, causal, window)).sum())
    reach = min(steps, window or steps)
    pairs = reach * (reach + 1) // 2 + (steps - reach) * reach if causal else steps**2
    update = k.sum(3, keepdim=True) * spikes_v
    leaves = update[: steps - reach].sum() if causal else update.new_zeros(())  # what a full window subtracts again
    updates = steps + (steps - reach if causal else 0)
    return (
        {"running_sum": float(update.sum() + leaves) + attended, "quadratic": scores + attended},
        {"running_sum": (updates + steps) * heads * width**2, "quadratic": 2 * pairs * heads * width},
    )


def _seen(x: Tensor, causal: bool, window: int | None) -> Tensor:
    """For every step, the sum of x [T, ...] over the steps it sees."""
    if not causal:
        return x.sum(0, keepdim=True)
    total = x.cumsum(0)
    if window is None or window >= x.shape[0]:
        return total
    return torch.cat((total[:window], total[window:] - total[:-window]))
