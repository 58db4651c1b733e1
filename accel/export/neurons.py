"""Neurons of other libraries, told by their class: replaced by equal ones of this package, or named.

    spikingjelly   IFNode, LIFNode, ParametricLIFNode, single and multi step          equal
    snntorch       Leaky with reset_mechanism "zero" or "none"                        equal
    norse          LIFBoxCell with the reset to a value                               equal
    sinabs         LIF, IAF with SingleSpike and a reset to 0 or by the threshold     equal
    the rest       traced as the elementwise operations that it is, and named with what to use instead

Equal means the same spikes for the same input, and the same membrane where a call returns it: constants are carried
over, a threshold that fires at u > th becomes the next float32, for ours fire at u >= th. A surrogate that is not among
ours does not change a spike; ATan stands in for it. The libraries themselves are never imported.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from spikeloom.accel.common.units import counted
from spikeloom.accel.spiking.functional import LIFParameters, LIFState
from spikeloom.accel.spiking.ops import lif
from spikeloom.accel.spiking.surrogate import ATan, Sigmoid, Surrogate

LIBRARIES = ("snntorch", "spikingjelly", "norse", "sinabs")
_ADVICE = {
    "snntorch": "Leaky(reset_mechanism='zero') is one neuron operation",
    "spikingjelly": "IFNode, LIFNode and ParametricLIFNode are one neuron operation",
    "norse": "LIFBoxCell is one neuron operation",
    "sinabs": "LIF and IAF with spike_fn=SingleSpike, without tau_syn, are one neuron operation",
}


class NotEqualError(ValueError):
    """A foreign neuron without an equal here; the message says why."""


def swap_neurons(model: nn.Module) -> tuple[nn.Module, tuple[str, ...]]:
    """Replace foreign neurons inside `model`, in place, and say what was done, a line for each kind.

    Call it on a copy, or inside `unchanged`, which puts the originals back.
    """
    swapped: dict[str, int] = {}
    named: dict[str, int] = {}

    def visit(module: nn.Module) -> nn.Module:
        kind = type(module)
        library = kind.__module__.partition(".")[0]
        convert = _CONVERT.get((library, kind.__name__))
        if convert is not None:
            try:
                new = convert(module)
                swapped[f"{library} {kind.__name__}"] = swapped.get(f"{library} {kind.__name__}", 0) + 1
                return new
            except NotEqualError as error:
                reason = f"{library} {kind.__name__} ({error}): traced operation by operation; {_ADVICE[library]}"
                named[reason] = named.get(reason, 0) + 1
                return module
        if library in LIBRARIES and _spikes(module):
            reason = f"{library} {kind.__name__}: traced operation by operation; {_ADVICE[library]}"
            named[reason] = named.get(reason, 0) + 1
        for name, child in list(module.named_children()):
            new = visit(child)
            if new is not child:
                setattr(module, name, new)
        return module

    changed = visit(model)
    told = [f"{counted(n, f'{kind} neuron layer')} taken as spikeloom::lif" for kind, n in swapped.items()]
    return changed, (*told, *(f"{n} x {reason}" for reason, n in named.items()))


def _spikes(module: nn.Module) -> bool:
    """Whether a foreign module is a neuron and not a layer that holds some."""
    marks = ("threshold", "v_threshold", "spike_threshold", "spike_grad", "surrogate_function", "spike_fn")
    return any(hasattr(module, mark) for mark in marks) or type(module).__name__.startswith(("LIF", "IF", "LSNN"))


class _Membrane(NamedTuple):
    v: Tensor


class Steps(nn.Module):
    """x [T, B, ...], all steps at once; `batch_first` takes [B, T, ...]. Every call starts at rest."""

    def __init__(self, p: LIFParameters, w: nn.Parameter | None = None, *, batch_first: bool = False) -> None:
        super().__init__()
        self.p, self.w, self.batch_first = p, w, batch_first

    def forward(self, x: Tensor) -> Tensor:
        if self.batch_first:
            return lif(x.transpose(0, 1), None, self.p)[0].transpose(0, 1)
        return lif(x, None, self.p, _tau(self.w))[0]


class Step(nn.Module):
    """One step, x [B, ...]; keeps its membrane until the next call, as the original does."""

    def __init__(self, p: LIFParameters, w: nn.Parameter | None = None) -> None:
        super().__init__()
        self.p, self.w = p, w
        self.v: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        state = None if self.v is None or self.v.shape != x.shape else LIFState(self.v)
        spikes, after = lif(x[None], state, self.p, _tau(self.w))
        self.v = after.v
        return spikes[0]


class SnnTorchLeaky(nn.Module):
    """One step; a call returns the membrane before its reset, which follows in the next call (`delayed`)."""

    def __init__(self, p: LIFParameters, *, resets: bool, delayed: bool, hidden: bool, output: bool) -> None:
        super().__init__()
        self.p, self.resets, self.delayed, self.hidden, self.output = p, resets, delayed, hidden, output
        self.mem: Tensor | None = None

    def reset_mem(self) -> Tensor:
        """No membrane yet; the first call makes one of its input's shape."""
        self.mem = None
        return torch.zeros(0)

    init_leaky = reset_mem

    def forward(self, x: Tensor, mem: Tensor | None = None) -> Any:
        before = self.mem if mem is None else mem
        if before is None or before.shape != x.shape:
            before = torch.zeros_like(x)
        if not self.resets:
            u = (1 - 1 / self.p.tau) * before + x
            spikes = (u >= self.p.threshold).to(x.dtype)
        else:
            rest = torch.where(before >= self.p.threshold, 0.0, before) if self.delayed else before
            fired, after = lif(x[None], LIFState(rest), self.p)
            spikes, u = fired[0], after.v
            if self.delayed:
                u = (1 - 1 / self.p.tau) * rest + x
        self.mem = u
        return (spikes, u) if self.output or not self.hidden else spikes


