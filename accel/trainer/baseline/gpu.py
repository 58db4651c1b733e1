"""The graphics processor to compare with: a checked, frozen description read from YAML, every number with its origin.

This module prices nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from spikeloom.accel.common.files import read_yaml
from spikeloom.accel.common.units import counted
from spikeloom.accel.trainer.chip.constants import ABSENT, Bound, Constant, Reader

Precision = Literal["fp32", "amp_fp16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
_NUMBERS = {
    "l2_bytes": Bound(unit="B", low=0, high=2**40, whole=True),
    "dram_bytes_per_s": Bound(unit="B/s", low=1, high=1e15),
    "tdp_w": Bound(unit="W", low=1e-3, high=1e5),
    "peak_flops_fp32": Bound(unit="FLOP/s", low=1, high=1e18),
    "peak_flops_amp_fp16": Bound(unit="FLOP/s", low=1, high=1e18),
    "dram_device_pj_per_bit": Bound(unit="pJ/bit", low=0, high=1e4),
    "dram_path_pj_per_bit": Bound(unit="pJ/bit", low=0, high=1e4),
}


class GpuError(ValueError):
    """A GPU file with faults; the message lists all of them."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """Sizes, rates and prices of one graphics processor."""

    name: str
    l2_bytes: int
    dram_bytes_per_s: float
    tdp_w: float
    peak_flops_fp32: float
    peak_flops_amp_fp16: float
    dram_device_pj_per_bit: float
    dram_path_pj_per_bit: float
    constants: tuple[Constant, ...]

    def peak_flops(self, precision: Precision) -> float:
        """Operations a second at `precision`; mixed precision runs on the tensor cores."""
        return self.peak_flops_fp32 if precision == "fp32" else self.peak_flops_amp_fp16

    @classmethod
    def from_yaml(cls, path: str | Path) -> Gpu:
        """Read a GPU file.

        Raises:
            GpuError: for an unreadable file, or with the list of all faults in it.
        """
        try:
            document = read_yaml(Path(path), "write a GPU file in YAML")
        except ValueError as error:
            raise GpuError(str(error)) from error
        reader = Reader()
        top: dict[str, Any] = reader.section(document, "", ("name", *_NUMBERS), optional=("templates",))
        name = top["name"]
        if name is not ABSENT and not isinstance(name, str):
            reader.faults.append(f"name: got {name!r}; a text is needed")
        numbers = reader.numbers(top, "", _NUMBERS)
        if reader.faults:
            faults = "\n  ".join(reader.faults)
            raise GpuError(f"{path}: {counted(len(reader.faults), 'fault')} in this GPU description:\n  {faults}")
        return cls(name=name, constants=tuple(reader.constants), **numbers)
