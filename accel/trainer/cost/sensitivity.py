"""How sure a figure is: the energy of an iteration when the constants of the chip move through their ranges.

Prices change no schedule: a run is made once and then priced again, at the low and at the high end of each range, all
other constants at their own value. `Sensitivity.low_pj` and `high_pj` move all at once: the interval of a pessimist.
The default ranges span what the literature says about the same parts; the price of an SRAM alone spans a factor of ten.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from spikeloom.accel.trainer.chip.chip import Chip, Engine, Memory, Ops
from spikeloom.accel.trainer.schedule.partition import Mapping as Placing
from spikeloom.accel.trainer.schedule.simulator import BALANCED, Simulation
from spikeloom.accel.trainer.workload import Workload

# Low and high end in pJ (SRAM: factors): Horowitz at 28 nm against NeuroMC, registers of four sources, CACTI against
# NeuroMC's small SRAMs, LPDDR4 against DDR3, hops and events against twice and half of Loihi and SENeCA.
RANGES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "add": (0.25, 0.55),
        "mul": (0.68, 0.81),
        "register (16 b)": (0.04, 0.15),
        "SRAM": (10**-0.5, 10**0.5),
        "DRAM (pJ/bit)": (3.9, 41.0),
        "network hop": (0.5, 2.0),
    }
)


@dataclass(frozen=True, kw_only=True)
class Swing:
    """The energy of an iteration with one constant at the ends of its range."""

    constant: str
    low: float
    high: float
    low_pj: float
    high_pj: float


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """`swings` are sorted, the largest first."""

    nominal_pj: float
    low_pj: float
    high_pj: float
    swings: tuple[Swing, ...]


def sensitivity(
    workload: Workload, chip: Chip, ranges: Mapping[str, tuple[float, float]] = RANGES, placing: Placing = BALANCED
) -> Sensitivity:
    """The interval of the energy of an iteration, and how much of it each constant causes.

    `ranges` give the low and the high end of constants of `RANGES`, in the same units.

    Raises:
        ValueError: for an unknown constant or a range that is no range.
    """
    for name, (low, high) in ranges.items():
        if name not in RANGES:
            raise ValueError(f"range of {name!r} got no such constant; use {', '.join(RANGES)}")
        if not 0 <= low <= high:
            raise ValueError(f"range of {name!r} got {low} to {high}; use two numbers >= 0, the lower one first")

    simulation = Simulation(workload, chip, placing)
    simulation.time_ms()
    return of_run(simulation, ranges)


def of_run(simulation: Simulation, ranges: Mapping[str, tuple[float, float]] = RANGES) -> Sensitivity:
    """The same for a simulation that has run."""
    chip = simulation.chip
    nominal = simulation.energy_pj(chip)

    def energy(changes: Sequence[tuple[str, float]]) -> float:
        changed = chip
        for name, value in changes:
            changed = _with(changed, name, value)
        return simulation.energy_pj(changed)

    swings = [
        Swing(constant=name, low=low, high=high, low_pj=energy([(name, low)]), high_pj=energy([(name, high)]))
        for name, (low, high) in ranges.items()
        if _matters(chip, name)
    ]
    all_low = [(swing.constant, swing.low) for swing in swings]
    all_high = [(swing.constant, swing.high) for swing in swings]
    return Sensitivity(
        nominal_pj=nominal, low_pj=energy(all_low), high_pj=energy(all_high),
        swings=tuple(sorted(swings, key=lambda s: s.low_pj - s.high_pj)),
    )  # fmt: skip


def _matters(chip: Chip, name: str) -> bool:
    return {"DRAM (pJ/bit)": chip.energy.include_dram, "network hop": chip.energy.include_noc}.get(name, True)


def _with(chip: Chip, name: str, value: float) -> Chip:
    """The chip with one kind of price changed."""
    ops = chip.ops
    if name == "add":  # a mux is a sixteenth of an adder in the published config; it moves along
        return replace(chip, ops=replace(ops, add_pj=value, mux_pj=ops.mux_pj * value / ops.add_pj))
    if name == "mul":
        return replace(chip, ops=replace(ops, mul_pj=value))
    if name == "register (16 b)":
        return replace(chip, ops=_registers(ops, value / ops.register_16b_pj))
    if name == "DRAM (pJ/bit)":
        return replace(chip, dram=replace(chip.dram, energy_pj_per_bit=value))
    if name == "network hop":
        noc = chip.noc
        moved: dict[str, Any] = {key: getattr(noc, key) * value for key in ("event_pj", "hop_pj_ew", "hop_pj_ns")}
        return replace(chip, noc=replace(noc, **moved))
    return _with_memories(chip, lambda _, memory: _memory(memory, value))


def _with_memories(chip: Chip, change: Callable[[str, Memory], Memory]) -> Chip:
    memories = {key: change(key, memory) for key, memory in chip.memories.items()}
    by_id = {id(memory): memories[key] for key, memory in chip.memories.items()}

    def engine(old: Engine) -> Engine:
        return replace(old, memories=MappingProxyType({role: by_id[id(m)] for role, m in old.memories.items()}))

    return replace(
        chip, memories=MappingProxyType(memories), fp=engine(chip.fp), bp=engine(chip.bp), wg=engine(chip.wg),
        norm_memory=by_id[id(chip.norm_memory)], optimizer_memory=by_id[id(chip.optimizer_memory)],
    )  # fmt: skip


def _registers(ops: Ops, factor: float) -> Ops:
    names = ("register_1b_pj", "register_16b_pj", "register_32b_pj")
    return replace(ops, **{name: getattr(ops, name) * factor for name in names})


def _memory(memory: Memory, factor: float) -> Memory:
    return replace(memory, read_pj=memory.read_pj * factor, write_pj=memory.write_pj * factor)


def constant_shares(simulation: Simulation) -> dict[str, float]:
    """For each price of the chip, by YAML path, the share of the energy that would be gone if it were 0.

    The simulation must have run. The energy is linear in each price, so the shares add up to 1.
    """
    chip = simulation.chip
    whole = simulation.energy_pj(chip)
    if not whole:
        return {}
    without: dict[str, Chip] = {}
    for name in vars(chip.ops):
        without[f"ops.{name}"] = replace(chip, ops=replace(chip.ops, **{name: 0.0}))
    for name in chip.memories:

        def free(key: str, old: Memory, name: str = name) -> Memory:
            return _memory(old, 0.0) if key == name else old

        without[f"memories.{name}"] = _with_memories(chip, free)
    if chip.energy.include_dram:
        without["dram.energy_pj_per_bit"] = replace(chip, dram=replace(chip.dram, energy_pj_per_bit=0.0))
    if chip.energy.include_noc:
        for name in ("event_pj", "hop_pj_ew", "hop_pj_ns"):
            free_of: dict[str, Any] = {name: 0.0}
            without[f"noc.{name}"] = replace(chip, noc=replace(chip.noc, **free_of))
    if chip.energy.include_leakage:
        without["memories.*.leak_mw"] = replace(chip, energy=replace(chip.energy, include_leakage=False))
    shares = {path: (whole - simulation.energy_pj(changed)) / whole for path, changed in without.items()}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))
