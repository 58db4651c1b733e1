"""Weights that stay in arrays of devices: what a product costs when the array itself multiplies and adds.

    E_MAC = E_cell + E_driver / columns + E_sense / rows

A row is driven once for the columns it crosses and a column sensed once for the rows it adds up, so a whole product of
`reduction` inputs and `outputs` results on tiles of R x C takes, for each position and kernel tap,

    reduction outputs cells,   reduction ceil(outputs / C) drivers,   outputs ceil(reduction / R) senses

An update writes pulses instead of numbers: each weight passes its gradient through an 8-bit accumulator and, now and
then, takes a pulse. A chip file has a section `crossbar` or it has not; this module prices, `cost` decides where.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

from spikeloom.accel.trainer.chip.constants import Bound, Reader

_PRICE = Bound(unit="pJ", low=0, high=1e6)
BOUNDS = {
    "cell_pj": _PRICE, "driver_pj": _PRICE, "sense_pj": _PRICE,
    "accumulator_pj": _PRICE, "pulse_pj": _PRICE,
    "pulses_per_weight": Bound(unit="pulses/update", low=0, high=1e3),
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Crossbar:
    """Prices of a cell in one read, of driving a row, of sensing a column, of an accumulator's read-modify-write, of a
    programming pulse; pulses_per_weight is their mean number in one update. Tiles have the lines of their engine."""

    cell_pj: float
    driver_pj: float
    sense_pj: float
    accumulator_pj: float
    pulse_pj: float
    pulses_per_weight: float

    def product_pj(self, reduction: int, outputs: int, rows: int, columns: int, *, active: float = 1.0) -> float:
        """Energy of one product of one-bit inputs on tiles of rows x columns. `active`: share of cells whose row is
        driven, which spares the driver too."""
        cells = active * reduction * outputs * self.cell_pj
        drivers = active * reduction * ceil(outputs / columns) * self.driver_pj
        senses = outputs * ceil(reduction / rows) * self.sense_pj
        return cells + drivers + senses

    def update_pj(self, weights: int) -> tuple[float, float]:
        """Energy of one update of `weights` weights: (accumulators, programming pulses)."""
        return weights * self.accumulator_pj, weights * self.pulses_per_weight * self.pulse_pj


def read_crossbar(reader: Reader, node: Any) -> Crossbar:
    """The section `crossbar` of a chip file; faults go to the reader."""
    return Crossbar(**reader.numbers(reader.section(node, "crossbar", tuple(BOUNDS)), "crossbar", BOUNDS))
