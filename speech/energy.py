"""Operations and energy of one inference of SpikeSCR, counted from the events of real clips.

    E_pj = 0.9 * AC + 4.6 * MAC                          45 nm, 32-bit float (Horowitz, ISSCC 2014)

Layers of synapses are counted by `accel.spiking.operations`: whole-number inputs (spikes, event counts, the integer
residual stream) accumulate, mel frames multiply. What SpikeSCR adds to them, d features a head, C in all, T steps:

    rotary positions       MAC = 4 C a step and block (q and k)
    gate                   MAC = C a step and block (real value * spiking gate)
    attention, quadratic   AC = sum of q k^T over the pairs seen + sum over pairs and heads of score * spikes of v
    attention, running sum AC = k spikes * v spikes (updates of S = sum of k v^T) + sum of the entries of S that q reads

The two forms give the same output. Without a causal mask the model sums S over the clip and reads it; a causal one
updates S frame by frame, as it streams; with a window it keeps the last k and v and scores them (quadratic). A clip is
run alone, as long as it is: no count depends on padding, on neighbours or on the size of a batch. Taps beyond the ends
of a clip are not counted, but a causal convolution reads its past from a buffer that starts as zeros and multiplies
those like any frame. Arithmetic alone is counted, so hardware, which also moves data, will spend more.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from accel.spiking.operations import OperationCounter
from speech.batches import Draw, FeatureSet
from speech.spikescr import SpikeSCR, SpikingAttention
from speech.training import layer_name

AttentionForm = Literal["running_sum", "quadratic"]


@dataclass(frozen=True, kw_only=True)
class EnergyConstants:
    """Energy of one operation at 45 nm, 32-bit float."""

    ac_pj: float = 0.9
    mac_pj: float = 4.6


@dataclass(frozen=True, kw_only=True)
class PartOperations:
    """One part of the model, per clip. `dense` is what the part costs when nothing is skipped, in MACs."""

    part: str
    ac: float
    mac: float
    dense: float


@dataclass(frozen=True, kw_only=True)
class OperationCounts:
    """Operations of one inference, mean over `n_clips` clips of `steps` steps in the mean.

    `attention_ac` holds both forms, `rows` the one named by `attention_form`. `beside` is not part of ac, mac and
    energy: neuron updates, batch norms (folded into the maps before them: 0), bias adds and residual adds.
    """

    rows: tuple[PartOperations, ...]
    attention_form: AttentionForm
    attention_ac: Mapping[AttentionForm, float]
    firing_rates: Mapping[str, float]  # part -> share of neurons that fire in a step
    beside: Mapping[str, float]
    steps: float
    n_clips: int
    constants: EnergyConstants
    counter: OperationCounter  # totals over all clips, for other readers

    @property
    def ac(self) -> float:
        return sum(row.ac for row in self.rows)

    @property
    def mac(self) -> float:
        return sum(row.mac for row in self.rows)

    @property
    def dense_macs(self) -> float:
        return sum(row.dense for row in self.rows)

    @property
    def energy_pj(self) -> float:
        return self.constants.ac_pj * self.ac + self.constants.mac_pj * self.mac

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the figures above, without the counter."""
        return {
            "ac": self.ac, "mac": self.mac, "dense_macs": self.dense_macs, "energy_pj": self.energy_pj,
            "ac_pj": self.constants.ac_pj, "mac_pj": self.constants.mac_pj, "clips": self.n_clips, "steps": self.steps,
            "attention_form": self.attention_form, "attention_ac": dict(self.attention_ac),
            "parts": [vars(row) for row in self.rows], "firing_rates": dict(self.firing_rates),
            "beside": dict(self.beside),
        }  # fmt: skip


