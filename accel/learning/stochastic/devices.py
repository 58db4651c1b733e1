"""Memristors: how the conductance of one device moves with a pulse, and the devices of the literature.

    dG+ =  [ (Gmax-Gmin)/(1-exp(-ap)) - (G-Gmin) ] (1-exp(-ap/Np))                     potentiation
    dG- = -[ (Gmax-Gmin)/(1-exp(-ad)) - (Gmax-G) ] (1-exp(-ad/Nd))                     depression
    dG <- dG (1 + gamma N(0,1)),   G <- clip(G + dG, Gmin, Gmax)

Without noise Np pulses lead from Gmin to Gmax exactly, Nd pulses back; alpha -> 0 is a straight line. The presets are
fits from the literature. Arrays of devices that hold weights are in `accel.learning.stochastic.synapses`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import torch
from torch import Generator, Tensor

Writing = Literal["pot_dep", "pot_only", "dep_only"]
STRAIGHT = 1e-6  # alpha of a straight line, whose formula is 0/0


@dataclass(frozen=True, kw_only=True)
class Device:
    """One kind of memristor. writing: both ways, only upwards or only downwards (a weight then takes a pair).

    pulses_up, pulses_down: Np, Nd, from one bound to the other; 0 where that way does not exist. alpha_*: curvature.
    gamma_*: noise of a pulse relative to its size; at 1 and above a pulse can go the wrong way. Raises ValueError for
    bounds in the wrong order or a way that the writing needs and the pulses do not give.
    """

    name: str
    writing: Writing
    g_max_siemens: float
    g_min_siemens: float
    read_volts: float
    pulses_up: int
    pulses_down: int
    alpha_up: float
    alpha_down: float
    gamma_up: float
    gamma_down: float
    source: str

    def __post_init__(self) -> None:
        if not 0 <= self.g_min_siemens < self.g_max_siemens:
            raise ValueError(
                f"device {self.name}: g_min_siemens {self.g_min_siemens:g} and g_max_siemens {self.g_max_siemens:g}; "
                "use 0 <= g_min < g_max"
            )
        for way, pulses, needed in (
            ("up", self.pulses_up, self.writing != "dep_only"), ("down", self.pulses_down, self.writing != "pot_only"),
        ):  # fmt: skip
            if pulses < 0 or (needed and pulses == 0):
                raise ValueError(f"device {self.name}: pulses_{way} is {pulses}; {self.writing} needs at least 1")
            for key in (f"alpha_{way}", f"gamma_{way}"):
                if not (math.isfinite(getattr(self, key)) and getattr(self, key) >= 0):
                    raise ValueError(f"device {self.name}: {key} is {getattr(self, key)}; use a number >= 0")

    @classmethod
    def from_values(cls, values: Any, where: str) -> Device:
        """The device of a file's values. Raises ValueError, beginning with `where`, for one that is none."""
        if not isinstance(values, Mapping):
            raise ValueError(f"{where}: no mapping of the settings of a device; `spikeloom data devices` writes one")
        names = {f.name: f.type for f in fields(cls)}
        if odd := sorted(set(names) ^ set(map(str, values))):
            raise ValueError(f"{where}: {odd[0]} is missing or unknown; a device has {', '.join(names)}")
        kinds: dict[str, type | tuple[type, ...]] = {"str": str, "Writing": str, "int": int, "float": (int, float)}
        for name, kind in names.items():
            if isinstance(values[name], bool) or not isinstance(values[name], kinds[str(kind)]):
                raise ValueError(f"{where}: {name} is {str(values[name])[:40]!r}; use a value of type {kind}")
        if values["writing"] not in get_args(Writing):
            raise ValueError(f"{where}: writing is {values['writing'][:40]!r}; use {', '.join(get_args(Writing))}")
        try:
            return cls(**values)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error

    @property
    def window_siemens(self) -> float:
        """G0 = Gmax - Gmin, a weight of 1."""
        return self.g_max_siemens - self.g_min_siemens

    @property
    def middle_siemens(self) -> float:
        return (self.g_max_siemens + self.g_min_siemens) / 2


