"""Weights with zeros in fewer bits: as a bitmap or by run lengths, where that is smaller than 16 bits for every weight.

For N weights of which a fraction d is not zero, and values of b = 16 bits:

    dense        b N
    bitmap       N + b d N                          a bit says whether a weight is there
    run length   (b + r) d N / (1 - (1 - d)^(2^r))  each value with the number of zeros before it, r = 4 bits

A run longer than 2^r - 1 zeros needs an entry of its own for every 2^r zeros, with the value zero; the denominator
counts these for zeros that lie anywhere with equal chance. What is stored is read from DRAM and from SRAM in this form;
the registers of the array hold plain weights. Unpacking takes no time and no energy of its own. Gradients and the
32-bit weights of the optimizer stay dense: a pruning rule may let any weight come back.
"""

from __future__ import annotations

from math import expm1, log1p
from typing import Literal

from spikeloom.accel.trainer.chip.chip import Chip
from spikeloom.accel.trainer.workload import Layer

VALUE_BITS, RUN_BITS = 16, 4  # FP16 values; the run length of EIE (arXiv 1602.01528), assumed for this chip
Form = Literal["dense", "bitmap", "run_length"]


def bits_per_weight(form: Form, density: float) -> float:
    """Mean bits that a weight takes, zero or not, with the index.

    Args:
        form: How the weights are stored.
        density: Fraction of weights that are not zero, in [0, 1].
    """
    if form == "dense":
        return float(VALUE_BITS)
    if form == "bitmap":
        return 1 + VALUE_BITS * density
    if density >= 1.0:
        return float(VALUE_BITS + RUN_BITS)
    if density <= 0.0:
        return (VALUE_BITS + RUN_BITS) / 2**RUN_BITS  # nothing but entries for runs of zeros
    filled = -expm1(2**RUN_BITS * log1p(-density))
    return (VALUE_BITS + RUN_BITS) * density / filled


def stored_form(layer: Layer, chip: Chip) -> tuple[Form, float]:
    """How the chip stores the weights of a layer, the smallest of the forms it has, and bits per weight; dense where
    nothing was measured."""
    density = 1.0 if layer.density_weight is None else layer.density_weight.mean
    chosen = chip.mapping.weights
    forms: tuple[Form, ...] = ("dense",)
    if chosen == "compressed":
        forms = ("dense", "bitmap", "run_length")
    elif chosen != "dense":
        forms = ("dense", chosen)
    sizes = [(bits_per_weight(form, density), form) for form in forms]
    bits, form = min(sizes, key=lambda entry: entry[0])
    return form, bits


def stored_bits(layer: Layer, chip: Chip) -> float:
    """Bits that a weight of the layer takes in memory."""
    return stored_form(layer, chip)[1]