class NorseBox(nn.Module):
    """One step, (x, state) -> (spikes, state with a field v)."""

    def __init__(self, p: LIFParameters) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, _Membrane]:
        v = None if state is None else LIFState(torch.as_tensor(state.v).expand(x.shape).to(x.dtype))
        spikes, after = lif(x[None], v, self.p)
        return spikes[0], _Membrane(after.v)


def _tau(w: Tensor | None) -> Tensor | None:
    return None if w is None else 1 / torch.sigmoid(w)


# --- constants ------------------------------------------------------------------------------------------------------


def _one(value: Any, name: str) -> float:
    values = torch.as_tensor(value).detach().double().flatten().unique()
    if len(values) != 1:
        raise NotEqualError(f"{name} has {len(values)} values")
    return float(values[0])


def _above(threshold: float) -> float:
    """Our neurons fire at u >= th: the threshold of one that fires at u > `threshold`."""
    return float(np.nextafter(np.float32(threshold), np.float32(np.inf)))


def _surrogate(function: Any) -> Surrogate:
    alpha = getattr(function, "alpha", None)
    name = type(function).__name__
    if alpha is None or name not in ("ATan", "Sigmoid"):
        return ATan(2.0)
    return ATan(_one(alpha, "alpha")) if name == "ATan" else Sigmoid(_one(alpha, "alpha"))


def _spikingjelly(m: Any) -> nn.Module:
    kind = type(m).__name__
    if getattr(m, "store_v_seq", False):
        raise NotEqualError("store_v_seq=True hands out every membrane")
    learned = kind == "ParametricLIFNode"
    tau = math.inf if kind == "IFNode" else 2.0 if learned else _one(m.tau, "tau")
    if tau < 1:
        raise NotEqualError(f"tau={tau} is below one step")
    p = LIFParameters(
        tau=tau, decay_input=kind != "IFNode" and bool(m.decay_input), threshold=_one(m.v_threshold, "v_threshold"),
        v_reset=None if m.v_reset is None else _one(m.v_reset, "v_reset"), detach_reset=bool(m.detach_reset),
        surrogate=_surrogate(m.surrogate_function),
    )  # fmt: skip
    w = m.w if learned else None
    return Steps(p, w) if m.step_mode == "m" else Step(p, w)


