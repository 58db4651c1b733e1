"""Cycles of a layer on an array: how far inputs stream through stationary weights, and what skipping zeros saves.

Weights stay in the array while a chunk of inputs streams past them, image after image and step after step, for as long
as the partial sums of one column fit in the output SRAM; then the next weights are loaded and the array fills anew. One
image step is never cut: a map larger than the SRAM streams whole, as in the published loop nest. (The published energy
charges a weight load for each image step; that rule is in `cost` and stays as it is.)

Zero-skipping saves cycles. Each lane of a tile steps through its own non-zeros, and the tile waits for the fullest
lane: the share of cycles that remain is the density of the busiest of 16 lanes, not the mean. It was measured on real
masks (`Density.busiest`), or else comes from masks drawn here with the measured mean. Zeros of several operands are
taken as independent. In a stationary operand, skipping packs the non-zeros of a column into fewer folds.
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil

import numpy as np

from spikeloom.accel.trainer.chip.chip import Chip, Engine
from spikeloom.accel.trainer.cost.closed_forms import OPERAND_BITS, ConvLoops, systolic_cycles
from spikeloom.accel.trainer.workload import Density, Layer

DRAWN_ROWS = 1024  # positions of a drawn mask; longer streams even out as one over the square root of their length
DRAWN_TILES = 16


def stream_cycles(
    loops: ConvLoops, engine: Engine, *, forward: bool, image_steps: int, planes: int = 1,
    shares: tuple[float, float] = (1.0, 1.0),
) -> int:  # fmt: skip
    """Cycles of FP (or BP) over `image_steps`; `shares` of the streamed and of the stationary operand remain."""
    reduction, outputs = loops.group_inputs, loops.group_outputs
    if not forward:
        reduction, outputs = outputs, reduction
    columns = min(outputs, engine.columns)
    sums = engine.memories["output"].size_bits // (OPERAND_BITS * columns)
    together = min(image_steps, max(1, sums // loops.positions)) if engine.dataflow == "ws" else image_steps
    full, rest = divmod(image_steps, together)

    def one(steps: int) -> int:
        rows = loops.positions * steps * planes
        return product_cycles(engine, rows, reduction, outputs, k_taps=loops.taps, shares=shares)

    return loops.groups * (full * one(together) + (one(rest) if rest else 0))


def gradient_cycles(
    loops: ConvLoops, engine: Engine, *, image_steps: int, planes: int = 1, shares: tuple[float, float] = (1.0, 1.0)
) -> int:
    """Cycles of WG: a (C F) x K result for each group, reduced over positions, images and time."""
    reduction = loops.positions * image_steps * planes
    return loops.groups * product_cycles(
        engine, loops.group_inputs, reduction, loops.group_outputs, m_taps=loops.taps, shares=shares
    )


def product_cycles(
    engine: Engine, m: int, k: int, n: int, *, m_taps: int = 1, k_taps: int = 1, shares: tuple[float, float]
) -> int:
    """The closed form of `systolic_cycles` in the engine's flow; with zeros skipped, its stream or its folds are
    shorter."""
    streamed, stationary = shares
    rows, columns, flow = engine.rows, engine.columns, engine.dataflow
    if shares == (1.0, 1.0):
        return systolic_cycles(m, k, n, rows, columns, flow, m_taps=m_taps, k_taps=k_taps)
    fill = 2 * rows + columns - 2
    folds = max(1, ceil(ceil(k / rows) * k_taps * stationary))
    if flow == "ws":
        return folds * ceil(n / columns) * (max(1, ceil(m * m_taps * streamed)) + fill) - 1
    if flow == "is":  # inputs are the stationary operand here
        folds = max(1, ceil(ceil(k / rows) * k_taps * streamed))
        return folds * ceil(m / columns) * m_taps * (max(1, ceil(n * stationary)) + fill) - 1
    reduction = max(1, ceil(k * k_taps * streamed * stationary))
    return ceil(m / rows) * m_taps * ceil(n / columns) * (reduction + rows + columns - 2) - 1


def skipped_shares(layer: Layer, engine: Engine, operands: tuple[str, str], stream: int) -> tuple[float, float]:
    """Share of cycles that remain for the streamed and the stationary operand of `engine`, named in `operands`."""
    if not engine.zero_skipping:
        return 1.0, 1.0
    shares = [busiest(_density(layer, name), stream) if name in engine.zero_skipping else 1.0 for name in operands]
    return shares[0], shares[1]


def active_share(layer: Layer, engine: Engine, inserted_share: float) -> float:
    """Fraction of MACs that are neither gated off nor skipped. Zeros of different operands are taken as independent;
    the zeros inserted for strides are zeros of du."""
    active = 1.0
    for operand in sorted({*engine.zero_gating, *engine.zero_skipping}):
        density = _density(layer, operand)
        active *= 1.0 if density is None else density.mean
        active *= inserted_share if operand == "du" else 1.0
    return active


def _density(layer: Layer, operand: str) -> Density | None:
    return densities(layer)[operand]


def densities(layer: Layer) -> dict[str, Density | None]:
    """Of the operands that an array can gate or skip."""
    return {"input": layer.density_input, "du": layer.density_du, "weight": layer.density_weight}


def busiest(density: Density | None, stream: int) -> float:
    """Density of the fullest of 16 lanes whose streams have `stream` entries; 1 where nothing was measured."""
    if density is None:
        return 1.0
    if density.busiest is not None:
        return max(density.busiest, density.mean)
    return drawn_busiest(density.mean, stream)


@lru_cache(maxsize=4096)
def drawn_busiest(mean: float, stream: int) -> float:
    """The same from masks drawn with the density `mean`. One set of random numbers serves all densities, so that a
    sparser operand never takes longer."""
    rows = min(stream, DRAWN_ROWS)
    drawn = float((_uniform(rows) < mean).mean(1).max(-1).mean())
    return mean + (drawn - mean) * (rows / stream) ** 0.5


@lru_cache(maxsize=64)
def _uniform(rows: int) -> np.ndarray:
    return np.random.default_rng(2412).random((DRAWN_TILES, rows, 16), dtype=np.float32)


def lanes(chip: Chip, engine: str) -> int:
    """Elements that the neuron, norm and elementwise units of an engine take in a cycle."""
    return chip.arrays[engine].columns
