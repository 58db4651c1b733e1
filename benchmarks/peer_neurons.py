"""Whether neurons of other libraries, swapped for ours, give the same spikes; run where the libraries are installed.

    python -m venv --system-site-packages PEERS
    PEERS/bin/pip install --no-deps snntorch spikingjelly loguru norse sinabs pbr
    PEERS/bin/python benchmarks/peer_neurons.py

Each row is one kind of neuron: its own run over random currents, and that of the module that export puts in its place.
Libraries that are missing are named and skipped; the exit status is 1 where spikes differ.
"""

import copy
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from spikeloom.accel.export.neurons import swap_neurons

STEPS, BATCH, WIDTH = 40, 6, 50
Run = Callable[[nn.Module, Tensor], Tensor]


def by_step(module: nn.Module, x: Tensor) -> Tensor:
    """[T, B, N] one call a step; the first of what comes out."""
    state: Any = None
    spikes = []
    for x_t in x:
        out = module(x_t) if state is None else module(x_t, state)
        if isinstance(out, tuple):
            out, state = out
        spikes.append(out)
    return torch.stack(spikes)


def whole(module: nn.Module, x: Tensor) -> Tensor:
    """[T, B, N] in one call."""
    found: Tensor = module(x)
    return found


def batch_first(module: nn.Module, x: Tensor) -> Tensor:
    """[T, B, N] in one call that takes [B, T, N]."""
    found: Tensor = module(x.transpose(0, 1)).transpose(0, 1)
    return found


def cases() -> Iterator[tuple[str, Callable[[], nn.Module], Run]]:
    """Name, maker and way of calling of every kind that can be imported."""
    try:
        import snntorch

        for reset in ("zero", "none"):
            for delay in (True, False):
                options = {"reset_mechanism": reset, "reset_delay": delay}
                yield f"snntorch Leaky {reset} delay={delay}", partial(snntorch.Leaky, beta=0.9, **options), by_step
        yield "snntorch Leaky hidden", partial(snntorch.Leaky, 0.8, reset_mechanism="zero", init_hidden=True), by_step
    except ImportError as error:
        print(f"snntorch skipped: {error}")
    try:
        from spikingjelly.activation_based import neuron

        for mode, run in (("m", whole), ("s", by_step)):
            for v_reset in (0.0, -0.2, None):
                o = {"step_mode": mode, "v_reset": v_reset}
                yield f"spikingjelly IF {o}", partial(neuron.IFNode, **o), run
                yield f"spikingjelly LIF {o}", partial(neuron.LIFNode, tau=3.0, **o), run
                if v_reset is not None:
                    no = {**o, "decay_input": False}
                    yield f"spikingjelly LIF {no}", partial(neuron.LIFNode, tau=3.0, **no), run
                yield f"spikingjelly PLIF {o}", partial(neuron.ParametricLIFNode, init_tau=2.5, **o), run
    except ImportError as error:
        print(f"spikingjelly skipped: {error}")
    try:
        import norse.torch as norse

        yield "norse LIFBox", partial(norse.LIFBoxCell, dt=0.002), by_step
    except ImportError as error:
        print(f"norse skipped: {error}")
    try:
        import sinabs.layers as sl
        from sinabs.activation import MembraneReset, MembraneSubtract, SingleSpike

        for reset in (MembraneReset(), MembraneSubtract()):
            for norm in (True, False):
                o = {"spike_fn": SingleSpike, "reset_fn": reset, "norm_input": norm}
                yield f"sinabs LIF {reset} norm_input={norm}", partial(sl.LIF, tau_mem=8.0, **o), batch_first
        yield "sinabs IAF", partial(sl.IAF, spike_fn=SingleSpike, reset_fn=MembraneReset()), batch_first
    except ImportError as error:
        print(f"sinabs skipped: {error}")


@torch.no_grad()
def compare(make: Callable[[], nn.Module], run: Run) -> tuple[int, int, str]:
    """Spikes of the original, spikes that differ, and the report of the swap."""
    torch.manual_seed(0)
    x = 2.0 * torch.rand(STEPS, BATCH, WIDTH)
    theirs = run(make().eval(), x)
    ours, told = swap_neurons(copy.deepcopy(nn.Sequential(make())).eval())
    assert isinstance(ours, nn.Sequential)
    return int(theirs.sum()), int((run(ours[0], x) != theirs).sum()), "; ".join(told)


def main() -> int:
    """Print the table."""
    wrong = 0
    for name, make, run in cases():
        spikes, differing, told = compare(make, run)
        swapped = "taken as" in told
        wrong += differing > 0 or spikes == 0 or not swapped
        print(f"{name:75s} {spikes:7,d} spikes, {differing} differ{'' if swapped else '  NOT SWAPPED: ' + told}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