def _snntorch(m: Any) -> nn.Module:
    beta, reset = _one(m.beta, "beta"), m.reset_mechanism
    for name, odd in (
        ("reset_mechanism='subtract' subtracts a step later", reset == "subtract"),
        ("state_quant", bool(m.state_quant)), ("inhibition", bool(m.inhibition)),
        ("a learned beta or threshold", isinstance(m.beta, nn.Parameter) or isinstance(m.threshold, nn.Parameter)),
        ("graded spikes", _one(getattr(m, "graded_spikes_factor", 1.0), "graded_spikes_factor") != 1.0),
        (f"beta={beta}", not 0 <= beta <= 1),
    ):  # fmt: skip
        if odd:
            raise NotEqualError(name)
    p = LIFParameters(
        tau=math.inf if beta == 1 else 1 / (1 - beta), decay_input=False,
        threshold=_above(_one(m.threshold, "threshold")), v_reset=0.0,
    )  # fmt: skip
    return SnnTorchLeaky(
        p, resets=reset == "zero", delayed=bool(getattr(m, "reset_delay", True)), hidden=bool(m.init_hidden),
        output=bool(m.output),
    )  # fmt: skip


def _norse(m: Any) -> nn.Module:
    if getattr(m.p.reset_method, "__name__", "") != "reset_value":
        raise NotEqualError("a reset that is not to a value")
    rate = m.dt * _one(m.p.tau_mem_inv, "tau_mem_inv")
    leak, rest = _one(m.p.v_leak, "v_leak"), _one(m.p.v_reset, "v_reset")
    if leak != rest or not 0 < rate <= 1:
        raise NotEqualError(f"it rests at {leak} and resets to {rest}, dt/tau = {rate:g}")
    return NorseBox(
        LIFParameters(tau=1 / rate, decay_input=True, threshold=_above(_one(m.p.v_th, "v_th")), v_reset=rest)
    )


def _sinabs(m: Any) -> nn.Module:
    spikes, reset = getattr(m.spike_fn, "__name__", "none"), m.reset_fn
    subtracts = type(reset).__name__ == "MembraneSubtract" and reset.subtract_value is None
    resets = type(reset).__name__ == "MembraneReset" and reset.reset_value == 0
    for name, odd in (
        (f"spike_fn={spikes} fires several times a step", spikes != "SingleSpike"),
        ("min_v_mem", m.min_v_mem is not None),
        ("tau_syn", m.tau_syn is not None), ("record_states", bool(m.record_states)),
        ("its reset", not (subtracts or resets)),
    ):  # fmt: skip
        if odd:
            raise NotEqualError(name)
    alpha = 1.0 if type(m).__name__ == "IAF" else _one(m.alpha_mem_calculated, "alpha_mem")
    return Steps(
        LIFParameters(
            tau=math.inf if alpha == 1 else 1 / (1 - alpha), decay_input=bool(m.norm_input) and alpha < 1,
            threshold=_one(m.spike_threshold, "spike_threshold"), v_reset=None if subtracts else 0.0,
        ), batch_first=True,
    )  # fmt: skip


_CONVERT: dict[tuple[str, str], Callable[[Any], nn.Module]] = {
    **{("spikingjelly", kind): _spikingjelly for kind in ("IFNode", "LIFNode", "ParametricLIFNode")},
    ("snntorch", "Leaky"): _snntorch,
    ("norse", "LIFBoxCell"): _norse,
    ("sinabs", "LIF"): _sinabs,
    ("sinabs", "IAF"): _sinabs,
}
