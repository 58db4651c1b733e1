"""Bytes: what each phase must move to and from DRAM, and what more it moves because an SRAM is too small.

Compulsory bytes: each phase touches each tensor once, nothing stays on chip between phases, and a gradient serves BP
and WG in one read. What is read again goes through the loop nest of the array. With chunks of q streamed rows (bounded
by the partial sums that the output SRAM holds) and tiles of output channels, either

    tiles outside:   weights once if a tile fits in the weight SRAM, else once for each chunk; inputs once for each tile
    chunks outside:  weights once for each chunk (once in all if all fit); inputs once if a chunk fits in the input
                     SRAM, else once for each tile

and the order with the fewest DRAM bytes is taken. A tensor that is read again comes from the shared memory of its core
(activations from that of the normalisation unit, weights from that of the optimizer) if it fits there, and then costs
no further DRAM bytes; otherwise each read goes to DRAM. So traffic never rises when an SRAM grows, and is compulsory
when all are large.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil
from typing import NamedTuple

from spikeloom.accel.trainer.chip.chip import Chip, Engine
from spikeloom.accel.trainer.cost.closed_forms import OPERAND_BITS, ConvLoops


class Reads(NamedTuple):
    """How often an operand enters the engine's SRAM (`visits`), and how often it then comes from DRAM (`loads`)."""

    visits: int
    loads: int


ONCE = Reads(visits=1, loads=1)


class Reuse(NamedTuple):
    streamed: Reads
    stationary: Reads


def reuse(
    loops: ConvLoops, chip: Chip, engine: Engine, *, forward: bool, image_steps: int, streamed_bits: int,
    streamed_elements: int, weights_at_home: bool, visits: bool = True, weight_bits: float = OPERAND_BITS,
) -> Reuse:  # fmt: skip
    """Reads of the streamed input and of the stationary weights of FP or BP over `image_steps`.

    `streamed_elements` are those of the whole iteration; `weights_at_home` says that the weights of everything on the
    core fit in its shared memory, `weight_bits` are those of a stored weight. Without `visits` only the DRAM loads are
    worked out.
    """
    reduction, outputs = loops.group_inputs, loops.group_outputs
    if not forward:
        reduction, outputs = outputs, reduction
    columns = min(outputs, engine.columns)
    rows = loops.positions * image_steps
    tiles = ceil(outputs / columns)
    largest = max(1, engine.memories["output"].size_bits // (OPERAND_BITS * columns))
    row_bits = max(1, ceil(streamed_elements * streamed_bits / rows))  # of all groups
    held = max(1, engine.memories["input"].size_bits // row_bits)
    weights_bits, input_bits = weight_bits * loops.weights, streamed_elements * streamed_bits
    weight_sram, input_sram = engine.memories["weight"].size_bits, engine.memories["input"].size_bits
    home = chip.norm_memory.size_bits
    if not visits and weights_at_home and min(largest, rows) * row_bits <= home:
        return Reuse(streamed=ONCE, stationary=ONCE)  # chunks outside: nothing is loaded twice
    tile_fits = weight_bits * reduction * columns * loops.taps <= weight_sram

    best: tuple[float, float] | None = None  # bytes from DRAM, then bytes into the SRAMs
    chosen = Reuse(ONCE, ONCE)
    for chunk in sorted({min(largest, rows), min(largest, held, rows), min(largest, rows, max(1, home // row_bits))}):
        chunks = -(-rows // chunk)
        for tiles_outside in (True, False):
            if tiles_outside:
                weights = 1 if tile_fits else chunks
                inputs = 1 if input_bits <= input_sram else tiles
                at_home = input_bits <= home
            else:
                weights = 1 if weights_bits <= weight_sram else chunks
                inputs = 1 if chunk <= held else tiles
                at_home = chunk * row_bits <= home
            input_loads, weight_loads = 1 if at_home else inputs, 1 if weights_at_home else weights
            cost = (
                input_loads * input_bits + weight_loads * weights_bits, inputs * input_bits + weights * weights_bits,
            )  # fmt: skip
            if best is None or cost < best:
                best, chosen = cost, Reuse(Reads(inputs, input_loads), Reads(weights, weight_loads))
    return chosen


def too_large(loops: ConvLoops, chip: Chip, input_bits: int) -> Iterable[str]:
    """What of the smallest tile of a layer does not fit in the SRAM meant for it."""
    for name, engine, forward in (("fp", chip.fp, True), ("bp", chip.bp, False)):
        reduction, outputs = loops.group_inputs, loops.group_outputs
        if not forward:
            reduction, outputs = outputs, reduction
        rows, columns = min(reduction, engine.rows), min(outputs, engine.columns)
        streamed = rows * (input_bits if forward else OPERAND_BITS)
        for role, needed in (
            ("weight", rows * columns * OPERAND_BITS), ("output", columns * OPERAND_BITS), ("input", streamed),
        ):  # fmt: skip
            size = engine.memories[role].size_bits
            if needed > size:
                yield f"engine {name} needs {needed} bit of {role} for one tile, its memory has {size}"


def bytes_of(elements: int, bits: float) -> int:
    return ceil(elements * bits / 8)
