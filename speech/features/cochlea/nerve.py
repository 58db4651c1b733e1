"""From membrane velocity to the events of the auditory nerve: hair cells, afferents and bushy cells, step by step.

The loop over steps exists twice: `nerve_loop` composes the equations of `hair_cell` and `bushy_cell` and is the oracle;
nerve.cpp runs the same arithmetic in the same order, so both give the same events and the same state, bit for bit.
Without a C++ compiler the loop is used, and the kernel loader says so.

The random numbers depend on (seed, clip, step, unit) alone: not on batches, blocks of units, segments or threads.
"""

import ctypes
import dataclasses
from pathlib import Path
from typing import NamedTuple

import numpy as np

from spikeloom.accel.spiking.kernels import loader
from spikeloom.speech.augmentation import keyed_uniform
from spikeloom.speech.features.cochlea.bushy_cell import BUSHY, BushyCellState, binomial, bushy_cell_step
from spikeloom.speech.features.cochlea.hair_cell import MEDDIS, HairCellState, hair_cell_step, resting_state
from spikeloom.speech.features.cochlea.membrane import N_UNITS

SOURCE = Path(__file__).with_name("nerve.cpp")
_LOOP_STEPS = 512  # the loop draws the random numbers of this many steps at once


class Key(NamedTuple):
    """What the random numbers of a clip depend on; both in 0..2^64 - 1."""

    seed: int
    clip: int


class NerveState(NamedTuple):
    """State of a row of units. recent: int64 `[n_deaf, units]`, how many afferents fired in each of the last steps."""

    hair_cell: HairCellState
    recent: np.ndarray
    bushy_cell: BushyCellState


class _Constants(ctypes.Structure):
    _fields_ = [
        (n, ctypes.c_double)
        for n in (
            "y", "g", "l", "r", "x", "A", "B", "h", "M", "dt_s",
            "weight", "membrane_decay", "synapse_decay", "current_gain", "threshold",
        )
    ] + [(n, ctypes.c_int64) for n in ("n_afferents", "n_deaf", "n_refractory")]  # fmt: skip


class _Call(ctypes.Structure):
    _fields_ = [(n, ctypes.c_int64) for n in ("units", "steps", "stride", "first_unit", "first_step")] + [
        (n, ctypes.c_uint64) for n in ("seed", "clip")
    ]


class _State(ctypes.Structure):
    _fields_ = [(n, ctypes.c_void_p) for n in ("q", "c", "w", "current", "potential", "wait", "recent")]


def silent_state(n_units: int, sample_rate_hz: int) -> NerveState:
    """Hair cells at rest, no afferent deaf, bushy cells discharged."""
    p = BUSHY.steps(sample_rate_hz)
    bushy_cell = BushyCellState(np.zeros(n_units), np.zeros(n_units), np.zeros(n_units, dtype=np.int64))
    return NerveState(resting_state(n_units), np.zeros((p.n_deaf, n_units), dtype=np.int64), bushy_cell)


def nerve(
    velocity: np.ndarray, state: NerveState, key: Key, sample_rate_hz: int, *, first_step: int = 0, first_unit: int = 0
) -> tuple[np.ndarray, NerveState]:
    """Velocity float32 `[units, steps]` -> events and the state after the last step; the state given is not changed.

    Events are int64 `[n, 2]`, (step, unit) in order of step, then unit. `first_step` and `first_unit` say where in its
    clip and on the membrane this piece lies: pieces give together what the whole gives.
    """
    run = _nerve_compiled if loader.backend() == "compiled" else nerve_loop
    return run(velocity, state, key, sample_rate_hz, first_step, first_unit)


def nerve_loop(
    velocity: np.ndarray, state: NerveState, key: Key, sample_rate_hz: int, first_step: int, first_unit: int
) -> tuple[np.ndarray, NerveState]:
    """The equations, one step after the other."""
    p = BUSHY.steps(sample_rate_hz)
    n_units, n_steps = velocity.shape
    hair_cell, recent, bushy_cell = state
    recent, deaf = recent.copy(), recent.sum(axis=0)
    events = [np.empty((0, 2), dtype=np.int64)]
    for t in range(n_steps):
        step = first_step + t
        if t % _LOOP_STEPS == 0:
            steps = np.arange(step, step + min(_LOOP_STEPS, n_steps - t))
            uniform = keyed_uniform(*key, steps, N_UNITS)[:, first_unit : first_unit + n_units]
        probability, hair_cell = hair_cell_step(velocity[:, t], hair_cell, 1 / sample_rate_hz)
        n_spikes = binomial(uniform[t % _LOOP_STEPS], p.n_afferents - deaf, probability)
        if p.n_deaf:  # those that fired n_deaf steps ago hear again
            deaf = deaf + n_spikes - recent[step % p.n_deaf]
            recent[step % p.n_deaf] = n_spikes
        fired, bushy_cell = bushy_cell_step(n_spikes, bushy_cell, p)
        units = first_unit + np.flatnonzero(fired)
        events.append(np.stack((np.full_like(units, step), units), axis=1))
    return np.concatenate(events), NerveState(hair_cell, recent, bushy_cell)


def _nerve_compiled(
    velocity: np.ndarray, state: NerveState, key: Key, sample_rate_hz: int, first_step: int, first_unit: int
) -> tuple[np.ndarray, NerveState]:
    library = loader.build(SOURCE, "nerve")
    library.nerve.restype = ctypes.c_int64
    p = BUSHY.steps(sample_rate_hz)
    constants = _Constants(dt_s=1 / sample_rate_hz, **dataclasses.asdict(MEDDIS), **dataclasses.asdict(p))
    n_units, n_steps = velocity.shape
    if velocity.dtype != np.float32 or velocity.strides[1] != 4 or velocity.strides[0] % 4:
        velocity = np.ascontiguousarray(velocity, dtype=np.float32)
    q, c, w, current, potential, wait, recent = after = [
        array.copy() for array in (*state.hair_cell, *state.bushy_cell, state.recent)
    ]
    found = np.empty(n_units * -(-n_steps // (p.n_refractory + 1)), dtype=np.int64)
    n_found = library.nerve(
        ctypes.byref(constants),
        ctypes.byref(_Call(n_units, n_steps, velocity.strides[0] // 4, first_unit, first_step, *key)),
        ctypes.c_void_p(velocity.ctypes.data),
        ctypes.byref(_State(*(array.ctypes.data for array in after))),
        ctypes.c_void_p(found.ctypes.data),
    )
    found = np.sort(found[:n_found])
    state = NerveState(HairCellState(q, c, w), recent, BushyCellState(current, potential, wait))
    return np.stack((found >> 32, found & 0xFFFFFFFF), axis=1), state
