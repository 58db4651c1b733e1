"""Afferents and the bushy cell of a unit: firing probability to spikes.

40 afferents leave each hair cell, fire with probability P a step, and are deaf for 1 ms after a spike. They are alike,
so how many of them fire is one draw, n ~ Binomial(40 - fired within the last 1 ms, P): exact, and all it takes to know
is a ring of counts. A bushy cell integrates them (Rothman, Young and Manis, J. Neurophysiol. 70, 1993, as in the
converter of the Heidelberg digits, Cramer et al., IEEE TNNLS 33, 2022):

    I <- I + 325 n
    V <- V e_m + I (tau_m tau_s / (tau_m - tau_s)) (e_m - e_s)      e = exp(-dt / tau)
    I <- I e_s
    V >= 1: an event; V is 0 for the next 1 ms
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True, kw_only=True)
class BushyCellConstants:
    n_afferents: int = 40
    afferent_refractory_ms: float = 1.0
    weight: float = 13000.0  # of all afferents together, 1/s
    tau_membrane_ms: float = 1.0
    tau_synapse_ms: float = 0.5
    refractory_ms: float = 1.0
    threshold: float = 1.0

    def steps(self, sample_rate_hz: int) -> "BushyCellSteps":
        """The same in steps of 1 / sample_rate_hz."""
        dt_ms = 1e3 / sample_rate_hz
        membrane_decay = math.exp(-dt_ms / self.tau_membrane_ms)
        synapse_decay = math.exp(-dt_ms / self.tau_synapse_ms)
        tau_ms = self.tau_membrane_ms * self.tau_synapse_ms / (self.tau_membrane_ms - self.tau_synapse_ms)
        return BushyCellSteps(
            n_afferents=self.n_afferents,
            n_deaf=round(self.afferent_refractory_ms / dt_ms) - 1,  # a spike exactly 1 ms after another is possible
            n_refractory=round(self.refractory_ms / dt_ms),
            weight=self.weight / self.n_afferents,
            membrane_decay=membrane_decay,
            synapse_decay=synapse_decay,
            current_gain=1e-3 * tau_ms * (membrane_decay - synapse_decay),
            threshold=self.threshold,
        )


@dataclass(frozen=True, kw_only=True)
class BushyCellSteps:
    """What one step needs. n_deaf, n_refractory: steps after a spike in which an afferent, or the cell, cannot fire."""

    n_afferents: int
    n_deaf: int
    n_refractory: int
    weight: float
    membrane_decay: float
    synapse_decay: float
    current_gain: float
    threshold: float


class BushyCellState(NamedTuple):
    """current I, potential V: float64 `[units]`; wait: int64 `[units]`, steps of refractoriness left."""

    current: np.ndarray
    potential: np.ndarray
    wait: np.ndarray


BUSHY = BushyCellConstants()


def binomial(uniform: np.ndarray, n: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Binomial(n, p) numbers, int64, by inversion of the uniform ones: how many k have CDF(k) <= uniform.

    All `[units]`; n in 0..63, p in [0, 1].
    """
    failure = 1.0 - p
    mass, power = np.ones_like(p), failure  # mass = failure^n by squaring: the same roundings on every machine
    for bit in range(6):
        mass = np.where(n >> bit & 1, mass * power, mass)
        power = power * power
    certain = failure <= 0.0
    odds = p / np.where(certain, 1.0, failure)
    below, count, k = mass, np.zeros_like(n), 0
    while (more := (uniform >= below) & (count == k) & (k < n)).any():
        count = count + more
        mass = mass * ((n - k) * (1.0 / (k + 1))) * odds
        below = below + mass
        k += 1
    return np.where(certain, n, count)


def bushy_cell_step(
    n_spikes: np.ndarray, state: BushyCellState, p: BushyCellSteps
) -> tuple[np.ndarray, BushyCellState]:
    """Afferent spikes int64 `[units]` -> events bool `[units]` and the new state."""
    current = state.current + p.weight * n_spikes
    potential = state.potential * p.membrane_decay + current * p.current_gain
    potential = np.where(state.wait > 0, 0.0, potential)
    events = potential >= p.threshold
    return events, BushyCellState(
        current=current * p.synapse_decay,
        potential=np.where(events, 0.0, potential),
        wait=np.where(events, p.n_refractory, np.maximum(state.wait - 1, 0)),
    )
