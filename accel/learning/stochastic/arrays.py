"""Weights held by memristors: a device and a reference line, or a pair of devices that each move one way.

    pot_dep              W = (G - G_ref) / G0      forward against a reference column, backward against a reference row
    pot_only, dep_only   W = (G+ - G-) / G0        a pulse for the direction that is wanted goes to one of the two

G0 = Gmax - Gmin, so a device and its reference span [-1/2, 1/2]. There are no biases. Gradients reach the devices as
pulses of `spikeloom.accel.learning.stochastic.carry`. What real arrays add is off by default, in `ArrayOptions`.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from spikeloom.accel.learning.stochastic.carry import accumulate
from spikeloom.accel.learning.stochastic.devices import Device, depression, noisy, potentiation, pulses_to_reach
from spikeloom.accel.learning.stochastic.policies import Dense, Layer
from spikeloom.accel.learning.stochastic.synapses import Changed, UpdateRule

PAIR_START, PAIR_SPREAD = 0.05, 0.05  # a one-way device starts at its first bound (1 +- (0.05 + 0.05 N(0, 1)))


@dataclass(kw_only=True)
class ArrayOptions:
    """What an array has beyond the curve of its devices; every default but the first two is off.

    reference_error, initial_spread: relative sd of the reference lines and of the first conductances (pot_dep).
    spread_g_max, spread_g_min, spread_alpha, spread_pulses: relative sd from device to device, sampled once.
    read_noise: sd of every read, in units of G0. stuck_high, stuck_low: fraction of devices that never change.
    levels: number of conductances a device can hold (0: any); a pulse lands on one of the two nearest, by chance.
    shared_reference: backward reads against the forward reference. refresh_every: updates after which a one-way pair
    is rewritten with the same difference from its first bound (0: never). drift_nu: of `drifted`.
    """

    reference_error: float = 0.1
    initial_spread: float = 0.1
    spread_g_max: float = 0.0
    spread_g_min: float = 0.0
    spread_alpha: float = 0.0
    spread_pulses: float = 0.0
    read_noise: float = 0.0
    stuck_high: float = 0.0
    stuck_low: float = 0.0
    levels: int = 0
    shared_reference: bool = False
    refresh_every: int = 0
    drift_nu: float = 0.0

    def __post_init__(self) -> None:
        for key, value in vars(self).items():
            if value < 0:
                raise ValueError(f"array.{key} is {value}; use 0 or more")
        if self.stuck_high + self.stuck_low > 1:
            raise ValueError(f"array.stuck_high + array.stuck_low is {self.stuck_high + self.stuck_low}; use at most 1")
        if self.levels == 1:
            raise ValueError("array.levels is 1; use 0 for any conductance, or at least 2")


class DeviceState(NamedTuple):
    """Devices [1 or 2, *weight]: conductance and pulses received (endurance); reference lines, none for pairs."""

    g_siemens: Tensor
    reference_siemens: tuple[Tensor, ...]  # column (forward), row (backward)
    pulse_count: Tensor  # int64


class Curves(NamedTuple):
    """What each device's pulses obey: numbers, or tensors [1 or 2, *weight] where devices differ."""

    g_min: Tensor
    g_max: Tensor
    alpha_up: Tensor
    alpha_down: Tensor
    pulses_up: Tensor
    pulses_down: Tensor


