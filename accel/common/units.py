"""Numbers with the unit that suits their size: nothing reads as zero because its unit is too large."""

import math

PREFIXES = ("p", "n", "µ", "m", "", "k", "M", "G", "T")  # a factor of 1,000 from one to the next


def scaled(value: float, prefixes: tuple[str, ...], unit: str, digits: int = 3) -> str:
    """A number in the first of the units that keeps it below 1,000.

    Args:
        value: in the unit of the first prefix.
        prefixes: of the units that may be chosen, each 1,000 times the one before.
        unit: without its prefix.
        digits: that count.

    Returns:
        Such as "12.3 µJ"; without a unit to choose or to write, the number alone.
    """
    if not math.isfinite(value):
        return f"{value} {prefixes[0]}{unit}".rstrip()
    at = 0
    # Rounded before it is compared, so that 999.9 with three digits becomes 1 of the next unit.
    while at < len(prefixes) - 1 and abs(float(f"{value:.{digits}g}")) >= 1000:
        value, at = value / 1000, at + 1
    text = f"{value:,.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"
    return f"{text} {prefixes[at]}{unit}".rstrip()


def prefixed(value: float, prefixes: tuple[str, ...] = PREFIXES) -> tuple[float, str]:
    """For an axis: what its values are divided by, and the prefix of their unit.

    Args:
        value: the largest, in the unit of the first prefix.
        prefixes: each 1,000 times the one before.

    Returns:
        Such as (1e6, "µ") for 12.3 million picojoules.
    """
    times, at = 1.0, 0
    while at < len(prefixes) - 1 and abs(value) / times >= 1000:
        times, at = times * 1000, at + 1
    return times, prefixes[at]


def energy_text(pj: float, digits: int = 3) -> str:
    """Picojoules as pJ to J."""
    return scaled(pj, PREFIXES[:5], "J", digits)


def duration_text(ms: float, digits: int = 3) -> str:
    """Milliseconds as ns to s."""
    return scaled(ms * 1e6, PREFIXES[1:5], "s", digits)


def size_text(n_bytes: float, digits: int = 3) -> str:
    """Bytes as B to TB, in powers of 1,000."""
    return scaled(n_bytes, PREFIXES[4:], "B", digits)


def amount_text(number: float, digits: int = 3) -> str:
    """A count such as of operations: 935, 12.3 k, 4.56 M."""
    return scaled(number, PREFIXES[4:], "", digits)


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun in the right form: 1 core, 1,200 cores."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
