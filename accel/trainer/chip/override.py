"""A chip from a file with a few numbers changed, as one point of a design space.

The change is made in the tree of the file and then checked like any file, so that each bad value has the usual message.
A changed number says so in its source and has the tier `assumed`.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from spikeloom.accel.trainer.chip.chip import ENGINE_OPERANDS, Chip
from spikeloom.accel.trainer.chip.crossbar import BOUNDS
from spikeloom.accel.trainer.chip.document import ChipError, read_document

SPARSITIES = ("dense", "gating", "skipping")


@dataclass
class ChipConfig:
    """A chip by name or file, and what is to differ from it; None leaves the file's value.

    sram_kb: shared memory of a core (the normalisation and the optimizer SRAM together, in their proportion); its price
    follows where the file prices it by size. buffer_scale: factor on the engines' own SRAMs. sparsity: dense, gating or
    skipping, for all operands of all engines.
    """

    name: str = "neuromc"  # a preset of conf/chips, or FILE.yaml; on the command line also chip=NAME
    cores: int | None = None  # number of cores
    clock_mhz: float | None = None  # clock of all cores
    sram_kb: float | None = None
    buffer_scale: float | None = None
    array: int | None = None  # rows and columns of every array
    dram_gb_per_s: float | None = None  # bandwidth of the off-chip memory
    dram_pj_per_bit: float | None = None  # price of a bit from or to off-chip memory
    link_bits_per_cycle: int | None = None  # width of a link of the network on chip
    sparsity: str | None = None
    membrane: str | None = None  # of what BP needs: store or recompute
    weights: str | None = None  # how they are stored: dense, bitmap, run_length, or compressed (the smallest of these)
    strided_gradient: str | None = None  # BP and WG of strided convolutions: zero_inserted or compacted
    include_dram: bool | None = None  # whether off-chip memory is in the energy
    include_noc: bool | None = None  # whether the network on chip is in the energy
    include_leakage: bool | None = None  # whether leakage is in the energy

    @property
    def label(self) -> str:
        """The name with what was changed, such as `neuromc cores=8`."""
        given = [(f.name, getattr(self, f.name)) for f in fields(self)[1:]]
        changed = [f"{name}={v:g}" if isinstance(v, float) else f"{name}={v}" for name, v in given if v is not None]
        return " ".join([Path(self.name).stem, *changed])


def variant(path: Path, config: ChipConfig, presets: Path | None = None) -> Chip:
    """The chip of a file with the changes of `config`; its `base` may lie in `presets`.

    Raises:
        ChipError: for a faulty file, or a change that makes no sense.
    """
    tree = deepcopy(read_document(path, presets))
    where = f"{path} ({config.label})"
    if not isinstance(tree, dict):
        return Chip.from_mapping(tree, where)
    if config.cores is not None:
        if config.cores < 1:
            raise ChipError(f"chip.cores={config.cores}: a chip has at least 1 core")
        _set(tree, "cores", "count", config.cores)
        _set(tree, "cores", "mesh", list(mesh_of(config.cores)))
    if config.clock_mhz is not None:
        _set(tree, "clock_hz", None, config.clock_mhz * 1e6)
    for key, value in (
        ("bandwidth_bytes_per_s", None if config.dram_gb_per_s is None else config.dram_gb_per_s * 1e9),
        ("energy_pj_per_bit", config.dram_pj_per_bit),
    ):
        if value is not None:
            _set(tree, "dram", key, value)
    if config.link_bits_per_cycle is not None:
        _set(tree, "noc", "link_bits_per_cycle", config.link_bits_per_cycle)
    given = tree.get("engines")
    engines: dict[str, Any] = given if isinstance(given, dict) else {}
    for name, engine in engines.items():
        if not isinstance(engine, dict):
            continue
        if config.array is not None:
            _set(engine, "array", None, [config.array, config.array])
        if config.sparsity is not None:
            if config.sparsity not in SPARSITIES:
                raise ChipError(f"chip.sparsity={config.sparsity}: use one of {', '.join(SPARSITIES)}")
            operands = list(ENGINE_OPERANDS.get(name, ()))
            engine["zero_gating"] = [] if config.sparsity == "dense" else operands
            engine["zero_skipping"] = operands if config.sparsity == "skipping" else []
    keys = {
        "mapping": ("membrane", "strided_gradient", "weights"),
        "energy": ("include_dram", "include_noc", "include_leakage"),
    }
    for section, key in ((section, key) for section, names in keys.items() for key in names):
        if getattr(config, key) is not None and isinstance(tree.get(section), dict):
            tree[section][key] = getattr(config, key)
    _resize(tree, config)
    return Chip.from_mapping(tree, where)


def with_counted_pulses(chip: Chip, source: Mapping[str, str]) -> Chip:
    """The chip with the pulses a weight and update that were counted in a run, where the workload's `source` has them;
    any other chip as it is.

    Raises:
        ValueError: for an entry that is no number of pulses.
    """
    text = source.get("pulses_per_weight")
    if text is None or chip.crossbar is None:
        return chip
    bound = BOUNDS["pulses_per_weight"]
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not bound.low <= value <= bound.high:
        raise ValueError(f"source.pulses_per_weight of the workload is {text!r}; use {bound.low:g} to {bound.high:g}")
    constants = tuple(
        replace(c, value=value, source="counted in the run", tier="derived")
        if c.path == "crossbar.pulses_per_weight"
        else c
        for c in chip.constants
    )
    return replace(chip, crossbar=replace(chip.crossbar, pulses_per_weight=value), constants=constants)


def mesh_of(cores: int) -> tuple[int, int]:
    """The most square mesh of so many cores, wider than high."""
    rows = next(r for r in range(int(cores**0.5), 0, -1) if cores % r == 0)
    return rows, cores // rows


def _resize(tree: dict[str, Any], config: ChipConfig) -> None:
    memories, shared = tree.get("memories"), tree.get("shared")
    if not isinstance(memories, dict) or not isinstance(shared, dict):
        return
    for key in ("sram_kb", "buffer_scale"):
        value = getattr(config, key)
        if value is not None and not value > 0:
            raise ChipError(f"chip.{key}={value}: a size is above 0")
    homes = [name for name in dict.fromkeys(map(str, shared.values())) if name in memories]
    sizes = {name: _size(memories[name]) for name in memories}
    together = sum(sizes[name] or 0 for name in homes)
    for name, size in sizes.items():
        factor = config.buffer_scale if name not in homes else None
        if name in homes and config.sram_kb is not None and together:
            factor = config.sram_kb * 8192 / together
        if factor is not None and size:
            _set(memories[name], "size_bits", None, max(1, round(size * factor)))


def _size(memory: Any) -> int | None:
    record = memory.get("size_bits") if isinstance(memory, dict) else None
    value = record.get("value") if isinstance(record, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _set(tree: dict[str, Any], section: str, key: str | None, value: Any) -> None:
    """Change a number in the tree; what is not there is left for the check to name."""
    parent, last = (tree, section) if key is None else (tree.get(section), key)
    if isinstance(parent, dict) and isinstance(parent.get(last), dict):
        parent[last] = {**parent[last], "value": value, "source": "set by the user", "tier": "assumed"}
