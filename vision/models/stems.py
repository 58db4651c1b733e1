"""From pixels or events to tokens: the tokenizers of Spikingformer, its CML form, QKFormer and Max-Former.

`layout` names the input a stem was made for; every stem takes any height and width.

    Spikingformer  conv-BN, then LIF-[pool]-conv-BN: pools 0/1 spikes       cifar 4x, imagenet and dvs 16x
    CML            conv-BN-[pool], then LIF-conv-BN-[pool]: pools real sums, between the same convolutions
    SPEDS          spiking patch embedding with deformed shortcut: main path + strided 1x1 convolution, one per stage;
                   cifar 1x, imagenet 4x, dvs 8x at first, 2x at every later stage
    Max            the same shape with max pooling in the main path and, in later stages, in the shortcut

The first convolution sees real values. In a `sew` SPEDS every path ends in neurons; in an `ms` one the neurons in front
of the main path serve the shortcut, too, and the sum stays real. Max-Former is `ms`.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from spikeloom.accel.spiking.functional import LIFParameters
from spikeloom.vision.models.blocks import Residual, SpikingConv, State, fire, neurons

Tokenizer = Literal["spikingformer", "cml", "speds", "max"]
Layout = Literal["cifar", "imagenet", "dvs"]
Shrink = Literal["pool"] | int

# Which of the five convolutions of a tokenizer stand behind a pool (Spikingformer) or in front of one (CML).
POOL_BEFORE = {"cifar": (3, 4), "imagenet": (1, 2, 3, 4), "dvs": (1, 2, 3, 4)}
REDUCTION = {"cifar": 4, "imagenet": 16, "dvs": 16}


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """Convolutions in front of the branching point (entry) and behind it (main): (width / stage width, how it shrinks
    the map), and how the shortcut does; by max pooling of sums, or by a stride of so many."""

    entry: tuple[tuple[float, Shrink], ...] = ()
    main: tuple[tuple[float, Shrink], ...]
    shortcut: Shrink


FIRST: dict[str, dict[str, Embedding]] = {
    "speds": {
        "cifar": Embedding(entry=((1 / 2, 1),), main=((1, 1),), shortcut=1),
        "imagenet": Embedding(entry=((1 / 2, "pool"),), main=((1, "pool"), (1, 1)), shortcut=2),
        "dvs": Embedding(entry=((1 / 8, 1), (1 / 4, "pool")), main=((1 / 2, "pool"), (1, "pool")), shortcut=4),
    }
}
LATER: dict[str, dict[str, Embedding]] = {
    "speds": {
        "cifar": Embedding(main=((1, 1), (1, "pool")), shortcut=2),
        "imagenet": Embedding(main=((1, "pool"), (1, 1)), shortcut=2),
        "dvs": Embedding(main=((1, 1), (1, "pool")), shortcut=2),
    }
}
FIRST["max"] = {**FIRST["speds"], "imagenet": Embedding(entry=((1 / 2, 2),), main=((1, 2), (1, 1)), shortcut=2)}
LATER["max"] = dict.fromkeys(FIRST["max"], Embedding(main=((1, "pool"), (1, 1)), shortcut="pool"))
SPEDS_REDUCTION = {"cifar": 1, "imagenet": 4, "dvs": 8}


class PlainStem(nn.Module):
    """The tokenizer of Spikingformer or, with `cml`, of its CML form: [T, B, n_in, H, W] -> [T, B, width, H', W']."""

    def __init__(self, layout: Layout, cml: bool, n_in: int, width: int, p: LIFParameters) -> None:
        super().__init__()
        if width < 8:
            raise ValueError(f"this tokenizer starts with width // 8 channels, got width {width}; use at least 8")
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
    """Patch embedding of stage `index`: entry, then main path + shortcut. [T, B, n_in, H, W] -> [T, B, width, ...].

    kind: speds, or max with the tables of Max-Former. shortcut=False leaves the shortcut out (an ablation).
    """

    def __init__(
        self, layout: Layout, index: int, n_in: int, width: int, p: LIFParameters, residual: Residual,
        kind: str = "speds", shortcut: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        ms = residual == "ms"
        made = (LATER if index else FIRST)[kind][layout]
        smallest = min(share for share, _ in (*made.entry, *made.main))
        if int(smallest * width) < 1:
            raise ValueError(
                f"the first stage starts with {smallest} of its width {width}; use a width of at least "
                f"{round(1 / smallest)}"
            )
        entry: list[SpikingConv] = []
        main: list[SpikingConv] = []
        for share, shrink in made.entry:
            fires: Literal["before", "after", "never"] = ("before" if entry else "never") if ms else "after"
            first = not entry
            entry.append(_unit(n_in, int(share * width), 3, shrink, p, fires, spikes_in=not first))
            n_in = int(share * width)
        self.lif = neurons(p) if ms else None  # in front of the first convolution of both paths
        branch: Literal["after", "never"] = "never" if ms else "after"
        self.shortcut = _unit(n_in, width, 1, made.shortcut, p, branch) if shortcut else None
        for share, shrink in made.main:
            fires = ("before" if main else "never") if ms else "after"
            main.append(_unit(n_in, int(share * width), 3, shrink, p, fires))
            n_in = int(share * width)
        self.entry, self.main = nn.ModuleList(entry), nn.ModuleList(main)

    def forward(self, x: Tensor, state: State | None = None, repeats: int = 1) -> tuple[Tensor, State]:
        of_entry, first, of_main, of_shortcut = state or (None,) * 4
        u, of_entry = _chain(self.entry, x, of_entry, repeats)
        if self.lif is not None:
            u, first = fire(self.lif, u, first)
        y, of_main = _chain(self.main, u, of_main)
        if self.shortcut is not None:
            shortcut, of_shortcut = self.shortcut(u, of_shortcut)
            y = y + shortcut
        return y, (of_entry, first, of_main, of_shortcut)


def _unit(
    n_in: int, n_out: int, kernel: int, shrink: Shrink, p: LIFParameters, fires: Literal["before", "after", "never"],
    spikes_in: bool = True,
) -> SpikingConv:  # fmt: skip
    pooled = shrink == "pool"
    return SpikingConv(
        n_in, n_out, kernel, p, fires=fires, pool="sums" if pooled else None, stride=1 if pooled else int(shrink),
        spikes_in=spikes_in,
    )  # fmt: skip


def _chain(units: nn.ModuleList, x: Tensor, state: State | None, repeats: int = 1) -> tuple[Tensor, State]:
    """Units one after the other; the first of them stands for `repeats` equal time steps."""
    states = []  # LIFState | None of each unit
    for i, unit in enumerate(units):
        x, of_unit = unit(x, state and state[i], repeats if i == 0 else 1)
        states.append(of_unit)
    return x, tuple(states)