def potentiation(g: Tensor, g_min: Tensor | float, g_max: Tensor | float, alpha: Tensor | float, pulses: Tensor | float
                 ) -> Tensor:  # fmt: skip
    """dG+ of one pulse at conductance g, noise-free; all in siemens, parameters scalars or of the shape of g."""
    a = _bent(alpha, g)
    return ((g_max - g_min) / -torch.expm1(-a) - (g - g_min)) * -torch.expm1(-a / pulses)


def depression(g: Tensor, g_min: Tensor | float, g_max: Tensor | float, alpha: Tensor | float, pulses: Tensor | float
               ) -> Tensor:  # fmt: skip
    """dG- of one pulse at conductance g, noise-free, negative: the curve of `potentiation` in h = Gmax - G."""
    a = _bent(alpha, g)
    return -((g_max - g_min) / -torch.expm1(-a) - (g_max - g)) * -torch.expm1(-a / pulses)


def pulses_to_reach(g: Tensor, device: Device) -> Tensor:
    """How many noise-free pulses lead to g from the bound where the device's writing starts, as a whole number.

    Upwards from Gmin: G(n) - Gmin = G0 (1 - exp(-a n / Np)) / (1 - exp(-a)), solved for n; likewise downwards.
    """
    up = device.writing != "dep_only"
    alpha, most = (device.alpha_up, device.pulses_up) if up else (device.alpha_down, device.pulses_down)
    a = max(alpha, STRAIGHT)
    way = (g - device.g_min_siemens) if up else (device.g_max_siemens - g)
    share = (way.double() / device.window_siemens).clamp(0, 1)
    return torch.ceil(-most / a * torch.log1p(share * math.expm1(-a)) - 1e-9)


def noisy(change: Tensor, gamma: float, generator: Generator) -> Tensor:
    """A change of conductance with the noise of one pulse."""
    if gamma == 0:
        return change
    draws = torch.randn(change.shape, generator=generator, dtype=change.dtype, device=change.device)
    return change * (1 + gamma * draws)


def _bent(alpha: Tensor | float, like: Tensor) -> Tensor:
    return torch.as_tensor(alpha, dtype=torch.float64, device=like.device).clamp_min(STRAIGHT)


def _fit(name: str, writing: Writing, g_max: float, g_min: float, volts: float, up: int, down: int, a_up: float,
         a_down: float, gamma_up: float, gamma_down: float, source: str) -> Device:  # fmt: skip
    return Device(
        name=name, writing=writing, g_max_siemens=g_max, g_min_siemens=g_min, read_volts=volts, pulses_up=up,
        pulses_down=down, alpha_up=a_up, alpha_down=a_down, gamma_up=gamma_up, gamma_down=gamma_down, source=source,
    )  # fmt: skip


# Fits of the literature, not of one laboratory's own array.
DEVICES = {
    device.name: device
    for device in (
        _fit("ecram", "pot_dep", 3e-9, 1e-9, 0.1, 55, 55, 0.5, 0.5, 0.3, 0.3, "Tang et al., IEDM 2018"),
        _fit("pcm", "pot_only", 2.2e-3, 7e-6, 0.1, 30, 10, 6, 50, 0.3, 0.1, "Suri et al., J. Appl. Phys. 2012"),
        _fit("pcmo", "pot_dep", 1.6e-7, 3.5e-8, 0.1, 100, 100, 6, 20, 1, 1, "Jang et al., EDL 2015"),
        _fit("epiram_1", "pot_dep", 4e-5, 1e-6, 2, 500, 400, 8, 15, 2, 2, "Choi et al., Nature Materials 2018"),
        _fit("epiram_2", "pot_dep", 3e-5, 1e-7, 2, 200, 50, 5, 1, 1, 1, "Choi et al., Nature Materials 2018"),
        _fit("epiram_3", "pot_dep", 1.25e-5, 1e-7, 2, 100, 50, 1, 1, 1, 1, "Choi et al., Nature Materials 2018"),
        _fit("oxram", "dep_only", 2.5e-4, 2e-5, 0.1, 0, 100, 10, 15, 0.3, 0.3, "Huang et al., TED 2017"),
    )
}
