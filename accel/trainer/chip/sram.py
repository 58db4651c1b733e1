"""Price of an SRAM by its size: the 28 nm table of CACTI 7, and its own fit beyond the table.

CACTI 7, 28 nm, one read-write port, 330 K, minimum dynamic power. Between the sizes of the table the price is a
straight line on log-log axes, below 1 KB it is that of 1 KB, above 2 MB the relative fit a + b sqrt(bytes) of the
same table.
"""

from __future__ import annotations

from math import exp, log
from typing import Any

FLAVOURS = ("cacti-lop", "cacti-hp")
# bytes: (itrs-hp pJ per byte read, itrs-lop pJ per byte read, itrs-lop leakage in mW)
TABLE = {
    1 << 10: (0.225, 0.162, 0.10),
    4 << 10: (0.407, 0.235, 0.34),
    8 << 10: (0.330, 0.198, 0.67),
    16 << 10: (0.396, 0.233, 1.2),
    32 << 10: (0.568, 0.302, 2.4),
    64 << 10: (0.802, 0.473, 4.5),
    128 << 10: (1.19, 0.666, 9.0),
    256 << 10: (1.43, 0.796, 17.9),
    512 << 10: (2.13, 1.12, 34.5),
    1 << 20: (3.05, 1.70, 68.5),
    2 << 20: (4.55, 2.47, 137.0),
}
FIT = {"cacti-hp": (0.127, 0.00268), "cacti-lop": (0.095, 0.00142)}  # within 27 % and 21 % of the table
LARGEST_BYTES = 2 << 20


def access_pj(size_bits: float, port_bits: float, flavour: str) -> float:
    """Energy in pJ of one access of `port_bits` to an SRAM of `size_bits`; reads and writes cost the same (assumed).

    Raises:
        ValueError: for an unknown flavour.
    """
    if flavour not in FLAVOURS:
        raise ValueError(f"SRAM flavour got {flavour!r}; use one of {', '.join(FLAVOURS)}")
    size = size_bits / 8
    if size > LARGEST_BYTES:
        constant, slope = FIT[flavour]
        return (constant + slope * size**0.5) * port_bits / 8
    column = 0 if flavour == "cacti-hp" else 1
    return _between(max(size, 1024.0), column) * port_bits / 8


def leakage_mw(size_bits: float) -> float:
    """Leakage of an itrs-lop SRAM in mW; in proportion to the size outside the table."""
    size = size_bits / 8
    if size < 1024:
        return TABLE[1024][2] * size / 1024
    if size > LARGEST_BYTES:
        return TABLE[LARGEST_BYTES][2] * size / LARGEST_BYTES
    return _between(size, 2)


def _between(size: float, column: int) -> float:
    sizes = list(TABLE)
    upper = next(s for s in sizes if s >= size)
    lower = max((s for s in sizes if s <= size), default=upper)
    low, high = TABLE[lower][column], TABLE[upper][column]
    if upper == lower:
        return low
    share = log(size / lower) / log(upper / lower)
    return exp(log(low) + share * log(high / low))


def priced(section: dict[str, Any]) -> dict[str, Any]:
    """Prices written as "cacti-lop" or "cacti-hp" become those of the table for this size and port."""
    numbers = [
        node.get("value") if isinstance(node, dict) else None for node in (section["size_bits"], section["port_bits"])
    ]
    size, port = (n if isinstance(n, int) and not isinstance(n, bool) and n > 0 else None for n in numbers)
    if size is None or port is None:
        return section
    for key in ("read_pj", "write_pj", "leak_mw"):
        record = section[key]
        if isinstance(record, dict) and record.get("value") in FLAVOURS:
            price = leakage_mw(size) if key == "leak_mw" else access_pj(size, port, record["value"])
            beyond = {"tier": "fit"} if size / 8 > LARGEST_BYTES else {}
            section[key] = {**record, "value": price, **beyond}
    return section
