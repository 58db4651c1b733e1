"""The network on chip: a mesh of routers, routes along X first and then Y, and what moving bytes over it costs.

Cores are numbered along a snake, so that neighbours in number are neighbours on the mesh: a chain of cores passes data
on with one hop each, and a ring closes with the way back. A link carries one flit of `link_bits_per_cycle` in a cycle.
A transfer holds the links of its route until its last flit has left; one that finds a link taken waits. The delay of a
flit has the form of SANA-FE,

    max(hops * hop_ns, messages on the route * mean receive delay / (hops + 1)),

and a sender blocks while more than (hops + 1) * buffer_flits of its messages are on the route.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import ceil
from typing import NamedTuple

from spikeloom.accel.trainer.chip.chip import Chip

EVENT_BITS = 32


def position(core: int, columns: int) -> tuple[int, int]:
    """(row, column) of a core on the mesh; every second row runs backwards."""
    row, column = divmod(core, columns)
    return row, column if row % 2 == 0 else columns - 1 - column


@lru_cache(maxsize=1 << 16)
def route(source: int, target: int, columns: int) -> tuple[tuple[int, int], ...]:
    """The links from core to core as (from, to) pairs of router numbers row * columns + column; X first, then Y."""
    (row, column), (last_row, last_column) = position(source, columns), position(target, columns)
    links = []
    while column != last_column:
        step = 1 if last_column > column else -1
        links.append((row * columns + column, row * columns + column + step))
        column += step
    while row != last_row:
        step = 1 if last_row > row else -1
        links.append((row * columns + column, (row + step) * columns + column))
        row += step
    return tuple(links)


def chain(cores: Sequence[int], columns: int) -> list[tuple[int, int]]:
    """The links of a path through `cores` in this order."""
    return [link for a, b in zip(cores, cores[1:], strict=False) for link in route(a, b, columns)]


@lru_cache(maxsize=1 << 16)
def spread(core: int, others: tuple[int, ...], columns: int) -> tuple[tuple[int, int], ...]:
    """The links by which `core` reaches all `others`, given in order: one chain up and one down from it."""
    above, below = [c for c in others if c > core], [c for c in others if c < core][::-1]
    return tuple(link for way in (above, below) for link in chain((core, *way), columns))


def route_delay_ns(hops: int, messages: int, receive_ns: float, hop_ns: float) -> float:
    """Delay of a message among `messages` on a route of `hops` hops whose receiver takes `receive_ns` for each."""
    return max(hops * hop_ns, messages * receive_ns / (hops + 1))


def blocked_flits(flits: int, hops: int, buffer_flits: int) -> int:
    """Flits that wait in the sender, since the buffers along the route are full."""
    return max(0, flits - (hops + 1) * buffer_flits)


def transfer_pj(chip: Chip, size_bytes: float, links: Sequence[tuple[int, int]]) -> float:
    """Energy of one transfer: its events of 32 bits, and a hop for each flit on each link."""
    noc, bits, columns = chip.noc, 8 * size_bytes, chip.cores.mesh_columns
    east_west = sum(a // columns == b // columns for a, b in links)
    flits = ceil(bits / noc.link_bits_per_cycle)
    hops = east_west * noc.hop_pj_ew + (len(links) - east_west) * noc.hop_pj_ns
    return ceil(bits / EVENT_BITS) * noc.event_pj + flits * hops


def transfers_pj(sent: Sequence[tuple[Sequence[tuple[int, int]], int, int]], chip: Chip) -> float:
    """Energy of (links, bytes, how often); nothing where the chip file leaves the network out."""
    if not chip.energy.include_noc:
        return 0.0
    return sum(times * transfer_pj(chip, size, links) for links, size, times in sent)


def ring_steps(size_bytes: int, cores: int) -> tuple[int, int]:
    """Bytes that each core of a ring sends in a reduce-scatter (or an all-gather) of `size_bytes`, and the steps."""
    return (size_bytes * (cores - 1) // cores, cores - 1) if cores > 1 else (0, 0)


class Transfer(NamedTuple):
    """A message on its route; `delay_cycles` is that of its last flit behind the `flits` cycles it takes to leave."""

    links: tuple[tuple[int, int], ...]
    size_bytes: int
    flits: int
    delay_cycles: float
    blocked_flits: int


@dataclass
class Network:
    """The mesh, and what went over its links. Times are in cycles."""

    chip: Chip
    carried: dict[tuple[int, int], int] = field(default_factory=dict)  # bytes
    waited_cycles: float = 0.0
    blocked_flits: int = 0

    @property
    def columns(self) -> int:
        return self.chip.cores.mesh_columns

    def transfer(self, links: Sequence[tuple[int, int]], size_bytes: int) -> Transfer:
        """What is the same for each message of this size on this route."""
        noc, hops = self.chip.noc, len(links)
        flits = ceil(8 * size_bytes / noc.link_bits_per_cycle)
        cycle_ns = 1e9 / self.chip.clock_hz
        delay_ns = route_delay_ns(hops, min(flits, (hops + 1) * noc.buffer_flits), cycle_ns, noc.hop_ns)
        return Transfer(
            tuple(links), size_bytes, flits, delay_ns / cycle_ns, blocked_flits(flits, hops, noc.buffer_flits)
        )
