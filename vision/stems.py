"""From pixels or events to tokens: Spikingformer's tokenizer, its CML form, and QKFormer's embedding with shortcut.

`layout` names the input a stem was made for; every stem takes any height and width.

    Spikingformer  conv-BN, then LIF-[pool]-conv-BN: pools 0/1 spikes       cifar 4x, imagenet and dvs 16x
    CML            conv-BN-[pool], then LIF-conv-BN-[pool]: pools real sums, between the same convolutions
    SPEDS          spiking patch embedding with deformed shortcut: main path + strided 1x1 convolution, one per stage;
                   cifar 1x, imagenet 4x, dvs 8x at first, 2x at every later stage

The first convolution sees real values. In a `sew` SPEDS every path ends in neurons; in an `ms` one the neurons in front
of the main path serve the shortcut, too, and the sum stays real.
"""

from typing import Literal

from torch import Tensor, nn

from accel.spiking.functional import LIFParameters
from accel.spiking.neuron import LIF
from vision.blocks import Residual, SpikingConv, State, fire

Tokenizer = Literal["spikingformer", "cml", "speds"]
Layout = Literal["cifar", "imagenet", "dvs"]

# Which of the five convolutions of a tokenizer stand behind a pool (Spikingformer) or in front of one (CML).
POOL_BEFORE = {"cifar": (3, 4), "imagenet": (1, 2, 3, 4), "dvs": (1, 2, 3, 4)}
REDUCTION = {"cifar": 4, "imagenet": 16, "dvs": 16}
# SPEDS: (width / stage width, pooled) of the convolutions before the branching point and after it, shortcut stride.
FIRST_SPEDS = {
    "cifar": (((1 / 2, False),), ((1, False),), 1),
    "imagenet": (((1 / 2, True),), ((1, True), (1, False)), 2),
    "dvs": (((1 / 8, False), (1 / 4, True)), ((1 / 2, True), (1, True)), 4),
}
LATER_SPEDS = {"cifar": ((1, False), (1, True)), "imagenet": ((1, True), (1, False)), "dvs": ((1, False), (1, True))}
SPEDS_REDUCTION = {"cifar": 1, "imagenet": 4, "dvs": 8}


class PlainStem(nn.Module):
    """The tokenizer of Spikingformer or, with `cml`, of its CML form: [T, B, n_in, H, W] -> [T, B, width, H', W']."""

    def __init__(self, layout: Layout, cml: bool, n_in: int, width: int, p: LIFParameters) -> None:
        super().__init__()
        if width % 8:
            raise ValueError(f"this tokenizer starts with width/8 channels, got width {width}; use a multiple of 8")
        widths = (n_in, width // 8, width // 4, width // 2, width, width)
        pooled = POOL_BEFORE[layout]
        units = []  # SpikingConv
        for i in range(5):
            pool: Literal["spikes", "sums"] | None = None
            if cml:
                pool = "sums" if i + 1 in pooled else None
            elif i in pooled:
                pool = "spikes"
            units.append(
                SpikingConv(
                    widths[i], widths[i + 1], 3, p, fires="before" if i else "never", pool=pool, spikes_in=i > 0
                )
            )
        self.units = nn.ModuleList(units)

    def forward(self, x: Tensor, state: State | None = None, repeats: int = 1) -> tuple[Tensor, State]:
        return _chain(self.units, x, state, repeats)


class SPEDS(nn.Module):
    """Patch embedding of stage `index`: entry, then main path + shortcut. [T, B, n_in, H, W] -> [T, B, width, ...]."""

    def __init__(self, layout: Layout, index: int, n_in: int, width: int, p: LIFParameters, residual: Residual) -> None:
        super().__init__()
        if index == 0 and width % 8:
            raise ValueError(f"the first stage starts with a share of its width {width}; use a multiple of 8")
        ms = residual == "ms"
        before, after, stride = FIRST_SPEDS[layout] if index == 0 else ((), LATER_SPEDS[layout], 2)
        entry: list[SpikingConv] = []
        main: list[SpikingConv] = []
        for share, pooled in before:
            fires: Literal["before", "after", "never"] = ("before" if entry else "never") if ms else "after"
            n_out = int(share * width)
            first = not entry
            entry.append(
                SpikingConv(n_in, n_out, 3, p, fires=fires, pool="sums" if pooled else None, spikes_in=not first)
            )
            n_in = n_out
        self.lif = LIF(p) if ms else None  # in front of the first convolution of both paths
        self.shortcut = SpikingConv(n_in, width, 1, p, fires="never" if ms else "after", stride=stride)
        for share, pooled in after:
            fires = ("before" if main else "never") if ms else "after"
            n_out = int(share * width)
            main.append(SpikingConv(n_in, n_out, 3, p, fires=fires, pool="sums" if pooled else None))
            n_in = n_out
        self.entry, self.main = nn.ModuleList(entry), nn.ModuleList(main)

    def forward(self, x: Tensor, state: State | None = None, repeats: int = 1) -> tuple[Tensor, State]:
        of_entry, first, of_main, of_shortcut = state or (None,) * 4
        u, of_entry = _chain(self.entry, x, of_entry, repeats)
        if self.lif is not None:
            u, first = fire(self.lif, u, first)
        y, of_main = _chain(self.main, u, of_main)
        shortcut, of_shortcut = self.shortcut(u, of_shortcut)
        return y + shortcut, (of_entry, first, of_main, of_shortcut)


def _chain(units: nn.ModuleList, x: Tensor, state: State | None, repeats: int = 1) -> tuple[Tensor, State]:
    """Units one after the other; the first of them stands for `repeats` equal time steps."""
    states = []  # LIFState | None of each unit
    for i, unit in enumerate(units):
        x, of_unit = unit(x, state and state[i], repeats if i == 0 else 1)
        states.append(of_unit)
    return x, tuple(states)