@dataclass(frozen=True, kw_only=True)
class MemristorSynapses:
    """The weights of one layer in memristors, with their accumulators [*weight]. `update` works in place."""

    device: Device
    options: ArrayOptions
    rule: UpdateRule
    batch_size: int
    positions: int
    state: DeviceState
    residual: Tensor
    curves: Curves
    alive: Tensor  # bool [1 or 2, *weight], or empty where every device moves
    steps: Tensor  # int64 [], updates so far

    def forward(self, generator: Generator) -> tuple[Tensor, Tensor | None]:
        return self._weight(0, generator), None

    def backward(self, generator: Generator) -> Tensor:
        return self._weight(0 if self.options.shared_reference else 1, generator)

    def _weight(self, line: int, generator: Generator) -> Tensor:
        g = self.state.g_siemens
        if self.options.read_noise:
            noise = torch.randn(g.shape, generator=generator, dtype=g.dtype)
            g = g + self.options.read_noise * self.device.window_siemens * noise
        other = g[1] if len(g) == 2 else self.state.reference_siemens[line]
        return (g[0] - other).mul_(1 / self.device.window_siemens)

    def update(self, of_weight: Tensor, of_bias: Tensor, batch: int, generator: Generator) -> Changed:
        single = self.rule.single_pulse(self.batch_size, self.positions)
        pulses = accumulate(self.residual, of_weight, self.rule.theta, single_pulse=single)
        size = self.residual.numel()
        pair = len(self.state.g_siemens) == 2
        for sign in (1, -1):
            chosen = pulses.counts * sign > 0
            places, counts = pulses.places[chosen], pulses.counts[chosen].abs()
            # Of a pair, G+ takes one sign and G- the other, by the only way they move.
            upwards = self.device.writing == "pot_only" or (not pair and sign > 0)
            first = not pair or (sign > 0) == upwards
            self._pulse(places if first else places + size, counts, upwards, generator)
        self.steps.add_(1)
        changed = Changed.by(pulses, of_weight.numel())
        if pair and self.options.refresh_every and int(self.steps) % self.options.refresh_every == 0:
            changed = changed.plus(self.refresh())
        return changed

    def _pulse(self, places: Tensor, counts: Tensor, upwards: bool, generator: Generator) -> None:
        """`counts` pulses one after the other to the devices at flat `places`."""
        g, pulsed = self.state.g_siemens.view(-1), self.state.pulse_count.view(-1)
        pulsed[places] += counts.long()
        if self.alive.numel():
            moves = self.alive.view(-1)[places]
            places, counts = places[moves], counts[moves]
        while len(places):
            here = [c if c.dim() == 0 else c.view(-1)[places] for c in self.curves]
            g_min, g_max, alpha_up, alpha_down, pulses_up, pulses_down = here
            now = g[places]
            if upwards:
                change, gamma = potentiation(now, g_min, g_max, alpha_up, pulses_up), self.device.gamma_up
            else:
                change, gamma = depression(now, g_min, g_max, alpha_down, pulses_down), self.device.gamma_down
            moved = torch.minimum(torch.maximum(now + noisy(change, gamma, generator), g_min), g_max)
            g[places] = self._on_level(moved, generator).to(g.dtype)
            counts = counts - 1
            places, counts = places[counts > 0], counts[counts > 0]

    def _on_level(self, g: Tensor, generator: Generator) -> Tensor:
        if not self.options.levels:
            return g
        step = self.device.window_siemens / (self.options.levels - 1)
        share = (g - self.device.g_min_siemens) / step
        drawn = torch.rand(g.shape, generator=generator, dtype=g.dtype)
        return self.device.g_min_siemens + step * torch.floor(share + drawn).clamp(0, self.options.levels - 1)

    def refresh(self) -> Changed:
        """Write each one-way pair anew: same difference, one device at the bound where writing starts.

        A device that must leave that bound takes as many pulses as its noise-free curve needs, which are counted; the
        erasure that brings both there is not. Stuck devices stay.
        """
        g = self.state.g_siemens
        up = self.device.writing == "pot_only"
        difference = g[0] - g[1]
        low, high = self.device.g_min_siemens, self.device.g_max_siemens
        zero = torch.zeros_like(difference)
        raised = torch.stack((torch.maximum(difference, zero), torch.maximum(-difference, zero)))
        written = low + raised if up else high - raised.flip(0)
        if self.alive.numel():
            written = torch.where(self.alive, written, g)
        counts = pulses_to_reach(written, self.device).long()
        if self.alive.numel():
            counts = counts * self.alive
        g.copy_(written)
        self.state.pulse_count.add_(counts)
        total = int(counts.sum())
        return Changed(total, 0) if up else Changed(0, total)

    def drifted(self, seconds: float) -> "MemristorSynapses":
        """These devices `seconds` later, unread and unwritten: G - Gmin falls as (1 + t / 1 s)^-drift_nu."""
        low = self.device.g_min_siemens
        kept = (1 + seconds) ** -self.options.drift_nu
        return replace(self, state=self.state._replace(g_siemens=low + (self.state.g_siemens - low) * kept))

    def saturated(self) -> float:
        """Share of devices at one of their bounds."""
        g = self.state.g_siemens
        return float(((g <= self.curves.g_min) | (g >= self.curves.g_max)).double().mean())

    def tensors(self) -> dict[str, Tensor]:
        named = {
            "g_siemens": self.state.g_siemens, "pulse_count": self.state.pulse_count, "residual": self.residual,
            "steps": self.steps,
        }  # fmt: skip
        lines = zip(("reference_forward", "reference_backward"), self.state.reference_siemens, strict=False)
        spread = {name: value for name, value in self.curves._asdict().items() if value.dim()}
        return named | dict(lines) | spread | ({"alive": self.alive} if self.alive.numel() else {})


