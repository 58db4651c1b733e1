"""Numbers with an origin: reads a YAML tree in which each number is written {value, unit, source, node_nm, tier}.

A `Reader` walks the tree, checks it, and keeps going after a fault, so that a user sees all faults of a file at once.
It knows nothing about chips.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TIERS = ("published", "derived", "fit", "assumed")


@dataclass(frozen=True, kw_only=True)
class Constant:
    """Where a number comes from: its YAML path, value, unit, source, technology node in nm and tier."""

    path: str
    value: float
    unit: str
    source: str
    node_nm: float
    tier: str


@dataclass(frozen=True, kw_only=True)
class Bound:
    """The unit a number must have and the closed range it must lie in."""

    unit: str
    low: float
    high: float
    whole: bool = False


class Absent:
    """Stands for a value that was reported missing already."""

    def __repr__(self) -> str:
        return "nothing"


ABSENT = Absent()


MOST_LISTED = 12  # faults, or unknown keys of a section, that a message spells out
_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80
_SHORT.maxlevel = 2


class Reader:
    """Walks a parsed YAML tree, noting faults and constants; after a fault the returned value is a placeholder."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.constants: list[Constant] = []

    def section(self, node: Any, path: str, keys: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Any]:
        """The values of a mapping that must have exactly `keys`, and may have the `optional` ones (not read)."""
        if node is ABSENT:
            return dict.fromkeys(keys, ABSENT)
        if not isinstance(node, dict):
            where = path or "the file"
            self.faults.append(f"{where}: got {short(node)}; a mapping with the keys {', '.join(keys)} is needed")
            return dict.fromkeys(keys, ABSENT)
        unknown = [dotted(path, str(key)[:40]) for key in node if key not in keys and key not in optional]
        if unknown:
            listed = ", ".join(unknown[:MOST_LISTED]) + (" …" if len(unknown) > MOST_LISTED else "")
            self.faults.append(f"{listed}: unknown key; permitted are {', '.join((*keys, *optional))}")
        for key in keys:
            if key not in node:
                self.faults.append(f"{dotted(path, key)}: missing")
        return {key: node.get(key, ABSENT) for key in keys}

    def entries(self, node: Any, path: str, bound: Bound, count: int) -> list[Any]:
        """`count` numbers with one origin; one is written as a number, more as a list."""
        placeholder = [bound.low] * count
        if node is ABSENT:
            return placeholder
        if not isinstance(node, dict):
            self.faults.append(
                f"{path}: got {short(node)}; write {{value, unit, source, node_nm, tier}}, unit {bound.unit}"
            )
            return placeholder
        record = self.section(node, path, ("value", "unit", "source", "node_nm", "tier"))
        if ABSENT in record.values():
            return placeholder
        values = record["value"] if count > 1 else [record["value"]]
        unit, permitted = record["unit"], f"{bound.low:g} to {bound.high:g} {bound.unit}"
        if unit != bound.unit:
            self.faults.append(f"{path}: got {short(record['value'])} in unit {short(unit)}; use the unit {bound.unit}")
        if not isinstance(record["source"], str) or not record["source"].strip():
            self.faults.append(f"{path}.source: got {short(record['source'])}; name where the number comes from")
        if record["tier"] not in TIERS:
            self.faults.append(f"{path}.tier: got {short(record['tier'])}; use one of {', '.join(TIERS)}")
        if not _is_finite(record["node_nm"]) or record["node_nm"] <= 0:
            self.faults.append(f"{path}.node_nm: got {short(record['node_nm'])}; use a technology node > 0 nm")
        if not isinstance(values, list) or len(values) != count:
            self.faults.append(f"{path}: got {short(values)} {unit}; {count} numbers are needed, each {permitted}")
            return placeholder
        for value in values:
            whole = not bound.whole or isinstance(value, int)
            if not _is_finite(value) or not bound.low <= value <= bound.high or not whole:
                kind = "a whole number" if bound.whole else "a number"
                self.faults.append(f"{path}: got {short(value)} {unit}; permitted is {kind} from {permitted}")
                return placeholder
        for index, value in enumerate(values):
            where = path if count == 1 else f"{path}[{index}]"
            origin = {key: record[key] for key in ("source", "node_nm", "tier")}
            self.constants.append(Constant(path=where, value=value, unit=unit, **origin))
        return values

    def number(self, node: Any, path: str, bound: Bound) -> Any:
        """One number with its origin."""
        return self.entries(node, path, bound, 1)[0]

    def numbers(self, section: Mapping[str, Any], path: str, bounds: Mapping[str, Bound]) -> dict[str, Any]:
        """The numbers of a section, one for each key of `bounds`."""
        return {key: self.number(section[key], dotted(path, key), bound) for key, bound in bounds.items()}

    def choice(self, node: Any, path: str, options: Sequence[Any]) -> Any:
        """One out of `options`, which share a type: YAML's 1 is not true."""
        if node is not ABSENT and (type(node) is not type(options[0]) or node not in options):
            self.faults.append(f"{path}: got {short(node)}; use one of {', '.join(map(str, options))}")
        return node

    def operands(self, node: Any, path: str, options: Sequence[str]) -> tuple[str, ...]:
        """A list of different names out of `options`."""
        if node is ABSENT:
            return ()
        if not isinstance(node, list) or not all(entry in options and node.count(entry) == 1 for entry in node):
            permitted = f"a list out of {', '.join(options)}"
            self.faults.append(f"{path}: got {short(node)}; permitted is {permitted}")
            return ()
        return tuple(node)


def short(value: object) -> str:
    """A value for a message: at most a line of it, also of one that YAML's aliases blow up."""
    return _SHORT.repr(value)


def dotted(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
