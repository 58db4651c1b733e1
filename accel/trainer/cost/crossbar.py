"""Layers whose weights stay in arrays of devices, in the terms of `cost`: what still moves, and what a pulse costs."""

from __future__ import annotations

from math import ceil

from spikeloom.accel.trainer.chip.chip import Chip
from spikeloom.accel.trainer.chip.crossbar import Crossbar
from spikeloom.accel.trainer.cost.closed_forms import OPERAND_BITS, ConvLoops, Energy, Operand, input_sram_pj


def crossbar_energy(loops: ConvLoops, chip: Chip, crossbar: Crossbar, *, forward: bool, operand: Operand,
                    active: float = 1.0) -> Energy:  # fmt: skip
    """Our extension: FP or BP of one image and time step with the weights in arrays, for which no weight moves.

    Inputs of several bits enter one bit after the other. Results of all bits, tiles and taps are added digitally, and
    partial sums pass the output SRAM between tiles and taps as in `forward_energy`.
    """
    engine = chip.fp if forward else chip.bp
    reduction, outputs = loops.group_inputs, loops.group_outputs
    if not forward:
        reduction, outputs = outputs, reduction
    memory, planes = engine.memories, operand.bits
    repeats = loops.groups * loops.positions * loops.taps
    results = loops.groups * outputs * loops.positions
    folds = ceil(reduction / engine.rows) * loops.taps
    product = crossbar.product_pj(reduction, outputs, engine.rows, engine.columns, active=active)
    adds = results * (folds * planes - 1) * chip.ops.add_pj
    sram = input_sram_pj(memory["input"], memory["output"], operand)
    reads = repeats * reduction * ceil(outputs / engine.columns)
    output = memory["output"]
    sums = results * (folds - 1) * output.read_element_pj(OPERAND_BITS)
    sums += results * folds * output.write_element_pj(OPERAND_BITS)
    moved = {operand.tensor if forward else "du": (0.0, reads * sram), "psum": (0.0, sums)}
    return Energy.of(repeats * planes * product + adds, **moved)


def programming_energy(weights: int, crossbar: Crossbar) -> Energy:
    """Our extension: one update of weights in arrays, through their accumulators (an SRAM) and by pulses."""
    accumulators, pulses = crossbar.update_pj(weights)
    return Energy.of(pulses, optimizer=(0.0, accumulators))
