"""The chip: a checked, frozen description of the training chip, read from YAML.

Every number in the file is written {value, unit, source, node_nm, tier}, so that each figure of a report can be traced
to where its constants come from. The tiers are `published`, `derived`, `fit` and `assumed`. The attributes of a `Chip`
are the bare values, with the unit in the name; `provenance()` gives the rest. This module prices nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from spikeloom.accel.common.units import counted
from spikeloom.accel.trainer.chip import sram
from spikeloom.accel.trainer.chip.constants import ABSENT, MOST_LISTED, Bound, Constant, Reader, short
from spikeloom.accel.trainer.chip.crossbar import Crossbar, read_crossbar
from spikeloom.accel.trainer.chip.document import ChipError, read_document

Dataflow = Literal["ws", "os", "is"]
Mac = Literal["mux_add", "mul_add"]

# What each engine asks of its memories, and which operands meet in its multipliers.
ENGINE_ROLES: Mapping[str, tuple[str, ...]] = {
    "fp": ("input", "weight", "output", "potential", "spike", "mask"),
    "bp": ("input", "weight", "output", "potential", "gradient", "spike", "mask"),
    "wg": ("input", "gradient", "output"),
}
ENGINE_OPERANDS: Mapping[str, tuple[str, ...]] = {
    "fp": ("input", "weight"),
    "bp": ("du", "weight"),
    "wg": ("input", "du"),
}


@dataclass(frozen=True, kw_only=True)
class Cores:
    """Number of cores and their arrangement on the network on chip."""

    count: int
    mesh_rows: int
    mesh_columns: int


@dataclass(frozen=True, kw_only=True)
class Memory:
    """One SRAM: an access moves `port_bits` at once and costs `read_pj` or `write_pj`."""

    size_bits: int
    port_bits: int
    ports: int
    read_pj: float
    write_pj: float
    leak_mw: float
    scope: Literal["engine", "core", "chip"]

    def read_element_pj(self, bits: float) -> float:
        """Energy in pJ to read one element of `bits` bits that shares its access with its neighbours."""
        return self.read_pj * bits / self.port_bits

    def write_element_pj(self, bits: int) -> float:
        """Energy in pJ to write one element of `bits` bits that shares its access with its neighbours."""
        return self.write_pj * bits / self.port_bits


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A systolic array with the memories that play its roles (`ENGINE_ROLES`).

    Zeros of the operands in `zero_gating` cost no arithmetic; those in `zero_skipping` cost no cycles either.
    """

    rows: int
    columns: int
    dataflow: Dataflow
    mac: Mac
    memories: Mapping[str, Memory]
    zero_gating: tuple[str, ...]
    zero_skipping: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Ops:
    """Energy of one operation in pJ; add, mul, comp and sqrt are FP16, registers are per access."""

    add_pj: float
    mul_pj: float
    mux_pj: float
    comp_pj: float
    sqrt_pj: float
    register_1b_pj: float
    register_16b_pj: float
    register_32b_pj: float


@dataclass(frozen=True, kw_only=True)
class Dram:
    """Off-chip memory; `boundary` says whether the price is that of the device or of the whole path to the chip."""

    energy_pj_per_bit: float
    bandwidth_bytes_per_s: float
    boundary: Literal["device", "path"]


@dataclass(frozen=True, kw_only=True)
class Noc:
    """Network on chip: energy of an event and of a hop east/west and north/south, and the size of links and buffers."""

    link_bits_per_cycle: int
    buffer_flits: int
    event_pj: float
    hop_pj_ew: float
    hop_pj_ns: float
    hop_ns: float


@dataclass(frozen=True, kw_only=True)
class EnergySwitches:
    """Which parts enter the energy; bytes and times are reported in any case.

    `include_refill` (may be left out: false) charges what an engine's own SRAM reads again from the shared memory of
    its core, which the authors of the chip do not.
    """

    include_dram: bool
    include_noc: bool
    include_leakage: bool
    include_refill: bool = False


