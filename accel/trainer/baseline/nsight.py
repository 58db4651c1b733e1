"""DRAM bytes that Nsight Compute counted, read from its CSV.

Made by `ncu --csv --metrics dram__bytes_read.sum,dram__bytes_write.sum COMMAND`: one line for each kernel and metric,
lines of the profiler's own (`==PROF== …`) in between. Sums only; no kernel is matched with one of the model.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from spikeloom.accel.common.files import read_text

METRICS = ("dram__bytes_read.sum", "dram__bytes_write.sum")
UNITS = {"byte": 1, "Kbyte": 10**3, "Mbyte": 10**6, "Gbyte": 10**9, "Tbyte": 10**12}
MOST_BYTES = 1e18  # of one kernel: days at the bandwidth of any GPU
REMEDY = f"make it with `ncu --csv --metrics {','.join(METRICS)} COMMAND`"


@dataclass(frozen=True, kw_only=True)
class Counters:
    """What the profiler counted over all kernels of the file."""

    source: str
    kernels: int
    read_bytes: int
    written_bytes: int

    @property
    def dram_bytes(self) -> int:
        return self.read_bytes + self.written_bytes


def read_counters(path: str | Path) -> Counters:
    """Sum the DRAM counters of a CSV.

    Raises:
        ValueError: for a file without these counters, or with a value or unit that cannot be read.
    """
    path = Path(path)
    lines = read_text(path, REMEDY).splitlines()
    start = next((i for i, line in enumerate(lines) if "Metric Name" in line and "Metric Value" in line), None)
    if start is None:
        raise ValueError(f"{path}: no line with the columns Metric Name and Metric Value; {REMEDY}")
    totals = dict.fromkeys(METRICS, 0.0)
    kernels: set[str] = set()
    for number, row in _rows(path, lines, start):
        name = row.get("Metric Name")
        if name not in totals:
            continue
        unit, text = row.get("Metric Unit") or "byte", (row.get("Metric Value") or "").replace(",", "")
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if unit not in UNITS or not 0 <= value * UNITS[unit] <= MOST_BYTES:
            raise ValueError(
                f"{path}: line {number} has {name} = {text[:40]!r} {unit[:20]}; bytes from 0 to {MOST_BYTES:.0e} are "
                f"needed, {REMEDY}"
            )
        totals[name] += value * UNITS[unit]
        kernels.add(row.get("ID") or str(number))
    if not kernels:
        raise ValueError(f"{path}: none of the counters {', '.join(METRICS)}; {REMEDY}")
    read, written = (round(totals[name]) for name in METRICS)
    return Counters(source=path.name, kernels=len(kernels), read_bytes=read, written_bytes=written)


def _rows(path: Path, lines: Sequence[str], start: int) -> Iterator[tuple[int, dict[str, str | None]]]:
    """Lines of the table with their numbers."""
    try:
        yield from enumerate(csv.DictReader(lines[start:]), start=start + 2)
    except csv.Error as error:
        raise ValueError(f"{path}: not a table of counters ({error}); {REMEDY}") from error