def memristor_synapses(
    layer: Layer, device: Device, options: ArrayOptions, rule: UpdateRule, batch_size: int, generator: Generator
) -> MemristorSynapses:
    """A fresh array for a layer. One device and a reference for `pot_dep`, a pair for a one-way device.

    pot_dep: G ~ middle (1 + initial_spread N), references ~ middle (1 + reference_error N), clipped to the window.
    One-way pairs: Gmin (1.05 + 0.05 N), or Gmax (0.95 - 0.05 N) where pulses lead downwards.
    """
    shape = layer.weight_shape
    pair = device.writing != "pot_dep"
    many = (2 if pair else 1, *shape)

    def normal(size: tuple[int, ...]) -> Tensor:
        return torch.randn(size, generator=generator)

    curves = _curves(device, options, many, generator)
    if not pair:
        g = device.middle_siemens * (1 + options.initial_spread * normal(many))
        # A line has one cell for each line it crosses: inputs for the column, outputs for the row.
        dense = isinstance(layer, Dense)
        lines = ((shape[0], 1), (1, shape[1])) if dense else ((1, *shape[1:]), (shape[0], 1, 1, 1))
        reference = tuple(device.middle_siemens * (1 + options.reference_error * normal(line)) for line in lines)
    else:
        away = PAIR_START + PAIR_SPREAD * normal(many)
        up = device.writing == "pot_only"
        g = device.g_min_siemens * (1 + away) if up else device.g_max_siemens * (1 - away)
        reference = ()
    g = torch.minimum(torch.maximum(g, curves.g_min.to(g.dtype)), curves.g_max.to(g.dtype))
    alive = torch.empty(0, dtype=torch.bool)
    if options.stuck_high or options.stuck_low:
        drawn = torch.rand(many, generator=generator)
        high, low = drawn < options.stuck_high, drawn > 1 - options.stuck_low
        g = torch.where(high, device.g_max_siemens, torch.where(low, device.g_min_siemens, g))
        alive = ~(high | low)
    return MemristorSynapses(
        device=device, options=options, rule=rule, batch_size=batch_size, positions=layer.positions,
        state=DeviceState(g, reference, torch.zeros(many, dtype=torch.int64)),
        residual=torch.zeros(shape), curves=curves, alive=alive, steps=torch.zeros((), dtype=torch.int64),
    )  # fmt: skip


def _curves(device: Device, options: ArrayOptions, shape: tuple[int, ...], generator: Generator) -> Curves:
    """The nominal value, or with a spread a sample for each device, within three sd and above 5 % of nominal."""

    def spread(value: float, relative_sd: float) -> Tensor:
        if not relative_sd or not value:
            return torch.tensor(float(value), dtype=torch.float32)
        draw = torch.randn(shape, generator=generator).clamp_(-3, 3)
        return value * (1 + relative_sd * draw).clamp_min(0.05)

    g_min = spread(device.g_min_siemens, options.spread_g_min)
    g_max = spread(device.g_max_siemens, options.spread_g_max)
    # A window whose sampled bounds are reversed is closed instead.
    g_max = torch.maximum(g_max, g_min) if g_max.dim() or g_min.dim() else g_max
    return Curves(
        g_min, g_max, spread(device.alpha_up, options.spread_alpha), spread(device.alpha_down, options.spread_alpha),
        spread(device.pulses_up, options.spread_pulses), spread(device.pulses_down, options.spread_pulses),
    )  # fmt: skip