@dataclass(frozen=True, kw_only=True)
class LayerMapping:
    """How layers are laid on the engines.

    `strided_gradient`: BP and WG of a strided convolution loop over a zero-inserted map of input resolution
    (`zero_inserted`) or over the true output positions (`compacted`). `membrane`: the potential that BP needs is kept
    (`store`) or the forward pass runs again (`recompute`). `weights` (may be left out: dense): as 16 bits each, as a
    `bitmap` or by `run_length` where that is smaller, or `compressed`, the smallest of the three for each layer.
    """

    channel_quantum: int
    strided_gradient: Literal["zero_inserted", "compacted"]
    membrane: Literal["store", "recompute"]
    weights: Literal["dense", "bitmap", "run_length", "compressed"] = "dense"


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Several such chips that train together, each behind a link to a common server; a file may leave it out."""

    devices: int
    link_bits_per_s: float
    link_pj_per_bit: float


@dataclass(frozen=True, kw_only=True)
class Chip:
    """A validated chip. `norm_memory` and `optimizer_memory` are the SRAMs of the normalisation and Adam units; they
    also are what the engines of a core share: activations live in the first, weights in the second."""

    name: str
    node_nm: float
    clock_hz: float
    cores: Cores
    memories: Mapping[str, Memory]
    fp: Engine
    bp: Engine
    wg: Engine
    norm_memory: Memory
    optimizer_memory: Memory
    ops: Ops
    dram: Dram
    noc: Noc
    energy: EnergySwitches
    mapping: LayerMapping
    constants: tuple[Constant, ...]
    summary: str = ""
    fleet: Fleet | None = None
    crossbar: Crossbar | None = None  # the weights of FP and BP stay in arrays of devices

    @classmethod
    def from_yaml(cls, path: str | Path, presets: Path | None = None) -> Chip:
        """Read a chip file; `read_document` says what `base` in it and `presets` mean.

        Raises:
            ChipError: for an unreadable file, or with the list of all faults in it.
        """
        return cls.from_mapping(read_document(path, presets), str(path))

    @property
    def memory_count(self) -> Mapping[str, int]:
        """How many of each memory there are: one for the chip, or one in each core."""
        return {name: 1 if memory.scope == "chip" else self.cores.count for name, memory in self.memories.items()}

    @cached_property
    def arrays(self) -> Mapping[str, Engine]:
        """The engines with a systolic array, by name."""
        return {"fp": self.fp, "bp": self.bp, "wg": self.wg}

    @cached_property
    def prices(self) -> dict[tuple[Any, ...], Any]:
        """Prices that `cost` has worked out for this chip."""
        return {}

    @cached_property
    def shared_memories(self) -> Mapping[str, tuple[str, ...]]:
        """For each engine, the names of its memories that another engine uses too."""
        uses = {name: {id(m) for m in engine.memories.values()} for name, engine in self.arrays.items()}
        often = {key: [name for name in uses if id(memory) in uses[name]] for key, memory in self.memories.items()}
        return {n: tuple(key for key, users in often.items() if n in users and len(users) > 1) for n in uses}

    @classmethod
    def from_mapping(cls, mapping: Any, source: str) -> Chip:
        """Check a parsed chip file; `source` names it in the error message.

        Raises:
            ChipError: with the list of all faults.
        """
        reader = Reader()
        chip = _read_chip(reader, mapping)
        if chip is None:
            more = [f"and {len(reader.faults) - MOST_LISTED} more"] if len(reader.faults) > MOST_LISTED else []
            faults = "\n  ".join([*reader.faults[:MOST_LISTED], *more])
            raise ChipError(f"{source}: {counted(len(reader.faults), 'fault')} in this chip description:\n  {faults}")
        return chip

    def provenance(self) -> tuple[Constant, ...]:
        """All numbers of the chip in file order, one row each."""
        return self.constants


_PRICE = Bound(unit="pJ", low=0, high=1e6)
_LANES = Bound(unit="lanes", low=1, high=4096, whole=True)
_CORES = Bound(unit="cores", low=1, high=4096, whole=True)
_MEMORY = {
    "size_bits": Bound(unit="bit", low=1, high=2**43, whole=True),
    "port_bits": Bound(unit="bit", low=1, high=2**16, whole=True),
    "ports": Bound(unit="ports", low=1, high=64, whole=True),
    **dict.fromkeys(("read_pj", "write_pj"), _PRICE),
    "leak_mw": Bound(unit="mW", low=0, high=1e5),
}
_OPS = dict.fromkeys(
    ("add_pj", "mul_pj", "mux_pj", "comp_pj", "sqrt_pj", "register_1b_pj", "register_16b_pj", "register_32b_pj"), _PRICE
)
_DRAM = {
    "energy_pj_per_bit": Bound(unit="pJ/bit", low=0, high=1e4),
    "bandwidth_bytes_per_s": Bound(unit="B/s", low=1e6, high=1e14),
}
_NOC = {
    "link_bits_per_cycle": Bound(unit="bit/cycle", low=1, high=2**16, whole=True),
    "buffer_flits": Bound(unit="flits", low=1, high=2**16, whole=True),
    **dict.fromkeys(("event_pj", "hop_pj_ew", "hop_pj_ns"), _PRICE),
    "hop_ns": Bound(unit="ns", low=0, high=1e6),
}
_FLEET = {
    "devices": Bound(unit="devices", low=1, high=10_000, whole=True),
    "link_bits_per_s": Bound(unit="bit/s", low=1e3, high=1e13),
    "link_pj_per_bit": Bound(unit="pJ/bit", low=0, high=1e7),
}
_NODE = Bound(unit="nm", low=1, high=1000)
_CLOCK = Bound(unit="Hz", low=1e3, high=1e11)
_QUANTUM = Bound(unit="channels", low=1, high=4096, whole=True)
STRIDED = ("zero_inserted", "compacted")
WEIGHTS = ("dense", "bitmap", "run_length", "compressed")


def _read_chip(reader: Reader, document: Any) -> Chip | None:
    keys = ("name", "node_nm", "clock_hz", "cores", "memories", "engines", "shared", "ops", "dram", "noc", "energy",
            "mapping")  # fmt: skip
    # `templates` only holds the YAML anchors that keep the rest of a file short.
    top = reader.section(document, "", keys, optional=("templates", "summary", "fleet", "crossbar"))
    if top["name"] is not ABSENT and (not isinstance(top["name"], str) or not top["name"]):
        reader.faults.append(f"name: got {short(top['name'])}; a text is needed")
    node_nm = reader.number(top["node_nm"], "node_nm", _NODE)
    clock_hz = reader.number(top["clock_hz"], "clock_hz", _CLOCK)
    cores = _read_cores(reader, top["cores"])
    memories = _read_memories(reader, top["memories"])
    engines = reader.section(top["engines"], "engines", ("fp", "bp", "wg"))
    fp, bp, wg = (_read_engine(reader, engines[name], name, memories) for name in ("fp", "bp", "wg"))
    shared = _read_roles(reader, top["shared"], "shared", ("norm", "optimizer"), memories)
    ops = Ops(**reader.numbers(reader.section(top["ops"], "ops", tuple(_OPS)), "ops", _OPS))
    section = reader.section(top["dram"], "dram", (*_DRAM, "boundary"))
    boundary = reader.choice(section["boundary"], "dram.boundary", ("device", "path"))
    dram = Dram(**reader.numbers(section, "dram", _DRAM), boundary=boundary)
    noc = Noc(**reader.numbers(reader.section(top["noc"], "noc", tuple(_NOC)), "noc", _NOC))
    switches = ("include_dram", "include_noc", "include_leakage")
    section = reader.section(top["energy"], "energy", switches, optional=("include_refill",))
    if isinstance(top["energy"], dict) and "include_refill" in top["energy"]:
        section["include_refill"] = top["energy"]["include_refill"]
    energy = {key: reader.choice(section[key], f"energy.{key}", (True, False)) for key in section}
    extra = document if isinstance(document, dict) else {}
    fleet = None
    if "fleet" in extra:
        fleet = Fleet(**reader.numbers(reader.section(extra["fleet"], "fleet", tuple(_FLEET)), "fleet", _FLEET))
    crossbar = read_crossbar(reader, extra["crossbar"]) if "crossbar" in extra else None
    if not isinstance(extra.get("summary", ""), str):
        reader.faults.append(f"summary: got {short(extra['summary'])}; a text is needed")
    section = reader.section(
        top["mapping"], "mapping", ("channel_quantum", "strided_gradient", "membrane"), optional=("weights",)
    )
    stored = top["mapping"].get("weights", "dense") if isinstance(top["mapping"], dict) else "dense"
    mapping = LayerMapping(
        channel_quantum=reader.number(section["channel_quantum"], "mapping.channel_quantum", _QUANTUM),
        strided_gradient=reader.choice(section["strided_gradient"], "mapping.strided_gradient", STRIDED),
        membrane=reader.choice(section["membrane"], "mapping.membrane", ("store", "recompute")),
        weights=reader.choice(stored, "mapping.weights", WEIGHTS),
    )
    if reader.faults:
        return None
    return Chip(
        name=top["name"], node_nm=node_nm, clock_hz=clock_hz, cores=cores, memories=MappingProxyType(memories),
        fp=fp, bp=bp, wg=wg, norm_memory=shared["norm"], optimizer_memory=shared["optimizer"], ops=ops, dram=dram,
        noc=noc, energy=EnergySwitches(**energy), mapping=mapping, constants=tuple(reader.constants),
        summary=extra.get("summary", ""), fleet=fleet, crossbar=crossbar,
    )  # fmt: skip


def _read_cores(reader: Reader, node: Any) -> Cores:
    known = len(reader.faults)
    section = reader.section(node, "cores", ("count", "mesh"))
    count = reader.number(section["count"], "cores.count", _CORES)
    rows, columns = reader.entries(section["mesh"], "cores.mesh", _CORES, 2)
    if len(reader.faults) == known and ABSENT not in section.values() and rows * columns != count:
        reader.faults.append(f"cores.mesh: got [{rows}, {columns}] cores; the product must be cores.count = {count}")
    return Cores(count=count, mesh_rows=rows, mesh_columns=columns)


def _read_memories(reader: Reader, node: Any) -> dict[str, Memory]:
    if node is ABSENT:
        return {}
    if not isinstance(node, dict):
        reader.faults.append(f"memories: got {short(node)}; a mapping from memory names is needed")
        return {}
    memories = {}
    for name, entry in node.items():
        path = f"memories.{name}"
        section = sram.priced(reader.section(entry, path, (*_MEMORY, "scope")))
        scope = reader.choice(section["scope"], f"{path}.scope", ("engine", "core", "chip"))
        memories[str(name)] = Memory(**reader.numbers(section, path, _MEMORY), scope=scope)
    return memories


def _read_engine(reader: Reader, node: Any, name: str, memories: Mapping[str, Memory]) -> Engine:
    path = f"engines.{name}"
    section = reader.section(node, path, ("array", "dataflow", "mac", "memories", "zero_gating", "zero_skipping"))
    rows, columns = reader.entries(section["array"], f"{path}.array", _LANES, 2)
    return Engine(
        rows=rows,
        columns=columns,
        dataflow=reader.choice(section["dataflow"], f"{path}.dataflow", ("ws", "os", "is")),
        mac=reader.choice(section["mac"], f"{path}.mac", ("mux_add", "mul_add")),
        memories=_read_roles(reader, section["memories"], f"{path}.memories", ENGINE_ROLES[name], memories),
        zero_gating=reader.operands(section["zero_gating"], f"{path}.zero_gating", ENGINE_OPERANDS[name]),
        zero_skipping=reader.operands(section["zero_skipping"], f"{path}.zero_skipping", ENGINE_OPERANDS[name]),
    )


def _read_roles(
    reader: Reader, node: Any, path: str, roles: Sequence[str], memories: Mapping[str, Memory]
) -> Mapping[str, Memory]:
    section = reader.section(node, path, roles)
    for role, name in section.items():
        # Without any memory the fault is told already, and need not be told again for each role.
        if name is not ABSENT and memories and not (isinstance(name, str) and name in memories):
            reader.faults.append(f"{path}.{role}: got {short(name)}; no such memory, known are {', '.join(memories)}")
    return MappingProxyType({role: memories[name] for role, name in section.items() if str(name) in memories})