def count_operations(
    model: SpikeSCR,
    feature_set: FeatureSet,
    n_clips: int = 64,
    *,
    attention_form: AttentionForm | None = None,
    constants: EnergyConstants | None = None,
) -> OperationCounts:
    """Operations per clip of `model` in evaluation mode, over `n_clips` clips spread evenly over the set.

    `attention_form` None counts the form that is executed. Raises ValueError for n_clips < 1 and for an augmented set,
    whose clips nobody spoke.
    """
    if n_clips < 1:
        raise ValueError(f"n_clips must be at least 1, got {n_clips}; use for example 64")
    if feature_set.augmentation is not None:
        raise ValueError("operations are counted on clips as they are; use with_augmentation(None)")
    n_clips = min(n_clips, len(feature_set))
    attentions = [m for m in model.modules() if isinstance(m, SpikingAttention)]  # one a block
    products = [_Products() for _ in attentions]
    hooks = [hook for m, p in zip(attentions, products, strict=True) for hook in _watch(m, p)]
    device, steps, was_training = model.head.weight.device, 0, model.training
    model.eval()
    try:
        with torch.inference_mode(), OperationCounter(model) as counter:
            for clip in torch.linspace(0, len(feature_set) - 1, n_clips).round().long().tolist():
                batch = feature_set[Draw(0, torch.tensor([clip]))]
                length = int(batch.lengths[0])
                model(batch.features[:, :length].to(device).transpose(0, 1))
                steps += length
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)

    rows = [
        PartOperations(part=layer_name(c.path), ac=c.ac / n_clips, mac=c.mac / n_clips, dense=c.dense / n_clips)
        for c in counter.connections.values()
    ]
    causal, window = model.config.causal, model.config.attn_window
    form: AttentionForm = attention_form or ("quadratic" if causal and window is not None else "running_sum")
    per_step = steps / n_clips * model.config.width
    for i, product in enumerate(products, 1):
        attended = product.quadratic if form == "quadratic" else product.running_sum
        rows += [
            PartOperations(part=f"block {i}, attention: rotation", ac=0.0, mac=4 * per_step, dense=4 * per_step),
            PartOperations(
                part=f"block {i}, attention: q k v", ac=attended.ac / n_clips, mac=0.0, dense=attended.dense / n_clips
            ),
            PartOperations(part=f"block {i}, convolution: gated value", ac=0.0, mac=per_step, dense=per_step),
        ]
    outputs = sum(c.outputs for c in counter.connections.values() if c.path != "head")  # the head has no bias
    return OperationCounts(
        rows=tuple(rows),
        attention_form=form,
        attention_ac={
            "running_sum": sum(p.running_sum.ac for p in products) / n_clips,
            "quadratic": sum(p.quadratic.ac for p in products) / n_clips,
        },
        firing_rates={layer_name(a.path.removesuffix(".lif")): a.rate for a in counter.activations.values()},
        beside={
            "neuron_updates": sum(a.places for a in counter.activations.values()) / n_clips,
            "batch_norms": 0.0,
            "bias_adds": outputs / n_clips,
            "residual_adds": 4 * len(model.blocks) * per_step,
        },
        steps=steps / n_clips,
        n_clips=n_clips,
        constants=constants or EnergyConstants(),
        counter=counter,
    )


@dataclass
class _Form:
    ac: float = 0.0
    dense: float = 0.0


class _Products:
    """Totals of one attention over all clips, both forms."""

    def __init__(self) -> None:
        self.v_TBHD: Tensor | None = None  # spikes of the clip that is running
        self.quadratic, self.running_sum = _Form(), _Form()

    def add(self, q_TBHD: Tensor, k_TBHD: Tensor, v_TBHD: Tensor, causal: bool, window: int | None) -> None:
        """All sums in float64 over one clip.

        With n_v[s] the spikes of v at step s, both forms end in sum_t q[t] . sum_{s seen from t} k[s] n_v[s]: score by
        score in one, entry of S by entry in the other.
        """
        q, k, v = q_TBHD.double(), k_TBHD.double(), v_TBHD.double()
        steps, _, heads, width = q.shape
        spikes_v = v.sum(3, keepdim=True)
        scores = float((q * _seen(k, causal, window)).sum())
        attended = float((q * _seen(k * spikes_v, causal, window)).sum())
        reach = min(steps, window or steps)
        pairs = reach * (reach + 1) // 2 + (steps - reach) * reach if causal else steps**2
        self.quadratic.ac += scores + attended
        self.quadratic.dense += 2 * pairs * heads * width

        update = k.sum(3, keepdim=True) * spikes_v
        leaves = update[: steps - reach].sum() if causal else update.new_zeros(())  # what a full window subtracts again
        self.running_sum.ac += float(update.sum() + leaves) + attended
        updates = steps + (steps - reach if causal else 0)
        self.running_sum.dense += (updates + steps) * heads * width**2


def _seen(x: Tensor, causal: bool, window: int | None) -> Tensor:
    """For every step, the sum of x [T, ...] over the steps it sees."""
    if not causal:
        return x.sum(0, keepdim=True)
    total = x.cumsum(0)
    if window is None or window >= x.shape[0]:
        return total
    return torch.cat((total[:window], total[window:] - total[:-window]))


def _watch(attention: SpikingAttention, products: _Products) -> list[Any]:
    """Hooks that hand the spikes of q, k and v to `products`; v fires before q and k are rotated."""

    def keep_v(module: nn.Module, args: Any, out: tuple[Tensor, Any]) -> None:
        products.v_TBHD = out[0].unflatten(2, (3, attention.heads, -1))[:, :, 2]

    def multiply(module: nn.Module, args: Any, out: tuple[Tensor, Any]) -> None:
        assert products.v_TBHD is not None
        products.add(out[0][:, :, 0], out[0][:, :, 1], products.v_TBHD, attention.causal, attention.window)

    def on(module: nn.Module, hook: Callable[..., None]) -> Any:
        return module.register_forward_hook(hook)

    return [on(attention.qkv_neurons, keep_v), on(attention.rotated_neurons, multiply)]
