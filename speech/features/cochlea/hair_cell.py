"""The inner hair cell: membrane velocity to the probability that an afferent fires in one step.

Transmitter moves between a free pool q, the cleft c and a reprocessing store w (Meddis, J. Acoust. Soc. Am. 79, 1986,
and 83, 1988), with s the velocity and one forward Euler step a sample:

    k  = g (s + A) / (s + A + B) where s + A > 0, else 0        permeability
    q' = y (M - q) + x w - k q
    c' = k q - (l + r) c
    w' = r c - x w
    P(spike in dt) = clip(h c dt, 0, 1)
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True, kw_only=True)
class HairCellConstants:
    """Names of the paper: y, l, r, x, g, h in 1/s, A and B in units of the velocity, M in units of the pool."""

    y: float = 5.05  # replenishment
    g: float = 2000.0  # release
    l: float = 2500.0  # noqa: E741 loss from the cleft
    r: float = 6580.0  # return from the cleft
    x: float = 66.3  # reprocessing
    A: float = 5.0
    B: float = 300.0
    h: float = 50000.0  # firing
    M: float = 1.0  # size of the free pool


class HairCellState(NamedTuple):
    """Transmitter, float64 `[units]` each."""

    q: np.ndarray
    c: np.ndarray
    w: np.ndarray


MEDDIS = HairCellConstants()


def resting_state(n_units: int, p: HairCellConstants = MEDDIS) -> HairCellState:
    """Where the equations stand still without sound."""
    k = p.g * p.A / (p.A + p.B)
    c = p.M * p.y * k / (p.l * k + p.y * (p.l + p.r))
    return HairCellState(*(np.full(n_units, value) for value in (c * (p.l + p.r) / k, c, p.r * c / p.x)))


def hair_cell_step(
    velocity: np.ndarray, state: HairCellState, dt_s: float, p: HairCellConstants = MEDDIS
) -> tuple[np.ndarray, HairCellState]:
    """Velocity `[units]` -> P(spike in dt) float64 `[units]` and the new state."""
    q, c, w = state
    opening = np.maximum(velocity.astype(np.float64) + p.A, 0.0)
    release = p.g * opening / (opening + p.B) * q
    state = HairCellState(
        q=q + dt_s * (p.y * (p.M - q) + p.x * w - release),
        c=c + dt_s * (release - (p.l + p.r) * c),
        w=w + dt_s * (p.r * c - p.x * w),
    )
    return np.minimum(p.h * dt_s * state.c, 1.0), state
